"""Connections to the database file, the ways to run a statement, and what a database's errors say in words."""

import logging
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import peewee as pw

from service.errors import Busy, ConstraintViolated, ServiceError, StorageUnavailable

logger = logging.getLogger(__name__)


class Database(pw.SqliteDatabase):
    """Remembers what became of a transaction at its COMMIT."""

    committing = False
    """Whether it came to it: of a transaction that fails there, nobody can tell what was kept."""
    violated: ServiceError | None = None
    """The constraint that stood against it, after which nothing is kept."""

    def commit(self) -> None:
        """Commit the transaction."""
        self.committing = True
        try:
            super().commit()
        except pw.IntegrityError as error:
            self.violated = violation(self, error)  # Only while the transaction is open it shows which row it is.
            raise

    def connect(self, reuse_if_open: bool = False) -> bool:
        """Open a connection of this thread."""
        opened = super().connect(reuse_if_open)
        ((page_size,),) = fetch_all(self, "PRAGMA page_size")
        self.execute_sql(f"PRAGMA journal_size_limit = {MOST_LOG * page_size}")
        return opened


CHECKPOINT = 8000
"""Pages in the -wal at which a commit copies them to the database. Eight times SQLite's own, 16 MB of small pages: a
quarter more enrollments a second, as pages that many of them change are copied less often."""
MOST_LOG = 2 * CHECKPOINT
"""Pages to which the -wal is cut once it is copied: one that a long reader, such as a backup, held up grows on."""

PRAGMAS = {
    "foreign_keys": True,
    "synchronous": "FULL",
    "temp_store": "MEMORY",
    # KiB, eight times SQLite's own: a bulk is 1.2 to 1.4 times as fast, as what it changes leaves the cache only once.
    "cache_size": -16_000,
    "wal_autocheckpoint": CHECKPOINT,
}
"""What each connection is set to. A commit is synced before it returns; what a savepoint may undo is in memory."""


def open_database(
    path: Path, *, busy_timeout: float = 5.0, create: bool = False, thread_safe: bool = True, **pragmas: Any
) -> Database:
    """Make a Peewee database on a file; it connects at its first use.

    Without `create` a missing file is an error and never an empty new one. With `thread_safe`
    every thread has its own connection; without, there is one, which one thread at a time may
    use. `pragmas` are set before those in PRAGMAS, and instead of them.
    """
    return Database(
        f"{path.as_uri()}?mode={'rwc' if create else 'rw'}",
        uri=True,
        timeout=busy_timeout,
        thread_safe=thread_safe,
        check_same_thread=thread_safe,
        pragmas=pragmas | PRAGMAS | pragmas,  # locking_mode and page_size are heeded only before the file is read.
    )


def enter_wal(db: pw.SqliteDatabase) -> None:
    """Put a file in WAL mode, in which it stays: reads and writes do not wait for each other then.

    A copy that a backup made may be in another mode. SQLite refuses the switch while another connection is at work.
    """
    with suppress(pw.OperationalError):
        db.journal_mode = "wal"


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
    cause: Any = newest(error)
    while hasattr(cause, "orig"):  # Peewee wraps an error of the driver, at times twice.
        cause = cause.orig
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def newest(error: BaseException) -> BaseException:
    """Give the newest error of the database, or of its file, among those that one was raised on account of.

    Where SQLite has undone a transaction by itself, a ROLLBACK, COMMIT or ROLLBACK TO finds none: that is no news.
    """
    chain = [error]
    while chain[-1].__context__ is not None:
        chain.append(chain[-1].__context__)
    news = (each for each in chain if isinstance(each, _OF_STORAGE) and not str(each).startswith(_NOTHING_TO_END))
    return next(news, error)


_OF_STORAGE = (pw.DatabaseError, sqlite3.Error, OSError)
_NOTHING_TO_END = ("cannot rollback", "cannot commit", "no such savepoint")


def is_failure(error: BaseException) -> bool:
    """Tell whether it is the database or its file that failed, and neither a constraint nor a rule."""
    cause = newest(error)
    return isinstance(cause, _OF_STORAGE) and not isinstance(cause, (pw.IntegrityError, sqlite3.IntegrityError))


LEFT_OUT = "a trigger left the row as it was, and said nothing"
"""What is told of a statement that a host's trigger ended with RAISE(IGNORE)."""


@contextmanager
def judged(
    db: pw.Database, own: Callable[[], ServiceError | None] = lambda: None, deleted: tuple[str, int] | None = None
) -> Iterator[None]:
    """Tell which rule refuses a statement: raise the service's own refusal, or ConstraintViolated for a host's rule.

    `own` gives the refusal that the service would give as things stand, if any: the reason is that one if the
    database's message begins with its code. A host's rule is told in its author's words, or by its name or its
    table's. `deleted` is the row, as (table, id), that a host's reference may have kept.
    """
    try:
        yield
    except pw.IntegrityError as error:
        raise violation(db, error, own(), deleted) from error


def violation(
    db: pw.Database, error: BaseException, own: ServiceError | None = None, deleted: tuple[str, int] | None = None
) -> ServiceError:
    """Tell which rule an error is of, as `judged` does.

    SQLite does not say which reference is broken; the rows, or a transaction that is still open after its COMMIT
    failed, do.
    """
    message = str(newest(error))
    if own is not None and message.startswith(f"{own.code}: "):
        return own
    if message == "FOREIGN KEY constraint failed":
        message = (_referring(db, *deleted) if deleted else _broken_reference(db)) or message
    return ConstraintViolated(message.rstrip("."))


REFERENCES = """
    SELECT child.name, reference."from", reference."to"
    FROM sqlite_master AS child JOIN pragma_foreign_key_list(child.name) AS reference
    WHERE child.type = 'table' AND reference."table" = ? COLLATE NOCASE AND reference.seq = 0"""


def _referring(db: pw.Database, table: str, row_id: int) -> str | None:
    """Say which table's rows refer to a row: SQLite does not."""
    children = (
        child
        for child, column, _ in fetch_all(db, REFERENCES, table)
        if fetch_all(db, f'SELECT 1 FROM "{child}" WHERE "{column}" = ? LIMIT 1', row_id)
    )
    return next((f"rows of the table {child} refer to it" for child in children), None)


# References that are checked at COMMIT are few, and a host's: the service's own are checked at once.
_DEFERRED = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%DEFERRABLE%'"
_BROKEN_REFERENCE = f"""
    SELECT broken."table", broken.parent
    FROM ({_DEFERRED}) AS child JOIN pragma_foreign_key_check(child.name) AS broken
    LIMIT 1"""
SEARCH_SECONDS = 0.05
"""How long a broken reference is searched for: a host's tables may be large, and other writes wait."""


def _broken_reference(db: pw.Database) -> str | None:
    until = time.monotonic() + SEARCH_SECONDS
    connection = db.connection()
    connection.set_progress_handler(lambda: time.monotonic() > until, 10_000)
    try:
        found = fetch_one(db, _BROKEN_REFERENCE)
    except pw.DatabaseError:  # The time is over, or the host's schema is broken in itself.
        connection.set_progress_handler(None, 0)
        found = " or ".join(name for (name,) in fetch_all(db, _DEFERRED)), "another table"
    connection.set_progress_handler(None, 0)
    return None if found is None else "a row of {} would refer to a row of {} that is not there".format(*found)


_FAIL = re.compile(r"\b(RAISE\s*\(\s*|OR\s+|ON\s+CONFLICT\s+)FAIL\b", re.IGNORECASE)


def may_leave_half(db: pw.Database) -> bool:
    """Tell whether a host's rule may refuse a statement and leave its first half, which only FAIL does.

    Whether one has done so cannot be told afterwards: SQLite's count of changes moves for triggers that are undone,
    and does not move for what a trigger's trigger leaves.
    """
    rules = fetch_all(db, "SELECT sql FROM sqlite_master WHERE sql LIKE '%FAIL%'")
    return any(_FAIL.search(sql) for (sql,) in rules)


def refusal(error: Exception, kept: str) -> ServiceError:
    """Put a database error in the service's words, and in the log; `kept` says what became of the work."""
    if is_locked(error):
        return Busy(f"Another process holds the database. {kept}")
    logger.error("The database cannot be used.", exc_info=error)
    cause = newest(error)
    return StorageUnavailable(f"The database cannot be used: {getattr(cause, 'strerror', cause)}. {kept}")
