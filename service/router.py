"""peewee-migrate, set up for this service: where the migrations are, and what they must not break."""

import logging
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

import peewee as pw

from service.database import fetch_all
from service.errors import MigrationFailed

HISTORY = "enrollment_migrations"
"""The history's table; a host program's own peewee-migrate history has another name."""

_HERE = Path(__file__).parent
MIGRATIONS = next(path for path in (_HERE / "migrations", _HERE.parent / "migrations") if path.is_dir())
"""Inside the package once installed, beside it in the source tree."""


def _broken_references(db: pw.Database) -> Counter[tuple[Any, ...]]:
    """Count the rows that refer to rows that are missing, and the references that are broken in themselves."""
    found: Counter[tuple[Any, ...]] = Counter()
    for table in db.get_tables():
        try:
            found.update(fetch_all(db, f'PRAGMA foreign_key_check("{table}")'))
        except pw.OperationalError as error:
            found[table, str(error)] += 1
    return found


def router(db: pw.SqliteDatabase) -> Any:
    """Give peewee-migrate's router on a database, with a history of the service's own and no state that it shares."""
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
