"""Manage the schema of a database: run the migrations, undo one, check, repair and copy it, and tell its version."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import peewee as pw

from service.errors import SchemaMismatch, SetupError, StorageUnavailable
from service.storage import fetch, migrating
from service.storage.checks import Result, Tick, silent
from service.storage.commands import command
from service.storage.migrating import APPLIED, HISTORY, Versions
from service.storage.sqlite import backup, drift
from service.storage.sqlite.check import run
from service.storage.sqlite.connections import enter_wal, open_database
from service.storage.sqlite.repair import mend
from service.storage.sqlite.router import router
from service.storage.sqlite.urls import database_path
from service.storage.sqlite.violations import is_locked
from service.storage.sqlite.words import FILLED

_MIGRATING = {"busy_timeout": 60.0, "foreign_keys": False}
"""A second process that migrates waits for the first one. With foreign keys off, a migration can rebuild a table
although the rows of other tables refer to its rows."""

_ALONE = {"busy_timeout": 1.0, "locking_mode": "EXCLUSIVE"}
"""In this locking mode SQLite refuses to open a file in WAL mode that another connection has open, even an idle one,
and then keeps other connections out."""

PAGE_SIZE = 2048
"""Bytes in a page of a database file that `migrate` makes; SQLite's own default is 4,096.

An enrollment changes a few bytes in several pages that lie far apart, and SQLite writes and syncs each changed page
whole. Smaller pages gave 1.06 times as many enrollments a second, for 0.98 times as many schedules and roster pages."""

_LOOKING = {"temp_store": "FILE"}
"""`prove`, `repair` and `migrate` sort whole tables, which may be more than fits in memory."""

SCHEMA_VERSION = "PRAGMA schema_version"
"""Asks SQLite for a number that every change of the schema raises."""


def connect(url: str | os.PathLike[str], *, busy_timeout: float = 5.0) -> pw.SqliteDatabase:
    """Connect to a migrated database, given as a path or a URL, and give the `db` that the rules take.

    The connection of this thread is open then; another thread's opens at its first statement. `busy_timeout` is how
    many seconds a statement waits for another connection's lock. Raises SchemaMismatch if the file is missing, if
    migrations are missing in it or unknown to this code, or if the schema is not as the migrations made it.
    """
    path = _existing(url)
    db = open_database(path, busy_timeout=busy_timeout)
    with ExitStack() as stack, _explained(path):
        stack.callback(db.close)
        check(db, url)
        stack.pop_all()
    return db


def check(db: pw.Database, url: str | os.PathLike[str], clean: int | None = None) -> int:
    """Raise SchemaMismatch, with the command that mends it, unless the schema is the one of this code.

    Gives SQLite's number of the schema, which every change of the schema raises. Hand that number in as `clean` the
    next time: a schema that has not changed since is not compared again.
    """
    _check_versions(db, url)
    ((number,),) = fetch(db, SCHEMA_VERSION)
    if number != clean:
        migrating.check_same([each.text for each in drift.compare(db)], os.fspath(url))
    return int(number)


class Schema:
    """The check of the schema of a file that is served; a schema is compared again only once it has changed."""

    def __init__(self, url: str | os.PathLike[str]) -> None:
        """Keep the URL; nothing is compared yet."""
        self._url = url
        self._clean: int | None = None

    def check(self, db: pw.Database) -> None:
        """Raise StorageUnavailable unless the schema is the one of this code."""
        try:
            self._clean = check(db, self._url, self._clean)
        except SetupError as error:
            raise StorageUnavailable(str(error)) from error

    def verify(self, db: pw.Database) -> None:
        """Do what `check` does, before a write, with one statement if the schema has not changed since the last check.

        Raises StorageUnavailable, which says that nothing was kept.
        """
        if db.connection().execute(SCHEMA_VERSION).fetchone() != (self._clean,):
            try:
                self.check(db)
            except StorageUnavailable as error:
                raise StorageUnavailable(f"Nothing was kept. {error.detail}") from error


def _check_versions(db: pw.Database, url: str | os.PathLike[str]) -> None:
    migrating.check_current(versions(db), os.fspath(url))


def status(url: str | os.PathLike[str]) -> tuple[Versions, dict[str, int], list[str]]:
    """Give a database's migrations, the number of rows by table, and how its schema differs from the one of this code.

    The differences are given only where no migration is pending or unknown. Raises SchemaMismatch if there is no file.
    """
    with _setting_up(_existing(url)) as db:
        found = versions(db)
        counts = {table: rows for table, (rows, _) in _sizes(db).items()} if found.applied else {}
        current = not (found.pending or found.unknown)
        return found, counts, [each.text for each in drift.compare(db)] if current else []


def prove(url: str | os.PathLike[str], tick: Tick = silent) -> Iterator[Result]:
    """Check the invariants, which must hold in every database, and give one result after another.

    `tick` is called now and then with what is at work. Raises SchemaMismatch if the file is missing, or if migrations
    are missing in it or unknown to this code.
    """
    with _setting_up(_existing(url), **_LOOKING) as db:
        _check_versions(db, url)
        yield from run(db, tick)


@contextmanager
def reading(url: str | os.PathLike[str], busy_timeout: float) -> Iterator[pw.SqliteDatabase]:
    """Connect as `connect` does, for a block that reads from one snapshot, while others may write."""
    with closing(connect(url, busy_timeout=busy_timeout)) as db, db.atomic():
        yield db


@contextmanager
def writing(url: str | os.PathLike[str]) -> Iterator[pw.SqliteDatabase]:
    """Open a file that has the schema of this code for a block that is one transaction, in which nobody else writes.

    Raises SchemaMismatch as `connect` does.
    """
    with _setting_up(_existing(url), **_MIGRATING, **_LOOKING) as db, db.atomic("IMMEDIATE"):
        check(db, url)
        yield db


def repair(url: str | os.PathLike[str], tick: Tick = silent) -> list[str]:
    """Repair a database's schema and rows, all or nothing, and give a sentence for each thing that was done.

    Raises SchemaMismatch as `prove` does, and SetupError if a person has to mend something first; the database is then
    as it was.
    """
    with _setting_up(_existing(url), **_MIGRATING, **_LOOKING) as db, db.atomic("IMMEDIATE"):
        _check_versions(db, url)
        return mend(db, tick)


def back_up(url: str | os.PathLike[str], target: Path, tick: Tick = silent) -> int:
    """Copy a database, which may be served meanwhile, to the file `target`, and give the size of that file in bytes.

    Its schema may be of any version, so that a copy can be made before an upgrade. Raises SchemaMismatch if there is no
    database of the service, and SetupError as `backup.back_up` does; a `target` that was there is then as it was.
    """
    with _setting_up(_existing(url)) as db, db.atomic():
        if not versions(db).applied:
            raise SchemaMismatch(f"The database {os.fspath(url)} has nothing of the service: no migration was applied.")
        return backup.back_up(db, target, tick)


def versions(db: pw.Database) -> Versions:
    """Compare the table of the migrations that were applied to a database with the migrations of this code."""
    return migrating.versions([name for (name,) in fetch(db, APPLIED)] if db.table_exists(HISTORY) else [])


def migrate(url: str | os.PathLike[str], tick: Tick = silent) -> list[str]:
    """Apply the pending migrations, all or nothing, and give their names; make the file if it is missing.

    `tick` is called now and then with the name of the migration that is at work. Raises MigrationFailed, which names
    the migration, and SchemaMismatch if migrations were applied that this code does not know; the database is then as
    it was.
    """
    with _setting_up(database_path(url), **_MIGRATING, **_LOOKING, create=True, page_size=PAGE_SIZE) as db:
        with db.atomic("IMMEDIATE"):  # One transaction for the whole run, so that two processes cannot interleave.
            migrating.check_not_ahead(versions(db), os.fspath(url))
            done: list[str] = router(db, tick).run()
        enter_wal(db)  # If another process that migrates is in the way, that process will enter WAL mode instead.
    return done


def rollback(url: str | os.PathLike[str], *, alone: bool = False, tick: Tick = silent) -> str:
    """Undo the newest migration, together with the rows that it brought, and give its name.

    `tick` is called as by `migrate`. Raises SetupError if there is none or, with `alone`, if another connection is
    open, and MigrationFailed if the migration refuses to be undone.
    """
    with _undoing(url, alone=alone) as (db, _):
        return _undo(db, url, tick)


def try_rollback(url: str | os.PathLike[str], tick: Tick = silent) -> tuple[str, dict[str, int]]:
    """Give the name of the migration that `rollback` would undo, and what would be lost.

    What would be lost is a number of rows by "table", and of values by "table.column". The rollback is really done, and
    then not kept, so the numbers are right whatever the migration does. Raises what `rollback` with `alone` raises.
    """
    with _undoing(url, alone=True) as (db, transaction):
        before = _sizes(db)
        name = _undo(db, url, tick)
        after = _sizes(db)
        transaction.rollback()
        return name, migrating.lost(db, before, after)


def _sizes(db: pw.SqliteDatabase) -> migrating.Sizes:
    """Give how many rows each table with rows of its own has, and its columns."""
    return {
        table: (fetch(db, f"SELECT count(*) FROM {table}")[0][0], {each.name for each in db.get_columns(table)})
        for table in drift.tables()
        if table not in FILLED and db.table_exists(table)
    }


@contextmanager
def _undoing(url: str | os.PathLike[str], *, alone: bool) -> Iterator[tuple[pw.SqliteDatabase, Any]]:
    options = _MIGRATING | (_ALONE if alone else {})
    with _setting_up(_existing(url), **options) as db, db.atomic("IMMEDIATE") as transaction:
        yield db, transaction


def _undo(db: pw.SqliteDatabase, url: str | os.PathLike[str], tick: Tick) -> str:
    return migrating.undo(router(db, tick), os.fspath(url))


@contextmanager
def _setting_up(path: Path, **options: Any) -> Iterator[pw.SqliteDatabase]:
    """Open a database for a block, and close it at the end; an error of the database is raised as SetupError."""
    with closing(open_database(path, **options)) as db, _explained(path):
        yield db


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (pw.DatabaseError, sqlite3.Error) as error:
        reason = "another program has it open, such as a server; stop that first" if is_locked(error) else error
        message = f"The database {path} cannot be used: {reason}."
        raise SetupError(message) from error


def _existing(url: str | os.PathLike[str]) -> Path:
    path = database_path(url)
    if not path.is_file():
        message = f"There is no database at {path}. Run: {command('migrate', url)}"
        raise SchemaMismatch(message)
    return path
