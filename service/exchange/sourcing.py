"""Say in SQL what rows of the school are called in OneRoster, and which seats there are, were given and were lost."""

from collections.abc import Callable, Mapping
from datetime import date

import peewee as pw

from service.exchange.selecting import quoted
from service.rows import Table
from service.storage import fetch

SourcedId = Callable[[str], str]
"""Gives the SQL of a sourcedId by the SQL of the id of a row."""
CR, LF = "\r", "\n"
AUGUST = 8
"""The month in which a school year begins."""

PREFIXES: Mapping[Table, str] = {"students": "user-", "courses": "class-", "terms": "term-"}
"""What comes before the id in the sourcedId of a row that has no external id."""
# What is tried next has one hyphen more, so the last of the names that are tried is the greatest.
FREE = """(
    WITH RECURSIVE tried (name) AS (
        SELECT {1}
        UNION ALL
        SELECT name || '-' FROM tried WHERE EXISTS (SELECT 1 FROM {0} AS other WHERE other.external_id = tried.name))
    SELECT max(name) FROM tried)"""

# The family name is what is behind the last space. A name of one word is both.
BEFORE = "rtrim(students.name, replace(students.name, ' ', ''))"
GIVEN = f"coalesce(students.given_name, nullif(rtrim({BEFORE}), ''), students.name)"
FAMILY = f"coalesce(students.family_name, nullif(substr(students.name, length({BEFORE}) + 1), ''), students.name)"

# What comes of a null is null, which is not true.
BOTH_NAMES = "students.name = students.given_name || ' ' || students.family_name"
OWN = {"name": "students.name", "givenName": "students.given_name", "familyName": "students.family_name"}
"""The SQL of the names as they are, which an import takes where BOTH_NAMES does not hold."""

DATED = "terms.starts_on IS NOT NULL AND terms.ends_on IS NOT NULL"
YEAR, NEXT = "CAST(substr(terms.ends_on, 1, 4) AS INTEGER)", "CAST(substr(terms.starts_on, 1, 4) AS INTEGER) + 1"
SCHOOL_YEAR = f"""CASE
    WHEN substr(terms.starts_on, 6, 2) >= '{AUGUST:02}' AND {NEXT} > {YEAR} THEN {NEXT} ELSE {YEAR} END"""
"""The SQL of the year in which the school year of a term ends."""
TERM_OF_COURSE = f"courses LEFT JOIN terms ON terms.id = courses.term_id AND {DATED}"

FILED = "/* filed */"
"""Stands for `Backend.FILED` in what is said of a student's events."""
# Where a trigger of another program wrote an event of its own first, enrollments.event_id may be another event's id.
# An older enrollment, and one by override, has none there: its event is in the index of events by student.
BEGAN = f"""coalesce((
        SELECT begun.id FROM enrollment_events AS begun
        WHERE begun.id = enrollments.event_id
          AND begun.student_id = enrollments.student_id AND begun.course_id = enrollments.course_id
    ), (
        SELECT max(begun.id) FROM enrollment_events AS begun
        WHERE begun.student_id = enrollments.student_id AND begun.course_id = enrollments.course_id
          AND begun.type IN ('enrolled', 'waitlisted') {FILED}))"""
SEATS = f"""
    SELECT enrollments.student_id, enrollments.course_id, {BEGAN} AS began,
        substr(enrollments.enrolled_at, 1, 10) AS begins, '' AS ends
    FROM enrollments
    WHERE enrollments.waiting IS NULL"""
# An enrollment has one event that gives the seat: the one that began it, or the promotion.
GIVEN_SEATS = f"""
    SELECT event.id, event.at, enrollments.student_id, enrollments.course_id, {BEGAN} AS began,
        substr(enrollments.enrolled_at, 1, 10) AS begins, '' AS ends
    FROM enrollment_events AS event
    JOIN enrollments ON enrollments.student_id = event.student_id AND enrollments.course_id = event.course_id
    WHERE event.type IN ('enrolled', 'promoted') AND enrollments.waiting IS NULL AND event.id >= {BEGAN}"""
LOST_SEATS = f"""
    SELECT event.id, event.at, event.student_id, event.course_id, event.began,
        substr(begun.at, 1, 10) AS begins, substr(event.at, 1, 10) AS ends
    FROM (
        SELECT enrollment_events.*, (
            SELECT max(begun.id) FROM enrollment_events AS begun
            WHERE begun.student_id = enrollment_events.student_id AND begun.course_id = enrollment_events.course_id
              AND begun.id < enrollment_events.id AND begun.type IN ('enrolled', 'waitlisted') {FILED}) AS began
        FROM enrollment_events
        WHERE enrollment_events.type = 'dropped') AS event
    JOIN enrollment_events AS begun ON begun.id = event.began
    WHERE EXISTS (
        SELECT 1 FROM enrollment_events AS seat
        WHERE seat.student_id = event.student_id AND seat.course_id = event.course_id
          AND seat.id >= event.began AND seat.id < event.id AND seat.type IN ('enrolled', 'promoted') {FILED})"""
"""The seats that were lost. Who left a waitlist was never exported."""
CHANGED = {
    "students": """
        AND (EXISTS (
                SELECT 1 FROM enrollments
                WHERE student_id = students.id AND waiting IS NULL AND event_id > {since:d}{of_term})
            OR EXISTS (
                SELECT 1 FROM enrollment_events
                WHERE student_id = students.id AND id > {since:d} AND type <> 'waitlisted' /* filed */{of_term}))""",
    "courses": """
        AND EXISTS (SELECT 1 FROM enrollment_events
                    WHERE course_id = courses.id AND id > {since:d} AND type <> 'waitlisted')""",
}
"""The condition of the students and courses that enrollments of a delta may refer to."""
CHANGES = "SELECT 1 FROM enrollment_events WHERE id > {since:d} AND type <> 'waitlisted'"
IN_COURSES = " AND course_id IN (SELECT id FROM courses WHERE term_id = {term_id:d})"
SEATED = " AND EXISTS (SELECT 1 FROM enrollments WHERE student_id = students.id AND waiting IS NULL{of_term})"


def literal(value: str) -> str:
    """Give the SQL of a text."""
    escaped = value.replace("'", "''")
    return f"'{escaped}'"


def school_year(day: date) -> int:
    """Give the year in which the school year of a day ends; a school year begins in August."""
    return day.year + (day.month >= AUGUST)


def cell(sql: str) -> str:
    """Give the SQL of a cell in quotes, which has no line breaks; it is empty for null."""
    return f"""coalesce({quoted(f"replace(replace({sql}, '{CR}', ' '), '{LF}', ' ')")}, '')"""


def sourced_id(db: pw.Database, table: Table) -> SourcedId:
    """Give the SQL of a row's sourcedId by that of its id: the external id, or else a name that no external id is."""
    prefix = PREFIXES[table]
    begins, ends = literal(prefix), literal(prefix.replace("-", "."))  # The sign behind the hyphen is the full stop.
    taken = fetch(db, f"SELECT 1 FROM {table} WHERE external_id >= {begins} AND external_id < {ends} LIMIT 1")
    own = f"{table}.external_id"
    if table == "terms":  # A class has a list of these, with a comma between two.
        own = f"CASE WHEN {own} NOT LIKE '%,%' THEN {own} END"

    def named(row: str) -> str:
        name = f"{begins} || CAST({row} AS TEXT)"
        return f"coalesce({own}, {FREE.format(table, name) if taken else name})"

    return named
