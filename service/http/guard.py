"""Let a request in: find who makes it, by token, by session or by the host program, and what that one may do."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from hashlib import sha256
from inspect import isawaitable
from math import inf
from typing import Protocol

import peewee as pw
from starlette.datastructures import Headers
from starlette.types import Scope

from service import sessions, tokens
from service.errors import ServiceError
from service.http.cookies import Cookies
from service.http.edge import ForeignOrigin, InsufficientScope, InvalidToken, Unauthorized
from service.http.origins import SAFE, bearer, is_same_origin, origin_of
from service.settings import Settings
from service.storage import Store
from service.tokens import EVERYBODY, Grant, Unusable

KEPT = 1.0
"""Seconds that a token is remembered with what was found of it, so that most requests ask no database, and that a
server goes on after a token was revoked."""
MOST_KEPT = 1024
"""How many tokens are remembered at once."""

Who = tuple[str | None, Iterable[str]]
"""Who makes a request, as the events tell it, and the scopes of what that one may do."""
Authenticate = Callable[[Headers, Scope], Who | Awaitable[Who | None] | None]
"""A function of a host program: from the headers and the ASGI scope of a request it tells who makes it, or None."""


class Guard(Protocol):
    """Lets a request in, or refuses it."""

    @property
    def cookies(self) -> Cookies | None:
        """Give those of sessions; None where there are no sessions."""

    again: float
    """Seconds after which it is asked again about a request whose answer is a stream."""

    def key(self, scope: Scope) -> object:
        """Give what is equal for two requests only if they are let in, or refused, alike."""

    async def admit(self, scope: Scope, right: str) -> Grant:
        """Give what is granted to the client, and note the actor in the state of the request.

        Raises Unauthorized, InvalidToken or InsufficientScope where the right that an operation needs is not in it.
        """


class HostGuard:
    """Lets in whom the function of a host program knows."""

    cookies = None
    again = 15.0  # The function may take long, and who gave it may end a stream otherwise.

    def __init__(self, authenticate: Authenticate) -> None:
        """Keep the function, which may be a coroutine function."""
        self._authenticate = authenticate

    def key(self, _: Scope) -> object:
        """Do what `Guard.key` says: what the function goes by is not known."""
        return object()

    async def admit(self, scope: Scope, right: str) -> Grant:
        """Do what `Guard.admit` says."""
        found = self._authenticate(Headers(scope=scope), scope)
        who = await found if isawaitable(found) else found
        if who is None:
            raise Unauthorized
        actor, scopes = who
        if isinstance(scopes, str):  # Its letters would be taken for scopes, and nobody would be let in.
            raise TypeError(f"`authenticate` gives the scopes as the text {scopes!r}: it must give a list of words.")
        return _let_in(scope, right, Grant(actor, scopes))


class TokenGuard:
    """Lets in who brings a token or a session that counts; and everybody, where no token is needed."""

    again = KEPT

    def __init__(self, store: Store, settings: Settings) -> None:
        """Remember nothing yet. A token is needed from the start unless `settings` leave that to whether one exists."""
        self._store = store
        self._public = origin_of(settings.public_url)
        self._needed = settings.auth == "tokens" or not settings.is_loopback
        self._asked = -inf
        """When it was last asked whether a token was ever made, in seconds of the monotonic clock."""
        self._kept: dict[bytes, tuple[float, Grant]] = {}
        """What was found of a token or a cookie, by its hash, and until when that is good."""
        self._used: dict[str, str] = {}
        """The day of its last use that is noted for a token."""
        self._noting: set[asyncio.Task[None]] = set()
        self.cookies = Cookies(settings.public_url.lower().startswith("https:"), self._forget)

    def key(self, scope: Scope) -> object:
        """Do what `Guard.key` says."""
        return bearer(scope), self.cookies.read(scope)

    async def admit(self, scope: Scope, right: str) -> Grant:
        """Do what `Guard.admit` says. Raises ForeignOrigin for a page of another site that uses a session."""
        token = bearer(scope)
        if token is not None:
            return _let_in(scope, right, self._known(token) or await self._of_token(token))
        if not self._needed and time.monotonic() - self._asked >= KEPT:
            await self._ask()
        if not self._needed:
            return EVERYBODY
        cookie = self.cookies.read(scope)
        if cookie and (found := self._known(cookie) or await self._of_session(cookie)):
            if scope["method"] not in SAFE and not is_same_origin(headers := dict(scope["headers"]), self._public):
                raise ForeignOrigin(headers.get(b"origin", b"the request does not say which").decode("latin-1"))
            return _let_in(scope, right, found)
        raise Unauthorized

    def _known(self, given: bytes) -> Grant | None:
        """Give what was found of a token or a cookie, if that is not too long ago."""
        kept = self._kept.get(sha256(given).digest())
        return kept[1] if kept is not None and time.monotonic() < kept[0] else None

    async def _of_token(self, token: bytes) -> Grant:
        try:
            return await self._find(tokens.find_token, token)
        except Unusable as error:
            raise InvalidToken(str(error)) from None

    async def _of_session(self, cookie: bytes) -> Grant | None:
        try:
            return await self._find(sessions.find_session, cookie)
        except Unusable:
            return None

    async def _find(self, find: Callable[[pw.Database, str], Grant], given: bytes) -> Grant:
        """Give what a rule finds of a token or a cookie, and keep it for a second. Raises Unusable."""
        now = time.monotonic()
        found = await self._store.read(find, given.decode("latin-1"))
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[sha256(given).digest()] = now + min(KEPT, found.ends - time.time()), found
        self._note_use(found.token_id)
        return found

    def _note_use(self, token_id: str) -> None:
        day = tokens.moment()[:10]
        if self._used.get(token_id) != day:
            task = asyncio.create_task(self._note(token_id, day))
            self._noting.add(task)
            task.add_done_callback(self._noting.discard)

    async def _note(self, token_id: str, day: str) -> None:
        with suppress(ServiceError):  # The request does not wait for this. If it fails, the next second tries again.
            await self._store.write(tokens.note_use, token_id, day)
            self._used[token_id] = day

    def _forget(self) -> None:
        """Find everything anew: a token was made or changed, or a session has ended."""
        self._kept.clear()
        self._asked = -inf

    async def _ask(self) -> None:
        """Find whether a token was ever made: from then on one is needed."""
        now = time.monotonic()
        self._needed = await self._store.read(tokens.any_token)
        self._asked = now


def _let_in(scope: Scope, right: str, grant: Grant) -> Grant:
    if right not in grant.scopes:
        raise InsufficientScope(right)
    if grant.actor is not None:
        scope["state"] = {**scope.get("state", {}), "actor": grant.actor}
    return grant
