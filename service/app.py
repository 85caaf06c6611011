"""The composition root: settings in, a Starlette application out."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as StarletteRequest
from starlette.routing import Route

from service import schema
from service.api import ROUTES, unknown_path
from service.settings import Settings
from service.store import Store
from service.wire import Endpoint, Request, Response, problem


def create_app(settings: Settings | None = None, *, migrate: bool = False) -> Starlette:
    """Make the service for one database file; it may be mounted, with or without its lifespan.

    With `migrate`, pending migrations are applied first. Raises SchemaMismatch when the
    database is missing, behind the code or ahead of it, SetupError when it cannot be used.
    """
    settings = settings or Settings()
    if migrate:
        schema.migrate(settings.database_url)
    schema.connect(settings.database_url).close()
    store = Store(
        settings.database_url,
        busy_timeout=settings.busy_timeout,
        max_pending_writes=settings.max_pending_writes,
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(store.close)

    async def not_found(request: StarletteRequest, _: HTTPException) -> Response:
        return problem(Request(request.scope, request.receive, store), unknown_path())

    routes = [Route(path, Endpoint(store, methods)) for path, methods in ROUTES.items()]
    handlers: dict[Any, Any] = {404: not_found}
    app = Starlette(
        routes=routes,
        exception_handlers=handlers,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    for route in routes:
        # Starlette ends a path's pattern with $, which a trailing newline gets past.
        route.path_regex = re.compile(route.path_regex.pattern.removesuffix("$") + r"\Z")
    return app
