"""The operations that show pages and what the API is: the desk, the document, its page, the links at the beginning."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import msgspec

from service.http.answers import LINKS, NAME, Home, Html, Ok, SeeOther, html, ok, see_other
from service.http.calls import Call
from service.http.operations import Api
from service.version import __version__


class Described:
    """The handlers that show the table of all operations, in which they stand themselves.

    What they show is made at the first request, because most processes are never asked.
    """

    def __init__(self, table: Callable[[], Api]) -> None:
        """Keep what gives the table, which is not there before its operations are."""
        self._table = table

    async def show_home(self, call: Call) -> Ok[Home] | SeeOther:
        """Show where to go on; a browser is sent to the desk."""
        if call.prefers("text/html", "application/json"):
            return see_other(call.url("/desk"))
        links = {name: call.url(path) for name, path in LINKS.items()}
        return ok(Home(NAME, __version__, links), ((b"vary", b"accept"),))

    async def show_openapi(self, call: Call) -> Ok[dict[str, Any]]:
        """Describe the whole API in OpenAPI 3.1."""
        return ok({**self._document, "servers": [{"url": call.url("") or "/"}]})

    async def show_docs(self, _: Call) -> Html[str]:
        """Show the whole API as a page for people, on which each operation can be tried."""
        return html(*self._page)

    @cached_property
    def _document(self) -> dict[str, Any]:
        """Keep each part of the document as JSON, which takes a tenth of the memory that its objects take."""
        from service.http.openapi import document  # noqa: PLC0415 - only who asks pays for it.

        return {name: msgspec.Raw(msgspec.json.encode(part)) for name, part in document(self._table()).items()}

    @cached_property
    def _page(self) -> tuple[bytes, str]:
        from service.http import openapi, page  # noqa: PLC0415 - only who asks pays for it.

        return page.render(openapi.document(self._table())), page.POLICY
