"""Add, find, list, change and delete students."""

from collections.abc import Mapping
from typing import Any

import msgspec
import peewee as pw

from service import rows
from service.errors import InvalidPayload, StudentHasEnrollments
from service.fields import EMAIL_OR_NULL, EXTERNAL_ID_OR_NULL, MAX_NAME, NAME, NAME_OR_NULL, checked, pointer, sought
from service.rows import Key, external_key, find_id
from service.storage import backend_of

FIELDS = {
    "name": NAME,
    "external_id": EXTERNAL_ID_OR_NULL,
    "given_name": NAME_OR_NULL,
    "family_name": NAME_OR_NULL,
    "email": EMAIL_OR_NULL,
}
"""The fields of a student that a caller may set, each with its rule."""

COLUMNS = "id, name, external_id, given_name, family_name, email"
HAS_ENROLLMENTS = "SELECT 1 FROM enrollments WHERE student_id = ? LIMIT 1"


class StudentRecord(msgspec.Struct, frozen=True):
    """One row of the table students."""

    id: int
    name: str
    """What is shown."""
    external_id: str | None = None
    """The school's own number of the student; no two students have the same."""
    given_name: str | None = None
    family_name: str | None = None
    email: str | None = None


def insert_student(db: pw.Database, name: str | None = None, **more: str | None) -> StudentRecord:
    """Add a student, with an id that was never given before.

    `more` may be external_id, given_name, family_name and email; without a name, it is the given name and the family
    name. Raises InvalidPayload, ExternalIdTaken, ConstraintViolated.
    """
    return add_student(db, more if name is None else {"name": name, **more})


def add_student(db: pw.Database, values: Mapping[str, Any]) -> StudentRecord:
    """Add a student with the given columns. Raises InvalidPayload, ExternalIdTaken, ConstraintViolated."""
    return StudentRecord(*rows.insert(db, "students", new_student(values), COLUMNS))


def new_student(values: Mapping[str, Any]) -> dict[str, Any]:
    """Give the columns of a new student in the form that is stored. Raises InvalidPayload."""
    kept = checked(FIELDS, values)
    kept["name"] = kept.get("name") or _both_names(kept)
    if kept["name"] is None:
        raise InvalidPayload([(pointer("name"), "is required, unless given_name and family_name are given")])
    return kept


def _both_names(values: Mapping[str, Any]) -> str | None:
    """Give the name of a student of whom both names are known, or None. Raises InvalidPayload if it is too long."""
    name = _joined(values)
    if name is not None and len(name) > MAX_NAME:
        raise InvalidPayload([(pointer("name"), f"is required, as both names have more than {MAX_NAME} characters")])
    return name


def _joined(values: Mapping[str, Any]) -> str | None:
    given, family = values.get("given_name"), values.get("family_name")
    return None if given is None or family is None else f"{given} {family}"


def find_student(db: pw.Database, student_id: Key) -> StudentRecord:
    """Give one student. Raises StudentNotFound."""
    return StudentRecord(*rows.find(db, "students", student_id, COLUMNS))


def list_students(  # noqa: PLR0913 - a list is asked for in so many ways.
    db: pw.Database,
    prefix: str | None = None,
    after: tuple[int] | tuple[str | bytes, int] | None = None,
    limit: int = 100,
    *,
    q: str | None = None,
    external_id: str | None = None,
) -> list[StudentRecord]:
    """Give at most `limit` students by id or, with a prefix of the name or a search, by (name, id).

    Every word of the search `q` begins a word of the name, the external id or the part of the email before @. They are
    the one with an external id, or all. `after` is the key of the last row before this page, (id,) or (name, id).
    Raises InvalidQuery.
    """
    given = sought(name=prefix, q=q, external_id=external_id)
    found = rows.listed(db, "students", COLUMNS, given, after, limit)
    return [StudentRecord(*row) for row in found]


def update_student(db: pw.Database, student_id: Key, changes: Mapping[str, str | None]) -> StudentRecord:
    """Change the given columns of a student.

    A name that was the given name and the family name follows a change of them. Raises InvalidPayload, StudentNotFound,
    ExternalIdTaken, ConstraintViolated.
    """
    kept = checked(FIELDS, changes)
    with backend_of(db).transaction(db):
        student = find_student(db, student_id)
        before = msgspec.structs.asdict(student)
        parts = kept.keys() & {"given_name", "family_name"}
        if parts and "name" not in kept and student.name == _joined(before):
            kept["name"] = _both_names(before | kept) or student.name
        rows.update(db, "students", student.id, kept)
        return find_student(db, student.id)


def put_student(db: pw.Database, external_id: str, values: Mapping[str, str | None]) -> tuple[StudentRecord, bool]:
    """Add the student with an external id, or change the given columns of the one who has it; tell whether it is new.

    Raises InvalidPayload, ConstraintViolated.
    """
    key = external_key(external_id)
    values = {**values, "external_id": key.text}
    with backend_of(db).transaction(db):
        if find_id(db, "students", key):
            return update_student(db, key, values), False
        return add_student(db, values), True


def delete_student(db: pw.Database, student_id: Key) -> None:
    """Delete a student. Raises StudentNotFound, StudentHasEnrollments, ConstraintViolated."""
    rows.delete(db, "students", student_id, HAS_ENROLLMENTS, StudentHasEnrollments)
