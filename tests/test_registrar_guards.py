"""What other programs write of external ids, terms, windows, overrides and notes keeps the rules or is refused."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import peewee as pw
import programs
import pytest
from invariants import check
from programs import rows_of, run_sql
from starlette.testclient import TestClient
from test_check import found, without_rules
from test_guards import other
from test_seats import standing

from service.courses import insert_course, update_course
from service.enrollments import drop, enroll
from service.errors import SetupError
from service.events import list_events
from service.storage.sqlite.schema import repair
from service.students import insert_student
from service.terms import insert_term

pytestmark = pytest.mark.both

__all__ = ["other"]

TIME = "2026-09-01T08:30:00.000Z"
SEAT = "INSERT INTO enrollments (student_id, course_id, enrolled_at, event_id) VALUES"


@pytest.fixture(autouse=True)
def _school(db: pw.Database) -> None:
    """Have Logic (1) with 1 in it and 2 and 3 in line, Music (2) in Autumn (1), Chess (3) full; 6 students with ids.

    Of the events the first (1 enrolled in Logic) has a reason, the second has an actor, and the third has no note; the
    fourth is an override, of 4 in Chess (3), and has neither.
    """
    with db.atomic():
        for number in range(1, 7):
            insert_student(db, f"Student {number}", external_id=f"S{number}")
        for name in ("Autumn", "Spring"):
            insert_term(db, name, external_id=name, starts_on="2026-09-01", ends_on="2026-12-18")
        insert_course(db, "Logic", "A1", 1, None, external_id="C1")
        insert_course(db, "Music", "A1", external_id="C2", term_id=1)
        insert_course(db, "Chess", "A1", 0, 0)
        enroll(db, 1, 1, reason="ill")
        enroll(db, 2, 1, actor="Eve")
        enroll(db, 3, 1)
        enroll(db, 4, 3, override=True)


BAD_TIMES = (
    *("'2026-09-01'", "'2026-09-01T08:30:00Z'", "'2026-09-01 08:30:00.000Z'", "'2026-02-30T08:30:00.000Z'"),
    *("'2026-09-01T25:30:00.000Z'", "'2026-09-01T08:30:00.000+'", "''", "1788251400", "x'41'", "'soon'"),
)
BAD_DAYS = ("'2026-9-1'", "'2026-02-30'", "'2026-13-01'", "'20260901'", "''", "20260901", "x'41'", f"'{TIME}'")
OF_ROWS = (
    "INSERT INTO {table} ({columns}, external_id) VALUES ({values}, '{id}')",
    "UPDATE {table} SET external_id = '{id}' WHERE id = 1",
    "UPDATE {table} SET external_id = 'same'",
    "UPDATE {table} SET external_id = ''",
    "UPDATE {table} SET id = 99 WHERE id = 1",
)
"""What is refused of each table that has external ids, in SQL that both kinds of database have."""
OF_ROWS_IN_SQLITE = (
    "INSERT OR REPLACE INTO {table} ({columns}, external_id) VALUES ({values}, '{id}')",
    "INSERT OR REPLACE INTO {table} (id, {columns}, external_id) VALUES (1, {values}, '{id}')",
    "INSERT OR IGNORE INTO {table} ({columns}, external_id) VALUES ({values}, '{id}')",
    "UPDATE OR REPLACE {table} SET external_id = '{id}' WHERE id = 1",
    "UPDATE OR REPLACE {table} SET external_id = 'same'",
    "UPDATE {table} SET external_id = x'41' WHERE id = 1",
    "INSERT INTO {table} ({columns}, external_id) VALUES ({values}, x'41')",
    "UPDATE OR REPLACE {table} SET id = 2 WHERE id = 1",
    "UPDATE {table} SET name = x'41' WHERE id = 1",
)
"""What else SQLite refuses; to PostgreSQL x'41' is another way to write the bits 01000001."""
TABLES = (
    {"table": "students", "columns": "name", "values": "'X'", "id": "S2"},
    {"table": "courses", "columns": "name, level", "values": "'X', '1'", "id": "C2"},
    {"table": "terms", "columns": "name", "values": "'X'", "id": "Spring"},
)
REFUSED = {
    **{table["table"]: [sql.format(**table) for sql in OF_ROWS] for table in TABLES},
    "texts": [f"UPDATE students SET {column} = '' WHERE id = 1" for column in ("given_name", "family_name", "email")],
    "terms of courses": [
        "UPDATE courses SET term_id = 9 WHERE id = 1",
        "UPDATE courses SET term_id = 'x' WHERE id = 1",
        "INSERT INTO courses (name, level, term_id) VALUES ('X', '1', 9)",
        "INSERT INTO courses (name, level, term_id) VALUES ('X', '1', 0)",
        "DELETE FROM terms WHERE id = 1",
        "DELETE FROM terms",
        *(f"UPDATE terms SET starts_on = {day}, ends_on = NULL" for day in BAD_DAYS),
        *(f"INSERT INTO terms (name, ends_on) VALUES ('X', {day})" for day in BAD_DAYS),
        "UPDATE terms SET ends_on = '2026-08-31' WHERE id = 2",
    ],
    "windows": [
        *(f"UPDATE courses SET opens_at = {time} WHERE id = 1" for time in BAD_TIMES),
        *(f"INSERT INTO courses (name, level, closes_at) VALUES ('X', '1', {time})" for time in BAD_TIMES),
        f"UPDATE courses SET opens_at = '{TIME}', closes_at = '{TIME}' WHERE id = 1",
    ],
    "overrides": [
        f"{SEAT} (1, 1, '{TIME}', 0)",
        f"{SEAT} (2, 1, '{TIME}', 0)",
        f"{SEAT} (9, 1, '{TIME}', 0)",
        f"{SEAT} (5, 9, '{TIME}', 0)",
        f"{SEAT} (5, 1, 'soon', 0)",
        f"{SEAT} (5, 1, '2026-02-30', 0)",
        "INSERT INTO enrollments (student_id, course_id, event_id) VALUES (5, 3, 0)",
        "INSERT INTO enrollments (student_id, course_id, waiting, event_id) VALUES (5, 3, 5, 0)",
    ],
    "notes": [
        "INSERT INTO event_notes (event_id, actor) VALUES (99, 'Eve')",
        "INSERT INTO event_notes (event_id, override) VALUES (5, TRUE)",
        "INSERT INTO event_notes (event_id, actor) VALUES (1, 'Eve')",
        "UPDATE event_notes SET event_id = 3 WHERE event_id = 1",
        "UPDATE event_notes SET reason = 'well' WHERE event_id = 1",
        "UPDATE event_notes SET actor = 'Eve' WHERE event_id = 1",
        "UPDATE event_notes SET actor = 'Eve', reason = NULL WHERE event_id = 1",
        "UPDATE event_notes SET actor = NULL WHERE event_id = 2",
        "UPDATE event_notes SET reason = 'late' WHERE event_id = 2",
        "UPDATE event_notes SET override = TRUE WHERE event_id = 1",
        "UPDATE event_notes SET override = FALSE WHERE event_id = 4",
        "DELETE FROM event_notes WHERE event_id = 1",
        "DELETE FROM event_notes",
    ],
}
"""What both kinds of database refuse."""
REFUSED_BY = {
    "sqlite": [
        *(sql.format(**table) for table in TABLES for sql in OF_ROWS_IN_SQLITE),
        "INSERT INTO students (name, email) VALUES ('X', x'41')",
        *(f"UPDATE students SET {column} = x'41' WHERE id = 1" for column in ("given_name", "family_name", "email")),
        f"INSERT OR REPLACE INTO enrollments (student_id, course_id, enrolled_at, event_id) VALUES (2, 1, '{TIME}', 0)",
        # PostgreSQL gives a place in line to whoever asks for both a seat and a place.
        f"INSERT INTO enrollments VALUES (5, 1, '{TIME}', 5, 0)",
        "INSERT OR REPLACE INTO event_notes (event_id, actor) VALUES (1, 'Eve')",
        "INSERT OR IGNORE INTO event_notes (event_id, actor) VALUES (99, 'Eve')",
        "UPDATE OR REPLACE event_notes SET event_id = 2 WHERE event_id = 1",
    ],
    "postgresql": [
        "MERGE INTO event_notes USING (SELECT 1 AS one) AS other ON event_id = one WHEN MATCHED THEN DELETE",
        "INSERT INTO event_notes (event_id) VALUES (1) ON CONFLICT (event_id) DO UPDATE SET actor = 'Eve'",
        "UPDATE event_notes SET override = NOT override",
        "UPDATE students SET external_id = repeat('x', 201) WHERE id = 1",
        "UPDATE terms SET starts_on = 'infinity'",
        "UPDATE courses SET opens_at = now() WHERE id = 1",
        "INSERT INTO terms (name, starts_on) VALUES ('X', 'today')",
    ],
}
"""What each kind refuses in words of its own."""


@pytest.mark.parametrize("of", [*REFUSED, "its own words"])
def test_the_database_refuses(kind: str, path: Path | str, other: Any, of: str) -> None:
    """An ordinary statement that would break a rule is refused whole, and nothing of it is kept."""
    before = rows_of(path)
    for sql in REFUSED.get(of, REFUSED_BY[kind]):
        with pytest.raises(programs.REFUSED):
            other.execute(sql)
        assert rows_of(path) == before, sql


ALLOWED = [
    "UPDATE students SET external_id = NULL, email = NULL, given_name = 'Ada'",
    "UPDATE students SET external_id = external_id || 'x'",
    "INSERT INTO courses (name, level, external_id) VALUES ('X', '1', 'S1')",
    "UPDATE courses SET term_id = '2' WHERE id = 2",
    "DELETE FROM terms WHERE id = 1",
    f"UPDATE courses SET opens_at = '{TIME}', closes_at = '2026-09-01T08:30:00.001Z'",
    "UPDATE courses SET opens_at = '0001-01-01T00:00:00.000Z', closes_at = '9999-12-31T23:59:59.999Z'",
    "UPDATE terms SET starts_on = '2024-02-29', ends_on = '2024-02-29'",
    "UPDATE event_notes SET reason = NULL",
    "UPDATE event_notes SET reason = NULL, actor = actor WHERE event_id = 1",
]
ALLOWED_BY = {
    "sqlite": [
        "INSERT OR REPLACE INTO students (id, name, external_id) VALUES (6, 'New', 'S6')",
        "INSERT OR REPLACE INTO terms (id, name, external_id) VALUES (2, 'New', 'Spring')",
    ],
    "postgresql": [
        (
            "INSERT INTO students (name, external_id) VALUES ('X', 'S6')"
            " ON CONFLICT (external_id) WHERE external_id IS NOT NULL DO UPDATE SET name = 'New'"
        ),
    ],
}


def test_the_database_allows(kind: str, other: Any) -> None:
    """What breaks no rule goes through: ids of their own, bounds and days in their form, a reason that is blanked."""
    for sql in ALLOWED_BY[kind] + ALLOWED:
        other.execute(sql)
    other.execute("UPDATE courses SET opens_at = NULL, closes_at = NULL")  # So that the check finds what is usual.


@pytest.mark.parametrize("course_id", [1, 2, 3])
@pytest.mark.parametrize("student_id", [5, "5"])
def test_an_insert_with_the_event_0_overrides(
    other: Any, client: TestClient, course_id: int, student_id: object
) -> None:
    """An INSERT of a seat with event_id 0 is an override: full, with others waiting, shut; its event says so."""
    seats, line = standing(client, course_id)
    course = client.get(f"/courses/{course_id}").json()
    other.execute("UPDATE courses SET closes_at = '2001-01-01T00:00:00.000Z'")
    other.execute(f"{SEAT} ({student_id!r}, {course_id}, '{TIME}', 0)")
    other.execute("UPDATE courses SET closes_at = NULL")
    assert standing(client, course_id) == (sorted([*seats, 5]), line)
    grown = client.get(f"/courses/{course_id}").json()["capacity"]
    assert grown == (course["capacity"] if course["seats_left"] != 0 else course["capacity"] + 1)
    (event,) = client.get("/events?student_id=5").json()
    assert (event["type"], event["at"]) == ("enrolled", TIME)
    notes = other.execute("SELECT event_id, override FROM event_notes ORDER BY event_id DESC LIMIT 1").fetchall()
    assert notes == [(event["id"], 1)]


@pytest.mark.parametrize(("course_id", "status"), [(1, "waitlisted"), (2, "enrolled")])
@pytest.mark.parametrize("columns", ["event_id", "event_id, waiting"])
def test_the_event_0_without_a_seat_is_no_override(
    other: Any, client: TestClient, course_id: int, status: str, columns: str
) -> None:
    """An INSERT with event_id 0 that asks for no seat of its own enrolls as any other one does."""
    values = "0, 99" if "waiting" in columns else "0"
    other.execute(f"INSERT INTO enrollments (student_id, course_id, {columns}) VALUES (5, {course_id}, {values})")
    assert client.get(f"/students/5/courses/{course_id}").json()["status"] == status
    assert other.execute("SELECT count(*) FROM event_notes WHERE override").fetchall() == [(1,)]


@pytest.mark.both(False, because="tests/test_postgresql_schema.py breaks the rows of PostgreSQL")
def test_turns_are_kept_beside_overrides(db: pw.SqliteDatabase, path: Path) -> None:
    """An override before others in line is no broken turn; what follows it is judged as ever."""
    enroll(db, 4, 1)
    enroll(db, 4, 1, override=True)
    enroll(db, 5, 1, override=True)
    assert found(path) == {}
    drop(db, 5, 1)
    update_course(db, 1, {"capacity": 4})
    drop(db, 1, 1)
    enroll(db, 6, 1)
    assert found(path) == {}
    events = [event for event in list_events(db, course_id=1) if event.type in {"promoted", "enrolled"}]
    assert [event.student_id for event in events] == [1, 4, 5, 2, 3, 6]
    without_rules(path, "UPDATE event_notes SET override = 0")
    assert found(path).keys() == {"turns"}


BROKEN = {
    "UPDATE courses SET opens_at = '2026-02-30T08:30:00.000Z' WHERE id = 2": {"windows": "course 2"},
    f"UPDATE courses SET opens_at = '{TIME}', closes_at = '{TIME}' WHERE id = 1": {"windows": "course 1"},
    "UPDATE courses SET closes_at = 'soon' WHERE id = 2": {"windows": "course 2"},
    "UPDATE terms SET starts_on = '2026-9-1' WHERE id = 2": {"windows": "term 2"},
    "UPDATE terms SET ends_on = '2025-01-01' WHERE id = 1": {"windows": "term 1"},
    "UPDATE students SET external_id = '' WHERE id = 3": {"external ids": "students, external id ''"},
    "DROP INDEX student_external_id; UPDATE students SET external_id = 'S1' WHERE id = 2": {
        "schema": "the index student_external_id is missing",
        "external ids": "students, external id 'S1'",
    },
    "UPDATE students SET external_id = x'41', email = x'42' WHERE id = 2": {"types": "student 2, external_id"},
    "UPDATE terms SET name = x'41' WHERE id = 1": {"types": "term 1, name"},
    "DELETE FROM terms WHERE id = 1": {"foreign keys": "a row of courses without its row of terms"},
    "INSERT INTO event_notes (event_id, reason) VALUES (99, 'why')": {"notes": "the note of event 99"},
    "INSERT INTO event_notes (event_id, reason) VALUES (3, x'41')": {"types": "the note of event 3, reason"},
    "UPDATE courses SET term_id = 'x' WHERE id = 2": {
        "types": "course 2, term_id",
        "foreign keys": "a row of courses without its row of terms",
    },
}


@pytest.mark.both(False, because="tests/test_postgresql_schema.py breaks the rows of PostgreSQL")
@pytest.mark.parametrize(("sql", "lines"), BROKEN.items())
def test_the_check_finds_what_is_broken(path: Path, sql: str, lines: dict[str, str]) -> None:
    """What was written past the triggers is told by the lines that it breaks; the repair mends it or names it."""
    assert found(path) == {}
    without_rules(path, sql)
    told = found(path)
    if "words" in told and "words" not in lines:
        lines = {**lines, "words": "student"}  # The search has the words of what was there before.
    assert {name: told[name].startswith(words) for name, words in lines.items()} == dict.fromkeys(told, True)
    if lines.keys() == {"notes"}:
        assert "notes were of no event: deleted 1." in repair(path)
        check(path)
        return
    with pytest.raises(SetupError) as refused:
        repair(path)
    for name, words in lines.items():
        assert name in {"schema", "words"} or f"{name}: {words}" in str(refused.value)
    assert found(path) == told


@pytest.mark.both(False, because="only SQLite has other names for an id")
@pytest.mark.parametrize("table", ["students", "courses", "terms"])
@pytest.mark.parametrize("column", ["id", "rowid", "_rowid_", "oid"])
def test_no_id_changes_by_any_of_its_names(path: Path, table: str, column: str) -> None:
    """SQLite has four names for the id of a row, and none of them gives the row another id."""
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.IntegrityError, match="never changes"):
        connection.execute(f"UPDATE {table} SET {column} = 77777 WHERE id = 1")


def test_a_blank_note_is_not_written_anew(path: Path | str, db: pw.Database) -> None:
    """Once a reason is made null, and the student has left, no program puts other words there."""
    enroll(db, 3, 1, override=True, reason="why")
    (event_id,) = db.execute_sql("SELECT max(event_id) FROM event_notes").fetchone()
    drop(db, 3, 1)
    run_sql(path, f"UPDATE event_notes SET reason = NULL WHERE event_id = {event_id}")
    for column in ("actor", "reason"):
        with pytest.raises(programs.REFUSED, match="never changed"):
            run_sql(path, f"UPDATE event_notes SET {column} = 'forged' WHERE event_id = {event_id}")
