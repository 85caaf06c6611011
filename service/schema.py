"""The schema's versions: run the migrations, undo one, and tell where a database stands."""

import logging
import os
import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import peewee as pw

from service.database import enter_wal, fetch_all, is_locked, open_database
from service.errors import MigrationFailed, SchemaMismatch, SetupError
from service.urls import database_path

HISTORY = "enrollment_migrations"
"""The history's table; a host program's own peewee-migrate history has another name."""

_HERE = Path(__file__).parent
MIGRATIONS = next(path for path in (_HERE / "migrations", _HERE.parent / "migrations") if path.is_dir())
"""Inside the package once installed, beside it in the source tree."""

_MIGRATING = {"busy_timeout": 60.0, "foreign_keys": False}
"""A second process waits for the first; a table can be rebuilt without its references in the way."""

_ALONE = {"busy_timeout": 1.0, "locking_mode": "EXCLUSIVE"}
"""SQLite then refuses to open a file in WAL mode that anyone else has open, even if idle, and keeps others out."""

PAGE_SIZE = 2048
"""Bytes in a page of a file that is made here, half of SQLite's own: enrollments are small and far apart, and each
page that one changes is written and synced whole. 1.06 times as many enrollments a second, 0.98 times as many
schedules and pages of a roster."""

_TABLES = ("students", "courses", "enrollments", "enrollment_events")


@attrs.frozen
class Versions:
    """Names of migrations: applied here, pending here, and applied here but unknown to the code."""

    applied: list[str]
    pending: list[str]
    unknown: list[str]


def connect(url: str | os.PathLike[str], *, busy_timeout: float = 5.0) -> pw.SqliteDatabase:
    """Connect to a migrated database, given as a path or a URL.

    The rules in students, courses and enrollments take what this returns. Raises
    SchemaMismatch if the file is missing, behind the code or ahead of it.
    """
    with _setting_up(_existing(url), busy_timeout=busy_timeout) as db:
        check(db, url)
    return db


def check(db: pw.Database, url: str | os.PathLike[str]) -> None:
    """Raise SchemaMismatch, with the command that mends it, unless the schema is the code's."""
    _check_not_ahead(db, url)
    if pending := versions(db).pending:
        message = (
            f"The database {os.fspath(url)} is behind: {', '.join(pending)} not applied. "
            f"Run: {_command('migrate', url)}"
        )
        raise SchemaMismatch(message)


def _check_not_ahead(db: pw.Database, url: str | os.PathLike[str]) -> None:
    if unknown := versions(db).unknown:
        message = (
            f"The database {os.fspath(url)} is ahead of this version of the service, which does not know "
            f"{', '.join(unknown)}. Run the version that made it, or roll back with that version: "
            f"{_command('rollback', url)}"
        )
        raise SchemaMismatch(message)


def status(url: str | os.PathLike[str]) -> tuple[Versions, dict[str, int]]:
    """Tell where a database stands, and how many rows each table has.

    Raises SchemaMismatch if there is no file.
    """
    with _setting_up(_existing(url)) as db:
        found = versions(db)
        tables = [table for table in _TABLES if found.applied and db.table_exists(table)]
        return found, {table: fetch_all(db, f"SELECT count(*) FROM {table}")[0][0] for table in tables}


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
            done: list[str] = _router(db).run()
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
        for table in _TABLES
        if db.table_exists(table)
    }


@contextmanager
def _undoing(url: str | os.PathLike[str], *, alone: bool) -> Iterator[tuple[pw.SqliteDatabase, Any]]:
    options = _MIGRATING | (_ALONE if alone else {})
    with _setting_up(_existing(url), **options) as db, db.atomic("IMMEDIATE") as transaction:
        yield db, transaction


def _undo(db: pw.SqliteDatabase, url: str | os.PathLike[str]) -> str:
    router = _router(db)
    applied: list[str] = router.done
    if not applied:
        message = f"The database {os.fspath(url)} has no migration to roll back."
        raise SetupError(message)
    router.rollback()
    return applied[-1]


def _broken_references(db: pw.Database) -> Counter[tuple[Any, ...]]:
    """Count the rows that refer to rows that are missing, and the references that are broken in themselves."""
    found: Counter[tuple[Any, ...]] = Counter()
    for table in db.get_tables():
        try:
            found.update(fetch_all(db, f'PRAGMA foreign_key_check("{table}")'))
        except pw.OperationalError as error:
            found[table, str(error)] += 1
    return found


def _router(db: pw.SqliteDatabase) -> Any:
    # Imported here: it takes longer to import than all the rest that a server needs.
    from peewee_migrate import Migrator, Router  # noqa: PLC0415
    from peewee_migrate.models import MigrateHistory  # noqa: PLC0415

    class _Router(Router):
        """peewee-migrate's router without its shared state: nothing rebound, replayed or mocked."""

        @cached_property
        def model(self) -> Any:
            meta = type("Meta", (), {"database": db, "table_name": HISTORY})
            history: Any = type("MigrateHistory", (MigrateHistory,), {"Meta": meta})
            history.create_table(safe=True)
            return history

        @cached_property
        def migrator(self) -> Migrator:
            return Migrator(db)

        def run_one(self, name: str, migrator: Migrator, **options: Any) -> str:
            try:
                before = _broken_references(db)
                super().run_one(name, migrator, **options)
                if broken := _broken_references(db) - before:
                    what = f"{broken.total()} references would be broken, the first in {min(broken)[0]}"
                    raise ValueError(what)
            except Exception as error:
                hint = (
                    " A table of another program is never taken over: give the service a file of its own."
                    if "already exists" in str(error)
                    else ""
                )
                what = f"Rolling back {name}" if options.get("downgrade") else f"Migration {name}"
                raise MigrationFailed(f"{what} failed: {error}.{hint} The database is as it was.") from error
            return name

    quiet = logging.Logger("migrations")  # noqa: LOG001 - heard by nobody: MigrationFailed says it all.
    quiet.addHandler(logging.NullHandler())
    return _Router(db, migrate_dir=MIGRATIONS, migrate_table=HISTORY, logger=quiet)


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
        message = f"There is no database at {path}. Run: {_command('migrate', url)}"
        raise SchemaMismatch(message)
    return path


def _command(verb: str, url: str | os.PathLike[str]) -> str:
    return f"python -m service {verb} --database-url {shlex.quote(os.fspath(url))}"
