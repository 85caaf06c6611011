"""Other programs' rules on the same file: a refusal gives its true reason, and an answer is about what was asked."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import peewee as pw
import pytest
from invariants import check
from starlette.testclient import TestClient

from service import bulk, courses, enrollments, students
from service.errors import ConstraintViolated

ENROLL = {"course_id": 1}


@pytest.fixture(autouse=True)
def _school(db: pw.SqliteDatabase) -> None:
    """Have six students, a lecture (1), its lab (2) with two seats and no line, and another section (3)."""
    for number in range(1, 7):
        students.insert_student(db, f"Student {number}")
    courses.insert_course(db, "Lecture", "1", 30, 1)
    courses.insert_course(db, "Lab", "1", 2, 0)
    courses.insert_course(db, "Section", "1", 30, 1)


def host(db: pw.Database, *statements: str) -> None:
    """Run a host's statements on the file."""
    for statement in statements:
        db.execute_sql(statement)


def refused(answer: httpx2.Response) -> str:
    """Check that an answer is 409 constraint_violated, and give its detail."""
    assert (answer.status_code, answer.json()["code"]) == (409, "constraint_violated")
    detail: str = answer.json()["detail"]
    return detail


# Reasons


TRIGGER = "CREATE TRIGGER host BEFORE {} BEGIN SELECT raise(ABORT, 'fees unpaid'); END"
WRITES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "INSERT ON students": ("POST", "/students", {"json": {"name": "Ada"}}),
    "UPDATE ON students": ("PATCH", "/students/1", {"json": {"name": "Ada"}}),
    "DELETE ON students": ("DELETE", "/students/2", {}),
    "INSERT ON courses": ("POST", "/courses", {"json": {"name": "Logic", "level": "1"}}),
    "UPDATE ON courses": ("PATCH", "/courses/1", {"json": {"capacity": 5}}),
    "DELETE ON courses": ("DELETE", "/courses/3", {}),
    "INSERT ON enrollments": ("POST", "/students/2/courses", {"json": ENROLL}),
    "DELETE ON enrollments": ("DELETE", "/students/1/courses/1", {}),
}


@pytest.mark.parametrize("event", WRITES)
def test_a_host_refuses_in_its_own_words(client: TestClient, db: pw.Database, event: str) -> None:
    """Where a host's trigger refuses a write, the answer has the words of its author, and nothing is kept."""
    enrollments.enroll(db, 1, 1)
    method, url, options = WRITES[event]
    host(db, TRIGGER.format(event))
    before = [client.get(path).json() for path in ("/students", "/courses", "/events")]
    assert "fees unpaid" in refused(client.request(method, url, **options))
    assert [client.get(path).json() for path in ("/students", "/courses", "/events")] == before


@pytest.mark.parametrize("event", WRITES)
def test_a_host_that_leaves_a_row_out_is_told(client: TestClient, db: pw.Database, event: str) -> None:
    """Where a host's trigger ends a write without a word, the answer neither claims it nor says that there was none."""
    enrollments.enroll(db, 1, 1)
    method, url, options = WRITES[event]
    host(db, f"CREATE TRIGGER host BEFORE {event} BEGIN SELECT raise(IGNORE); END")
    assert "a trigger left the row as it was" in refused(client.request(method, url, **options))
    host(db, "DROP TRIGGER host")
    assert client.request(method, url, **options).is_success


@pytest.mark.parametrize(
    ("table", "url"),
    [
        ("students", "/students/2"),
        ("courses", "/courses/3"),
    ],
)
@pytest.mark.parametrize("rule", ["", "ON DELETE RESTRICT", "ON UPDATE CASCADE"])
def test_a_reference_of_a_hosts_table_is_named(
    client: TestClient, db: pw.Database, table: str, url: str, rule: str
) -> None:
    """Who is kept by a host's table is not said to have enrollments: the refusal names the table."""
    host(
        db,
        "CREATE TABLE empty (id INTEGER PRIMARY KEY, one REFERENCES students (id), other REFERENCES courses (id))",
        f'CREATE TABLE "the host\'s" (id INTEGER PRIMARY KEY, one INTEGER REFERENCES {table} (id) {rule})',
        f'INSERT INTO "the host\'s" (one) VALUES ({url.rpartition("/")[2]})',
    )
    assert "rows of the table the host's refer to it" in refused(client.delete(url))
    host(db, 'DELETE FROM "the host\'s"')
    assert client.delete(url).status_code == 204


def test_a_hosts_index_is_named(client: TestClient, db: pw.Database) -> None:
    """A host's unique index refuses a name, and no capacity is spoken of."""
    host(db, "CREATE UNIQUE INDEX host ON courses (name, level)")
    unique = "UNIQUE constraint failed: courses.name, courses.level"
    assert unique in refused(client.patch("/courses/1", json={"name": "Lab", "capacity": 1}))
    assert unique in refused(client.post("/courses", json={"name": "Lab", "level": "1"}))
    assert client.get("/courses/1").json()["capacity"] == 30


def test_another_courses_limit_is_not_this_ones(client: TestClient, db: pw.Database) -> None:
    """A lecture with free seats is not full because the lab, into which a host's trigger enrolls along, is."""
    host(db, ALONG)
    for student in (1, 2):
        assert client.post(f"/students/{student}/courses", json=ENROLL).status_code == 201
    detail = refused(client.post("/students/3/courses", json=ENROLL))
    assert "no seat is free" in detail
    assert client.get("/courses/1").json()["enrolled"] == 2


def test_another_courses_capacity_is_not_this_ones(client: TestClient, db: pw.Database) -> None:
    """A capacity that a host's trigger hands on to a fuller course is not said to be below what is enrolled here."""
    for student in (1, 2):
        enrollments.enroll(db, student, 2)
    host(
        db,
        """CREATE TRIGGER host AFTER UPDATE OF capacity ON courses WHEN NEW.id = 1
        BEGIN UPDATE courses SET capacity = NEW.capacity WHERE id = 2; END""",
    )
    assert "more students are enrolled" in refused(client.patch("/courses/1", json={"capacity": 1}))
    assert client.patch("/courses/1", json={"capacity": 2}).status_code == 200


def test_the_rules_themselves_say_so(db: pw.Database) -> None:
    """Without HTTP a host's rule is a ConstraintViolated, never the driver's exception."""
    host(db, TRIGGER.format("INSERT ON enrollments"), TRIGGER.replace("host", "too").format("INSERT ON courses"))
    with pytest.raises(ConstraintViolated, match="fees unpaid"):
        enrollments.enroll(db, 1, 1)
    with pytest.raises(ConstraintViolated, match="fees unpaid"):
        courses.insert_course(db, "Logic", "1")


# Answers


ALONG = """
    CREATE TRIGGER along AFTER INSERT ON enrollments WHEN NEW.course_id = 1
    BEGIN INSERT INTO enrollments (student_id, course_id) VALUES (NEW.student_id, 2); END"""
INSTEAD = """
    CREATE TRIGGER instead AFTER INSERT ON enrollments WHEN NEW.course_id = 3
    BEGIN DELETE FROM enrollments WHERE student_id = NEW.student_id AND course_id = 1; END"""
BY_EVENT = """
    CREATE TRIGGER by_event AFTER INSERT ON enrollment_events WHEN NEW.course_id = 1 AND NEW.type = 'enrolled'
    BEGIN INSERT INTO enrollments (student_id, course_id) VALUES (NEW.student_id, 2); END"""


@pytest.fixture
def path(path: Path) -> Iterator[Path]:
    """Check the file when the test is over."""
    yield path
    check(path)


def test_each_answer_is_about_its_own_pair(client: TestClient, db: pw.Database) -> None:
    """A host's trigger that enrolls along does not change whom a bulk's results, or single answers, are about."""
    courses.update_course(db, 2, {"capacity": None})
    host(db, ALONG)
    rows = [{"student_id": student, "course_id": 1} for student in (1, 2, 3)]
    results = client.post("/enrollments", json=rows).json()["results"]
    assert [(row["enrollment"]["student_id"], row["enrollment"]["course_id"]) for row in results] == [
        (1, 1),
        (2, 1),
        (3, 1),
    ]
    assert [row["enrollment"]["status"] for row in results] == ["enrolled"] * 3

    async def singles() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(client.app), base_url="http://test") as caller:
            posts = (caller.post(f"/students/{student}/courses", json=ENROLL) for student in (4, 5, 6))
            return await asyncio.gather(*posts)

    answers = asyncio.run(singles())
    assert [answer.headers["location"] for answer in answers] == [f"/students/{n}/courses/1" for n in (4, 5, 6)]
    assert [answer.json()["student_id"] for answer in answers] == [4, 5, 6]


@pytest.mark.parametrize("form", ["(student_id, course_id) VALUES (1, 1)", "VALUES (1, 1, :now, NULL, NULL)"])
def test_a_trigger_on_the_events_cannot_enroll(client: TestClient, db: pw.Database, path: Path, form: str) -> None:
    """A trigger that enrolls while the event is written is refused, as SQLite would run no trigger of ours for it."""
    host(db, BY_EVENT)
    assert "let it be on enrollments" in refused(client.post("/students/1/courses", json=ENROLL))
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.IntegrityError, match="let it be on"):
        connection.execute(f"INSERT INTO enrollments {form}", {"now": "2026-09-01T08:30:00.000Z"})
    assert client.get("/students/1/courses").json() == []


def test_a_section_that_is_dropped_along_is_not_the_answer(client: TestClient, db: pw.Database) -> None:
    """A host's trigger that drops the old section leaves the answer to be the new one, and that it is enrolled."""
    host(db, INSTEAD)
    enrollments.enroll(db, 1, 1)
    answer = client.post("/students/1/courses", json={"course_id": 3})
    assert (answer.status_code, answer.json()["course_id"], answer.json()["status"]) == (201, 3, "enrolled")
    assert [row["id"] for row in client.get("/students/1/courses").json()] == [3]


def test_each_row_is_told_as_its_own_statement_left_it(db: pw.Database) -> None:
    """In a bulk, a row is answered as it was after its own statement, though a later row's trigger drops it."""
    host(db, INSTEAD)
    courses.update_course(db, 3, {"capacity": 1})
    pairs = [(1, 1), (2, 1), (1, 3), (3, 1), (2, 3), (4, 3)]
    results = bulk.enroll_all(db, pairs)
    told = [getattr(result, "status", type(result).__name__) for result in results]
    assert told == ["enrolled", "enrolled", "enrolled", "enrolled", "waitlisted", "CourseFull"]
    assert [(result.student_id, result.course_id) for result in results[:5]] == pairs[:5]  # type: ignore[union-attr]
    assert results[4].position == 1  # type: ignore[union-attr]


def test_a_place_in_line_that_a_later_row_takes_away(db: pw.Database) -> None:
    """A place in line that a later row's trigger gives up is told with the position that it had."""
    host(db, INSTEAD)
    courses.update_course(db, 1, {"capacity": 0, "waitlist_capacity": 5})
    results = bulk.enroll_all(db, [(1, 1), (2, 1), (2, 3)])
    places = [(result.status, result.position) for result in results]  # type: ignore[union-attr]
    assert places == [("waitlisted", 1), ("waitlisted", 2), ("enrolled", None)]


@pytest.mark.parametrize("moment", ["AFTER INSERT ON enrollments", "AFTER INSERT ON enrollment_events"])
def test_what_is_dropped_at_once_was_not_enrolled(client: TestClient, db: pw.Database, moment: str) -> None:
    """Where a host's trigger drops the enrollment that is being added, nobody is told that it is there."""
    drop = "DELETE FROM enrollments WHERE student_id = NEW.student_id AND course_id = NEW.course_id"
    host(db, f"CREATE TRIGGER host {moment} WHEN NEW.student_id = 1 BEGIN {drop}; END")
    refused(client.post("/students/1/courses", json=ENROLL))
    assert client.get("/students/1/courses").json() == []
    assert client.post("/students/2/courses", json=ENROLL).status_code == 201


def test_rows_that_a_host_swallows_with_three_changes_of_its_own(db: pw.Database) -> None:
    """A trigger that changes as many rows as an enrollment does, and leaves the enrollment out, fools nobody."""
    host(
        db,
        "CREATE TABLE log (id INTEGER PRIMARY KEY, what TEXT)",
        """CREATE TRIGGER host BEFORE INSERT ON enrollments WHEN NEW.student_id = 2 BEGIN
            INSERT INTO log (what) VALUES ('a'), ('b'), ('c');
            SELECT raise(IGNORE);
        END""",
    )
    results = bulk.enroll_all(db, [(1, 1), (2, 1), (3, 1)])
    assert [type(result).__name__ for result in results] == [
        "EnrollmentRecord",
        "ConstraintViolated",
        "EnrollmentRecord",
    ]


def test_ids_that_no_row_can_have(db: pw.SqliteDatabase) -> None:
    """Without HTTP, what is no id refuses its own row of a bulk, and no other."""
    rows: list[Any] = [(2**63, 1), (1, 1), (1, 2**63), [2, 1], (None, 1), (3, "Logic"), (4, 1)]
    told = [type(result).__name__ for result in bulk.enroll_all(db, rows)]
    missing, kept = ["StudentNotFound", "CourseNotFound"], "EnrollmentRecord"
    assert told == [missing[0], kept, missing[1], kept, missing[0], missing[1], kept]


def test_a_host_that_undoes_the_transaction_of_a_bulk(client: TestClient, db: pw.Database, path: Path) -> None:
    """A trigger that rolls the whole transaction back refuses the whole bulk, and nothing of it is kept."""
    host(
        db,
        """CREATE TRIGGER host BEFORE INSERT ON enrollments WHEN NEW.student_id = 2
        BEGIN SELECT raise(ROLLBACK, 'not Student 2'); END""",
    )
    answer = client.post("/enrollments", json=[{"student_id": n, "course_id": 1} for n in (1, 2, 3)])
    assert "not Student 2" in refused(answer)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM enrollments").fetchone() == (0,)
