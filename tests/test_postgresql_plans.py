"""What a request costs on PostgreSQL does not grow with its course: each plan, and how much of the tables it reads.

The plans are those of the statements as they are run, in triggers and functions too: PostgreSQL's auto_explain tells
them. The large course has 20,000 students; PLANS_ENROLLED=1000000 has it as large as a course can be, in a minute.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import peewee as pw
import pytest
from programs import run_sql
from test_plans import CALLS as OF_SQLITE
from test_plans import LARGE, SMALL, WAITING, Call, undone

from service import bulk, connect, courses, enrollments, students
from service.rows import find_ids
from service.storage import fetch

ENROLLED = {SMALL: 100, LARGE: int(os.environ.get("PLANS_ENROLLED", "20000"))}
NEWEST = ENROLLED[LARGE] + 2 * WAITING
"""A student who is in no course."""
FEW = 20
"""How many rows may be sorted, or read and passed over: a student's courses and events are as few."""
GROWING = {"students", "courses", "enrollments", "enrollment_events"}
"""The tables that are never read from end to end."""

CALLS: dict[str, Call] = {
    **OF_SQLITE,
    "enroll in a full course": lambda db, course: enrollments.enroll(db, NEWEST, course),
    "raise the capacity": lambda db, course: courses.update_course(db, course, {"capacity": ENROLLED[course] + 5}),
    "override": lambda db, course: enrollments.enroll(db, NEWEST, course, override=True),
    "override of one who waits": lambda db, course: enrollments.enroll(db, ENROLLED[LARGE] + 1, course, override=True),
    "enroll with a reason": lambda db, course: enrollments.enroll(db, NEWEST, course, reason="late"),
    "bulk": lambda db, course: bulk.enroll_all(db, [(NEWEST, course), (50, course)]),
    "roster page at the end": lambda db, course: enrollments.list_roster(db, course, ENROLLED[course] - 40, 50),
    "students by name": lambda db, _: students.list_students(db, "STUDENT 1", None, 50),
    "students behind one by name": lambda db, _: students.list_students(db, "student", ("Student 5", 5), 50),
    "students by id": lambda db, _: students.list_students(db, None, (60,), 50),
    "courses by level and name": lambda db, _: courses.list_courses(db, "c", level="1", limit=2),
}
"""Those of SQLite, with the numbers of this school, and the lists that have an index of their own on PostgreSQL."""
FILL = """
    SET session_replication_role = replica;
    INSERT INTO students (id, name, words)
        SELECT n, 'Student ' || n, array_to_tsvector(ARRAY['student', n::text])
        FROM generate_series(1, {students}) AS n;
    INSERT INTO terms (id, name) SELECT n, 'Autumn' FROM generate_series(1, 500) AS n;
    INSERT INTO courses (id, name, level, waitlist_capacity, term_id, enrolled)
        SELECT n, 'Other', '1', 0, 2 + n % 400, 10 FROM generate_series(3, 2000) AS n;
    INSERT INTO courses (id, name, level, capacity, waitlist_capacity, term_id, enrolled, waitlisted, event_id)
        VALUES ({small}, 'Course', '1', {few}, NULL, 1, {few}, {waiting}, 1),
               ({large}, 'Course', '1', {many}, NULL, 1, {many}, {waiting}, 2);
    UPDATE courses SET external_id = 'C-' || id WHERE id < 4;
    UPDATE students SET external_id = 'S-50' WHERE id = 50;
    INSERT INTO enrollment_events (id, type, at, student_id, course_id)
        SELECT row_number() OVER (), 'enrolled', '2026-01-01T00:00:00.000Z', 1 + (10 * n + k) % {many}, n
        FROM generate_series(3, 2000) AS n, generate_series(0, 9) AS k;
    INSERT INTO enrollment_events (id, type, at, student_id, course_id)
        SELECT 20000 + row_number() OVER (), CASE WHEN place <= size THEN 'enrolled' ELSE 'waitlisted' END,
            '2026-01-01T00:00:00.000Z', CASE WHEN place <= size THEN place ELSE {many} + place - size END, course
        FROM (VALUES ({small}, {few}), ({large}, {many})) AS given (course, size),
            generate_series(1, size + {waiting}) AS place;
    INSERT INTO enrollments (student_id, course_id, enrolled_at, waiting)
        SELECT student_id, course_id, CASE type WHEN 'enrolled' THEN at END, CASE type WHEN 'waitlisted' THEN id END
        FROM enrollment_events;
    UPDATE courses SET event_id = (SELECT max(id) FROM enrollment_events WHERE course_id = courses.id);
    SELECT setval('students_id_seq', {students}), setval('courses_id_seq', 2000), setval('terms_id_seq', 500);
    SET session_replication_role = origin;
    ANALYZE;
"""
EXPLAIN = {
    "log_min_duration": "0",
    "log_nested_statements": "on",
    "log_analyze": "on",
    "log_buffers": "on",
    "log_timing": "off",
    "log_format": "json",
    "log_level": "notice",
}


@pytest.fixture(scope="module")
def db(server: Any, empty_school: str) -> Iterator[pw.Database]:
    """Give a school that tells its plans, with a small course and a large one, both full and with a line.

    The events of 2,000 other courses of 10 students come before theirs.
    """
    with server.database(empty_school) as url:
        sizes = {"small": SMALL, "large": LARGE, "few": ENROLLED[SMALL], "many": ENROLLED[LARGE]}
        run_sql(url, FILL.format(students=NEWEST, waiting=WAITING, **sizes))
        with closing(connect(url)) as db:
            db.execute_sql("LOAD 'auto_explain'")
            for name, value in EXPLAIN.items():
                db.execute_sql(f"SET auto_explain.{name} = {value}")
            yield db


def plans(db: pw.Database, call: Call, course: int) -> list[dict[str, Any]]:
    """Make a call, take back what it changed, and give the plan of each statement that it ran."""
    told: list[str] = []

    def note(notice: Any) -> None:
        told.append(notice.message_primary)

    db.connection().add_notice_handler(note)
    try:
        undone(db, call, course)
    finally:
        db.connection().remove_notice_handler(note)
    return [json.loads(text[text.index("{") :]) for text in told if text.startswith("duration: ")]


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Give the steps of a plan."""
    yield plan
    for step in plan.get("Plans", ()):
        yield from nodes(step)


@pytest.mark.parametrize("generic", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("name", CALLS)
def test_no_statement_scans_or_sorts(db: pw.Database, name: str, generic: str) -> None:
    """Each statement of each call finds its rows by an index, in their order, whether or not its values are known.

    Where it costs less, a few rows are sorted. How PostgreSQL reads its own catalog, which no school makes larger, is
    not asked.
    """
    db.execute_sql(f"SET plan_cache_mode = {generic}")
    asked = plans(db, CALLS[name], LARGE)
    assert asked
    for each in asked:
        for step in nodes(each["Plan"]):
            kind, table = step["Node Type"], step.get("Relation Name", "")
            assert kind != "Seq Scan" or table not in GROWING, each
            assert "Sort" not in kind or step["Plans"][0]["Actual Rows"] <= FEW, each
            assert table.startswith("pg_") or step.get("Rows Removed by Filter", 0) <= FEW, each


@pytest.mark.parametrize("name", CALLS)
def test_no_call_does_more_work_for_a_larger_course(db: pw.Database, name: str) -> None:
    """PostgreSQL reads as few pages for either course, in triggers and functions too, but for the depth of an index."""
    db.execute_sql("SET plan_cache_mode = auto")
    read: Counter[int] = Counter()
    for course in ENROLLED:
        plans(db, CALLS[name], course)  # So that every statement is prepared.
        for each in plans(db, CALLS[name], course):
            read[course] += each["Plan"]["Shared Hit Blocks"] + each["Plan"]["Shared Read Blocks"]
    assert read[LARGE] <= read[SMALL] * 1.2 + 20, read


@pytest.mark.parametrize("count", [1, 500])
def test_many_values_are_planned_anew(db: pw.Database, count: int) -> None:
    """What looks for many values keeps no plan, which would be that of the table as it was when it was small."""
    for _ in range(6):  # After five runs PostgreSQL may keep a plan.
        find_ids(db, "students", [f"S-{number}" for number in range(count)])
    kept = fetch(db, "SELECT generic_plans > 0 FROM pg_prepared_statements WHERE statement LIKE ?", f"%IN (%${count})")
    assert kept == ([(True,)] if count == 1 else [])
