"""Add, find, list, change and delete courses."""

from collections.abc import Mapping
from typing import Any

import msgspec
import peewee as pw

from service.errors import (
    CapacityBelowEnrolled,
    ConstraintViolated,
    CourseHasEnrollments,
    CourseNotFound,
    ServiceError,
    WaitlistCapacityBelowWaitlisted,
)
from service.fields import CAPACITY, NAME, Availability, checked, row_id, sought
from service.storage import LEFT_OUT, backend_of, change, fetch, fetch_one

FIELDS = {"name": NAME, "level": NAME, "capacity": CAPACITY, "waitlist_capacity": CAPACITY}
"""The fields of a course that a caller may set, each with its rule."""

# This is not written as `capacity IS NULL OR enrolled < capacity`, because SQLite 3.38 to 3.40 at least take IS NULL
# for false in a RETURNING where the INTEGER PRIMARY KEY is declared NOT NULL, as it is here.
# https://sqlite.work/sqlite-update-returning-clause-incorrectly-handles-is-null-condition
COLUMNS = """
    id, name, level, capacity, waitlist_capacity, enrolled, waitlisted, capacity - enrolled AS seats_left,
    CASE WHEN coalesce(enrolled < capacity, TRUE) THEN 'open'
         WHEN coalesce(waitlisted < waitlist_capacity, TRUE) THEN 'waitlist'
         ELSE 'full' END AS availability"""
INSERT_COURSE = f"""
    INSERT INTO courses (name, level, capacity, waitlist_capacity)
    VALUES (?, ?, ?, ?)
    RETURNING {COLUMNS}"""
FIND_COURSE = f"SELECT {COLUMNS} FROM courses WHERE id = ?"
HAS_ENROLLMENTS = "SELECT 1 FROM enrollments WHERE course_id = ? LIMIT 1"
DELETE_COURSE = "DELETE FROM courses WHERE id = ? RETURNING id"


class CourseRecord(msgspec.Struct, frozen=True):
    """One row of the table courses; `level` is the course provider's own word, such as "beginner" or "A2"."""

    id: int
    name: str
    level: str
    capacity: int | None
    """How many seats the course has; None for no limit."""
    waitlist_capacity: int | None
    """How many places the waitlist has; 0 for no waitlist, None for no limit."""
    enrolled: int
    waitlisted: int
    seats_left: int | None
    availability: Availability


def insert_course(
    db: pw.Database, name: str, level: str, capacity: int | None = None, waitlist_capacity: int | None = 0
) -> CourseRecord:
    """Add a course, with an id that was never given before. Raises InvalidPayload, ConstraintViolated."""
    kept = checked(FIELDS, dict(zip(FIELDS, (name, level, capacity, waitlist_capacity), strict=True)))
    row = change(db, INSERT_COURSE, *kept.values())
    if row is None:
        raise ConstraintViolated(LEFT_OUT)
    return CourseRecord(*row)


def find_course(db: pw.Database, course_id: int) -> CourseRecord:
    """Give one course. Raises CourseNotFound."""
    row = fetch_one(db, FIND_COURSE, row_id(course_id))
    if row is None:
        raise CourseNotFound(course_id)
    return CourseRecord(*row)


def list_courses(
    db: pw.Database,
    prefix: str | None = None,
    level: str | None = None,
    after: tuple[int] | tuple[str | bytes, int] | None = None,
    limit: int = 100,
) -> list[CourseRecord]:
    """Give at most `limit` courses, of one level or of all, by id or, with a prefix of the name, by (name, id).

    `after` is the key of the last row before this page, (id,) or (name, id). Raises InvalidQuery.
    """
    prefix, level = sought(name=prefix, level=level)
    equal = {} if level is None else {"level": level}
    return [CourseRecord(*row) for row in backend_of(db).list_rows(db, "courses", COLUMNS, equal, prefix, after, limit)]


def update_course(db: pw.Database, course_id: int, changes: Mapping[str, str | int | None]) -> CourseRecord:
    """Change the given columns of a course; if the capacity rises, students from the waitlist get the new seats.

    Raises InvalidPayload, CourseNotFound, CapacityBelowEnrolled, ConstraintViolated, and
    WaitlistCapacityBelowWaitlisted if the students who are still waiting after that are more than the new waitlist has.
    """
    kept = checked(FIELDS, changes)
    waitlist = {name: kept.pop(name) for name in ("waitlist_capacity",) if name in kept}
    with db.atomic():
        for columns in (kept, waitlist):
            if columns:
                _update(db, course_id, columns)
        return find_course(db, course_id)


def _update(db: pw.Database, course_id: int, columns: Mapping[str, Any]) -> None:
    sql = f"UPDATE courses SET {', '.join(f'{name} = ?' for name in columns)} WHERE id = ? RETURNING id"

    def own() -> ServiceError | None:
        course = find_course(db, course_id)
        seats, places = columns.get("capacity"), columns.get("waitlist_capacity")
        if seats is not None and seats < course.enrolled:
            return CapacityBelowEnrolled(course_id)
        return WaitlistCapacityBelowWaitlisted(course_id) if places is not None and places < course.waitlisted else None

    row = change(db, sql, *columns.values(), row_id(course_id), own=own)
    if row is None:
        find_course(db, course_id)
        raise ConstraintViolated(LEFT_OUT)


def delete_course(db: pw.Database, course_id: int) -> None:
    """Delete a course. Raises CourseNotFound, CourseHasEnrollments, ConstraintViolated."""

    def own() -> CourseHasEnrollments | None:
        return CourseHasEnrollments(course_id) if fetch(db, HAS_ENROLLMENTS, course_id) else None

    row = change(db, DELETE_COURSE, row_id(course_id), own=own, deleted=("courses", course_id))
    if row is None:
        find_course(db, course_id)
        raise ConstraintViolated(LEFT_OUT)
