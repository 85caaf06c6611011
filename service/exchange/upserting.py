"""Take rows of students, courses and terms: add what is new, change what differs, and leave what is the same."""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import attrs
import peewee as pw

from service import courses, students, terms
from service.bulk import bare
from service.errors import ConstraintViolated, InvalidPayload, ServiceError
from service.exchange.errors import Repeated
from service.exchange.parts import LIMITS, UNLIMITED, Kind, Part, Row
from service.exchange.work import Placed
from service.fields import ID, Field, checked, external_id_text, pointer
from service.rows import Key, external_key, find_id, in_groups, insert_many, not_found
from service.storage import fetch

Stored = dict[str | int, dict[str, Any] | None]
"""What rows stand for in the database, by the external id or the id; None for what is not there."""


class Upserted(NamedTuple):
    """What came of a row, and the id of the row of the database."""

    word: Literal["created", "updated", "unchanged"]
    row_id: int


NUMBERS = frozenset(("id", "term_id", "student_id", "course_id", *LIMITS))
"""The fields that are integers. In a file they are texts as all others."""


MANY = 1_000
"""How many students that are taken at a time must be there to be taken in the order of their names. Fewer keep the
order of the file, as do the last ones of a file where fewer are left."""
TOGETHER = 50
"""How many new rows are added by one statement, which takes 5 ms, and half as long as a statement for each row."""
MADE_UP: Mapping[tuple[str, Kind], dict[str, Any]] = {
    (format_, "courses"): {"level": "unspecified"} for format_ in ("canvas", "oneroster")
}
"""What a new row gets that says nothing of it, by the format and the kind."""


@attrs.frozen
class Noun:
    """How rows of a kind are written: the rules of students, courses or terms."""

    fields: Mapping[str, Field]
    new: Callable[[Mapping[str, Any]], dict[str, Any]]
    add: Callable[[pw.Database, Mapping[str, Any]], Any]
    update: Callable[[pw.Database, Key, Mapping[str, Any]], Any]


NOUNS: Mapping[Kind, Noun] = {
    "terms": Noun(terms.FIELDS, terms.new_term, terms.add_term, terms.update_term),
    "courses": Noun(courses.FIELDS, courses.new_course, courses.add_course, courses.update_course),
    "students": Noun(students.FIELDS, students.new_student, students.add_student, students.update_student),
}


def read_cells(values: Mapping[str, str | None]) -> dict[str, Any]:
    """Give the cells as the values that the API takes; what is no integer stays a text, which its rule refuses."""
    return {name: _value(name, text) if name in NUMBERS else text for name, text in values.items()}


def _value(name: str, text: str | None) -> int | str | None:
    if text and re.fullmatch("[0-9]{1,19}", text):
        return int(text)
    return None if name in LIMITS and text and text.casefold() == UNLIMITED else text


def _name(values: Mapping[str, str | None]) -> str:
    return (values.get("name") or f"{values.get('given_name')} {values.get('family_name')}").casefold()


def stored_text(text: str | None) -> str | None:
    """Give an external id in the form that is stored, or None for a text that is none."""
    try:
        return external_id_text(text)
    except ValueError:
        return None


class Upserting:
    """Takes the rows of one kind."""

    def __init__(self, db: pw.Database, kind: Kind, format_: str = "csv") -> None:
        """Have taken no row yet; what a new row must have, and the files of a format have no column for, is made up."""
        self._db, self._kind, self._noun = db, kind, NOUNS[kind]
        self._made_up = MADE_UP.get((format_, kind), {})
        self._table: Any = kind
        self._taken: dict[int, tuple[Part, int]] = {}
        """The rows of the database that rows of the files stand for: their ids, with the part and the line."""

    def ordered(self, placed: Sequence[Placed]) -> Sequence[Placed]:
        """Give rows in the order in which they are to be taken: many students by their names.

        The words of students whose names are alike lie side by side in the database, so that half as much is written.
        Where rows may be about the same student, the order of the rows counts, and stays.
        """
        if self._kind != "students" or len(placed) < MANY:
            return placed
        keys = {stored_text(row.values.get("external_id")) for _, row in placed if "id" not in row.values}
        return sorted(placed, key=lambda each: _name(each[1].values)) if len(keys) == len(placed) else placed

    def upsert_each(self, placed: Sequence[Placed], until: float) -> list[Upserted | ServiceError]:
        """Take one row after the other within the caller's transaction, and give each row's result, in order.

        After `until`, in seconds of the monotonic clock, no further row is begun except the first one. Raises
        ConstraintViolated, as nobody can tell what a rule of another program has left of its row.
        """
        results: list[Upserted | ServiceError] = []
        stored = self._find(row.values for _, row in placed)
        taken: dict[int, tuple[Part, int]] = {}
        while len(results) < len(placed) and not (results and time.monotonic() > until):
            some = placed[len(results) : len(results) + TOGETHER]
            new = self._new(some, stored)
            done = self._add(new, stored) if len(new) > 1 else [self._taken_or_not(some[0][1], stored, taken)]
            for (part, row), each in zip(some, done, strict=False):
                if isinstance(each, Upserted):
                    taken.setdefault(each.row_id, (part, row.line))
            results += done
        return results

    def _taken_or_not(self, row: Row, stored: Stored, taken: Mapping[int, tuple[Part, int]]) -> Upserted | ServiceError:
        try:
            return self._upsert(row, stored, taken)
        except ConstraintViolated:
            raise
        except ServiceError as error:
            return bare(error)

    def _new(self, placed: Sequence[Placed], stored: Stored) -> dict[str, dict[str, Any]]:
        """Give the first rows, up to one that is not new or may be refused: their columns, by their external ids."""
        new: dict[str, dict[str, Any]] = {}
        for _, row in placed:
            key = row.values.get("external_id") or ""
            if "id" in row.values or key in new or stored.get(key, row) is not None:
                break
            try:
                kept = self._noun.new(self._made_up | self._values(row))
            except ServiceError:
                break
            if new and kept.keys() != new[next(iter(new))].keys():
                break
            new[key] = kept
        return new

    def _add(self, new: Mapping[str, dict[str, Any]], stored: Stored) -> list[Upserted | ServiceError]:
        """Add rows, which have the same columns."""
        columns = [*next(iter(new.values()))]  # A row may have them in another order.
        rows = [tuple(row[column] for column in columns) for row in new.values()]
        ids = insert_many(self._db, self._table, columns, rows)
        for key in new:
            del stored[key]
        return [Upserted("created", ids[key]) for key in new]

    def remember(self, part: Part, row: Row, done: Upserted) -> None:
        """Remember, once it is committed, that a row of the files was taken."""
        self._taken.setdefault(done.row_id, (part, row.line))

    def completed(self, row: Row) -> Row:
        """Give a refused row with what would have been made up for it, which a file of refused rows must have."""
        there = self._made_up and any(self._find([row.values]).values())
        return row if there else Row(row.line, {**self._made_up, **row.values})

    def _find(self, rows: Iterable[Mapping[str, Any]]) -> Stored:
        """Look up what rows stand for, by the external id or the id; None for what is not there."""
        asked = [*rows]
        ids = {row_id for row in asked if "id" in row and type(row_id := _value("id", row["id"])) is int}
        texts = {text for row in asked if "id" not in row and (text := stored_text(row.get("external_id")))}
        found: Stored = dict.fromkeys(texts | ids)
        columns = ("id", *self._noun.fields)
        for column, keys in ("external_id", texts), ("id", ids):
            for some in in_groups(keys):
                marks = ", ".join("?" * len(some))
                sql = f"SELECT {column}, {', '.join(columns)} FROM {self._table} WHERE {column} IN ({marks})"
                for key, *values in fetch(self._db, sql, *some):
                    found[key] = dict(zip(columns, values, strict=True))
        return found

    def _upsert(self, row: Row, stored: Stored, taken: Mapping[int, tuple[Part, int]]) -> Upserted:
        values = self._values(row)
        row_id = values.pop("id", None)
        if row_id is None and values.get("external_id") is None:
            raise InvalidPayload([(pointer("external_id"), "is required")])
        key = external_key(values["external_id"]).text if row_id is None else row_id
        if key not in stored:  # An earlier row of the same transaction has written it.
            stored |= self._find([{"external_id": key} if row_id is None else {"id": str(key)}])
        found = stored[key]
        if found is None:
            if row_id is not None:
                raise not_found(self._table, row_id)
            made = self._noun.add(self._db, self._made_up | values)
            for each in (key, made.id):
                stored.pop(each, None)
            return Upserted("created", made.id)
        if values.items() <= found.items():
            return Upserted("unchanged", found["id"])
        kept = checked(self._noun.fields, values)
        changes = {name: value for name, value in kept.items() if value != found[name]}
        if not changes:
            return Upserted("unchanged", found["id"])
        earlier = self._taken.get(found["id"]) or taken.get(found["id"])
        if earlier:
            raise Repeated(earlier[0].file, earlier[1])
        self._noun.update(self._db, found["id"], changes)
        for each in (key, found["id"], found["external_id"], changes.get("external_id")):
            stored.pop(each or 0, None)
        return Upserted("updated", found["id"])

    def _values(self, row: Row) -> dict[str, Any]:
        """Give the values of a row, with the id of the term that it names. Raises InvalidPayload, TermNotFound."""
        values = read_cells(row.values)
        if "id" in values:
            try:
                ID.check(values["id"])
            except ValueError as error:
                raise InvalidPayload([(pointer("id"), str(error))]) from error
        if "term_external_id" in values:
            text = values.pop("term_external_id")
            values["term_id"] = None
            if text is not None:
                values["term_id"] = self._term(text)
        return values

    def _term(self, text: str) -> int:
        try:
            key = external_key(text)
        except InvalidPayload as error:
            raise InvalidPayload([(pointer("term_external_id"), what) for _, what in error.faults]) from error
        if not (found := find_id(self._db, "terms", key)):
            raise not_found("terms", key)
        return found
