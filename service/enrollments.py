"""Enroll students in courses, drop them, and list who has a seat and who waits.

Each function here runs one statement, within which the triggers of the database do the rest: see `enrolling.py`.
"""

from datetime import datetime

import msgspec
import peewee as pw

from service.courses import find_course
from service.enrolling import STATE, Asked, EnrollmentRecord, enroll_each, find_enrollment
from service.errors import AlreadyEnrolled, AlreadyWaitlisted, ConstraintViolated, ServiceError
from service.events import NOBODY, newest_event, note, why
from service.fields import Status
from service.rows import Key, find_id
from service.storage import LEFT_OUT, NameKey, Pair, backend_of, change, fetch
from service.students import find_student

__all__ = [
    "EnrollmentRecord",
    "RosterRow",
    "ScheduleRow",
    "drop",
    "enroll",
    "enroll_each",
    "ensure_enrolled",
    "find_enrollment",
    "list_roster",
    "list_roster_by_name",
    "list_schedule",
    "list_waitlist",
]

DROP = """
    DELETE FROM enrollments
    WHERE student_id = ? AND course_id = ?
    RETURNING student_id"""
LIST_SCHEDULE = {
    status: f"""
    SELECT courses.id, courses.name, courses.level, {STATE}
    FROM enrollments
    JOIN courses ON courses.id = enrollments.course_id
    WHERE enrollments.student_id = ? AND enrollments.course_id > ? AND {condition}
    ORDER BY enrollments.course_id
    LIMIT ?"""
    for status, condition in {
        None: "TRUE",
        "enrolled": "enrollments.waiting IS NULL",
        "waitlisted": "enrollments.waiting IS NOT NULL",
    }.items()
}
WHO = "students.id, students.name, students.external_id, students.given_name, students.family_name"
LIST_ROSTER = f"""
    SELECT {WHO}, enrollments.enrolled_at
    FROM enrollments
    JOIN students ON students.id = enrollments.student_id
    WHERE enrollments.course_id = ? AND enrollments.waiting IS NULL AND enrollments.student_id > ?
    ORDER BY enrollments.student_id
    LIMIT ?"""
LIST_WAITLIST = f"""
    SELECT enrollments.waiting, {WHO}
    FROM enrollments
    JOIN students ON students.id = enrollments.student_id
    WHERE enrollments.course_id = ? AND enrollments.waiting > ?
    ORDER BY enrollments.waiting
    LIMIT ?"""
COUNT_AHEAD = "SELECT count(*) FROM enrollments WHERE course_id = ? AND waiting <= ?"


class ScheduleRow(msgspec.Struct, frozen=True):
    """A row of a student's schedule: a course that the student is enrolled in or waits for."""

    id: int
    name: str
    level: str
    enrolled_at: str | None
    status: Status
    position: int | None


class RosterRow(msgspec.Struct, frozen=True):
    """A row of a course's roster or waitlist: a student who is enrolled in the course or waits for it."""

    id: int
    name: str
    external_id: str | None
    given_name: str | None
    family_name: str | None
    enrolled_at: str | None
    status: Status = "enrolled"
    position: int | None = None


def enroll(  # noqa: PLR0913 - who, where, when, how and why.
    db: pw.Database,
    student_id: Key,
    course_id: Key,
    now: datetime | None = None,
    *,
    override: bool = False,
    actor: str | None = None,
    reason: str | None = None,
) -> EnrollmentRecord:
    """Give a student a seat in a course or, where no seat is free, the last place on the course's waitlist.

    The time of the enrollment is `now`, or the present moment if `now` is None. With `override` the student gets a
    seat in any case: the capacity grows by one if it has to, nobody else moves, and a window that is shut does not
    matter. `actor` and `reason` say who enrolls the student, and why. Raises InvalidPayload, StudentNotFound,
    CourseNotFound (StudentNotFound if both are missing), AlreadyEnrolled, AlreadyWaitlisted, EnrollmentNotOpen,
    EnrollmentClosed, CourseFull, ConstraintViolated.
    """
    row = Asked(student_id, course_id, override, why(actor, reason))
    with backend_of(db).atomic(db) if row.why is not NOBODY else backend_of(db).transaction(db):
        (result,) = enroll_each(db, [row], now)
    if isinstance(result, ServiceError):
        raise result
    return result


def ensure_enrolled(
    db: pw.Database, student_id: Key, course_id: Key, *, actor: str | None = None, reason: str | None = None
) -> tuple[EnrollmentRecord, bool]:
    """Enroll a student unless that was done already; give the enrollment as it is now, and whether it is new.

    Raises what `enroll` raises, but for AlreadyEnrolled and AlreadyWaitlisted.
    """
    with backend_of(db).transaction(db):
        try:
            return enroll(db, student_id, course_id, actor=actor, reason=reason), True
        except (AlreadyEnrolled, AlreadyWaitlisted):
            return find_enrollment(db, student_id, course_id), False


def drop(
    db: pw.Database, student_id: Key, course_id: Key, *, actor: str | None = None, reason: str | None = None
) -> None:
    """Take a student out of a course or off its waitlist; the student who waits longest gets the free seat.

    `actor` and `reason` say who drops the student, and why. Raises InvalidPayload, EnrollmentNotFound,
    ConstraintViolated.
    """
    pair = find_id(db, "students", student_id), find_id(db, "courses", course_id)
    if actor is None and reason is None:
        _drop(db, pair)
        return
    told = why(actor, reason)
    with backend_of(db).atomic(db):
        since = newest_event(db)
        _drop(db, pair)
        note(db, since, {pair: told})


def _drop(db: pw.Database, pair: Pair) -> None:
    if change(db, DROP, *pair) is None:
        find_enrollment(db, *pair)
        raise ConstraintViolated(LEFT_OUT)


def list_schedule(
    db: pw.Database, student_id: Key, status: Status | None = None, after: int = 0, limit: int = 100
) -> list[ScheduleRow]:
    """Give at most `limit` courses of a student with ids above `after`, by id; with one status, or with both.

    Raises StudentNotFound.
    """
    rows = fetch(db, LIST_SCHEDULE[status], find_id(db, "students", student_id), after, limit)
    if not rows:
        find_student(db, student_id)
    return [ScheduleRow(*row) for row in rows]


def list_roster(db: pw.Database, course_id: Key, after: int = 0, limit: int = 100) -> list[RosterRow]:
    """Give at most `limit` students with a seat in a course and ids above `after`, by id. Raises CourseNotFound."""
    rows = fetch(db, LIST_ROSTER, find_id(db, "courses", course_id), after, limit)
    if not rows:
        find_course(db, course_id)
    return [RosterRow(*row) for row in rows]


def list_roster_by_name(
    db: pw.Database, course_id: Key, after: NameKey | None = None, limit: int = 100
) -> list[tuple[NameKey, RosterRow]]:
    """Give (key, row) of at most `limit` students with a seat in a course, by family name, then by given name.

    Who has no family name is sorted by the name. A key is (family name or name, given name or "", id), and the page
    begins behind the key `after`. Raises CourseNotFound.
    """
    columns, found = f"{WHO}, enrollments.enrolled_at", find_id(db, "courses", course_id)
    rows = backend_of(db).list_roster_by_name(db, columns, found, after, limit)
    if not rows:
        find_course(db, course_id)
    return [((family, given, row[0]), RosterRow(*row)) for family, given, *row in rows]


def list_waitlist(db: pw.Database, course_id: Key, after: int = 0, limit: int = 100) -> list[tuple[int, RosterRow]]:
    """Give (place, row) of at most `limit` students who wait for a course behind the place `after`, first come first.

    A place is the number in the column enrollments.waiting. Raises CourseNotFound.
    """
    found = find_id(db, "courses", course_id)
    rows = fetch(db, LIST_WAITLIST, found, after, limit)
    if not rows:
        find_course(db, course_id)
    ((ahead,),) = fetch(db, COUNT_AHEAD, found, after)
    return [
        (place, RosterRow(row_id, name, number, given, family, None, "waitlisted", position))
        for position, (place, row_id, name, number, given, family) in enumerate(rows, ahead + 1)
    ]
