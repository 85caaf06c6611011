"""The schema of a file beside that of the migrations: what is no difference, what is, and who notices."""

import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx2
import peewee as pw
import pytest
from click.testing import CliRunner
from conftest import ROOT, Server
from drifted import DRIFTED, HOST, SPOILT, rebuilt, run_script
from invariants import check
from schema_sql import written
from starlette.testclient import TestClient

from service import Settings, connect, create_app, migrate
from service.__main__ import cli
from service.courses import insert_course
from service.enrollments import drop, enroll
from service.errors import SchemaMismatch
from service.storage.migrating import HISTORY
from service.storage.sqlite.connections import open_database
from service.storage.sqlite.drift import SCHEMA, compare, expected, key, parse, tables
from service.storage.sqlite.schema import Schema, repair, rollback, status
from service.students import insert_student

ALL = sorted(path.stem for path in (ROOT / "migrations").glob("0*.py"))


@pytest.fixture
def school(path: Path) -> Path:
    """Give a file with a course that is full and has a line, and a history of drops and promotions."""
    with closing(connect(path)) as db:
        for number in range(4):
            insert_student(db, f"Student {number}")
            insert_course(db, f"Course {number}", "A1", *((1, None) if number else ()))
        for student in (1, 2, 3):
            for course in (1, 2):
                enroll(db, student, course)
        drop(db, 1, 2)
        drop(db, 1, 1)
    return path


def differences(path: Path) -> list[str]:
    """Compare a file, in words."""
    with open_database(path) as db:
        return [each.text for each in compare(db)]


def test_schema_sql_is_what_the_migrations_make() -> None:
    """The file that databases are compared with is kept: it is what a new file's migrations leave."""
    assert SCHEMA.read_text("utf-8") == written(), "A migration has changed what is made. Write it anew: make schema"
    assert list(tables()) == [
        *("students", "courses", "enrollments", "enrollment_events", "terms", "event_notes", "letters"),
        *("student_words", "student_words_before", "course_words", "course_words_before"),
        *("api_tokens", "api_sessions"),
    ]
    assert {each.type for each in expected().values()} == {"table", "view", "index", "trigger"}


# What is no difference


def from_dump(path: Path) -> None:
    """Make the file anew from what Python's iterdump says."""
    with closing(sqlite3.connect(path)) as old:
        script = "\n".join(old.iterdump())
    path.unlink()
    run_script(path, script)


def from_shell_dump(path: Path) -> None:
    """Make the file anew from what the sqlite3 shell's .dump says."""
    if not shutil.which("sqlite3"):
        pytest.skip("sqlite3 is not on this machine")
    command = ["sqlite3", str(path)]
    script = subprocess.run([*command, ".dump"], capture_output=True, check=True).stdout
    path.unlink()
    subprocess.run(command, input=script, check=True)


def vacuumed_into_another(path: Path) -> None:
    """Put a compact copy in the place of the file."""
    copy = path.with_name("copy.db")
    run_script(path, f"VACUUM INTO '{copy}'")
    copy.replace(path)


def respelled(path: Path) -> None:
    """Write all SQL of the schema in another style: capitals, quotes of every kind, comments and white space."""
    names = {*tables(), *(column for table in tables().values() for column in table.definitions)}
    quotes = ['"{}"', "[{}]", "`{}`", "{}"]
    turn = iter(range(100_000))

    def spell(found: re.Match[str]) -> str:
        word = found[0]
        if word[0] == "'":
            return word
        at = next(turn)
        word = quotes[at % 4].format(word) if word.lower() in names else word.swapcase()
        return f"/* {at} */\t{word}\n-- so\n" if at % 3 == 0 else word

    made = [re.sub(r"'[^']*'|\w+", spell, each.sql.replace("(", " ( ")) for each in expected().values()]
    with closing(sqlite3.connect(path)) as old:
        history = [line for line in old.iterdump() if HISTORY in line or line.startswith('INSERT INTO "letters"')]
    path.unlink()
    run_script(path, ";\n".join(["BEGIN", *made, *history, "COMMIT"]))
    with closing(sqlite3.connect(path)) as new:
        texts = {sql for (sql,) in new.execute("SELECT sql FROM sqlite_master")}
    assert not texts & {each.sql for each in expected().values()}


def constraints_of_the_table(path: Path) -> None:
    """Write every constraint behind the columns, as DB Browser does; and the columns the other way round."""
    with closing(sqlite3.connect(path)) as old:
        lines = list(old.iterdump())
    made = []
    for name, table in tables().items():
        if name == "letters":
            continue  # The only rows that the search needs and does not make itself.
        columns = [f'"{column}" {" ".join(words.values())}' for column, words in table.attributes.items()]
        constraints = [constraint.sql for constraint in table.constraints.values()]
        if ("autoincrement",) in table.options:
            constraints = [sql.replace("KEY (id)", "KEY(`id` autoincrement)") for sql in constraints]
        kind = "WITHOUT ROWID" if ("without", "rowid") in table.options else ""
        made.append(f"CREATE TABLE [{name}] ({', '.join([*columns[::-1], *constraints[::-1]])}) {kind}")
        lines = [line for line in lines if not re.match(rf'(CREATE TABLE|INSERT INTO) "?{name}"?\W', line)]
    path.unlink()
    run_script(path, ";\n".join(["BEGIN", *made, *lines[1:]]))


HEALTHY: dict[str, Callable[[Path], object] | str] = {
    "as it was made": "",
    **{
        f"{count} back and forth": lambda path, count=count: ([rollback(path) for _ in range(count)], migrate(path))  # type: ignore[misc]
        for count in range(1, len(ALL) + 1)
    },
    "dumped": from_dump,
    "dumped by the shell": from_shell_dump,
    "vacuumed": "PRAGMA journal_mode = DELETE; PRAGMA page_size = 8192; VACUUM",
    "vacuumed into another": vacuumed_into_another,
    "analyzed": "ANALYZE",
    "with a host": HOST,
    "with a host that changes its mind": HOST
    + """ALTER TABLE log RENAME TO journal; ALTER TABLE rooms RENAME TO halls; ALTER TABLE grades RENAME student TO who;
    ALTER TABLE students RENAME contact TO mail; ALTER TABLE enrollment_events DROP COLUMN sent; DROP VIEW full;""",
    "with a host's search": """CREATE VIRTUAL TABLE names USING fts5 (name, content = 'students');
        CREATE TRIGGER names_added AFTER INSERT ON students
        BEGIN INSERT INTO names (rowid, name) VALUES (NEW.id, NEW.name); END""",
    "renamed and back": "; ".join(
        f"ALTER TABLE {name} RENAME TO other; ALTER TABLE other RENAME TO {name}"
        for name in ("students", "courses", "enrollments", "enrollment_events")
    ),
    "columns renamed and back": """ALTER TABLE students RENAME name TO other; ALTER TABLE students RENAME other TO name;
        ALTER TABLE enrollments RENAME waiting TO place; ALTER TABLE enrollments RENAME place TO waiting""",
    "respelled": respelled,
    "constraints of the table": constraints_of_the_table,
}


@pytest.mark.parametrize("history", HEALTHY)
def test_healthy_histories(school: Path, history: str) -> None:
    """Whatever SQLite, its tools and a host do to a file without harming the service is no difference."""
    happened = HEALTHY[history]
    if "back and forth" in history:
        run_script(school, "DELETE FROM enrollments WHERE waiting IS NOT NULL")
    happened(school) if callable(happened) else run_script(school, happened)
    assert differences(school) == []
    assert status(school)[2] == []
    check(school)


def test_every_token_is_read() -> None:
    """SQL is taken apart as SQLite does: strings and quoted names whole, comments and white space not at all."""
    sql = """CREATE/**/TABLE "A""b" ( -- x, y)
        [c d] text DEFAULT 'It''s -- , )' NULL, `E` AS (1<>2 || x'00') STORED CONSTRAINT "n" CHECK (e>=1.5)
    )"""
    assert key(sql)[:11] == (
        "create",
        "table",
        'a"b',
        "(",
        "c d",
        "text",
        "default",
        "'It''s -- , )'",
        "null",
        ",",
        "e",
    )
    table = parse(sql)
    assert table.attributes == {
        "c d": {"type": "text", "default": "DEFAULT 'It''s -- , )'"},
        "e": {"as": "AS (1<>2 || x'00') STORED"},
    }
    assert [constraint.sql for constraint in table.constraints.values()] == ['CONSTRAINT "n" CHECK (e>=1.5)']


# What is one


@pytest.mark.parametrize("name", [*DRIFTED, *SPOILT])
def test_what_differs_is_named(school: Path, name: str) -> None:
    """Each thing that is missing, or is not as the migrations made it, is said in words, and nothing else is."""
    sql, found = (DRIFTED | SPOILT)[name]
    run_script(school, sql)
    assert differences(school) == found
    assert status(school)[2] == found
    for start in (lambda: create_app(Settings(database_url=str(school))), lambda: connect(school)):
        with pytest.raises(SchemaMismatch, match=re.escape(found[0])) as raised:
            start()
        assert str(raised.value).endswith(f"Run: python -m service repair --database-url {school}")


def test_status_names_all_that_differs(school: Path) -> None:
    """`status` shows every difference and exits with 1; what refuses to start names a few, and counts the others."""
    run_script(school, "DROP INDEX student_name_id; DROP INDEX course_name_id; DROP INDEX course_level_id")
    run_script(school, "DROP INDEX course_level_name_id; DROP TRIGGER seats_freed")
    found = differences(school)
    result = CliRunner().invoke(cli, ["status", "--database-url", str(school)])
    assert result.exit_code == 1
    assert [line for line in result.stdout.splitlines() if line.startswith("differs")] == [
        f"differs   {text}" for text in found
    ]
    assert f"Run: python -m service repair --database-url {school}" in result.stderr
    with pytest.raises(SchemaMismatch, match=r"student_name_id .* and 2 more\. Run: "):
        connect(school)


@pytest.mark.parametrize("name", [None, "999_future"])
def test_a_file_of_another_version_is_not_compared(school: Path, name: str | None) -> None:
    """A file that is behind, or ahead, is told so by names, whatever else is wrong with it."""
    if name is None:
        run_script(school, "DELETE FROM enrollments WHERE waiting IS NOT NULL")
        rollback(school)
    else:
        run_script(school, f"INSERT INTO {HISTORY} (name, migrated_at) VALUES ('{name}', '2030-01-01')")
    run_script(school, "DROP INDEX student_name_id")
    assert status(school)[2] == []
    with pytest.raises(SchemaMismatch, match=name or ALL[-1]) as raised:
        connect(school)
    assert "student_name_id" not in str(raised.value)


# While it is served


def asked(schema: Schema, db: pw.Database, method: str) -> list[str]:
    """Give the statements with which a schema is looked at."""
    found: list[str] = []
    db.connection().set_trace_callback(found.append)
    try:
        getattr(schema, method)(db)
    finally:
        db.connection().set_trace_callback(None)
    return found


def test_a_schema_is_compared_once(path: Path, db: pw.SqliteDatabase) -> None:
    """Until it changes, a write asks for SQLite's number of the schema and no more, and a probe compares nothing."""
    schema = Schema(path)
    whole = asked(schema, db, "verify")
    assert any("sqlite_master" in sql and "student_name_id" in sql for sql in whole)
    assert asked(schema, db, "verify") == ["PRAGMA schema_version"]
    assert not any("student_name_id" in sql for sql in asked(schema, db, "check"))
    run_script(path, "CREATE TABLE rooms (id)")
    assert asked(schema, db, "verify") == ["PRAGMA schema_version", *whole[1:]]
    assert asked(schema, db, "verify") == ["PRAGMA schema_version"]


def test_a_table_that_is_rebuilt_under_a_server(school: Path, serve: Callable[[], Server]) -> None:
    """From the next write on nothing is kept, single or in bulk, and ready says why; once repaired, it goes on."""
    with httpx2.Client(base_url=serve().url) as client:
        assert client.get("/health/ready").status_code == 200
        run_script(school, rebuilt("courses", ("CHECK (enrolled >= 0 AND enrolled <= capacity)", "")))
        run_script(school, "DROP TRIGGER seats_freed")
        for answer in (
            client.delete("/students/2/courses/2"),
            client.post("/students/4/courses", json={"course_id": 3}),
            client.post("/enrollments", json=[{"student_id": 4, "course_id": 3}]),
            client.get("/health/ready"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
            assert "seats_freed is missing" in answer.json()["detail"]
            assert "Run: python -m service repair" in answer.json()["detail"]
        assert client.get("/courses/3").json()["enrolled"] == 0
        assert repair(school)
        assert client.delete("/students/2/courses/2").status_code == 204
        assert client.get("/health/ready").status_code == 200
        assert client.get("/students/3/courses/2").json()["status"] == "enrolled"


def test_a_host_that_adds_a_table_under_the_app(client: TestClient, path: Path) -> None:
    """A host's own changes of the schema hold nothing up."""
    for sql in ("CREATE TABLE rooms (id)", "CREATE INDEX by_name ON students (name)", "DROP TABLE rooms", "VACUUM"):
        run_script(path, sql)
        assert client.post("/students", json={"name": "Ada"}).status_code == 201
    assert client.get("/health/ready").status_code == 200
