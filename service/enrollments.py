"""Enrollments: the rules of who has a seat, who waits, and who comes next.

The database decides: a course's CHECKs are its limits, and triggers give a seat or a place in line, keep the counts,
promote the head of the waitlist and write the event, within the one statement that each rule runs (see migrations
003 to 005).
"""

from datetime import datetime

import msgspec
import peewee as pw

from service.courses import find_course
from service.database import LEFT_OUT, fetch_all, fetch_one, transaction, violation
from service.enrolling import COUNT_AHEAD, STATE, Enrollment, Result, enroll_each, find_enrollment, timestamp
from service.errors import AlreadyEnrolled, AlreadyWaitlisted, ConstraintViolated, ServiceError
from service.fields import row_id
from service.students import find_student

__all__ = [
    "Enrollment",
    "Result",
    "RosterRow",
    "ScheduleRow",
    "drop",
    "enroll",
    "enroll_each",
    "ensure_enrolled",
    "find_enrollment",
    "list_roster",
    "list_schedule",
    "list_waitlist",
    "timestamp",
]

STATUSES = ("enrolled", "waitlisted")

DROP = """
    DELETE FROM enrollments
    WHERE student_id = ? AND course_id = ?
    RETURNING student_id"""

LIST_SCHEDULE = f"""
    SELECT courses.id, courses.name, courses.level, {STATE}
    FROM enrollments
    JOIN courses ON courses.id = enrollments.course_id
    WHERE enrollments.student_id = ? AND enrollments.course_id > ? AND (enrollments.waiting IS NOT NULL) IN (?, ?)
    ORDER BY enrollments.course_id
    LIMIT ?"""
LIST_ROSTER = """
    SELECT students.id, students.name, enrollments.enrolled_at
    FROM enrollments
    JOIN students ON students.id = enrollments.student_id
    WHERE enrollments.course_id = ? AND enrollments.waiting IS NULL AND enrollments.student_id > ?
    ORDER BY enrollments.student_id
    LIMIT ?"""
LIST_WAITLIST = """
    SELECT enrollments.waiting, students.id, students.name
    FROM enrollments
    JOIN students ON students.id = enrollments.student_id
    WHERE enrollments.course_id = ? AND enrollments.waiting > ?
    ORDER BY enrollments.waiting
    LIMIT ?"""


class ScheduleRow(msgspec.Struct, frozen=True):
    """A course that a student is enrolled in or waits for."""

    id: int
    name: str
    level: str
    enrolled_at: str | None
    status: str
    position: int | None


class RosterRow(msgspec.Struct, frozen=True):
    """A student who is enrolled in a course, or waits for it."""

    id: int
    name: str
    enrolled_at: str | None
    status: str = "enrolled"
    position: int | None = None


def enroll(db: pw.Database, student_id: int, course_id: int, now: datetime | None = None) -> Enrollment:
    """Give a student a seat in a course, or else the last place on its waitlist.

    The present moment is `now` unless another is given. Raises StudentNotFound,
    CourseNotFound (the student first), AlreadyEnrolled, AlreadyWaitlisted, CourseFull, ConstraintViolated.
    """
    with transaction(db):
        (result,) = enroll_each(db, [(row_id(student_id), row_id(course_id))], now)
    if isinstance(result, ServiceError):
        raise result
    return result


def ensure_enrolled(db: pw.Database, student_id: int, course_id: int) -> tuple[Enrollment, bool]:
    """Enroll unless it is done already; give the enrollment as it is now, and whether it is new.

    Raises StudentNotFound, CourseNotFound (the student first), CourseFull.
    """
    with transaction(db):
        try:
            return enroll(db, student_id, course_id), True
        except (AlreadyEnrolled, AlreadyWaitlisted):
            return find_enrollment(db, student_id, course_id), False


def drop(db: pw.Database, student_id: int, course_id: int) -> None:
    """Take a student out of a course or off its waitlist; a freed seat goes to who waits longest.

    Raises EnrollmentNotFound, ConstraintViolated.
    """
    try:
        row = fetch_one(db, DROP, row_id(student_id), row_id(course_id))
    except pw.IntegrityError as error:
        raise violation(db, error) from error
    if row is None:
        find_enrollment(db, student_id, course_id)
        raise ConstraintViolated(LEFT_OUT)


def list_schedule(
    db: pw.Database, student_id: int, status: str | None = None, after: int = 0, limit: int = 100
) -> list[ScheduleRow]:
    """Give the student's courses with ids above `after`, by id, of one status or of both.

    Raises StudentNotFound.
    """
    waiting = [STATUSES.index(status)] * 2 if status else [0, 1]
    rows = fetch_all(db, LIST_SCHEDULE, row_id(student_id), after, *waiting, limit)
    if not rows:
        find_student(db, student_id)
    return [ScheduleRow(*row) for row in rows]


def list_roster(db: pw.Database, course_id: int, after: int = 0, limit: int = 100) -> list[RosterRow]:
    """Give the enrolled students with ids above `after`, by id. Raises CourseNotFound."""
    rows = fetch_all(db, LIST_ROSTER, row_id(course_id), after, limit)
    if not rows:
        find_course(db, course_id)
    return [RosterRow(*row) for row in rows]


def list_waitlist(db: pw.Database, course_id: int, after: int = 0, limit: int = 100) -> list[tuple[int, RosterRow]]:
    """Give who waits behind the place `after`, first come first: (place, row). Raises CourseNotFound."""
    rows = fetch_all(db, LIST_WAITLIST, row_id(course_id), after, limit)
    if not rows:
        find_course(db, course_id)
    ((ahead,),) = fetch_all(db, COUNT_AHEAD, row_id(course_id), after)
    return [
        (place, RosterRow(student_id, name, None, "waitlisted", position))
        for position, (place, student_id, name) in enumerate(rows, ahead + 1)
    ]
