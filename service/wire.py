"""The HTTP edge: bytes to payload, value to response, error to problem (RFC 9457)."""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar, get_type_hints
from urllib.parse import parse_qs, quote, urlencode

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from service import body, payloads
from service.body import EdgeError, Headers
from service.enrollments import Enrollment
from service.errors import BulkRefused, FeedRewound, Invalid, InvalidPayload, InvalidQuery, ServiceError
from service.fields import MAX_ID
from service.problems import PROBLEMS
from service.store import Store, in_thread

T = TypeVar("T")
Handler = Callable[..., Awaitable["Response"]]
"""Takes the request and, if it has a parameter `query`, the query's values as the class annotated there."""

MAX_BODY = 2**20
"""Bytes in a body, at most."""
MAX_BULK_BODY = 2**22
"""Bytes in a bulk's body, at most."""
NO_CONTENT, SERVICE_UNAVAILABLE = 204, 503
RETRY_AFTER = 1
"""Seconds after which a refused client may try again."""
_JSON = (b"content-type", body.JSON)
_PROBLEM_JSON = (b"content-type", b"application/problem+json")

_TYPES = (body.JSON,)
_PATCH_TYPES = (body.JSON, body.MERGE_PATCH)
_BULK_TYPES = (body.JSON, body.NDJSON)
_ID = re.compile("[1-9][0-9]{0,18}")
_encode = msgspec.json.Encoder(enc_hook=str.__str__).encode  # A text that is not UTF-8 goes out as it is shown.

logger = logging.getLogger(__name__)


class Response(msgspec.Struct, frozen=True):
    """A whole answer; an ASGI application, as Starlette's responses are."""

    status: int
    body: bytes = b""
    headers: Headers = (_JSON,)

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Send it; to a HEAD request without the body."""
        headers = [*self.headers]  # A list of its own: what a host has around the app may append to it.
        if self.status != NO_CONTENT:
            headers.append((b"content-length", b"%d" % len(self.body)))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else self.body})


class Request:
    """What a handler needs of one request."""

    __slots__ = ("_receive", "_scope", "store")

    def __init__(self, scope: Scope, receive: Receive, store: Store) -> None:
        """Read nothing yet."""
        self._scope, self._receive, self.store = scope, receive, store

    def path(self, name: str) -> str:
        """Give a word from the path."""
        word: str = self._scope["path_params"][name]
        return word

    def path_id(self, name: str) -> int:
        """Give an id from the path; for what cannot be one, 0, which nothing ever has."""
        word = self.path(name)
        row_id = int(word) if _ID.fullmatch(word) else 0
        return row_id if row_id <= MAX_ID else 0

    def query(self, cls: type[T]) -> T:
        """Give the query's values. Raises InvalidQuery."""
        if not self._scope["query_string"]:
            return cls()
        values = self._query_values()
        return payloads.query(cls, values, self._list(values) if "after" in values else "")

    def _query_values(self) -> dict[str, list[str]]:
        raw: bytes = self._scope["query_string"]
        try:
            return parse_qs(raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=50)
        except ValueError as error:
            raise InvalidQuery([("", "must be percent-encoded UTF-8, with at most 50 parameters")]) from error

    async def payload(self, cls: type[T]) -> T:
        """Give the body's payload. Raises InvalidPayload, EdgeError."""
        accepted = _PATCH_TYPES if self._scope["method"] == "PATCH" else _TYPES
        _, content = await body.read(self._scope, self._receive, accepted, MAX_BODY)
        return payloads.payload(cls, body.decode(content))

    async def rows(self, most: int) -> list[tuple[int, int] | ServiceError]:
        """Give the body's rows, a JSON array or NDJSON; one that is no row is its own refusal.

        Raises InvalidPayload, EdgeError.
        """
        media_type, content = await body.read(self._scope, self._receive, _BULK_TYPES, MAX_BULK_BODY)
        return await in_thread(_rows, content, most, ndjson=media_type == body.NDJSON)

    def url(self, path: str) -> str:
        """Give the public path of one of this app's own, wherever it is mounted."""
        return quote(self._scope.get("root_path", "")) + path

    def cursor(self, row_id: int, name: str | bytes = "") -> str:
        """Give the cursor of a row in the list that is asked for."""
        return payloads.cursor(self._list(self._query_values()), row_id, name)

    def next_page(self, after: str) -> Headers:
        """Give the RFC 8288 Link header to the page after this one."""
        query = urlencode(self._query_values() | {"after": after}, doseq=True)
        return ((b"link", f'<{self.url(quote(self._own_path()))}?{query}>; rel="next"'.encode()),)

    def _list(self, values: Mapping[str, list[str]]) -> str:
        """Tell which list is asked for: its path, and the filters as they are given."""
        filters = sorted((name, given) for name, given in values.items() if name not in ("after", "limit"))
        return f"{self._own_path()}?{urlencode(filters, doseq=True)}"

    def _own_path(self) -> str:
        path: str = self._scope["path"]
        return path.removeprefix(self._scope.get("root_path", ""))


class Endpoint:
    """One path: the ASGI application that picks the method's handler and answers its errors."""

    def __init__(self, store: Store, handlers: Mapping[str, Handler]) -> None:
        """Add what HTTP owes to every path: HEAD beside GET, and OPTIONS."""
        self._store = store
        head = {"HEAD": handlers["GET"]} if "GET" in handlers else {}
        self._handlers = {
            method: (handler, get_type_hints(handler).get("query", payloads.NoQuery))
            for method, handler in {**handlers, **head, "OPTIONS": self._options}.items()
        }
        self._allow = ((b"allow", ", ".join(sorted(self._handlers)).encode()),)
        self._takes = ((b"accept-patch", b", ".join(_PATCH_TYPES)),) if "PATCH" in handlers else ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        request = Request(scope, receive, self._store)
        try:
            handler, query = self._handlers.get(scope["method"]) or self._not_allowed()
            values = request.query(query)
            response = await (handler(request) if query is payloads.NoQuery else handler(request, values))
        except ServiceError as error:
            response = problem(request, error)
        except ClientDisconnect:
            return  # Nobody is there to answer.
        except Exception:
            logger.exception("%s %s failed.", scope["method"], scope["path"])
            response = problem(request, EdgeError("internal_error", "The service failed; its log says why."))
        await response(scope, receive, send)

    async def _options(self, _: Request) -> Response:
        return Response(NO_CONTENT, headers=(*self._allow, *self._takes))

    def _not_allowed(self) -> NoReturn:
        raise EdgeError("method_not_allowed", "This path does not have that method.", self._allow)


def ok(value: object, headers: Headers = ()) -> Response:
    """Answer 200 with a value as JSON."""
    return Response(200, _encode(value), (_JSON, *headers))


def created(value: object, location: str) -> Response:
    """Answer 201 with a value as JSON and where to find it."""
    return Response(201, _encode(value), (_JSON, (b"location", location.encode())))


def no_content() -> Response:
    """Answer 204."""
    return Response(NO_CONTENT, headers=())


def page(request: Request, rows: Sequence[T], limit: int, after: Callable[[T], str]) -> Response:
    """Answer with at most `limit` rows; one row more than that says that a page follows."""
    if len(rows) <= limit:
        return ok(rows)
    return ok(rows[:limit], request.next_page(after(rows[limit - 1])))


def bulk(request: Request, results: Sequence[Enrollment | ServiceError]) -> Response:
    """Answer with one result a row: what the single call would have given."""
    rows = [
        {"status": PROBLEMS[result.code].status, "problem": _problem(request, result)}
        if isinstance(result, ServiceError)
        else {"status": 201, "enrollment": result}
        for result in results
    ]
    statuses = [getattr(result, "status", "refused") for result in results]
    totals = {status: statuses.count(status) for status in ("enrolled", "waitlisted", "refused")}
    return ok({"results": rows, "totals": totals})


def problem(request: Request, error: ServiceError) -> Response:
    """Answer with a refusal as problem+json."""
    row = PROBLEMS[error.code]
    headers: Headers = (_PROBLEM_JSON, *getattr(error, "headers", ()))
    if row.status == SERVICE_UNAVAILABLE:
        headers = (*headers, (b"retry-after", b"%d" % RETRY_AFTER))
    return Response(row.status, _encode(_problem(request, error)), headers)


def _problem(request: Request, error: ServiceError) -> dict[str, Any]:
    row = PROBLEMS[error.code]
    told: dict[str, Any] = {
        "type": request.url(f"/problems/{error.code}"),
        "title": row.title,
        "status": row.status,
        "detail": error.detail,
        "code": error.code,
    }
    if isinstance(error, Invalid):
        where = "pointer" if isinstance(error, InvalidPayload) else "parameter"
        told["errors"] = [{"detail": what, where: place} for place, what in error.faults]
    if isinstance(error, BulkRefused):
        told["errors"] = [
            {"detail": refusal.detail, "pointer": f"#/{at}", "code": refusal.code}
            for at, refusal in error.refusals.items()
        ]
    if isinstance(error, FeedRewound):
        told["newest_id"] = error.newest_id
    return told


def _rows(content: bytes, most: int, *, ndjson: bool) -> list[tuple[int, int] | ServiceError]:
    values = content.splitlines() if ndjson else body.decode(content)
    if not isinstance(values, list):
        raise InvalidPayload([("#", "must be a JSON array of rows")])
    lines = [value for value in values if value != b""]
    if len(lines) > most:
        raise InvalidPayload([("#", f"must have at most {most:,} rows")])
    return [_row(line) for line in lines]


def _row(line: object) -> tuple[int, int] | ServiceError:
    try:
        row = payloads.payload(payloads.BulkRow, body.decode(line) if isinstance(line, bytes) else line)
    except ServiceError as error:
        return error
    return row.student_id, row.course_id
