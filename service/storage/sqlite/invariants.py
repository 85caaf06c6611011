"""List the invariants: what must hold in a database, whatever program wrote to it.

Each invariant has a name and a SELECT, or a function, that finds the rows that break it. The statements sort, group or
join whole tables, and SQLite makes a temporary index for them where another tool has dropped one: ten million
enrollments take minutes. The feed is the table enrollment_events, which has an event for each change of an enrollment.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
import peewee as pw

from service.storage.sqlite import drift

FORM = "%Y-%m-%dT%H:%M:%fZ"
"""RFC 3339 in UTC, to the millisecond, as SQLite's strftime writes it."""


def in_form(time: str) -> str:
    """Give the SQL condition that a time is in the form FORM.

    The modifier '+0 days' makes SQLite compute the date; without a modifier it accepts February 30.
    """
    return f"(strftime('{FORM}', {time}) IS {time} AND date({time}, '+0 days') IS substr({time}, 1, 10))"


PAIR = "'student ' || quote(student_id) || ' in course ' || quote(course_id)"
_EVENT = "'event ' || quote(id)"
_NAMES = {
    "students": "'student ' || quote(id)",
    "courses": "'course ' || quote(id)",
    "enrollments": PAIR,
    "enrollment_events": _EVENT,
}

COUNTED = """
    WITH counted AS (
        SELECT course_id, count(*) - count(waiting) AS seats, count(waiting) AS places
        FROM enrollments
        GROUP BY course_id)"""
# For each student in each course: `told` is the last event in the feed, `stands` is the row in the table enrollments,
# which is a seat or a place in line.
SIDES = """
    WITH sides AS (
        SELECT student_id, course_id, substr(max(event), 21) AS told, max(enrollment) AS stands
        FROM (
            SELECT student_id, course_id, printf('%019d ', id) || type || ' ' || at AS event, NULL AS enrollment
            FROM enrollment_events
            UNION ALL
            SELECT student_id, course_id, NULL, CASE WHEN waiting IS NULL THEN 'seat ' || coalesce(enrolled_at, '')
                                                     ELSE 'place' END
            FROM enrollments)
        GROUP BY student_id, course_id)"""
AGREES = """
    coalesce(CASE WHEN stands IS NULL THEN told LIKE 'dropped %'
                  WHEN stands = 'place' THEN told LIKE 'waitlisted %'
                  ELSE told IN ('enrolled' || substr(stands, 5), 'promoted' || substr(stands, 5)) END, FALSE)"""
# Events that cannot follow the event before them of the same student and course, such as "promoted" after "dropped".
# `over` tells whether a later "dropped" has ended the enrollment, so that the state now is right again.
MISTOLD = """
    SELECT steps.id, steps.student_id, steps.course_id, coalesce(steps.id <= drops.latest, FALSE) AS over
    FROM (
        SELECT id, student_id, course_id, type, coalesce(lag(type) OVER pair, 'dropped') AS before
        FROM enrollment_events
        WINDOW pair AS (PARTITION BY student_id, course_id ORDER BY id)) AS steps
    LEFT JOIN (
        SELECT student_id, course_id, max(id) AS latest
        FROM enrollment_events
        WHERE type = 'dropped'
        GROUP BY student_id, course_id) AS drops
      ON drops.student_id = steps.student_id AND drops.course_id = steps.course_id
    WHERE (steps.before, steps.type) NOT IN (
        VALUES ('dropped', 'enrolled'), ('dropped', 'waitlisted'), ('waitlisted', 'promoted'),
               ('enrolled', 'dropped'), ('waitlisted', 'dropped'), ('promoted', 'dropped'))"""
# The place in line that the feed gives to each student who waits: the id of the last event "waitlisted".
PLACES = """
    SELECT student_id, course_id, max(id) AS place
    FROM enrollment_events
    WHERE type = 'waitlisted'
    GROUP BY student_id, course_id"""
# Events that a student's feed would leave out: it finds an event in the index of events by student, which has those
# with `filed` alone, or by the column event_id of the enrollment. These events are found in neither way.
UNFILED = """
    SELECT enrollment_events.id FROM enrollment_events
    LEFT JOIN enrollments
      ON enrollments.student_id = enrollment_events.student_id
     AND enrollments.course_id = enrollment_events.course_id
     AND enrollments.event_id = enrollment_events.id
    WHERE NOT enrollment_events.filed AND enrollments.student_id IS NULL"""
# SQLite never gave an id so high: another program chose the number itself, and the next ids must not follow it.
BEYOND = 1 << 62
LATEST = " UNION ALL ".join(
    f"""
    SELECT '{table}' AS name, max(
        coalesce((SELECT max(id) FROM {table}), 0),
        coalesce((SELECT max({column}) FROM enrollment_events WHERE {column} < {BEYOND}), 0)) AS last"""
    for table, column in (("students", "student_id"), ("courses", "course_id"))
)
SEQUENCE = f"""
    SELECT 'the table ' || name FROM ({LATEST})
    LEFT JOIN sqlite_sequence USING (name)
    WHERE last > coalesce(seq, 0)"""
IDS = " UNION ALL ".join(
    f"SELECT {label} FROM {table} GROUP BY {'student_id, course_id' if label == PAIR else 'id'} "
    f"HAVING count(*) > 1{'' if label == PAIR else ' OR id < 1'}"
    for table, label in _NAMES.items()
)
STANDING = f"SELECT {PAIR} FROM enrollments WHERE (enrolled_at IS NULL) = (waiting IS NULL)"
REFERENCES = f"""
    SELECT {PAIR} FROM (
        SELECT enrollments.student_id, enrollments.course_id FROM enrollments
        LEFT JOIN students ON students.id = enrollments.student_id
        LEFT JOIN courses ON courses.id = enrollments.course_id
        WHERE students.id IS NULL OR courses.id IS NULL)"""
LIMITS = f"""
    {COUNTED}
    SELECT 'course ' || courses.id || ' with ' || coalesce(counted.seats, 0) || ' enrolled and '
           || coalesce(counted.places, 0) || ' waiting'
    FROM courses
    LEFT JOIN counted ON counted.course_id = courses.id
    WHERE counted.seats > courses.capacity OR counted.places > courses.waitlist_capacity
       OR courses.capacity < 0 OR courses.waitlist_capacity < 0"""
COUNTS = f"""
    {COUNTED}
    SELECT 'course ' || courses.id
    FROM courses
    LEFT JOIN counted ON counted.course_id = courses.id
    WHERE (courses.enrolled, courses.waitlisted) IS NOT (coalesce(counted.seats, 0), coalesce(counted.places, 0))"""
SEATS = f"""
    {COUNTED}
    SELECT 'course ' || courses.id
    FROM courses
    LEFT JOIN counted ON counted.course_id = courses.id
    WHERE coalesce(counted.places, 0) > 0 AND (courses.capacity IS NULL OR counted.seats < courses.capacity)"""
LINE = f"""
    SELECT {PAIR} FROM (
        SELECT told.student_id, told.course_id,
               count(*) OVER (PARTITION BY told.course_id, enrollments.waiting) AS sharing,
               row_number() OVER (PARTITION BY told.course_id ORDER BY enrollments.waiting) AS position,
               row_number() OVER (PARTITION BY told.course_id ORDER BY told.place) AS turn
        FROM enrollments
        CROSS JOIN ({PLACES}) AS told
          ON told.student_id = enrollments.student_id AND told.course_id = enrollments.course_id
        WHERE enrollments.waiting IS NOT NULL)
    WHERE position <> turn OR sharing > 1"""
HISTORY = f"SELECT {_EVENT}, over FROM ({MISTOLD})"
STATE = f"{SIDES} SELECT {PAIR} FROM sides WHERE NOT {AGREES}"
# Events that gave a seat (at the event `until`) although a student who came earlier to the same course was still in
# line. That student was so if the event that took the student out of the line came after `until`, or never came, for
# which the largest integer stands.
TURNS = """
    WITH steps AS (
        SELECT id, course_id, type, lead(id) OVER pair AS following, lead(type) OVER pair AS next
        FROM enrollment_events
        WINDOW pair AS (PARTITION BY student_id, course_id ORDER BY id)),
    arrivals AS (
        SELECT id, course_id, type = 'enrolled' OR coalesce(next = 'promoted', FALSE) AS seated,
               CASE type WHEN 'enrolled' THEN id ELSE coalesce(following, 9223372036854775807) END AS until
        FROM steps
        WHERE type IN ('enrolled', 'waitlisted'))
    SELECT 'event ' || until, others < 9223372036854775807 FROM (
        SELECT seated, until, max(until) OVER (
            PARTITION BY course_id ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS others
        FROM arrivals)
    WHERE seated AND others > until"""
TIMES = f"""
    SELECT {PAIR}, FALSE FROM enrollments WHERE enrolled_at IS NOT NULL AND NOT {in_form("enrolled_at")}
    UNION ALL
    SELECT {_EVENT}, TRUE FROM enrollment_events WHERE NOT {in_form("at")}"""
FILED = f"SELECT {_EVENT} FROM ({UNFILED})"


@attrs.frozen
class Invariant:
    """One thing that must hold.

    `says` is the text that a report puts behind the names of the rows that break the invariant. `mend` tells a person
    what to do, and is empty if `repair` can mend it. `find` gives rows of (name,) or (name, is it over): what is over
    is told in the feed for ever, but the state now is right again.
    """

    name: str
    says: str
    find: Callable[[pw.Database], Iterable[tuple[Any, ...]]]
    mend: str = ""


def _rows(sql: str) -> Callable[[pw.Database], Iterable[tuple[Any, ...]]]:
    return lambda db: db.connection().execute(sql)


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
        cases = []
        for column, attributes in columns.attributes.items():
            kinds = ["integer" if attributes["type"] == "INTEGER" else "text"] + ["null"] * ("not" not in attributes)
            cases.append(f"WHEN typeof({column}) NOT IN ({', '.join(map(repr, kinds))}) THEN {column!r}")
        parts.append(f"SELECT {_NAMES[table]} || ', ' || CASE {' '.join(cases)} END AS value FROM {table}")
    rows: Iterable[tuple[str]] = db.connection().execute(
        f"SELECT value FROM ({' UNION ALL '.join(parts)}) WHERE value IS NOT NULL"
    )
    return rows


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
        _rows(IDS),
        "Delete what is too much, or give it another id.",
    ),
    Invariant("sequence", "an id would be given a second time", _rows(SEQUENCE)),
    Invariant(
        "references",
        "the student or the course does not exist",
        _rows(REFERENCES),
        "Add what is missing under its id, or take the enrollment away: "
        "DELETE FROM enrollments WHERE student_id NOT IN (SELECT id FROM students) "
        "OR course_id NOT IN (SELECT id FROM courses)",
    ),
    Invariant("foreign keys", "SQLite finds a reference to nothing", _broken_references, "Mend the references first."),
    Invariant(
        "standing",
        "it is neither a seat nor a place in line, or both",
        _rows(STANDING),
        "Delete it, and enroll anew: DELETE FROM enrollments WHERE (enrolled_at IS NULL) = (waiting IS NULL)",
    ),
    Invariant(
        "limits",
        "more are enrolled, or wait, than the limits allow",
        _rows(LIMITS),
        "Raise the limit, as in: UPDATE courses SET capacity = 31 WHERE id = 1, or drop students",
    ),
    Invariant("counts", "its counts are not those of its enrollments", _rows(COUNTS)),
    Invariant("seats", "a seat is free while someone waits", _rows(SEATS)),
    Invariant("line", "the places in line are not in the feed's order, or shared", _rows(LINE)),
    Invariant("history", "it cannot follow what was told before", _rows(HISTORY)),
    Invariant("state", "the feed tells it otherwise", _rows(STATE)),
    Invariant(
        "turns",
        "it gave a seat while another was longer in line",
        _rows(TURNS),
        "Give the others a seat too: raise the capacity of the course.",
    ),
    Invariant(
        "times",
        "the time is not in the form 2026-09-01T08:30:00.000Z",
        _rows(TIMES),
        "Drop the student, and enroll anew.",
    ),
    Invariant("filed", "the student's feed leaves it out", _rows(FILED)),
)
