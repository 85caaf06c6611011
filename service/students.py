"""Add, find, list, change and delete students."""

from collections.abc import Mapping

import msgspec
import peewee as pw

from service.errors import ConstraintViolated, StudentHasEnrollments, StudentNotFound
from service.fields import NAME, checked, row_id, sought
from service.storage import LEFT_OUT, backend_of, change, fetch, fetch_one

FIELDS = {"name": NAME}
"""The fields of a student that a caller may set, each with its rule."""

INSERT_STUDENT = "INSERT INTO students (name) VALUES (?) RETURNING id, name"
FIND_STUDENT = "SELECT id, name FROM students WHERE id = ?"
RENAME_STUDENT = "UPDATE students SET name = ? WHERE id = ? RETURNING id"
HAS_ENROLLMENTS = "SELECT 1 FROM enrollments WHERE student_id = ? LIMIT 1"
DELETE_STUDENT = "DELETE FROM students WHERE id = ? RETURNING id"


class StudentRecord(msgspec.Struct, frozen=True):
    """One row of the table students."""

    id: int
    name: str


def insert_student(db: pw.Database, name: str) -> StudentRecord:
    """Add a student, with an id that was never given before. Raises InvalidPayload, ConstraintViolated."""
    kept = checked(FIELDS, {"name": name})
    row = change(db, INSERT_STUDENT, kept["name"])
    if row is None:
        raise ConstraintViolated(LEFT_OUT)
    return StudentRecord(*row)


def find_student(db: pw.Database, student_id: int) -> StudentRecord:
    """Give one student. Raises StudentNotFound."""
    row = fetch_one(db, FIND_STUDENT, row_id(student_id))
    if row is None:
        raise StudentNotFound(student_id)
    return StudentRecord(*row)


def list_students(
    db: pw.Database,
    prefix: str | None = None,
    after: tuple[int] | tuple[str | bytes, int] | None = None,
    limit: int = 100,
) -> list[StudentRecord]:
    """Give at most `limit` students by id or, with a prefix of the name, by (name, id).

    `after` is the key of the last row before this page, (id,) or (name, id). Raises InvalidQuery.
    """
    prefix, _ = sought(name=prefix)
    rows = backend_of(db).list_rows(db, "students", "id, name", {}, prefix, after, limit)
    return [StudentRecord(*row) for row in rows]


def update_student(db: pw.Database, student_id: int, changes: Mapping[str, str]) -> StudentRecord:
    """Change the given columns of a student. Raises InvalidPayload, StudentNotFound, ConstraintViolated."""
    kept = checked(FIELDS, changes)
    if kept:
        row = change(db, RENAME_STUDENT, kept["name"], row_id(student_id))
        if row is None:
            find_student(db, student_id)
            raise ConstraintViolated(LEFT_OUT)
    return find_student(db, student_id)


def delete_student(db: pw.Database, student_id: int) -> None:
    """Delete a student. Raises StudentNotFound, StudentHasEnrollments, ConstraintViolated."""

    def own() -> StudentHasEnrollments | None:
        return StudentHasEnrollments(student_id) if fetch(db, HAS_ENROLLMENTS, student_id) else None

    row = change(db, DELETE_STUDENT, row_id(student_id), own=own, deleted=("students", student_id))
    if row is None:
        find_student(db, student_id)
        raise ConstraintViolated(LEFT_OUT)
