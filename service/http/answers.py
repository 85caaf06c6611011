"""Build the answers: a record as JSON with its status, or a refusal as a problem (RFC 9457)."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar

import msgspec
from starlette.types import Message, Receive, Scope, Send

from service.enrolling import EnrollmentRecord, Result
from service.errors import BulkRefused, FeedRewound, Invalid, InvalidPayload, ServiceError
from service.http import body
from service.http.calls import Call
from service.http.edge import Edge, Headers
from service.http.problems import PROBLEMS
from service.http.request_ids import HEADER, id_of
from service.storage.event_loop import in_pieces

T = TypeVar("T")

NO_CONTENT, NOT_MODIFIED, FAILED, SERVICE_UNAVAILABLE = 204, 304, 500, 503
RETRY_AFTER = 1
"""Seconds after which a client may try again that was answered 503."""
MEMBERS = (
    *("student_id", "course_id", "term_id", "external_id", "opens_at", "closes_at"),
    *("student_external_id", "course_external_id", "term_external_id", "scope"),
)
"""The fields of a refusal that become extension members of its problem (RFC 9457, section 3.2)."""
NAME = "Enrollment service"
LINKS = {
    "desk": "/desk",
    "docs": "/docs",
    "openapi": "/openapi.json",
    **{name: f"/{name}" for name in ("students", "courses", "terms", "events")},
    "health": "/health/ready",
}
"""The path of each link that the beginning shows."""
_JSON = (b"content-type", body.JSON)
_HTML = (b"content-type", b"text/html; charset=utf-8")
_PROBLEM_JSON = (b"content-type", b"application/problem+json")
ALWAYS: Headers = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""The headers that every answer has, but for files that a page loads. No cache keeps an answer, because nearly all of
them have names or ids of people, and an old answer about the health of the service would be a wrong one. No browser
guesses another type, and none loads an answer into a page of another site."""
ASSET: Headers = ((b"cache-control", b"no-cache"), *ALWAYS[1:])
"""The headers of a file that a page loads, which tells of nobody: a browser keeps it, and asks each time whether it has
changed."""

# msgspec calls the hook for a `Garbled`, a text in the database that is not UTF-8: it is sent as it is shown to people.
_encode = msgspec.json.Encoder(enc_hook=str.__str__).encode


class Answer(msgspec.Struct, frozen=True):
    """A whole answer: its status, its body and its headers. It is an ASGI application, as Starlette's responses are."""

    status: int
    body: bytes = b""
    headers: Headers = (_JSON,)
    always: ClassVar[Headers] = ALWAYS

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Send the answer, to a HEAD request without the body."""
        # A new list, because a middleware of the host program may append to it.
        headers = [*self.headers, *self.always, (HEADER, id_of(scope))]
        if self.status not in (NO_CONTENT, NOT_MODIFIED):
            headers.append((b"content-length", b"%d" % len(self.body)))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else self.body})


class Ok(Answer, Generic[T], frozen=True):
    """The answer 200 with a value of type T."""

    STATUS: ClassVar[int] = 200


class Created(Answer, Generic[T], frozen=True):
    """The answer 201 with the record that was made, and with its path in the header Location."""

    STATUS: ClassVar[int] = 201


class NoContent(Answer, frozen=True):
    """The answer 204, which has no body."""

    STATUS: ClassVar[int] = NO_CONTENT


class NotModified(Answer, frozen=True):
    """The answer 304, which has no body: the client has the record as it is."""

    STATUS: ClassVar[int] = NOT_MODIFIED


class Page(Ok[T], Generic[T], frozen=True):
    """The answer 200 with some rows of a list; if there are more, the header Link (RFC 8288) has the next page."""


class Html(Ok[T], Generic[T], frozen=True):
    """The answer 200 with a page for people."""


class PlainText(str):
    """A text for programs."""

    __slots__ = ()


class Text(Ok[T], Generic[T], frozen=True):
    """The answer 200 with a text for programs."""


class Asset(Ok[T], Generic[T], frozen=True):
    """The answer 200 with a file that a page loads."""

    always: ClassVar[Headers] = ASSET


class SameAsset(NotModified, frozen=True):
    """The answer 304, which has no body: the browser has the file as it is."""

    always: ClassVar[Headers] = ASSET


class SeeOther(Answer, frozen=True):
    """The answer 303, which has no body: what was asked for is at the path in the header Location."""

    STATUS: ClassVar[int] = 303


class Stream(Answer, frozen=True):
    """The answer 200 in parts, as server-sent events (WHATWG HTML), for as long as the client listens."""

    STATUS: ClassVar[int] = 200
    MEDIA_TYPE: ClassVar[str] = "text/event-stream"


class BulkResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of one row of a bulk: the status and the body that a single call for the row would have given."""

    status: int
    enrollment: EnrollmentRecord | None = None
    problem: dict[str, Any] | None = None


class Totals(msgspec.Struct, frozen=True):
    """How many rows of a bulk got each result."""

    enrolled: int
    waitlisted: int
    refused: int


class BulkResults(msgspec.Struct, frozen=True):
    """The results of a bulk, one for each row, in the order of the rows."""

    results: list[BulkResult]
    totals: Totals


class Health(msgspec.Struct, frozen=True):
    """The health of the service: "live" if the process answers, "ready" if a write would be kept as well."""

    status: Literal["live", "ready"]


class Home(msgspec.Struct, frozen=True):
    """What the service is, and where to go on: the path of each link by its name."""

    name: str
    version: str
    links: dict[str, str]


def start(answer: Answer, scope: Scope, *more: tuple[bytes, bytes]) -> Message:
    """Give the start of an answer that is sent in parts, with the headers that every answer has, and `more`."""
    headers = [*answer.headers, *answer.always, (HEADER, id_of(scope)), *more]
    return {"type": "http.response.start", "status": answer.status, "headers": headers}


def ok(value: T, headers: Headers = ()) -> Ok[T]:
    """Answer 200 with a value."""
    return Ok(200, _encode(value), (_JSON, *headers))


def created(value: T, location: str) -> Created[T]:
    """Answer 201 with a record that was made; `location` is the path where clients find it."""
    return Created(201, _encode(value), (_JSON, (b"location", location.encode())))


def no_content(headers: Headers = ()) -> NoContent:
    """Answer 204: the request was carried out, and there is nothing to show."""
    return NoContent(NO_CONTENT, headers=headers)


def html(text: bytes, policy: str) -> Html[str]:
    """Answer 200 with a page; `policy` (Content-Security-Policy) says what the page may load and run."""
    return Html(200, text, (_HTML, (b"content-security-policy", policy.encode()), (b"referrer-policy", b"no-referrer")))


def text(content: str, media_type: str) -> Text[PlainText]:
    """Answer 200 with a text for programs."""
    return Text(200, content.encode(), ((b"content-type", media_type.encode()),))


def asset(content: bytes, media_type: str, tag: bytes) -> Asset[bytes]:
    """Answer 200 with a file of a media type, and with its tag in the header ETag."""
    return Asset(200, content, ((b"content-type", media_type.encode()), (b"etag", tag)))


def same_asset(tag: bytes) -> SameAsset:
    """Answer 304: the browser has the file with this tag already."""
    return SameAsset(SameAsset.STATUS, headers=((b"etag", tag),))


def see_other(location: str) -> SeeOther:
    """Answer 303: what the client accepts of what it asked for is at another path."""
    return SeeOther(SeeOther.STATUS, headers=((b"location", location.encode()), (b"vary", b"accept")))


def page(call: Call, rows: Sequence[T], limit: int, cursor: Callable[[T], str]) -> Page[T]:
    """Answer with a page of at most `limit` rows.

    Hand in one row more if there is one: it is not sent, but then the header Link leads to the next page. `cursor`
    gives the cursor of the last row that is sent.
    """
    if len(rows) <= limit:
        return Page(200, _encode(rows), (_JSON,))
    link = (b"link", f'<{call.next_page(cursor(rows[limit - 1]))}>; rel="next"'.encode())
    return Page(200, _encode(rows[:limit]), (_JSON, link))


async def bulk_results(call: Call, results: Sequence[Result]) -> Ok[BulkResults]:
    """Answer to a bulk with one result for each row, and the totals."""
    rows: list[Any] = await in_pieces(msgspec.Raw(_encode(_bulk_result(call, result))) for result in results)
    statuses = [getattr(result, "status", "refused") for result in results]
    return ok(BulkResults(rows, Totals(*(statuses.count(status) for status in Totals.__struct_fields__))))


def _bulk_result(call: Call, result: Result) -> BulkResult:
    if isinstance(result, ServiceError):
        return BulkResult(PROBLEMS[result.code].status, problem=problem_members(call.url, result))
    return BulkResult(Created.STATUS, enrollment=result)


def problem(call: Call, refusal: ServiceError) -> Answer:
    """Answer with a refusal, as application/problem+json and with the status of its code."""
    status = PROBLEMS[refusal.code].status
    headers = (_PROBLEM_JSON, *(refusal.headers if isinstance(refusal, Edge) else ()))
    if status == SERVICE_UNAVAILABLE:
        headers = (*headers, (b"retry-after", b"%d" % RETRY_AFTER))
    members = problem_members(call.url, refusal)
    if status >= FAILED and (request_id := call.request_id()):  # By it, whoever runs the service finds the cause.
        members["request_id"] = request_id
    return Answer(status, _encode(members), headers)


def problem_members(url: Callable[[str], str], refusal: ServiceError) -> dict[str, Any]:
    """Give the members of a problem; `url` gives the path by which a client reaches a path of this application."""
    row = PROBLEMS[refusal.code]
    told: dict[str, Any] = {
        "type": url(f"/problems/{refusal.code}"),
        "title": row.title,
        "status": row.status,
        "detail": refusal.detail,
        "code": refusal.code,
    }
    data = vars(refusal)
    told |= {name: data[name] for name in MEMBERS if data.get(name)}  # 0 stands for what is no id.
    if isinstance(refusal, FeedRewound):
        told["newest_id"] = refusal.newest_id
    if isinstance(refusal, Invalid):
        where = "pointer" if isinstance(refusal, InvalidPayload) else "parameter"
        told["errors"] = [{"detail": what, where: place} for place, what in refusal.faults]
    if isinstance(refusal, BulkRefused):
        told["errors"] = [
            {"detail": each.detail, "pointer": f"#/{at}", "code": each.code} for at, each in refusal.refusals.items()
        ]
    return told
