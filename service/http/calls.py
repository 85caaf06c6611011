"""Read one request: the words of its path, its query string and its body, in the types that a handler wants."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qs, quote, unquote_to_bytes, urlencode

from starlette.types import Receive, Scope

from service import bulk
from service.enrolling import Asked, Row
from service.errors import InvalidPayload, InvalidQuery, ServiceError
from service.events import NOBODY, Why, why
from service.fields import MAX_ID, Id
from service.http import body
from service.http.cookies import Cookies
from service.http.edge import InsufficientScope, NothingThere
from service.http.metrics import Metrics
from service.http.payloads import BulkRow, NewEnrollment, P
from service.http.queries import Q, write_cursor
from service.http.reading import MAX_FAULTS, read_payload, read_query
from service.http.request_ids import request_id
from service.rows import ExternalId, Key
from service.storage import Store
from service.storage.event_loop import in_pieces
from service.tokens import EVERYBODY

MAX_BODY = 2**20
"""The most bytes that the body of a request may have."""
MAX_BULK_BODY = 2**22
"""The most bytes that the body of a bulk, POST /enrollments, may have."""
MAX_BULK_FAULTS = 1_000
"""The most faults that the answer to a bulk lists, over all of its rows."""
TYPES = (body.JSON,)
PATCH_TYPES = (body.JSON, body.MERGE_PATCH)
BULK_TYPES = (body.JSON, body.NDJSON)

BY_EXTERNAL_ID = "/by-external-id/"
"""What comes before an external id in a path."""

T = TypeVar("T")

_ID = re.compile("[1-9][0-9]{0,18}")
_WEIGHT = re.compile(r"[01](\.[0-9]{0,3})?")


class Rows(tuple[Row, ...]):
    """The rows of a bulk's body, in order; where a line is no valid row, its refusal (a ServiceError) is there."""

    __slots__ = ()


class Call:
    """One request, as a handler sees it, and the store that the handler asks."""

    __slots__ = ("_receive", "_scope", "cookies", "granted", "has_query", "store")

    def __init__(self, scope: Scope, receive: Receive, store: Store, cookies: Cookies | None = None) -> None:
        """Keep the request; nothing of it is read yet. `cookies` are those of sessions, where there are any."""
        self._scope, self._receive, self.store, self.cookies = scope, receive, store, cookies
        self.has_query = bool(scope["query_string"])
        self.granted = EVERYBODY
        """Who the client is, and what the client may do."""

    def request_id(self) -> str:
        """Give the id of the request; nothing where it is refused before it is one."""
        return request_id(self._scope) if "headers" in self._scope else ""

    @property
    def metrics(self) -> Metrics:
        """What is counted of the application that the request is for."""
        found: Metrics = self._scope["app"].state.metrics
        return found

    def word(self, word: tuple[str, Any]) -> Any:
        """Give the value of a word of the path, such as student_id; `word` is (its name, its type).

        An Id that is no integer from 1 to 2⁶³-1 is given as 0. No row has the id 0, so the rule answers "not found".
        Raises InvalidQuery for an external id that no row can have.
        """
        name, kind = word
        if kind is ExternalId:
            return self._external_id(name)
        value = self._scope["path_params"][name]
        if kind is not Id:
            return value
        number = int(value) if _ID.fullmatch(value) else 0
        return number if number <= MAX_ID else 0

    def _external_id(self, name: str) -> ExternalId:
        """Give the external id at the end of the path, in which a slash may be written as / or as %2F."""
        text = self._scope["path_params"][name]
        try:
            if raw_path := self._scope.get("raw_path"):
                before = 1 + self._scope.get("root_path", "").count(BY_EXTERNAL_ID)
                text = unquote_to_bytes(raw_path).decode().split(BY_EXTERNAL_ID, before)[before]
            return ExternalId(text)
        except ValueError as error:
            what = "must be percent-encoded UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            raise InvalidQuery([(name, what)]) from None

    def query(self, cls: type[Q]) -> Q:
        """Give the values of the query string. Raises InvalidQuery."""
        if not self.has_query:
            return cls()
        values = self._query_values()
        return read_query(cls, values, self._list(values) if "after" in values else "")

    def _query_values(self) -> dict[str, list[str]]:
        raw: bytes = self._scope["query_string"]
        try:
            return parse_qs(raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=50)
        except ValueError as error:
            raise InvalidQuery([("", "must be percent-encoded UTF-8, with at most 50 parameters")]) from error

    def fields(self, names: Collection[bytes]) -> dict[bytes, bytes]:
        """Give those header fields that are there, of some names; several of one name as one (RFC 9110, 5.3)."""
        found: dict[bytes, bytes] = {}
        for name, value in self._scope["headers"]:
            if name in names:
                found[name] = found[name] + b", " + value if name in found else value
        return found

    def weight(self, media_type: str) -> float:
        """Give how much the client wants an answer of a media type, from 0 to 1 (RFC 9110, section 12.5.1)."""
        accept = dict(self._scope["headers"]).get(b"accept", b"*/*").decode("latin-1").lower()
        weights = {}
        for each in accept.split(","):
            name, *parameters = (part.strip() for part in each.split(";"))
            weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
            weights[name] = float(weight) if _WEIGHT.fullmatch(weight) else 0
        ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        return next((weights[each] for each in ranges if each in weights), 0)

    def prefers(self, media_type: str, other: str) -> bool:
        """Tell whether the client wants an answer of one media type more than one of the other."""
        if self.header(b"accept") in {b"", b"*/*"}:  # Most clients have no wish, and their lists are read no further.
            return False
        return self.weight(media_type) > self.weight(other)

    def header(self, name: bytes) -> bytes:
        """Give the value of a header field, whose name is in small letters; empty where the request has none."""
        value: bytes = dict(self._scope["headers"]).get(name, b"")
        return value

    @property
    def app(self) -> Any:
        """Give the application that was asked."""
        return self._scope["app"]

    async def payload(self, cls: type[P]) -> P:
        """Read the body as a payload of a class.

        Raises InvalidPayload, MalformedJson, PayloadTooLarge, UnsupportedMediaType.
        """
        if cls.OPTIONAL and not self._has_body():
            return cls()
        accepted = PATCH_TYPES if self._scope["method"] == "PATCH" else TYPES
        _, content = await body.read(self._scope, self._receive, accepted, MAX_BODY)
        return read_payload(cls, body.decode(content))

    def _has_body(self) -> bool:
        headers = dict(self._scope["headers"])
        return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"

    def why(self, reason: str | None) -> Why:
        """Give who writes, and why; the actor is whom the host program names as `actor` in the request's state."""
        actor = self._scope.get("state", {}).get("actor")
        if actor is None and reason is None:
            return NOBODY
        try:
            return why(actor, reason)
        except InvalidPayload as error:  # The reason was checked before. The host is to blame, and not the client.
            raise ValueError(f"The host program names the actor {actor!r}, which {error.faults[0][1]}.") from None

    def telling(self, rule: Callable[..., T], reason: str | None) -> Callable[..., T]:
        """Give a rule that is told who writes, and why, as its arguments `actor` and `reason`."""
        if reason is None and "actor" not in self._scope.get("state", ()):
            return rule
        told = self.why(reason)
        return partial(rule, actor=told.actor, reason=told.reason)

    async def upload(self) -> body.Upload:
        """Begin to read the body as a file. Raises PayloadTooLarge, UnsupportedMediaType."""
        return body.upload(self._scope, self._receive)

    async def left(self) -> None:
        """Wait until the client has left, or the server lets nobody stay; the body must have been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def rows(self) -> Rows:
        """Read the body, a JSON array or NDJSON (a JSON value on each line), as rows. Raises as `payload` does."""
        media_type, content = await body.read(self._scope, self._receive, BULK_TYPES, MAX_BULK_BODY)
        values = body.lines(content) if media_type == body.NDJSON else body.elements(content)
        return Rows(await in_pieces(self._rows(values)))

    def _rows(self, values: Iterable[object]) -> Iterator[Row]:
        """Read rows; those that are refused for the same reason share one refusal.

        Python's garbage collector looks at all objects at once: so many refusals would hold up every other request.
        """
        refusals: dict[str, ServiceError] = {}
        room = MAX_BULK_FAULTS
        for count, value in enumerate(values, 1):
            bulk.check_size(count)
            row = self._row(value, min(room, MAX_FAULTS))
            if isinstance(row, InvalidPayload):
                room -= len(row.faults)
            yield refusals.setdefault(repr(row), row) if isinstance(row, ServiceError) else row

    def _row(self, value: object, most_faults: int) -> Row:
        try:
            row = read_payload(BulkRow, body.decode(value) if isinstance(value, bytes) else value, most_faults)
            return self.asked(row.student, row)
        except ServiceError as error:
            return bulk.bare(error)

    def asked(self, student: Key, payload: NewEnrollment) -> Row:
        """Give the row of a student and what the student's enrollment is asked for with. Raises InsufficientScope."""
        if payload.override and "override" not in self.granted.scopes:
            raise InsufficientScope("override")
        if payload.reason is None and not payload.override and "actor" not in self._scope.get("state", ()):
            return student, payload.course
        return Asked(student, payload.course, payload.override, self.why(payload.reason))

    def own_cookies(self) -> Cookies:
        """Give the cookies of sessions. Raises NothingThere where the service checks no tokens itself."""
        if self.cookies is None:
            raise NothingThere
        return self.cookies

    def cookie(self) -> str:
        """Give the cookie of the session that the request brings, or an empty text."""
        return self.cookies.read(self._scope).decode("latin-1") if self.cookies else ""

    @property
    def exports(self) -> Any:
        """Give the exports of the application, an `Exports`."""
        return self._scope["app"].state.exports

    def url(self, path: str) -> str:
        """Give the path by which a client reaches a path of this application, wherever the application is mounted."""
        root = self._scope.get("root_path")
        if not root:
            return path
        url = quote(root) + path
        # A URL that begins with two slashes leads to another host; with the second one escaped, the URL is a path.
        return f"/%2F{url[2:]}" if url.startswith("//") else url

    def cursor(self, row_id: int, name: str | bytes = "") -> str:
        """Give the cursor that stands for a row of the requested list: the next page begins after that row."""
        return write_cursor(self._list(self._query_values()), row_id, name)

    def next_page(self, after: str) -> str:
        """Give the path, with its query, by which a client gets the page after a cursor of the requested list."""
        query = urlencode(self._query_values() | {"after": after}, doseq=True)
        return f"{self.url(quote(self._own_path()))}?{query}"

    def _list(self, values: Mapping[str, Sequence[str]]) -> str:
        """Name the requested list by its path and its filters, so that a cursor of another list can be refused."""
        filters = sorted((name, given) for name, given in values.items() if name not in ("after", "limit"))
        return f"{self._own_path()}?{urlencode(filters, doseq=True)}"

    def _own_path(self) -> str:
        path: str = self._scope["path"]
        return path.removeprefix(self._scope.get("root_path", ""))
