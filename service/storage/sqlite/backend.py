"""Do on SQLite what the rules ask of any database: the functions of `service.storage.Backend`."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import peewee as pw

from service.storage import fetch
from service.storage.sqlite.inserting import insert_each
from service.storage.sqlite.violations import violation
from service.storage.texts import Garbled, readable

__all__ = ["atomic", "events_of_student", "fetch_anyway", "insert_each", "list_rows", "transaction", "violation"]

# The index of events by student has only the events with `filed`. The event that began an enrollment is filed there
# when the enrollment is dropped; until then enrollments.event_id leads to it. So the ids of a student's events come
# from both. Where a trigger of another program wrote an event of its own first, enrollments.event_id may be the id of
# another student's event: so the outer WHERE compares the student once more.
LIST_OF_STUDENT = """
    SELECT id, type, at, student_id, course_id
    FROM enrollment_events
    WHERE id IN (
        SELECT id FROM (
            SELECT id FROM enrollment_events
            WHERE student_id = ? AND course_id = coalesce(?, course_id) AND id > ? AND filed
            ORDER BY id
            LIMIT ?)
        UNION ALL
        SELECT event_id FROM enrollments
        WHERE student_id = ? AND course_id = coalesce(?, course_id) AND event_id > ?)
      AND student_id = ? AND course_id = coalesce(?, course_id)
    ORDER BY id
    LIMIT ?"""


def transaction(db: pw.Database) -> AbstractContextManager[Any]:
    """Do what `Backend.transaction` in `service.storage` says."""
    return nullcontext() if db.in_transaction() else atomic(db)


def atomic(db: pw.Database) -> AbstractContextManager[Any]:
    """Do what `Backend.atomic` says."""
    return db.atomic("IMMEDIATE")


def fetch_anyway(db: pw.Database, error: Exception, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Run a SELECT again that met a text that is not UTF-8, or raise the error again.

    The driver `sqlite3` fails to make a `str` of such a text. A function of Python can read it, but would make every
    read slower, so it is used in the second run only. A statement that writes is never run twice.
    """
    if not isinstance(error, sqlite3.OperationalError) or "Could not decode to UTF-8" not in str(error):
        raise error
    if not sql.lstrip().startswith("SELECT"):
        raise error
    connection = db.connection()
    connection.text_factory = readable
    try:
        rows: list[tuple[Any, ...]] = db.execute_sql(sql, params).fetchall()
    finally:
        connection.text_factory = str
    return rows


def events_of_student(
    db: pw.Database, student_id: int, course_id: int | None, since: int, limit: int
) -> list[tuple[Any, ...]]:
    """Do what `Backend.events_of_student` says."""
    whose = (student_id, course_id)
    return fetch(db, LIST_OF_STUDENT, *whose, since, limit, *whose, since, *whose, limit)


def list_rows(  # noqa: PLR0913, PLR0917 - as `Backend.list_rows`.
    db: pw.Database,
    table: str,
    columns: str,
    equal: Mapping[str, Any],
    prefix: str | None,
    after: tuple[Any, ...] | None,
    limit: int,
) -> list[tuple[Any, ...]]:
    """Do what `Backend.list_rows` says; the column `name` has the collation NOCASE, for which A to Z are a to z."""
    key = "id" if prefix is None else "name, id"
    conditions = {f"{column} = ?": (value,) for column, value in equal.items()}
    if after is not None:
        places = ", ".join(_place(value) for value in after)
        conditions[f"({key}) > ({places})"] = tuple(_bound(value) for value in after)
    elif prefix is not None:
        conditions["name >= ?"] = (prefix,)
    if prefix:
        end = _behind(prefix)
        conditions[f"name < {_place(end)}"] = (_bound(end),)
    where = " AND ".join(conditions) or "TRUE"
    sql = f"SELECT {columns} FROM {table} WHERE {where} ORDER BY {key} LIMIT ?"
    return fetch(db, sql, *(value for values in conditions.values() for value in values), limit)


def _behind(prefix: str) -> str:
    """Give the least text that is behind every text with the prefix, in the order of SQLite's NOCASE.

    NOCASE compares byte by byte, with capitals as small letters.
    """
    *begin, last = prefix.encode().lower()
    # After the @ come the capitals, which count as small letters, so the next byte in this order is the [.
    return readable(bytes([*begin, ord("[") if last == ord("@") else last + 1]))


def _place(value: Any) -> str:
    """Give the SQL placeholder of a value; a text that is not UTF-8 is handed over as bytes and cast to a text."""
    return "CAST(? AS TEXT)" if isinstance(value, Garbled) else "?"


def _bound(value: Any) -> Any:
    return value.stored if isinstance(value, Garbled) else value
