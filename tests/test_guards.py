"""What another program writes with plain SQL, references checked or not, keeps the rules or is refused."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import peewee as pw
import psycopg
import pytest
from invariants import check
from programs import REFUSED, is_file, open_program, rows_of
from starlette.testclient import TestClient

from service import bulk, courses, enrollments, students
from service.enrolling import EnrollmentRecord, find_enrollment
from service.storage import models

pytestmark = pytest.mark.both

TIME = "2026-09-01T08:30:00.000Z"


@pytest.fixture(autouse=True)
def _school(db: pw.Database) -> None:
    """Have six students; Logic (1) with one seat and two places in line, one of them taken; Chess (2) has no limits."""
    for number in range(1, 7):
        students.insert_student(db, f"Student {number}")
    courses.insert_course(db, "Logic", "1", 1, 2)
    courses.insert_course(db, "Chess", "1")
    for student_id in (1, 2):
        enrollments.enroll(db, student_id, 1)


@pytest.fixture(params=[0, 1], ids=["the usual way", "the careful way"])
def other(path: Path | str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Give another program's connection; when the test is over, the database must be in order.

    The careful way is to have SQLite check references, and PostgreSQL isolate transactions as well as it can. Times are
    shown as a new PostgreSQL shows them; where CURRENT_TIMESTAMP becomes a text of another form, it is refused.
    """
    with closing(open_program(path)) as connection:
        if is_file(path):
            connection.execute(f"PRAGMA foreign_keys = {request.param}")
        else:
            connection.execute("SET datestyle = ISO")
            connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE if request.param else None
        yield connection
    check(path)


REFUSED_OF = {
    "counts": [
        "UPDATE courses SET enrolled = 0",
        "UPDATE courses SET waitlisted = 0 WHERE id = 1",
        "UPDATE courses SET enrolled = enrolled + 1 WHERE id = 2",
        "UPDATE courses SET event_id = 99 WHERE id = 2",
        "UPDATE courses SET event_id = NULL, enrolled = 0 WHERE id = 1",
        "INSERT INTO courses (name, level, enrolled) VALUES ('Go', '1', 3)",
        "INSERT INTO courses (id, name, level) VALUES (1, 'Logic', '1') ON CONFLICT (id) DO UPDATE SET enrolled = 0",
    ],
    "rows without what they refer to": [
        "INSERT INTO enrollments (student_id, course_id) VALUES (99, 2)",
        "INSERT INTO enrollments (student_id, course_id) VALUES (3, 99)",
        f"INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (99, 2, '{TIME}')",
        f"INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (3, 99, '{TIME}')",
        "INSERT INTO enrollments (student_id, course_id) VALUES (3, 2), (99, 2)",
        "INSERT INTO enrollments (student_id, course_id) VALUES ('Ada', 2)",
        "INSERT INTO enrollments (student_id, course_id) VALUES (NULL, 2)",
        "DELETE FROM students WHERE id = 1",
        "DELETE FROM students",
        "DELETE FROM courses WHERE id = 1",
        "UPDATE students SET id = 99 WHERE id = 1",
        "UPDATE courses SET id = 99 WHERE id = 1",
        "UPDATE enrollments SET student_id = 99 WHERE student_id = 1",
    ],
    "types": [
        "UPDATE students SET name = NULL WHERE id = 1",
        "INSERT INTO courses (name, level, capacity) VALUES ('Go', '1', '')",
        "INSERT INTO courses (name, level, capacity) VALUES ('Go', '1', 'many')",
        "UPDATE courses SET capacity = '' WHERE id = 2",
        "UPDATE courses SET waitlist_capacity = 'none' WHERE id = 2",
    ],
    "limits": [
        "INSERT INTO courses (name, level, capacity) VALUES ('Go', '1', -1)",
        "INSERT INTO courses (name, level, waitlist_capacity) VALUES ('Go', '1', -1)",
        "UPDATE courses SET capacity = -1 WHERE id = 2",
        "UPDATE courses SET capacity = 0 WHERE id = 1",
        "UPDATE courses SET waitlist_capacity = 0 WHERE id = 1",
    ],
    "times": [
        "INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (3, 2, 'yesterday')",
        "INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (3, 2, 1756715400)",
        "INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (3, 2, '08:30')",
        "INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (3, 2, '2026-13-01T08:30:00.000Z')",
        "INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (3, 2, '2026-02-30T08:30:00.000Z')",
        "INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (3, 2, '2026-02-30 08:30+02:00')",
        "INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (3, 2, '2025-02-29')",
        "INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (3, 2, '2026-04-31T08:30:00.000Z')",
        "INSERT INTO enrollment_events (type, at, student_id, course_id) VALUES ('dropped', '2026-09-01', 3, 2)",
    ],
    "events": [
        "UPDATE enrollment_events SET type = 'dropped'",
        "UPDATE enrollment_events SET id = 99 WHERE id = 1",
        "UPDATE enrollment_events SET at = at",
        "DELETE FROM enrollment_events",
        "DELETE FROM enrollment_events WHERE id = 1",
        f"INSERT INTO enrollment_events (id, type, at, student_id, course_id) VALUES (1, 'dropped', '{TIME}', 3, 2)",
    ],
}
"""What is refused by each kind of database, in SQL that both have."""
REFUSED_BY = {
    "sqlite": [
        "UPDATE OR IGNORE courses SET enrolled = 0",
        "UPDATE OR REPLACE courses SET enrolled = 0",
        "INSERT OR REPLACE INTO courses (id, name, level, capacity) VALUES (1, 'Logic', '1', 1)",
        "REPLACE INTO courses SELECT * FROM courses WHERE id = 1",
        "INSERT INTO students (name) VALUES (x'4164')",
        "INSERT OR IGNORE INTO students (name) VALUES (x'4164')",
        "UPDATE students SET name = x'4164' WHERE id = 1",
        "INSERT INTO courses (name, level, capacity) VALUES ('Go', '1', 1.5)",  # PostgreSQL makes it 2.
        "INSERT INTO courses (name, level, waitlist_capacity) VALUES ('Go', '1', x'01')",
        "INSERT INTO courses (name, level) VALUES (x'4164', '1')",
        "INSERT INTO courses (name, level) VALUES ('Go', x'4164')",
        "UPDATE courses SET name = x'4164' WHERE id = 2",
        "UPDATE courses SET level = x'4164' WHERE id = 2",
        # PostgreSQL reads such a time.
        "INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (3, 2, '2026-09-01t08:30:00.000z')",
    ],
    "postgresql": [
        "TRUNCATE students, courses, terms CASCADE",
        "TRUNCATE students CASCADE",
        "TRUNCATE courses CASCADE",
        "TRUNCATE enrollments",
        "TRUNCATE enrollment_events RESTART IDENTITY CASCADE",
        "TRUNCATE event_notes",
        "MERGE INTO courses USING (SELECT 1 AS one) AS other ON id = one WHEN MATCHED THEN UPDATE SET enrolled = 0",
        (
            "MERGE INTO enrollments USING (SELECT 1 AS one) AS other ON student_id = one"
            " WHEN MATCHED THEN UPDATE SET course_id = 2"
        ),
        (
            "WITH gone AS (DELETE FROM courses WHERE id = 2 RETURNING id)"
            " INSERT INTO enrollments (student_id, course_id) SELECT 3, id FROM gone"
        ),
        "SET CONSTRAINTS ALL DEFERRED; DELETE FROM students WHERE id = 1",
        "UPDATE courses SET name = repeat('x', 201)",
    ],
}
"""What each kind refuses in words of its own."""


@pytest.mark.parametrize("of", [*REFUSED_OF, "its own words"])
def test_the_database_refuses(kind: str, path: Path | str, other: Any, of: str) -> None:
    """An ordinary statement that would break a rule is refused whole, and nothing of it is kept."""
    before = rows_of(path)
    for sql in REFUSED_OF.get(of, REFUSED_BY[kind]):
        with pytest.raises(REFUSED):
            other.execute(sql)
        assert rows_of(path) == before, sql


ALLOWED = [
    "UPDATE courses SET name = 'Logics', enrolled = enrolled, waitlisted = waitlisted, event_id = event_id",
    "INSERT INTO courses (id, name, level) VALUES (1, 'x', 'y') ON CONFLICT (id) DO UPDATE SET name = 'z'",
    "UPDATE students SET id = id, name = 'Ada'",
    "DELETE FROM students WHERE id = 6",
    "DELETE FROM courses WHERE id = 2",
    "UPDATE courses SET capacity = '5' WHERE id = 1",
]
ALLOWED_BY = {
    "sqlite": [
        # PostgreSQL refuses a row with counts before it looks whether the row is there already.
        "INSERT INTO courses (id, name, level, enrolled) VALUES (1, 'x', 'y', 7) ON CONFLICT DO NOTHING",
        "INSERT OR IGNORE INTO courses (id, name, level, enrolled) VALUES (1, 'x', 'y', 7)",
        "INSERT OR REPLACE INTO courses (id, name, level) VALUES (2, 'Go', '2')",
        "INSERT OR REPLACE INTO courses (id, name, level) VALUES (9, 'Go', '2')",
    ],
    "postgresql": [
        "INSERT INTO courses (id, name, level) VALUES (1, 'x', 'y') ON CONFLICT DO NOTHING",
        "INSERT INTO courses (name, level, capacity) VALUES ('Go', '1', 1.5)",
        (
            "WITH gone AS (DELETE FROM enrollments WHERE student_id = 1 RETURNING course_id)"
            " UPDATE courses SET name = 'Free' WHERE id IN (SELECT course_id FROM gone)"
        ),
    ],
}


@pytest.mark.long
def test_the_database_allows(kind: str, path: Path | str, other: Any) -> None:
    """What breaks no rule goes through: names, upserts, rows that nothing refers to, numbers written as text."""
    for sql in ALLOWED_BY[kind] + ALLOWED:
        other.execute(sql)
        check(path)


@pytest.mark.parametrize(
    ("values", "status", "at"),
    [
        ("(student_id, course_id) VALUES (3, 2)", "enrolled", None),
        ("(course_id, student_id, enrolled_at) VALUES (2, 3, NULL)", "enrolled", None),
        ("(student_id, course_id, enrolled_at) VALUES (3, 2, '')", "enrolled", None),
        ("(student_id, course_id, enrolled_at) VALUES (3, 2, CURRENT_TIMESTAMP)", "enrolled", None),
        (f"(student_id, course_id, enrolled_at) VALUES (3, 2, '{TIME}')", "enrolled", TIME),
        ("(student_id, course_id, enrolled_at) VALUES (3, 2, '2026-09-01 10:30:00.0004+02:00')", "enrolled", TIME),
        ("(student_id, course_id, enrolled_at) VALUES (3, 2, '2026-09-01')", "enrolled", "2026-09-01T00:00:00.000Z"),
        (f"(student_id, course_id, enrolled_at, waiting) VALUES (3, 2, '{TIME}', NULL)", "enrolled", TIME),
        ("(student_id, course_id, waiting) VALUES (3, 2, 1)", "enrolled", None),
        ("(student_id, course_id) VALUES (3, 1)", "waitlisted", None),
        ("(student_id, course_id, enrolled_at) VALUES (3, 1, CURRENT_TIMESTAMP)", "waitlisted", None),
        (f"(student_id, course_id, enrolled_at) VALUES (3, 1, '{TIME}')", "waitlisted", None),
        ("(student_id, course_id, waiting) VALUES (3, 1, 1)", "waitlisted", None),
        ("(student_id, course_id, event_id) VALUES (3, 1, 1)", "waitlisted", None),
        (f"(student_id, course_id, enrolled_at, event_id) VALUES (3, 2, '{TIME}', 1)", "enrolled", TIME),
    ],
)
def test_a_plain_insert_enrolls(other: Any, client: TestClient, values: str, status: str, at: str | None) -> None:
    """An INSERT gives the seat, or the place in line, that the API would have given, and a time in its form."""
    before = datetime.now(UTC).isoformat(timespec="seconds")
    other.execute(f"INSERT INTO enrollments {values}")
    course_id = 2 if status == "enrolled" else 1
    found = client.get(f"/students/3/courses/{course_id}").json()
    assert (found["status"], found["position"]) == (status, None if status == "enrolled" else 2)
    told = client.get("/events?student_id=3").json()
    assert [event["type"] for event in told] == [status]
    if status == "enrolled":
        assert found["enrolled_at"] == told[0]["at"]
        assert found["enrolled_at"] == at if at else found["enrolled_at"] >= before[:19]


def test_a_course_that_was_read_earlier_does_not_overwrite_the_counts(db: pw.Database, path: Path | str) -> None:
    """A Peewee model that is saved after somebody has enrolled is refused; one that is not stale is saved."""
    with db.bind_ctx([models.Course, models.Student, models.Enrollment]):
        stale, fresh = models.Course.get_by_id(2), models.Course.get_by_id(2)
        fresh.name = "Chess for all"
        fresh.save()
        enrollments.enroll(db, 3, 2)
        with pytest.raises(pw.IntegrityError, match="counts of a course belong to its enrollments"):
            stale.save()
        models.Student.get_by_id(4).courses.add(models.Course.get_by_id(2))
        models.Enrollment.create(student=5, course=1)
    assert find_enrollment(db, 5, 1) == EnrollmentRecord(5, 1, None, "waitlisted", 2)
    assert courses.find_course(db, 2).enrolled == 2
    check(path)


@pytest.mark.both(False, because="it counts SQLite's instructions")
def test_a_raised_capacity_promotes_a_long_line_in_linear_time(db: pw.SqliteDatabase) -> None:
    """To promote four times as many takes four times as many instructions, not sixteen times."""
    steps = {}
    for size in (1000, 4000):
        first = students.insert_student(db, "First").id
        db.connection().executemany("INSERT INTO students (name) VALUES (?)", [("Student",)] * size)
        course = courses.insert_course(db, "Long", "1", 0, None)
        bulk.enroll_all(db, [(first + number, course.id) for number in range(size)])
        steps[size] = 0

        def count(size: int = size) -> None:
            steps[size] += 1

        db.connection().set_progress_handler(count, 100)
        courses.update_course(db, course.id, {"capacity": None})
        db.connection().set_progress_handler(None, 0)
        assert courses.find_course(db, course.id).enrolled == size
    assert steps[4000] < 5 * steps[1000]
