"""Find what breaks an invariant in a file: with a statement, or with a function that asks SQLite.

SQLite makes a temporary index for the statements where another tool has dropped one.
"""

from collections.abc import Iterable, Iterator

import peewee as pw

from service.storage.invariants import invariants, rows
from service.storage.sqlite import drift
from service.storage.sqlite.breaches import (
    COUNTS,
    FILED,
    HISTORY,
    IDS,
    LIMITS,
    LINE,
    NAMES,
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
from service.storage.sqlite.words import FILLED, MISSPELT, misread


def _differences(db: pw.Database) -> Iterator[tuple[str]]:
    return ((each.text,) for each in drift.compare(db))


def _pages(db: pw.Database) -> Iterator[tuple[str]]:
    for table in drift.tables():
        for (said,) in db.connection().execute(f"PRAGMA integrity_check({table})"):
            # Other invariants find the rows that break a constraint of the service, with a better text. A row that
            # breaks a constraint of another program is that program's affair.
            if said != "ok" and not said.startswith(("CHECK constraint failed", "NULL value in")):
                yield (f"{table}: {said}",)


def _broken_references(db: pw.Database) -> Iterator[tuple[str]]:
    for table in drift.tables():
        for _, _, parent, _ in db.connection().execute(f"PRAGMA foreign_key_check({table})"):
            if parent.lower() in drift.tables():  # A foreign key to a table of another program is that program's.
                yield (f"a row of {table} without its row of {parent}",)


def _types(db: pw.Database) -> Iterable[tuple[str]]:
    """Find values that are not of their column's type; SQLite stores a value of any type in any column."""
    parts = []
    for table, columns in drift.tables().items():
        if table in FILLED:
            continue
        cases = []
        for column, attributes in columns.attributes.items():
            kind = {"INTEGER": "integer", "BLOB": "blob"}.get(attributes["type"], "text")
            kinds = [kind] + ["null"] * ("not" not in attributes)
            cases.append(f"WHEN typeof({column}) NOT IN ({', '.join(map(repr, kinds))}) THEN {column!r}")
        parts.append(f"SELECT {NAMES[table]} || ', ' || CASE {' '.join(cases)} END AS value FROM {table}")
    found: Iterable[tuple[str]] = db.connection().execute(
        f"SELECT value FROM ({' UNION ALL '.join(parts)}) WHERE value IS NOT NULL"
    )
    return found


INVARIANTS = invariants(
    {
        "schema": _differences,
        "integrity": _pages,
        "types": _types,
        "ids": rows(IDS),
        "sequence": rows(SEQUENCE),
        "references": rows(REFERENCES),
        "foreign keys": _broken_references,
        "standing": rows(STANDING),
        "limits": rows(LIMITS),
        "counts": rows(COUNTS),
        "seats": rows(SEATS),
        "line": rows(LINE),
        "history": rows(HISTORY),
        "state": rows(STATE),
        "turns": rows(TURNS),
        "times": rows(TIMES),
        "filed": rows(FILED),
        "windows": rows(WINDOWS),
        "external ids": rows(TAKEN),
        "notes": rows(NOTES),
        "letters": misread,
        "words": rows(MISSPELT),
    }
)
