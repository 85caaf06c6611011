"""Courses: what students enroll in."""

from collections.abc import Mapping
from typing import Any

import msgspec
import peewee as pw

from service import models
from service.database import LEFT_OUT, fetch_one, judged
from service.errors import (
    CapacityBelowEnrolled,
    ConstraintViolated,
    CourseHasEnrollments,
    CourseNotFound,
    ServiceError,
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
HAS_ENROLLMENTS = "SELECT 1 FROM enrollments WHERE course_id = ? LIMIT 1"


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
    """Add a course; the id is new and never used again. Raises InvalidPayload, ConstraintViolated."""
    kept = checked(FIELDS, dict(zip(FIELDS, (name, level, capacity, waitlist_capacity), strict=True)))
    with judged(db):
        row = fetch_one(db, INSERT_COURSE, *kept.values())
    if row is None:
        raise ConstraintViolated(LEFT_OUT)
    return Course(*row)


def find_course(db: pw.Database, course_id: int) -> Course:
    """Give one course. Raises CourseNotFound."""
    row = fetch_one(db, FIND_COURSE, row_id(course_id))
    if row is None:
        raise CourseNotFound(course_id)
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

    Raises InvalidPayload, CourseNotFound, CapacityBelowEnrolled, ConstraintViolated, and, judged after the promotion,
    WaitlistCapacityBelowWaitlisted.
    """
    kept = checked(FIELDS, changes)
    before = {name: value for name, value in kept.items() if name != "waitlist_capacity"}
    after = {name: value for name, value in kept.items() if name == "waitlist_capacity"}
    with db.atomic():
        for some in filter(None, (before, after)):
            _update(db, course_id, some)
        return find_course(db, course_id)


def _update(db: pw.Database, course_id: int, changes: Mapping[str, Any]) -> None:
    def own() -> ServiceError | None:
        course = find_course(db, course_id)
        seats, places = changes.get("capacity"), changes.get("waitlist_capacity")
        if seats is not None and seats < course.enrolled:
            return CapacityBelowEnrolled(course_id)
        return WaitlistCapacityBelowWaitlisted(course_id) if places is not None and places < course.waitlisted else None

    with judged(db, own):
        changed = models.Course.update(changes).where(models.Course.id == row_id(course_id)).execute(db)
    if not changed:
        find_course(db, course_id)
        raise ConstraintViolated(LEFT_OUT)


def delete_course(db: pw.Database, course_id: int) -> None:
    """Remove a course. Raises CourseNotFound, CourseHasEnrollments, ConstraintViolated."""

    def own() -> ServiceError | None:
        return CourseHasEnrollments(course_id) if fetch_one(db, HAS_ENROLLMENTS, course_id) else None

    with judged(db, own, deleted=("courses", course_id)):
        row = fetch_one(db, DELETE_COURSE, row_id(course_id))
    if row is None:
        find_course(db, course_id)
        raise ConstraintViolated(LEFT_OUT)
