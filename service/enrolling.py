"""Enroll many students, one after the other: what each row asks for, and the result that each row gets.

The database decides who gets what: the CHECKs of the table courses are the limits, and triggers give a seat or a place
in line, keep the counts, promote the first student on the waitlist, and write the event (see migrations 003 to 006).
"""

import math
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, NamedTuple, get_args

import attrs
import msgspec
import peewee as pw

from service.errors import (
    AlreadyEnrolled,
    AlreadyWaitlisted,
    CourseFull,
    CourseNotFound,
    EnrollmentClosed,
    EnrollmentNotFound,
    EnrollmentNotOpen,
    ServiceError,
    StudentNotFound,
)
from service.events import NOBODY, Why, newest_event, note
from service.fields import MAX_ID, Status, timestamp
from service.overrides import override
from service.rows import ExternalId, Key, find_each, find_id, not_found
from service.storage import Outcome, Pair, backend_of, fetch, fetch_one

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
WINDOW = "SELECT opens_at, closes_at FROM courses WHERE id = ?"


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


STATUSES: Mapping[str, Status] = {status: status for status in get_args(Status)}
"""The outcomes that are no refusal."""
REFUSALS: Mapping[str, Any] = {
    refusal.code: refusal
    for refusal in (AlreadyEnrolled, AlreadyWaitlisted, EnrollmentNotOpen, EnrollmentClosed, CourseFull)
}
"""The refusals of an enrollment by the triggers of the service, by the code with which the trigger's message begins,
where the student and the course are there."""


class Asked(NamedTuple):
    """What a caller asks for: to enroll a student in a course, each named by its id or its external id.

    With `override` the student gets a seat past the rules. `why` says who asks, and why.
    """

    student_id: Key
    course_id: Key
    override: bool = False
    why: Why = NOBODY


Row = tuple[Key, Key] | Asked | ServiceError
"""A student and a course to enroll, or a refusal where the caller's input named no two of them."""
Result = EnrollmentRecord | ServiceError
"""The enrollment of a row, or the row's refusal."""


def enroll_each(
    db: pw.Database, rows: Sequence[Row], now: datetime | None = None, until: float = math.inf
) -> list[Result]:
    """Enroll one row after the other within the caller's transaction, and give each row's result, in order.

    A row's result is the enrollment as it is after the row's own statement, or the refusal that `enroll` would raise;
    for a row that is a refusal it is the row. After `until`, in seconds of the monotonic clock, no further row is begun
    except the first one. Raises ConstraintViolated where a trigger of another program undid the caller's transaction.
    """
    moment = timestamp(now or datetime.now(UTC))
    if Asked not in {*map(type, rows)}:
        return _insert_each(db, rows, moment, until)
    results: list[Result] = []
    for past_the_rules, group in groupby(rows, lambda row: isinstance(row, Asked) and row.override):
        if results and time.monotonic() > until:
            break
        some = [*group]
        done = (_override_each if past_the_rules else _insert_each)(db, some, moment, until)
        results += done
        if len(done) < len(some):
            break
    return results


def enroll_pairs(db: pw.Database, pairs: Sequence[Pair], until: float) -> list[Status | ServiceError]:
    """Enroll pairs of ids as `enroll_each` does, and give of each pair's result only the status, or the refusal.

    It takes a quarter of the time of Python that `enroll_each` takes, which makes a record for each pair.
    """
    outcomes = backend_of(db).insert_each(db, pairs, timestamp(datetime.now(UTC)), until)
    return [
        (isinstance(outcome, tuple) and STATUSES.get(outcome[0])) or _refusal(db, pair, outcome, pair)
        for outcome, pair in zip(outcomes, pairs, strict=False)
    ]


def _pairs(db: pw.Database, rows: Sequence[Any]) -> list[Pair]:
    """Give the pair of each row that is no refusal, with 0 for an id that no row can have or has."""
    asked = [row for row in rows if not isinstance(row, ServiceError)]
    students = find_each(db, "students", [row[0] for row in asked])
    return [*zip(students, find_each(db, "courses", [row[1] for row in asked]), strict=True)]


def _has_ids(row: Any) -> bool:
    """Tell whether a row has the ids of a student and of a course, so that nothing is to be looked up."""
    return (
        isinstance(row, tuple) and type(row[0]) is type(row[1]) is int and 0 < row[0] <= MAX_ID and 0 < row[1] <= MAX_ID
    )


def _insert_each(db: pw.Database, rows: Sequence[Any], moment: str, until: float) -> list[Result]:
    told = Asked in {*map(type, rows)}
    since = newest_event(db) if told else 0
    pairs: list[Pair] = [row[:2] for row in rows] if all(map(_has_ids, rows)) else _pairs(db, rows)
    outcomes = iter(zip(backend_of(db).insert_each(db, pairs, moment, until), pairs, strict=False))
    results: list[Result] = []
    for row in rows:
        if isinstance(row, ServiceError):
            results.append(row)
        elif found := next(outcomes, None):
            results.append(_result(db, row, *found))
        else:
            break
    if told:
        made = [(row, each) for row, each in zip(rows, results, strict=False) if isinstance(row, Asked)]
        whys = {(each.student_id, each.course_id): row.why for row, each in made if isinstance(each, EnrollmentRecord)}
        note(db, since, {pair: why for pair, why in whys.items() if why is not NOBODY})
    return results


def _override_each(db: pw.Database, rows: Sequence[Any], moment: str, until: float) -> list[Result]:
    results: list[Result] = []
    for row in rows:
        if results and time.monotonic() > until:
            break
        pair = find_id(db, "students", row.student_id), find_id(db, "courses", row.course_id)
        try:
            override(db, pair, moment, row.why)
            results.append(find_enrollment(db, *pair))
        except (StudentNotFound, CourseNotFound) as error:
            results.append(_missing(row, error.code))
        except ServiceError as error:
            results.append(error)
    return results


def _missing(row: Any, code: str) -> ServiceError:
    """Give the refusal of a row whose student or course is not there, with the key that the row has for it."""
    return not_found("students", row[0]) if code == StudentNotFound.code else not_found("courses", row[1])


def _result(db: pw.Database, row: Any, outcome: Outcome, pair: Pair) -> Result:
    if isinstance(outcome, tuple) and (status := STATUSES.get(outcome[0])):
        _, enrolled_at, position = outcome
        return EnrollmentRecord(*pair, enrolled_at, status, position)
    return _refusal(db, row, outcome, pair)


def _refusal(db: pw.Database, row: Any, outcome: Outcome, pair: Pair) -> ServiceError:
    if isinstance(outcome, ServiceError):
        return outcome
    word = outcome[0]
    if word in {StudentNotFound.code, CourseNotFound.code}:
        return _missing(row, word)
    told = dict(zip(("student_id", "course_id"), pair, strict=True))
    if word in {EnrollmentNotOpen.code, EnrollmentClosed.code}:
        told |= dict(zip(("opens_at", "closes_at"), *fetch(db, WINDOW, pair[1]), strict=True))
    refusal: ServiceError = REFUSALS[word](**{each.name: told[each.name] for each in attrs.fields(REFUSALS[word])})
    return refusal


def find_enrollment(db: pw.Database, student_id: Key, course_id: Key) -> EnrollmentRecord:
    """Give the enrollment of a student in a course. Raises EnrollmentNotFound."""
    pair = find_id(db, "students", student_id), find_id(db, "courses", course_id)
    row = fetch_one(db, FIND_ENROLLMENT, *pair)
    if row is None:
        keys = zip((student_id, course_id), pair, strict=True)
        unknown = [key.text if isinstance(key, ExternalId) and not found else None for key, found in keys]
        raise EnrollmentNotFound(*pair, *unknown)
    return EnrollmentRecord(*row)
