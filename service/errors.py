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


class ServiceError(Exception):
    """A refusal: `code` is stable and for machines, `detail` is a sentence for people."""

    code: str
    sentence: ClassVar[str] = "{}"

    def __init__(self, *values: object) -> None:
        """Fill the sentence."""
        self.detail = self.sentence.format(*values)
        super().__init__(self.detail)


class NotFound(ServiceError):
    """Something that the request names does not exist."""


class StudentNotFound(NotFound):
    """No student has the id."""

    code, sentence = "student_not_found", "No student has this id."


class CourseNotFound(NotFound):
    """No course has the id."""

    code, sentence = "course_not_found", "No course has this id."


class EnrollmentNotFound(NotFound):
    """The student is not enrolled in the course, or one of the two does not exist."""

    code, sentence = "enrollment_not_found", "This student is not enrolled in this course."


class Conflict(ServiceError):
    """The request is sound, and what is stored stands against it."""


class AlreadyEnrolled(Conflict):
    """The student is enrolled in the course already."""

    code, sentence = "already_enrolled", "Student {} is already enrolled in course {}."


class AlreadyWaitlisted(Conflict):
    """The student waits for a seat in the course already."""

    code, sentence = "already_waitlisted", "Student {} is already on the waitlist of course {}."


class CourseFull(Conflict):
    """The course has neither a seat nor a place on its waitlist."""

    code, sentence = "course_full", "Course {} is full, and so is its waitlist."


class CapacityBelowEnrolled(Conflict):
    """Nobody loses a seat to a smaller capacity."""

    code, sentence = "capacity_below_enrolled", "Course {} has more students enrolled than this capacity."


class WaitlistCapacityBelowWaitlisted(Conflict):
    """Nobody loses a place in line to a shorter waitlist."""

    code = "waitlist_capacity_below_waitlisted"
    sentence = "Course {} has more students waiting than this waitlist_capacity."


class BulkRefused(Conflict):
    """An atomic bulk enrolls all rows or none; `refusals` are those that stood in the way, by row."""

    code, sentence = "bulk_refused", "{} of {} rows were refused, so none was kept."

    def __init__(self, refusals: Mapping[int, ServiceError], count: int) -> None:
        """Count the rows in the sentence."""
        super().__init__(len(refusals), count)
        self.refusals = refusals


class StudentHasEnrollments(Conflict):
    """A student with enrollments is not deleted."""

    code, sentence = "student_has_enrollments", "Student {} is enrolled or waiting somewhere; drop that first."


class CourseHasEnrollments(Conflict):
    """A course with enrollments is not deleted."""

    code, sentence = "course_has_enrollments", "Course {} has students enrolled or waiting; drop them first."


class ConstraintViolated(Conflict):
    """A rule in the database that is not the service's own, such as a host's, stands against it."""

    code, sentence = "constraint_violated", "A rule of the database refuses this: {}."


class Invalid(ServiceError):
    """What was sent breaks its rules; `faults` are all of (where, what), in order."""

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        """Count the faults in the sentence."""
        super().__init__("1 fault" if len(faults) == 1 else f"{len(faults)} faults")
        self.faults = faults


class InvalidPayload(Invalid):
    """The body's JSON does not fit; where: an RFC 6901 pointer as a URI fragment."""

    code, sentence = "invalid_payload", "The payload has {}."


class InvalidQuery(Invalid):
    """The query string does not fit; where: the parameter's name."""

    code, sentence = "invalid_query", "The query has {}."


class Busy(ServiceError):
    """Too much is waiting, or another process holds the database; nothing was kept."""

    code = "busy"


class StorageUnavailable(ServiceError):
    """The database file cannot be read or written; the sentence says what is known."""

    code = "storage_unavailable"


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
