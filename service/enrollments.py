"""Enroll students in courses, drop them, and list who has a seat and who waits.

The database decides who gets what: the CHECKs of the table courses are the limits, and triggers give a seat or a place
in line, keep the counts, promote the first student on the waitlist, and write the event. The triggers run within the
one statement that each function here runs (see migrations 003 to 005).
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec
import peewee as pw

from service.courses import find_course
from service.errors import (
    AlreadyEnrolled,
    AlreadyWaitlisted,
    ConstraintViolated,
    CourseFull,
    CourseNotFound,
    EnrollmentNotFound,
    ServiceError,
    StudentNotFound,
)
from service.fields import Status, row_id
from service.storage import LEFT_OUT, Outcome, Pair, backend_of, change, fetch, fetch_one
from service.students import find_student

# A position is counted row by row. Where the place in line is nearer to the last place than to the first one, it takes
# less time to count who is behind, and to subtract that from the length of the line.
STATE = """
    enrollments.enrolled_at,
    CASE WHEN enrollments.waiting IS NULL THEN 'enrolled' ELSE 'waitlisted' END,
    CASE WHEN enrollments.waiting IS NOT NULL THEN
        CASE WHEN enrollments.waiting * 2 <= (
            SELECT max(line.waiting) FROM enrollments AS line WHERE line.course_id = enrollments.course_id
        ) + (
            SELECT min(line.waiting) FROM enrollments AS line
            WHERE line.course_id = enrollments.course_id AND line.waiting IS NOT NULL
        ) THEN (
            SELECT count(*) FROM enrollments AS ahead
            WHERE ahead.course_id = enrollments.course_id AND ahead.waiting <= enrollments.waiting
        ) ELSE (
            SELECT courses.waitlisted FROM courses WHERE courses.id = enrollments.course_id
        ) - (
            SELECT count(*) FROM enrollments AS behind
            WHERE behind.course_id = enrollments.course_id AND behind.waiting > enrollments.waiting
        ) END
    END"""
FIND_ENROLLMENT = f"""
    SELECT student_id, course_id, {STATE}
    FROM enrollments
    WHERE student_id = ? AND course_id = ?"""
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


class EnrollmentRecord(msgspec.Struct, frozen=True, gc=False):
    """A student's seat in a course, or place on the course's waitlist.

    `enrolled_at` (RFC 3339 in UTC) is None while the student waits; `position`, from 1, is None once the student has a
    seat.
    """

    student_id: int
    course_id: int
    enrolled_at: str | None
    status: Status
    position: int | None


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
    enrolled_at: str | None
    status: Status = "enrolled"
    position: int | None = None


REFUSALS: Mapping[str, Any] = {
    refusal.code: refusal
    for refusal in (StudentNotFound, CourseNotFound, AlreadyEnrolled, AlreadyWaitlisted, CourseFull)
}
"""The refusals of an enrollment by the triggers of the service, by the code with which the trigger's message begins."""

Row = Pair | ServiceError
"""A pair to enroll, or a refusal where the caller's input was no valid pair."""
Result = EnrollmentRecord | ServiceError
"""The enrollment of a row, or the row's refusal."""


def timestamp(moment: datetime) -> str:
    """Write a moment as RFC 3339 in UTC, to the millisecond: 24 characters that sort by time.

    Raises ValueError for a moment without a time zone, because nobody can tell what it is in UTC.
    """
    if moment.utcoffset() is None:
        raise ValueError(f"{moment!r} has no time zone: give one, as datetime.now(UTC) does.")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def enroll(db: pw.Database, student_id: int, course_id: int, now: datetime | None = None) -> EnrollmentRecord:
    """Give a student a seat in a course or, where no seat is free, the last place on the course's waitlist.

    The time of the enrollment is `now`, or the present moment if `now` is None. Raises StudentNotFound, CourseNotFound
    (StudentNotFound if both are missing), AlreadyEnrolled, AlreadyWaitlisted, CourseFull, ConstraintViolated.
    """
    with backend_of(db).transaction(db):
        (result,) = enroll_each(db, [(student_id, course_id)], now)
    if isinstance(result, ServiceError):
        raise result
    return result


def enroll_each(
    db: pw.Database, rows: Sequence[Row], now: datetime | None = None, until: float = math.inf
) -> list[Result]:
    """Enroll one row after the other within the caller's transaction, and give each row's result, in order.

    A row's result is the enrollment as it is after the row's own statement, or the refusal that `enroll` would raise;
    for a row that is a refusal it is the row. After `until`, in seconds of the monotonic clock, no further row is begun
    except the first one. Raises ConstraintViolated where a trigger of another program undid the caller's transaction.
    """
    moment = timestamp(now or datetime.now(UTC))
    pairs = [(row_id(row[0]), row_id(row[1])) for row in rows if not isinstance(row, ServiceError)]
    outcomes = iter(backend_of(db).insert_each(db, pairs, moment, until))
    results: list[Result] = []
    for row in rows:
        if isinstance(row, ServiceError):
            results.append(row)
        elif outcome := next(outcomes, None):
            results.append(_result(row, outcome))
        else:
            break
    return results


def _result(pair: Pair, outcome: Outcome) -> Result:
    if isinstance(outcome, ServiceError):
        return outcome
    word, enrolled_at, position = outcome
    if word in REFUSALS:
        ids = dict(zip(("student_id", "course_id"), pair, strict=True))
        refusal: ServiceError = REFUSALS[word](**{each.name: ids[each.name] for each in attrs.fields(REFUSALS[word])})
        return refusal
    return EnrollmentRecord(*pair, enrolled_at, "enrolled" if position is None else "waitlisted", position)


def ensure_enrolled(db: pw.Database, student_id: int, course_id: int) -> tuple[EnrollmentRecord, bool]:
    """Enroll a student unless that was done already; give the enrollment as it is now, and whether it is new.

    Raises StudentNotFound, CourseNotFound (StudentNotFound if both are missing), CourseFull, ConstraintViolated.
    """
    with backend_of(db).transaction(db):
        try:
            return enroll(db, student_id, course_id), True
        except (AlreadyEnrolled, AlreadyWaitlisted):
            return find_enrollment(db, student_id, course_id), False


def drop(db: pw.Database, student_id: int, course_id: int) -> None:
    """Take a student out of a course or off its waitlist; the student who waits longest gets the free seat.

    Raises EnrollmentNotFound, ConstraintViolated.
    """
    row = change(db, DROP, row_id(student_id), row_id(course_id))
    if row is None:
        find_enrollment(db, student_id, course_id)
        raise ConstraintViolated(LEFT_OUT)


def find_enrollment(db: pw.Database, student_id: int, course_id: int) -> EnrollmentRecord:
    """Give the enrollment of a student in a course. Raises EnrollmentNotFound."""
    row = fetch_one(db, FIND_ENROLLMENT, row_id(student_id), row_id(course_id))
    if row is None:
        raise EnrollmentNotFound(student_id, course_id)
    return EnrollmentRecord(*row)


def list_schedule(
    db: pw.Database, student_id: int, status: Status | None = None, after: int = 0, limit: int = 100
) -> list[ScheduleRow]:
    """Give at most `limit` courses of a student with ids above `after`, by id; with one status, or with both.

    Raises StudentNotFound.
    """
    rows = fetch(db, LIST_SCHEDULE[status], row_id(student_id), after, limit)
    if not rows:
        find_student(db, student_id)
    return [ScheduleRow(*row) for row in rows]


def list_roster(db: pw.Database, course_id: int, after: int = 0, limit: int = 100) -> list[RosterRow]:
    """Give at most `limit` students with a seat in a course and ids above `after`, by id. Raises CourseNotFound."""
    rows = fetch(db, LIST_ROSTER, row_id(course_id), after, limit)
    if not rows:
        find_course(db, course_id)
    return [RosterRow(*row) for row in rows]


def list_waitlist(db: pw.Database, course_id: int, after: int = 0, limit: int = 100) -> list[tuple[int, RosterRow]]:
    """Give (place, row) of at most `limit` students who wait for a course behind the place `after`, first come first.

    A place is the number in the column enrollments.waiting. Raises CourseNotFound.
    """
    rows = fetch(db, LIST_WAITLIST, row_id(course_id), after, limit)
    if not rows:
        find_course(db, course_id)
    ((ahead,),) = fetch(db, COUNT_AHEAD, row_id(course_id), after)
    return [
        (place, RosterRow(student_id, name, None, "waitlisted", position))
        for position, (place, student_id, name) in enumerate(rows, ahead + 1)
    ]
