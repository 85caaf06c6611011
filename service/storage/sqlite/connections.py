"""Open connections to the database file, with the settings that every connection of the service needs.

In WAL mode a commit appends the changed pages to the file named -wal; a checkpoint copies them to the database later.
"""

import sqlite3
from collections import deque
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import peewee as pw

from service.errors import ServiceError
from service.storage import fetch
from service.storage.sqlite.violations import violation


class Database(pw.SqliteDatabase):
    """A Peewee database that remembers how far the COMMIT of a transaction came."""

    committing = False
    """Whether the COMMIT began. If it fails, nobody can tell whether the transaction was kept."""
    timed: AbstractContextManager[None] = nullcontext()
    """Is entered for each COMMIT, to measure it."""
    violated: ServiceError | None = None
    """The refusal of a constraint that SQLite checks at COMMIT; nothing of the transaction is kept then."""

    ticks = 0
    """How often TICK steps of SQLite have passed since the read began. SQLite counts a statement's steps on from its
    last run, so the first tick may come early."""

    def limit_reads(self) -> None:
        """Break off each read of this connection at its second tick, with the error SQLITE_INTERRUPT."""
        self.connect(reuse_if_open=True)
        self.connection().set_progress_handler(self._tick, TICK)

    def _tick(self) -> bool:
        self.ticks += 1
        return self.ticks > 1

    def commit(self) -> None:
        """Commit the transaction."""
        self.committing = True
        try:
            with self.timed:
                super().commit()
        except pw.IntegrityError as error:
            # The broken row can be found only now, while the transaction is still open.
            self.violated = violation(self, error)
            raise

    def connect(self, reuse_if_open: bool = False) -> bool:
        """Open this thread's connection, and limit the size of the -wal; tell whether it was closed before."""
        opened = super().connect(reuse_if_open)
        ((page_size,),) = fetch(self, "PRAGMA page_size")
        self.execute_sql(f"PRAGMA journal_size_limit = {MOST_LOG * page_size}")
        return opened


TICK = 100_000
"""How many steps (instructions of SQLite's virtual machine) are one tick: 2 to 5 ms. A page of 1,000 rows takes fewer,
and to count 25,000 students in line takes as many."""
CHECKPOINT = 8000
"""How many pages the -wal has when a commit copies them to the database. It is eight times SQLite's default: 16 MB of
the service's small pages. A quarter more enrollments a second, because a page that many of them change is copied less
often."""
MOST_LOG = 2 * CHECKPOINT
"""How many pages of the -wal file stay on the disk once all are copied. A long reader, such as a backup, keeps SQLite
from copying them, and the -wal grows meanwhile."""

PRAGMAS = {
    "foreign_keys": True,
    "synchronous": "FULL",
    "temp_store": "MEMORY",
    # In KiB, where negative; eight times SQLite's default. A bulk is 1.2 to 1.4 times as fast, because a page that it
    # changes many times is written out of the cache only once.
    "cache_size": -16_000,
    "wal_autocheckpoint": CHECKPOINT,
}
"""The settings of each connection. With FULL a commit returns only once it is synced to the disk. With MEMORY SQLite
keeps in memory, and not in a temporary file, what a savepoint may have to undo."""


def open_database(
    path: Path,
    *,
    busy_timeout: float = 5.0,
    create: bool = False,
    thread_safe: bool = True,
    factory: type[sqlite3.Connection] = sqlite3.Connection,
    **pragmas: Any,
) -> Database:
    """Make a Peewee database on a file; it connects at its first use.

    `busy_timeout` is how many seconds a statement waits for another connection's lock. With `create`, a missing file is
    made, for its owner alone; without, a missing file is an error and never an empty new one. With `thread_safe` every
    thread has its own connection; without, there is one connection, which one thread at a time may use. `factory` makes
    the driver's connections. `pragmas` come before those in PRAGMAS and replace them.
    """
    if create:
        _make(path)
    return Database(
        f"{path.as_uri()}?mode={'rwc' if create else 'rw'}",
        uri=True,
        timeout=busy_timeout,
        thread_safe=thread_safe,
        check_same_thread=thread_safe,
        factory=factory,
        # The caller's come first: SQLite heeds locking_mode and page_size only before it has read the file.
        pragmas=pragmas | PRAGMAS | pragmas,
    )


def _make(path: Path) -> None:
    """Make an empty file that only its owner may read and write; a file that is there keeps its mode.

    SQLite takes an empty file for a new database, and gives the -wal and the -shm the mode of the database file.
    """
    file = path.resolve()  # A symbolic link may lead to a file that is to be made.
    with suppress(OSError):  # Where the file is there, or cannot be made, SQLite opens it or raises the error.
        file.touch(0o600, exist_ok=False)
        file.chmod(0o600)  # The umask may have taken from the mode what the owner needs.


def enter_wal(db: pw.SqliteDatabase) -> None:
    """Put a file in WAL mode, in which reads and writes do not wait for each other; the file stays in that mode.

    A copy that a backup made may be in another mode. SQLite refuses the switch while another connection is at work;
    the file stays in its mode then, and no error is raised.
    """
    with suppress(pw.OperationalError):
        db.journal_mode = "wal"


def state(db: pw.SqliteDatabase) -> object:
    """Give what differs once another connection has committed: `PRAGMA data_version`, which is a connection's own."""
    return db.connection(), fetch(db, "PRAGMA data_version")


def close_all(databases: deque[Database]) -> None:
    """Close all connections of a queue, while others may still take from it."""
    with suppress(IndexError):
        while True:
            databases.pop().close()
