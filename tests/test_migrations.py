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

from service import Settings, create_app, migrate
from service.__main__ import cli
from service.errors import MigrationFailed, SchemaMismatch, SetupError
from service.storage.sqlite.schema import connect, rollback, status, try_rollback
from service.storage.sqlite.words import FILLED

ALL = sorted(path.stem for path in (ROOT / "migrations").glob("0*.py"))
PEOPLE = """
    INSERT INTO students (name) VALUES ('Ada'), ('O''Brien'), ('Ångström 学生 🎓'), ('gone');
    INSERT INTO courses (name, level) VALUES ('Basket weaving', 'A2'), ('  spaced  ', ''), ('gone', 'x');
    DELETE FROM students WHERE name = 'gone';
    DELETE FROM courses WHERE name = 'gone';
"""
ENROLLMENTS = """
    INSERT INTO enrollments (student_id, course_id, enrolled_at)
    VALUES (1, 1, '2026-01-01T00:00:00.000Z'), (2, 1, '2026-01-01T00:00:00.000Z'), (1, 2, '2025-01-01T00:00:00.000Z');
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
    """Give all that the schema defines; a table that was renamed has its name in quotes."""
    query = "SELECT name, replace(sql, '\"', '') FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def columns(path: Path) -> dict[str, str]:
    """Give each table's columns, as SQL that shows every byte of them; the history is not of interest."""
    query = """
        SELECT tables.name, group_concat('quote(' || columns.name || ')')
        FROM sqlite_master AS tables, pragma_table_xinfo(tables.name) AS columns
        WHERE tables.type = 'table' AND tables.name <> 'enrollment_migrations'
        GROUP BY tables.name"""
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute(query).fetchall())


def rows_of(path: Path, tables: dict[str, str]) -> dict[str, list[tuple[str, ...]]]:
    """Give those columns of every row."""
    with closing(sqlite3.connect(path)) as connection:
        return {
            table: sorted(connection.execute(f"SELECT {columns} FROM {table}").fetchall())
            for table, columns in tables.items()
        }


def files(folder: Path) -> dict[str, bytes]:
    """Give every file's content."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def rows(path: Path) -> Path:
    """Give a migrated file with rows in every table."""
    run_script(path, PEOPLE + ENROLLMENTS)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Copy the program, so that a test can change its migrations."""
    for folder in ("service", "migrations"):
        shutil.copytree(ROOT / folder, tmp_path / "tree" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "tree"


def run_in(tree: Path, verb: str, path: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of the copied program on a file."""
    command = [sys.executable, "-m", "service", verb, "--database-url", str(path), *options]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("applied", range(1, len(ALL)))
def test_up_and_down_keep_every_row(path: Path, applied: int) -> None:
    """Migrations change no byte of the rows that they find, nor the next id; taken back, they leave all as it was."""
    for _ in ALL[applied:]:
        rollback(path)
    run_script(path, PEOPLE + ENROLLMENTS * (applied > 1))
    tables, whole = columns(path), dump(path)
    before = rows_of(path, tables)
    assert len(before["students"]) + len(before["courses"]) == 5
    assert migrate(path) == ALL[applied:]
    assert rows_of(path, tables) == before
    assert [rollback(path) for _ in ALL[applied:]] == ALL[applied:][::-1]
    assert dump(path) == whole


CLIMB = """if True:
    import pathlib, shutil, sys, service
    for migration in map(pathlib.Path, sys.argv[1:]):
        shutil.copy(migration, "migrations")
        service.migrate("school.db")
        shutil.copy("school.db", f"{migration.stem}.db")
"""


@pytest.mark.long
def test_every_migration_up_down_up(tree: Path) -> None:
    """However many migrations are taken back, each step down and the way up give the schemas of the first way up."""
    path = tree / "school.db"
    for migration in (tree / "migrations").glob("0*.py"):
        migration.unlink()
    migrations = [ROOT / "migrations" / f"{name}.py" for name in ALL]
    subprocess.run([sys.executable, "-c", CLIMB, *migrations], cwd=tree, check=True)
    levels = [schema(tree / f"{name}.db") for name in ALL]
    assert levels[-1] == schema(path)
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


@pytest.mark.long
def test_migrations_in_two_processes_at_once(tmp_path: Path) -> None:
    """Of two processes that migrate one new file at once, one applies everything, and both end well."""
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
        for number in range(2)
    ]
    try:
        for number in range(20):
            path = tmp_path / f"{number}.db"
            for process in processes:
                assert process.stdin
                process.stdin.write(f"{path}\n")
                process.stdin.flush()
            answers = sorted(process.stdout.readline().strip() for process in processes if process.stdout)
            assert answers == [str(ALL), "[]"]
            with closing(connect(path)) as db:
                assert db.journal_mode == "wal"
    finally:
        said = [process.communicate()[1] for process in processes]
    assert said == ["", ""]


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
    (tree / "migrations" / "998_sound.py").write_text(MIGRATION.format(CHANGES, "pass"))
    (tree / "migrations" / "999_broken.py").write_text(code)
    ended = run_in(tree, "migrate", rows)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch("Error: Migration 999_broken failed: .+ The database is as it was.\n", ended.stderr)
    assert dump(rows) == before


@pytest.mark.long
def test_broken_rollback(rows: Path, tree: Path) -> None:
    """A migration that cannot be taken back is named, and the database stays as it was."""
    broken = tree / "migrations" / "999_broken.py"
    broken.write_text(MIGRATION.format("pass", CHANGES + " migrator.sql('CREATE GARBAGE')"))
    assert run_in(tree, "migrate", rows).stdout.startswith("applied 999_broken\n")
    before = dump(rows)
    ended = run_in(tree, "rollback", rows, "--yes")
    assert ended.returncode == 1
    assert "999_broken failed" in ended.stderr
    assert dump(rows) == before


@pytest.mark.parametrize("table", ["students", "courses", "enrollments", "enrollment_events", "Students"])
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
    assert [rollback(path) for _ in ALL] == ALL[::-1]
    assert set(before) < set(schema(path))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT x FROM b").fetchall() == [(1,)]


def test_rollback_under_a_host_that_refers_to_us(rows: Path) -> None:
    """The students that a host's rows refer to are not taken away."""
    for _ in ALL[1:]:
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


BEHIND = f"is behind: .*{ALL[-1]} not applied. Run: python -m service migrate"


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
        connect(path).close()


def test_serve_process_on_a_missing_database(tmp_path: Path, tree: Path) -> None:
    """The server's process exits 1, says how to mend it, and makes no file."""
    ended = run_in(tree, "serve", tmp_path / "none.db", "--port", "0")
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
    rollback(path)
    run_script(path, "INSERT INTO enrollment_migrations (name, migrated_at) VALUES ('999_future', '2030-01-01')")
    before = dump(path)
    with pytest.raises(SchemaMismatch, match=r"ahead .* 999_future"):
        migrate(path)
    assert dump(path) == before


def test_rollback_of_nothing(path: Path) -> None:
    """When nothing is applied there is nothing to roll back."""
    for _ in ALL:
        rollback(path)
    with pytest.raises(SetupError, match="no migration to roll back"):
        rollback(path)


def sizes(path: Path) -> dict[tuple[str, str], int]:
    """Give the number of rows of each table, and of values in each of its columns."""
    named = [(table, column) for table, names in columns(path).items() for column in re.findall(r"\((\w+)\)", names)]
    with closing(sqlite3.connect(path)) as connection:
        return {
            (table, column): connection.execute(f"SELECT count({column or '*'}) FROM {table}").fetchone()[0]
            for table, column in {*named, *((table, "") for table, _ in named)}
        }


def test_what_a_rollback_would_take(rows: Path) -> None:
    """Trying a rollback names each table and column that would go, and how much is in it, and changes no byte."""
    while status(rows)[0].applied:
        whole, before = rows.read_bytes(), sizes(rows)
        name, lost = try_rollback(rows)
        assert rows.read_bytes() == whole
        assert rollback(rows, alone=True) == name
        after = sizes(rows)
        # What repair can fill from other tables is no loss.
        gone = {pair: size for pair, size in before.items() if size and pair not in after and pair[0] not in FILLED}
        assert lost == {
            f"{table}.{column}" if column else table: size
            for (table, column), size in gone.items()
            if not column or (table, "") in after  # A table that goes has no need to name its columns.
        }
    with pytest.raises(SetupError, match="no migration to roll back"):
        try_rollback(rows)


@pytest.mark.long
def test_rows_that_a_rollback_would_delete(rows: Path, tree: Path) -> None:
    """Rows that go from a table that stays are counted as well, whatever the migration is."""
    code = MIGRATION.format("pass", "migrator.sql('DELETE FROM students WHERE id = 3')")
    (tree / "migrations" / "999_smaller.py").write_text(code)
    assert run_in(tree, "migrate", rows).returncode == 0
    said = run_in(tree, "rollback", rows).stdout
    assert " ".join(said.split()) == "Rolling back 999_smaller deletes: 1 row of students"
    assert sizes(rows)["students", ""] == 3


@pytest.mark.long
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_rollback_that_wants_to_be_alone(rows: Path, mode: str) -> None:
    """With `alone` a rollback is refused under another's open connection, or transaction, and else keeps others out."""
    with closing(sqlite3.connect(rows, isolation_level=None)) as other:
        other.execute(f"PRAGMA journal_mode = {mode}")
        if mode == "delete":
            other.execute("BEGIN IMMEDIATE")
        before = dump(rows)
        for act in try_rollback, lambda path: rollback(path, alone=True):
            with pytest.raises(SetupError, match=r"another program has it open, such as a server; stop that first"):
                act(rows)
        assert dump(rows) == before
    assert rollback(rows, alone=True) == ALL[-1]
    with closing(sqlite3.connect(rows)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == (mode,)


def test_page_size(tmp_path: Path) -> None:
    """A file that is made here has small pages; a host's own keeps its size."""
    with closing(sqlite3.connect(tmp_path / "host.db")) as host:
        host.execute("CREATE TABLE rooms (id INTEGER PRIMARY KEY)")
    sizes = []
    for name in ("new.db", "host.db"):
        migrate(tmp_path / name)
        with closing(connect(tmp_path / name)) as db:
            sizes.append(db.page_size)
    assert sizes == [2048, 4096]


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


# What a host has on the table that migration 003 makes anew


SEATS = "003_seats_and_events"
HOSTS = """
    CREATE TABLE log (what);
    CREATE TABLE badges (student);
    CREATE UNIQUE INDEX one_at_a_time ON enrollments (enrolled_at, student_id);
    CREATE INDEX [by "day] ON enrollments (substr(enrolled_at, 1, 10)) WHERE student_id > 0;
    CREATE TRIGGER log_added AFTER INSERT ON enrollments WHEN NEW.student_id > 0
    BEGIN INSERT INTO log VALUES ('added ' || NEW.student_id); END;
    CREATE TRIGGER "log dropped" BEFORE DELETE ON enrollments BEGIN INSERT INTO log VALUES ('dropped'); END;
    CREATE TRIGGER log_changed AFTER UPDATE OF student_id, [enrolled_at] ON enrollments BEGIN SELECT 1; END;
    CREATE TRIGGER enroll_along AFTER INSERT ON badges BEGIN
        INSERT INTO enrollments (student_id, course_id, enrolled_at)
        VALUES (NEW.student, 2, '2026-03-01T00:00:00.000Z');
    END;
    CREATE VIEW newest AS SELECT max(enrolled_at) FROM enrollments;
"""


def roll_back_to(path: Path, name: str) -> None:
    """Undo every migration behind the one that is named."""
    while status(path)[0].applied[-1] != name:
        rollback(path)


def theirs(path: Path) -> list[tuple[str, str]]:
    """Give the host's objects, and the SQL of each."""
    named = "name GLOB '*log*' OR name IN ('one_at_a_time', 'by \"day', 'enroll_along', 'newest', 'badges')"
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT name, sql FROM sqlite_master WHERE {named} ORDER BY name").fetchall()


def test_a_host_keeps_its_triggers_and_indexes(path: Path) -> None:
    """When enrollments are made anew, a host's triggers and indexes on them are put back, and work as they did."""
    roll_back_to(path, "002_enrollments")
    run_script(path, PEOPLE + ENROLLMENTS + HOSTS)
    before = theirs(path)
    assert len(before) == 9

    def works(names: list[str], badge: int) -> None:
        assert theirs(path) == before
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("DELETE FROM log")
            connection.execute("INSERT INTO badges VALUES (?)", [badge])
            connection.execute("DELETE FROM enrollments WHERE student_id = ? AND course_id = 2", [badge])
            assert [row[0] for row in connection.execute("SELECT what FROM log")] == [f"added {badge}", "dropped"]
            assert connection.execute("SELECT * FROM newest").fetchone() == ("2026-01-01T00:00:00.000Z",)
            with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
                connection.execute(
                    "INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (2, 2, ?)",
                    ["2026-01-01T00:00:00.000Z"],
                )
        assert status(path)[0].applied[-len(names) :] == names

    works(["002_enrollments"], 2)
    assert migrate(path)[0] == SEATS
    works(ALL, 3)
    connect(path).close()
    roll_back_to(path, "002_enrollments")
    works(["002_enrollments"], 2)


GONE = "(no such column: waiting)"
LOST = {
    "CREATE INDEX waiters ON enrollments (course_id, waiting)": f"the index waiters {GONE}",
    "CREATE INDEX seated ON enrollments (student_id) WHERE waiting IS NULL": f"the index seated {GONE}",
    """CREATE TRIGGER moved AFTER UPDATE OF enrolled_at, "WAITING" ON enrollments BEGIN SELECT 1; END;
    CREATE INDEX waiters ON enrollments (waiting)""": f"the trigger moved {GONE}, the index waiters {GONE}",
    "CREATE TRIGGER told AFTER INSERT ON enrollments BEGIN INSERT INTO log VALUES (NEW.waiting); END": "trigger told",
    "CREATE VIEW line AS SELECT waiting FROM enrollments": "error in view line",
    "ALTER TABLE enrollments ADD COLUMN note; ALTER TABLE enrollments ADD COLUMN grade": (
        "the columns grade, note of another program on enrollments would be lost"
    ),
}


@pytest.mark.parametrize("sql", LOST)
def test_what_a_host_would_lose_stops_the_rollback(path: Path, sql: str) -> None:
    """What names a column that goes with the seats is named, and the database stays as it was."""
    roll_back_to(path, SEATS)
    run_script(path, "CREATE TABLE log (what);" + sql)
    before = dump(path)
    with pytest.raises(MigrationFailed, match=f"Rolling back {SEATS} failed: .*{re.escape(LOST[sql])}"):
        rollback(path)
    assert dump(path) == before


def test_what_a_host_would_lose_stops_the_migration(path: Path) -> None:
    """A column that a host added to enrollments is not lost when they are made anew: the migration names it."""
    roll_back_to(path, "002_enrollments")
    run_script(path, PEOPLE + ENROLLMENTS + "ALTER TABLE enrollments ADD COLUMN note DEFAULT 'mine'")
    before = dump(path)
    with pytest.raises(MigrationFailed, match=f"{SEATS} failed: the columns note of another program"):
        migrate(path)
    assert dump(path) == before
