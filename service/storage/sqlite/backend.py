"""Do on SQLite what the rules ask of any database: the functions of `service.storage.Backend`."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import peewee as pw

from service.storage import NameKey, Pair, change, fetch
from service.storage.sqlite.copying import copied
from service.storage.sqlite.inserting import insert_each
from service.storage.sqlite.violations import explain, violation
from service.storage.sqlite.words import Conditions, search
from service.storage.texts import Garbled, readable

__all__ = [
    "BY_NAME",
    "FILED",
    "JOINED",
    "NOW",
    "atomic",
    "copied",
    "drop_each",
    "events_of_student",
    "explain",
    "fetch_anyway",
    "insert_each",
    "list_roster_by_name",
    "list_rows",
    "others_wrote",
    "search_rows",
    "transaction",
    "violation",
]

NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
"""What `Backend.NOW` in `service.storage` says."""
FILED = "AND filed"
"""What `Backend.FILED` says."""
JOINED = "CAST(group_concat({}, '') AS BLOB)"
"""What `Backend.JOINED` says. As a text the driver would decode it, and fail where it is not UTF-8."""

DROP = "DELETE FROM enrollments WHERE student_id = ? AND course_id = ? RETURNING student_id"
STANDS = "SELECT 1 FROM enrollments WHERE student_id = ? AND course_id = ?"
# The index of events by student has only the events with `filed`. The event that began an enrollment is filed there
# when the enrollment is dropped; until then enrollments.event_id leads to it. So the ids of a student's events come
# from both. Where a trigger of another program wrote an event of its own first, enrollments.event_id may be the id of
# another student's event: so the outer WHERE compares the student once more.
LIST_OF_STUDENT = """
    SELECT id, type, at, student_id, course_id, actor, reason
    FROM enrollment_events
    LEFT JOIN event_notes ON event_notes.event_id = enrollment_events.id
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


# The whole roster is sorted for each page: no index has the students of one course by name.
FAMILY = "coalesce(students.family_name, students.name) COLLATE NOCASE"
GIVEN = "CASE WHEN students.family_name IS NULL THEN '' ELSE coalesce(students.given_name, '') END COLLATE NOCASE"
BY_NAME = f"{FAMILY}, {GIVEN}, students.id"
"""What `Backend.BY_NAME` says."""
LIST_ROSTER_BY_NAME = f"""
    SELECT {FAMILY}, {GIVEN}, {{columns}}
    FROM enrollments
    JOIN students ON students.id = enrollments.student_id
    WHERE enrollments.course_id = ? AND enrollments.waiting IS NULL AND {{behind}}
    ORDER BY 1, 2, students.id
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
    unreadable = isinstance(error, sqlite3.OperationalError) and "Could not decode to UTF-8" in str(error)
    if not unreadable or not sql.lstrip().startswith("SELECT"):
        try:
            raise error
        finally:
            # The error's traceback has this frame. In a circle with the error the statement would live until Python
            # collects garbage, maybe in another thread, which would then wait for whatever the connection waits for.
            del error
    connection = db.connection()
    connection.text_factory = readable
    try:
        rows: list[tuple[Any, ...]] = db.execute_sql(sql, params).fetchall()
    finally:
        connection.text_factory = str
    return rows


def others_wrote(db: pw.Database) -> int:
    """Do what `Backend.others_wrote` says."""
    ((number,),) = fetch(db, "PRAGMA data_version")
    return int(number)


def events_of_student(
    db: pw.Database, student_id: int, course_id: int | None, since: int, limit: int
) -> list[tuple[Any, ...]]:
    """Do what `Backend.events_of_student` says."""
    whose = (student_id, course_id)
    return fetch(db, LIST_OF_STUDENT, *whose, since, limit, *whose, since, *whose, limit)


def drop_each(db: pw.Database, pairs: Sequence[Pair]) -> int:
    """Do what `Backend.drop_each` says; a trigger of another program may drop one pair along with another."""
    return sum(change(db, DROP, *pair) is not None or not fetch(db, STANDS, *pair) for pair in pairs)


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
    where, values = _where([*_equal(equal), *_behind_and_begun(key, prefix, after)])
    return fetch(db, f"SELECT {columns} FROM {table} WHERE {where} ORDER BY {key} LIMIT ?", *values, limit)


def search_rows(  # noqa: PLR0913, PLR0917 - as `Backend.search_rows`.
    db: pw.Database,
    table: str,
    columns: str,
    equal: Mapping[str, Any],
    prefix: str | None,
    q: str,
    after: tuple[Any, ...] | None,
    limit: int,
) -> list[tuple[Any, ...]]:
    """Do what `Backend.search_rows` says."""
    noun = table.removesuffix("s")
    found = search(db, f"{noun}_words", q)
    if found is None:
        return list_rows(db, table, columns, equal, prefix or "", after, limit)
    key = f"name, {noun}_id"
    where, values = _where([*found.conditions, *_behind_and_begun(key, prefix, after)])
    condition, more = _where(_equal(equal))
    distinct, end = (
        ("", "") if found.in_order else ("DISTINCT ", f" ORDER BY {key}{'' if equal else f' LIMIT {limit:d}'}")
    )
    sql = f"""
        SELECT {columns} FROM (
            SELECT {distinct}name AS place, {noun}_id AS number FROM {noun}_words WHERE {where}{end})
        CROSS JOIN {table} ON id = number
        WHERE {condition}
        ORDER BY place, number
        LIMIT ?"""
    return fetch(db, sql, *values, *more, limit)


def _where(conditions: Conditions) -> tuple[str, list[Any]]:
    """Give all conditions as one, and their values."""
    return (
        " AND ".join(condition for condition, _ in conditions) or "TRUE",
        [value for _, values in conditions for value in values],
    )


def _equal(values: Mapping[str, Any]) -> Conditions:
    return [(f"{column} = ?", (value,)) for column, value in values.items()]


def _behind_and_begun(
    key: str, prefix: str | None, after: tuple[Any, ...] | None
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Give the conditions that a row is behind the last page, and that its name begins with a prefix."""
    if after is not None:
        places = ", ".join(_place(value) for value in after)
        yield f"({key}) > ({places})", tuple(_bound(value) for value in after)
    elif prefix is not None:
        yield "name >= ?", (prefix,)
    if prefix:
        end = _behind(prefix)
        yield f"name < {_place(end)}", (_bound(end),)


def list_roster_by_name(
    db: pw.Database, columns: str, course_id: int, after: NameKey | None, limit: int
) -> list[tuple[Any, ...]]:
    """Do what `Backend.list_roster_by_name` says."""
    behind = "TRUE"
    if after is not None:
        behind = f"({FAMILY}, {GIVEN}, students.id) > ({', '.join(_place(value) for value in after)})"
    sql = LIST_ROSTER_BY_NAME.format(columns=columns, behind=behind)
    return fetch(db, sql, course_id, *(_bound(value) for value in after or ()), limit)


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
