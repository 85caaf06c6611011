"""List the invariants: what must hold in a database, whatever program wrote to it.

Each invariant has a name and a SELECT, or a function, that finds the rows that break it. The statements sort, group or
join whole tables, and SQLite makes a temporary index for them where another tool has dropped one: ten million
enrollments take minutes. The feed is the table enrollment_events, which has an event for each change of an enrollment.
"""

from collections.abc import Iterable, Iterator

import peewee as pw

from service.storage.checks import Invariant, rows
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


INVARIANTS = (
    Invariant("schema", "the schema is not as the migrations make it", _differences),
    Invariant("integrity", "SQLite finds the file damaged", _pages, drift.BACKUP),
    Invariant(
        "types",
        "the value is not of its column's type",
        _types,
        "Write another, as in: UPDATE courses SET capacity = 30 WHERE id = 1",
    ),
    Invariant(
        "ids",
        "it is there twice, or its id is below 1",
        rows(IDS),
        "Delete what is too much, or give it another id.",
    ),
    Invariant("sequence", "an id would be given a second time", rows(SEQUENCE)),
    Invariant(
        "references",
        "the student or the course does not exist",
        rows(REFERENCES),
        "Add what is missing under its id, or take the enrollment away: "
        "DELETE FROM enrollments WHERE student_id NOT IN (SELECT id FROM students) "
        "OR course_id NOT IN (SELECT id FROM courses)",
    ),
    Invariant("foreign keys", "SQLite finds a reference to nothing", _broken_references, "Mend the references first."),
    Invariant(
        "standing",
        "it is neither a seat nor a place in line, or both",
        rows(STANDING),
        "Delete it, and enroll anew: DELETE FROM enrollments WHERE (enrolled_at IS NULL) = (waiting IS NULL)",
    ),
    Invariant(
        "limits",
        "more are enrolled, or wait, than the limits allow",
        rows(LIMITS),
        "Raise the limit, as in: UPDATE courses SET capacity = 31 WHERE id = 1, or drop students",
    ),
    Invariant("counts", "its counts are not those of its enrollments", rows(COUNTS)),
    Invariant("seats", "a seat is free while someone waits", rows(SEATS)),
    Invariant("line", "the places in line are not in the feed's order, or shared", rows(LINE)),
    Invariant("history", "it cannot follow what was told before", rows(HISTORY)),
    Invariant("state", "the feed tells it otherwise", rows(STATE)),
    Invariant(
        "turns",
        "it gave a seat while another was longer in line",
        rows(TURNS),
        "Give the others a seat too: raise the capacity of the course.",
    ),
    Invariant(
        "times",
        "the time is not in the form 2026-09-01T08:30:00.000Z",
        rows(TIMES),
        "Drop the student, and enroll anew.",
    ),
    Invariant("filed", "the student's feed leaves it out", rows(FILED)),
    Invariant(
        "windows",
        "a time or a day is not in its form, or the end does not come after the start",
        rows(WINDOWS),
        "Write another, as in: UPDATE courses SET closes_at = '2026-09-30T22:00:00.000Z' WHERE id = 1",
    ),
    Invariant(
        "external ids",
        "it is there twice, or empty",
        rows(TAKEN),
        "Write another, or none: UPDATE students SET external_id = NULL WHERE id = 1",
    ),
    Invariant("notes", "there is no such event", rows(NOTES)),
    Invariant("letters", "the search takes it for another letter", misread),
    Invariant("words", "the search does not find it by its words", rows(MISSPELT)),
)
