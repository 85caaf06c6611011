"""The HTTP server: uvicorn, with its own ways of sending, starting and stopping replaced where this service gains."""

import asyncio
import errno
import gc
import logging
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

import click
import uvicorn
from starlette.types import ASGIApp

from service.errors import SetupError
from service.http.connections import Connections
from service.http.metrics import Metrics
from service.http.protocol import Protocol
from service.settings import Settings
from service.storage.kinds import without_password

GRACE = 30
"""Seconds that requests under way have to finish after SIGTERM or SIGINT."""


SPARE_FILES = 64
"""File descriptors that are kept for the database and for whatever else the process opens."""


def _places(settings: Settings) -> int:
    """Give how many connections there may be at once: each is a file descriptor, of which the process has so many."""
    import resource  # noqa: PLC0415 - Windows does not have it, nor uvloop.

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(1, soft - SPARE_FILES)
    return settings.max_connections


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

    def __init__(
        self, app: ASGIApp, settings: Settings, open_to: str | None = None, metrics: Metrics | None = None
    ) -> None:
        """Translate the service's settings into uvicorn's configuration.

        `open_to` says who needs no token, for the line at the start; it is None where everybody needs one. `metrics`
        are those of the application.
        """
        self._settings, self._open_to = settings, open_to
        self._connections = Connections(settings, _places(settings), metrics)
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                root_path=settings.root_path,
                loop="uvloop",
                # uvicorn wants a class here, but only calls it.
                http=partial(Protocol, self._connections),  # type: ignore[arg-type]
                ws="none",
                lifespan="on",
                log_level="warning",
                access_log=False,
                log_config=None,  # `serve` has set logging up, and a host program its own.
                server_header=False,
                proxy_headers=False,
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
        who = f" to {self._open_to}" if self._open_to else ""
        how = "" if self._open_to else '-H "Authorization: Bearer TOKEN" '
        click.echo(
            f"Serving {without_password(self._settings.database_url)} at {url}{who} - try: curl {how}{url}/students"
        )

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
        self._connections.stopping = True
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
