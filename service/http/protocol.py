"""One connection of a client: HTTP/1.1 (RFC 9112) as httptools reads it, ASGI behind it, and a bound for everything."""

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from service.errors import Busy, ServiceError
from service.http.answers import ALWAYS, problem
from service.http.calls import Call
from service.http.connections import Connections
from service.http.edge import BadRequest, RequestTimeout
from service.http.exchange import Exchange, written
from service.http.parser import PIECE, Parser, Refused

MAX_WAITING = 8
"""Requests of one connection that may wait for the answer to an earlier one; then nothing more is read."""
MAX_UNREAD = 2**16
"""Bytes of a body that wait for the application, before nothing more is read."""
LINGER_SECONDS = 5
"""How long what a client still sends is read and thrown away behind the last answer: a connection that is closed with
bytes unread is reset, and the client may lose the answer."""
MAX_LINGER = 2**24
"""Bytes that are read so, at most; then the connection is reset."""
STOP_SECONDS = 5
"""How long a client may read nothing of its answer while the server stops."""
LEAST_RATE = 1024
"""Bytes a second that a body must bring on the whole, once its time without progress would be over."""


class Protocol(asyncio.Protocol):
    """The protocol that uvicorn is given; one for each connection."""

    def __init__(
        self,
        connections: Connections,
        *,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Take what uvicorn gives to every protocol; the state of the application's lifespan is not needed."""
        del app_state, _loop
        self.hub, self.app = connections, config.loaded_app
        self._state: Any = server_state
        self.transport: Any = None
        self._drained: list[asyncio.Future[None]] = []
        self._active: Exchange | None = None
        """The exchange whose answer is next."""
        self._waiting: deque[Exchange | ServiceError] = deque()
        """What comes after it: exchanges, and at the end perhaps the refusal of what was no request."""
        self._reading: Exchange | None = None
        """The exchange whose body is not complete yet."""
        self._unfed, self.write_paused = bytearray(), False
        self._stopped = self._lingering = self._ended = False
        self._thrown, self._unsent, self._unsent_since = 0, 0, 0.0
        self._deadline = self._body_began = math.inf
        self._parser = Parser(self, config.root_path)
        self._call = Call({"root_path": config.root_path, "query_string": b""}, None, None)  # type: ignore[arg-type]

    # What the event loop calls

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        self._state.connections.add(self)
        self._server, self._client = (self._address(name) for name in ("sockname", "peername"))
        placed = self.hub.add(self)
        self._deadline = self.hub.now + self.hub.settings.head_timeout
        if not placed:
            self._refuse(Busy("All connections are taken. Nothing was kept."))

    def _address(self, name: str) -> tuple[str, int] | None:
        found = self.transport.get_extra_info(name)
        return (str(found[0]), int(found[1])) if isinstance(found, (list, tuple)) else None

    def data_received(self, data: bytes) -> None:
        """Parse, unless there is too much to do already."""
        if self._stopped:  # What comes behind the last request is read and thrown away.
            self._thrown += len(data)
            if self._thrown > MAX_LINGER:
                self.transport.abort()
            return
        if self._unfed or len(data) > PIECE or self._is_full():
            self._unfed += data
            self._feed()
        else:
            self._parse(data)

    def _is_full(self) -> bool:
        return len(self._waiting) >= MAX_WAITING or (self._reading is not None and len(self._reading.body) > MAX_UNREAD)

    def _feed(self) -> None:
        """Give the parser what was kept back, as far as there is room for what it makes of it."""
        while self._unfed and not self._stopped and not self._is_full():
            piece = bytes(self._unfed[:PIECE])
            del self._unfed[:PIECE]
            self._parse(piece)
        if self._unfed and not self._stopped:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _parse(self, data: bytes) -> None:
        began = self._parser.in_head
        try:
            self._parser.feed(data)
        except Refused as refused:
            self._refuse(refused.args[0])
            return
        if (body := self._reading) is not None:
            if self.hub.held > self.hub.settings.max_held_bytes:
                self._refuse(Busy("The bodies of other requests take all the memory that there is for them now."))
                return
            now, allowed = self.hub.now, self.hub.settings.body_timeout
            self._deadline = min(now + allowed, self._body_began + allowed + body.received / LEAST_RATE)
        elif not self._parser.in_head:
            self._deadline = math.inf if self._active else self._deadline
        elif not began:
            self._deadline = self.hub.now + self.hub.settings.head_timeout

    def eof_received(self) -> bool:
        """Go on answering a client that sends nothing more; tell whether the connection stays open for that."""
        self._ended = self._stopped = True
        if self._reading is not None:
            self._abandon(self._reading)
        if self._active is not None:
            self._active.end_soon()
        self.hub.flush()
        return self._active is not None and not self._lingering

    def connection_lost(self, _: Exception | None) -> None:
        """End: nobody is there any more."""
        self._stopped = True
        self._state.connections.discard(self)
        self.hub.remove(self)
        self.hub.held -= sum(each.received for each in self._waiting if isinstance(each, Exchange))
        self._waiting.clear()
        self._unfed.clear()
        if self._active is not None:
            self._active.leave()
        self.resume_writing()

    def pause_writing(self) -> None:
        """Send no further answer until the client has read of those that were sent."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """Go on sending."""
        self.write_paused = False
        waiting, self._drained = self._drained, []
        for drained in [each for each in waiting if not each.done()]:
            drained.set_result(None)

    async def drain(self) -> None:
        """Wait until the client has read enough of what was sent."""
        self._drained.append(asyncio.get_running_loop().create_future())
        await self._drained[-1]

    # What the parser calls

    def begin(self, scope: dict[str, Any], fault: str, *, keep_alive: bool, expects: bool) -> None:
        """Begin the exchange of a request, as soon as it is its turn."""
        scope["client"], scope["server"] = self._client, self._server
        app = problem(self._call, self.hub.noted(BadRequest(fault))) if fault else self.app
        exchange = self._reading = Exchange(self, app, scope, keep_alive=keep_alive, expects=expects)
        self._body_began = self.hub.now
        if self._active is None:
            self.hub.busy(self)
            self._start(exchange)
        else:
            self._waiting.append(exchange)

    def take(self, data: bytes) -> None:
        """Take a part of the body."""
        self.hub.held += len(data)
        cast("Exchange", self._reading).take(data)

    def end(self, *, keep_alive: bool) -> None:
        """Take the end of the body, and whether another request may follow."""
        exchange, self._reading = cast("Exchange", self._reading), None
        exchange.keep_alive &= keep_alive
        exchange.end_body()
        self._stopped |= not exchange.keep_alive

    # What an exchange calls

    def _start(self, exchange: Exchange) -> None:
        self._active = exchange
        task = asyncio.get_running_loop().create_task(exchange.run())
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    @property
    def fields(self) -> Sequence[tuple[bytes, bytes]]:
        """The header fields of every answer: uvicorn's Date."""
        found: Sequence[tuple[bytes, bytes]] = self._state.default_headers
        return found

    def consumed(self) -> None:
        """Read on, as a part of the body has been taken."""
        if self._unfed:
            self._feed()

    def finished(self, exchange: Exchange) -> None:
        """Go on after an exchange: to the next one, or wait, or close."""
        self._state.total_requests += 1
        self.hub.held -= exchange.received
        self._active = None
        if self.transport.is_closing():
            return
        following = self._waiting.popleft() if self._waiting else None
        if isinstance(following, ServiceError):
            self._send_refusal(following)
        elif not exchange.keep_alive or exchange.gone:
            self._close(linger=exchange is self._reading or bool(self._unfed))
        elif following is not None:
            self._start(following)
        elif self._ended or self.hub.stopping:
            self._close(linger=False)
        else:
            self.hub.idle(self)
            if not self._parser.in_head:
                self._deadline = self.hub.now + self.hub.settings.keep_alive
        if self._unfed:
            self._feed()

    # Ends

    def _abandon(self, exchange: Exchange) -> None:
        """Give up a request whose body will never be complete."""
        self._reading = None
        exchange.leave()
        if exchange in self._waiting:  # It may be answered already, although not all of its body has come.
            self._waiting.remove(exchange)
            self.hub.held -= exchange.received

    def _refuse(self, refusal: ServiceError) -> None:
        """Answer what is no request, or none in time, when all requests before it are answered; then close."""
        if self._stopped:
            return
        self._stopped, self._deadline = True, math.inf
        self._unfed.clear()
        if self._reading is not None:
            self._abandon(self._reading)
        if self._active is None:
            self._send_refusal(refusal)
        else:
            self._waiting.append(refusal)

    def _send_refusal(self, refusal: ServiceError) -> None:
        answer = problem(self._call, self.hub.noted(refusal))
        headers = [*self.fields, *answer.headers, *ALWAYS, (b"content-length", b"%d" % len(answer.body))]
        self.hub.send(self.transport, written(answer.status, headers, answer.body, close=True))
        self._close(linger=True)

    def _close(self, *, linger: bool) -> None:
        self.hub.flush()
        self._stopped = True
        if not linger or self._ended or self.transport.is_closing():
            self.transport.close()
            return
        self._lingering, self._deadline = True, self.hub.now + LINGER_SECONDS
        self.transport.write_eof()
        self.transport.resume_reading()

    def shutdown(self) -> None:
        """Close when the requests that came are answered, as the server stops."""
        if self._active is None and not self._lingering:
            self._close(linger=False)
        elif self._active is not None:
            self._active.end_soon()
            last = self._waiting[-1] if self._waiting else self._active
            if isinstance(last, Exchange):
                last.keep_alive = False

    def give_way(self) -> None:
        """Close, as another client needs the place."""
        self.hub.flush()
        self.transport.close()

    def check(self, now: float) -> None:
        """Act on a deadline that is over."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since > (STOP_SECONDS if self.hub.stopping else self.hub.settings.answer_timeout):
            self.transport.abort()  # The client does not read.
        if now > self._deadline:
            if self._lingering:
                self.transport.abort()
            elif self._parser.in_head or self._reading is not None:
                self._refuse(RequestTimeout())
            else:
                self.give_way()
