"""Manage the schema of a school on PostgreSQL: run the migrations, undo one, check, repair, and tell its version."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import peewee as pw

from service.errors import SetupError
from service.storage import fetch, migrating
from service.storage.checks import Result, Tick, silent
from service.storage.migrating import APPLIED, HISTORY, TABLES, Versions
from service.storage.postgres import drift, poolers
from service.storage.postgres.check import run, watched
from service.storage.postgres.connections import TURN, Database, open_database
from service.storage.postgres.faults import ERRORS, cause_of, is_locked
from service.storage.postgres.repair import mend
from service.storage.postgres.urls import without_password

OF_A_FILE = [f"{number:03}" for number in range(1, 8)]
"""The migrations that change a file step by step: 008 makes on PostgreSQL what they come to."""
HINTS = {"already exists": " A table of another program is never taken over: give the service a schema of its own."}
"""What to do about an error of PostgreSQL, by words of its message."""
PATIENCE = 60.0
"""Seconds that a migration, or a repair, waits for another one, and for the transactions of a server."""

HAS_TABLE = "SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = ?"
COLUMNS = """
    SELECT attname FROM pg_attribute
    JOIN pg_class ON pg_class.oid = attrelid
    WHERE relname = ? AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
      AND attnum > 0 AND NOT attisdropped"""
# The first schema of the search path is the school. Where it is not there, no other schema of the path takes its place;
# but "$user", which is the path's own default, is nobody's wish.
WISHED = """
    SELECT quote_ident(name) FROM (
        SELECT (parse_ident(split_part(current_setting('search_path'), ',', 1)))[1] AS name
        WHERE current_setting('search_path') NOT IN ('', '""')) AS first
    WHERE name NOT LIKE '$%' AND to_regnamespace(quote_ident(name)) IS NULL"""
LOCK_PATH = "SELECT pg_advisory_xact_lock(1701711, hashtext(current_setting('search_path')))"
# A connection has the name of its school, unless the URL names it: see connections.py.
OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = current_setting('application_name')
      AND pid <> pg_backend_pid()"""


def connect(url: str, *, busy_timeout: float = 5.0) -> Database:
    """Connect to a migrated school, and give the `db` that the rules take.

    `busy_timeout` is how many seconds a statement waits for another connection's lock. Raises SchemaMismatch if
    migrations are missing in the school or unknown to this code, or if its schema is not as the migrations made it, and
    SetupError if the database cannot be reached, or a pooler is in front of it that loses what is relied on.
    """
    db = open_database(url, busy_timeout=busy_timeout)
    with _explained(db, url):
        poolers.check(db, url, through=True)
        check(db, url)
    return db


def check(db: pw.Database, url: str) -> None:
    """Raise SchemaMismatch, with the command that mends it, unless the schema is the one of this code."""
    shown = without_password(url)
    migrating.check_current(versions(db), shown)
    migrating.check_same([each.text for each in drift.compare(db)], shown)


def status(url: str) -> tuple[Versions, dict[str, int], list[str]]:
    """Give a school's migrations, the number of rows by table, and how its schema differs from the one of this code.

    The differences are given only where no migration is pending or unknown.
    """
    with _setting_up(url) as db, db.atomic("READ"):
        found = versions(db)
        counts = {table: rows for table, (rows, _) in _sizes(db).items()} if found.applied else {}
        current = not (found.pending or found.unknown)
        return found, counts, [each.text for each in drift.compare(db)] if current else []


def prove(url: str, tick: Tick = silent) -> Iterator[Result]:
    """Check the invariants, which must hold in every school, and give one result after another.

    `tick` is called now and then with what is at work. Raises SchemaMismatch if migrations are missing in the school or
    unknown to this code.
    """
    with _setting_up(url) as db:
        migrating.check_current(versions(db), without_password(url))
        yield from run(db, tick)


@contextmanager
def reading(url: str, busy_timeout: float) -> Iterator[Database]:
    """Connect as `connect` does, for a block that reads from one snapshot, while others may write."""
    with closing(connect(url, busy_timeout=busy_timeout)) as db, db.atomic("READ"):
        yield db


@contextmanager
def writing(url: str) -> Iterator[Database]:
    """Open a school that has the schema of this code for a block that is one transaction, in which nobody else writes.

    Raises SchemaMismatch as `connect` does.
    """
    with _setting_up(url, busy_timeout=PATIENCE, idle_timeout=0) as db, db.atomic("IMMEDIATE"):
        check(db, url)
        yield db


def repair(url: str, tick: Tick = silent) -> list[str]:
    """Repair a school's schema and rows, all or nothing, and give a sentence for each thing that was done.

    Raises SchemaMismatch as `prove` does, and SetupError if a person has to mend something first; the school is then as
    it was.
    """
    with _setting_up(url, busy_timeout=PATIENCE) as db, db.atomic("IMMEDIATE"):
        migrating.check_current(versions(db), without_password(url))
        return mend(db, tick)


def back_up(url: str, target: Path, tick: Tick = silent) -> NoReturn:  # noqa: ARG001 - as for a file.
    """Refuse: PostgreSQL has backups of its own."""
    raise SetupError(
        f"A school on PostgreSQL is backed up with PostgreSQL's own tools, such as pg_dump: pg_dump --format=custom "
        f"--file={target} {without_password(url)!r}"
    )


def versions(db: pw.Database) -> Versions:
    """Compare the table of the migrations that were applied to a school with the migrations of this code."""
    is_there = fetch(db, HAS_TABLE, HISTORY) and not fetch(db, WISHED)
    return migrating.versions([name for (name,) in fetch(db, APPLIED)] if is_there else [])


def migrate(url: str, tick: Tick = silent) -> list[str]:
    """Apply the pending migrations, all or nothing, and give their names; make the schema if it is missing.

    Processes that migrate at once wait for each other, and everything is applied once. `tick` is called now and then
    with the name of the migration that is at work. Raises MigrationFailed, which names the migration, and
    SchemaMismatch if migrations were applied that this code does not know; the database is then as it was.
    """
    with _setting_up(url, busy_timeout=PATIENCE) as db, db.atomic():
        fetch(db, LOCK_PATH)
        for (name,) in fetch(db, WISHED):
            db.execute_sql(f"CREATE SCHEMA IF NOT EXISTS {name}")
        fetch(db, TURN)
        migrating.check_not_ahead(versions(db), without_password(url))
        done: list[str] = _router(db, tick).run()
    return done


def rollback(url: str, *, alone: bool = False, tick: Tick = silent) -> str:
    """Undo the newest migration, together with the rows that it brought, and give its name.

    `tick` is called as by `migrate`. Raises SetupError if there is none or, with `alone`, if the service has another
    connection to the school, and MigrationFailed if the migration refuses to be undone.
    """
    with _undoing(url, alone=alone) as (db, _):
        return migrating.undo(_router(db, tick), without_password(url))


def try_rollback(url: str, tick: Tick = silent) -> tuple[str, dict[str, int]]:
    """Give the name of the migration that `rollback` would undo, and what would be lost.

    What would be lost is a number of rows by "table", and of values by "table.column". The rollback is really done, and
    then not kept, so the numbers are right whatever the migration does. Raises what `rollback` with `alone` raises.
    """
    with _undoing(url, alone=True) as (db, transaction):
        before = _sizes(db)
        name = migrating.undo(_router(db, tick), without_password(url))
        after = _sizes(db)
        transaction.rollback()
        return name, migrating.lost(db, before, after)


def _sizes(db: pw.Database) -> migrating.Sizes:
    """Give how many rows each table with rows of its own has, and its columns."""
    return {
        table: (fetch(db, f"SELECT count(*) FROM {table}")[0][0], {name for (name,) in fetch(db, COLUMNS, table)})
        for table in TABLES
        if fetch(db, HAS_TABLE, table)
    }


def _router(db: pw.Database, tick: Tick) -> Any:
    nothing = [path.stem for path in migrating.MIGRATIONS.iterdir() if path.stem[:3] in OF_A_FILE]
    return migrating.router(db, lambda name: watched(name, tick), HINTS, nothing)


@contextmanager
def _undoing(url: str, *, alone: bool) -> Iterator[tuple[Database, Any]]:
    with _setting_up(url, busy_timeout=1 if alone else PATIENCE) as db, db.atomic("IMMEDIATE") as transaction:
        if alone and fetch(db, OTHERS) != [(0,)]:
            raise SetupError(f"Another program, such as a server, has {without_password(url)} open; stop that first.")
        yield db, transaction


@contextmanager
def _setting_up(url: str, **options: Any) -> Iterator[Database]:
    """Open a database for a block, and close it at the end; an error of the database is raised as SetupError."""
    db = open_database(url, **options)
    with _explained(db, url):
        poolers.check(db, url, through=False)
        yield db
    db.close()


@contextmanager
def _explained(db: Database, url: str) -> Iterator[None]:
    """Raise an error of the database as SetupError; the connection is closed after any error."""
    try:
        yield
    except BaseException as error:
        db.close()
        if isinstance(error, ERRORS):
            found = cause_of(error)
            told = getattr(getattr(found, "diag", None), "message_primary", None) or str(found)
            reason = "; ".join(line.strip().rstrip(".") for line in told.splitlines())
            if is_locked(error):
                reason = "another program has it open, such as a server; stop that first"
            message = f"The database {without_password(url)} cannot be used: {poolers.reason_of(reason)}."
            raise SetupError(message.replace("?.", "?")) from error
        raise
