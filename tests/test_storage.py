"""What the rules and HTTP ask of a database: one suite, run for each database that there is."""

import asyncio
import math
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import attrs
import peewee as pw
import pytest
from stores import as_one_group, open_store

from service import connect, courses, enrolling, enrollments, students
from service.enrolling import EnrollmentRecord
from service.errors import AlreadyEnrolled, ConstraintViolated, CourseHasEnrollments, CourseNotFound, StudentNotFound
from service.storage import Store, backend_of, change, fetch, fetch_one

pytestmark = pytest.mark.anyio
MOMENT = "2026-09-01T08:30:00.000Z"


class Open(Protocol):
    """A store that can be let go of."""

    def close(self) -> None:
        """Finish what was accepted, then let go of the database."""


@attrs.frozen
class Database:
    """A database that was migrated and has no rows: how to connect to it, and how to open a store on it."""

    connect: Callable[[], pw.Database]
    open_store: Callable[[], Any]
    refuse: Callable[[pw.Database, str, str], object]
    """Makes another program's rule that refuses an INSERT into a table, in these words."""


def on_sqlite(empty: Path, folder: Path) -> Database:
    """Make a database in a file."""
    path = Path(shutil.copy(empty, folder / "school.db"))

    def refuse(db: pw.Database, table: str, words: str) -> None:
        db.execute_sql(f"CREATE TRIGGER host BEFORE INSERT ON {table} BEGIN SELECT raise(ABORT, '{words}'); END")

    return Database(lambda: connect(path), lambda: open_store(path), refuse)


def on_postgresql(url: str) -> Database:
    """Take a database of a server."""

    def refuse(db: pw.Database, table: str, words: str) -> None:
        body = f"BEGIN RAISE EXCEPTION '{words}'; END"
        db.execute_sql(f"CREATE FUNCTION host() RETURNS trigger LANGUAGE plpgsql AS $${body}$$")
        db.execute_sql(f"CREATE TRIGGER host BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION host()")

    return Database(lambda: connect(url), lambda: open_store(url), refuse)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """Give a database of each kind."""
    if request.param == "postgresql":
        return on_postgresql(request.getfixturevalue("school"))
    return on_sqlite(request.getfixturevalue("empty_database"), tmp_path)


@pytest.fixture
def db(database: Database) -> Iterator[pw.Database]:
    """Give a connection, with the students 1 to 4, the course 1 with a seat and a place, and 2 without limits."""
    db = database.connect()
    for name in ("Ada", "Bo", "ada", "Élie"):
        students.insert_student(db, name)
    courses.insert_course(db, "Music", "A1", 1, 1)
    courses.insert_course(db, "Chess", "A2")
    yield db
    db.close()


@pytest.fixture
async def store(database: Database, db: pw.Database) -> AsyncIterator[Store]:
    """Give a store on the database that has those rows."""
    db.close()
    store = database.open_store()
    yield store
    store.close()


def test_fetch(db: pw.Database) -> None:
    """A value is bound, whatever is in it, and all rows are there."""
    name = "'; DROP TABLE students; -- ? %s"
    assert fetch(db, "SELECT id FROM students WHERE id > ? ORDER BY id", 2) == [(3,), (4,)]
    assert fetch_one(db, "SELECT ? || ''", name) == (name,)
    assert fetch_one(db, "SELECT id FROM students WHERE name = ?", name) is None


def test_transaction(db: pw.Database) -> None:
    """A transaction is one, and goes on in the caller's, which may undo it."""
    transaction = backend_of(db).transaction

    def fail() -> None:
        with transaction(db):
            students.insert_student(db, "Di")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with db.atomic() as outer:
        with transaction(db):
            students.insert_student(db, "Di")
        outer.rollback()
    assert fetch(db, "SELECT max(id) FROM students WHERE name = 'Di'") == [(None,)]


def test_insert_each(db: pw.Database) -> None:
    """Each pair has its outcome, in order, as it is after its own statement; a refusal costs the others nothing."""
    pairs = [(1, 1), (2, 1), (3, 1), (1, 1), (2, 1), (9, 1), (1, 9), (9, 9), (1, 2), (4, 2)]
    with db.atomic():
        outcomes = backend_of(db).insert_each(db, pairs, MOMENT, math.inf)
    assert outcomes == [
        ("enrolled", MOMENT, None),
        ("waitlisted", None, 1),
        ("course_full", None, None),
        ("already_enrolled", None, None),
        ("already_waitlisted", None, None),
        ("student_not_found", None, None),
        ("course_not_found", None, None),
        ("student_not_found", None, None),
        ("enrolled", MOMENT, None),
        ("enrolled", MOMENT, None),
    ]
    told = fetch(db, "SELECT student_id, course_id, type FROM enrollment_events ORDER BY id")
    assert told == [(1, 1, "enrolled"), (2, 1, "waitlisted"), (1, 2, "enrolled"), (4, 2, "enrolled")]


def test_insert_each_until(db: pw.Database) -> None:
    """When the time is over, one pair has still been done."""
    with db.atomic():
        assert len(backend_of(db).insert_each(db, [(1, 2), (2, 2)], MOMENT, -math.inf)) == 1
    assert [row.id for row in enrollments.list_roster(db, 2)] == [1]


def test_change(db: pw.Database, database: Database) -> None:
    """A change gives its row; the service's own refusal is told from another program's, in its author's words."""
    assert change(db, "UPDATE students SET name = ? WHERE id = ? RETURNING id", "Ben", 2) == (2,)
    assert change(db, "UPDATE students SET name = ? WHERE id = ? RETURNING id", "Ben", 9) is None
    enrollments.enroll(db, 1, 1)
    with pytest.raises(CourseHasEnrollments):
        courses.delete_course(db, 1)
    database.refuse(db, "students", "fees unpaid")
    with pytest.raises(ConstraintViolated, match="fees unpaid"):
        students.insert_student(db, "Di")


@pytest.mark.parametrize(
    ("prefix", "after", "ids"),
    [
        (None, None, [1, 2, 3, 4]),
        (None, (2,), [3, 4]),
        ("a", None, [1, 3]),
        ("A", ("ADA", 1), [3]),
        ("é", None, []),
        ("É", None, [4]),
        ("", None, [1, 3, 2, 4]),
    ],
)
def test_page(db: pw.Database, prefix: str | None, after: Any, ids: list[int]) -> None:
    """A page is by id, or of a prefix by (name, id), where the letters A to Z are the same in either case."""
    for limit in (1, 9):
        found = backend_of(db).list_rows(db, "students", "id", {}, prefix, after, limit)
        assert [row_id for (row_id,) in found] == ids[:limit]
    assert backend_of(db).list_rows(db, "courses", "id", {"level": "A2"}, None, None, 9) == [(2,)]


def test_drop(db: pw.Database) -> None:
    """A seat that falls free goes to who waits, in the same statement, and the feed tells it."""
    enrollments.enroll(db, 1, 1)
    enrollments.enroll(db, 2, 1)
    enrollments.drop(db, 1, 1)
    assert enrolling.find_enrollment(db, 2, 1).status == "enrolled"
    told = fetch(db, "SELECT type, student_id FROM enrollment_events ORDER BY id")
    assert told == [("enrolled", 1), ("waitlisted", 2), ("dropped", 1), ("promoted", 2)]


async def test_store(store: Store, database: Database) -> None:
    """What a store wrote, others find; what it refuses is raised, and what it reads is what stands."""
    ada = await store.write_row(enrolling.enroll_each, (1, 1))
    assert isinstance(ada, EnrollmentRecord)
    assert await store.read(enrolling.find_enrollment, 1, 1) == ada
    with pytest.raises(AlreadyEnrolled):
        await store.write_row(enrolling.enroll_each, (1, 1))
    other = database.connect()
    assert enrolling.find_enrollment(other, 1, 1) == ada
    enrollments.drop(other, 1, 1)
    other.close()
    assert await store.read(enrollments.list_roster, 1) == []
    await store.check_ready()


async def test_a_group(store: Any) -> None:
    """Of writes that share a commit each has its own outcome, whichever order they came in."""
    rows = [(1, 2), (9, 2), (2, 2), (1, 9), (3, 2)]
    outcome = await as_one_group(
        store,
        *(store.write_row(enrolling.enroll_each, row) for row in rows[:3]),
        store.write(students.insert_student, "Di"),
        *(store.write_row(enrolling.enroll_each, row) for row in rows[3:]),
    )
    assert [type(each).__name__ for each in outcome] == [
        EnrollmentRecord.__name__,
        StudentNotFound.__name__,
        EnrollmentRecord.__name__,
        students.StudentRecord.__name__,
        CourseNotFound.__name__,
        EnrollmentRecord.__name__,
    ]
    assert [row.id for row in await store.read(enrollments.list_roster, 2)] == [1, 2, 3]


async def test_writes_of_several_event_loops(store: Any) -> None:
    """Callers on other threads' event loops are served as well, and no write is lost."""

    def run(name: str) -> None:
        async def add() -> None:
            await asyncio.gather(*(store.write(students.insert_student, name) for _ in range(20)))

        asyncio.run(add())

    threads = [threading.Thread(target=run, args=(name,)) for name in ("Di", "Ed")]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert len(await store.read(students.list_students)) == 4 + 40
