"""Enrollments: the rules of who is in what."""

from datetime import UTC, datetime

import msgspec
import peewee as pw

from service.courses import find_course
from service.database import fetch_all, fetch_one
from service.errors import AlreadyEnrolled, CourseNotFound, EnrollmentNotFound, StudentNotFound
from service.students import find_student

INSERT_ENROLLMENT = "INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (?, ?, ?)"
FIND_ENROLLMENT = """
    SELECT student_id, course_id, enrolled_at
    FROM enrollments
    WHERE student_id = ? AND course_id = ?"""
DELETE_ENROLLMENT = """
    DELETE FROM enrollments
    WHERE student_id = ? AND course_id = ?
    RETURNING student_id"""
LIST_SCHEDULE = """
    SELECT courses.id, courses.name, courses.level, enrollments.enrolled_at
    FROM enrollments
    JOIN courses ON courses.id = enrollments.course_id
    WHERE enrollments.student_id = ? AND enrollments.course_id > ?
    ORDER BY enrollments.course_id
    LIMIT ?"""
LIST_ROSTER = """
    SELECT students.id, students.name, enrollments.enrolled_at
    FROM enrollments
    JOIN students ON students.id = enrollments.student_id
    WHERE enrollments.course_id = ? AND enrollments.student_id > ?
    ORDER BY enrollments.student_id
    LIMIT ?"""
EXIST = """
    SELECT EXISTS (SELECT 1 FROM students WHERE id = ?),
           EXISTS (SELECT 1 FROM courses WHERE id = ?)"""


class Enrollment(msgspec.Struct, frozen=True):
    """A student takes a course, since `enrolled_at` (RFC 3339, UTC)."""

    student_id: int
    course_id: int
    enrolled_at: str


class ScheduleRow(msgspec.Struct, frozen=True):
    """A course that a student is enrolled in."""

    id: int
    name: str
    level: str
    enrolled_at: str


class RosterRow(msgspec.Struct, frozen=True):
    """A student who is enrolled in a course."""

    id: int
    name: str
    enrolled_at: str


def timestamp(moment: datetime) -> str:
    """Write a moment as RFC 3339 in UTC, to the millisecond: 24 characters that sort by time."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def enroll(db: pw.Database, student_id: int, course_id: int, now: datetime | None = None) -> Enrollment:
    """Enroll a student in a course, at the present moment unless another is given.

    Raises StudentNotFound, CourseNotFound (the student first), AlreadyEnrolled.
    """
    enrollment = Enrollment(student_id, course_id, timestamp(now or datetime.now(UTC)))
    with db.atomic():
        try:
            db.execute_sql(INSERT_ENROLLMENT, msgspec.structs.astuple(enrollment))
        except pw.IntegrityError as error:
            # A foreign key's failure does not say which of the two it was.
            student_exists, course_exists = fetch_all(db, EXIST, student_id, course_id)[0]
            if not student_exists:
                raise StudentNotFound from error
            if not course_exists:
                raise CourseNotFound from error
            raise AlreadyEnrolled(student_id, course_id) from error
    return enrollment


def ensure_enrolled(db: pw.Database, student_id: int, course_id: int) -> tuple[Enrollment, bool]:
    """Enroll unless it is done already; give the enrollment, and whether it is new.

    Raises StudentNotFound, CourseNotFound (the student first).
    """
    with db.atomic():
        try:
            return enroll(db, student_id, course_id), True
        except AlreadyEnrolled:
            return find_enrollment(db, student_id, course_id), False


def find_enrollment(db: pw.Database, student_id: int, course_id: int) -> Enrollment:
    """Give one enrollment. Raises EnrollmentNotFound."""
    row = fetch_one(db, FIND_ENROLLMENT, student_id, course_id)
    if row is None:
        raise EnrollmentNotFound
    return Enrollment(*row)


def drop(db: pw.Database, student_id: int, course_id: int) -> None:
    """Take a student out of a course. Raises EnrollmentNotFound."""
    if fetch_one(db, DELETE_ENROLLMENT, student_id, course_id) is None:
        raise EnrollmentNotFound


def list_schedule(db: pw.Database, student_id: int, after: int = 0, limit: int = 100) -> list[ScheduleRow]:
    """Give the student's courses with ids above `after`, by id. Raises StudentNotFound."""
    rows = fetch_all(db, LIST_SCHEDULE, student_id, after, limit)
    if not rows:
        find_student(db, student_id)
    return [ScheduleRow(*row) for row in rows]


def list_roster(db: pw.Database, course_id: int, after: int = 0, limit: int = 100) -> list[RosterRow]:
    """Give the course's students with ids above `after`, by id. Raises CourseNotFound."""
    rows = fetch_all(db, LIST_ROSTER, course_id, after, limit)
    if not rows:
        find_course(db, course_id)
    return [RosterRow(*row) for row in rows]
