"""The load: what wrk sends to one server, and what comes of it."""

import json
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from bench.campus import SEED, Campus, Pair
from bench.processes import LOAD_CORE, Server, pinned
from bench.systems import System

GET, ROSTER, MIX, POST = "GET schedule", "GET roster page", "90/10 mix", "POST enroll"
KINDS = (GET, ROSTER, MIX, POST)
DROP = "DELETE enrollment"
"""Asked of the service alone, as are those that do much at once."""
WRITES = (POST, DROP)
BULK, PROMOTE = "bulk", "PATCH that promotes"
MOST = {GET: 80_000, ROSTER: 20_000, MIX: 40_000, POST: 20_000, DROP: 20_000}
"""Requests that are made ready for each second; a system that is faster ends its cell early."""
PAGE = 100
"""Rows of a roster that are asked for."""
SCRIPT = Path(__file__).with_suffix(".lua")


class Requests:
    """What is asked of one system on one campus: GETs at random, POSTs and DELETEs of pairs that no other one has."""

    def __init__(self, system: System, campus: Campus, copies: int = 1) -> None:
        """Begin anew: the same requests in the same order for every system and every round."""
        self.system, self._campus, self._copies = system, campus, copies
        self._dice = random.Random(SEED)
        self.pairs = self._anywhere(campus.free_pairs)
        self._taken = self._anywhere(campus.taken_pairs)

    def lines(self, kind: str, count: int) -> Iterator[str]:
        """Give requests as the script reads them."""
        makers: dict[str, Callable[[int], str]] = {
            GET: lambda _: self._schedule(),
            ROSTER: lambda _: f"GET {self.system.roster(self._any(self._campus.courses))}\n",
            MIX: lambda at: self._schedule() if at % 10 else self._enrollment(),
            POST: lambda _: self._enrollment(),
            DROP: lambda _: self._drop(),
        }
        return map(makers[kind], range(count))

    def _schedule(self) -> str:
        return f"GET {self.system.schedule(self._any(self._campus.students))}\n"

    def _enrollment(self) -> str:
        return f"POST {self.system.enrollment(next(self.pairs))}\n"

    def _drop(self) -> str:
        student, course = next(self._taken)
        return f"DELETE {self.system.schedule(student)}/{course}\n"

    def _any(self, things: list[Any]) -> int:
        return int(self._dice.random() * len(things) * self._copies) + 1

    def _anywhere(self, pairs: list[Pair]) -> Iterator[Pair]:
        """Give each pair once, in any copy of the campus."""
        for pair in pairs:
            yield self._campus.moved(pair, int(self._dice.random() * self._copies))


def measure(server: Server, requests: Requests, kind: str, connections: int, seconds: int) -> dict[str, Any]:
    """Load a server for some seconds; give requests per second, the processor time of each, latencies, and errors."""
    listed = server.folder / "requests.txt"
    with listed.open("w") as file:
        file.writelines(requests.lines(kind, MOST[kind] * seconds))
    if not listed.stat().st_size:
        raise click.ClickException(f"There is nothing left for {kind}: measure for fewer seconds.")
    command = ["wrk", "--threads=1", f"--connections={connections}", f"--duration={seconds}s", "--timeout=10s"]
    server.wait_until_idle()
    before = server.processor_time()
    done = subprocess.run(
        pinned(LOAD_CORE, [*command, f"--script={SCRIPT}", server.url, "--", str(listed)]),
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    _, found, result = done.stdout.partition("\nRESULT ")
    if not found:
        raise click.ClickException(f"wrk failed:\n{done.stdout}{done.stderr}")
    sample: dict[str, Any] = json.loads(result)
    rate = sample["requests"] / sample.pop("seconds")
    processor = (server.processor_time() - before) / max(sample["requests"], 1) * 1e6
    return {"request": kind, "connections": connections, "rate": rate, "processor": processor, **sample}


def measure_writes(server: Server, requests: Requests, kind: str, connections: int, seconds: int) -> dict[str, Any]:
    """Do that with writes, and count in the database that each answer was a fact; `lost` are those that were not."""
    server.wait_until_idle()
    before = requests.system.count(server.folder)
    sample = measure(server, requests, kind, connections, seconds)
    answered = sample["requests"] - sample["refused"]
    return {**sample, "lost": max(0, answered - abs(requests.system.count(server.folder) - before))}
