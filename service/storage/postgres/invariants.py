"""Find what breaks an invariant in a school on PostgreSQL.

PostgreSQL itself holds what needs no check: types, foreign keys, and that the pages of a table are whole.
"""

from collections.abc import Iterator

import peewee as pw

from service.storage import fetch
from service.storage.invariants import invariants, rows
from service.storage.letters import is_told, letters
from service.storage.postgres import drift
from service.storage.postgres.breaches import (
    COUNTS,
    HISTORY,
    IDS,
    LIMITS,
    LINE,
    MISSPELT,
    NOTES,
    REFERENCES,
    SEATS,
    SEQUENCE,
    STANDING,
    STATE,
    TAKEN,
    TIMES,
    TURNS,
    WINDOWS,
)


def _differences(db: pw.Database) -> Iterator[tuple[str]]:
    return ((each.text,) for each in drift.compare(db))


def _misread(db: pw.Database) -> Iterator[tuple[str]]:
    """Find letters that have not what the code has for them; another Python may know more of the newer ones."""
    found, ours = dict(fetch(db, "SELECT letter, plain FROM letters")), letters()
    for letter in {**ours, **found}:
        if found.get(letter) != ours.get(letter) and (is_told(letter) or (letter in found and letter in ours)):
            yield (f"letter {letter!r}",)


INVARIANTS = invariants(
    {
        "schema": _differences,
        "ids": rows(IDS),
        "sequence": rows(SEQUENCE),
        "references": rows(REFERENCES),
        "standing": rows(STANDING),
        "limits": rows(LIMITS),
        "counts": rows(COUNTS),
        "seats": rows(SEATS),
        "line": rows(LINE),
        "history": rows(HISTORY),
        "state": rows(STATE),
        "turns": rows(TURNS),
        "times": rows(TIMES),
        "windows": rows(WINDOWS),
        "external ids": rows(TAKEN),
        "notes": rows(NOTES),
        "letters": _misread,
        "words": rows(MISSPELT),
    }
)
