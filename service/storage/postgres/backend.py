"""The functions of `Backend` for PostgreSQL, which the rules ask for what is done in PostgreSQL's own way."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import peewee as pw
import psycopg

from service.storage import NameKey, Pair, change, fetch
from service.storage.postgres.copying import copied
from service.storage.postgres.enrolling import insert_each
from service.storage.postgres.pipeline import TURN
from service.storage.postgres.violations import explain, violation
from service.storage.postgres.words import NEXT, sought
from service.storage.texts import stored

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

NOW = "enrollment_now()"
"""What `Backend.NOW` in `service.storage` says."""
FILED = ""
"""What `Backend.FILED` says: all events are in the index."""
JOINED = "convert_to(string_agg({}, ''), 'UTF8')"
"""What `Backend.JOINED` says."""

DROP = """
    WITH gone AS (
        DELETE FROM enrollments USING unnest(?::bigint[], ?::bigint[]) AS pair (student, course)
        WHERE student_id = student AND course_id = course
        RETURNING student_id)
    SELECT count(*) FROM gone"""
LIST_OF_STUDENT = """
    SELECT id, type, at, student_id, course_id, actor, reason
    FROM enrollment_events
    LEFT JOIN event_notes ON event_notes.event_id = enrollment_events.id
    WHERE student_id = ? AND course_id = coalesce(?, course_id) AND id > ?
    ORDER BY id
    LIMIT ?"""

# Names are compared as lower(name): under COLLATE "C", which the columns have, that folds A to Z alone.
FAMILY = "coalesce(students.family_name, students.name)"
GIVEN = "CASE WHEN students.family_name IS NULL THEN '' ELSE coalesce(students.given_name, '') END"
BY_NAME = f"lower({FAMILY}), lower({GIVEN}), students.id"
"""What `Backend.BY_NAME` says."""
# The whole roster is sorted for each page: no index has the students of one course by name.
LIST_ROSTER_BY_NAME = f"""
    SELECT {FAMILY}, {GIVEN}, {{columns}}
    FROM enrollments
    JOIN students ON students.id = enrollments.student_id
    WHERE enrollments.course_id = ? AND enrollments.waiting IS NULL AND {{behind}}
    ORDER BY {BY_NAME}
    LIMIT ?"""
BUSY = """
    SELECT coalesce(sum(pid), 0) FROM pg_locks
    WHERE locktype = 'advisory' AND classid = 1701711
      AND objid::bigint = hashtext(current_schema())::bigint & 4294967295 AND pid <> pg_backend_pid()"""


def transaction(db: pw.Database) -> AbstractContextManager[Any]:
    """Do what `Backend.transaction` in `service.storage` says."""
    return nullcontext() if db.in_transaction() else atomic(db)


@contextmanager
def atomic(db: pw.Database) -> Iterator[Any]:
    """Do what `Backend.atomic` says; in a caller's transaction too, the school's turn is taken first."""
    within = db.in_transaction()
    with db.atomic("IMMEDIATE") as opened:
        if within:
            db.execute_sql(TURN)
        yield opened


def fetch_anyway(db: pw.Database, error: Exception, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Give no rows for a statement that was run and gives none, or raise the error again.

    The driver calls it an error to ask such a statement for its rows; what PostgreSQL stores, the driver can read.
    """
    del db, sql, params
    try:
        if isinstance(error, psycopg.ProgrammingError):  # One that the database gives would be Peewee's.
            return []
        raise error
    finally:
        del error  # The error's traceback has this frame, and would keep itself alive.


def others_wrote(db: pw.Database) -> int:
    """Do what `Backend.others_wrote` says; those who have the school's turn, or wait for it, have written or will."""
    ((number,),) = fetch(db, BUSY)
    return int(number)


def events_of_student(
    db: pw.Database, student_id: int, course_id: int | None, since: int, limit: int
) -> list[tuple[Any, ...]]:
    """Do what `Backend.events_of_student` says."""
    return fetch(db, LIST_OF_STUDENT, student_id, course_id, since, limit)


def drop_each(db: pw.Database, pairs: Sequence[Pair]) -> int:
    """Do what `Backend.drop_each` says, with one statement: the triggers move the counts of a course once for all."""
    students, courses = ([pair[at] for pair in pairs] for at in (0, 1))
    row: Any = change(db, DROP, students, courses) if pairs else (0,)
    return int(row[0])


def list_rows(  # noqa: PLR0913, PLR0917 - as `Backend.list_rows`.
    db: pw.Database,
    table: str,
    columns: str,
    equal: Mapping[str, Any],
    prefix: str | None,
    after: tuple[Any, ...] | None,
    limit: int,
) -> list[tuple[Any, ...]]:
    """Do what `Backend.list_rows` says."""
    return _listed(db, table, columns, [*_equal(equal), *_behind_and_begun(prefix, after)], prefix is not None, limit)


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
    conditions = [*_equal(equal), *_behind_and_begun(prefix or "", after)]
    if (words := sought(db, q)) is None:
        return _listed(db, table, columns, conditions, by_name=True, limit=limit)
    where, values = _all_of(conditions)
    in_order = f"FROM {table} WHERE {where} ORDER BY lower(name), id"
    rows = fetch(
        db,
        f"SELECT {columns} FROM (SELECT * {in_order} LIMIT {NEXT}) AS {table} WHERE {words}"
        " ORDER BY lower(name), id LIMIT ?",
        *values,
        limit,
    )
    if len(rows) == limit or not fetch(db, f"SELECT 1 {in_order} LIMIT 1 OFFSET {NEXT}", *values):
        return rows
    # OFFSET has PostgreSQL find all that have the words first, and then sort them.
    found = f"(SELECT * FROM {table} WHERE {words} OFFSET 0) AS {table}"
    return _listed(db, found, columns, conditions, by_name=True, limit=limit)


Condition = tuple[str, tuple[Any, ...]]
"""A condition of a WHERE, with the values of its placeholders."""


def _listed(  # noqa: PLR0913, PLR0917 - one statement with all its parts.
    db: pw.Database, table: str, columns: str, conditions: Sequence[Condition], by_name: bool, limit: int
) -> list[tuple[Any, ...]]:
    where, values = _all_of(conditions)
    order = "lower(name), id" if by_name else "id"
    return fetch(db, f"SELECT {columns} FROM {table} WHERE {where} ORDER BY {order} LIMIT ?", *values, limit)


def _all_of(conditions: Sequence[Condition]) -> tuple[str, list[Any]]:
    """Give all conditions as one, and their values."""
    return (
        " AND ".join(condition for condition, _ in conditions) or "TRUE",
        [value for _, values in conditions for value in values],
    )


def _equal(values: Mapping[str, Any]) -> Iterator[Condition]:
    for column, value in values.items():
        yield f"{column} = ?", (value,)


def _behind_and_begun(prefix: str | None, after: tuple[Any, ...] | None) -> Iterator[Condition]:
    """Give the conditions that a row is behind the last page, and that its name begins with a prefix."""
    begins = None if prefix is None else _lower(prefix)
    if after is not None:
        *name, row_id = after
        yield (("(lower(name), id) > (?, ?)", (*map(_lower, name), row_id)) if name else ("id > ?", (row_id,)))
    elif begins is not None:
        yield "lower(name) >= ?", (begins,)
    if begins and (end := _behind(begins)):
        yield "lower(name) < ?", (end,)


def list_roster_by_name(
    db: pw.Database, columns: str, course_id: int, after: NameKey | None, limit: int
) -> list[tuple[Any, ...]]:
    """Do what `Backend.list_roster_by_name` says."""
    if after is None:
        return fetch(db, LIST_ROSTER_BY_NAME.format(columns=columns, behind="TRUE"), course_id, limit)
    family, given, row_id = after
    sql = LIST_ROSTER_BY_NAME.format(columns=columns, behind=f"({BY_NAME}) > (?, ?, ?)")
    return fetch(db, sql, course_id, _lower(family), _lower(given), row_id, limit)


def _lower(text: str | bytes) -> str:
    """Give a text in the form that names are compared in.

    A text that PostgreSQL cannot have, with a NUL or not in UTF-8, comes from a cursor of another database alone.
    """
    return stored(text).lower().decode(errors="replace").replace("\0", "")


def _behind(prefix: str) -> str | None:
    """Give the least text that is behind every text with the prefix, or None where there is none.

    The order of the bytes in UTF-8 is that of Unicode, where the surrogates are no characters.
    """
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return None
    return kept[:-1] + ("\ue000" if kept[-1] == "\ud7ff" else chr(ord(kept[-1]) + 1))
