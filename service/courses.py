"""Courses: what students enroll in."""

from collections.abc import Mapping
from typing import Any

import msgspec
import peewee as pw

from service import models
from service.database import fetch_all, fetch_one
from service.errors import (
    CapacityBelowEnrolled,
    Conflict,
    CourseHasEnrollments,
    CourseNotFound,
    WaitlistCapacityBelowWaitlisted,
)
from service.fields import CAPACITY, NAME, Availability, checked, row_id, sought

FIELDS = {"name": NAME, "level": NAME, "capacity": CAPACITY, "waitlist_capacity": CAPACITY}
"""What may be given of a course."""

COLUMNS = """
    id, name, level, capacity, waitlist_capacity, enrolled, waitlisted, capacity - enrolled AS seats_left,
    CASE WHEN coalesce(enrolled < capacity, TRUE) THEN 'open'
         WHEN coalesce(waitlisted < waitlist_capacity, TRUE) THEN 'waitlist'
         ELSE 'full' END AS availability"""
"""`coalesce`, as SQLite is wrong about IS NULL in a RETURNING."""
INSERT_COURSE = f"""
    INSERT INTO courses (name, level, capacity, waitlist_capacity)
    VALUES (?, ?, ?, ?)
    RETURNING {COLUMNS}"""
FIND_COURSE = f"SELECT {COLUMNS} FROM courses WHERE id = ?"
DELETE_COURSE = "DELETE FROM courses WHERE id = ? RETURNING id"


class Course(msgspec.Struct, frozen=True):
    """A course as it is stored; `level` is the provider's own word, such as "beginner" or "A2"."""

    id: int
    name: str
    level: str
    capacity: int | None
    """Seats; None: no limit."""
    waitlist_capacity: int | None
    """Places in line; 0: no waitlist, None: no limit."""
    enrolled: int
    waitlisted: int
    seats_left: int | None
    availability: Availability


def insert_course(
    db: pw.Database, name: str, level: str, capacity: int | None = None, waitlist_capacity: int | None = 0
) -> Course:
    """Add a course; the id is new and never used again. Raises InvalidPayload."""
    kept = checked(FIELDS, dict(zip(FIELDS, (name, level, capacity, waitlist_capacity), strict=True)))
    return Course(*fetch_all(db, INSERT_COURSE, *kept.values())[0])


def find_course(db: pw.Database, course_id: int) -> Course:
    """Give one course. Raises CourseNotFound."""
    row = fetch_one(db, FIND_COURSE, row_id(course_id))
    if row is None:
        raise CourseNotFound
    return Course(*row)


def list_courses(
    db: pw.Database,
    prefix: str | None = None,
    level: str | None = None,
    after: tuple[int] | tuple[str | bytes, int] | None = None,
    limit: int = 100,
) -> list[Course]:
    """Give a page by id, or with a name's prefix by (name, id), of one level or of all. Raises InvalidQuery."""
    prefix, level = sought(name=prefix, level=level)
    query = models.page(models.Course, prefix, after, limit, pw.SQL(COLUMNS))
    if level is not None:
        query = query.where(models.Course.level == level)
    return [Course(*row) for row in models.fetch(db, query)]


def update_course(db: pw.Database, course_id: int, changes: Mapping[str, str | int | None]) -> Course:
    """Change the columns that are given; a raised capacity promotes as many as fit.

    Raises InvalidPayload, CourseNotFound, CapacityBelowEnrolled, and, judged after the promotion,
    WaitlistCapacityBelowWaitlisted.
    """
    kept = checked(FIELDS, changes)
    before = {name: value for name, value in kept.items() if name != "waitlist_capacity"}
    after = {name: value for name, value in kept.items() if name == "waitlist_capacity"}
    with db.atomic():
        _update(db, course_id, before, CapacityBelowEnrolled)
        _update(db, course_id, after, WaitlistCapacityBelowWaitlisted)
        return find_course(db, course_id)


def _update(db: pw.Database, course_id: int, changes: Mapping[str, Any], refusal: type[Conflict]) -> None:
    try:
        if changes:
            models.Course.update(changes).where(models.Course.id == row_id(course_id)).execute(db)
    except pw.IntegrityError as error:
        raise refusal(course_id) from error


def delete_course(db: pw.Database, course_id: int) -> None:
    """Remove a course. Raises CourseNotFound, CourseHasEnrollments."""
    try:
        row = fetch_one(db, DELETE_COURSE, row_id(course_id))
    except pw.IntegrityError as error:
        raise CourseHasEnrollments(course_id) from error
    if row is None:
        raise CourseNotFound
