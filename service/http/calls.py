"""Read one request: the words of its path, its query string and its body, in the types that a handler wants."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from starlette.types import Receive, Scope

from service import bulk
from service.enrollments import Row
from service.errors import InvalidPayload, InvalidQuery, ServiceError
from service.fields import MAX_ID, Id
from service.http import body
from service.http.payloads import MAX_FAULTS, BulkRow, P, Q, read_payload, read_query, write_cursor
from service.storage import Store
from service.storage.event_loop import in_pieces

MAX_BODY = 2**20
"""The most bytes that the body of a request may have."""
MAX_BULK_BODY = 2**22
"""The most bytes that the body of a bulk, POST /enrollments, may have."""
MAX_BULK_FAULTS = 1_000
"""The most faults that the answer to a bulk lists, over all of its rows."""
TYPES = (body.JSON,)
PATCH_TYPES = (body.JSON, body.MERGE_PATCH)
BULK_TYPES = (body.JSON, body.NDJSON)

_ID = re.compile("[1-9][0-9]{0,18}")


class Rows(tuple[Row, ...]):
    """The rows of a bulk's body, in order; where a line is no valid row, its refusal (a ServiceError) is there."""

    __slots__ = ()


class Call:
    """One request, as a handler sees it, and the store that the handler asks."""

    __slots__ = ("_receive", "_scope", "has_query", "store")

    def __init__(self, scope: Scope, receive: Receive, store: Store) -> None:
        """Keep the request; nothing of it is read yet."""
        self._scope, self._receive, self.store = scope, receive, store
        self.has_query = bool(scope["query_string"])

    def word(self, word: tuple[str, Any]) -> Any:
        """Give the value of a word of the path, such as student_id; `word` is (its name, its type).

        An Id that is no integer from 1 to 2⁶³-1 is given as 0. No row has the id 0, so the rule answers "not found".
        """
        name, kind = word
        value = self._scope["path_params"][name]
        if kind is not Id:
            return value
        number = int(value) if _ID.fullmatch(value) else 0
        return number if number <= MAX_ID else 0

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

    async def payload(self, cls: type[P]) -> P:
        """Read the body as a payload of a class.

        Raises InvalidPayload, MalformedJson, PayloadTooLarge, UnsupportedMediaType.
        """
        accepted = PATCH_TYPES if self._scope["method"] == "PATCH" else TYPES
        _, content = await body.read(self._scope, self._receive, accepted, MAX_BODY)
        return read_payload(cls, body.decode(content))

    async def rows(self) -> Rows:
        """Read the body, a JSON array or NDJSON (a JSON value on each line), as rows. Raises as `payload` does."""
        media_type, content = await body.read(self._scope, self._receive, BULK_TYPES, MAX_BULK_BODY)
        values = body.lines(content) if media_type == body.NDJSON else body.elements(content)
        return Rows(await in_pieces(_rows(values)))

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


def _rows(values: Iterable[object]) -> Iterator[Row]:
    """Read rows; those that are refused for the same reason share one refusal.

    Python's garbage collector looks at all objects at once: so many refusals would hold up every other request.
    """
    refusals: dict[str, ServiceError] = {}
    room = MAX_BULK_FAULTS
    for count, value in enumerate(values, 1):
        bulk.check_size(count)
        row = _row(value, min(room, MAX_FAULTS))
        if isinstance(row, InvalidPayload):
            room -= len(row.faults)
        yield refusals.setdefault(repr(row), row) if isinstance(row, ServiceError) else row


def _row(value: object, most_faults: int) -> Row:
    try:
        row = read_payload(BulkRow, body.decode(value) if isinstance(value, bytes) else value, most_faults)
    except ServiceError as error:
        return bulk.bare(error)
    return row.student_id, row.course_id
