"""What a registrar's office does in one step: swap courses, withdraw or erase a student, cancel a course."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import peewee as pw

from service import rows
from service.enrolling import EnrollmentRecord, find_enrollment
from service.enrollments import ScheduleRow, drop, enroll, list_schedule
from service.errors import ConstraintViolated, InvalidPayload, SeatNeeded
from service.events import NOBODY, EventRecord, Why, list_events, newest_event, note, why
from service.fields import pointer
from service.rows import ExternalId, Key, find_id, in_groups
from service.storage import LEFT_OUT, Pair, backend_of, change, fetch
from service.students import StudentRecord, delete_student, find_student

MOST_DROPPED = 2_000
"""The most enrollments that one transaction drops: all other writes wait until its end."""
PAGE = 1_000
"""How many rows `export_student` reads with one statement."""

OF_STUDENT = ("SELECT student_id, course_id FROM enrollments WHERE student_id = ? ORDER BY course_id LIMIT ?",)
# Who waits is dropped first, so that nobody is promoted into a course that is cancelled. Without the order PostgreSQL
# would read the table from its beginning, once for every few rows.
OF_COURSE = tuple(
    f"SELECT student_id, course_id FROM enrollments WHERE course_id = ? AND waiting IS {null} ORDER BY {order} LIMIT ?"
    for null, order in (("NOT NULL", "waiting"), ("NULL", "student_id"))
)
OVERRIDES = "SELECT event_id FROM event_notes WHERE event_id IN ({}) AND override"
BLANK = "UPDATE event_notes SET reason = NULL WHERE event_id IN ({}) RETURNING event_id"
WORDS = "SELECT event_id FROM event_notes WHERE event_id IN ({}) AND reason IS NOT NULL"


class Swapped(msgspec.Struct, frozen=True):
    """What came of a swap: whether the one course was dropped, and the enrollment in the other one."""

    dropped: bool
    enrollment: EnrollmentRecord


class Dropped(msgspec.Struct, frozen=True):
    """How many enrollments were dropped, of those with a seat and those who waited."""

    dropped: int


class StudentExport(msgspec.Struct, frozen=True):
    """All that is kept of one student: the row, the courses, and the events, oldest first."""

    student: StudentRecord
    courses: list[ScheduleRow]
    events: list[EventRecord]
    overrides: list[int]
    """The ids of those events that gave a seat past the rules."""


def swap(  # noqa: PLR0913 - who, from where, to where, how and why.
    db: pw.Database,
    student_id: Key,
    drop_course_id: Key,
    enroll_course_id: Key,
    *,
    or_wait: bool = False,
    actor: str | None = None,
    reason: str | None = None,
) -> Swapped:
    """Give a student a seat in one course for the seat, or the place in line, in another one; or change nothing.

    With `or_wait`, where no seat is free but a place in line, the student joins the line and keeps the other course.
    Raises InvalidPayload if the two courses are one, EnrollmentNotFound if the student is not in the one to drop, what
    `enroll` raises, and SeatNeeded where a place in line is all that is free and `or_wait` is not set.
    """
    with backend_of(db).atomic(db):
        to = find_id(db, "courses", enroll_course_id)
        if to and to == find_id(db, "courses", drop_course_id):
            member = "enroll_course_external_id" if isinstance(enroll_course_id, ExternalId) else "enroll_course_id"
            raise InvalidPayload([(pointer(member), "must be another course than the one to drop")])
        find_student(db, student_id)
        find_enrollment(db, student_id, drop_course_id)
        enrollment = enroll(db, student_id, enroll_course_id, actor=actor, reason=reason)
        if enrollment.status == "enrolled":
            drop(db, student_id, drop_course_id, actor=actor, reason=reason)
        elif not or_wait:
            raise SeatNeeded(enrollment.course_id)
    return Swapped(enrollment.status == "enrolled", enrollment)


def withdraw(db: pw.Database, student_id: Key, *, actor: str | None = None, reason: str | None = None) -> int:
    """Drop all enrollments of a student; the seats go to who waits. Gives how many there were.

    `withdraw_some` is called until none is left. Raises what it raises.
    """
    told = why(actor, reason)
    return _all(lambda: withdraw_some(db, student_id, told))


def withdraw_some(db: pw.Database, student_id: Key, told: Why = NOBODY, most: int = MOST_DROPPED) -> int:
    """Drop at most `most` enrollments of a student in one transaction, and give how many were dropped.

    Fewer than `most` were the last ones. Raises InvalidPayload, StudentNotFound, ConstraintViolated.
    """
    return _drop_some(db, "students", student_id, OF_STUDENT, told, most)


def cancel(db: pw.Database, course_id: Key, *, actor: str | None = None, reason: str | None = None) -> int:
    """Drop all enrollments of a course, and promote nobody into it. Gives how many there were.

    `cancel_some` is called until none is left. Raises what it raises.
    """
    told = why(actor, reason)
    return _all(lambda: cancel_some(db, course_id, told))


def cancel_some(db: pw.Database, course_id: Key, told: Why = NOBODY, most: int = MOST_DROPPED) -> int:
    """Drop at most `most` enrollments of a course in one transaction, and give how many were dropped.

    Who waits is dropped first. Fewer than `most` were the last ones. Raises InvalidPayload, CourseNotFound,
    ConstraintViolated.
    """
    return _drop_some(db, "courses", course_id, OF_COURSE, told, most)


def _all(some: Callable[[], int]) -> int:
    dropped = last = some()
    while last >= MOST_DROPPED:
        last = some()
        dropped += last
    return dropped


def _drop_some(  # noqa: PLR0913, PLR0917 - whose enrollments, which, why and how many.
    db: pw.Database, table: Any, key: Key, statements: tuple[str, ...], told: Why, most: int
) -> int:
    with backend_of(db).atomic(db):
        (found,) = rows.find(db, table, key, "id")
        since = newest_event(db) if told is not NOBODY else 0
        pairs: list[Pair] = []
        for sql in statements:
            some: Any = fetch(db, sql, found, most - len(pairs))
            if backend_of(db).drop_each(db, some) < len(some):
                raise ConstraintViolated(LEFT_OUT)
            pairs += some
        if told is not NOBODY:
            note(db, since, dict.fromkeys(pairs, told))
    return len(pairs)


def withdraw_if_many(db: pw.Database, student_id: Key, told: Why = NOBODY, most: int = MOST_DROPPED) -> int:
    """Drop `most` enrollments of a student who has more than that, and give how many were dropped: `most`, or 0.

    Raises StudentNotFound, ConstraintViolated.
    """
    (found,) = rows.find(db, "students", student_id, "id")
    return withdraw_some(db, found, told, most) if len(fetch(db, *OF_STUDENT, found, most + 1)) > most else 0


def erase_student(db: pw.Database, student_id: Key, *, actor: str | None = None) -> None:
    """Withdraw a student, delete the student, and blank what the student's events say in words.

    The events stay, as numbers, and so does who made them. Raises InvalidPayload, StudentNotFound, ConstraintViolated.
    """
    with backend_of(db).atomic(db):
        student = find_student(db, student_id)
        withdraw(db, student.id, actor=actor)
        delete_student(db, student.id)
        for events in _pages(lambda after: list_events(db, after, student.id, limit=PAGE)):
            for some in in_groups(event.id for event in events if event.reason is not None):
                change(db, BLANK.format(_marks(some)), *some)
                if fetch(db, WORDS.format(_marks(some)), *some):
                    raise ConstraintViolated(LEFT_OUT)


def export_student(db: pw.Database, student_id: Key) -> StudentExport:
    """Give all that is kept of one student. Raises StudentNotFound."""
    student = find_student(db, student_id)
    courses = [row for page in _pages(lambda after: list_schedule(db, student.id, None, after, PAGE)) for row in page]
    events = [row for page in _pages(lambda after: list_events(db, after, student.id, limit=PAGE)) for row in page]
    given = in_groups(event.id for event in events if event.type != "dropped")
    overrides = [event_id for some in given for (event_id,) in fetch(db, OVERRIDES.format(_marks(some)), *some)]
    return StudentExport(student, courses, events, sorted(overrides))


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _pages(read: Callable[[int], list[Any]]) -> Any:
    after = 0
    while page := read(after):
        yield page
        after = page[-1].id
