"""Find the rows that the words of a search begin: which range of the table of the words a page reads, and what it asks.

A row of that table is one beginning that finds a student: the first three letters of a word, a longer word whole and,
behind ^, the first letter and the first two of the first word of the name. Each row has all words of the student, each
behind a comma, so one row answers for all words of a search. The triggers of the table students keep these rows, and
the view `words_of_students` in `schema.sql` says what a word is. For courses all is the same.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
import peewee as pw

from service.storage import fetch
from service.storage.letters import is_told, letters
from service.storage.texts import stored

FEW = 4_000
"""How many rows of a word are read and sorted for each page, which takes 2 ms. A word that begins more rows is a large
part of the rows with its first three letters, and among those, which are in the order of the page, a page is soon
found."""
TRIED = 4
"""How many words of a search are tried, the longest first, for the one that begins the fewest rows."""
BEGINNING = 3
"""How many letters of each word are a beginning in the table of the words."""

FILLED = {"letters", "student_words", "student_words_before", "course_words", "course_words_before"}
"""Tables that `fill` can fill from the other tables and from the code."""
# The rows that are there but should not be, and those that should be but are not.
MISSPELT = " UNION ALL ".join(
    f"""
    SELECT DISTINCT '{noun} ' || {noun}_id FROM (
        SELECT {noun}_id FROM (
            SELECT beginning, name, {noun}_id, words, TRUE AS kept FROM {noun}_words
            UNION ALL
            SELECT beginning, name, {noun}_id, words, FALSE FROM words_of_{noun}s)
        GROUP BY {noun}_id, beginning, name, words
        HAVING min(kept) = max(kept))"""
    for noun in ("student", "course")
)

Conditions = Sequence[tuple[str, tuple[Any, ...]]]
"""Conditions of a WHERE, each with the values of its placeholders."""


@attrs.frozen
class Search:
    """What a page of a search reads: the conditions on rows of the table of the words, and whether those are in order.

    Where they are not, a student may be there more than once, with several words.
    """

    conditions: Conditions
    in_order: bool = True


def search(db: pw.Database, table: str, q: str) -> Search | None:
    """Tell how to search a table of words for all words of `q`, or give None where `q` has no word."""
    words = _folded(db, q)
    if not words:
        return None
    long = sorted((word for word in words if len(word) >= BEGINNING), key=len, reverse=True)
    if not long:
        # The first word begins the name, and every other one any word.
        return Search([("beginning = ?", (f"^{words[0]}",)), *_having(words[1:])])
    tries = {word: _begun(word) for word in long[:TRIED]}
    counts = {word: _count(db, table, each) for word, each in tries.items()}
    rarest = min(tries, key=counts.__getitem__)
    if counts[rarest] < FEW:
        others = _having(word for word in words if word != rarest)
        return Search([*tries[rarest].conditions, *others], tries[rarest].in_order)
    # Of frequent words, the one whose rows reach furthest down the names has the fewest rows to a page.
    thinnest = max((word[:BEGINNING] for word in tries), key=lambda beginning: _reach(db, table, beginning))
    return Search([("beginning = ?", (thinnest,)), *_having(word for word in words if word != thinnest)])


def _folded(db: pw.Database, q: str) -> list[str]:
    """Give the words of a text, without case, accents and punctuation.

    The triggers make words plain by the same table, so no letter is one thing here and another thing there.
    """
    given = [*dict.fromkeys(q)]
    sql = f"SELECT letter, plain FROM letters WHERE letter IN ({', '.join('?' * len(given))})"
    plain = dict(fetch(db, sql, *given))
    return [*dict.fromkeys("".join(plain.get(each, each) for each in q).replace("-", "").split())]


def _begun(word: str) -> Search:
    """Give the rows of a word of three letters or more, and of longer words that begin with it."""
    if len(word) == BEGINNING:
        return Search([("beginning = ?", (word,))])
    *begin, last = word.encode()
    # In the order of bytes, this is the least text behind all that begin with the word; it may not be UTF-8.
    behind = bytes([*begin, last + 1])
    return Search([("beginning >= ?", (word,)), ("beginning < CAST(? AS TEXT)", (behind,))], in_order=False)


def _having(words: Iterable[str]) -> Conditions:
    return [("instr(words, ?)", (f",{word}",)) for word in words]


def _reach(db: pw.Database, table: str, beginning: str) -> bytes:
    """Give the name in the last of the first FEW rows of a beginning, in the form that names are compared in."""
    rows = fetch(db, f"SELECT name FROM {table} WHERE beginning = ? LIMIT 1 OFFSET {FEW - 1}", beginning)
    return stored(rows[0][0]).lower() if rows else b"\xff"  # No name is behind this, which is not UTF-8.


def _count(db: pw.Database, table: str, rows: Search) -> int:
    """Count rows, up to FEW."""
    where = " AND ".join(condition for condition, _ in rows.conditions)
    values = (value for _, given in rows.conditions for value in given)
    ((count,),) = fetch(db, f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {where} LIMIT {FEW})", *values)
    return int(count)


def misread(db: pw.Database) -> Iterator[tuple[str]]:
    """Find letters that have not what the code has for them; another Python may know more of the newer ones."""
    found, ours = dict(db.connection().execute("SELECT letter, plain FROM letters")), letters()
    for letter in {**ours, **found}:
        if found.get(letter) != ours.get(letter) and (is_told(letter) or (letter in found and letter in ours)):
            yield (f"letter {letter!r}",)


def fill(db: pw.Database) -> None:
    """Put the letters, and from them the words, into their tables anew."""
    db.execute_sql("DELETE FROM letters")
    db.connection().executemany("INSERT INTO letters (letter, plain) VALUES (?, ?)", letters().items())
    for noun in ("student", "course"):
        key = f"beginning, name, {noun}_id"
        db.execute_sql(f"DELETE FROM {noun}_words_before")
        db.execute_sql(f"DELETE FROM {noun}_words")
        db.execute_sql(f"""
            INSERT INTO {noun}_words ({key}, words)
            SELECT {key}, words FROM words_of_{noun}s WHERE TRUE ORDER BY {key}
            ON CONFLICT DO NOTHING""")
