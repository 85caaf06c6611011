"""Search students and courses by words: which rows have, for each word of a search, a word that begins with it.

The column `words` has the words of a row, which the triggers keep, and an index of beginnings leads to them. Where few
rows have the words, PostgreSQL reads these and sorts them; where many have them, it reads the rows in the order of the
page, and soon has a page.
"""

import peewee as pw

from service.storage import fetch

BEGINNING = 3
"""How many letters a word must have to be sought anywhere, if no other word has as many."""
LONGEST = 500
"""How many letters of a word are kept, as in `schema.sql`."""


def sought(db: pw.Database, q: str) -> str | None:
    """Give the condition on the column `words` for the words of a text, as a tsquery, or None where it has no word.

    Folded words have neither a quotation mark nor a backslash, so none need be escaped. The triggers make words plain
    by the same function, so no letter is one thing here and another thing there.
    """
    ((folded,),) = fetch(db, "SELECT enrollment_folded(?)", q)
    words = [word[:LONGEST] for word in dict.fromkeys(folded.replace("-", "").split())]
    if not words:
        return None
    if all(len(word) < BEGINNING for word in words):
        words[0] = f"^{words[0]}"  # The first word begins the name, and every other one any word.
    return " & ".join(f"'{word}':*" for word in words)
