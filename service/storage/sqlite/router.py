"""Set up peewee-migrate, which runs the migrations: say where they are, and check what they must not break."""

import logging
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

import peewee as pw

from service.errors import MigrationFailed
from service.storage import fetch
from service.storage.sqlite.check import Tick, watched

HISTORY = "enrollment_migrations"
"""The table that lists the migrations that were applied.

Another program that has tables in the same file may use peewee-migrate too, with a table of another name."""

HINTS = {
    "already exists": " A table of another program is never taken over: give the service a file of its own.",
    "duplicate column name": " A column of another program is never taken over: give that column another name.",
}
"""What to do about an error of SQLite, by words of its message."""

_PACKAGE = Path(__file__).parents[2]
MIGRATIONS = next(path for path in (_PACKAGE / "migrations", _PACKAGE.parent / "migrations") if path.is_dir())
"""The folder of the migrations: inside the package once it is installed, beside the package in the source tree."""


def _broken_references(db: pw.Database) -> Counter[tuple[Any, ...]]:
    """Count the rows that refer to a missing row, and the foreign keys that SQLite cannot check at all."""
    found: Counter[tuple[Any, ...]] = Counter()
    for table in db.get_tables():
        try:
            found.update(fetch(db, f'PRAGMA foreign_key_check("{table}")'))
        except pw.OperationalError as error:
            found[table, str(error)] += 1
    return found


def router(db: pw.SqliteDatabase, tick: Tick) -> Any:
    """Give peewee-migrate's router for a database, with the service's own history table and without shared state.

    `tick` is called now and then with the name of the migration that is at work. Running a migration with the router
    raises MigrationFailed, and the database is as it was.
    """
    # Imported here, because peewee-migrate takes longer to import than all the rest that a server needs.
    from peewee_migrate import Migrator, Router  # noqa: PLC0415
    from peewee_migrate.models import MigrateHistory  # noqa: PLC0415

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

        def run_one(self, name: str, migrator: Migrator, **options: Any) -> str:
            try:
                with watched(db, name, tick):
                    before = _broken_references(db)
                    super().run_one(name, migrator, **options)
                    after = _broken_references(db)
                if broken := after - before:
                    what = f"{broken.total()} references would be broken, the first in {min(broken)[0]}"
                    raise ValueError(what)
            except Exception as error:
                hint = next((hint for words, hint in HINTS.items() if words in str(error)), "")
                what = f"Rolling back {name}" if options.get("downgrade") else f"Migration {name}"
                raise MigrationFailed(f"{what} failed: {error}.{hint} The database is as it was.") from error
            return name

    quiet = logging.Logger("migrations")  # noqa: LOG001 - it logs nowhere, because MigrationFailed says everything.
    quiet.addHandler(logging.NullHandler())
    return _Router(db, migrate_dir=MIGRATIONS, migrate_table=HISTORY, logger=quiet)
