"""The schema on PostgreSQL: migrated once whoever migrates, compared with what it must be, checked and repaired."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from conftest import ROOT
from postgresql import Server
from schema_sql import catalog

from service import connect, migrate
from service.errors import MigrationFailed, SchemaMismatch, SetupError
from service.storage import migrating
from service.storage.postgres import drift, schema
from service.storage.postgres.invariants import INVARIANTS

NAMES = [path.stem for path in sorted((ROOT / "migrations").glob("0*.py"))]
SCHOOL = """
    INSERT INTO students (name, external_id) SELECT 'Ada ' || n, 'S' || n FROM generate_series(1, 6) AS n;
    INSERT INTO courses (name, level, capacity, waitlist_capacity) VALUES ('Algebra', '1', 2, 3), ('Botany', '1', 9, 0);
    INSERT INTO enrollments (student_id, course_id) SELECT n, 1 FROM generate_series(1, 5) AS n;
    INSERT INTO enrollments (student_id, course_id) SELECT n, 2 FROM generate_series(1, 3) AS n;
    DELETE FROM enrollments WHERE student_id = 1 AND course_id = 1;
    INSERT INTO api_tokens (id, hash, name, scopes, created_at)
    VALUES ('a', sha256('a'), 'a', 'admin', enrollment_now())"""
"""In course 1 students 2 and 3 have seats, and 4 and 5 wait; student 3 was promoted."""
FREE = "ALTER TABLE {0} DISABLE TRIGGER USER; {1}; ALTER TABLE {0} ENABLE TRIGGER USER"
DAMAGE = {
    "trigger": (
        "DROP TRIGGER enrollment_dropped ON enrollments",
        "the trigger enrollment_dropped is missing: put back.",
    ),
    "trigger that is off": (
        "ALTER TABLE enrollments DISABLE TRIGGER zz_enrollment_adding",
        "the trigger zz_enrollment_adding is not the service's own: put back.",
    ),
    "index": ("DROP INDEX enrollment_line", "the index enrollment_line is missing: put back."),
    "constraint": (
        "ALTER TABLE courses DROP CONSTRAINT course_seats",
        "the constraint course_seats is missing: put back.",
    ),
    "function": (
        "CREATE OR REPLACE FUNCTION enrollment_now() RETURNS text LANGUAGE sql AS $$ SELECT 'now' $$",
        "the function enrollment_now is not the service's own: put back.",
    ),
    "counts": (
        FREE.format("courses", "UPDATE courses SET enrolled = 0 WHERE id = 1"),
        "counts were not those of the enrollments: put right course 1.",
    ),
    "events": (
        FREE.format("enrollments", "INSERT INTO enrollments VALUES (6, 2, '2026-09-01T08:00:00.000Z')"),
        "the feed lacked events: told enrolled student 6 in course 2.",
    ),
    "an event of a promotion": (
        FREE.format("enrollments", "UPDATE enrollments SET waiting = NULL, enrolled_at = 'soon' WHERE student_id = 4")
        + "; "
        + FREE.format("courses", "UPDATE courses SET capacity = 3"),
        "the feed lacked events: told promoted student 4 in course 1.",
    ),
    "a row that is gone": (
        FREE.format("enrollments", "DELETE FROM enrollments WHERE student_id = 2"),
        "a seat was free while others waited: promoted student 4 in course 1.",
    ),
    "a place in line": (
        FREE.format("enrollments", "UPDATE enrollments SET waiting = 99 WHERE student_id = 4"),
        "places in line were not as the feed tells: put right 1.",
    ),
    "a free seat": (
        FREE.format("courses", "UPDATE courses SET capacity = 3 WHERE id = 1"),
        "a seat was free while others waited: promoted student 4 in course 1.",
    ),
    "notes": (
        FREE.format("event_notes", "INSERT INTO event_notes (event_id) VALUES (99)"),
        "notes were of no event: deleted 1.",
    ),
    "sequence": (
        "SELECT setval('students_id_seq', 3)",
        "the next id in students may have been given before: it goes on after that.",
    ),
    "words": (
        FREE.format("students", "UPDATE students SET words = NULL WHERE id = 2"),
        "the words of the search were not those of the names: put in anew.",
    ),
    "letters": (
        "DELETE FROM letters WHERE letter = 'É'",
        "the words of the search were not those of the names: put in anew.",
    ),
}


def run(url: str, sql: str) -> None:
    """Run statements, as another program would."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.encode())


@pytest.fixture
def full(school: str) -> str:
    """Give a school with students, courses and enrollments."""
    run(school, SCHOOL)
    return school


def broken(url: str) -> list[str]:
    """Give the invariants that do not hold."""
    return [f"{result.invariant.name}: {result}" for result in schema.prove(url) if result.broken or result.over]


@pytest.mark.long
def test_the_schema_is_what_catalog_sql_says(server: Server) -> None:
    """`make schema` would write the committed file anew, letter by letter; the server gives the same text to all."""
    assert server.url
    assert drift.CATALOG.read_text("utf-8") == catalog()


def test_a_sound_school(full: str) -> None:
    """Nothing is broken, nothing differs, and a repair has nothing to do."""
    assert broken(full) == []
    found, counts, differences = schema.status(full)
    assert (found.applied, found.pending, found.unknown, differences) == (NAMES, [], [], [])
    assert counts == {
        "students": 6,
        "courses": 2,
        "enrollments": 7,
        "enrollment_events": 10,
        "terms": 0,
        "event_notes": 0,
        "api_tokens": 1,
        "api_sessions": 0,
    }
    assert schema.repair(full) == []


@pytest.mark.long
def test_processes_that_migrate_at_once(server: Server) -> None:
    """Three processes migrate an empty database: each migration is applied once, and all three end well."""
    with server.database() as url:
        code = "import sys, service; print(len(service.migrate(sys.argv[1])))"
        processes = [
            subprocess.Popen([sys.executable, "-c", code, url], cwd=ROOT, stdout=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        done = sorted(int(process.communicate(timeout=60)[0]) for process in processes)
        assert done == [0, 0, len(NAMES)]
        assert broken(url) == []


def test_a_schema_is_a_school(server: Server) -> None:
    """`migrate` makes the schema of the search path, and two schools in one database know nothing of each other."""
    with server.database() as url:
        north, south = (f"{url}?options=-csearch_path%3D{name}" for name in ("north", "South"))
        assert migrate(north) == migrate(south) == NAMES
        run(url, f"SET search_path = north; {SCHOOL}")
        assert schema.status(north)[1]["students"] == 6
        assert schema.status(url.replace("?", "") + "?options=-csearch_path%3Dsouth")[1]["students"] == 0
        assert schema.status(south)[1]["students"] == 0
        assert broken(north) == broken(south) == []
        with pytest.raises(SchemaMismatch, match="is behind: 001_students"):
            connect(url)
        behind = f"{url}?options=-csearch_path%3Dwest,north"
        with pytest.raises(SchemaMismatch, match="is behind: 001_students"):
            connect(behind)
        assert schema.status(behind) == (migrating.versions([]), {}, [])
        assert migrate(behind) == NAMES
        assert schema.status(behind)[1]["students"] == 0


def test_a_schema_that_is_renamed(server: Server) -> None:
    """The functions of a school would look for its tables under the old name: that is told, and put right."""
    with server.database() as url:
        north, south = (f"{url}?options=-csearch_path%3D{name}" for name in ("north", "%22South%5C%20school%22"))
        migrate(north)
        run(url, 'ALTER SCHEMA north RENAME TO "South school"')
        with pytest.raises(SchemaMismatch, match="the function enroll_many is not the service's own"):
            connect(south)
        assert schema.repair(south)
        run(url, f'SET search_path = "South school"; {SCHOOL}')
        assert broken(south) == []
        connect(south).close()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_an_encoding_without_every_letter(server: Server, encoding: str) -> None:
    """A database that cannot have every letter, or does not know how long a text is, is refused."""
    name = f"encoded_{os.getpid()}"
    server.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C'")
    try:
        with pytest.raises(SetupError, match=f"its encoding is {encoding}, and not UTF8"):
            migrate(server.url.removesuffix("/postgres") + f"/{name}")
    finally:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_another_programs_table(server: Server) -> None:
    """A table of the same name is never taken over, and the database is as it was."""
    with server.database() as url:
        run(url, "CREATE TABLE courses (id int)")
        with pytest.raises(MigrationFailed, match=r"008_postgresql failed: .*already exists.* schema of its own"):
            migrate(url)
        assert schema.status(url)[0].applied == []


@pytest.mark.long
def test_rollback(full: str) -> None:
    """What would be lost is told first, a server is told of, and all can be made again."""
    name, lost = schema.try_rollback(full)
    assert (name, lost["enrollments"], lost["api_tokens"]) == (NAMES[-1], 7, 1)
    assert broken(full) == []
    with closing(connect(full)):
        for undo in (lambda: schema.try_rollback(full), lambda: schema.rollback(full, alone=True)):
            with pytest.raises(SetupError, match=r"such as a server, has .* open"):
                undo()
    assert [schema.rollback(full) for _ in NAMES] == NAMES[::-1]
    with pytest.raises(SetupError, match="no migration to roll back"):
        schema.rollback(full)
    assert schema.status(full) == (migrating.versions([]), {}, [])
    assert migrate(full) == NAMES
    assert broken(full) == []


def test_a_lock_in_the_way(full: str) -> None:
    """A rollback does not wait for ever for a program that has a table locked."""
    with psycopg.connect(full) as other:
        other.execute("LOCK TABLE students")
        with pytest.raises(SetupError, match="another program has it open"):
            schema.try_rollback(full)


@pytest.mark.parametrize("what", DAMAGE)
def test_repair(full: str, what: str) -> None:
    """What another program broke is found by `check`, and put right."""
    sql, said = DAMAGE[what]
    run(full, sql)
    assert broken(full)
    assert said in schema.repair(full)
    assert broken(full) == []
    with closing(connect(full)) as db:  # The rules hold again for every writer.
        db.execute_sql("DELETE FROM enrollments WHERE course_id = 1")
        db.execute_sql("INSERT INTO enrollments (student_id, course_id) VALUES (1, 1)")
    assert broken(full) == []


@pytest.mark.parametrize(
    ("sql", "mend"),
    [
        ("ALTER TABLE students DROP COLUMN email CASCADE", "the column students.email is missing. If it was renamed"),
        ("ALTER TABLE courses ALTER COLUMN name DROP NOT NULL", "the column courses.name is .* so again"),
        ("DROP TABLE api_sessions", "the table api_sessions is missing. Restore a backup"),
        ("ALTER TABLE event_notes SET UNLOGGED", "event_notes is UNLOGGED: .*ALTER TABLE event_notes SET LOGGED"),
        (
            "ALTER TABLE courses DROP CONSTRAINT course_seats; "
            + FREE.format("courses", "UPDATE courses SET capacity = 1 WHERE id = 1"),
            "limits: course 1 with 2 enrolled .*Raise the limit",
        ),
        (FREE.format("terms", "INSERT INTO terms (name, ends_on) VALUES ('x', 'never')"), "windows: term 1: "),
    ],
)
def test_what_a_person_has_to_mend(full: str, sql: str, mend: str) -> None:
    """Where a repair would have to guess, nothing is changed, and what is to be done is told."""
    run(full, sql)
    before = broken(full)
    with pytest.raises(SetupError, match=f"(?s)Nothing was repaired.*{mend}"):
        schema.repair(full)
    assert broken(full) == before


def test_what_is_past_stays(full: str) -> None:
    """What the feed told wrongly is told of for ever, and a repair does not rewrite it."""
    run(full, FREE.format("enrollment_events", "UPDATE enrollment_events SET student_id = 6 WHERE id = 10"))
    assert [each.split(":")[0] for each in broken(full)] == ["history", "state"]
    assert schema.repair(full)[0].startswith("the feed lacked events")
    assert [each.split(": ok")[0] for each in broken(full)] == ["history"]


def test_a_schema_that_differs(full: str) -> None:
    """`connect` refuses a school that would not keep its rules, and names the command that mends it."""
    run(full, "DROP TRIGGER event_deleted ON enrollment_events; DROP INDEX course_words")
    with pytest.raises(SchemaMismatch, match=r"index course_words is missing; the trigger event_deleted is .*repair"):
        connect(full)
    # What another program adds is no difference.
    schema.repair(full)
    run(
        full,
        "ALTER TABLE students ADD COLUMN house text; CREATE INDEX ON students (house); CREATE TABLE rooms (id int)",
    )
    connect(full).close()
    assert broken(full) == []


def test_a_school_that_is_ahead(school: str) -> None:
    """A migration that this code does not know is an error of `connect`, `migrate` and `check`."""
    run(school, "INSERT INTO enrollment_migrations (name, migrated_at) VALUES ('999_later', now())")
    for work in (connect, migrate, lambda url: [*schema.prove(url)], schema.repair):
        with pytest.raises(SchemaMismatch, match="does not know 999_later"):
            work(school)


def test_an_invariant_that_cannot_be_told(full: str) -> None:
    """An error of PostgreSQL is told, and the next invariants are checked all the same."""
    run(full, "ALTER TABLE letters RENAME COLUMN plain TO plainly")
    told = broken(full)
    assert any(each.startswith("letters: it cannot be told (column") for each in told)
    assert {each.split(":")[0] for each in told} <= {each.name for each in INVARIANTS}


@pytest.mark.long
def test_progress(full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long check shows again and again that it is alive."""
    monkeypatch.setattr("service.storage.postgres.check.SECONDS", 0.001)
    run(full, "INSERT INTO students (name) SELECT 'x' FROM generate_series(1, 20000)")
    seen: list[tuple[str, float]] = []
    assert [result.invariant for result in schema.prove(full, lambda *told: seen.append(told))] == [*INVARIANTS]
    assert {what for what, _ in seen} == {each.name for each in INVARIANTS}
    assert any(seconds > 0 for _, seconds in seen)


def test_there_is_no_backup(school: str, tmp_path: Path) -> None:
    """A backup is PostgreSQL's own affair."""
    with pytest.raises(SetupError, match="pg_dump --format=custom"):
        schema.back_up(school, tmp_path / "copy")


def test_a_database_that_cannot_be_reached(server: Server) -> None:
    """The error names the database and why."""
    url = server.url.removesuffix("/postgres") + "/nowhere"
    for work in (connect, migrate, schema.status):
        with pytest.raises(SetupError, match=r'cannot be used: .*"nowhere" does not exist\.$'):
            work(url)
        with pytest.raises(SetupError, match=r"Connection refused; Is the server running .*\?$"):
            work("postgresql://a@127.0.0.1:1/b")
