"""Every refusal, as a tree, in the field's own terms; `http/problems.py` gives each code its status.

ServiceError                      while serving: a code, and a sentence as `detail`
├── NotFound
│   ├── StudentNotFound           student_not_found
│   ├── CourseNotFound            course_not_found
│   └── EnrollmentNotFound        enrollment_not_found
├── Conflict
│   ├── AlreadyEnrolled           already_enrolled
│   ├── AlreadyWaitlisted         already_waitlisted
│   ├── CourseFull                course_full
│   ├── CapacityBelowEnrolled     capacity_below_enrolled
│   ├── WaitlistCapacityBelowWaitlisted   waitlist_capacity_below_waitlisted
│   ├── BulkRefused               bulk_refused
│   ├── StudentHasEnrollments     student_has_enrollments
│   ├── CourseHasEnrollments      course_has_enrollments
│   ├── FeedRewound               feed_rewound
│   └── ConstraintViolated        constraint_violated
├── Invalid                       with every fault at once
│   ├── InvalidPayload            invalid_payload
│   └── InvalidQuery              invalid_query
├── Edge                          what HTTP itself refuses, before any rule is asked
│   ├── MalformedJson             malformed_json
│   ├── NothingThere              not_found
│   ├── MethodNotAllowed          method_not_allowed
│   ├── PayloadTooLarge           payload_too_large
│   └── UnsupportedMediaType      unsupported_media_type
├── Busy                          busy
├── StorageUnavailable            storage_unavailable
└── Failed                        internal_error: a defect
    └── AsyncioOnly               internal_error

SetupError                        before serving: a sentence that says how to mend it
├── SchemaMismatch
└── MigrationFailed
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import attrs

_with_data = attrs.define(eq=False, slots=False)
"""The fields of a refusal are its arguments, so that it can be copied and pickled."""

Headers = tuple[tuple[bytes, bytes], ...]  # As ASGI has them: names in small letters.


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


@_with_data
class StudentNotFound(NotFound):
    """No student has the id."""

    code, sentence = "student_not_found", "No student has this id."
    student_id: int


@_with_data
class CourseNotFound(NotFound):
    """No course has the id."""

    code, sentence = "course_not_found", "No course has this id."
    course_id: int


@_with_data
class EnrollmentNotFound(NotFound):
    """The student is not enrolled in the course, or one of the two does not exist."""

    code, sentence = "enrollment_not_found", "This student is not enrolled in this course."
    student_id: int
    course_id: int


class Conflict(ServiceError):
    """The request is valid, but the rows in the database do not allow it."""


@_with_data
class AlreadyEnrolled(Conflict):
    """The student is enrolled in the course already."""

    code, sentence = "already_enrolled", "Student {student_id} is already enrolled in course {course_id}."
    student_id: int
    course_id: int


@_with_data
class AlreadyWaitlisted(Conflict):
    """The student waits for a seat in the course already."""

    code, sentence = "already_waitlisted", "Student {student_id} is already on the waitlist of course {course_id}."
    student_id: int
    course_id: int


@_with_data
class CourseFull(Conflict):
    """The course has neither a seat nor a place on its waitlist."""

    code, sentence = "course_full", "Course {course_id} is full, and so is its waitlist."
    course_id: int


@_with_data
class CapacityBelowEnrolled(Conflict):
    """Nobody loses a seat to a smaller capacity."""

    code, sentence = "capacity_below_enrolled", "Course {course_id} has more students enrolled than this capacity."
    course_id: int


@_with_data
class WaitlistCapacityBelowWaitlisted(Conflict):
    """Nobody loses a place in line to a shorter waitlist."""

    code = "waitlist_capacity_below_waitlisted"
    sentence = "Course {course_id} has more students waiting than this waitlist_capacity."
    course_id: int


@_with_data
class BulkRefused(Conflict):
    """An atomic bulk enrolled no row, because some were refused; `refusals` has each by its row's index."""

    code = "bulk_refused"
    refusals: Mapping[int, ServiceError]
    count: int

    @property
    def detail(self) -> str:
        """Count the rows."""
        return f"{len(self.refusals)} of {self.count} rows were refused, so none was kept."


@_with_data
class StudentHasEnrollments(Conflict):
    """A student with enrollments is not deleted."""

    code = "student_has_enrollments"
    sentence = "Student {student_id} is enrolled or waiting somewhere; drop that first."
    student_id: int


@_with_data
class CourseHasEnrollments(Conflict):
    """A course with enrollments is not deleted."""

    code, sentence = "course_has_enrollments", "Course {course_id} has students enrolled or waiting; drop them first."
    course_id: int


@_with_data
class FeedRewound(Conflict):
    """The client's last event is not in the feed, so it would miss the next ones; `newest_id` is the newest there."""

    code = "feed_rewound"
    sentence = "The newest event has the id {newest_id}; the one to go on after is not in this database."
    newest_id: int


@_with_data
class ConstraintViolated(Conflict):
    """A constraint or a trigger of another program, on the same database, refuses the write; `rule` is what it says."""

    code, sentence = "constraint_violated", "A rule of the database refuses this: {rule}."
    rule: str


@_with_data
class Invalid(ServiceError):
    """A payload or a query breaks its rules; `faults` are all of its faults, as (where, what), in order."""

    noun: ClassVar[str]
    faults: Sequence[tuple[str, str]]

    @property
    def detail(self) -> str:
        """Count the faults."""
        return f"The {self.noun} has {len(self.faults)} fault{'s'[: len(self.faults) != 1]}."


@_with_data
class InvalidPayload(Invalid):
    """The body's JSON does not fit; where: an RFC 6901 pointer as a URI fragment."""

    code, noun = "invalid_payload", "payload"


@_with_data
class InvalidQuery(Invalid):
    """The query string does not fit; where: the parameter's name."""

    code, noun = "invalid_query", "query"


@_with_data
class Busy(ServiceError):
    """Too many writes are waiting, or another process holds a lock on the database; nothing was kept."""

    code, sentence = "busy", "{reason}"
    reason: str


@_with_data
class StorageUnavailable(ServiceError):
    """The database file cannot be read or written; the sentence says what failed, and whether anything was kept."""

    code, sentence = "storage_unavailable", "{reason}"
    reason: str


@_with_data
class Failed(ServiceError):
    """The service has a defect, which its log describes."""

    code, sentence = "internal_error", "The service failed; its log says why."


@_with_data
class AsyncioOnly(Failed):
    """The host program runs an event loop that the service cannot run on, such as trio's."""

    sentence = "The service runs on asyncio only, and not on another event loop such as trio's: run it on asyncio."


class Edge(ServiceError):
    """A request that HTTP itself refuses, before any rule is run; `headers` are those that the status calls for."""

    headers: Headers = ()


@_with_data
class MalformedJson(Edge):
    """The body is not JSON; `reason` is what the parser says."""

    code, sentence = "malformed_json", "The body is not JSON: {reason}."
    reason: str


@_with_data
class NothingThere(Edge):
    """The path is not one of the API's."""

    code, sentence = "not_found", "There is nothing at this path."


@_with_data
class MethodNotAllowed(Edge):
    """The path has other methods, which the header Allow lists."""

    code, sentence = "method_not_allowed", "This path does not have that method."
    headers: Headers = ()


@_with_data
class PayloadTooLarge(Edge):
    """The body has more than `limit` bytes."""

    code, sentence = "payload_too_large", "The body is over {limit:,} bytes."
    limit: int


@_with_data
class UnsupportedMediaType(Edge):
    """The body is of a type, a charset or a coding that is not accepted; `reason` says what came, and what is."""

    code, sentence = "unsupported_media_type", "{reason}"
    reason: str
    headers: Headers = ()


class SetupError(Exception):
    """The service cannot start on this database; the text says how to mend it."""


class SchemaMismatch(SetupError):
    """The database is missing, behind the code, or ahead of it."""


class MigrationFailed(SetupError):
    """A migration failed; the database is as it was before the run."""
