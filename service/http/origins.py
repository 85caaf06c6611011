"""Refuse what a page of another site sends through the browser of someone who can reach the service.

Such a page can send requests to any address that the browser reaches, such as 127.0.0.1. The browser keeps the answers
from the page, unless the page's own name leads to the service: whoever owns a name can let it point to any address
(DNS rebinding), and then the browser takes page and service for one site. The header Host tells which name a request
was sent to, and Sec-Fetch-Site and Origin tell which page sent it; a page can forge none of the three.
"""

import re
from collections.abc import Awaitable, Mapping
from functools import lru_cache
from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ServiceError
from service.http.answers import problem
from service.http.calls import Call
from service.http.edge import ForeignOrigin, MisdirectedRequest
from service.http.metrics import Tally
from service.settings import Settings
from service.storage import Store

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""The methods that change nothing."""
LOOPBACK = ("*.localhost",)
"""The names with a dot that lead to the browser's own machine, whatever DNS says."""
KNOWN = 64
"""How many Host headers are remembered with what was found of them, so that most requests cost one lookup."""
LONGEST = 260
"""How many characters a host may have, more than a name of DNS and a port. A longer one is neither remembered nor shown
whole."""

_ORIGIN = re.compile(r"(https?)://([^/]+).*", re.IGNORECASE | re.DOTALL)
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+)(?::([0-9]*))?", re.IGNORECASE | re.ASCII)
_OF_THE_NETWORK = re.compile("[a-z][a-z0-9-]*", re.ASCII)
_DEFAULT_PORTS = {"http": "80", "https": "443"}

Place = tuple[str, str]
"""A host in small letters, and a port or ""."""


class OriginCheck:
    """An ASGI application that passes on to another one what is not sent by a page of another site."""

    def __init__(
        self, app: ASGIApp, store: Store, settings: Settings, tally: Tally, *, checks_tokens: bool = False
    ) -> None:
        """Read the names of the service from the settings.

        With `checks_tokens`, a request with a token is passed on unseen: the application behind refuses a token that
        does not count, and no page of another site has one that does.
        """
        self._app, self._store, self._tally, self._checks_tokens = app, store, tally, checks_tokens
        names = {*LOOPBACK, *map(_plain, settings.allowed_hosts.split(","))} - {""}
        self._names = frozenset(name for name in names if not name.startswith("*"))
        self._ends = tuple(name.removeprefix("*") for name in names if name.startswith("*"))
        self._public = origin_of(settings.public_url)
        self._is_ours = lru_cache(KNOWN)(self._judge)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass a request on, or answer it with the refusal."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal and not (self._checks_tokens and bearer(scope) is not None):
            self._tally.refuse_at_once(scope, refusal)
            return problem(Call(scope, receive, self._store), refusal)(scope, receive, send)
        return self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> ServiceError | None:
        for name, value in scope["headers"]:  # A request without a Host, which HTTP/1.0 allows, is no browser's.
            if name == b"host" and (len(value) > LONGEST or not self._is_ours(value)):
                return MisdirectedRequest(_shown(value))
        if scope["method"] in SAFE:
            return None
        headers = dict(scope["headers"])
        origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
        foreign = _is_foreign(origin, headers, self._public) if site is None else site == b"cross-site"
        return ForeignOrigin(_shown(origin or b"cross-site")) if foreign else None

    def _judge(self, host: bytes) -> bool:
        """Tell whether a Host header names the service: by an IP address, or by a name that leads nowhere else.

        A name without a dot is nobody's on the internet: it is of the machine's own network, as `school` is in
        http://school:8000, so that nobody can buy it to let it point here.
        """
        place = _place(host.decode("latin-1"))
        if place is None:
            return False
        name, _ = place
        return (
            bool(_OF_THE_NETWORK.fullmatch(name))
            or _is_address(name)
            or name in self._names
            or name.endswith(self._ends)
        )


def bearer(scope: Scope) -> bytes | None:
    """Give the token that a request brings in its header Authorization, or None where it brings none (RFC 6750, 2.1).

    No page can let a browser send the header to another site, because the service grants no page that (CORS).
    """
    for name, value in scope["headers"]:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            token: bytes = value[7:].strip()
            return token
    return None


def is_same_origin(headers: Mapping[bytes, bytes], public: Place | None) -> bool:
    """Tell whether a browser says that it sends a request for a page of the service itself."""
    origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
    if site is not None:
        return site == b"same-origin"
    return origin is not None and not _is_foreign(origin, headers, public)


def _is_foreign(origin: bytes | None, headers: Mapping[bytes, bytes], public: Place | None) -> bool:
    """Tell whether an Origin is another one than the Host of the request and the one of PUBLIC_URL."""
    if origin is None:
        return False
    text = origin.decode("latin-1")
    theirs = origin_of(text)
    own = _place(headers.get(b"host", b"").decode("latin-1"), text.partition(":")[0].lower())
    return theirs is None or theirs not in (own, public)


def origin_of(url: str) -> Place | None:
    """Give the place that an absolute URL or an origin names, or None."""
    found = _ORIGIN.fullmatch(url)
    return _place(found[2], found[1].lower()) if found else None


def _place(authority: str, scheme: str = "") -> Place | None:
    """Read a host with or without a port; a port that is not given is the default one of the scheme."""
    found = _AUTHORITY.fullmatch(authority.strip(" \t"))
    return (_plain(found[1]), found[2] or _DEFAULT_PORTS.get(scheme, "")) if found else None


def _plain(name: str) -> str:
    """Give the form of a name by which names are compared: case and a dot at the end make no difference."""
    return name.strip().lower().removesuffix(".")


def _is_address(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).version == (6 if host.startswith("[") else 4)
    except ValueError:
        return False


def _shown(header: bytes) -> str:
    return header[:LONGEST].decode("latin-1")
