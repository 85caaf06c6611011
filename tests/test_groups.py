"""Writes that share a commit, next to a host's own rules: nobody pays for another's write, and each hears why."""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import peewee as pw
import pytest
from starlette.testclient import TestClient
from stores import as_one_group, fail_to_write, names, open_store

from service import courses, students
from service.enrolling import EnrollmentRecord, enroll_each
from service.enrollments import enroll
from service.errors import AlreadyEnrolled, Conflict, ConstraintViolated, StorageUnavailable, StudentNotFound
from service.storage import fetch
from service.storage.sqlite.store import Store
from service.storage.sqlite.violations import unavailable, violation
from service.students import StudentRecord, insert_student

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("in_time")]

DEFERRED = """
    CREATE TABLE grades (
        id INTEGER PRIMARY KEY,
        student_id INTEGER NOT NULL REFERENCES "students" ("id") DEFERRABLE INITIALLY DEFERRED);
    CREATE TRIGGER deferred AFTER INSERT ON students WHEN NEW.name = 'deferred'
    BEGIN INSERT INTO grades (student_id) VALUES (NEW.id + 1000000); END"""
"""As Django makes them all: it fails at COMMIT."""
ROLLBACK = """
    CREATE TRIGGER rolled BEFORE INSERT ON students WHEN NEW.name = 'rollback'
    BEGIN SELECT raise(ROLLBACK, 'fees unpaid'); END"""
"""It undoes the whole transaction."""
FAIL = """
    CREATE TABLE log (name UNIQUE ON CONFLICT FAIL);
    CREATE TRIGGER half AFTER INSERT ON students WHEN NEW.name = 'fail'
    BEGIN INSERT INTO log VALUES ('half'); SELECT raise ( fail, 'fees unpaid'); END;
    CREATE TRIGGER deep BEFORE INSERT ON students WHEN NEW.name = 'deep'
    BEGIN INSERT INTO log VALUES ('deep'); END;
    CREATE TRIGGER deeper AFTER INSERT ON log WHEN NEW.name = 'deep'
    BEGIN SELECT raise(FAIL, 'fees unpaid'); END;"""
"""It leaves the first half of its statement in the transaction."""
ABORT = """
    CREATE TRIGGER whole AFTER INSERT ON students WHEN NEW.name = 'abort'
    BEGIN SELECT raise(ABORT, 'fees unpaid'); END"""
"""It undoes its statement."""


def add_rules(path: Path, *rules: str) -> None:
    """Be a host with tables and triggers of its own."""
    with closing(sqlite3.connect(path)) as host:
        for rule in rules:
            host.executescript(rule)


@pytest.fixture
def together(path: Path) -> Iterator[Store]:
    """Give a store that enrolls for many callers in one statement, with three students and a course."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript("""
            INSERT INTO students (name) VALUES ('Ada'), ('Ben'), ('Cy');
            INSERT INTO courses (name, level) VALUES ('Chess', 'A1');""")
    with closing(open_store(path)) as store:
        yield store


@pytest.mark.parametrize(
    ("rule", "name", "why"),
    [
        (DEFERRED, "deferred", "a row of grades would refer to a row of students that is not there"),
        (ROLLBACK, "rollback", "fees unpaid"),
        (FAIL, "fail", "fees unpaid"),
        (FAIL, "deep", "fees unpaid"),
        (ABORT, "abort", "fees unpaid"),
    ],
)
async def test_only_the_guilty_is_refused(store: Store, path: Path, rule: str, name: str, why: str) -> None:
    """However a host's rule undoes a write, alone or in a group: nothing of it is kept, and its neighbours are."""
    add_rules(path, rule)
    written = ["Ada", name, "Ben", name, "Cy"]
    outcome = await as_one_group(store, *(store.write(insert_student, each) for each in written))
    assert [type(each) for each in outcome] == [
        StudentRecord,
        ConstraintViolated,
        StudentRecord,
        ConstraintViolated,
        StudentRecord,
    ]
    assert {each.detail for each in outcome[1::2]} == {f"A rule of the database refuses this: {why}."}
    assert [(each.id, each.name) for each in outcome[::2]] == rows(path)
    with pytest.raises(ConstraintViolated, match=why):
        await store.write(insert_student, name)
    assert names(path) == ["Ada", "Ben", "Cy"]
    assert rows(path, "SELECT name FROM sqlite_master WHERE name = 'log'") == [("log",)] * (rule == FAIL)
    assert rule != FAIL or rows(path, "SELECT * FROM log") == []
    await store.check_ready()


async def test_a_referenced_student_stays_and_the_others_are_written(store: Store, path: Path) -> None:
    """A DELETE that a deferred reference of a host's stands against is refused, and names the tables."""
    add_rules(path, DEFERRED)
    await as_one_group(store, *(store.write(insert_student, name) for name in ("Ada", "Ben")))
    add_rules(path, "INSERT INTO grades (student_id) VALUES (1)")
    gone, refused, course = await as_one_group(
        store,
        store.write(students.delete_student, 2),
        store.write(students.delete_student, 1),
        store.write(courses.insert_course, "Chess", "A1"),
    )
    assert (gone, type(refused), course.id) == (None, ConstraintViolated, 1)
    assert "a row of grades would refer to a row of students" in refused.detail
    assert names(path) == ["Ada"]


@pytest.mark.parametrize("how", ["ROLLBACK", "FAIL", "ABORT"])
async def test_calls_that_are_run_together_are_judged_one_by_one(together: Store, path: Path, how: str) -> None:
    """Where a host's trigger refuses one of the calls that one statement serves, the others are kept."""
    add_rules(
        path,
        f"""CREATE TRIGGER host AFTER INSERT ON enrollments WHEN NEW.student_id = 2
            BEGIN SELECT raise({how}, 'fees unpaid'); END""",
    )
    outcome = await as_one_group(together, *(together.write_row(enroll_each, (student, 1)) for student in (1, 2, 3)))
    assert [type(each) for each in outcome[::2]] == [EnrollmentRecord] * 2
    assert isinstance(outcome[1], Conflict)
    assert rows(path, "SELECT student_id FROM enrollments ORDER BY student_id") == [(1,), (3,)]
    assert rows(path, "SELECT student_id FROM enrollment_events ORDER BY id") == [(1,), (3,)]
    assert rows(path, "SELECT enrolled FROM courses") == [(2,)]


async def test_a_rule_that_swallows_a_call_costs_the_others_nothing(together: Store, path: Path) -> None:
    """Where a host's RAISE(IGNORE) makes one call of many have no result, its caller alone hears of it."""
    add_rules(
        path,
        """CREATE TRIGGER host BEFORE INSERT ON enrollments WHEN NEW.student_id = 2
           BEGIN SELECT raise(IGNORE); END""",
    )
    outcome = await as_one_group(together, *(together.write_row(enroll_each, (student, 1)) for student in (1, 2, 3)))
    assert [isinstance(each, EnrollmentRecord) for each in outcome] == [True, False, True]
    assert isinstance(outcome[1], Exception)
    assert not isinstance(outcome[1], StorageUnavailable)
    assert rows(path, "SELECT student_id FROM enrollments ORDER BY student_id") == [(1,), (3,)]


async def test_calls_that_fail_together_at_commit_are_judged_one_by_one(together: Store, path: Path) -> None:
    """A deferred reference that one of them breaks does not undo the others."""
    add_rules(
        path,
        DEFERRED,
        """CREATE TRIGGER host AFTER INSERT ON enrollments WHEN NEW.student_id = 2
           BEGIN INSERT INTO grades (student_id) VALUES (99); END""",
    )
    outcome = await as_one_group(together, *(together.write_row(enroll_each, (student, 1)) for student in (1, 2, 3)))
    assert [type(each) for each in outcome] == [EnrollmentRecord, ConstraintViolated, EnrollmentRecord]
    assert rows(path, "SELECT student_id FROM enrollments ORDER BY student_id") == [(1,), (3,)]


@pytest.mark.parametrize("rule", ["", FAIL])
async def test_a_unit_is_run_twice_only_where_a_rule_may_leave_halves(store: Store, path: Path, rule: str) -> None:
    """A refusal undoes itself. Its group is run again only in a database that has a rule with FAIL."""
    add_rules(path, rule)
    runs = 0

    def add(db: pw.Database) -> StudentRecord:
        nonlocal runs
        runs += 1
        return insert_student(db, f"run {runs}")

    added, refused = await as_one_group(store, store.write(add), store.write(students.find_student, 9))
    assert isinstance(refused, StudentNotFound)
    assert runs == (2 if rule else 1)
    assert rows(path) == [(added.id, added.name)] == [(1, f"run {runs}")]


async def test_what_an_undone_run_gave_is_forgotten(store: Store, path: Path) -> None:
    """A unit that fails in the first run and not in the second has a result, and the other way about."""
    add_rules(path, ROLLBACK)
    runs = 0

    def change_its_mind(db: pw.Database, fails: tuple[int, ...]) -> str:
        nonlocal runs
        runs += 1
        if runs in fails:
            raise ZeroDivisionError
        return insert_student(db, f"run {runs}").name

    outcome = await as_one_group(
        store,
        store.write(change_its_mind, (1,)),
        store.write(change_its_mind, (4,)),
        store.write(insert_student, "rollback"),
    )
    assert [type(each) for each in outcome] == [str, ZeroDivisionError, ConstraintViolated]
    assert names(path) == ["run 3"] == outcome[:1]


@pytest.mark.parametrize("name", ["deferred", "rollback"])
async def test_a_bulk_that_a_constraint_undoes_keeps_nothing(store: Store, path: Path, name: str) -> None:
    """Work alone that a constraint undoes, at its COMMIT or before, is refused, and its neighbours are kept."""
    add_rules(path, DEFERRED, ROLLBACK)

    def add_two(db: pw.Database) -> None:
        with db.atomic("IMMEDIATE"):
            insert_student(db, "first")
            insert_student(db, name)

    before, refused, after = await as_one_group(
        store, store.write(insert_student, "Ada"), store.write(add_two, alone=True), store.write(insert_student, "Ben")
    )
    assert (before.name, type(refused), after.name) == ("Ada", ConstraintViolated, "Ben")
    assert names(path) == ["Ada", "Ben"]
    await store.check_ready()


@pytest.mark.long
async def test_random_groups_next_to_every_kind_of_rule(store: Store, path: Path) -> None:
    """Whatever comes together, exactly the sound writes are kept, and each caller hears of its own."""
    add_rules(path, DEFERRED, ROLLBACK, FAIL, ABORT)
    dice = random.Random(12)
    kept = []
    for _ in range(40):
        written = dice.choices(["good", "deferred", "rollback", "fail", "deep", "abort"], [20, 1, 1, 1, 1, 1], k=12)
        outcome = await as_one_group(store, *(store.write(insert_student, name) for name in written))
        for name, each in zip(written, outcome, strict=True):
            assert isinstance(each, StudentRecord if name == "good" else ConstraintViolated)
        kept += [(each.id, each.name) for each in outcome if isinstance(each, StudentRecord)]
    assert rows(path) == kept


def test_a_host_rule_is_a_problem_of_its_own(client: TestClient, path: Path) -> None:
    """Over HTTP the refusal of a rule that is not the service's is 409 constraint_violated, in its author's words."""
    add_rules(path, ABORT, DEFERRED)
    for name, why in (("abort", "fees unpaid"), ("deferred", "a row of grades would refer to a row of students")):
        answer = client.post("/students", json={"name": name})
        assert (answer.status_code, answer.json()["code"]) == (409, "constraint_violated")
        assert why in answer.json()["detail"]
    assert client.get("/students").json() == []


# What a refusal says


@pytest.mark.parametrize(
    ("table", "statement", "why"),
    [
        ("c (x CONSTRAINT fee CHECK (x > 0))", "INSERT INTO c VALUES (0)", "CHECK constraint failed: fee"),
        ("c (x UNIQUE)", "INSERT INTO c VALUES (1), (1)", "UNIQUE constraint failed: c.x"),
        ("c (x NOT NULL)", "INSERT INTO c VALUES (NULL)", "NOT NULL constraint failed: c.x"),
        ("c (x REFERENCES students (id))", "INSERT INTO c VALUES (9)", "FOREIGN KEY constraint failed"),
    ],
)
async def test_a_constraint_is_named(store: Store, path: Path, table: str, statement: str, why: str) -> None:
    """Where nobody wrote a message, the detail has the constraint's or the column's name."""
    add_rules(path, f"CREATE TABLE {table}")
    with pytest.raises(ConstraintViolated, match=why):
        await store.write(fetch, statement)


async def test_the_broken_one_of_many_references_is_named(store: Store, path: Path) -> None:
    """Among all the deferred references of a host the one that is broken is found."""
    deferred = "DEFERRABLE INITIALLY DEFERRED"
    for table in ("fees", "grades", "marks"):
        add_rules(path, f"CREATE TABLE {table} (student REFERENCES students (id) {deferred})")
    with pytest.raises(ConstraintViolated, match="a row of grades would refer to a row of students that is not there"):
        await store.write(fetch, "INSERT INTO grades VALUES (7)")


@pytest.mark.long
async def test_a_broken_reference_is_not_searched_for_long(store: Store, path: Path) -> None:
    """A host's table of any size holds the writer up for a moment only; then all that it can be are named."""
    add_rules(
        path,
        DEFERRED,
        """INSERT INTO students (name) VALUES ('Ada');
           WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
           INSERT INTO grades (student_id) SELECT 1 FROM n;""",
    )
    with pytest.raises(ConstraintViolated, match="a row of grades would refer to a row of another table that is not"):
        await store.write(fetch, "INSERT INTO grades (student_id) VALUES (2)")
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM grades").fetchone() == (1_000_000,)


async def test_a_refusal_of_the_storage_names_the_newest_error(store: Store, path: Path) -> None:
    """A disk that fails after a constraint did is what is told, and not the constraint."""
    await as_one_group(
        store,
        store.write(insert_student, "Ada"),
        store.write(courses.insert_course, "Chess", "A1"),
        store.write(enroll, 1, 1),
    )

    def enroll_again(db: pw.Database) -> Any:
        try:
            return enroll(db, 1, 1)
        except AlreadyEnrolled:
            insert_student(db, "Ben")
            fail_to_write(path)
            db.commit()

    with pytest.raises(StorageUnavailable, match=r"cannot be used: disk I/O error\. Whether anything was kept is not"):
        await store.write(enroll_again)
    assert names(path) == ["Ada"]


def test_an_error_of_the_undoing_hides_nothing(db: pw.SqliteDatabase) -> None:
    """Where SQLite has undone the transaction already, what follows is no news: a full disk is what is told."""
    db.execute_sql("PRAGMA max_page_count = 1")
    with pytest.raises(pw.OperationalError, match="cannot rollback") as raised, db.atomic(), db.atomic():
        db.execute_sql("INSERT INTO enrollment_migrations (name, migrated_at) VALUES (hex(zeroblob(100000)), '')")
    assert unavailable(raised.value, "Nothing was kept.").detail == (
        "The database cannot be used: database or disk is full. Nothing was kept."
    )


def test_an_error_that_is_none_of_the_database_speaks_for_itself(db: pw.SqliteDatabase) -> None:
    """What came of no database error is told as it is."""
    assert violation(db, ValueError("odd")).detail == "A rule of the database refuses this: odd."


def rows(path: Path, query: str = "SELECT id, name FROM students ORDER BY id") -> list[Any]:
    """Give what a query finds in the file, as another program would."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()
