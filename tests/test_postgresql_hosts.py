"""Other programs in the database of a school: whatever their triggers do, what is counted and told is what is there."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import peewee as pw
import psycopg
import pytest
from conftest import ROOT
from invariants import check
from starlette.testclient import TestClient
from test_docs import EMBEDDING, blocks
from test_postgresql_rules import host, trigger

from service import Settings, connect, courses, create_app, enrollments, students
from service.errors import ConstraintViolated, SchemaMismatch, SetupError
from service.storage import backend_of
from service.storage.postgres import schema

ENROLL = "INSERT INTO enrollments (student_id, course_id) VALUES (5, 2)"
OVERRIDE = "INSERT INTO enrollments VALUES (4, 1, '2026-09-01T08:30:00.000Z', NULL, 0)"
STORED: dict[str, tuple[str, str, str]] = {
    "counts that stay": (
        *trigger("BEFORE UPDATE", "RETURN OLD;", "courses"),
        "left the counts of a course as they were",
    ),
    "counts left out": (
        *trigger("BEFORE UPDATE", "RETURN NULL;", "courses"),
        "left the counts of a course as they were",
    ),
    "events left out": (*trigger("BEFORE INSERT", "RETURN NULL;", "enrollment_events"), "left an event out"),
    "events of another": (
        *trigger("BEFORE INSERT", "NEW.student_id := 1; RETURN NEW;", "enrollment_events"),
        "left an event out, or changed it",
    ),
    "notes left out": (*trigger("BEFORE INSERT", "RETURN NULL;", "event_notes"), "left a note out"),
    "a line that stays": (*trigger("BEFORE UPDATE", "RETURN OLD;"), "an enrollment is added, promoted by a free seat"),
    "a line left out": (*trigger("BEFORE UPDATE", "RETURN NULL;"), "left a student in line who has a seat"),
}
"""What a trigger of another program does to a row that the service writes along, and what is said of it."""


@pytest.fixture
def path(school: str) -> Iterator[str]:
    """Give a school with six students, of whom 1 has the seat of course 1, and 2 and 3 wait; prove it at the end."""
    with closing(connect(school)) as db:
        for _ in range(6):
            students.insert_student(db, "Ada")
        courses.insert_course(db, "Logic", "1", 1, 3)
        courses.insert_course(db, "Chess", "1")
        for student in (1, 2, 3):
            enrollments.enroll(db, student, 1)
    yield school
    check(school)


@pytest.fixture
def other(path: str) -> Iterator[psycopg.Connection[Any]]:
    """Give another program's connection, which commits each statement."""
    with psycopg.connect(path, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("what", STORED)
def test_a_trigger_that_spoils_what_is_counted(path: str, other: psycopg.Connection[Any], what: str) -> None:
    """Where a trigger leaves as it was what the service writes along, the statement is refused, and says why."""
    *made, told = STORED[what]
    host(path, *made)
    before = check(path)
    writes: list[tuple[str, Callable[[pw.Database], object]]] = [
        ("DELETE FROM enrollments WHERE student_id = 1", lambda db: enrollments.drop(db, 1, 1)),
        (ENROLL, lambda db: enrollments.enroll(db, 5, 2)),
    ]
    if "note" in what:
        writes = [(OVERRIDE, lambda db: enrollments.enroll(db, 4, 1, override=True))]
    with closing(connect(path)) as db:
        for sql, rule in writes[: 1 if "line" in what else 2]:
            with pytest.raises(ConstraintViolated, match=told):
                rule(db)
            with pytest.raises(psycopg.IntegrityError, match=told):
                other.execute(sql.encode())
    assert check(path) == before


# A trigger that has the last word


def test_who_comes_after_the_service(path: str) -> None:
    """A trigger that would change a row that is counted already is a difference of the schema, until it is renamed."""
    made, *_ = trigger("", "RETURN NEW;")
    host(
        path,
        made,
        "CREATE TRIGGER zzz_after AFTER INSERT OR UPDATE ON enrollments FOR EACH ROW EXECUTE FUNCTION host()",
        "CREATE TRIGGER zzz_gone BEFORE DELETE ON enrollments FOR EACH ROW EXECUTE FUNCTION host()",
        "CREATE TRIGGER zzz_once BEFORE INSERT ON enrollments FOR EACH STATEMENT EXECUTE FUNCTION host()",
        "CREATE TRIGGER first BEFORE INSERT ON enrollments FOR EACH ROW EXECUTE FUNCTION host()",
        "CREATE TRIGGER zzz_off BEFORE INSERT ON courses FOR EACH ROW EXECUTE FUNCTION host()",
        "ALTER TABLE courses DISABLE TRIGGER zzz_off",
    )
    connect(path).close()
    for name, moment in (("zzz", "INSERT"), ('the "last" BEFORE', "DELETE OR UPDATE OF waiting"), ("é", "UPDATE")):
        quoted = name.replace('"', '""')
        host(path, f'CREATE TRIGGER "{quoted}" BEFORE {moment} ON enrollments FOR EACH ROW EXECUTE FUNCTION host()')
        if name > "zz_":
            with pytest.raises(SchemaMismatch, match=f"the trigger {name} of another program comes after the service"):
                connect(path)
            rename = f'ALTER TRIGGER "{name}" ON enrollments RENAME TO its_other_name'
            with pytest.raises(SetupError, match=f"Give it a name that sorts before zz_: {rename}"):
                schema.repair(path)
            host(path, f'ALTER TRIGGER "{name}" ON enrollments RENAME TO "a {name}"')
        connect(path).close()


def test_what_a_late_trigger_has_spoilt(path: str, other: psycopg.Connection[Any]) -> None:
    """What such a trigger has left out before anybody looked is found by `check`, and `repair` mends it."""
    made, _ = trigger("", "RETURN NULL;")
    host(path, made, "CREATE TRIGGER zzz BEFORE INSERT ON enrollments FOR EACH ROW EXECUTE FUNCTION host()")
    other.execute(ENROLL)
    wrong = {result.invariant.name for result in schema.prove(path) if result.broken}
    assert wrong == {"schema", "counts", "state"}
    other.execute("ALTER TRIGGER zzz ON enrollments RENAME TO aaa")
    assert schema.repair(path) == [
        "the feed lacked events: told dropped student 5 in course 2.",
        "counts were not those of the enrollments: put right course 2.",
    ]


# Statements of other programs


FROM_TABLE = (
    "USING (VALUES (3, 1), (5, 2), (6, 1)) AS pair (student, course) ON student_id = student AND course_id = course"
)
ADD = "INSERT (student_id, course_id) VALUES (student, course)"


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        (f"MERGE INTO enrollments {FROM_TABLE} WHEN NOT MATCHED THEN {ADD}", ["enrolled 5 2", "waitlisted 6 1"]),
        (
            f"MERGE INTO enrollments {FROM_TABLE} WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN {ADD}",
            ["enrolled 5 2", "waitlisted 6 1", "dropped 3 1"],
        ),
        (
            f"MERGE INTO enrollments {FROM_TABLE} WHEN MATCHED THEN UPDATE SET waiting = NULL",
            "an enrollment is added, promoted by a free seat, or dropped",
        ),
        (
            f"INSERT INTO enrollments {ADD[7:]}".replace("(student, course)", "(5, 2), (5, 2) ON CONFLICT DO NOTHING"),
            ["enrolled 5 2"],
        ),
        (f"{ENROLL} ON CONFLICT (student_id, course_id) DO UPDATE SET enrolled_at = ''", ["enrolled 5 2"]),
        (
            """INSERT INTO enrollments (student_id, course_id) VALUES (5, 2), (1, 1)
            ON CONFLICT (student_id, course_id) DO UPDATE SET enrolled_at = enrollment_now()""",
            "an enrollment is added, promoted by a free seat, or dropped",
        ),
        (
            """WITH gone AS (DELETE FROM enrollments WHERE course_id = 1 RETURNING student_id)
            INSERT INTO enrollments (student_id, course_id) SELECT student_id, 2 FROM gone ORDER BY 1""",
            ["enrolled 1 2", "enrolled 2 2", "enrolled 3 2", "dropped 2 1", "dropped 3 1", "dropped 1 1"],
        ),
        (
            "COPY enrollments (student_id, course_id) FROM PROGRAM 'printf \"5\\t2\\n6\\t1\\n\"'",
            ["enrolled 5 2", "waitlisted 6 1"],
        ),
    ],
)
@pytest.mark.usefixtures("path")
def test_statements(other: psycopg.Connection[Any], sql: str, told: Any) -> None:
    """Whatever statement adds and drops, each row is counted and told once, or all of it is refused."""
    if isinstance(told, str):
        with pytest.raises(psycopg.IntegrityError, match=told):
            other.execute(sql.encode())
        told = []
    else:
        other.execute(sql.encode())
    found = other.execute(
        "SELECT type || ' ' || student_id || ' ' || course_id FROM enrollment_events WHERE id > 3 ORDER BY id"
    )
    assert [each for (each,) in found] == told


# Errors of other programs' rules


FAILING = {
    "22P02": "PERFORM 'Ada'::int;",
    "22003": "PERFORM 2147483647 + 1;",
    "22001": "INSERT INTO short VALUES ('Ada');",
    "22021": r"PERFORM convert_from('\xff', 'UTF8');",
    "22012": "PERFORM 1 / 0;",
    "22023": "RAISE 'fees unpaid' USING ERRCODE = '22023';",
    "23514": "INSERT INTO short VALUES ('no');",
    "23502": "INSERT INTO short VALUES (NULL);",
    "P0002": "RAISE no_data_found;",
    "P0004": "ASSERT FALSE, 'fees unpaid';",
    "27000": "RAISE triggered_data_change_violation;",
    "44000": "RAISE with_check_option_violation;",
    "H0001": "RAISE 'fees unpaid' USING ERRCODE = 'H0001';",
}
"""What a trigger of another program does, by the SQLSTATE of the error that comes of it."""

OF_ALL = {"27000", "44000", "H0001"}
"""The SQLSTATEs of errors that refuse a whole bulk: PL/pgSQL has no name for those of other programs, and the others
are rare."""


@pytest.mark.parametrize("state", FAILING)
def test_errors_of_another_programs_rules(path: str, state: str, caplog: pytest.LogCaptureFixture) -> None:
    """A value that another program's rule cannot take is a refusal in PostgreSQL's words, of that row alone."""
    made = FAILING[state]
    host(path, "CREATE TABLE short (name varchar(2) NOT NULL CHECK (name <> 'no'))")
    host(path, *trigger("BEFORE INSERT", f"IF NEW.student_id = 5 THEN {made} END IF; RETURN NEW;"))
    host(
        path,
        "CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF NEW.name = 'Bo' THEN {made} END IF; RETURN NEW; END $$",
        "CREATE TRIGGER guard AFTER UPDATE ON students FOR EACH ROW EXECUTE FUNCTION guard()",
    )
    with TestClient(create_app(Settings(database_url=path))) as client:
        rows = [{"student_id": student, "course_id": 2} for student in (4, 5, 6)]
        answers = [client.patch("/students/1", json={"name": "Bo"}), client.put("/students/5/courses/2")]
        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (409, "constraint_violated"), answer.text
            assert "A rule of the database refuses this: " in answer.json()["detail"]
            assert "None" not in answer.json()["detail"]
        answer = client.post("/enrollments", json=rows)
        if state in OF_ALL:
            assert (answer.status_code, answer.json()["code"]) == (409, "constraint_violated")
        else:
            assert [result["status"] for result in answer.json()["results"]] == [201, 409, 201]
        assert client.patch("/students/1", json={"name": "Cy"}).status_code == 200
    assert caplog.records == []


def test_a_value_that_the_database_cannot_have(path: str) -> None:
    """What the driver itself refuses to send is a refusal in the driver's words."""
    with closing(connect(path)) as db:
        with pytest.raises(pw.IntegrityError) as raised:
            db.execute_sql("UPDATE students SET name = ?", ("A\0",))
        assert "cannot contain NUL" in backend_of(db).explain(db, raised.value).detail


# Who has a school open


def test_a_rollback_minds_its_own_school(path: str) -> None:
    """Whoever has another school of the database open is not in the way of a rollback, and who has this one is."""
    north = f"{path}?options=-csearch_path%3Dnorth"
    schema.migrate(north)
    with closing(connect(path)) as db:
        db.execute_sql("SELECT 1")
        schema.try_rollback(north)
        with pytest.raises(SetupError, match="such as a server"):
            schema.try_rollback(path)
        with closing(connect(north)), pytest.raises(SetupError, match="such as a server"):
            schema.rollback(north, alone=True)
        assert schema.rollback(north, alone=True)


def test_the_page_on_embedding(school: str) -> None:
    """The program that is shown prints what is shown, and Peewee's own models work on its database."""
    section = EMBEDDING.section("On PostgreSQL")
    (block,), (shown,) = blocks("python", section), blocks("text", section)
    program = block.replace("postgresql://enrollment@db.example.org/school", school)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (shown, "")

    class Fees(pw.Model):
        student_id, cents = pw.BigIntegerField(primary_key=True), pw.BigIntegerField()

    with closing(connect(school)) as db, db.bind_ctx([Fees]), db.atomic():
        ada = students.insert_student(db, "100% Ada?")
        Fees.create(student_id=ada.id, cents=7)
        assert Fees.get(Fees.student_id == ada.id).cents == 7
        with pytest.raises(pw.IntegrityError):
            Fees.create(student_id=ada.id, cents=-1)
        assert Fees.select().count() == 2
