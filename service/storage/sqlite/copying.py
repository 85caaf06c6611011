"""Copy a database to a temporary file, for work that is to be tried out; whoever writes does not wait for that."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import peewee as pw

from service.storage import fetch
from service.storage.sqlite.connections import open_database

PAGES = 5_000
"""How many pages are copied between two calls of `tick`."""


@contextmanager
def copied(db: pw.Database, tick: Callable[[int, int], object]) -> Iterator[pw.Database]:
    """Do what `Backend.copied` in `service.storage` says, in the folder for temporary files.

    The copy is made from one snapshot: without the transaction, SQLite would begin anew at each write of another
    connection.
    """
    with TemporaryDirectory(prefix="enrollment-") as folder:
        copy = open_database(Path(folder) / "copy.db", create=True, synchronous="OFF")
        try:
            with db.atomic("DEFERRED"):
                fetch(db, "SELECT 1 FROM students LIMIT 1")
                source: Any = db.connection()
                source.backup(
                    copy.connection(), pages=PAGES, sleep=0, progress=lambda _, left, pages: tick(pages - left, pages)
                )
            yield copy
        finally:
            copy.close()
