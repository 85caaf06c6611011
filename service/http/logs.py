"""What `serve` logs: one line for each event, as text or as JSON, and one for each request where that is wanted.

A program that embeds the service logs in its own way; nothing here is used then.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.request_ids import CURRENT, request_id
from service.settings import Settings

_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What would end or change a line: a client may send it in a path."""
_BARE = re.compile(r"[^\s\"=\\]+")
"""A value that needs no quotes."""
_SECRET = re.compile("(enr_[0-9A-Za-z]{8}_)[0-9A-Za-z]+")
"""A token: a client may have put one into a path by mistake. Its id is no secret."""

requests = logging.getLogger(__name__)
BY_REQUEST = (requests, logging.getLogger("service.http.connections"))
"""What logs requests, and what logs why something was refused that is none."""


class Text(logging.Formatter):
    """Writes an event as its time, its level, its message, and name=value for each thing that is told of it.

    A traceback follows in lines that begin with four spaces, as nothing else does.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Write an event."""
        told = " ".join(f"{name}={_shown(value)}" for name, value in _told(record).items())
        line = _escaped(f"{_time(record)} {record.levelname} {record.getMessage()} {told}".rstrip())
        more = self.formatException(record.exc_info).splitlines() if record.exc_info else []
        return _SECRET.sub(r"\1...", "\n    ".join([line, *map(_escaped, more)]))


class Json(logging.Formatter):
    """Writes an event as one JSON object (RFC 8259) in ASCII, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write an event."""
        event = {"time": _time(record), "level": record.levelname.lower(), "message": record.getMessage()}
        more = {"traceback": self.formatException(record.exc_info)} if record.exc_info else {}
        return _SECRET.sub(r"\1...", json.dumps({**event, **_told(record), **more}))


def _time(record: logging.LogRecord) -> str:
    """Give the time of an event, as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _told(record: logging.LogRecord) -> dict[str, Any]:
    """Give what is told of an event beside its message: values by name, and the id of the request that it is of."""
    told: dict[str, Any] = getattr(record, "told", {})
    current = CURRENT.get()
    return told if current is None else {"request_id": request_id(current), **told}


def _shown(value: Any) -> str:
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _escaped(text: str) -> str:
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


@contextmanager
def logging_as(settings: Settings) -> Iterator[None]:
    """Log to stderr within the block, in the form that the settings name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json() if settings.log == "json" else Text())
    root = logging.getLogger()
    root.addHandler(handler)
    for each in BY_REQUEST:
        each.setLevel(logging.INFO if settings.access_log else logging.WARNING)
    try:
        yield
    finally:
        root.removeHandler(handler)
        for each in BY_REQUEST:
            each.setLevel(logging.NOTSET)


class AccessLog:
    """An ASGI application that logs each request of another one once it is over, and lets all its lines have its id.

    The line has the path without the query string, in which there may be names of people, or a secret that a client
    put there by mistake. It has no header and no body.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Keep the application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count what is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        CURRENT.set(scope)
        began, status, size = time.perf_counter(), 0, 0

        async def counted(message: Message) -> None:
            nonlocal status, size
            status = message.get("status", status)
            size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            client, actor = scope.get("client"), scope.get("state", {}).get("actor")
            told = {
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "bytes": size,
                "seconds": round(time.perf_counter() - began, 6),
                **({"client": client[0]} if client else {}),
                **({"actor": actor} if actor else {}),
            }
            requests.info("Request.", extra={"told": told})
