"""Add, find, list, change and delete courses."""

from collections.abc import Container, Mapping
from functools import partial
from typing import Any

import msgspec
import peewee as pw

from service import rows
from service.errors import (
    CapacityBelowEnrolled,
    CourseHasEnrollments,
    InvalidPayload,
    ServiceError,
    WaitlistCapacityBelowWaitlisted,
)
from service.fields import (
    CAPACITY,
    EXTERNAL_ID_OR_NULL,
    ID_OR_NULL,
    MOMENT_OR_NULL,
    NAME,
    Availability,
    checked,
    pointer,
    sought,
)
from service.rows import Key, external_key, find_id, not_found
from service.storage import backend_of

FIELDS = {
    "name": NAME,
    "level": NAME,
    "capacity": CAPACITY,
    "waitlist_capacity": CAPACITY,
    "external_id": EXTERNAL_ID_OR_NULL,
    "term_id": ID_OR_NULL,
    "opens_at": MOMENT_OR_NULL,
    "closes_at": MOMENT_OR_NULL,
}
"""The fields of a course that a caller may set, each with its rule."""

# This is not written as `capacity IS NULL OR enrolled < capacity`, because SQLite 3.38 to 3.40 at least take IS NULL
# for false in a RETURNING where the INTEGER PRIMARY KEY is declared NOT NULL, as it is here.
# https://sqlite.work/sqlite-update-returning-clause-incorrectly-handles-is-null-condition
COLUMNS = """
    id, name, level, capacity, waitlist_capacity, enrolled, waitlisted, capacity - enrolled AS seats_left,
    CASE WHEN coalesce(opens_at > {now}, FALSE) THEN 'not_open'
         WHEN coalesce(closes_at <= {now}, FALSE) THEN 'closed'
         WHEN coalesce(enrolled < capacity, TRUE) THEN 'open'
         WHEN coalesce(waitlisted < waitlist_capacity, TRUE) THEN 'waitlist'
         ELSE 'full' END AS availability,
    external_id, term_id, opens_at, closes_at"""
HAS_ENROLLMENTS = "SELECT 1 FROM enrollments WHERE course_id = ? LIMIT 1"


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
    external_id: str | None = None
    """The school's own code of the course; no two courses have the same."""
    term_id: int | None = None
    opens_at: str | None = None
    """From when on students may enroll, as RFC 3339 in UTC; None for no bound."""
    closes_at: str | None = None
    """From when on no student may enroll any more, as RFC 3339 in UTC; None for no bound."""


def _columns(db: pw.Database) -> str:
    return COLUMNS.format(now=backend_of(db).NOW)


def insert_course(
    db: pw.Database,
    name: str,
    level: str,
    capacity: int | None = None,
    waitlist_capacity: int | None = 0,
    **more: Any,
) -> CourseRecord:
    """Add a course, with an id that was never given before.

    `more` may be external_id, term_id, opens_at and closes_at. Raises InvalidPayload, TermNotFound, ExternalIdTaken,
    ConstraintViolated.
    """
    values = {"name": name, "level": level, "capacity": capacity, "waitlist_capacity": waitlist_capacity}
    return add_course(db, values | more)


def add_course(db: pw.Database, values: Mapping[str, Any]) -> CourseRecord:
    """Add a course with the given columns. Raises InvalidPayload, TermNotFound, ExternalIdTaken, ConstraintViolated."""
    kept = new_course(values)
    return CourseRecord(*rows.insert(db, "courses", kept, _columns(db), lambda: _no_term(db, kept)))


def new_course(values: Mapping[str, Any]) -> dict[str, Any]:
    """Give the columns of a new course in the form that is stored. Raises InvalidPayload."""
    kept = checked(FIELDS, values, required=("name", "level"))
    _check_window(kept, kept)
    return kept


def _check_window(values: Mapping[str, Any], given: Container[str]) -> None:
    """Hold the bounds of a course against each other, of which the caller has given one or both."""
    opens_at, closes_at = values.get("opens_at"), values.get("closes_at")
    if opens_at and closes_at and closes_at <= opens_at:
        late, early = ("closes_at", "must be after opens_at"), ("opens_at", "must be before closes_at")
        where, what = late if "closes_at" in given else early
        raise InvalidPayload([(pointer(where), what)])


def _no_term(db: pw.Database, values: Mapping[str, Any]) -> ServiceError | None:
    """Give the refusal of values whose term does not exist, or None."""
    term_id = values.get("term_id")
    return not_found("terms", term_id) if term_id and not rows.exists(db, "terms", term_id) else None


def find_course(db: pw.Database, course_id: Key) -> CourseRecord:
    """Give one course. Raises CourseNotFound."""
    return CourseRecord(*rows.find(db, "courses", course_id, _columns(db)))


def list_courses(  # noqa: PLR0913 - a list is asked for in so many ways.
    db: pw.Database,
    prefix: str | None = None,
    level: str | None = None,
    after: tuple[int] | tuple[str | bytes, int] | None = None,
    limit: int = 100,
    *,
    q: str | None = None,
    external_id: str | None = None,
    term_id: int | None = None,
) -> list[CourseRecord]:
    """Give at most `limit` courses by id or, with a prefix of the name or a search, by (name, id).

    Every word of the search `q` begins a word of the name or the external id. They are those of one level, with one
    external id and of one term, or all. `after` is the key of the last row before this page, (id,) or (name, id).
    Raises InvalidQuery.
    """
    given = sought(name=prefix, q=q, level=level, external_id=external_id, term_id=term_id)
    found = rows.listed(db, "courses", _columns(db), given, after, limit)
    return [CourseRecord(*row) for row in found]


def update_course(db: pw.Database, course_id: Key, changes: Mapping[str, str | int | None]) -> CourseRecord:
    """Change the given columns of a course; if the capacity rises, students from the waitlist get the new seats.

    Raises InvalidPayload, CourseNotFound, TermNotFound, ExternalIdTaken, CapacityBelowEnrolled, ConstraintViolated, and
    WaitlistCapacityBelowWaitlisted if the students who are still waiting after that are more than the new waitlist has.
    """
    kept = checked(FIELDS, changes)
    # Of several rules that the changes break, the database names the one that it comes to first. The external id goes
    # first, and behind the capacity, which may give seats to who waits, the waitlist.
    first = {name: kept.pop(name) for name in ("external_id",) if name in kept}
    last = {name: kept.pop(name) for name in ("waitlist_capacity",) if name in kept}
    with backend_of(db).atomic(db):
        course = find_course(db, course_id)
        _check_window(msgspec.structs.asdict(course) | kept, kept)
        for columns in (first, kept, last):
            rows.update(db, "courses", course.id, columns, partial(_refused, db, course.id, columns))
        return find_course(db, course.id)


def _refused(db: pw.Database, course_id: int, columns: Mapping[str, Any]) -> ServiceError | None:
    course = find_course(db, course_id)
    seats, places = columns.get("capacity"), columns.get("waitlist_capacity")
    if seats is not None and seats < course.enrolled:
        return CapacityBelowEnrolled(course_id)
    if places is not None and places < course.waitlisted:
        return WaitlistCapacityBelowWaitlisted(course_id)
    return _no_term(db, columns)


def put_course(db: pw.Database, external_id: str, values: Mapping[str, Any]) -> tuple[CourseRecord, bool]:
    """Add the course with an external id, or change the given columns of the one that has it; tell whether it is new.

    Raises InvalidPayload, and what `update_course` raises.
    """
    key = external_key(external_id)
    values = {**values, "external_id": key.text}
    with backend_of(db).atomic(db):
        if find_id(db, "courses", key):
            return update_course(db, key, values), False
        return add_course(db, values), True


def delete_course(db: pw.Database, course_id: Key) -> None:
    """Delete a course. Raises CourseNotFound, CourseHasEnrollments, ConstraintViolated."""
    rows.delete(db, "courses", course_id, HAS_ENROLLMENTS, CourseHasEnrollments)
