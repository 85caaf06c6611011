"""The database file, connections to it, and the two ways to run a statement."""

import errno
import logging
import os
import sqlite3
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import peewee as pw

from service.errors import Busy, ServiceError, SetupError, StorageUnavailable

logger = logging.getLogger(__name__)


def database_path(url: str | os.PathLike[str]) -> Path:
    """Give the absolute path that a URL or a path names.

    Raises SetupError for anything but a SQLite file.
    """
    text = os.fspath(url)
    if "://" in text:
        scheme, _, rest = text.partition("://")
        if scheme != "sqlite" or not rest.startswith("/") or {"?", "#"} & {*rest}:
            message = f"{text!r} is not a database URL: write sqlite:///relative.db or sqlite:////absolute.db."
            raise SetupError(message)
        text = unquote(rest[1:])
    if text in ("", ":memory:"):
        message = "The database is a file: a database in memory would be another one for each connection."
        raise SetupError(message)
    return Path(text).absolute()


class Database(pw.SqliteDatabase):
    """Remembers that a transaction came to its COMMIT: of one that fails there, nobody can tell what was kept."""

    committing = False

    def commit(self) -> None:
        """Commit the transaction."""
        self.committing = True
        super().commit()


PRAGMAS = {
    "foreign_keys": True,
    "synchronous": "FULL",
    "temp_store": "MEMORY",
    # KiB, eight times SQLite's own: a bulk is 1.2 to 1.4 times as fast, as what it changes leaves the cache only once.
    "cache_size": -16_000,
    # Eight times SQLite's own, 16 MB of small pages: a quarter more enrollments a second, as pages that many of them
    # change are copied to the database less often.
    "wal_autocheckpoint": 8000,
}
"""What each connection is set to. A commit is synced before it returns; what a savepoint may undo is in memory."""


def open_database(
    path: Path, *, busy_timeout: float = 5.0, create: bool = False, thread_safe: bool = True, **pragmas: Any
) -> Database:
    """Make a Peewee database on a file; it connects at its first use.

    Without `create` a missing file is an error and never an empty new one. With `thread_safe`
    every thread has its own connection; without, there is one, which one thread at a time may
    use. `pragmas` are set instead of those in PRAGMAS.
    """
    return Database(
        f"{path.as_uri()}?mode={'rwc' if create else 'rw'}",
        uri=True,
        timeout=busy_timeout,
        thread_safe=thread_safe,
        check_same_thread=thread_safe,
        pragmas=PRAGMAS | pragmas,
    )


class File:
    """A database file that must stay where it is: SQLite itself goes on writing to one that is gone."""

    def __init__(self, path: Path) -> None:
        """Remember which file it is: another one at the same path will be refused."""
        self._path = path
        self._identity = self._look()

    def _look(self) -> tuple[int, int]:
        found = os.stat(self._path)  # noqa: PTH116 - on the path of every request, and Path.stat is slower.
        return found.st_dev, found.st_ino

    def verify(self) -> None:
        """Raise OSError unless the file that was opened is still the one at the path."""
        if self._look() != self._identity:
            raise OSError(errno.ESTALE, "its file was replaced while the service ran; restart the service")

    def open(self, busy_timeout: float, **pragmas: Any) -> Database:
        """Open it for one thread at a time."""
        return open_database(self._path, busy_timeout=busy_timeout, thread_safe=False, **pragmas)


class Garbled(str):
    """A text of the file that is not UTF-8, as it is shown: U+FFFD stands for what cannot be read."""

    __slots__ = ("stored",)
    stored: bytes
    """The text as the file has it."""


def readable(text: bytes) -> str:
    """Read a text as the file has it."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        garbled = Garbled(text.decode(errors="replace"))
        garbled.stored = text
        return garbled


def stored(text: str | bytes) -> bytes:
    """Give a text, or a BLOB in the place of one, as the file has it."""
    if isinstance(text, bytes):
        return text
    return text.stored if isinstance(text, Garbled) else text.encode()


def fetch_all(db: pw.Database, sql: str, *params: Any) -> list[tuple[Any, ...]]:
    """Run one statement and give all its rows."""
    rows: list[tuple[Any, ...]]
    try:
        rows = db.execute_sql(sql, params).fetchall()
    except sqlite3.OperationalError as error:
        # The driver's own way to read a text, `str`, fails where it is not UTF-8. Reading each text in Python would
        # make every read slower, so that is for the second time only. What writes is never run twice.
        if "Could not decode to UTF-8" not in str(error) or not sql.lstrip().startswith("SELECT"):
            raise
        connection = db.connection()
        connection.text_factory = readable
        try:
            rows = db.execute_sql(sql, params).fetchall()
        finally:
            connection.text_factory = str
    return rows


def fetch_one(db: pw.Database, sql: str, *params: Any) -> tuple[Any, ...] | None:
    """Run one statement to its end and give its first row, or None."""
    rows = fetch_all(db, sql, *params)
    return rows[0] if rows else None


def transaction(db: pw.Database) -> AbstractContextManager[Any]:
    """Open a write transaction, or go on in the caller's: for one statement and the reads that explain it."""
    return nullcontext() if db.in_transaction() else db.atomic("IMMEDIATE")


def is_locked(error: BaseException) -> bool:
    """Tell whether a database error means that another connection holds a lock."""
    cause: Any = error
    while hasattr(cause, "orig"):  # Peewee wraps an error of the driver, at times twice.
        cause = cause.orig
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def refusal(error: Exception, kept: str) -> ServiceError:
    """Put a database error in the service's words, and in the log; `kept` says what became of the work."""
    if is_locked(error):
        return Busy(f"Another process holds the database. {kept}")
    logger.error("The database cannot be used.", exc_info=error)
    cause: BaseException = error
    while cause.__context__ is not None:  # A rollback that fails hides what it was to undo.
        cause = cause.__context__
    return StorageUnavailable(f"The database cannot be used: {getattr(cause, 'strerror', cause)}. {kept}")
