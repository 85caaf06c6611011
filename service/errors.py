"""What can be refused, in the field's own terms; `problems.py` gives each code its status.

ServiceError                      while serving: a code, and a sentence as `detail`
├── NotFound
│   ├── StudentNotFound           student_not_found
│   ├── CourseNotFound            course_not_found
│   └── EnrollmentNotFound        enrollment_not_found
├── Conflict
│   ├── AlreadyEnrolled           already_enrolled
│   ├── StudentHasEnrollments     student_has_enrollments
│   └── CourseHasEnrollments      course_has_enrollments
├── Invalid                       with every fault at once
│   ├── InvalidPayload            invalid_payload
│   └── InvalidQuery              invalid_query
├── Busy                          busy
└── StorageUnavailable            storage_unavailable

SetupError                        before serving: a sentence that says how to mend it
├── SchemaMismatch
└── MigrationFailed
"""

from collections.abc import Sequence
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


class StudentHasEnrollments(Conflict):
    """A student with enrollments is not deleted."""

    code, sentence = "student_has_enrollments", "Student {} has enrollments; drop them first."


class CourseHasEnrollments(Conflict):
    """A course with enrollments is not deleted."""

    code, sentence = "course_has_enrollments", "Course {} has enrollments; drop them first."


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


class SetupError(Exception):
    """The service cannot start on this database; the text says how to mend it."""


class SchemaMismatch(SetupError):
    """The database is missing, behind the code, or ahead of it."""


class MigrationFailed(SetupError):
    """A migration failed; the database is as it was before the run."""
