"""What can be refused, in the field's own terms; `problems.py` gives each code its status.

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
├── Busy                          busy
├── StorageUnavailable            storage_unavailable
└── AsyncioOnly                   internal_error

SetupError                        before serving: a sentence that says how to mend it
├── SchemaMismatch
└── MigrationFailed
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import attrs

refusal = attrs.define(eq=False, slots=False)
"""Its fields are its arguments, so that it can be copied and pickled."""


class ServiceError(Exception):
    """A refusal: `code` is stable and for machines, `detail` is a sentence for people; fields hold what it is about."""

    code: ClassVar[str]
    sentence: ClassVar[str]

    @property
    def detail(self) -> str:
        """Give the sentence, filled in."""
        return self.sentence.format(**vars(self))

    def __str__(self) -> str:
        return self.detail


class NotFound(ServiceError):
    """Something that the request names does not exist."""


@refusal
class StudentNotFound(NotFound):
    """No student has the id."""

    code, sentence = "student_not_found", "No student has this id."
    student_id: int


@refusal
class CourseNotFound(NotFound):
    """No course has the id."""

    code, sentence = "course_not_found", "No course has this id."
    course_id: int


@refusal
class EnrollmentNotFound(NotFound):
    """The student is not enrolled in the course, or one of the two does not exist."""

    code, sentence = "enrollment_not_found", "This student is not enrolled in this course."
    student_id: int
    course_id: int


class Conflict(ServiceError):
    """The request is sound, and what is stored stands against it."""


@refusal
class AlreadyEnrolled(Conflict):
    """The student is enrolled in the course already."""

    code, sentence = "already_enrolled", "Student {student_id} is already enrolled in course {course_id}."
    student_id: int
    course_id: int


@refusal
class AlreadyWaitlisted(Conflict):
    """The student waits for a seat in the course already."""

    code, sentence = "already_waitlisted", "Student {student_id} is already on the waitlist of course {course_id}."
    student_id: int
    course_id: int


@refusal
class CourseFull(Conflict):
    """The course has neither a seat nor a place on its waitlist."""

    code, sentence = "course_full", "Course {course_id} is full, and so is its waitlist."
    course_id: int


@refusal
class CapacityBelowEnrolled(Conflict):
    """Nobody loses a seat to a smaller capacity."""

    code, sentence = "capacity_below_enrolled", "Course {course_id} has more students enrolled than this capacity."
    course_id: int


@refusal
class WaitlistCapacityBelowWaitlisted(Conflict):
    """Nobody loses a place in line to a shorter waitlist."""

    code = "waitlist_capacity_below_waitlisted"
    sentence = "Course {course_id} has more students waiting than this waitlist_capacity."
    course_id: int


@refusal
class BulkRefused(Conflict):
    """An atomic bulk enrolls all rows or none; `refusals` are those that stood in the way, by row."""

    code = "bulk_refused"
    refusals: Mapping[int, ServiceError]
    count: int

    @property
    def detail(self) -> str:
        """Count the rows."""
        return f"{len(self.refusals)} of {self.count} rows were refused, so none was kept."


@refusal
class StudentHasEnrollments(Conflict):
    """A student with enrollments is not deleted."""

    code = "student_has_enrollments"
    sentence = "Student {student_id} is enrolled or waiting somewhere; drop that first."
    student_id: int


@refusal
class CourseHasEnrollments(Conflict):
    """A course with enrollments is not deleted."""

    code, sentence = "course_has_enrollments", "Course {course_id} has students enrolled or waiting; drop them first."
    course_id: int


@refusal
class FeedRewound(Conflict):
    """The feed ends before the event that was seen last, so what comes next would be missed; `newest_id` is its end."""

    code = "feed_rewound"
    sentence = "The newest event has the id {newest_id}; the one to go on after is not in this database."
    newest_id: int


@refusal
class ConstraintViolated(Conflict):
    """A constraint or a trigger of another program, on the same database, refuses the write; `rule` is what it says."""

    code, sentence = "constraint_violated", "A rule of the database refuses this: {rule}."
    rule: str


@refusal
class Invalid(ServiceError):
    """What was sent breaks its rules; `faults` are all of (where, what), in order."""

    noun: ClassVar[str]
    faults: Sequence[tuple[str, str]]

    @property
    def detail(self) -> str:
        """Count the faults."""
        return f"The {self.noun} has {len(self.faults)} fault{'s'[: len(self.faults) != 1]}."


@refusal
class InvalidPayload(Invalid):
    """The body's JSON does not fit; where: an RFC 6901 pointer as a URI fragment."""

    code, noun = "invalid_payload", "payload"


@refusal
class InvalidQuery(Invalid):
    """The query string does not fit; where: the parameter's name."""

    code, noun = "invalid_query", "query"


@refusal
class Busy(ServiceError):
    """Too much is waiting, or another process holds the database; nothing was kept."""

    code, sentence = "busy", "{reason}"
    reason: str


@refusal
class StorageUnavailable(ServiceError):
    """The database file cannot be read or written; the sentence says what is known."""

    code, sentence = "storage_unavailable", "{reason}"
    reason: str


@refusal
class AsyncioOnly(ServiceError):
    """The host's event loop is not one that the service can run on, such as trio's."""

    code = "internal_error"
    sentence = "The service runs on asyncio only, and not on another event loop such as trio's: run it on asyncio."


class SetupError(Exception):
    """The service cannot start on this database; the text says how to mend it."""


class SchemaMismatch(SetupError):
    """The database is missing, behind the code, or ahead of it."""


class MigrationFailed(SetupError):
    """A migration failed; the database is as it was before the run."""
