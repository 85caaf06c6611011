"""Courses: what students enroll in."""

from collections.abc import Mapping

import msgspec
import peewee as pw

from service import models
from service.database import fetch_one
from service.errors import CourseHasEnrollments, CourseNotFound

INSERT_COURSE = "INSERT INTO courses (name, level) VALUES (?, ?) RETURNING id, name, level"
FIND_COURSE = "SELECT id, name, level FROM courses WHERE id = ?"
DELETE_COURSE = "DELETE FROM courses WHERE id = ? RETURNING id"


class Course(msgspec.Struct, frozen=True):
    """A course as it is stored; `level` is the provider's own word, such as "beginner" or "A2"."""

    id: int
    name: str
    level: str


def insert_course(db: pw.Database, name: str, level: str) -> Course:
    """Add a course; the id is new and never used again."""
    return Course(*fetch_one(db, INSERT_COURSE, name, level) or ())


def find_course(db: pw.Database, course_id: int) -> Course:
    """Give one course. Raises CourseNotFound."""
    row = fetch_one(db, FIND_COURSE, course_id)
    if row is None:
        raise CourseNotFound
    return Course(*row)


def list_courses(
    db: pw.Database,
    prefix: str | None = None,
    level: str | None = None,
    after: tuple[int] | tuple[str, int] | None = None,
    limit: int = 100,
) -> list[Course]:
    """Give a page by id, or with a name's prefix by (name, id), of one level or of all."""
    query = models.page(models.Course, prefix, after, limit)
    if level is not None:
        query = query.where(models.Course.level == level)
    return [Course(*row) for row in query.execute(db)]


def update_course(db: pw.Database, course_id: int, changes: Mapping[str, str]) -> Course:
    """Change the columns that are given. Raises CourseNotFound."""
    if changes:
        models.Course.update(changes).where(models.Course.id == course_id).execute(db)
    return find_course(db, course_id)


def delete_course(db: pw.Database, course_id: int) -> None:
    """Remove a course. Raises CourseNotFound, CourseHasEnrollments."""
    try:
        row = fetch_one(db, DELETE_COURSE, course_id)
    except pw.IntegrityError as error:
        raise CourseHasEnrollments(course_id) from error
    if row is None:
        raise CourseNotFound
