"""The composition root: settings in, a Starlette application out."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from service import enrollments, schema
from service.api import ROUTES, unknown_path
from service.database import enter_wal
from service.file import check_writable
from service.settings import Settings
from service.store import Store
from service.urls import database_path
from service.wire import Endpoint, Request, problem


def create_app(
    settings: Settings | None = None, *, migrate: bool = False, snapshot_per_turn: bool = False
) -> Starlette:
    """Make the service for one database file; it may be mounted, with or without its lifespan.

    With `migrate`, pending migrations are applied first. With `snapshot_per_turn` reads are faster, which is
    right only where nothing else in this program writes to the file. Raises SchemaMismatch when the database
    is missing, behind the code or ahead of it, SetupError when it cannot be used.
    """
    settings = settings or Settings()
    check_writable(database_path(settings.database_url))
    if migrate:
        schema.migrate(settings.database_url)
    db = schema.connect(settings.database_url)
    db.timeout = 0  # Where somebody is in the way, the store comes to it later.
    enter_wal(db)
    db.close()
    store = Store(
        settings.database_url,
        busy_timeout=settings.busy_timeout,
        max_pending_writes=settings.max_pending_writes,
        together={enrollments.enroll: enrollments.enroll_each},
        snapshot_per_turn=snapshot_per_turn,
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        store.open()
        yield
        store.end_turn()
        await run_in_threadpool(store.close)

    async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await WebSocketClose()(scope, receive, send)
        else:
            await problem(Request(scope, receive, store), unknown_path())(scope, receive, send)

    routes = [Route(path, Endpoint(store, methods)) for path, methods in ROUTES.items()]
    for route in routes:
        # Starlette ends a path's pattern with $, which a trailing newline gets past.
        route.path_regex = re.compile(route.path_regex.pattern.removesuffix("$") + r"\Z")
    app = _Service(routes=routes, lifespan=lifespan)
    app.router.redirect_slashes = False
    app.router.default = not_found
    return app


class _Service(Starlette):
    """Starlette without its two layers of error handling, which would find nothing to do: endpoints answer every error.

    They are a tenth of the instructions of a GET on this side of uvicorn. A middleware that a
    host adds brings them back.
    """

    def build_middleware_stack(self) -> ASGIApp:
        return super().build_middleware_stack() if self.user_middleware else self.router
