"""Translate SQLite's errors: tell which rule refused a statement, whose rule it is, or what failed.

Another program may have tables, triggers and constraints of its own in the same database file, which refuse too.
"""

import logging
import re
import sqlite3
import time
from typing import Any

import peewee as pw

from service.errors import Busy, ConstraintViolated, ServiceError, StorageUnavailable
from service.log import OneASecond
from service.storage import Own, fetch, fetch_one

logger = logging.getLogger(__name__)
logger.addFilter(OneASecond())  # Where a disk is full, every write fails.


def is_locked(error: BaseException) -> bool:
    """Tell whether a database error means that another connection holds a lock."""
    return _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def is_interrupted(error: BaseException) -> bool:
    """Tell whether a database error means that the statement was broken off because it took too many steps."""
    return _code(error) == sqlite3.SQLITE_INTERRUPT


def _code(error: BaseException) -> int:
    cause: Any = newest(error)
    while hasattr(cause, "orig"):  # Peewee wraps an error of the driver `sqlite3`, at times twice.
        cause = cause.orig
    code: int = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    return code


def newest(error: BaseException) -> BaseException:
    """Give the newest error of the database or its file among an error and its chain of contexts.

    Where SQLite has undone a transaction by itself, a later ROLLBACK, COMMIT or ROLLBACK TO fails because there is no
    transaction. Such an error is passed over, because it would hide the error that undid the transaction.
    """
    chain = [error]
    while chain[-1].__context__ is not None:
        chain.append(chain[-1].__context__)
    news = (each for each in chain if isinstance(each, _OF_STORAGE) and not str(each).startswith(_NOTHING_TO_END))
    return next(news, error)


_OF_STORAGE = (pw.DatabaseError, sqlite3.Error, OSError)
_NOTHING_TO_END = ("cannot rollback", "cannot commit", "no such savepoint")


def is_failure(error: BaseException) -> bool:
    """Tell whether the database or its file failed; a constraint or a rule that refused is no failure."""
    cause = newest(error)
    return isinstance(cause, _OF_STORAGE) and not isinstance(cause, (pw.IntegrityError, sqlite3.IntegrityError))


def violation(
    db: pw.Database, error: BaseException, own: Own = lambda: None, deleted: tuple[str, int] | None = None
) -> ServiceError:
    """Do what `Backend.violation` in `service.storage` says.

    SQLite's message does not say which foreign key is broken. So the tables are searched for it. After a COMMIT that
    failed, the transaction is still open, and the broken row can be found in it.
    """
    message = str(newest(error))
    if (refusal := own()) is not None and message.startswith(f"{refusal.code}: "):
        return refusal
    if message == "FOREIGN KEY constraint failed":
        message = (_referring(db, *deleted) if deleted else _broken_reference(db)) or message
    return ConstraintViolated(message.rstrip("."))


REFERENCES = """
    SELECT child.name, reference."from", reference."to"
    FROM sqlite_master AS child JOIN pragma_foreign_key_list(child.name) AS reference
    WHERE child.type = 'table' AND reference."table" = ? COLLATE NOCASE AND reference.seq = 0"""


def _referring(db: pw.Database, table: str, row_id: int) -> str | None:
    """Say which table has rows that refer to a row; SQLite's own message does not name the table."""
    children = (
        child
        for child, column, _ in fetch(db, REFERENCES, table)
        if fetch(db, f'SELECT 1 FROM "{child}" WHERE "{column}" = ? LIMIT 1', row_id)
    )
    return next((f"rows of the table {child} refer to it" for child in children), None)


# Only tables of another program have foreign keys that SQLite checks at COMMIT, and few of them: SQLite checks the
# service's own foreign keys at each statement.
_DEFERRED = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%DEFERRABLE%'"
_BROKEN_REFERENCE = f"""
    SELECT broken."table", broken.parent
    FROM ({_DEFERRED}) AS child JOIN pragma_foreign_key_check(child.name) AS broken
    LIMIT 1"""
SEARCH_SECONDS = 0.05
"""How long the tables of another program are searched for a broken foreign key: they may be large, and all other writes
wait meanwhile."""


def _broken_reference(db: pw.Database) -> str | None:
    until = time.monotonic() + SEARCH_SECONDS
    connection = db.connection()
    connection.set_progress_handler(lambda: time.monotonic() > until, 10_000)
    try:
        found = fetch_one(db, _BROKEN_REFERENCE)
    except pw.DatabaseError:  # The time is over, or the other program declared a foreign key that cannot work.
        connection.set_progress_handler(None, 0)
        found = " or ".join(name for (name,) in fetch(db, _DEFERRED)), "another table"
    connection.set_progress_handler(None, 0)
    return None if found is None else "a row of {} would refer to a row of {} that is not there".format(*found)


_FAIL = re.compile(r"\b(RAISE\s*\(\s*|OR\s+|ON\s+CONFLICT\s+)FAIL\b", re.IGNORECASE)


def may_leave_half(db: pw.Database) -> bool:
    """Tell whether the schema has a trigger or constraint of another program that refuses with FAIL.

    Only FAIL stops a statement and leaves the rows that it has changed so far. Afterwards nobody can tell whether that
    happened: SQLite's count of changed rows rises for triggers that were undone, and does not rise for the rows that a
    trigger's trigger leaves changed.
    """
    rules = fetch(db, "SELECT sql FROM sqlite_master WHERE sql LIKE '%FAIL%'")
    return any(_FAIL.search(sql) for (sql,) in rules)


def explain(db: Any, error: Exception) -> ServiceError:
    """Do what `Backend.explain` in `service.storage` says."""
    if isinstance(error, ServiceError):
        return error
    refusal: ServiceError | None = getattr(db, "violated", None)
    if refusal is not None and isinstance(newest(error), (pw.IntegrityError, sqlite3.IntegrityError)):
        db.violated = None
        return refusal  # The COMMIT found it, while the broken row was still there.
    if is_failure(error):
        return _failure(error, "What was committed before stays.")
    if isinstance(newest(error), (pw.IntegrityError, sqlite3.IntegrityError)):
        return violation(db, error)
    raise error


def _failure(error: Exception, kept: str) -> ServiceError:
    if is_locked(error):
        return Busy(f"Another process holds the database. {kept}")
    cause = newest(error)
    return StorageUnavailable(f"The database cannot be used: {getattr(cause, 'strerror', cause)}. {kept}")


def unavailable(error: Exception, kept: str) -> ServiceError:
    """Make Busy or StorageUnavailable of an error of the database; `kept` is the sentence on what was kept.

    Busy means that another connection held a lock. Any other error is logged with its traceback, once a
    second at most.
    """
    if not is_locked(error):
        logger.error("The database cannot be used.", exc_info=error)
    return _failure(error, kept)
