"""Run the numbered migrations with peewee-migrate, and tell which of them a database of any kind has."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import peewee as pw

from service.errors import MigrationFailed, SchemaMismatch, SetupError
from service.storage import fetch
from service.storage.commands import command

HISTORY = "enrollment_migrations"
"""The table that lists the migrations that were applied.

Another program that has tables in the same database may use peewee-migrate too, with a table of another name."""
APPLIED = f"SELECT name FROM {HISTORY} ORDER BY id"

TABLES = (
    *("students", "courses", "enrollments", "enrollment_events", "terms", "event_notes"),
    *("api_tokens", "api_sessions"),
)
"""The tables whose rows are told to people: all but those that are made from them, for the search."""

Sizes = dict[str, tuple[int, set[str]]]
"""How many rows each table has, and its columns."""

_PACKAGE = Path(__file__).parents[1]
MIGRATIONS = next(path for path in (_PACKAGE / "migrations", _PACKAGE.parent / "migrations") if path.is_dir())
"""The folder of the migrations: inside the package once it is installed, beside the package in the source tree."""

FEW = 3
"""How many differences the text of an error names; the command `status` names them all."""


@attrs.frozen
class Versions:
    """Names of migrations: applied to a database, still to be applied, and applied but unknown to this code."""

    applied: list[str]
    pending: list[str]
    unknown: list[str]


def versions(applied: list[str]) -> Versions:
    """Compare the names of the migrations that were applied to a database with the migrations of this code."""
    known = sorted(path.stem for path in MIGRATIONS.glob("[0-9][0-9][0-9]_*.py"))
    return Versions(
        applied=applied,
        pending=[name for name in known if name not in applied],
        unknown=[name for name in applied if name not in known],
    )


def check_current(found: Versions, url: str) -> None:
    """Raise SchemaMismatch unless a database has the migrations of this code; `url` is its URL, to be shown."""
    check_not_ahead(found, url)
    if found.pending:
        message = (
            f"The database {url} is behind: {', '.join(found.pending)} not applied. Run: {command('migrate', url)}"
        )
        raise SchemaMismatch(message)


def check_not_ahead(found: Versions, url: str) -> None:
    """Raise SchemaMismatch if migrations were applied to a database that this code does not know."""
    if found.unknown:
        message = (
            f"The database {url} is ahead of this version of the service, which does not know "
            f"{', '.join(found.unknown)}. Run the version that made it, or roll back with that version: "
            f"{command('rollback', url)}"
        )
        raise SchemaMismatch(message)


def check_same(differences: Sequence[str], url: str) -> None:
    """Raise SchemaMismatch if the schema of a database differs from the one of this code."""
    if differences:
        more = f"; and {len(differences) - FEW} more" if len(differences) > FEW else ""
        message = (
            f"The schema of the database {url} is not as its migrations made it: "
            f"{'; '.join(differences[:FEW])}{more}. Run: {command('repair', url)}"
        )
        raise SchemaMismatch(message)


def router(
    db: pw.Database,
    around: Callable[[str], AbstractContextManager[object]],
    hints: Mapping[str, str],
    nothing: Iterable[str] = (),
) -> Any:
    """Give peewee-migrate's router for a database, with the service's own history table and without shared state.

    Each migration runs inside `around(its name)`. `hints` tell what to do about an error, by words of its message.
    The migrations that are named in `nothing` do nothing, and are recorded as applied. Running a migration with the
    router raises MigrationFailed, and the database is as it was.
    """
    # Imported here, because peewee-migrate takes longer to import than all the rest that a server needs.
    from peewee_migrate import Migrator, Router  # noqa: PLC0415
    from peewee_migrate.models import MigrateHistory  # noqa: PLC0415
    from peewee_migrate.router import void  # noqa: PLC0415

    class _Router(Router):
        """A router that shares no state with another one in this process.

        peewee-migrate's own rebinds its model of the history to the newest database, and replays the migrations that
        were applied on a mocked database.
        """

        @cached_property
        def model(self) -> Any:
            meta = type("Meta", (), {"database": db, "table_name": HISTORY})
            history: Any = type("MigrateHistory", (MigrateHistory,), {"Meta": meta})
            history.create_table(safe=True)
            return history

        @cached_property
        def migrator(self) -> Migrator:
            return Migrator(db)

        def read(self, name: str) -> Any:
            read: Any = super().read
            return (void, void) if name in nothing else read(name)

        def run_one(self, name: str, migrator: Migrator, **options: Any) -> str:
            try:
                with around(name):
                    super().run_one(name, migrator, **options)
            except Exception as error:
                hint = next((hint for words, hint in hints.items() if words in str(error)), "")
                what = f"Rolling back {name}" if options.get("downgrade") else f"Migration {name}"
                raise MigrationFailed(f"{what} failed: {error}.{hint} The database is as it was.") from error
            return name

    quiet = logging.Logger("migrations")  # noqa: LOG001 - it logs nowhere, because MigrationFailed says everything.
    quiet.addHandler(logging.NullHandler())
    return _Router(db, migrate_dir=MIGRATIONS, migrate_table=HISTORY, logger=quiet)


def undo(router: Any, url: str) -> str:
    """Undo the newest migration of a database, and give its name. Raises SetupError if there is none."""
    applied: list[str] = router.done
    if not applied:
        message = f"The database {url} has no migration to roll back."
        raise SetupError(message)
    router.rollback()
    return applied[-1]


def lost(db: pw.Database, before: Sizes, after: Sizes) -> dict[str, int]:
    """Give what a rollback that was undone again would lose: rows by "table", and values by "table.column"."""
    found = {}
    for table, (rows, columns) in before.items():
        left, kept = after.get(table, (0, columns))
        found[table] = rows - left
        for column in columns - kept:
            ((found[f"{table}.{column}"],),) = fetch(db, f"SELECT count({column}) FROM {table}")
    return {what: count for what, count in sorted(found.items()) if count > 0}
