"""The id of a request, by which what a client or a proxy saw can be found in the log.

A client or a proxy sends an id in the header X-Request-ID, and gets it back. Where none came, one is made. Each line of
the log about the request has the id, and so has an answer that says that the service failed.
"""

from contextvars import ContextVar
from random import getrandbits

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


def id_of(scope: Scope) -> bytes:
    """Give the id of a request: the client's, if it is sane, or one that is made once and kept."""
    if _KEPT in scope:
        kept: bytes = scope[_KEPT]
        return kept
    for name, value in scope["headers"]:
        if name == HEADER and 0 < len(value) <= MOST and not value.translate(None, VISIBLE):
            given: bytes = value
            return given
    # Nobody has to find it hard to guess, and `secrets` would take 3 % of a GET. A fork begins with other numbers.
    made: bytes = b"%016x" % getrandbits(64)
    scope[_KEPT] = made
    return made


def request_id(scope: Scope) -> str:
    """Give the id of a request as a text."""
    return id_of(scope).decode()
