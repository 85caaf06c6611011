"""The schema's versions: run the migrations, undo one, and tell where a database stands."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import peewee as pw

from service import drift
from service.check import Result, Tick, run, silent
from service.database import enter_wal, fetch_all, is_locked, open_database
from service.errors import SchemaMismatch, SetupError, StorageUnavailable
from service.repair import mend
from service.router import HISTORY, MIGRATIONS, router
from service.urls import database_path

_MIGRATING = {"busy_timeout": 60.0, "foreign_keys": False}
"""A second process waits for the first; a table can be rebuilt without its references in the way."""

_ALONE = {"busy_timeout": 1.0, "locking_mode": "EXCLUSIVE"}
"""SQLite then refuses to open a file in WAL mode that anyone else has open, even if idle, and keeps others out."""

PAGE_SIZE = 2048
"""Bytes in a page of a file that is made here, half of SQLite's own: enrollments are small and far apart, and each
page that one changes is written and synced whole. 1.06 times as many enrollments a second, 0.98 times as many
schedules and pages of a roster."""

_LOOKING = {"temp_store": "FILE"}
"""What is sorted may be more than fits in memory."""

SCHEMA_VERSION = "PRAGMA schema_version"

FEW = 3
"""How many differences an error names; `status` names them all."""


@attrs.frozen
class Versions:
    """Names of migrations: applied here, pending here, and applied here but unknown to the code."""

    applied: list[str]
    pending: list[str]
    unknown: list[str]


def connect(url: str | os.PathLike[str], *, busy_timeout: float = 5.0) -> pw.SqliteDatabase:
    """Connect to a migrated database, given as a path or a URL.

    The rules in students, courses and enrollments take what this returns. Raises
    SchemaMismatch if the file is missing, behind the code or ahead of it, or not as the migrations made it.
    """
    with _setting_up(_existing(url), busy_timeout=busy_timeout) as db:
        check(db, url)
    return db


def check(db: pw.Database, url: str | os.PathLike[str], clean: int | None = None) -> int:
    """Raise SchemaMismatch, with the command that mends it, unless the schema is the code's.

    Gives SQLite's number of the schema, which every change of it raises. Handed in as `clean` the next time, it
    saves comparing what has not changed.
    """
    _check_versions(db, url)
    ((number,),) = fetch_all(db, SCHEMA_VERSION)
    if number != clean and (found := drift.compare(db)):
        more = f"; and {len(found) - FEW} more" if len(found) > FEW else ""
        message = (
            f"The schema of the database {os.fspath(url)} is not as its migrations made it: "
            f"{'; '.join(each.text for each in found[:FEW])}{more}. Run: {command('repair', url)}"
        )
        raise SchemaMismatch(message)
    return int(number)


class Schema:
    """The schema of a file that is served: it is compared again only once it has changed."""

    def __init__(self, url: str | os.PathLike[str]) -> None:
        """Know nothing of it yet."""
        self._url = url
        self._clean: int | None = None

    def check(self, db: pw.Database) -> None:
        """Raise StorageUnavailable unless the schema is the code's."""
        try:
            self._clean = check(db, self._url, self._clean)
        except SetupError as error:
            raise StorageUnavailable(str(error)) from error

    def verify(self, db: pw.Database) -> None:
        """Do the same before something is written, with one statement unless the schema has changed."""
        if db.connection().execute(SCHEMA_VERSION).fetchone() != (self._clean,):
            try:
                self.check(db)
            except StorageUnavailable as error:
                raise StorageUnavailable(f"Nothing was kept. {error.detail}") from error


def _check_versions(db: pw.Database, url: str | os.PathLike[str]) -> None:
    _check_not_ahead(db, url)
    if pending := versions(db).pending:
        message = (
            f"The database {os.fspath(url)} is behind: {', '.join(pending)} not applied. Run: {command('migrate', url)}"
        )
        raise SchemaMismatch(message)


def _check_not_ahead(db: pw.Database, url: str | os.PathLike[str]) -> None:
    if unknown := versions(db).unknown:
        message = (
            f"The database {os.fspath(url)} is ahead of this version of the service, which does not know "
            f"{', '.join(unknown)}. Run the version that made it, or roll back with that version: "
            f"{command('rollback', url)}"
        )
        raise SchemaMismatch(message)


def status(url: str | os.PathLike[str]) -> tuple[Versions, dict[str, int], list[str]]:
    """Tell where a database stands, how many rows each table has, and how its schema differs from the code's.

    Raises SchemaMismatch if there is no file.
    """
    with _setting_up(_existing(url)) as db:
        found = versions(db)
        tables = [table for table in drift.tables() if found.applied and db.table_exists(table)]
        counts = {table: fetch_all(db, f"SELECT count(*) FROM {table}")[0][0] for table in tables}
        current = not (found.pending or found.unknown)
        return found, counts, [each.text for each in drift.compare(db)] if current else []


def prove(url: str | os.PathLike[str], tick: Tick = silent) -> Iterator[Result]:
    """Prove what must hold in a database, one invariant after another.

    Raises SchemaMismatch if the file is missing, behind the code or ahead of it.
    """
    with _setting_up(_existing(url), **_LOOKING) as db:
        _check_versions(db, url)
        yield from run(db, tick)


def repair(url: str | os.PathLike[str], tick: Tick = silent) -> list[str]:
    """Put a database's schema and rows right, all or nothing, and give what was done, a sentence each.

    Raises SchemaMismatch as `prove` does, SetupError if something has to be mended by hand; it is then as it was.
    """
    with _setting_up(_existing(url), **_MIGRATING, **_LOOKING) as db, db.atomic("IMMEDIATE"):
        _check_versions(db, url)
        return mend(db, tick)


def versions(db: pw.Database) -> Versions:
    """Compare the database's history with the migrations that the code has."""
    names = f"SELECT name FROM {HISTORY} ORDER BY id"
    applied = [name for (name,) in fetch_all(db, names)] if db.table_exists(HISTORY) else []
    known = sorted(path.stem for path in MIGRATIONS.glob("[0-9][0-9][0-9]_*.py"))
    return Versions(
        applied=applied,
        pending=[name for name in known if name not in applied],
        unknown=[name for name in applied if name not in known],
    )


def migrate(url: str | os.PathLike[str]) -> list[str]:
    """Apply what is pending, all or nothing, and give the names; makes the file if it is missing.

    Raises MigrationFailed, naming the migration, and SchemaMismatch if the database is
    ahead of the code; it is then as it was.
    """
    with _setting_up(database_path(url), **_MIGRATING, create=True, page_size=PAGE_SIZE) as db:
        with db.atomic("IMMEDIATE"):  # The whole run, so that two cannot interleave.
            _check_not_ahead(db, url)
            done: list[str] = router(db).run()
        enter_wal(db)  # Where another process is in the way, as it migrates too, it comes here in its turn.
    return done


def rollback(url: str | os.PathLike[str], *, alone: bool = False) -> str:
    """Undo the newest migration, with the rows that it brought, and give its name.

    Raises SetupError if there is none or, `alone`, if another connection is open; MigrationFailed if it refuses.
    """
    with _undoing(url, alone=alone) as (db, _):
        return _undo(db, url)


def try_rollback(url: str | os.PathLike[str]) -> tuple[str, dict[str, int]]:
    """Tell what `rollback` would undo, and what would go: how many rows of a table, values of a table.column.

    It is done, alone, and not kept, so it tells the truth of any migration. Raises what `rollback` raises.
    """
    with _undoing(url, alone=True) as (db, transaction):
        before = _sizes(db)
        name = _undo(db, url)
        after = _sizes(db)
        transaction.rollback()
        lost = {}
        for table, (rows, columns) in before.items():
            left, kept = after.get(table, (0, columns))
            lost[table] = rows - left
            for column in columns - kept:
                ((lost[f"{table}.{column}"],),) = fetch_all(db, f"SELECT count({column}) FROM {table}")
    return name, {what: count for what, count in sorted(lost.items()) if count > 0}


def _sizes(db: pw.SqliteDatabase) -> dict[str, tuple[int, set[str]]]:
    return {
        table: (fetch_all(db, f"SELECT count(*) FROM {table}")[0][0], {each.name for each in db.get_columns(table)})
        for table in drift.tables()
        if db.table_exists(table)
    }


@contextmanager
def _undoing(url: str | os.PathLike[str], *, alone: bool) -> Iterator[tuple[pw.SqliteDatabase, Any]]:
    options = _MIGRATING | (_ALONE if alone else {})
    with _setting_up(_existing(url), **options) as db, db.atomic("IMMEDIATE") as transaction:
        yield db, transaction


def _undo(db: pw.SqliteDatabase, url: str | os.PathLike[str]) -> str:
    history = router(db)
    applied: list[str] = history.done
    if not applied:
        message = f"The database {os.fspath(url)} has no migration to roll back."
        raise SetupError(message)
    history.rollback()
    return applied[-1]


@contextmanager
def _setting_up(path: Path, **options: Any) -> Iterator[pw.SqliteDatabase]:
    """Open a database, close it at the end, and put its errors in words."""
    db = open_database(path, **options)
    try:
        yield db
    except pw.DatabaseError as error:
        reason = "another program has it open, such as a server; stop that first" if is_locked(error) else error
        message = f"The database {path} cannot be used: {reason}."
        raise SetupError(message) from error
    finally:
        db.close()


def _existing(url: str | os.PathLike[str]) -> Path:
    path = database_path(url)
    if not path.is_file():
        message = f"There is no database at {path}. Run: {command('migrate', url)}"
        raise SchemaMismatch(message)
    return path


def command(verb: str, url: str | os.PathLike[str]) -> str:
    """Give the command line that does something to a database."""
    return f"python -m service {verb} --database-url {shlex.quote(os.fspath(url))}"
