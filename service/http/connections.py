"""All connections of a server together: how many there are, what they hold, what is to be sent, and their deadlines."""

import asyncio
import logging
from typing import Protocol

from service.errors import ServiceError
from service.http.metrics import Metrics
from service.log import OneASecond
from service.settings import Settings

logger = logging.getLogger(__name__)
logger.addFilter(OneASecond())  # One client can send many requests that are none.

SWEEP_SECONDS = 0.5
"""Seconds between two looks at the deadlines of all connections. The clock of the connections moves only then: a clock
that is read for every request, and a timer for every answer, would be 3 % of a GET."""


class Connection(Protocol):
    """One connection of a client."""

    def check(self, now: float) -> None:
        """Act on a deadline that is over."""

    def give_way(self) -> None:
        """Close, as another client needs the place."""


class Connections:
    """The connections of one server, and what they share."""

    def __init__(self, settings: Settings, most: int, metrics: Metrics | None = None) -> None:
        """Have none yet; `most` may be open at once. What is refused is counted in `metrics`."""
        metrics = metrics or Metrics()
        metrics.connections = self
        self._tally = metrics.tally()
        self.settings = settings
        self.now = 0.0
        """The event loop's time, in seconds, at the last sweep."""
        self.held = 0
        """Bytes of request bodies that are in memory."""
        self.stopping = False
        self._most = most
        self._open: set[Connection] = set()
        self._unproven: dict[Connection, None] = {}
        """Those that have never sent a whole request head, the oldest first."""
        self._idle: dict[Connection, None] = {}
        """Those that wait for their next request, the one that waits longest first."""
        self._answers: list[tuple[asyncio.Transport, bytes]] = []
        self._sweeping = False

    def __len__(self) -> int:
        """Tell how many are open."""
        return len(self._open)

    def add(self, connection: Connection) -> bool:
        """Count a connection that was made; tell whether there is a place for it.

        Where all places are taken, one that never sent a request goes, or else the one that waits longest for its next.
        """
        self._open.add(connection)
        if not self._sweeping:
            self._sweeping = True
            self._sweep()
        if len(self._open) > self._most:
            victim = next(iter(self._unproven or self._idle), None)
            if victim is None:
                return False
            victim.give_way()
            self.busy(victim)
        self._unproven[connection] = None
        return True

    def remove(self, connection: Connection) -> None:
        """Count a connection no more."""
        self._open.discard(connection)
        self.busy(connection)

    def busy(self, connection: Connection) -> None:
        """Note that a connection has a request to answer."""
        self._idle.pop(connection, None)
        self._unproven.pop(connection, None)

    def idle(self, connection: Connection) -> None:
        """Note that a connection waits for its next request."""
        self._idle[connection] = None

    def noted(self, refusal: ServiceError) -> ServiceError:
        """Count and log why a client is refused before the application is asked, and give the refusal back.

        The line is of the level INFO, which `serve` leaves out without ACCESS_LOG: what clients send must not fill the
        log.
        """
        self._tally.refuse_at_once({}, refusal)
        logger.info("A client was refused: %s", refusal.detail)
        return refusal

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        for connection in [*self._open]:
            connection.check(self.now)
        self._sweeping = bool(self._open)
        if self._sweeping:
            loop.call_later(SWEEP_SECONDS, self._sweep)

    def send(self, transport: asyncio.Transport, data: bytes) -> None:
        """Send an answer when the current turn (iteration) of the event loop is over.

        Sending to a client that sleeps makes the operating system wake it, which takes as long as the query for a
        schedule. When all answers of a turn are sent one right after the other, a client or a proxy with many
        connections is woken once for all of them: 1.4 times as many GETs a second at 32 connections.
        """
        if not self._answers:
            asyncio.get_running_loop().call_soon(self.flush)
        self._answers.append((transport, data))

    def flush(self) -> None:
        """Send what waits."""
        answers, self._answers = self._answers, []
        for transport, data in answers:
            if not transport.is_closing():  # The client may have closed the connection since `send`.
                transport.write(data)
