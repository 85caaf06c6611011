"""Every refusal, as a tree, in the field's own terms; `http/problems.py` gives each code its status.

A code is the name of its class in small letters, such as student_not_found; that of Failed is internal_error.

ServiceError                      while serving: a code, and a sentence as `detail`
├── NotFound
│   └── StudentNotFound, CourseNotFound, TermNotFound, EnrollmentNotFound; TokenNotFound in `tokens.py`
├── Conflict
│   ├── AlreadyEnrolled, AlreadyWaitlisted, EnrollmentNotOpen, EnrollmentClosed, CourseFull, and its kind SeatNeeded
│   ├── ExternalIdTaken, CapacityBelowEnrolled, WaitlistCapacityBelowWaitlisted
│   ├── StudentHasEnrollments, CourseHasEnrollments, TermHasCourses
│   ├── BulkRefused, FeedRewound; TokenEnded in `tokens.py`
│   └── ConstraintViolated        a rule of another program
├── Invalid                       with every fault at once
│   └── InvalidPayload, InvalidQuery
├── Edge                          what HTTP itself refuses, before any rule is asked: see `http/edge.py`
└── Busy, StorageUnavailable, Failed (a defect), and its kind AsyncioOnly

SetupError, SchemaMismatch, MigrationFailed           before serving: a sentence that says how to mend it
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import attrs

with_data = attrs.define(eq=False, slots=False)
"""The fields of a refusal are its arguments, so that it can be copied and pickled."""


class ServiceError(Exception):
    """A refusal: `code` is stable and for machines, `detail` is a sentence for people; fields hold what it is about."""

    code: ClassVar[str]
    sentence: ClassVar[str]

    @property
    def detail(self) -> str:
        """Give the sentence, with the refusal's fields filled in."""
        return self.sentence.format(**vars(self))

    def __str__(self) -> str:
        return self.detail


class NotFound(ServiceError):
    """Something that the request names does not exist."""

    @property
    def detail(self) -> str:
        """Give the sentence, which names the external id where the request has one instead of an id."""
        given = [value for name, value in vars(self).items() if name.endswith("_external_id") and value is not None]
        return self.sentence.replace("this id", f"the external id {given[0]!r}") if given else super().detail


@with_data
class StudentNotFound(NotFound):
    """No student has the id, or the external id."""

    code, sentence = "student_not_found", "No student has this id."
    student_id: int
    student_external_id: str | None = None


@with_data
class CourseNotFound(NotFound):
    """No course has the id, or the external id."""

    code, sentence = "course_not_found", "No course has this id."
    course_id: int
    course_external_id: str | None = None


@with_data
class TermNotFound(NotFound):
    """No term has the id, or the external id."""

    code, sentence = "term_not_found", "No term has this id."
    term_id: int
    term_external_id: str | None = None


@with_data
class EnrollmentNotFound(NotFound):
    """The student is not enrolled in the course, or one of the two does not exist."""

    code, sentence = "enrollment_not_found", "This student is not enrolled in this course."
    student_id: int
    course_id: int
    student_external_id: str | None = None
    course_external_id: str | None = None


class Conflict(ServiceError):
    """The request is valid, but the rows in the database do not allow it."""


@with_data
class AlreadyEnrolled(Conflict):
    """The student is enrolled in the course already."""

    code, sentence = "already_enrolled", "Student {student_id} is already enrolled in course {course_id}."
    student_id: int
    course_id: int


@with_data
class AlreadyWaitlisted(Conflict):
    """The student waits for a seat in the course already."""

    code, sentence = "already_waitlisted", "Student {student_id} is already on the waitlist of course {course_id}."
    student_id: int
    course_id: int


@with_data
class CourseFull(Conflict):
    """The course has neither a seat nor a place on its waitlist."""

    code, sentence = "course_full", "Course {course_id} is full, and so is its waitlist."
    course_id: int


@with_data
class SeatNeeded(CourseFull):
    """The course has a place in line, which is not enough for a swap."""

    sentence = "Course {course_id} has no free seat; with or_wait the student joins the line and keeps the other."


@with_data
class EnrollmentNotOpen(Conflict):
    """The window of enrolling in the course opens later, at `opens_at` (RFC 3339 in UTC)."""

    code, sentence = "enrollment_not_open", "Course {course_id} opens for enrolling at {opens_at}."
    course_id: int
    opens_at: str | None


@with_data
class EnrollmentClosed(Conflict):
    """The window of enrolling in the course has closed, at `closes_at` (RFC 3339 in UTC)."""

    code, sentence = "enrollment_closed", "Course {course_id} closed for enrolling at {closes_at}."
    course_id: int
    closes_at: str | None


@with_data
class ExternalIdTaken(Conflict):
    """Another row of the same kind has the external id."""

    code, sentence = "external_id_taken", "Another one of the {table} has the external id {external_id!r}."
    table: str
    external_id: str


@with_data
class CapacityBelowEnrolled(Conflict):
    """Nobody loses a seat to a smaller capacity."""

    code, sentence = "capacity_below_enrolled", "Course {course_id} has more students enrolled than this capacity."
    course_id: int


@with_data
class WaitlistCapacityBelowWaitlisted(Conflict):
    """Nobody loses a place in line to a shorter waitlist."""

    code = "waitlist_capacity_below_waitlisted"
    sentence = "Course {course_id} has more students waiting than this waitlist_capacity."
    course_id: int


@with_data
class BulkRefused(Conflict):
    """An atomic bulk enrolled no row, because some were refused; `refusals` has each by its row's index."""

    code = "bulk_refused"
    refusals: Mapping[int, ServiceError]
    count: int

    @property
    def detail(self) -> str:
        """Count the rows."""
        return f"{len(self.refusals)} of {self.count} rows were refused, so none was kept."


@with_data
class StudentHasEnrollments(Conflict):
    """A student with enrollments is not deleted."""

    code = "student_has_enrollments"
    sentence = "Student {student_id} is enrolled or waiting somewhere; drop that first."
    student_id: int


@with_data
class CourseHasEnrollments(Conflict):
    """A course with enrollments is not deleted."""

    code, sentence = "course_has_enrollments", "Course {course_id} has students enrolled or waiting; drop them first."
    course_id: int


@with_data
class TermHasCourses(Conflict):
    """A term with courses is not deleted."""

    code, sentence = "term_has_courses", "Term {term_id} has courses; delete them, or give them another term, first."
    term_id: int


@with_data
class FeedRewound(Conflict):
    """The client's last event is not in the feed, so it would miss the next ones; `newest_id` is the newest there."""

    code = "feed_rewound"
    sentence = "The newest event has the id {newest_id}; the one to go on after is not in this database."
    newest_id: int


@with_data
class ConstraintViolated(Conflict):
    """A constraint or a trigger of another program, on the same database, refuses the write; `rule` is what it says."""

    code, sentence = "constraint_violated", "A rule of the database refuses this: {rule}."
    rule: str


@with_data
class Invalid(ServiceError):
    """A payload or a query breaks its rules; `faults` are the first ones, as (where, what), of `left_out` more."""

    faults: Sequence[tuple[str, str]]
    left_out: int = 0

    @property
    def detail(self) -> str:
        """Count the faults, and say where not all of them are listed."""
        count = len(self.faults) + self.left_out
        told = f"The {self.code.removeprefix('invalid_')} has {count} fault{'s'[: count != 1]}."
        return f"{told} The answer lists {len(self.faults) or 'none'} of them." if self.left_out else told


@with_data
class InvalidPayload(Invalid):
    """The body's JSON does not fit; where: an RFC 6901 pointer as a URI fragment."""

    code = "invalid_payload"


@with_data
class InvalidQuery(Invalid):
    """The query string does not fit; where: the parameter's name."""

    code = "invalid_query"


@with_data
class Busy(ServiceError):
    """Too many writes are waiting, or another process holds a lock on the database; nothing was kept."""

    code, sentence = "busy", "{reason}"
    reason: str


@with_data
class StorageUnavailable(ServiceError):
    """The database file cannot be read or written; the sentence says what failed, and whether anything was kept."""

    code, sentence = "storage_unavailable", "{reason}"
    reason: str


@with_data
class Failed(ServiceError):
    """The service has a defect, which its log describes."""

    code, sentence = "internal_error", "The service failed; its log says why."


@with_data
class AsyncioOnly(Failed):
    """The host program runs an event loop that the service cannot run on, such as trio's."""

    sentence = "The service runs on asyncio only, and not on another event loop such as trio's: run it on asyncio."


class SetupError(Exception):
    """The service cannot start on this database; the text says how to mend it."""


class SchemaMismatch(SetupError):
    """The database is missing, behind the code, or ahead of it."""


class MigrationFailed(SetupError):
    """A migration failed; the database is as it was before the run."""
