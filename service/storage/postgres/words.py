"""Search students and courses by words: which rows have, for each word of a search, a word that begins with it.

The column `words` has the words of a row, which the triggers keep, and an index of beginnings leads to them.
"""

import re

import peewee as pw

from service.storage import fetch

BEGINNING = 3
"""How many letters a word must have to be sought anywhere, if no other word has as many."""
LONGEST = 500
"""How many letters of a word are kept, as in `schema.sql`."""
NEXT = 1_000
"""How many rows, in the order of the page, are looked at first. A word that many rows have fills a page from these; of
a word that few have, the index gives all rows, and they are sorted."""

_PUNCTUATION = re.compile(r"[^0-9a-z\x80-\U0010ffff]")


def sought(db: pw.Database, q: str) -> str | None:
    """Give the condition on the column `words` for the words of a text, or None where it has no word.

    The triggers make words plain by the same function, so no letter is one thing here and another thing there. The
    words stand in the statement, because PostgreSQL plans it by how many rows have them; they are letters and digits
    alone, so they end neither a word of a tsquery nor a text of SQL.
    """
    ((folded,),) = fetch(db, "SELECT enrollment_folded(?)", q)
    words = [_PUNCTUATION.sub("", word)[:LONGEST] for word in folded.split(" ")]
    words = [*dict.fromkeys(word for word in words if word)]
    if not words:
        return None
    if all(len(word) < BEGINNING for word in words):
        words[0] = f"^{words[0]}"  # The first word begins the name, and every other one any word.
    beginnings = " & ".join(f"''{word}'':*" for word in words)
    return f"words @@ '{beginnings}'::tsquery"
