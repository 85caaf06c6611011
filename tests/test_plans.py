"""What a request costs does not grow with its course: plans, instructions and time at 100 and at 50,000 enrolled."""

import re
import time
from collections.abc import Callable, Iterator
from statistics import median

import peewee as pw
import pytest

from service import bulk, connect, courses, enrolling, enrollments, events, migrate, registrar, students, terms
from service.rows import ExternalId
from service.storage import fetch

SMALL, LARGE = 1, 2
ENROLLED = {SMALL: 100, LARGE: 50_000}
WAITING = 20
STUDENTS = ENROLLED[LARGE] + 2 * WAITING

A_SCAN = ENROLLED[LARGE]
"""Instructions, at least, of a statement that looks at every row."""

NO_TABLE = re.compile(r"SCAN (\d+ )?CONSTANT ROW|SCAN \(subquery")
"""How a plan puts it that the rows are given, or are those that another step has found."""

Call = Callable[[pw.Database, int], object]

# Each takes a course; student 50 is enrolled in both, the newest student in neither.
CALLS: dict[str, Call] = {
    "enroll in a full course": lambda db, course: enrollments.enroll(db, STUDENTS, course),
    "enroll again": lambda db, course: enrollments.ensure_enrolled(db, 50, course),
    "drop and promote": lambda db, course: enrollments.drop(db, 50, course),
    "raise the capacity": lambda db, course: courses.update_course(db, course, {"capacity": ENROLLED[course] + 5}),
    "find an enrollment": lambda db, course: enrolling.find_enrollment(db, 50, course),
    "schedule": lambda db, course: enrollments.list_schedule(db, 50, None, course - 1, 1),
    "roster page": lambda db, course: enrollments.list_roster(db, course, 40, 50),
    "waitlist page": lambda db, course: enrollments.list_waitlist(db, course, 0, 10),
    "events of a course": lambda db, course: events.list_events(db, 0, None, course, 50),
    "events of a student": lambda db, _: events.list_events(db, 0, 50, None, 50),
    "events of both": lambda db, course: events.list_events(db, 0, 50, course, 50),
    "show a course": courses.find_course,
    "courses by name": lambda db, _: courses.list_courses(db, "c", None, None, 2),
    "find by external id": lambda db, course: courses.find_course(db, ExternalId(f"C-{course}")),
    "courses by external id": lambda db, course: courses.list_courses(db, external_id=f"C-{course}"),
    "courses of a term": lambda db, _: courses.list_courses(db, term_id=1, limit=2),
    "courses of a term by name": lambda db, _: courses.list_courses(db, "c", term_id=1, limit=2),
    "students by external id": lambda db, _: students.list_students(db, external_id="S-50"),
    "put a student": lambda db, _: students.put_student(db, "S-50", {"given_name": "Ada"}),
    "put a course": lambda db, course: courses.put_course(db, f"C-{course}", {"name": "Course"}),
    "terms": lambda db, _: terms.list_terms(db, (1,)),
    "override": lambda db, course: enrollments.enroll(db, STUDENTS, course, override=True),
    "override of one who waits": lambda db, course: enrollments.enroll(db, ENROLLED[LARGE] + 1, course, override=True),
    "drop with a reason": lambda db, course: enrollments.drop(db, 50, course, actor="Di", reason="ill"),
    "enroll with a reason": lambda db, course: enrollments.enroll(db, STUDENTS, course, reason="late"),
    "swap": lambda db, course: registrar.swap(db, 50, course, 3),
    "withdraw": lambda db, _: registrar.withdraw(db, 50, reason="moved"),
    "cancel a few": lambda db, course: registrar.cancel_some(db, course, most=5),
    "erase": lambda db, _: registrar.erase_student(db, 50),
    "export": lambda db, _: registrar.export_student(db, 50),
    "bulk": lambda db, course: bulk.enroll_all(db, [(STUDENTS, course), (50, course)]),
}


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pw.Database]:
    """Give a file with a small course and a large one, both full and with a line."""
    path = tmp_path_factory.mktemp("plans") / "school.db"
    migrate(path)
    database = connect(path)
    with database.atomic():
        database.connection().executemany("INSERT INTO students (name) VALUES (?)", [("Student",)] * STUDENTS)
    terms.insert_term(database, "Autumn")
    for course, enrolled in ENROLLED.items():
        courses.insert_course(database, "Course", "1", enrolled, None)
        line = range(ENROLLED[LARGE] + 1, ENROLLED[LARGE] + 1 + WAITING)
        bulk.enroll_all(database, [(student, course) for student in (*range(1, enrolled + 1), *line)])
        courses.update_course(database, course, {"external_id": f"C-{course}", "term_id": 1})
    courses.insert_course(database, "Other", "1", external_id="C-3")
    students.update_student(database, 50, {"external_id": "S-50"})
    yield database
    database.close()


def undone(db: pw.Database, call: Call, course: int) -> None:
    """Make a call, and take back what it changed."""
    with db.atomic("IMMEDIATE") as transaction:
        call(db, course)
        transaction.rollback()


@pytest.mark.parametrize("name", CALLS)
def test_no_statement_scans_or_sorts(db: pw.Database, name: str) -> None:
    """Each statement of each call finds its rows by an index, in their order."""
    asked: list[pw.QueryEvent] = []
    db.query_hooks.append(asked.append)
    try:
        undone(db, CALLS[name], LARGE)
    finally:
        db.query_hooks.clear()
    statements = [event for event in asked if event.sql.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE")]
    assert statements
    for event in statements:
        for *_, detail in fetch(db, f"EXPLAIN QUERY PLAN {event.sql}", *event.params or ()):
            assert not detail.startswith("SCAN") or NO_TABLE.match(detail), f"{detail} in {event.sql}"
            assert "TEMP B-TREE" not in detail, f"{detail} in {event.sql}"


@pytest.mark.parametrize("name", CALLS)
def test_no_call_does_more_work_for_a_larger_course(db: pw.Database, name: str) -> None:
    """SQLite runs as few instructions for either course, in triggers and constraints too."""
    counts = {}
    for course in ENROLLED:
        count = 0

        def tick() -> None:
            nonlocal count
            count += 1

        undone(db, CALLS[name], course)  # So that every statement is prepared.
        db.connection().set_progress_handler(tick, 1)
        try:
            undone(db, CALLS[name], course)
        finally:
            db.connection().set_progress_handler(None, 1)
        counts[course] = count
    assert counts[LARGE] <= counts[SMALL] * 1.1, counts
    assert counts[LARGE] < A_SCAN / 10, counts


def test_no_call_takes_longer_for_a_larger_course(db: pw.Database) -> None:
    """Median times, taken in turns, stay within what a few more pages of a tree cost."""
    times: dict[tuple[str, int], list[float]] = {(name, course): [] for name in CALLS for course in ENROLLED}
    for _ in range(25):
        for (name, course), measured in times.items():
            started = time.thread_time()
            undone(db, CALLS[name], course)
            measured.append(time.thread_time() - started)
    slower = {name: median(times[name, LARGE]) / median(times[name, SMALL]) for name in CALLS}
    assert max(slower.values()) < 3, slower
