"""Find, add, change and delete single rows: what the rules of students, courses and terms have in common."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

import attrs
import peewee as pw

from service.errors import (
    ConstraintViolated,
    CourseNotFound,
    ExternalIdTaken,
    NotFound,
    ServiceError,
    StudentNotFound,
    TermNotFound,
)
from service.fields import EXTERNAL_ID, MAX_ID, checked, external_id_text, row_id
from service.storage import LEFT_OUT, backend_of, change, fetch, fetch_one

Table = Literal["students", "courses", "terms"]
Row = tuple[Any, ...]
Values = Mapping[str, Any]
"""The values of a row by column, in the form that is stored."""

MOST_SOUGHT = 500
"""The most ids or external ids that one statement looks up."""
_NOT_FOUND: Mapping[Table, Any] = {"students": StudentNotFound, "courses": CourseNotFound, "terms": TermNotFound}


@attrs.frozen
class ExternalId:
    """The school's own number or code for a student, a course or a term, where a rule would else take the row's id."""

    text: str = attrs.field(converter=external_id_text)
    """In the form that is stored. Another text raises ValueError."""


Key = int | ExternalId
"""The id of a row, or its external id."""


def external_key(external_id: str) -> ExternalId:
    """Make a key of an external id. Raises InvalidPayload."""
    return ExternalId(checked({"external_id": EXTERNAL_ID}, {"external_id": external_id})["external_id"])


def find_id(db: pw.Database, table: Table, key: Key) -> int:
    """Give the id of the row that a key means, and 0 for a key that no row can have or has; no row has the id 0."""
    if type(key) is int:
        return key if 0 < key <= MAX_ID else 0
    if not isinstance(key, ExternalId):
        return 0
    row = fetch_one(db, f"SELECT id FROM {table} WHERE external_id = ?", key.text)
    return row[0] if row else 0


def in_groups(values: Iterable[Any]) -> Iterator[list[Any]]:
    """Give values, each once, in groups of which each fits in one statement."""
    once = [*dict.fromkeys(values)]
    return (once[at : at + MOST_SOUGHT] for at in range(0, len(once), MOST_SOUGHT))


def find_ids(db: pw.Database, table: Table, texts: Iterable[str]) -> dict[str, int]:
    """Look up many external ids, in the form that is stored; give the ids of those that there are."""
    return {
        text: number
        for some in in_groups(texts)
        for number, text in fetch(
            db, f"SELECT id, external_id FROM {table} WHERE external_id IN ({', '.join('?' * len(some))})", *some
        )
    }


def find_each(db: pw.Database, table: Table, keys: Sequence[Key]) -> list[int]:
    """Give for each key what `find_id` gives, with few statements for many keys."""
    found = find_ids(db, table, (key.text for key in keys if isinstance(key, ExternalId)))
    return [found.get(key.text, 0) if isinstance(key, ExternalId) else row_id(key) for key in keys]


def not_found(table: Table, key: Key) -> NotFound:
    """Give the refusal for a key that no row has."""
    kind = _NOT_FOUND[table]
    missing: NotFound = kind(0, key.text) if isinstance(key, ExternalId) else kind(key)
    return missing


def find(db: pw.Database, table: Table, key: Key, columns: str) -> Row:
    """Give one row's columns. Raises StudentNotFound, CourseNotFound or TermNotFound, by the table."""
    row = fetch_one(db, f"SELECT {columns} FROM {table} WHERE id = ?", find_id(db, table, key))
    if row is None:
        raise not_found(table, key)
    return row


def listed(  # noqa: PLR0913, PLR0917 - a list is asked for in so many ways.
    db: pw.Database, table: Table, columns: str, given: Values, after: tuple[Any, ...] | None, limit: int
) -> list[Row]:
    """Give the columns of at most `limit` rows behind the key `after`.

    `given` is what they are sought by, as `sought` in `service/fields.py` gives it: with a `name` or a search `q` they
    are in the order of (name, id), and else in that of the ids.
    """
    equal = dict(given)
    prefix, q = equal.pop("name", None), equal.pop("q", None)
    if q is None:
        return backend_of(db).list_rows(db, table, columns, equal, prefix, after, limit)
    return backend_of(db).search_rows(db, table, columns, equal, prefix, q, after, limit)


def exists(db: pw.Database, table: Table, key: int) -> bool:
    """Tell whether a row has an id."""
    return bool(fetch(db, f"SELECT 1 FROM {table} WHERE id = ?", key))


def insert(
    db: pw.Database, table: Table, values: Values, columns: str, own: Callable[[], ServiceError | None] = lambda: None
) -> Row:
    """Add a row, and give its columns. Raises ExternalIdTaken, what `own` gives, and ConstraintViolated."""
    sql = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join('?' * len(values))}) RETURNING {columns}"
    row = change(db, sql, *values.values(), own=lambda: _taken(db, table, 0, values) or own())
    if row is None:
        raise ConstraintViolated(LEFT_OUT)
    return row


def insert_many(db: pw.Database, table: Table, columns: Sequence[str], many: Sequence[Row]) -> dict[str, int]:
    """Add rows that have the same columns with one statement, and give their ids by their external ids.

    No row may have an external id that is there. Raises ConstraintViolated, or the error of the database: the caller
    has to undo the transaction then.
    """
    marks = f"({', '.join('?' * len(columns))})"
    sql = (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([marks] * len(many))} RETURNING external_id, id"
    )
    ids = dict(fetch(db, sql, *chain.from_iterable(many)))
    if len(ids) < len(many):
        raise ConstraintViolated(LEFT_OUT)
    return ids


def update(
    db: pw.Database, table: Table, row: int, values: Values, own: Callable[[], ServiceError | None] = lambda: None
) -> None:
    """Change columns of a row that is there. Raises ExternalIdTaken, what `own` gives, and ConstraintViolated."""
    if not values:
        return
    sql = f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in values)} WHERE id = ? RETURNING id"
    if change(db, sql, *values.values(), row, own=lambda: _taken(db, table, row, values) or own()) is None:
        raise ConstraintViolated(LEFT_OUT)


def _taken(db: pw.Database, table: Table, row: int, values: Values) -> ExternalIdTaken | None:
    external_id = values.get("external_id")
    other = f"SELECT 1 FROM {table} WHERE external_id = ? AND id <> ?"
    return ExternalIdTaken(table, external_id) if external_id and fetch(db, other, external_id, row) else None


def delete(db: pw.Database, table: Table, key: Key, refers: str, refusal: Callable[[int], ServiceError]) -> None:
    """Delete a row, unless the SELECT `refers` finds one that refers to its id.

    Raises what `refusal` makes of the id then, the refusal for a key that no row has, and ConstraintViolated.
    """
    found = find_id(db, table, key)

    def own() -> ServiceError | None:
        return refusal(found) if fetch(db, refers, found) else None

    row = change(db, f"DELETE FROM {table} WHERE id = ? RETURNING id", found, own=own, deleted=(table, found))
    if row is None:
        find(db, table, key, "id")
        raise ConstraintViolated(LEFT_OUT)
