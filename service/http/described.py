"""The operations that show what the API is: the document."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import msgspec

from service.http.answers import Ok, ok
from service.http.calls import Call
from service.http.operations import Api


class Described:
    """The handlers that show the table of all operations, in which they stand themselves.

    What they show is made at the first request, because most processes are never asked.
    """

    def __init__(self, table: Callable[[], Api]) -> None:
        """Keep what gives the table, which is not there before its operations are."""
        self._table = table

    async def show_openapi(self, call: Call) -> Ok[dict[str, Any]]:
        """Describe the whole API in OpenAPI 3.1."""
        return ok({**self._document, "servers": [{"url": call.url("") or "/"}]})

    @cached_property
    def _document(self) -> dict[str, Any]:
        """Keep each part of the document as JSON, which takes a tenth of the memory that its objects take."""
        from service.http.openapi import document  # noqa: PLC0415 - only who asks pays for it.

        return {name: msgspec.Raw(msgspec.json.encode(part)) for name, part in document(self._table()).items()}
