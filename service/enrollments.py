"""Enrollments: the rules of who has a seat, who waits, and who comes next.

The database decides: a course's CHECKs are its limits, and triggers keep its counts, promote
the head of the waitlist and write the event, within the one statement that each rule runs
(see the migration that brought seats).
"""

from datetime import UTC, datetime

import msgspec
import peewee as pw

from service.courses import find_course
from service.database import fetch_all, fetch_one, transaction
from service.errors import (
    AlreadyEnrolled,
    AlreadyWaitlisted,
    CourseFull,
    CourseNotFound,
    EnrollmentNotFound,
    ServiceError,
    StudentNotFound,
)
from service.students import find_student

STATUSES = ("enrolled", "waitlisted")

# The insert's trigger writes the next event, which begins the enrollment; its id is also a place in line.
ENROLL = """
    INSERT INTO enrollments (student_id, course_id, enrolled_at, waiting, event_id)
    VALUES (?, ?,
        (SELECT CASE WHEN capacity IS NULL OR enrolled < capacity THEN ? END FROM courses WHERE id = ?),
        (SELECT CASE WHEN enrolled >= capacity THEN (SELECT coalesce(max(id), 0) + 1 FROM enrollment_events) END
         FROM courses WHERE id = ?),
        (SELECT coalesce(max(id), 0) + 1 FROM enrollment_events))"""
LAST_POSITION = "SELECT waitlisted FROM courses WHERE id = ?"
WHY_REFUSED = """
    SELECT EXISTS (SELECT 1 FROM students WHERE id = ?),
           EXISTS (SELECT 1 FROM courses WHERE id = ?),
           EXISTS (SELECT 1 FROM enrollments WHERE student_id = ? AND course_id = ? AND waiting IS NULL),
           EXISTS (SELECT 1 FROM enrollments WHERE student_id = ? AND course_id = ? AND waiting IS NOT NULL)"""
DROP = """
    DELETE FROM enrollments
    WHERE student_id = ? AND course_id = ?
    RETURNING student_id"""

STATE = """
    enrollments.enrolled_at,
    CASE WHEN enrollments.waiting IS NULL THEN 'enrolled' ELSE 'waitlisted' END,
    CASE WHEN enrollments.waiting IS NOT NULL THEN (
        SELECT count(*) FROM enrollments AS ahead
        WHERE ahead.course_id = enrollments.course_id AND ahead.waiting <= enrollments.waiting) END"""
FIND_ENROLLMENT = f"""
    SELECT student_id, course_id, {STATE}
    FROM enrollments
    WHERE student_id = ? AND course_id = ?"""
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
COUNT_AHEAD = "SELECT count(*) FROM enrollments WHERE course_id = ? AND waiting <= ?"


class Enrollment(msgspec.Struct, frozen=True):
    """A student's seat in a course, or place in line for one.

    `enrolled_at` (RFC 3339, UTC) is None while waiting; `position`, from 1, is None once enrolled.
    """

    student_id: int
    course_id: int
    enrolled_at: str | None
    status: str
    position: int | None


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


def timestamp(moment: datetime) -> str:
    """Write a moment as RFC 3339 in UTC, to the millisecond: 24 characters that sort by time.

    Raises ValueError for a moment without a zone, of which nobody can tell what it is in UTC.
    """
    if moment.utcoffset() is None:
        raise ValueError(f"{moment!r} has no time zone: give one, as datetime.now(UTC) does.")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def enroll_params(student_id: int, course_id: int, now: str) -> tuple[int | str, ...]:
    """Give the values of ENROLL, in its order."""
    return student_id, course_id, now, course_id, course_id


def enroll(db: pw.Database, student_id: int, course_id: int, now: datetime | None = None) -> Enrollment:
    """Give a student a seat in a course, or else the last place on its waitlist.

    The present moment is `now` unless another is given. Raises StudentNotFound,
    CourseNotFound (the student first), AlreadyEnrolled, AlreadyWaitlisted, CourseFull.
    """
    params = enroll_params(student_id, course_id, timestamp(now or datetime.now(UTC)))
    with transaction(db):
        try:
            ((enrolled_at,),) = fetch_all(db, ENROLL + " RETURNING enrolled_at", *params)
        except pw.IntegrityError as error:
            raise refusal(db, student_id, course_id) from error
        if enrolled_at is not None:
            return Enrollment(student_id, course_id, enrolled_at, "enrolled", None)
        ((position,),) = fetch_all(db, LAST_POSITION, course_id)
        return Enrollment(student_id, course_id, None, "waitlisted", position)


def ensure_enrolled(db: pw.Database, student_id: int, course_id: int) -> tuple[Enrollment, bool]:
    """Enroll unless it is done already; give the enrollment as it is now, and whether it is new.

    Raises StudentNotFound, CourseNotFound (the student first), CourseFull.
    """
    with transaction(db):
        try:
            return enroll(db, student_id, course_id), True
        except (AlreadyEnrolled, AlreadyWaitlisted):
            return find_enrollment(db, student_id, course_id), False


def find_enrollment(db: pw.Database, student_id: int, course_id: int) -> Enrollment:
    """Give one enrollment. Raises EnrollmentNotFound."""
    row = fetch_one(db, FIND_ENROLLMENT, student_id, course_id)
    if row is None:
        raise EnrollmentNotFound
    return Enrollment(*row)


def drop(db: pw.Database, student_id: int, course_id: int) -> None:
    """Take a student out of a course or off its waitlist; a freed seat goes to who waits longest.

    Raises EnrollmentNotFound.
    """
    if fetch_one(db, DROP, student_id, course_id) is None:
        raise EnrollmentNotFound


def list_schedule(
    db: pw.Database, student_id: int, status: str | None = None, after: int = 0, limit: int = 100
) -> list[ScheduleRow]:
    """Give the student's courses with ids above `after`, by id, of one status or of both.

    Raises StudentNotFound.
    """
    waiting = [STATUSES.index(status)] * 2 if status else [0, 1]
    rows = fetch_all(db, LIST_SCHEDULE, student_id, after, *waiting, limit)
    if not rows:
        find_student(db, student_id)
    return [ScheduleRow(*row) for row in rows]


def list_roster(db: pw.Database, course_id: int, after: int = 0, limit: int = 100) -> list[RosterRow]:
    """Give the enrolled students with ids above `after`, by id. Raises CourseNotFound."""
    rows = fetch_all(db, LIST_ROSTER, course_id, after, limit)
    if not rows:
        find_course(db, course_id)
    return [RosterRow(*row) for row in rows]


def list_waitlist(db: pw.Database, course_id: int, after: int = 0, limit: int = 100) -> list[tuple[int, RosterRow]]:
    """Give who waits behind the place `after`, first come first: (place, row). Raises CourseNotFound."""
    rows = fetch_all(db, LIST_WAITLIST, course_id, after, limit)
    if not rows:
        find_course(db, course_id)
    ((ahead,),) = fetch_all(db, COUNT_AHEAD, course_id, after)
    return [
        (place, RosterRow(student_id, name, None, "waitlisted", position))
        for position, (place, student_id, name) in enumerate(rows, ahead + 1)
    ]


def refusal(db: pw.Database, student_id: int, course_id: int) -> ServiceError:
    """Find out why ENROLL inserted nothing: a constraint's failure does not say which it was."""
    pair = (student_id, course_id)
    student, course, enrolled, waiting = fetch_all(db, WHY_REFUSED, *pair, *pair, *pair)[0]
    if not student:
        return StudentNotFound()
    if not course:
        return CourseNotFound()
    if enrolled:
        return AlreadyEnrolled(*pair)
    return AlreadyWaitlisted(*pair) if waiting else CourseFull(course_id)
