"""The HTTP server: uvicorn, with its own ways of sending, starting and stopping replaced where this service gains."""

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
"""Seconds that requests under way have to finish after SIGTERM or SIGINT."""


class _Outbox:
    """The answers that are sent when the current turn (iteration) of the event loop is over.

    Sending to a client that sleeps makes the operating system wake it, which takes as long as the query for a
    schedule. When all answers of a turn are sent one right after the other, a client or a proxy with many
    connections is woken once for all of them: 1.4 times as many GETs a second at 32 connections.
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
            if not transport.is_closing():  # The client may have closed the connection since `add`.
                transport.write(data)


class _Cycle(RequestResponseCycle):
    """One request and its answer, which an `answers.Answer` sends: a complete head, then the whole body at once.

    uvicorn's own cycle can also send a body in parts, so it writes the head and the body as two packets; to join
    them makes a GET a quarter faster. uvicorn's cycle also checks every header twice, although the headers of an
    `Answer` are complete; to leave that out gains another tenth.
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
    """One connection of a client, read by uvicorn's HTTP/1.1 parser.

    uvicorn sends or closes by itself in some cases, such as a malformed request. Each of those methods sends the
    outbox first, so that no answer that waits there is overtaken or lost.

    `on_headers_complete` takes fewer steps than uvicorn's method, which allows for websockets and for settings that
    this service does not use: a twentieth more GETs a second, and POSTs too.
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
        else:  # The client did not wait for its last answer; on_response_complete starts this request after it.
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def send_400_response(self, msg: str) -> None:
        self.outbox.flush()
        super().send_400_response(msg)

    def eof_received(self) -> None:
        self.outbox.flush()  # The transport closes itself when this method returns; answers that wait would be lost.

    def shutdown(self) -> None:
        self.outbox.flush()
        super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        self.outbox.flush()
        super().timeout_keep_alive_handler()


@contextmanager
def taking_port(settings: Settings) -> Iterator[list[socket.socket]]:
    """Bind a socket to the port at each address of `settings.host`, without listening yet.

    Gives the bound sockets, and closes them when the block ends. Raises SetupError, which says what setting to
    change, if an address cannot be found or the port cannot be bound.
    """
    with ExitStack() as stack:
        sockets: list[socket.socket] = []
        port = settings.port
        try:
            found = socket.getaddrinfo(settings.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, kind, protocol, _, (host, _, *scope) in dict.fromkeys(found):
                sockets.append(stack.enter_context(socket.socket(family, kind, protocol)))
                sockets[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:  # Without this option the address :: takes the IPv4 addresses as well.
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
    """The uvicorn server of this service: it serves until SIGTERM or SIGINT, then finishes the requests under way.

    The server prints its line "Serving ..." once it listens, so that a program that waits for the line can connect at
    once.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        """Translate the service's settings into uvicorn's configuration."""
        self._settings = settings
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                root_path=settings.root_path,
                loop="uvloop",
                # uvicorn wants a class here, but only calls it.
                http=partial(_Protocol, _Outbox()),  # type: ignore[arg-type]
                ws="none",
                lifespan="on",
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                # uvicorn wants whole seconds here, but parts of a second work too.
                timeout_keep_alive=settings.keep_alive,  # type: ignore[arg-type]
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on the bound sockets, start the application, and print the address."""
        try:
            for each in sockets or ():
                each.listen(self.config.backlog)  # uvloop listens too, but reports no error where that fails.
        except OSError as error:  # Two programs may bind one port as long as neither listens: the other one does.
            raise _no_port(self._settings, error) from error
        await super().startup(sockets)
        # The objects that were made to start the service stay until its end. Without gc.freeze, a full garbage
        # collection goes through all of them and holds every request up for 10 to 20 ms; with it, for half a ms.
        gc.freeze()
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        click.echo(f"Serving {self._settings.database_url} at {url} - try: curl {url}/students")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop at SIGTERM or SIGINT.

        A Ctrl+C after that ends the process at once, as it would end any other program.
        """
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if sig == signal.SIGINT:
            self.should_exit = True  # uvicorn's handler would raise SIGINT again after the end, as an exception.
        else:
            super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, finish the requests under way, and cut off those that are not over within GRACE seconds."""
        for listening in (*self.servers, *(sockets or ())):
            listening.close()
        connections: set[Any] = self.server_state.connections
        tasks = self.server_state.tasks
        end, told = time.monotonic() + GRACE, False
        while (connections or tasks) and time.monotonic() < end:
            for connection in [*connections]:
                connection.shutdown()
            await asyncio.sleep(0.1)
            # A request that has a task is not answered yet. A connection that is closing has an answer left to send,
            # because its client has not read all of it yet.
            waiting = len(tasks) + sum(connection.transport.is_closing() for connection in connections)
            if waiting and not told:
                requests = "1 request" if waiting == 1 else f"{waiting} requests"
                _say(f"Waiting up to {GRACE} s for {requests} to end. Press Ctrl+C again to quit now.")
                told = True
        if connections or tasks:
            _say(f"Cutting off what has not ended within {GRACE} s.")
            # uvicorn would log a traceback for each request that is cut off.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            for connection in [*connections]:
                connection.transport.abort()
        await self.lifespan.shutdown()


def _say(line: str) -> None:
    with suppress(OSError):  # Where stderr is piped to another program, Ctrl+C has ended that program as well.
        click.echo(line, err=True)
