"""Send bytes and JSON that no client should send to a live server: `make fuzz`, or `make fuzz SECONDS=60`."""

import random
import signal
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count

import click

from fuzz import clients, live
from fuzz.cases import Case, make
from fuzz.checks import Broken, judge

CLIENTS = 24
"""How many cases are sent at once."""
MORE_MEMORY = 256
"""How many MiB more than at the start the server may use."""
TICK = 0.2
"""Seconds between two looks at the server."""
SHOWN = 4000
"""The most bytes that are printed of what was sent, and of what came."""
STALLED = (b"", b"GET /stud", b"POST /students HTTP/1.1\r\nHost: school\r\nContent-Length: 9\r\n\r\n")
"""What those have sent who are still connected when the server is to end."""
KEPT = live.ROOT / "build" / "fuzz"
"""Where the bytes of a case that breaks something are kept."""


class Round:
    """Some clients that send one case after the other, the canary, and what became of all that."""

    def __init__(self, server: live.Live, seed: int, numbers: Iterable[int]) -> None:
        """Send nothing yet."""
        self._server, self._seed = server, seed
        self._numbers: Iterator[int] = iter(numbers)
        self._lock, self._over = threading.Lock(), threading.Event()
        self._recent: deque[int] = deque(maxlen=CLIENTS)
        self._began, self._next_line = time.monotonic(), 0
        self._canary = clients.Canary(server.address)
        self._connections = self._cut = 0
        self._statuses: Counter[int] = Counter()
        self._at_start = self._peak = server.memory

    def run(self, seconds: float) -> None:
        """Send cases for so long, or until there are no more, and check all that must hold. Raises Broken."""
        self._canary.sing()  # From here on the server has open what it needs.
        files = self._server.files
        with ThreadPoolExecutor(CLIENTS + 1) as pool:
            work = [*[self._send_case] * CLIENTS, self._send_canary]
            done = [pool.submit(self._repeat, each) for each in work]
            try:
                while not self._over.wait(TICK) and time.monotonic() < self._began + seconds:
                    self._look()
            finally:
                self._over.set()
        for each in done:
            each.result()
        self._server.check_closed(files)
        self._look()
        with ExitStack() as stack:
            for sent in STALLED:
                stack.enter_context(socket.create_connection(self._server.address)).sendall(sent)
            self._server.check_end()

    def _repeat(self, work: Callable[[], None]) -> None:
        """Do something again and again until the round is over, which it is when something fails or no case is left."""
        try:
            while not self._over.is_set():
                work()
        except StopIteration:
            pass
        finally:
            self._over.set()

    def _send_case(self) -> None:
        with self._lock:
            number = next(self._numbers)
            self._recent.append(number)
        case, came = make(self._seed, number), b""
        try:
            came, whole = clients.talk(self._server.address, case)
            answers = judge(case, came, whole=whole)
        except Exception as error:
            raise Broken(report(self._seed, case, came, error)) from error
        with self._lock:
            self._connections += 1
            self._cut += not whole
            self._statuses.update(answer.status for answer in answers)

    def _send_canary(self) -> None:
        self._canary.sing()
        time.sleep(0.1)

    def _look(self) -> None:
        """Look at the server from outside, and show how far the round is."""
        self._server.check()
        self._peak = self._server.peak
        if self._peak > self._at_start + MORE_MEMORY:
            raise Broken(f"The server used {self._peak:.0f} MiB, and {self._at_start:.0f} MiB at the start.")
        seconds = time.monotonic() - self._began
        terminal = sys.stdout.isatty()
        if terminal or seconds >= self._next_line:
            self._next_line += 10
            line = f"{seconds:5.0f} s {self._connections:10,} connections {self._server.memory:6.0f} MiB"
            click.echo(f"\r{line}" if terminal else line, nl=not terminal)

    def summary(self) -> str:
        """Tell what was done and seen."""
        statuses = ", ".join(f"{number:,} of {status}" for status, number in sorted(self._statuses.items()))
        canary = self._canary
        return (
            f"seconds      {time.monotonic() - self._began:.0f}\n"
            f"seed         {self._seed}\n"
            f"connections  {self._connections:,}, of which {self._cut:,} were reset or not read\n"
            f"answers      {self._statuses.total():,}: {statuses}\n"
            f"canary       {canary.rounds:,} rounds, {canary.busy:,} times busy, {canary.slowest:.2f} s at most\n"
            f"memory       {self._at_start:.0f} MiB at the start, {self._peak:.0f} MiB at most"
        )

    def suspects(self) -> str:
        """Name the cases that were sent last, and how to send all again."""
        return f"The last cases were {[*self._recent]}. Repeat it: make fuzz FUZZ='--seed {self._seed}'"


def report(seed: int, case: Case, came: bytes, why: Exception) -> str:
    """Keep the bytes of a case that broke something; tell what was sent, what came, and how to repeat the case."""
    KEPT.mkdir(parents=True, exist_ok=True)
    kept = KEPT / f"{seed}-{case.number}.bin"
    kept.write_bytes(case.sent)
    return (
        f"{why!r}\n\nThe client {case.end}. It sent {len(case.sent):,} bytes, which {kept} has whole, in pieces of "
        f"{[*map(len, case.pieces)]} bytes:\n{case.sent[:SHOWN]!r}\n\nIt was answered with {len(came):,} bytes:\n"
        f"{came[:SHOWN]!r}\n\nRepeat it: make fuzz FUZZ='--seed {seed} --case {case.number}'"
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", type=click.FloatRange(0), default=300, show_default=True, help="How long to send.")
@click.option("--seed", type=int, help="The seed of all cases.  [default: a new one]")
@click.option("--case", type=click.IntRange(0), metavar="NUMBER", help="Send only the case with this number.")
def main(seconds: float, seed: int | None, case: int | None) -> None:
    """Send bytes and JSON that no client should send to a server of the service, and check all that must hold.

    The server is a process of its own on a new database. Exits with 1 if something does not hold. All cases follow from
    the seed, but not how those that are under way at once get mixed. It needs Linux.
    """
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    click.echo(f"seed {seed}")
    with live.serving() as server:
        this = Round(server, seed, count() if case is None else [case])
        try:
            this.run(seconds)
        except Broken as broken:
            click.echo(f"\nBROKEN: {broken}\n{this.suspects()}\n\n{this.summary()}")
            click.echo(f"log          {server.log.read_text() or 'empty'}")
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo(f"\nStopped.\n{this.summary()}")
            sys.exit(130)
    click.echo(f"\nAll held.\n{this.summary()}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Whatever ends the fuzz, its server ends, too.
    sys.setswitchinterval(0.001)  # The canary's thread must not wait for long until the other threads let it go on.
    main()
