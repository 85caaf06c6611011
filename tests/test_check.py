"""`python -m service check`: each invariant is broken by hand, and exactly the right lines tell."""

import os
import pty
import re
import select
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing, redirect_stdout
from pathlib import Path

import peewee as pw
import pytest
from click import ClickException
from click.testing import CliRunner, Result
from drifted import run_script

from service import connect, migrate, sessions, tokens
from service.__main__ import cli
from service.bulk import enroll_all
from service.courses import insert_course
from service.enrollments import drop, enroll
from service.storage.migrating import HISTORY
from service.storage.sqlite.breaches import STANDING
from service.storage.sqlite.check import PATIENCE, run
from service.storage.sqlite.connections import open_database
from service.storage.sqlite.drift import expected, tables
from service.storage.sqlite.invariants import INVARIANTS
from service.storage.sqlite.schema import rollback
from service.students import insert_student

NAMES = [invariant.name for invariant in INVARIANTS]
LONG_AGO = "2026-01-01T00:00:00.000Z"

# Ids of events: 1 and 2 enroll in Algebra, 3 to 6 in Logic, where 1 then leaves and 2 is promoted, and 9 in Music.
SCHOOL = ("Algebra", None, 0), ("Logic", 1, 3), ("Music", 2, 0)


@pytest.fixture
def school(path: Path) -> Path:
    """Give a file where 1 and 2 are in Algebra, 2 has the seat in Logic, for which 3 and 4 wait, and 1 is in Music."""
    with closing(connect(path)) as db:
        for number in range(1, 6):
            insert_student(db, f"Student {number}")
        for name, *limits in SCHOOL:
            insert_course(db, name, "A1", *limits)
        for student, course in ((1, 1), (2, 1), (1, 2), (2, 2), (3, 2), (4, 2)):
            enroll(db, student, course)
        drop(db, 1, 2)
        enroll(db, 1, 3)
    return path


def without_rules(path: Path, sql: str) -> None:
    """Run SQL while the file's triggers, references and checks do not hold; the triggers come back."""
    triggers = [each for each in expected().values() if each.type == "trigger"]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for each in triggers:
            connection.execute(f"DROP TRIGGER {each.name}")
        connection.executescript(sql)
        for each in triggers:
            connection.execute(each.sql)


def found(path: Path) -> dict[str, str]:
    """Give the lines that tell of something."""
    with open_database(path) as db:
        return {result.invariant.name: str(result) for result in run(db) if str(result) != "ok"}


def test_tokens_are_checked(path: Path) -> None:
    """A token or a session that would count for ever, or has no hash, is named by the token's id."""
    with closing(connect(path)) as db:
        token = tokens.create_token(db, "desk", ["read"])
        sessions.open_session(db, token)
    assert found(path) == {}
    without_rules(path, "UPDATE api_tokens SET expires_at = 'never', hash = 'x'; UPDATE api_sessions SET ends_at = ''")
    name = f"token {token[4:12]!r}"
    told = found(path)
    assert told.keys() == {"types", "windows"}
    assert told["types"].startswith(f"{name}, hash: ")
    assert told["windows"].startswith(f"{name}; a session of {name}: ")


def check(path: Path) -> Result:
    """Run the command."""
    return CliRunner().invoke(cli, ["check", "--database-url", str(path)])


ENROLLED = f"('enrolled', '{LONG_AGO}', 5, 2)"
EVENT = "INSERT INTO enrollment_events (type, at, student_id, course_id) VALUES"
SEAT = f"INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (5, 2, '{LONG_AGO}');"

BROKEN = {
    "DROP INDEX course_level_id": {"schema": "the index course_level_id is missing: the schema is not as"},
    "UPDATE students SET name = x'41' WHERE id = 2; UPDATE courses SET capacity = '' WHERE id = 3": {
        "types": "student 2, name; course 3, capacity: the value is not of its column's type.",
        "words": "student 2: the search does not find it by its words.",
    },
    "UPDATE students SET id = -1 WHERE id = 5": {
        "ids": "student -1: it is there twice, or its id is below 1.",
        "words": "student -1; student 5: the search does not find it by its words.",
    },
    "DELETE FROM sqlite_sequence WHERE name = 'courses'": {
        "sequence": "the table courses: an id would be given a second time."
    },
    "UPDATE sqlite_sequence SET seq = 4 WHERE name = 'students'; DELETE FROM students WHERE id = 5;"
    f"{EVENT} ('enrolled', '{LONG_AGO}', 5, 3), ('dropped', '{LONG_AGO}', 5, 3)": {
        "sequence": "the table students: an id would be given a second time.",
        "words": "student 5: the search does not find it by its words.",
    },
    f"{EVENT} ('enrolled', '{LONG_AGO}', 1 << 62, 3), ('dropped', '{LONG_AGO}', 1 << 62, 3)": {},
    "DELETE FROM students WHERE id = 3; DELETE FROM courses WHERE id = 3": {
        "references": "student 3 in course 2; student 1 in course 3: the student or the course does not exist.",
        "foreign keys": "a row of enrollments without its row of students; "
        "a row of enrollments without its row of courses",
        "words": "student 3; course 3: the search does not find it by its words.",
    },
    "UPDATE enrollments SET enrolled_at = NULL WHERE course_id = 1": {
        "standing": "student 1 in course 1; student 2 in course 1: it is neither a seat nor a place in line, or both.",
        "state": "student 1 in course 1; student 2 in course 1: the feed tells it otherwise.",
    },
    "UPDATE courses SET capacity = 0 WHERE id = 3; UPDATE courses SET waitlist_capacity = 1 WHERE id = 2": {
        "limits": "course 2 with 1 enrolled and 2 waiting; course 3 with 1 enrolled and 0 waiting: more are enrolled",
    },
    "UPDATE courses SET enrolled = 1 WHERE id = 1; UPDATE courses SET waitlisted = 3 WHERE id = 2": {
        "counts": "course 1; course 2: its counts are not those of its enrollments."
    },
    "UPDATE courses SET capacity = NULL WHERE id = 2": {"seats": "course 2: a seat is free while someone waits."},
    "UPDATE enrollments SET waiting = 5 WHERE waiting IS NOT NULL": {
        "line": "student 3 in course 2; student 4 in course 2: the places"
    },
    "UPDATE enrollments SET waiting = 7 - waiting + 4 WHERE waiting IS NOT NULL": {
        "line": "student 4 in course 2; student 3 in course 2: the places in line"
    },
    "UPDATE enrollment_events SET type = 'promoted' WHERE id = 1": {
        "history": "event 1: it cannot follow what was told before."
    },
    f"{EVENT} ('dropped', '{LONG_AGO}', 5, 1)": {
        "history": "ok now, but not once: event 10: it cannot follow what was told before."
    },
    f"{EVENT} ('promoted', '{LONG_AGO}', 5, 1), ('dropped', '{LONG_AGO}', 5, 1)": {
        "history": "ok now, but not once: event 10: it cannot follow what was told before."
    },
    f"UPDATE enrollments SET enrolled_at = '{LONG_AGO}' WHERE student_id = 2": {
        "state": "student 2 in course 1; student 2 in course 2: the feed tells it otherwise."
    },
    "DELETE FROM enrollments WHERE course_id = 3; UPDATE courses SET enrolled = 0 WHERE id = 3": {
        "state": "student 1 in course 3: the feed tells it otherwise.",
        "filed": "event 9: the student's feed leaves it out.",
    },
    f"{SEAT} UPDATE courses SET enrolled = 2, capacity = 2 WHERE id = 2": {
        "state": "student 5 in course 2: the feed tells it otherwise."
    },
    f"{SEAT} UPDATE courses SET enrolled = 2, capacity = 2 WHERE id = 2; {EVENT} {ENROLLED}": {
        "turns": "event 10: it gave a seat while another was longer in line."
    },
    f"""UPDATE enrollments SET waiting = NULL, enrolled_at = '{LONG_AGO}' WHERE student_id = 4;
    UPDATE courses SET enrolled = 2, waitlisted = 1, capacity = 2 WHERE id = 2;
    {EVENT} ('promoted', '{LONG_AGO}', 4, 2)""": {
        "turns": "event 10: it gave a seat while another was longer in line."
    },
    f"""UPDATE enrollments SET waiting = NULL, enrolled_at = '{LONG_AGO}' WHERE waiting;
    UPDATE courses SET enrolled = 3, waitlisted = 0, capacity = 3 WHERE id = 2;
    {EVENT} ('promoted', '{LONG_AGO}', 4, 2), ('promoted', '{LONG_AGO}', 3, 2)""": {
        "turns": "ok now, but not once: event 10: it gave a seat while another was longer in line."
    },
    """UPDATE enrollments SET enrolled_at = '2026-01-01 10:00:00' WHERE course_id = 3;
    UPDATE enrollment_events SET at = '2026-01-01 10:00:00' WHERE course_id = 3""": {
        "times": "student 1 in course 3: the time is not in the form 2026-09-01T08:30:00.000Z."
    },
    "UPDATE enrollment_events SET at = '2026-02-30T10:00:00.000Z' WHERE id = 3": {
        "times": "ok now, but not once: event 3: the time is not in the form 2026-09-01T08:30:00.000Z."
    },
    "UPDATE enrollment_events SET filed = 0 WHERE id = 7": {"filed": "event 7: the student's feed leaves it out."},
    "UPDATE enrollments SET event_id = NULL WHERE student_id = 1": {
        "filed": "event 1; event 9: the student's feed leaves it out."
    },
    "UPDATE students SET name = 'Other' WHERE id = 2; DELETE FROM course_words WHERE beginning = 'log'": {
        "words": "student 2; course 2: the search does not find it by its words."
    },
    "INSERT INTO student_words VALUES ('abc', 'Abc', 77, ',abc,^')": {
        "words": "student 77: the search does not find it by its words."
    },
    "UPDATE letters SET plain = 'f' WHERE letter = 'é'; DELETE FROM letters WHERE letter IN ('É', '\U0001e900')": {
        "letters": "letter 'É'; letter 'é': the search takes it for another letter."
    },
}


@pytest.mark.parametrize(("sql", "lines"), BROKEN.items(), ids=map(str, range(len(BROKEN))))
def test_each_invariant_has_its_line(school: Path, sql: str, lines: dict[str, str]) -> None:
    """What breaks an invariant is told by the lines that it breaks, with its ids, and by no other."""
    assert found(school) == {}
    without_rules(school, sql)
    told = found(school)
    assert told.keys() == lines.keys()
    for name, words in lines.items():
        (names, _, says), (expected_names, _, expected_says) = told[name].partition(": "), words.partition(": ")
        assert sorted(names.split("; ")) == sorted(expected_names.split("; "))
        assert says.startswith(expected_says)
    result = check(school)
    assert result.exit_code == any(not line.startswith("ok") for line in told.values())
    assert [line[:14].strip() for line in result.stdout.splitlines()] == NAMES


def test_rows_that_are_there_twice(school: Path) -> None:
    """Where a table has lost its key, a row that is there twice is told by name."""
    without_rules(
        school,
        """PRAGMA legacy_alter_table = ON; CREATE TABLE made (id INTEGER, name TEXT);
        INSERT INTO made SELECT id, name FROM students UNION ALL SELECT id, name FROM students WHERE id = 2;
        DROP TABLE students; ALTER TABLE made RENAME TO students""",
    )
    assert found(school)["ids"].startswith("student 2: it is there twice")


def test_a_damaged_index(school: Path) -> None:
    """What SQLite's own check finds in the pages of the service's tables is told, and nothing else is."""
    with closing(sqlite3.connect(school)) as connection:
        ((root,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'student_name_id'").fetchall()
        ((size,),) = connection.execute("PRAGMA page_size").fetchall()
    pages = bytearray(school.read_bytes())
    at = pages.index(b"Student 3", (root - 1) * size)
    pages[at : at + 9] = b"Student 9"
    school.write_bytes(pages)
    assert found(school).keys() == {"integrity"}
    assert "missing from index student_name_id" in found(school)["integrity"]


@pytest.mark.parametrize("table", ["students", "courses", "enrollments", "enrollment_events", "sqlite_sequence"])
def test_what_cannot_be_told(school: Path, table: str) -> None:
    """Where a table is gone, the lines that need it say that they cannot be told, and the others are as they were."""
    script = (
        f"DROP TABLE {table}"
        if table != "sqlite_sequence"
        else "PRAGMA writable_schema = 1; DELETE FROM " + ("sqlite_master WHERE name = 'sqlite_sequence'")
    )
    with closing(sqlite3.connect(school)) as connection:
        connection.executescript("PRAGMA foreign_keys = 0;" + script)
    told = found(school)
    assert {name for name, words in told.items() if f"it cannot be told (no such table: {table})" in words}
    assert set(told) < set(NAMES)
    assert check(school).exit_code == 1


def instructions(path: Path, students: int) -> dict[str, int]:
    """Count, in hundreds, what SQLite runs for each invariant of a file with so many students, and without any key."""
    migrate(path)
    with closing(connect(path)) as db, db.atomic():
        db.connection().executemany("INSERT INTO students (name) VALUES (?)", [("Student",)] * students)
        for number in range(students // 10):
            insert_course(db, "Course", "1", 8, 9)
            enroll_all(db, [(number * 10 + student, number + 1) for student in range(1, 11)])
        db.execute_sql("DELETE FROM enrollments WHERE student_id % 10 = 1")
    for table in tables():
        run_script(
            path,
            f"""PRAGMA legacy_alter_table = ON; CREATE TABLE made AS SELECT * FROM {table}; DROP TABLE {table};
            ALTER TABLE made RENAME TO {table}""",
        )
    heard: list[str] = []
    with open_database(path) as db:
        assert [result.invariant.name for result in run(db, lambda what, _: heard.append(what)) if result.broken] == [
            "schema",
            "sequence",
        ]
    return Counter(heard)


def test_ten_times_as_many_take_ten_times_as_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No statement looks at every row for every row, not even where a tool has lost all keys and indexes."""
    monkeypatch.setattr("service.storage.sqlite.check.PATIENCE", 100)
    few, many = (instructions(tmp_path / f"{count}.db", count) for count in (200, 2000))
    assert {name: count for name, count in many.items() if count > few[name] * 16} == {}
    assert many["state"] > few["state"] * 6


def test_hosts_are_not_judged(school: Path) -> None:
    """A host's own references to nothing, and what breaks its own checks, are none of the service's."""
    with closing(sqlite3.connect(school)) as connection:
        connection.executescript("""
            CREATE TABLE rooms (id INTEGER PRIMARY KEY);
            CREATE TABLE grades (student REFERENCES students (id));
            ALTER TABLE courses ADD COLUMN room REFERENCES rooms (id) CHECK (room < 9);
            PRAGMA ignore_check_constraints = ON;
            INSERT INTO grades VALUES (99); UPDATE courses SET room = 99;
            PRAGMA ignore_check_constraints = OFF""")
        assert len(connection.execute("PRAGMA foreign_key_check").fetchall()) == 4
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("CHECK constraint failed in courses",)
    assert found(school) == {}


def test_many_are_counted_and_few_are_named(school: Path) -> None:
    """Of many that break an invariant the first five are named, and all are counted."""
    without_rules(school, "UPDATE enrollment_events SET filed = 0; UPDATE enrollments SET event_id = NULL")
    line = "event 1; event 2; event 3; event 4; event 5 and 4 more: the student's feed leaves it out."
    assert found(school) == {"filed": line}


def test_it_reads_one_snapshot(school: Path) -> None:
    """What others commit while it is at work is not seen, not even by the lines that come later."""
    with closing(open_database(school)) as db:
        results = run(db)
        assert str(next(results)) == "ok"
        without_rules(school, "UPDATE courses SET enrolled = 0, waitlisted = 0")
        assert [result.invariant.name for result in results if str(result) != "ok"] == []
    assert found(school).keys() == {"counts"}


def test_it_goes_on_in_a_transaction_of_the_callers(db: pw.SqliteDatabase) -> None:
    """What the caller has not committed yet is judged too."""
    with db.atomic() as transaction:
        db.execute_sql("DROP TRIGGER seats_freed")
        assert [result.invariant.name for result in run(db) if result.broken] == ["schema"]
        transaction.rollback()
    assert not any(result.broken for result in run(db))


def test_the_command(school: Path) -> None:
    """One line for each invariant, with the time that it took; 1 and the command that mends it if one is broken."""
    result = check(school)
    assert (result.exit_code, result.stderr) == (0, "")
    assert [line.partition("  (")[0].split() for line in result.stdout.splitlines()] == [
        [*name.split(), "ok"] for name in NAMES
    ]
    assert all(re.search(r"  \(\d+\.\d s\)$", line) for line in result.stdout.splitlines())
    without_rules(school, "UPDATE courses SET enrolled = 7 WHERE id = 1")
    result = check(school)
    assert result.exit_code == 1
    assert "counts        course 1: its counts are not those of its enrollments.  (" in result.stdout
    assert f"Run: python -m service repair --database-url {school}\n" in result.stderr


@pytest.mark.long
def test_signs_of_life(school: Path) -> None:
    """While a long statement runs, whoever listens hears what is at work and for how long, and at each beginning."""
    with closing(connect(school)) as db, db.atomic():
        db.execute_sql(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 150000)"
            "INSERT INTO enrollment_events (type, at, student_id, course_id) "
            f"SELECT CASE i % 2 WHEN 1 THEN 'enrolled' ELSE 'dropped' END, '{LONG_AGO}', 5, 3 FROM n"
        )
    heard: list[tuple[str, float]] = []
    with open_database(school) as db:
        for result in run(db, lambda *sign: heard.append(sign)):
            signs = [seconds for name, seconds in heard if name == result.invariant.name]
            assert signs[0] == 0
            assert signs == sorted(signs)
            assert result.seconds >= signs[-1]
        assert len(heard) > len(NAMES) + 5
        before = len(heard)
        db.execute_sql(STANDING).fetchall()
        assert len(heard) == before
    assert PATIENCE < 10_000_000


def test_on_a_terminal(school: Path) -> None:
    """A terminal shows what is at work; the finished line takes its place."""
    ours, theirs = pty.openpty()
    with open(theirs, "w") as terminal, redirect_stdout(terminal):  # noqa: PTH123 - it has no path.
        cli.main(["check", "--database-url", str(school)], standalone_mode=False)
        terminal.flush()
        said = ""
        while said.count("ok  (") < len(NAMES):
            said += os.read(ours, 4096).decode()
    os.close(ours)
    for name in NAMES:
        assert f"\r{name:<14}0 s\r\x1b[K{name:<14}ok  (" in said


def test_an_error_on_a_terminal(school: Path) -> None:
    """What a repair refuses is not said behind what was at work."""
    without_rules(school, "UPDATE courses SET capacity = '' WHERE id = 1")
    ours, theirs = pty.openpty()
    with open(theirs, "w") as terminal, redirect_stdout(terminal), pytest.raises(ClickException):  # noqa: PTH123
        cli.main(["repair", "--database-url", str(school)], standalone_mode=False)
    said = ""
    while select.select([ours], [], [], 1)[0]:  # A terminal hands on what it was told in pieces.
        try:
            said += os.read(ours, 4096).decode()
        except OSError:  # All is read, and nobody holds the other end any more.
            break
    assert said.endswith("\r\x1b[K")
    os.close(ours)


def behind(path: Path) -> None:
    """Roll the newest migration back."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM enrollments WHERE waiting IS NOT NULL")
    rollback(path)


def ahead(path: Path) -> None:
    """Apply a migration that this code does not have."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"INSERT INTO {HISTORY} (name, migrated_at) VALUES ('999_future', '2030-01-01')")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [(behind, "is behind"), (ahead, "is ahead"), (Path.unlink, "There is no database")],
)
@pytest.mark.parametrize("command", ["check", "repair"])
def test_of_another_version(school: Path, command: str, prepare: Callable[[Path], None], message: str) -> None:
    """A file that is missing, behind or ahead is neither judged nor repaired."""
    prepare(school)
    result = CliRunner().invoke(cli, [command, "--database-url", str(school)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
