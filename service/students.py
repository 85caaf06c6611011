"""Students: who enrolls."""

from collections.abc import Mapping

import msgspec
import peewee as pw

from service import models
from service.database import fetch_one
from service.errors import StudentHasEnrollments, StudentNotFound
from service.fields import NAME, checked, row_id, sought

FIELDS = {"name": NAME}
"""What may be given of a student."""

INSERT_STUDENT = "INSERT INTO students (name) VALUES (?) RETURNING id, name"
FIND_STUDENT = "SELECT id, name FROM students WHERE id = ?"
DELETE_STUDENT = "DELETE FROM students WHERE id = ? RETURNING id"


class Student(msgspec.Struct, frozen=True):
    """A student as it is stored."""

    id: int
    name: str


def insert_student(db: pw.Database, name: str) -> Student:
    """Add a student; the id is new and never used again. Raises InvalidPayload."""
    kept = checked(FIELDS, {"name": name})
    return Student(*fetch_one(db, INSERT_STUDENT, kept["name"]) or ())


def find_student(db: pw.Database, student_id: int) -> Student:
    """Give one student. Raises StudentNotFound."""
    row = fetch_one(db, FIND_STUDENT, row_id(student_id))
    if row is None:
        raise StudentNotFound
    return Student(*row)


def list_students(
    db: pw.Database,
    prefix: str | None = None,
    after: tuple[int] | tuple[str | bytes, int] | None = None,
    limit: int = 100,
) -> list[Student]:
    """Give a page by id, or with a name's prefix by (name, id); `after` is the last key before it.

    Raises InvalidQuery.
    """
    prefix, _ = sought(name=prefix)
    return [Student(*row) for row in models.fetch(db, models.page(models.Student, prefix, after, limit))]


def update_student(db: pw.Database, student_id: int, changes: Mapping[str, str]) -> Student:
    """Change the columns that are given. Raises InvalidPayload, StudentNotFound."""
    kept = checked(FIELDS, changes)
    if kept:
        models.Student.update(kept).where(models.Student.id == row_id(student_id)).execute(db)
    return find_student(db, student_id)


def delete_student(db: pw.Database, student_id: int) -> None:
    """Remove a student. Raises StudentNotFound, StudentHasEnrollments."""
    try:
        row = fetch_one(db, DELETE_STUDENT, row_id(student_id))
    except pw.IntegrityError as error:
        raise StudentHasEnrollments(student_id) from error
    if row is None:
        raise StudentNotFound
