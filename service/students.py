"""Students: who enrolls."""

from collections.abc import Mapping

import msgspec
import peewee as pw

from service import models
from service.database import LEFT_OUT, fetch_one, judged
from service.errors import ConstraintViolated, StudentHasEnrollments, StudentNotFound
from service.fields import NAME, checked, row_id, sought

FIELDS = {"name": NAME}
"""What may be given of a student."""

INSERT_STUDENT = "INSERT INTO students (name) VALUES (?) RETURNING id, name"
FIND_STUDENT = "SELECT id, name FROM students WHERE id = ?"
DELETE_STUDENT = "DELETE FROM students WHERE id = ? RETURNING id"
HAS_ENROLLMENTS = "SELECT 1 FROM enrollments WHERE student_id = ? LIMIT 1"


class Student(msgspec.Struct, frozen=True):
    """A student as it is stored."""

    id: int
    name: str


def insert_student(db: pw.Database, name: str) -> Student:
    """Add a student; the id is new and never used again. Raises InvalidPayload, ConstraintViolated."""
    kept = checked(FIELDS, {"name": name})
    with judged(db):
        row = fetch_one(db, INSERT_STUDENT, kept["name"])
    if row is None:
        raise ConstraintViolated(LEFT_OUT)
    return Student(*row)


def find_student(db: pw.Database, student_id: int) -> Student:
    """Give one student. Raises StudentNotFound."""
    row = fetch_one(db, FIND_STUDENT, row_id(student_id))
    if row is None:
        raise StudentNotFound(student_id)
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
    """Change the columns that are given. Raises InvalidPayload, StudentNotFound, ConstraintViolated."""
    kept = checked(FIELDS, changes)
    if kept:
        with judged(db):
            changed = models.Student.update(kept).where(models.Student.id == row_id(student_id)).execute(db)
        if not changed:
            find_student(db, student_id)
            raise ConstraintViolated(LEFT_OUT)
    return find_student(db, student_id)


def delete_student(db: pw.Database, student_id: int) -> None:
    """Remove a student. Raises StudentNotFound, StudentHasEnrollments, ConstraintViolated."""

    def own() -> StudentHasEnrollments | None:
        return StudentHasEnrollments(student_id) if fetch_one(db, HAS_ENROLLMENTS, student_id) else None

    with judged(db, own, deleted=("students", student_id)):
        row = fetch_one(db, DELETE_STUDENT, row_id(student_id))
    if row is None:
        find_student(db, student_id)
        raise ConstraintViolated(LEFT_OUT)
