"""Show what is sent and what comes: an example of each record, each payload, each parameter and each refusal."""

from collections.abc import Mapping
from typing import Any

import msgspec

from service import errors
from service.courses import CourseRecord
from service.enrolling import EnrollmentRecord
from service.enrollments import RosterRow, ScheduleRow
from service.errors import ServiceError
from service.events import EventRecord
from service.exchange.errors import InvalidRow, Repeated, TooManyDrops, UnreadableUpload
from service.exchange.report import Report, RowTotals
from service.http import conditional, edge, schemas
from service.http.answers import LINKS, NAME, BulkResult, BulkResults, Health, Home, Totals, problem_members
from service.http.calls import MAX_BODY
from service.http.payloads import (
    BulkRow,
    CourseChanges,
    CourseValues,
    NewCourse,
    NewEnrollment,
    NewSession,
    NewStudent,
    NewTerm,
    NewToken,
    Payload,
    Reason,
    Rotation,
    StudentChanges,
    StudentValues,
    Swap,
    TermChanges,
    TermValues,
    given,
)
from service.http.problems import Explanation
from service.registrar import Dropped, StudentExport, Swapped
from service.sessions import SessionRecord
from service.students import StudentRecord
from service.terms import TermRecord
from service.tokens import MadeTokenRecord, TokenEnded, TokenNotFound, TokenRecord
from service.version import __version__

AT = "2026-09-01T08:30:00.000Z"
OPENS = "2026-09-01T08:00:00.000Z"
CLOSES = "2026-09-12T16:00:00.000Z"
TAG = '"8f3ad0c41b6e97d25c01fa38"'

_ADA = StudentRecord(1, "Ada Lovelace", "20001", "Ada", "Lovelace", "ada@example.org")
_SEAT = EnrollmentRecord(1, 1, AT, "enrolled", None)
_SCHEDULED = ScheduleRow(1, "Logic", "advanced", AT, "enrolled", None)
_EVENT = EventRecord(1, "enrolled", AT, 1, 1)
_REFUSED: dict[str, Any] = problem_members(str, errors.AlreadyEnrolled(3, 1))
_TOKEN = TokenRecord("4fJq0Zc2", "office", ["enroll"], "active", AT, None, None, None, "2026-09-02")

RECORDS: Mapping[Any, Any] = {
    type(each): each
    for each in (
        *(_ADA, _SEAT, _SCHEDULED, _EVENT, Dropped(3), Swapped(True, _SEAT), Health("live")),
        CourseRecord(1, "Logic", "advanced", 30, 10, 12, 0, 18, "open", "LOG-1", 1, OPENS, CLOSES),
        TermRecord(1, "2026A", "Autumn", "2026-09-01", "2026-12-18"),
        RosterRow(1, "Ada Lovelace", "20001", "Ada", "Lovelace", AT),
        StudentExport(_ADA, [_SCHEDULED], [_EVENT], []),
        BulkResults([BulkResult(201, _SEAT), BulkResult(409, problem=_REFUSED)], Totals(1, 0, 1)),
        Explanation.of("already_enrolled"),
        Home(NAME, __version__, LINKS),
        SessionRecord("token:4fJq0Zc2", "office", ["read", "enroll"], AT),
        Report("csv", False, [], True, None, 0.2, {"students": RowTotals(created=1)}),
        *(_TOKEN, MadeTokenRecord(**msgspec.structs.asdict(_TOKEN), token="enr_4fJq0Zc2_…")),  # noqa: S106 - none.
    )
}
"""A record of each type that an answer has."""

_STUDENT: dict[str, Any] = {"given_name": "Ada", "family_name": "Lovelace", "email": "ada@example.org"}
_COURSE: dict[str, Any] = {"capacity": 30, "waitlist_capacity": 10, "opens_at": OPENS, "closes_at": CLOSES}
_TERM: dict[str, Any] = {"starts_on": "2026-09-01", "ends_on": "2026-12-18"}

PAYLOADS: Mapping[type[Payload], Payload] = {
    type(each): each
    for each in (
        *(NewStudent(name="Ada Lovelace"), StudentChanges(email="ada@example.org"), StudentValues(**_STUDENT)),
        NewCourse(name="Logic", level="advanced", capacity=30, waitlist_capacity=10),
        *(CourseChanges(capacity=31), CourseValues(name="Logic", level="advanced", **_COURSE)),
        *(NewTerm(name="Autumn", **_TERM), TermChanges(name="Autumn 2026"), TermValues(name="Autumn", **_TERM)),
        *(NewEnrollment(course_id=1), BulkRow(student_id=1, course_id=1)),
        *(Swap(drop_course_id=1, enroll_course_id=2), Reason("Moved away"), NewSession("enr_…")),
        *(NewToken("office", ["enroll"]), Rotation(24)),
    )
}
"""A payload of each type that a request has."""

CSV = "external_id,given_name,family_name\r\n20001,Ada,Lovelace\r\n"
"""A file of students."""

PARAMETERS: Mapping[str, Any] = {
    **dict.fromkeys(("student_id", "course_id", "term_id"), 1),
    "external_id": "20001",
    "token_id": "4fJq0Zc2",
    "code": "already_enrolled",
    "file": "desk.css",
    "name": "Ada",
    "q": "ada love",
    "level": "advanced",
    "status": "waitlisted",
    "order": "name",
    "excel": "1",
    "since": "120",
    "term_external_id": "2026A",
    "reason": "Moved away",
    "limit": 20,
    "atomic": True,
    "dry_run": True,
    "override": True,
    "max_drops": 10,
    "missing": "keep",
    "format": "csv",
    "file_name": "students.csv",
    **dict.fromkeys((conditional.IF_MATCH, conditional.IF_NONE_MATCH), TAG),
}
"""A value of each parameter of paths, queries and headers; `after` has none, because it comes from an answer."""

REFUSALS: Mapping[str, ServiceError] = {
    each.code: each
    for each in (
        edge.BadRequest("The head has no Host."),
        edge.MalformedJson("unexpected end of data: line 1 column 2 (char 1)"),
        edge.ForeignOrigin("https://elsewhere.example"),
        *(edge.NothingThere(), edge.MethodNotAllowed(), edge.RequestTimeout(), edge.UriTooLong()),
        *(edge.HeadersTooLarge(), edge.PayloadTooLarge(MAX_BODY), edge.MisdirectedRequest("elsewhere.example")),
        edge.UnsupportedMediaType("The body came as text/plain. What is accepted here is application/json."),
        edge.PreconditionFailed(conditional.CHANGED),
        *(edge.Unauthorized(), edge.InvalidToken("The token has expired."), edge.InsufficientScope("enroll")),
        *(errors.StudentNotFound(1), errors.CourseNotFound(1), errors.TermNotFound(1)),
        *(errors.EnrollmentNotFound(1, 1), errors.AlreadyEnrolled(1, 1), errors.AlreadyWaitlisted(1, 1)),
        *(errors.CourseFull(1), errors.EnrollmentNotOpen(1, OPENS), errors.EnrollmentClosed(1, CLOSES)),
        *(errors.ExternalIdTaken("students", "20001"), TokenNotFound("4fJq0Zc2"), TokenEnded("4fJq0Zc2", "revoked")),
        *(errors.CapacityBelowEnrolled(1), errors.WaitlistCapacityBelowWaitlisted(1)),
        errors.BulkRefused({1: errors.AlreadyEnrolled(3, 1)}, 2),
        *(errors.StudentHasEnrollments(1), errors.CourseHasEnrollments(1), errors.TermHasCourses(1)),
        *(errors.ConstraintViolated("fees unpaid"), errors.FeedRewound(7), errors.Failed()),
        *(
            UnreadableUpload("students.csv has no row."),
            TooManyDrops("120 of the 900 enrollments are not in the files."),
        ),
        *(Repeated("students.csv", 12), InvalidRow([("number", "must not be empty")])),
        errors.InvalidPayload([("#/name", "must have a character that can be seen")]),
        errors.InvalidQuery([("limit", "must be an integer from 1 to 1000")]),
        errors.Busy("Another process holds the database; nothing was kept."),
        errors.StorageUnavailable("The disk is full; nothing was kept."),
    )
}
"""A refusal of each code."""


def record(kind: Any) -> Any:
    """Give the example of a record's type, or of a list of them, as JSON has it."""
    (inner,) = getattr(kind, "__args__", (None,))
    return [record(inner)] if inner else msgspec.to_builtins(RECORDS[kind])


def payload(kind: type[Payload]) -> dict[str, Any]:
    """Give the example of a payload as a client sends it: without what it need not say."""
    usual = {field.name: field.default for field in schemas.members(kind)}
    sent = given(PAYLOADS[kind])
    return {name: sent[name] for name in usual if sent.get(name, usual[name]) != usual[name]}


def refusal(code: str) -> dict[str, Any]:
    """Give the example of a refusal as its problem."""
    return problem_members(str, REFUSALS[code])
