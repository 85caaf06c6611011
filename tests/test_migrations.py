"""Migrations: up and down with rows, two at once, broken ones, and files that are not ours or not current."""

import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import peewee as pw
import pytest
from click.testing import CliRunner
from conftest import ROOT
from peewee_migrate import Router

from service import Settings, connect, create_app, migrate
from service.__main__ import cli
from service.errors import MigrationFailed, SchemaMismatch, SetupError
from service.schema import rollback, status

ALL = ["001_students_and_courses", "002_enrollments"]
ROWS = """
    INSERT INTO students (name) VALUES ('Ada'), ('O''Brien'), ('Ångström 学生 🎓'), ('gone');
    INSERT INTO courses (name, level) VALUES ('Basket weaving', 'A2'), ('  spaced  ', ''), ('gone', 'x');
    INSERT INTO enrollments VALUES (1, 1, '2026-01-01T00:00:00.000Z'), (2, 1, '2026-01-01T00:00:00.000Z');
    DELETE FROM students WHERE name = 'gone';
    DELETE FROM courses WHERE name = 'gone';
"""


def run_script(path: Path, sql: str) -> None:
    """Run SQL as another program would, with SQLite's own defaults."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)


def dump(path: Path) -> list[str]:
    """Give the statements that make the database anew, all its rows among them."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def schema(path: Path) -> list[tuple[str, str]]:
    """Give all that the schema defines."""
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
        return connection.execute(query).fetchall()


def files(folder: Path) -> dict[str, bytes]:
    """Give every file's content."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def rows(path: Path) -> Path:
    """Give a migrated file with rows in every table."""
    run_script(path, ROWS)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Copy the program, so that a test can change its migrations."""
    for folder in ("service", "migrations"):
        shutil.copytree(ROOT / folder, tmp_path / "tree" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "tree"


def run_in(tree: Path, verb: str, path: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command of the copied program on a file."""
    command = [sys.executable, "-m", "service", verb, "--database-url", str(path)]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)


def test_enrollments_down_and_up_keep_students_and_courses(rows: Path) -> None:
    """Taking enrollments back and applying them again changes no byte of a student or a course, nor the next id."""
    kept = ('INSERT INTO "students"', 'INSERT INTO "courses"', 'INSERT INTO "sqlite_sequence"')
    before = [line for line in dump(rows) if line.startswith(kept)]
    assert len(before) == 3 + 2 + 2
    assert rollback(rows) == ALL[1]
    assert [line for line in dump(rows) if line.startswith(kept)] == before
    assert migrate(rows) == ALL[1:]
    assert [line for line in dump(rows) if line.startswith(kept)] == before


def test_every_migration_up_down_up(tmp_path: Path, tree: Path) -> None:
    """However many migrations are taken back, each step down and the way up give the schemas of the first way up."""
    path, known = tmp_path / "school.db", sorted((tree / "migrations").glob("0*.py"))
    shutil.rmtree(tree / "migrations")
    (tree / "migrations").mkdir()
    levels: list[list[tuple[str, str]]] = []
    for migration in known:
        shutil.copy(ROOT / "migrations" / migration.name, tree / "migrations")
        assert run_in(tree, "migrate", path).returncode == 0
        levels.append(schema(path))
    levels.insert(0, [row for row in levels[0] if row[0] == "enrollment_migrations"])
    for count in range(1, len(levels)):
        for level in levels[-2 : -2 - count : -1]:
            rollback(path)
            assert schema(path) == level
        assert migrate(path) == ALL[-count:]
        assert schema(path) == levels[-1]


def test_migrating_twice_does_nothing(rows: Path) -> None:
    """A second run applies nothing and leaves every byte of the file."""
    before = rows.read_bytes()
    assert migrate(rows) == []
    assert rows.read_bytes() == before


def test_migrations_in_two_processes_at_once(tmp_path: Path) -> None:
    """Of processes that migrate one new file at once, one applies everything, and all end well."""
    script = """if True:
        import sys, service
        service.migrate(sys.argv[1])
        for line in sys.stdin:
            print(service.migrate(line.strip()), flush=True)
    """
    command = [sys.executable, "-c", script]
    processes = [
        subprocess.Popen(
            [*command, str(tmp_path / f"warm-{number}.db")],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(3)
    ]
    try:
        for number in range(20):
            path = tmp_path / f"{number}.db"
            for process in processes:
                assert process.stdin
                process.stdin.write(f"{path}\n")
                process.stdin.flush()
            answers = sorted(process.stdout.readline().strip() for process in processes if process.stdout)
            assert answers == [str(ALL), "[]", "[]"]
            with closing(connect(path)) as db:
                assert db.journal_mode == "wal"
    finally:
        said = [process.communicate()[1] for process in processes]
    assert said == ["", "", ""]


def write_right_after(path: Path, over: threading.Event, modes: list[str]) -> None:
    """Take the write lock as soon as another lets go of it, and note the journal's mode."""
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        waited = False
        while not over.is_set() and not modes:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                waited = True
                continue
            if waited:
                modes.extend(connection.execute("PRAGMA journal_mode").fetchone())
                over.wait(0.2)
            connection.execute("ROLLBACK")
            over.wait(0.001)


def test_a_writer_right_after_the_migration(tmp_path: Path) -> None:
    """Whoever writes between the migration's commit and the switch to write-ahead logging does no harm."""
    modes: list[str] = []
    deadline = time.monotonic() + 60
    while modes != ["delete"]:
        assert time.monotonic() < deadline, "Nobody came in between."
        path, over, modes = tmp_path / f"{time.monotonic_ns()}.db", threading.Event(), []
        thread = threading.Thread(target=write_right_after, args=(path, over, modes))
        thread.start()
        try:
            assert migrate(path) == ALL
        finally:
            over.set()
            thread.join()
    assert migrate(path) == []
    with closing(connect(path)) as db:
        assert db.journal_mode == "wal"


MIGRATION = """
def migrate(migrator, database, *, fake=False):
    {}
def rollback(migrator, database, *, fake=False):
    {}
"""
CHANGES = """migrator.sql("ALTER TABLE courses ADD COLUMN room"); migrator.sql("UPDATE courses SET name = 'x'");"""


@pytest.mark.parametrize(
    "code",
    [
        MIGRATION.format(CHANGES + " migrator.sql('CREATE GARBAGE')", "pass"),
        MIGRATION.format(CHANGES + " migrator.run(lambda: 1 / 0)", "pass"),
        MIGRATION.format("migrator.sql('DELETE FROM students WHERE id = 1')", "pass"),
        "this is not Python",
    ],
    ids=["bad SQL", "bad Python", "references to nothing", "bad syntax"],
)
def test_broken_migration(rows: Path, tree: Path, code: str) -> None:
    """A broken migration is named, and undone with the whole run that it was part of."""
    before = dump(rows)
    (tree / "migrations" / "003_sound.py").write_text(MIGRATION.format(CHANGES, "pass"))
    (tree / "migrations" / "004_broken.py").write_text(code)
    ended = run_in(tree, "migrate", rows)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch("Error: Migration 004_broken failed: .+ The database is as it was.\n", ended.stderr)
    assert dump(rows) == before


def test_broken_rollback(rows: Path, tree: Path) -> None:
    """A migration that cannot be taken back is named, and the database stays as it was."""
    broken = tree / "migrations" / "003_broken.py"
    broken.write_text(MIGRATION.format("pass", CHANGES + " migrator.sql('CREATE GARBAGE')"))
    assert run_in(tree, "migrate", rows).stdout.startswith("applied 003_broken\n")
    before = dump(rows)
    ended = run_in(tree, "rollback", rows)
    assert ended.returncode == 1
    assert "003_broken failed" in ended.stderr
    assert dump(rows) == before


@pytest.mark.parametrize("table", ["students", "courses", "enrollments", "Students"])
def test_host_table_of_our_name(tmp_path: Path, table: str) -> None:
    """A host's own table with one of our names is refused, never adopted, and not touched."""
    path = tmp_path / "host.db"
    run_script(path, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO {table} VALUES (7, 'x');")
    before = files(tmp_path)
    with pytest.raises(MigrationFailed, match=f"{table.lower()} already exists.* never taken over"):
        migrate(path)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "tables",
    [
        "CREATE TABLE a (x UNIQUE); CREATE TABLE b (x REFERENCES a (x)); INSERT INTO b VALUES (1);",
        "CREATE TABLE a (x); CREATE TABLE b (x REFERENCES a (x)); INSERT INTO b VALUES (1);",
    ],
    ids=["dangling", "mismatched"],
)
def test_host_with_references_to_nothing(tmp_path: Path, tables: str) -> None:
    """A host's own rows that refer to nothing, as SQLite lets them by default, are none of our business."""
    path = tmp_path / "host.db"
    run_script(path, tables)
    before = schema(path)
    assert migrate(path) == ALL
    assert [rollback(path), rollback(path)] == ALL[::-1]
    assert set(before) < set(schema(path))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT x FROM b").fetchall() == [(1,)]


def test_rollback_under_a_host_that_refers_to_us(rows: Path) -> None:
    """The students that a host's rows refer to are not taken away."""
    rollback(rows)
    run_script(rows, "CREATE TABLE grades (student REFERENCES students (id)); INSERT INTO grades VALUES (1);")
    before = dump(rows)
    with pytest.raises(MigrationFailed, match=r"001_students_and_courses .*grades"):
        rollback(rows)
    assert dump(rows) == before


def rolled_back(path: Path) -> None:
    """Take the newest migration back."""
    migrate(path)
    rollback(path)


def ahead(path: Path) -> None:
    """Apply a migration that this code does not have."""
    migrate(path)
    run_script(path, "INSERT INTO enrollment_migrations (name, migrated_at) VALUES ('999_future', '2030-01-01')")


def not_a_database(path: Path) -> None:
    """Write something else."""
    path.write_text("This is a letter, and no database, but it is as long as a database's header would be." * 9)


def missing(_: Path) -> None:
    """Write nothing."""


BEHIND = "is behind: .*002_enrollments not applied. Run: python -m service migrate"


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (rolled_back, BEHIND),
        (Path.touch, BEHIND),
        (missing, "There is no database at .* Run: python -m service migrate"),
        (ahead, "is ahead .* 999_future.* python -m service rollback"),
        (not_a_database, "cannot be used: file is not a database"),
    ],
)
def test_database_that_is_not_current(tmp_path: Path, prepare: Callable[[Path], None], message: str) -> None:
    """On a database that is not the code's nothing starts, nothing is written, and the message says what to run."""
    path = tmp_path / "the school's.db"
    prepare(path)
    before = files(tmp_path)
    for start in (lambda: create_app(Settings(database_url=str(path))), lambda: connect(path)):
        with pytest.raises(SetupError, match=message) as raised:
            start()
        assert isinstance(raised.value, SchemaMismatch) == (prepare is not not_a_database)
    ended = CliRunner().invoke(cli, ["serve", "--port", "0", "--database-url", str(path)])
    assert (ended.exit_code, ended.output) == (1, f"Error: {raised.value}\n")
    assert files(tmp_path) == before
    if " migrate " in str(raised.value):
        mend = shlex.split(str(raised.value).partition("Run: python -m service ")[2])
        assert CliRunner().invoke(cli, mend).exit_code == 0
        connect(path)


def test_serve_process_on_a_missing_database(tmp_path: Path, tree: Path) -> None:
    """The server's process exits 1, says how to mend it, and makes no file."""
    ended = run_in(tree, "serve", tmp_path / "none.db")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert "Run: python -m service migrate" in ended.stderr
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("prepare", [rolled_back, missing])
def test_create_app_migrates_first(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    """With migrate=True the app makes the database, or brings it up to date."""
    path = tmp_path / "school.db"
    prepare(path)
    create_app(Settings(database_url=f"sqlite:///{path}"), migrate=True)
    assert status(path)[0].applied == ALL


def test_migrating_a_database_that_is_ahead(path: Path) -> None:
    """A database of a newer version is never called up to date, nor migrated further."""
    run_script(path, "DELETE FROM enrollment_migrations WHERE name LIKE '002%'; DROP TABLE enrollments;")
    run_script(path, "INSERT INTO enrollment_migrations (name, migrated_at) VALUES ('999_future', '2030-01-01')")
    before = dump(path)
    with pytest.raises(SchemaMismatch, match=r"ahead .* 999_future"):
        migrate(path)
    assert dump(path) == before


def test_rollback_of_nothing(path: Path) -> None:
    """When nothing is applied there is nothing to roll back."""
    rollback(path)
    rollback(path)
    with pytest.raises(SetupError, match="no migration to roll back"):
        rollback(path)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Router]:
    """Give a host program that has a table and a peewee-migrate history of its own in the file."""
    folder = tmp_path / "host"
    folder.mkdir()
    (folder / "001_rooms.py").write_text(MIGRATION.format("migrator.sql('CREATE TABLE rooms (id)')", "pass"))
    database = pw.SqliteDatabase(str(tmp_path / "host.db"))
    router = Router(database, migrate_dir=folder)
    assert router.run() == ["001_rooms"]
    database.close()
    yield router
    database.close()


def test_history_of_a_host(tmp_path: Path, host: Router) -> None:
    """A host's own history is not read, written or rebound, and the host's migrations go on."""
    path = tmp_path / "host.db"
    before = dump(path)[1:-1]
    migrate(path)
    rollback(path)
    migrate(path)
    assert set(before) < set(dump(path))
    assert host.done == ["001_rooms"]
    (tmp_path / "host" / "002_desks.py").write_text(MIGRATION.format("migrator.sql('CREATE TABLE desks (id)')", "pass"))
    assert host.run() == ["002_desks"]
    assert host.done == ["001_rooms", "002_desks"]
    assert status(path)[0].applied == ALL
