"""The id of a request, by which what a client or a proxy saw can be found in the log.

A proxy sends an id in the header X-Request-ID, and gets it back. Where none came, one is made only once it is needed,
for a line of the log or an answer that says that the service failed: for each request it would be 3 % of a GET.
"""

import secrets
from contextvars import ContextVar

from starlette.types import Scope

HEADER = b"x-request-id"
MOST = 128
"""The characters that an id may have which a client sends."""
VISIBLE = bytes(range(0x21, 0x7F))
"""The characters that such an id may consist of: those of ASCII that can be seen."""

CURRENT: ContextVar[Scope | None] = ContextVar("current", default=None)
"""The request that is being answered, where its log lines are to have its id, however deep they are written."""

_KEPT = "enrollment.request_id"
"""The key of the scope under which the id of a request is kept, once it was needed."""


def known_id(scope: Scope) -> bytes:
    """Give the id of a request if it has one already: the client's, if it is sane, or one that was made."""
    if _KEPT in scope:
        kept: bytes = scope[_KEPT]
        return kept
    for name, value in scope["headers"]:
        if name == HEADER and 0 < len(value) <= MOST and not value.translate(None, VISIBLE):
            given: bytes = value
            return given
    return b""


def request_id(scope: Scope) -> str:
    """Give the id of a request, and make it if it has none yet."""
    scope[_KEPT] = known_id(scope) or secrets.token_hex(8).encode()
    kept: bytes = scope[_KEPT]
    return kept.decode()
