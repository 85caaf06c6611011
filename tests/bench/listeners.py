"""Many clients that listen to the events while others enroll: how long an event takes from its enrollment to them."""

import gc
import resource
import select
import socket
import sqlite3
import time
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from datetime import datetime
from typing import Any

import click

from bench.campus import Pair
from bench.processes import HOST, Server
from bench.systems import OURS

LISTENERS = 1_000
RATE = 1_000
"""Enrollments per second."""
WRITERS = 16
"""Connections that the enrollments come by."""
SETTLE_SECONDS = 1.0
"""How long events may still come once the last enrollment was sent."""
LISTEN = b"GET /events?after=%d HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n"
POST = "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
WHOLE = (b"", b"\r\n")
"""What may follow an event so that nothing of the next one has come: nothing, or the end of a chunk."""
NEWEST = "SELECT max(id) FROM enrollment_events"
NEW = "SELECT id, at FROM enrollment_events WHERE id > ? ORDER BY id"


class Listener:
    """One client that listens; it reads no more of what comes than the last id.

    All of them share one processor, and while one of them reads, what came for the others waits and seems late. So they
    do as little for each part as can be: they search it from its end, and copy hardly anything of it.
    """

    def __init__(self, connection: socket.socket, after: int) -> None:
        """Ask for the events after an id."""
        self.connection = connection
        self.came: list[tuple[float, int]] = []
        """When something came, in seconds of the clock, and the newest id that had come by then."""
        self._rest = b""
        connection.sendall(LISTEN % after)

    def read(self) -> None:
        """Take what came, and note when."""
        data = self.connection.recv(2**15)
        if not data:
            raise click.ClickException("The server has ended a stream.")
        if self._rest not in WHOLE:
            data = self._rest + data
        end = data.rfind(b"\n\n")
        start = data.rfind(b"id: ", 0, end) if end > 0 else -1
        if start >= 0:
            self.came.append((time.time(), int(data[start + 4 : data.index(b"\n", start)])))
        self._rest = data[end + 2 :] if end >= 0 else data


def measure(server: Server, pairs: Iterator[Pair], seconds: int) -> dict[str, Any]:
    """Let many listen while enrollments come at a steady rate; give latencies in ms, and what went wrong.

    An event's time is its `at`, which its statement gave it before the commit. The event counts for each client by
    itself.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < 2 * LISTENERS:  # RLIM_INFINITY is below 0.
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(2 * LISTENERS, hard) if hard >= 0 else 2 * LISTENERS, hard))
    path = server.folder / OURS.database
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)) as db, ExitStack() as stack:
        ((newest,),) = db.execute(NEWEST)
        listeners = [Listener(_connect(server, stack), newest) for _ in range(LISTENERS)]
        writers = [_connect(server, stack) for _ in range(WRITERS)]
        server.wait_until_idle()
        idle = _share(server, lambda: time.sleep(1))
        sent: list[int] = []
        # The garbage collector would stop this process, and so all clients, for up to 0.1 s, because it goes through
        # the whole campus. That is more than one hundredth of three seconds: the p99 would be the collector's.
        gc.disable()
        stack.callback(gc.enable)
        busy = _share(server, lambda: sent.extend(_run(listeners, writers, pairs, seconds)))
        events = [(number, datetime.fromisoformat(at).timestamp()) for number, at in db.execute(NEW, (newest,))]
    spread, came = _spread(listeners, events)
    quantiles = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    return {
        "listeners": LISTENERS,
        "rate": len(events) / seconds,
        "refused": sent[1],
        "lost": LISTENERS * len(events) - came,
        "idle": idle,
        "busy": busy,
        **{name: _quantile(spread, share) for name, share in quantiles.items()},
    }


def _connect(server: Server, stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_connection((HOST, server.port)))


def _share(server: Server, work: Any) -> float:
    """Give the share of its core that a server takes while something is done."""
    processor, began = server.processor_time(), time.perf_counter()
    work()
    return (server.processor_time() - processor) / (time.perf_counter() - began)


def _run(
    listeners: list[Listener], writers: list[socket.socket], pairs: Iterator[Pair], seconds: int
) -> tuple[int, int]:
    """Enroll at the rate and read what comes; give how many were sent, and how many were refused."""
    free, sent, refused = deque(writers), 0, 0
    reading: Mapping[int, Listener] = {each.connection.fileno(): each for each in listeners}
    writing = {each.fileno(): each for each in writers}
    with closing(select.epoll()) as poll:
        for number in (*reading, *writing):
            poll.register(number, select.EPOLLIN)
        began = time.perf_counter()
        while (now := time.perf_counter() - began) < seconds + SETTLE_SECONDS:
            while free and now < seconds and sent < now * RATE:
                path, _, body = OURS.enrollment(next(pairs)).partition(" ")
                free.popleft().sendall((POST % (path, len(body), body)).encode())
                sent += 1
            for number, _ in poll.poll(0.001):
                if number in reading:
                    reading[number].read()
                else:
                    refused += not writing[number].recv(2**16).startswith(b"HTTP/1.1 201 ")
                    free.append(writing[number])
    return sent, refused


def _spread(listeners: list[Listener], events: list[tuple[int, float]]) -> tuple[Counter[int], int]:
    """Count the latencies, in tenths of a millisecond, and all events that came."""
    spread, came, numbers = Counter[int](), 0, [number for number, _ in events]
    for each in listeners:
        before = 0
        for now, seen in each.came:
            behind = bisect_right(numbers, seen)
            spread.update([int((now - at) * 10_000) for _, at in events[before:behind]])
            came, before = came + behind - before, behind
    return spread, came


def _quantile(spread: Counter[int], share: float) -> float:
    """Give a quantile in ms."""
    seen = 0
    for value in sorted(spread):
        seen += spread[value]
        if seen >= share * spread.total():
            return value / 10
    return 0.0
