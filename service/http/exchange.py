"""One request and its answer: what the ASGI application gets of a connection."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, Protocol

from starlette.types import ASGIApp, Message

from service.http.answers import ALWAYS
from service.http.connections import Connections

STATUS_LINES = {status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus}
NO_BODY = {204, 304}
FAILED = b"Internal Server Error"

logger = logging.getLogger(__name__)


class Peer(Protocol):
    """The connection that an exchange is on."""

    transport: Any
    hub: Connections
    write_paused: bool

    @property
    def fields(self) -> Sequence[tuple[bytes, bytes]]:
        """The header fields of every answer, such as Date."""

    async def drain(self) -> None:
        """Wait until the client has read enough of what was sent."""

    def consumed(self) -> None:
        """Read on, as a part of the body has been taken."""

    def finished(self, exchange: "Exchange") -> None:
        """Go on after an exchange."""


def written(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes, *, close: bool) -> bytes:
    """Write a whole answer."""
    parts = [STATUS_LINES[status]]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    if close:
        parts.append(b"connection: close\r\n")
    parts += (b"\r\n", body)
    return b"".join(parts)


class Exchange:
    """One request and its answer."""

    __slots__ = (
        *("_app", "_chunked", "_expects", "_given", "_peer", "_start", "_waiter", "body", "complete", "gone", "last"),
        *("keep_alive", "more_body", "received", "scope", "started"),
    )

    def __init__(self, peer: Peer, app: ASGIApp, scope: dict[str, Any], *, keep_alive: bool, expects: bool) -> None:
        """Begin with no body; `expects` is whether the client waits for 100 Continue before it sends the body."""
        self._peer, self._app, self.scope, self.keep_alive, self._expects = peer, app, scope, keep_alive, expects
        self.body, self.received, self.more_body = bytearray(), 0, True
        self.started = self.complete = self.gone = self.last = self._given = self._chunked = False
        self._start: Message | None = None
        self._waiter: asyncio.Future[None] | None = None

    def take(self, data: bytes) -> None:
        """Take a part of the body that came."""
        self.body += data
        self.received += len(data)
        self._wake()

    def end_body(self) -> None:
        """Note that the body is complete."""
        self.more_body = False
        self._wake()

    def leave(self) -> None:
        """Note that the client is gone, or is not to get this answer."""
        self.gone = True
        self._wake()

    def end_soon(self) -> None:
        """Tell an application that waits for the end of the client that it has come: a stream has no other end."""
        self.last = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def run(self) -> None:
        """Run the application for the request; where it fails, or does not answer, the answer is 500."""
        try:
            await self._app(self.scope, self.receive, self.send)
        except BaseException:
            if not self.gone:
                logger.exception("The application failed.")
        if self.complete:
            return
        if self.started:
            self._peer.transport.abort()  # The client sees that the answer is not whole.
        elif not self.gone:
            self.keep_alive = False
            body = b"" if self.scope["method"] == "HEAD" else FAILED
            size = (b"content-length", b"%d" % len(FAILED))
            self._write(500, [(b"content-type", b"text/plain"), size, *ALWAYS], body)
        self._end()

    async def receive(self) -> Message:
        """Give what came of the body since the last time, or wait; in the end, that the client is gone."""
        if self._expects:
            self._expects = False
            self._peer.hub.send(self._peer.transport, b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self.gone or self.complete or self.body or not (self.more_body or self._given)):
            if self.last and self._given:
                return {"type": "http.disconnect"}
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.gone or self.complete:
            return {"type": "http.disconnect"}
        message = {"type": "http.request", "body": bytes(self.body), "more_body": self.more_body}
        self._given = not self.more_body
        self.body.clear()
        self._peer.consumed()
        return message

    async def send(self, message: Message) -> None:
        """Send the answer: a whole one at once, one in parts as the parts come."""
        if self._peer.write_paused and not self.gone:
            await self._peer.drain()
        if self.gone:
            return
        if message["type"] == "http.response.start":
            self._start = message
            return
        if self._start is None or self.complete:
            raise RuntimeError("An answer is a start, and a body behind it.")
        body, more = message.get("body", b""), message.get("more_body", False)
        if self.scope["method"] == "HEAD":
            body = b""
        if not self.started and not more:
            self._write(self._start["status"], self._start.get("headers", ()), body)
        else:
            self._write_part(self._start, body, more=more)
        if not more:
            self._end()

    def chunk_transport(self) -> Any:
        """Give the transport that chunks can be written to while the application sends nothing; None if there is none.

        Whoever writes must first look whether the transport is closing or has unsent bytes. Where the same chunk goes
        to a thousand clients, a write to each takes half of the time of `send` with the task that awaits it.
        """
        if not self._chunked or self.gone:
            return None
        self._peer.hub.flush()  # What was sent before comes first.
        return self._peer.transport

    def _write(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Write a whole answer; one behind which the rest of a body would come ends the connection."""
        self.keep_alive &= not self.more_body
        data = written(status, (*self._peer.fields, *headers), body, close=not self.keep_alive)
        self._peer.hub.send(self._peer.transport, data)

    def _write_part(self, start: Message, body: bytes, *, more: bool) -> None:
        data = b""
        if not self.started:
            self.started = True
            status, headers = start["status"], [*start.get("headers", ())]
            sized = any(name.lower() == b"content-length" for name, _ in headers) or status in NO_BODY
            if not sized and self.scope["http_version"] == "1.1":
                self._chunked = self.scope["method"] != "HEAD"
                headers.append((b"transfer-encoding", b"chunked"))
            self.keep_alive &= not self.more_body and (sized or self.scope["http_version"] == "1.1")
            data = written(status, (*self._peer.fields, *headers), b"", close=not self.keep_alive)
        if self._chunked:
            data += b"%x\r\n%s\r\n" % (len(body), body) if body else b""
            data += b"" if more else b"0\r\n\r\n"
        else:
            data += body
        self._peer.hub.send(self._peer.transport, data)

    def _end(self) -> None:
        self.complete = True
        self._wake()
        self._peer.finished(self)
