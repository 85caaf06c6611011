"""Put the service together: make a Starlette application from the settings."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from service.desk import words
from service.http.answers import problem
from service.http.api import API
from service.http.calls import Call
from service.http.edge import NothingThere
from service.http.files import Exports
from service.http.guard import Authenticate, Guard, HostGuard, TokenGuard
from service.http.metrics import Metrics
from service.http.operations import Endpoint
from service.http.origins import OriginCheck
from service.settings import Settings
from service.storage import Store
from service.storage.kinds import open_store

if TYPE_CHECKING:
    from service.http.imports import Imports
    from service.http.live import Feeds


def create_app(  # noqa: PLR0913 - a host program turns each of these on or off.
    settings: Settings | None = None,
    *,
    migrate: bool = False,
    snapshot_per_turn: bool = False,
    check_origins: bool = False,
    check_tokens: bool = False,
    authenticate: Authenticate | None = None,
) -> Starlette:
    """Make the application for one database; another application may mount it, with or without its lifespan.

    With `migrate`, pending migrations are applied first. With `snapshot_per_turn` reads are faster, but that is right
    only where nothing else in this program writes to the file. With `check_origins`, requests are refused that a page
    of another site sends through a browser; a host program does that itself, as only it knows its names. With
    `check_tokens`, requests need a token as the setting `auth` says, and always where it says `tokens`; with
    `authenticate`, that function of the host program says who makes a request, and what for; else every request is
    granted. Raises SchemaMismatch when the database is missing or its schema is not the one of this code, and
    SetupError when the database cannot be used.
    """
    settings = settings or Settings()
    checks_tokens = settings.auth == "tokens" or (check_tokens and settings.auth == "auto")
    if (check_tokens or checks_tokens) and authenticate:
        raise ValueError("Either the service checks its tokens or the host program authenticates, and not both.")
    store = open_store(
        settings.database_url,
        migrate=migrate,
        busy_timeout=settings.busy_timeout,
        max_pending_writes=settings.max_pending_writes,
        snapshot_per_turn=snapshot_per_turn,
        slow_ms=settings.slow_ms,
    )

    guard: Guard | None = None
    if checks_tokens:
        guard = TokenGuard(store, settings)
    elif authenticate:
        guard = HostGuard(authenticate)

    @asynccontextmanager
    async def lifespan(running: Any) -> AsyncIterator[None]:
        # Named from here, and not by its argument, the application would keep itself alive.
        store.open()
        yield
        running.end_streams()
        store.end_turn()
        await run_in_threadpool(store.close)

    metrics = Metrics()
    tally = metrics.tally()

    async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await WebSocketClose()(scope, receive, send)
        else:
            tally.refuse_at_once(scope, refusal := NothingThere())
            await problem(Call(scope, receive, store), refusal)(scope, receive, send)

    routes = [Route(path, Endpoint(store, operations, metrics.tally(path), guard)) for path, operations in API.items()]
    for route in routes:
        # Starlette ends the pattern of a path with $, which also matches before a newline at the end of the path.
        pattern = route.path_regex.pattern.removesuffix("$") + r"\Z"
        # An external id may hold slashes, so whatever begins with /by-external-id/ is of no other path.
        pattern = re.sub(r"(\(\?P<(student|course|term)_id>)", r"(?!by-external-id/)\1", pattern)
        route.path_regex = re.compile(pattern, re.DOTALL)
    app = _Service(routes=routes, lifespan=lifespan)
    app.parts = store, guard, settings
    app.state.metrics = metrics
    app.state.exports = Exports(settings.school_name)
    app.state.desk_words = words(settings.desk_words) if settings.desk_words else None
    app.router.redirect_slashes = False
    app.router.default = not_found
    if check_origins:
        app.middleware_stack = OriginCheck(app.router, store, settings, tally, checks_tokens=checks_tokens)
    return app


class _Service(Starlette):
    """Starlette without the two middlewares that it puts around every application to handle errors.

    `Endpoint` answers every error itself, so ServerErrorMiddleware and ExceptionMiddleware would find nothing to do,
    and they take a tenth of the instructions that a GET takes behind uvicorn. Where a host program adds a middleware of
    its own to the application, Starlette puts its two middlewares back.
    """

    parts: tuple[Store, Guard | None, Settings]

    @cached_property
    def feeds(self) -> "Feeds":
        """Give what lets clients listen to the events, made when the first one does."""
        from service.http.live import Feeds  # noqa: PLC0415 - only who listens pays for it.

        return Feeds(*self.parts)

    @cached_property
    def imports(self) -> "Imports":
        """Give what imports files, made when the first one comes."""
        from service.http.imports import Imports  # noqa: PLC0415 - so that the two do not import each other.

        return Imports(self.parts[-1])

    def end_streams(self) -> None:
        """End the streams of the running event loop."""
        if "feeds" in vars(self):
            self.feeds.close()

    def build_middleware_stack(self) -> ASGIApp:
        return super().build_middleware_stack() if self.user_middleware else self.router
