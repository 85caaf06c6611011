"""Name the invariants: what must hold in a database of any kind, whatever program wrote to it.

Each kind of database has its own statements that find the rows that break an invariant. They sort, group or join whole
tables: ten million enrollments take minutes. The feed is the table enrollment_events, which has an event for each
change of an enrollment.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
import peewee as pw

Find = Callable[[pw.Database], Iterable[tuple[Any, ...]]]
"""Gives rows of (name,) or (name, is it over): what is over is told in the feed for ever, but the state now is right
again."""

WORDS = {
    "schema": ("the schema is not as the migrations make it", ""),
    "integrity": ("SQLite finds the file damaged", "Restore a backup."),
    "types": (
        "the value is not of its column's type",
        "Write another, as in: UPDATE courses SET capacity = 30 WHERE id = 1",
    ),
    "ids": ("it is there twice, or its id is below 1", "Delete what is too much, or give it another id."),
    "sequence": ("an id would be given a second time", ""),
    "references": (
        "the student or the course does not exist",
        (
            "Add what is missing under its id, or take the enrollment away: DELETE FROM enrollments WHERE student_id "
            "NOT IN (SELECT id FROM students) OR course_id NOT IN (SELECT id FROM courses)"
        ),
    ),
    "foreign keys": ("SQLite finds a reference to nothing", "Mend the references first."),
    "standing": (
        "it is neither a seat nor a place in line, or both",
        "Delete it, and enroll anew: DELETE FROM enrollments WHERE (enrolled_at IS NULL) = (waiting IS NULL)",
    ),
    "limits": (
        "more are enrolled, or wait, than the limits allow",
        "Raise the limit, as in: UPDATE courses SET capacity = 31 WHERE id = 1, or drop students",
    ),
    "counts": ("its counts are not those of its enrollments", ""),
    "seats": ("a seat is free while someone waits", ""),
    "line": ("the places in line are not in the feed's order, or shared", ""),
    "history": ("it cannot follow what was told before", ""),
    "state": ("the feed tells it otherwise", ""),
    "turns": (
        "it gave a seat while another was longer in line",
        "Give the others a seat too: raise the capacity of the course.",
    ),
    "times": ("the time is not in the form 2026-09-01T08:30:00.000Z", "Drop the student, and enroll anew."),
    "filed": ("the student's feed leaves it out", ""),
    "windows": (
        "a time or a day is not in its form, or the end does not come after the start",
        "Write another, as in: UPDATE courses SET closes_at = '2026-09-30T22:00:00.000Z' WHERE id = 1",
    ),
    "external ids": (
        "it is there twice, or empty",
        "Write another, or none: UPDATE students SET external_id = NULL WHERE id = 1",
    ),
    "notes": ("there is no such event", ""),
    "letters": ("the search takes it for another letter", ""),
    "words": ("the search does not find it by its words", ""),
}
"""What a report puts behind the names of the rows that break an invariant, and what a person is to do; that is empty
where `repair` can mend it. Some are of one kind of database alone."""


@attrs.frozen
class Invariant:
    """One thing that must hold, with the two texts of `WORDS`, and what finds the rows that break it."""

    name: str
    says: str
    mend: str
    find: Find


def invariants(finds: Mapping[str, Find]) -> tuple[Invariant, ...]:
    """Put the invariants of a kind of database together, in the order of `WORDS`."""
    return tuple(Invariant(name, *words, finds[name]) for name, words in WORDS.items() if name in finds)


def rows(sql: str) -> Find:
    """Give the `find` of an invariant that one statement checks."""
    return lambda db: db.execute_sql(sql)
