"""The database file, connections to it, and the two ways to run a statement."""

import errno
import logging
import os
import re
import shlex
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import peewee as pw

from service.errors import Busy, ConstraintViolated, ServiceError, SetupError, StorageUnavailable

logger = logging.getLogger(__name__)


_URL = "sqlite:///"
_ANY_URL = re.compile(r"(?:jdbc:|sqlite:///(?=file:))?([a-z][a-z0-9+.-]+):(//)?(.*)", re.IGNORECASE | re.DOTALL)
"""A URL as any tool writes it. A scheme has two letters or more, so that a file may be called a:b.db."""


def database_path(url: str | os.PathLike[str]) -> Path:
    """Give the absolute path that a URL or a path names; the file may be missing, its folder not.

    Raises SetupError, with the right form, for anything but a SQLite file.
    """
    text = os.fspath(url)
    if (right := _right_form(text)) != text:
        raise _not_a_url(text, f"write {right!r}")
    try:
        name = unquote(text.removeprefix(_URL), errors="strict") if text.startswith(_URL) else text
        name.encode()
    except UnicodeError as error:
        raise _not_a_url(text, "write the file's name in UTF-8") from error
    if re.search(r"[\x00-\x1f\x7f]", name):
        raise _not_a_url(text, "write the file's name without control characters")
    path = Path(name).absolute()
    _check_place(path, text)
    if name.endswith("/"):
        raise _not_a_url(text, f"write {str(path)!r}")
    return path


def _right_form(text: str) -> str:
    """Give what a text means, as it is written here; what is right stays as it is.

    Raises SetupError if it means no file.
    """
    text = text.lstrip("\ufeff").strip()  # What an env file leaves around a value.
    if quoted := re.fullmatch(r"""(["'])(.*)\1""", text, re.DOTALL):
        return _right_form(quoted[2])
    start, path, query = "", text, [""]
    if found := _ANY_URL.fullmatch(text):
        scheme, slashes, rest = found.groups()
        if "sqlite" not in scheme.lower() and scheme.lower() != "file":
            mend = f"write {_URL}relative.db or {_URL}/absolute.db, or a path, with ./ before a name that begins so"
            raise _not_a_url(f"{scheme}:...", mend)  # What follows may have a password in it.
        path, *query = re.split("[?#]", rest, maxsplit=1)
        if slashes:  # Of three, the last one begins an absolute path in a file: URL, and no other.
            path = path.removeprefix("localhost" if scheme.lower() == "file" else "/")
        start = _URL
    if path in ("", ":memory:") or "mode=memory" in "".join(query):
        message = f"The database is a file, as {_URL}school.db is: in memory each connection would have its own."
        raise SetupError(message)
    return start + os.path.expanduser(path)  # noqa: PTH111 - pathlib refuses the name of a user whom it does not know.


def _not_a_url(text: str, mend: str) -> SetupError:
    return SetupError(f"{text!r} is not a database URL: {mend}.")


def _check_place(path: Path, text: str) -> None:
    """Raise SetupError unless a database may be at the path, or be made there."""
    try:
        found = path.stat()
    except FileNotFoundError as error:
        folder = path.resolve().parent  # A link may lead out of the folder that it is in.
        if not folder.is_dir():
            message = (
                f"There is no folder {folder} for the database {path.name}; "
                f"make it with: mkdir -p {shlex.quote(str(folder))}"
            )
            raise SetupError(message) from error
    except OSError as error:
        message = f"The database {path} cannot be reached: {error.strerror}."
        raise SetupError(message) from error
    else:
        if stat.S_ISDIR(found.st_mode):
            raise _not_a_url(text, f"name a file in that folder, such as {str(path / 'enrollment.db')!r}")


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
    """Tell which rule an error is of, as `judged` does."""
    message = str(error)
    if own is not None and message.startswith(f"{own.code}: "):
        return own
    if deleted is not None and message == "FOREIGN KEY constraint failed":
        message = _referring(db, *deleted) or message
    return ConstraintViolated(message.rstrip("."))


REFERENCES = """
    SELECT child.name, reference."from", reference."to"
    FROM sqlite_master AS child JOIN pragma_foreign_key_list(child.name) AS reference
    WHERE child.type = 'table' AND reference."table" = ? COLLATE NOCASE AND reference.seq = 0"""


def _referring(db: pw.Database, table: str, row_id: int) -> str | None:
    """Say which table's rows refer to a row: SQLite does not."""
    for child, column, _ in fetch_all(db, REFERENCES, table):
        if fetch_all(db, f'SELECT 1 FROM "{child}" WHERE "{column}" = ? LIMIT 1', row_id):
            return f"rows of the table {child} refer to it"
    return None


def refusal(error: Exception, kept: str) -> ServiceError:
    """Put a database error in the service's words, and in the log; `kept` says what became of the work."""
    if is_locked(error):
        return Busy(f"Another process holds the database. {kept}")
    logger.error("The database cannot be used.", exc_info=error)
    cause: BaseException = error
    while cause.__context__ is not None:  # A rollback that fails hides what it was to undo.
        cause = cause.__context__
    return StorageUnavailable(f"The database cannot be used: {getattr(cause, 'strerror', cause)}. {kept}")
