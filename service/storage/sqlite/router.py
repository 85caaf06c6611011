"""Set up the router of the migrations for SQLite: check what a migration must not break."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import peewee as pw

from service.storage import fetch, migrating
from service.storage.checks import Tick
from service.storage.sqlite.check import watched

HINTS = {
    "already exists": " A table of another program is never taken over: give the service a file of its own.",
    "duplicate column name": " A column of another program is never taken over: give that column another name.",
}
"""What to do about an error of SQLite, by words of its message."""


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
    """Give the router of `migrating.router` for a file; a migration that breaks references fails.

    `tick` is called now and then with the name of the migration that is at work.
    """

    @contextmanager
    def around(name: str) -> Iterator[None]:
        with watched(db, name, tick):
            before = _broken_references(db)
            yield
            after = _broken_references(db)
        if broken := after - before:
            what = f"{broken.total()} references would be broken, the first in {min(broken)[0]}"
            raise ValueError(what)

    return migrating.router(db, around, HINTS)
