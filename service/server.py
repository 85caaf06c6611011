"""uvicorn, set up for this service."""

import asyncio
import errno
import gc
import logging
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any
from urllib.parse import unquote

import click
import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.errors import SetupError
from service.settings import Settings

GRACE = 30
"""Seconds that requests under way have to finish after SIGTERM."""


class _Outbox:
    """What is to be sent when the event loop's turn is over.

    A client that sleeps is woken by what is sent to it, which takes as long as the query for a
    schedule. When the answers of a turn are sent one right after the other, a busy client, or a
    proxy, is woken once: 1.4 times as many GETs a second at 32 connections.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []

    def add(self, transport: asyncio.Transport, data: bytes) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting.append((transport, data))

    def flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            if not transport.is_closing():  # Its client may have gone meanwhile.
                transport.write(data)


class _Cycle(RequestResponseCycle):
    """A request, and its answer as `wire.Response` gives it: a head that lacks nothing, then the whole body.

    uvicorn's own can do more. It writes head and body one by one, each a packet: to join them makes a
    GET a quarter faster. And it looks every header over twice: leaving that out gains another tenth.
    """

    def __init__(self, protocol: "_Protocol", scope: Any, *, keep_alive: bool) -> None:
        self.scope, self.keep_alive = scope, keep_alive
        self.transport, self.flow, self.outbox = protocol.transport, protocol.flow, protocol.outbox
        self.logger = protocol.logger
        self.default_headers = protocol.server_state.default_headers
        self.on_response = protocol.on_response_complete
        self.waiting_for_100_continue = protocol.expect_100_continue
        self.message_event = asyncio.Event()
        self.body, self.more_body = bytearray(), True
        self.disconnected = self.response_started = self.response_complete = False
        self.start: Mapping[str, Any] = {}

    async def send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.start = message
            self.response_started, self.waiting_for_100_continue = True, False
            return
        if self.flow.write_paused:
            await self.flow.drain()
        answer = [STATUS_LINE[self.start["status"]]]
        for name, value in (*self.default_headers, *self.start["headers"]):
            answer += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            answer.append(b"connection: close\r\n")
        answer += (b"\r\n", message["body"])
        self.outbox.add(self.transport, b"".join(answer))
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.outbox.flush()
            self.transport.close()
        self.on_response()

    async def send_500_response(self) -> None:
        self.keep_alive = False
        body = b"" if self.scope["method"] == "HEAD" else b"Internal Server Error"
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"21")]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


class _Protocol(HttpToolsProtocol):
    """HTTP/1.1, as uvicorn reads it; what it sends by itself must not overtake what waits in the outbox.

    A request begins in fewer steps than uvicorn's, which leave room for websockets and for settings that
    are not used here: a twentieth more GETs a second, and POSTs too.
    """

    def __init__(self, outbox: _Outbox, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.outbox = outbox

    def on_message_begin(self) -> None:
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_headers_complete(self) -> None:
        url = httptools.parse_url(self.url)
        version = self.parser.get_http_version()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "method": self.parser.get_method().decode(),
            "scheme": self.scheme,
            "path": self.root_path + unquote(url.path.decode("ascii")),
            "query_string": url.query or b"",
            "root_path": self.root_path,
            "headers": self.headers,
            "client": self.client,
            "server": self.server,
        }
        before = self.cycle
        self.cycle = _Cycle(self, scope, keep_alive=version != "1.0" and self.parser.should_keep_alive())
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:  # Pipelined: on_response_complete starts it in its turn.
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def send_400_response(self, msg: str) -> None:
        self.outbox.flush()
        super().send_400_response(msg)

    def eof_received(self) -> None:
        self.outbox.flush()  # The transport closes by itself after this.

    def shutdown(self) -> None:
        self.outbox.flush()
        super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        self.outbox.flush()
        super().timeout_keep_alive_handler()


@contextmanager
def taking_port(settings: Settings) -> Iterator[list[socket.socket]]:
    """Take the port at each address that the host's name has, without listening yet, until the block ends.

    Raises SetupError, with what to change, if that cannot be.
    """
    with ExitStack() as stack:
        sockets: list[socket.socket] = []
        port = settings.port
        try:
            found = socket.getaddrinfo(settings.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, kind, protocol, _, (host, _, *scope) in dict.fromkeys(found):
                sockets.append(stack.enter_context(socket.socket(family, kind, protocol)))
                sockets[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:  # Else :: would take the addresses of IPv4 as well.
                    sockets[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sockets[-1].bind((host, port, *scope))
                port = sockets[-1].getsockname()[1]
        except (OSError, UnicodeError) as error:
            raise _no_port(settings, error) from error
        yield sockets


def _no_port(settings: Settings, error: OSError | UnicodeError) -> SetupError:
    taken = getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES)
    reason = (getattr(error, "strerror", None) or str(error)).lower()
    return SetupError(
        f"The service cannot listen on port {settings.port} of {settings.host}: {reason}. "
        f"Choose another {'port with --port or PORT' if taken else 'address with --host or HOST'}."
    )


class Server(uvicorn.Server):
    """Serves until SIGTERM or SIGINT, then finishes what is under way.

    It speaks once it listens, so that whoever waits for the line can connect at once.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        """Keep the settings."""
        self._settings = settings
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                root_path=settings.root_path,
                loop="uvloop",
                http=partial(_Protocol, _Outbox()),  # type: ignore[arg-type]  # It is called, no more.
                ws="none",
                lifespan="on",
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=settings.keep_alive,  # type: ignore[arg-type]  # Parts of a second will do, too.
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        try:
            for each in sockets or ():
                each.listen(self.config.backlog)  # uvloop says nothing where this fails.
        except OSError as error:  # Two may take a port as long as neither listens.
            raise _no_port(self._settings, error) from error
        await super().startup(sockets)
        # What was loaded to start stays. Without this a full collection holds every request up for 10 to 20 ms, as it
        # goes through all of that; with it, for half a millisecond.
        gc.freeze()
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        click.echo(f"Serving {self._settings.database_url} at {url} - try: curl {url}/students")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a Ctrl+C after that ends the process as it ends any other, at once."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if sig == signal.SIGINT:
            self.should_exit = True  # uvicorn would raise the signal again at the end, as an exception.
        else:
            super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen no more and finish what is under way; cut off what is not over within GRACE seconds."""
        for listening in (*self.servers, *(sockets or ())):
            listening.close()
        connections: set[Any] = self.server_state.connections
        tasks = self.server_state.tasks
        end, told = time.monotonic() + GRACE, False
        while (connections or tasks) and time.monotonic() < end:
            for connection in [*connections]:
                connection.shutdown()
            await asyncio.sleep(0.1)
            # What has a task is not answered yet; what is closing has not taken all of its answer yet.
            waiting = len(tasks) + sum(connection.transport.is_closing() for connection in connections)
            if waiting and not told:
                requests = "1 request" if waiting == 1 else f"{waiting} requests"
                _say(f"Waiting up to {GRACE} s for {requests} to end. Press Ctrl+C again to quit now.")
                told = True
        if connections or tasks:
            _say(f"Cutting off what has not ended within {GRACE} s.")
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # It would add a traceback for each.
            for connection in [*connections]:
                connection.transport.abort()
        await self.lifespan.shutdown()


def _say(line: str) -> None:
    with suppress(OSError):  # Ctrl+C ends what the errors are piped to as well.
        click.echo(line, err=True)
