"""A school moves from a file to PostgreSQL and back: all rows, with their ids, or none."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import peewee as pw
import psycopg
import pytest
from click.testing import CliRunner, Result
from conftest import ROOT
from postgresql import Server
from stores import held

from service import connect
from service.__main__ import cli
from service.courses import insert_course, update_course
from service.enrollments import drop, enroll
from service.errors import SetupError
from service.moving import COLUMNS, move
from service.registrar import withdraw
from service.storage import fetch, kinds
from service.students import delete_student, insert_student
from service.terms import insert_term
from service.tokens import create_token


def run(*words: str | Path) -> Result:
    """Run the command `move`."""
    return CliRunner().invoke(cli, ["move", *map(str, words)])


def contents(url: str | Path) -> dict[str, list[tuple[object, ...]]]:
    """Give all rows of all tables, as every kind of database has them."""
    with closing(kinds.connect(url)) as db:
        return {
            table: [
                tuple(bytes(value) if isinstance(value, memoryview) else value for value in row)
                for row in fetch(db, f"SELECT {', '.join(columns)} FROM {table} ORDER BY 1, 2")
            ]
            for table, columns in COLUMNS.items()
        }


def fill(db: pw.Database) -> None:
    """Make a school with all that a school can have, of which some is gone again."""
    term = insert_term(db, "Autumn", external_id="T1", starts_on="2026-09-01")
    for number in range(1, 31):
        insert_student(db, f"Zoë \\{number}", external_id=f"S{number}", email=f"z{number}@school.example")
    for number in range(1, 4):
        insert_course(db, f"Course {number}", "1", capacity=5, waitlist_capacity=None, term_id=term.id)
    for student in range(1, 31):
        enroll(db, student, student % 3 + 1)
    drop(db, 3, 1, actor="office", reason="moved away")
    enroll(db, 1, 1, override=True, actor="dean")
    withdraw(db, 30, reason="gone")
    delete_student(db, 30)
    update_course(db, 2, {"capacity": 7})
    create_token(db, "reports", ["read"])
    db.execute_sql("UPDATE students SET name = char(9) || '\\N' || char(10) WHERE id = 2")  # Another program's.


@pytest.fixture
def file(path: Path) -> Path:
    """Give a file with a whole school."""
    with closing(connect(path)) as db:
        fill(db)
    return path


@pytest.fixture
def empty(server: Server) -> Iterator[str]:
    """Give the URL of a database of PostgreSQL with nothing in it."""
    with server.database() as url:
        yield url


def test_there_and_back(file: Path, empty: str, tmp_path: Path) -> None:
    """A school that moved to PostgreSQL, and then to another file, is the school that it was, and lives on."""
    before, back = contents(file), tmp_path / "back.db"
    told = run(file, empty)
    assert (told.exit_code, told.stdout.splitlines()[-1]) == (0, f"{empty} has all that {file} has, and is sound.")
    assert "students                    29\n" in told.stdout
    assert contents(empty) == before
    assert run(empty, back).exit_code == 0
    assert contents(back) == before == contents(file)
    assert all(count for table, count in move(back, tmp_path / "other.db").items() if table != "api_sessions")
    assert contents(tmp_path / "other.db") == before
    for url in (file, empty, back, tmp_path / "other.db"):
        assert not [result for result in kinds.schema_of(url).prove(url) if result.broken or result.over]
        with closing(connect(url)) as db:
            assert insert_student(db, "New").id == 31  # The id 30 was given before.
            assert insert_course(db, "New", "2").id == 4
            assert insert_term(db, "New").id == 2
            first = fetch(db, "SELECT student_id FROM enrollments WHERE course_id = 3 ORDER BY waiting LIMIT 1")
            assert enroll(db, 31, 3).position == 6
            drop(db, fetch(db, "SELECT student_id FROM enrollments WHERE course_id = 3 AND waiting IS NULL")[0][0], 3)
            assert first != fetch(db, "SELECT student_id FROM enrollments WHERE course_id = 3 ORDER BY waiting LIMIT 1")
    assert contents(empty)["enrollments"][0][:2] == before["enrollments"][0][:2]


def test_between_two_schools(file: Path, server: Server, empty: str) -> None:
    """A school moves from one database of PostgreSQL to another, and to a schema of its own."""
    move(file, empty)
    with server.database() as other:
        move(empty, f"{other}?options=-csearch_path%3Dnorth")
        assert contents(f"{other}?options=-csearch_path%3Dnorth") == contents(file)


def test_a_target_with_rows(file: Path, school: str) -> None:
    """Nothing is mixed: the target must be empty, and stays as it is."""
    with closing(connect(school)) as db:
        insert_student(db, "Ada")
    before = contents(school)
    told = run(file, school)
    assert (told.exit_code, told.stderr) == (
        1,
        f"Error: Nothing was moved: the database {school} has rows already, in students.\n",
    )
    assert contents(school) == before
    assert "has rows already, in terms, students, " in run(school, file).stderr


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (99, 1, 'now')", "enrollments"),
        ("UPDATE courses SET enrolled = 0", "not sound: counts: course 1.* Run: python -m service repair"),
        (
            "UPDATE students SET name = 'a' || char(0) WHERE id = 2",
            "0x00.*in the row of students with id 2",
        ),
        (
            "UPDATE students SET name = CAST(x'ff' AS TEXT) WHERE id = 2",
            "of students behind id 1 .*decode to UTF-8",
        ),
        (
            f"UPDATE students SET name = '{'a' * 201}' WHERE id = 2",
            "value too long.*students, line 2, column name",
        ),
    ],
)
def test_a_file_that_is_not_sound(file: Path, school: str, sql: str, why: str) -> None:
    """What PostgreSQL would not hold, or the rules would not, is told; the target stays empty."""
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute(sql)
        for _, made in triggers:
            db.execute(made)
    with pytest.raises(SetupError, match=f"(?s){why}"):
        move(str(file), school)
    assert not any(contents(school).values())


def test_a_rule_of_another_program_in_the_target(file: Path, school: str) -> None:
    """Where a trigger in the target leaves a row out, the rows are too few, and none is kept."""
    with closing(connect(school)) as db:
        db.execute_sql("""
            CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RETURN CASE WHEN NEW.id = 30 THEN NULL ELSE NEW END; END $$""")
        db.execute_sql("CREATE TRIGGER leave_out BEFORE INSERT ON terms FOR EACH ROW EXECUTE FUNCTION leave_out()")
    with closing(sqlite3.connect(file)) as source, source:
        source.execute("INSERT INTO terms (id, name) VALUES (30, 'Never')")
    with pytest.raises(SetupError, match="not as many as those that were read"):
        move(file, school)
    assert not any(contents(school).values())


def test_a_table_of_another_program_in_the_target(file: Path, school: str) -> None:
    """A table in the target may refer to those of the service."""
    with closing(connect(school)) as db:
        db.execute_sql("CREATE TABLE seen (event_id bigint REFERENCES enrollment_events)")
    move(file, school)
    assert contents(school) == contents(file)
    with closing(connect(school)) as db, pytest.raises(pw.IntegrityError):
        db.execute_sql("INSERT INTO seen VALUES (-1)")


def test_an_empty_school(path: Path, school: str) -> None:
    """A school without a row moves too, and gives its first ids."""
    assert not any(move(path, school).values())
    with closing(connect(school)) as db:
        assert insert_student(db, "Ada").id == 1


def test_both_must_be_there(file: Path, tmp_path: Path, server: Server) -> None:
    """Where one of the two cannot be used, the error says which and why."""
    assert "There is no database at" in run(tmp_path / "none.db", file).stderr
    nowhere = server.url.removesuffix("/postgres") + "/nowhere"
    assert f"{nowhere} cannot be used" in run(file, nowhere).stderr
    assert "has rows already" not in run(file, tmp_path / "none.db").stderr
    with held(file, "BEGIN IMMEDIATE"), pytest.MonkeyPatch.context() as patch:
        patch.setitem(kinds.schema_of(file)._MIGRATING, "busy_timeout", 0.1)  # noqa: SLF001
        assert "another program has it open" in run(file, tmp_path / "other.db").stderr


@pytest.mark.long
def test_killed(file: Path, school: str) -> None:
    """A move that is killed while it copies leaves the target empty, and can be begun again."""
    with closing(sqlite3.connect(file)) as db, db:
        db.executemany("INSERT INTO students (name) VALUES (?)", ((f"Student {number}",) for number in range(10_000)))
    command = [sys.executable, "-m", "service", "move", str(file), school]
    with subprocess.Popen(command, cwd=ROOT) as moving, psycopg.connect(school, autocommit=True) as watching:
        copying = "SELECT count(*) FROM pg_stat_progress_copy WHERE tuples_processed > 100"
        while watching.execute(copying).fetchone() == (0,):
            assert moving.poll() is None
            time.sleep(0.001)
        moving.kill()
    assert not any(contents(school).values())
    assert run(file, school).exit_code == 0
    assert contents(school) == contents(file)


def test_nobody_writes_meanwhile(file: Path, school: str) -> None:
    """While a school is moved, a write to the source waits, so none is left behind unseen."""
    seen: list[str] = []

    def tick(what: str, _: float) -> None:
        if what == "enrollments":
            with (
                closing(sqlite3.connect(file, timeout=0)) as db,
                pytest.raises(sqlite3.OperationalError, match="locked"),
            ):
                db.execute("DELETE FROM enrollments")
        seen.append(what)

    move(str(file), school, tick)
    assert [what for what in seen if what in COLUMNS] == [*COLUMNS]
    assert "indexes" in seen
