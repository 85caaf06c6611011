"""The rounds: who is measured when, on what."""

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

import attrs
import click

from bench import bulk, listeners, load, postgres
from bench.campus import SIZES, Campus
from bench.processes import Server
from bench.report import Progress
from bench.systems import OURS, SYSTEMS, System

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Plan:
    """How much is measured."""

    rounds: int
    seconds: int
    warm_up: int
    """Seconds, before anything is measured on a server."""
    bulks: int
    """In a round, each of bulk.ROWS rows."""
    connections: Sequence[int]
    sizes: Sequence[int]
    growth_connections: Sequence[int] = ()
    systems: Sequence[str] = ()
    sections: Sequence[str] = ()


@attrs.define
class Bench:
    """A run: its plan, where it works, and the samples that it has taken, by section."""

    plan: Plan
    campus: Campus
    folder: Path
    progress: Progress
    samples: dict[str, list[dict[str, Any]]] = attrs.field(factory=lambda: defaultdict(list))

    def rounds(self, word: str = "round") -> Iterator[int]:
        """Count the rounds, and say so."""
        for number in range(self.plan.rounds):
            self.progress.prefix = f"{word} {number + 1} of {self.plan.rounds}: "
            yield number
        self.progress.prefix = ""


def load_section(bench: Bench) -> None:
    """Load every system in every way; note its start, and its memory before and after.

    All of them are up for the whole round, and take turns: the machine's speed changes from minute to minute, and
    only neighbours are compared.
    """
    systems = [SYSTEMS[key] for key in bench.plan.systems]
    for system in systems:
        bench.progress.say(f"{system.name}: making its database")
        system.prepare(made(bench.folder / system.key), bench.campus)
    for number in bench.rounds():
        with ExitStack() as stack:
            started = [start(bench, number, system, stack) for system in rotated(systems, number)]
            for at, (kind, connections) in enumerate(product(load.KINDS, bench.plan.connections)):
                for one in rotated(started, at):
                    if one.system.keeps or kind == load.GET:
                        measure_load(bench, one, kind, connections)
            bench.samples["starts"] += [{**one.start, "memory_after": one.server.memory()} for one in started]


class Started(NamedTuple):
    """A system that is up, and what is asked of it in this round."""

    system: System
    server: Server
    requests: load.Requests
    start: dict[str, Any]


def start(bench: Bench, number: int, system: System, stack: ExitStack, copies: int = 1) -> Started:
    """Start a system on a copy of its file, see that it answers right, and warm it up."""
    bench.progress.say(f"{system.name}: starting")
    folder = stack.enter_context(_copy(bench.folder / system.key))
    server = stack.enter_context(system.serve(folder))
    first = {"round": number, "system": system.key, "seconds": server.started_in, "memory": server.memory()}
    requests = load.Requests(system, bench.campus, copies)
    if system.keeps:
        _check(server, requests, bench.campus)
    _warm_up(bench, server, requests)
    return Started(system, server, requests, first)


def measure_load(bench: Bench, one: Started, kind: str, connections: int, *, counted: bool = True) -> None:
    """Load one system in one way; what it writes is counted in its file, unless that would take long."""
    bench.progress.say(f"{kind}, {connections} connections: {one.system.name}")
    measure = load.measure_writes if kind in load.WRITES and counted else load.measure
    sample = measure(one.server, one.requests, kind, connections, bench.plan.seconds)
    bench.samples["load"].append({"round": one.start["round"], "system": one.system.key, **sample})


def bulk_section(bench: Bench) -> None:
    """Take turns: a bulk over HTTP, executemany on a bare file, and on the service's own with its triggers."""
    base = made(bench.folder / "bulk")
    OURS.prepare(base, bench.campus)
    for number in bench.rounds():
        bench.progress.say("bulk")
        with (
            _copy(base) as folder,
            _copy(base) as other,
            closing(bulk.bare(other / "bare.db", bench.campus)) as bare,
            closing(bulk.connect(other / OURS.database)) as own,
            OURS.serve(folder) as server,
        ):
            pairs = load.Requests(OURS, bench.campus).pairs
            for _ in range(bench.plan.bulks):
                rows = bulk.take(pairs)
                sample = {"service": bulk.post(server, rows), "bare": bulk.insert(bare, rows)}
                bench.samples["bulk"].append({"round": number, **sample, "triggers": bulk.insert(own, rows)})


def growth_section(bench: Bench) -> None:
    """Load the service on files of several sizes."""
    for size in bench.plan.sizes:
        bench.progress.say(f"growth: making {size:,} enrollments")
        OURS.prepare(made(bench.folder / f"growth-{size}"), bench.campus, SIZES[size])
    for number in bench.rounds():
        with ExitStack() as stack:
            started = {}
            for size in bench.plan.sizes:
                folder = stack.enter_context(_copy(bench.folder / f"growth-{size}"))
                requests = load.Requests(OURS, bench.campus, SIZES[size])
                started[size] = (stack.enter_context(OURS.serve(folder)), requests)
                _warm_up(bench, *started[size])
            cells = product((load.GET, load.ROSTER, load.POST), bench.plan.growth_connections)
            for at, (kind, connections) in enumerate([*cells, (load.BULK, 1)]):
                for size in rotated(bench.plan.sizes, number + at):
                    bench.progress.say(f"growth: {kind}, {connections} connections, {size:,} enrollments")
                    about = {"round": number, "size": size}
                    for sample in _grow(bench, *started[size], kind, connections):
                        bench.samples["growth"].append({**about, **sample})


def _grow(
    bench: Bench, server: Server, requests: load.Requests, kind: str, connections: int
) -> Iterator[dict[str, Any]]:
    if kind != load.BULK:
        yield load.measure(server, requests, kind, connections, bench.plan.seconds)
        return
    for _ in range(bench.plan.bulks):
        yield {"request": kind, "connections": connections, "rate": bulk.post(server, bulk.take(requests.pairs))}


def live_section(bench: Bench) -> None:
    """Let many clients listen to the service's events while enrollments come at a steady rate."""
    base = made(bench.folder / "live")
    OURS.prepare(base, bench.campus)
    for number in bench.rounds():
        bench.progress.say(f"live: {listeners.LISTENERS:,} clients, {listeners.RATE:,} enrollments a second")
        with _copy(base) as folder, OURS.serve(folder) as server:
            sample = listeners.measure(server, load.Requests(OURS, bench.campus).pairs, bench.plan.seconds)
            bench.samples["live"].append({"round": number, **sample})


def postgresql_section(bench: Bench) -> None:
    """Take turns on one PostgreSQL: the service, a peer, the service with slower flushes, and two nodes of it."""
    usual = 32 if 32 in bench.plan.connections else bench.plan.connections[0]
    with postgres.running() as server, server.database() as ours, server.database() as theirs:
        bench.progress.say("PostgreSQL: making the databases")
        for system in (postgres.Service(ours), postgres.Peer(theirs)):
            system.prepare(made(bench.folder / system.key), bench.campus)
        for number in bench.rounds():
            with ExitStack() as stack:
                one, slow, nodes = (stack.enter_context(server.database(ours)) for _ in range(3))
                postgres.delay(server, slow)
                systems: list[System] = [
                    postgres.Service(one),
                    postgres.Peer(stack.enter_context(server.database(theirs))),
                    postgres.Service(slow, postgres.SLOW),
                ]
                started = [_start_on_server(bench, number, system, stack) for system in systems]
                both = [_start_on_server(bench, number, postgres.Service(nodes, postgres.NODES), stack) for _ in "12"]
                server.execute("CHECKPOINT")
                for at, (kind, connections) in enumerate(product((load.GET, load.POST), bench.plan.connections)):
                    whole = kind == load.POST and connections == usual
                    for turn in rotated([*started[: 3 if whole else 2], *both[:whole]], number + at):
                        _measure_on_server(bench, turn, both, kind, connections)
                for name, rate in _many(bench, started[0]):
                    about = {"round": number, "system": postgres.SERVICE, "connections": 1}
                    bench.samples["postgresql"].append({**about, "request": name, "rate": rate})


def _start_on_server(bench: Bench, number: int, system: System, stack: ExitStack) -> "Started":
    folder = Path(stack.enter_context(TemporaryDirectory(dir=bench.folder)))
    server = stack.enter_context(system.serve(folder))
    requests = load.Requests(system, bench.campus)
    if system.name != postgres.NODES:
        _check(server, requests, bench.campus)
    _warm_up(bench, server, requests)
    return Started(system, server, requests, {"round": number})


def _measure_on_server(bench: Bench, one: "Started", nodes: Sequence["Started"], kind: str, connections: int) -> None:
    bench.progress.say(f"PostgreSQL: {kind}, {connections} connections: {one.system.name}")
    if one.system.name == postgres.NODES:
        servers = [each.server for each in nodes]
        sample = postgres.measure_nodes(servers, one.system, bench.campus, connections, bench.plan.seconds)
    else:
        measure = load.measure_writes if kind in load.WRITES else load.measure
        sample = measure(one.server, one.requests, kind, connections, bench.plan.seconds)
    bench.samples["postgresql"].append({**one.start, "system": one.system.name, **sample})


def _many(bench: Bench, one: "Started") -> Iterator[tuple[str, float]]:
    for _ in range(bench.plan.bulks):
        bench.progress.say("PostgreSQL: many rows at once")
        yield load.BULK, bulk.post(one.server, bulk.take(one.requests.pairs))
        for name, how in ((postgres.ATOMIC, "atomic"), (postgres.DRY_RUN, "dry_run")):
            yield name, bulk.post_whole(one.server, bulk.take(one.requests.pairs)[: bulk.WHOLE], how)


SECTIONS: Mapping[str, Callable[[Bench], None]] = {
    "load": load_section,
    "bulk": bulk_section,
    "growth": growth_section,
    "live": live_section,
    "postgresql": postgresql_section,
}


def _check(server: Server, requests: load.Requests, campus: Campus) -> None:
    """Raise ClickException unless the system answers as the others do: what it is asked for, and so that it counts."""
    system = requests.system
    student, course = campus.enrollments[0]
    name, _ = campus.courses[course - 1]
    path, _, body = system.enrollment(next(requests.pairs)).partition(" ")
    schedule, roster = (server.ask("GET", path) for path in (system.schedule(student), system.roster(course)))
    created, _ = server.ask("POST", path, body)
    right = (schedule[0], roster[0], created) == (200, 200, system.created)
    if not right or f'"{name}"'.encode() not in schedule[1] or roster[1].count(b'"name"') != load.PAGE:
        raise click.ClickException(f"{system.name} does not do its work: {schedule}, {roster}, {created}")


def _warm_up(bench: Bench, server: Server, requests: load.Requests) -> None:
    if bench.plan.warm_up:
        load.measure(server, requests, load.GET, max(bench.plan.connections), bench.plan.warm_up)


@contextmanager
def _copy(base: Path) -> Iterator[Path]:
    """Give a copy of a folder, on the disk before anything is measured on it."""
    with TemporaryDirectory(dir=base.parent) as folder:
        shutil.copytree(base, folder, dirs_exist_ok=True)
        os.sync()
        yield Path(folder)


def made(folder: Path) -> Path:
    """Make a folder and give it."""
    folder.mkdir()
    return folder


def rotated(things: Sequence[T], by: int) -> list[T]:
    """Begin with another one each time."""
    by %= len(things)
    return [*things[by:], *things[:by]]
