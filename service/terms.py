"""Add, find, list, change and delete terms, which courses are held in."""

from collections.abc import Container, Mapping
from datetime import date
from typing import Any

import msgspec
import peewee as pw

from service import rows
from service.errors import InvalidPayload, TermHasCourses
from service.fields import DAY_OR_NULL, EXTERNAL_ID_OR_NULL, NAME, checked, pointer, sought
from service.rows import Key, external_key, find_id
from service.storage import backend_of

FIELDS = {"name": NAME, "external_id": EXTERNAL_ID_OR_NULL, "starts_on": DAY_OR_NULL, "ends_on": DAY_OR_NULL}
"""The fields of a term that a caller may set, each with its rule."""

COLUMNS = "id, external_id, name, starts_on, ends_on"
HAS_COURSES = "SELECT 1 FROM courses WHERE term_id = ? LIMIT 1"


class TermRecord(msgspec.Struct, frozen=True):
    """One row of the table terms; the two days are dates such as 2026-09-01, and both belong to the term."""

    id: int
    external_id: str | None
    """The school's own code of the term; no two terms have the same."""
    name: str
    starts_on: str | None
    ends_on: str | None


def insert_term(db: pw.Database, name: str, **more: str | date | None) -> TermRecord:
    """Add a term, with an id that was never given before.

    `more` may be external_id, starts_on and ends_on. Raises InvalidPayload, ExternalIdTaken, ConstraintViolated.
    """
    return add_term(db, {"name": name, **more})


def add_term(db: pw.Database, values: Mapping[str, Any]) -> TermRecord:
    """Add a term with the given columns. Raises InvalidPayload, ExternalIdTaken, ConstraintViolated."""
    return TermRecord(*rows.insert(db, "terms", new_term(values), COLUMNS))


def new_term(values: Mapping[str, Any]) -> dict[str, Any]:
    """Give the columns of a new term in the form that is stored. Raises InvalidPayload."""
    kept = checked(FIELDS, values, required=("name",))
    _check_order(kept, kept)
    return kept


def _check_order(values: Mapping[str, Any], given: Container[str]) -> None:
    """Hold the days of a term against each other, of which the caller has given one or both."""
    starts_on, ends_on = values.get("starts_on"), values.get("ends_on")
    if starts_on and ends_on and ends_on < starts_on:
        late, early = ("ends_on", "must not be before starts_on"), ("starts_on", "must not be after ends_on")
        where, what = late if "ends_on" in given else early
        raise InvalidPayload([(pointer(where), what)])


def find_term(db: pw.Database, term_id: Key) -> TermRecord:
    """Give one term. Raises TermNotFound."""
    return TermRecord(*rows.find(db, "terms", term_id, COLUMNS))


def list_terms(
    db: pw.Database, after: tuple[int] | None = None, limit: int = 100, *, external_id: str | None = None
) -> list[TermRecord]:
    """Give at most `limit` terms by id; with one external id, or all.

    `after` is the key of the last row before this page, (id,). Raises InvalidQuery.
    """
    given = sought(external_id=external_id)
    return [TermRecord(*row) for row in rows.listed(db, "terms", COLUMNS, given, after, limit)]


def update_term(db: pw.Database, term_id: Key, changes: Mapping[str, str | None]) -> TermRecord:
    """Change the given columns of a term. Raises InvalidPayload, TermNotFound, ExternalIdTaken, ConstraintViolated."""
    kept = checked(FIELDS, changes)
    with backend_of(db).transaction(db):
        term = find_term(db, term_id)
        _check_order(msgspec.structs.asdict(term) | kept, kept)
        rows.update(db, "terms", term.id, kept)
        return find_term(db, term.id)


def put_term(db: pw.Database, external_id: str, values: Mapping[str, str | None]) -> tuple[TermRecord, bool]:
    """Add the term with an external id, or change the given columns of the one that has it; tell whether it is new.

    Raises InvalidPayload, ConstraintViolated.
    """
    key = external_key(external_id)
    values = {**values, "external_id": key.text}
    with backend_of(db).transaction(db):
        if find_id(db, "terms", key):
            return update_term(db, key, values), False
        return add_term(db, values), True


def delete_term(db: pw.Database, term_id: Key) -> None:
    """Delete a term. Raises TermNotFound, TermHasCourses, ConstraintViolated."""
    rows.delete(db, "terms", term_id, HAS_COURSES, TermHasCourses)
