"""Describe the bodies that clients send, as attrs classes; the type of each field has the field's rule."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeVar

import attrs
import msgspec

from service.fields import (
    EXTERNAL_ID,
    Capacity,
    DayOrNull,
    EmailOrNull,
    ExternalIdOrNull,
    Field,
    Flag,
    Id,
    IdOrNull,
    MomentOrNull,
    Name,
    NameOrNull,
    Token,
    integer,
)
from service.rows import ExternalId, Key
from service.tokens import SCOPES

ABSENT: Any = msgspec.UNSET
MAX_GRACE = 720
"""The most hours that the secret before a rotation may count: thirty days."""

OneExternalId = Annotated[ExternalId, Field(ExternalId, EXTERNAL_ID.schema)]
"""The external id of a row that must be there."""


def _scopes(value: object) -> list[str]:
    if not (isinstance(value, list) and value and all(each in SCOPES for each in value)):
        raise ValueError(f"must be a list of some of {', '.join(SCOPES)}")
    return value


Scopes = Annotated[
    list[str],
    Field(_scopes, {"type": "array", "items": {"type": "string", "enum": [*SCOPES]}, "minItems": 1}),
]
"""The scopes of a token, at least one."""
Hours = Annotated[int, integer(0, MAX_GRACE)]


class Payload:
    """A JSON object in the body of a request."""

    __slots__ = ()

    OPTIONAL: ClassVar[bool] = False
    """Whether the request may come without a body, which then counts as an object without members."""
    EITHER: ClassVar[Sequence[tuple[str, str]]] = ()
    """Pairs of members, such as course_id and course_external_id, of which exactly one must be there."""
    WHOLE: ClassVar[Mapping[str, Any]] = {}
    """The part of the faults of the object as a whole, beside `EITHER`, that JSON Schema can express."""

    @classmethod
    def faults(cls, value: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Give the faults of the object as a whole, as (member, what)."""
        found = []
        for one, other in cls.EITHER:
            if (one in value) == (other in value):
                found.append(
                    (one, f"must not come together with {other}" if one in value else f"is required, or {other}")
                )
        return found


P = TypeVar("P", bound=Payload)


@attrs.frozen
class StudentValues(Payload):
    """The body of PUT /students/by-external-id/{external_id}: a field that is absent stays as it is."""

    name: Name = ABSENT
    given_name: NameOrNull = ABSENT
    family_name: NameOrNull = ABSENT
    email: EmailOrNull = ABSENT


@attrs.frozen
class StudentChanges(StudentValues):
    """The body of PATCH /students/{student_id}: a field that is absent stays as it is (RFC 7396)."""

    external_id: ExternalIdOrNull = ABSENT


@attrs.frozen
class NewStudent(StudentChanges):
    """The body of POST /students."""

    WHOLE: ClassVar[Mapping[str, Any]] = {
        "anyOf": [
            {"required": ["name"]},
            {
                "required": ["given_name", "family_name"],
                "properties": {name: {"type": "string"} for name in ("given_name", "family_name")},
            },
        ]
    }

    @classmethod
    def faults(cls, value: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Ask for the name, or for what the name is made of."""
        named = "name" in value or (value.get("given_name") is not None and value.get("family_name") is not None)
        return [] if named else [("name", "is required, or given_name and family_name")]


@attrs.frozen
class CourseValues(Payload):
    """The body of PUT /courses/by-external-id/{external_id}: a field that is absent stays as it is."""

    name: Name = ABSENT
    level: Name = ABSENT
    capacity: Capacity = ABSENT
    waitlist_capacity: Capacity = ABSENT
    term_id: IdOrNull = ABSENT
    opens_at: MomentOrNull = ABSENT
    closes_at: MomentOrNull = ABSENT


@attrs.frozen
class CourseChanges(CourseValues):
    """The body of PATCH /courses/{course_id}: a field that is absent stays as it is (RFC 7396)."""

    external_id: ExternalIdOrNull = ABSENT


@attrs.frozen(kw_only=True)
class NewCourse(CourseChanges):
    """The body of POST /courses."""

    name: Name
    level: Name


@attrs.frozen
class TermValues(Payload):
    """The body of PUT /terms/by-external-id/{external_id}: a field that is absent stays as it is."""

    name: Name = ABSENT
    starts_on: DayOrNull = ABSENT
    ends_on: DayOrNull = ABSENT


@attrs.frozen
class TermChanges(TermValues):
    """The body of PATCH /terms/{term_id}: a field that is absent stays as it is (RFC 7396)."""

    external_id: ExternalIdOrNull = ABSENT


@attrs.frozen(kw_only=True)
class NewTerm(TermChanges):
    """The body of POST /terms."""

    name: Name


@attrs.frozen
class Reason(Payload):
    """The body of a POST that takes nothing but the reason for it."""

    OPTIONAL = True

    reason: NameOrNull = None


@attrs.frozen
class NewEnrollment(Payload):
    """The body of POST /students/{student_id}/courses."""

    EITHER: ClassVar[Sequence[tuple[str, str]]] = (("course_id", "course_external_id"),)

    course_id: Id = ABSENT
    course_external_id: OneExternalId = ABSENT
    override: Flag = False
    reason: NameOrNull = None

    @property
    def course(self) -> Key:
        """Give the course, by the one id or the other."""
        return self.course_external_id if self.course_id is ABSENT else self.course_id


@attrs.frozen
class BulkRow(NewEnrollment):
    """One row in the body of POST /enrollments."""

    EITHER = (("student_id", "student_external_id"), *NewEnrollment.EITHER)

    student_id: Id = ABSENT
    student_external_id: OneExternalId = ABSENT

    @property
    def student(self) -> Key:
        """Give the student, by the one id or the other."""
        return self.student_external_id if self.student_id is ABSENT else self.student_id


@attrs.frozen
class NewSession(Payload):
    """The body of POST /session."""

    token: Token


@attrs.frozen
class NewToken(Payload):
    """The body of POST /tokens."""

    name: Name
    scopes: Scopes
    expires_at: MomentOrNull = None


@attrs.frozen
class Rotation(Payload):
    """The body of POST /tokens/{token_id}/rotate: for how many hours the old secret counts beside the new one."""

    OPTIONAL = True

    grace_hours: Hours = 0


@attrs.frozen
class Swap(Payload):
    """The body of POST /students/{student_id}/swap."""

    EITHER = (
        ("drop_course_id", "drop_course_external_id"),
        ("enroll_course_id", "enroll_course_external_id"),
    )

    drop_course_id: Id = ABSENT
    drop_course_external_id: OneExternalId = ABSENT
    enroll_course_id: Id = ABSENT
    enroll_course_external_id: OneExternalId = ABSENT
    or_wait: Flag = False
    reason: NameOrNull = None

    @property
    def courses(self) -> tuple[Key, Key]:
        """Give the course to drop and the course to enroll in, each by the one id or the other."""
        return (
            self.drop_course_external_id if self.drop_course_id is ABSENT else self.drop_course_id,
            self.enroll_course_external_id if self.enroll_course_id is ABSENT else self.enroll_course_id,
        )


def given(payload: Any) -> dict[str, Any]:
    """Give the fields of a payload that the client sent, with their values."""
    return attrs.asdict(payload, filter=lambda _, value: value is not ABSENT)
