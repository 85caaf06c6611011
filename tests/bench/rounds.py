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

from bench import bulk, load
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
    growth_connections: Sequence[int]
    systems: Sequence[str]
    sections: Sequence[str]
    sizes: Sequence[int]


@attrs.define
class Bench:
    """A run: its plan, where it works, and the samples that it has taken, by section."""

    plan: Plan
    campus: Campus
    folder: Path
    progress: Progress
    samples: dict[str, list[dict[str, Any]]] = attrs.field(factory=lambda: defaultdict(list))

    def rounds(self) -> Iterator[int]:
        """Count the rounds, and say so."""
        for number in range(self.plan.rounds):
            self.progress.prefix = f"round {number + 1} of {self.plan.rounds}: "
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
        system.prepare(_made(bench.folder / system.key), bench.campus)
    for number in bench.rounds():
        with ExitStack() as stack:
            started = [_start(bench, number, system, stack) for system in _rotated(systems, number)]
            for at, (kind, connections) in enumerate(product(load.KINDS, bench.plan.connections)):
                for one in _rotated(started, at):
                    if one.system.keeps or kind == load.GET:
                        _load(bench, one, kind, connections)
            bench.samples["starts"] += [{**one.start, "memory_after": one.server.memory()} for one in started]


class Started(NamedTuple):
    """A system that is up, and what is asked of it in this round."""

    system: System
    server: Server
    requests: load.Requests
    start: dict[str, Any]


def _start(bench: Bench, number: int, system: System, stack: ExitStack) -> Started:
    bench.progress.say(f"{system.name}: starting")
    folder = stack.enter_context(_copy(bench.folder / system.key))
    server = stack.enter_context(system.serve(folder))
    start = {"round": number, "system": system.key, "seconds": server.started_in, "memory": server.memory()}
    requests = load.Requests(system, bench.campus)
    if system.keeps:
        _check(server, requests, bench.campus)
    _warm_up(bench, server, requests)
    return Started(system, server, requests, start)


def _load(bench: Bench, one: Started, kind: str, connections: int) -> None:
    bench.progress.say(f"{kind}, {connections} connections: {one.system.name}")
    measure = load.measure_writes if kind == load.POST else load.measure
    sample = measure(one.server, one.requests, kind, connections, bench.plan.seconds)
    bench.samples["load"].append({"round": one.start["round"], "system": one.system.key, **sample})


def bulk_section(bench: Bench) -> None:
    """Take turns: a bulk over HTTP, executemany on a bare file, and on the service's own with its triggers."""
    base = _made(bench.folder / "bulk")
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
        OURS.prepare(_made(bench.folder / f"growth-{size}"), bench.campus, SIZES[size])
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
                for size in _rotated(bench.plan.sizes, number + at):
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


SECTIONS: Mapping[str, Callable[[Bench], None]] = {
    "load": load_section,
    "bulk": bulk_section,
    "growth": growth_section,
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


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _rotated(things: Sequence[T], by: int) -> list[T]:
    by %= len(things)
    return [*things[by:], *things[:by]]
