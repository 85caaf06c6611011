"""Tell what a change costs: `make compare BASE=main`, or `python -m bench.compare main`.

The checkout as it is (new) and a revision (old) are served side by side from core 0, each with what it requires, on a
file of its own that its own code has migrated and filled. In each pair both begin anew, on fresh copies of their
files; then every figure is measured on one and on the other, one after the other, from core 1. Who comes first
changes with every figure and every pair. What counts is the ratio within a pair: the machine's speed changes from
minute to minute, and only neighbours are compared. HEAD compared with itself shows what the spread is.

    make compare BASE=HEAD~3 COMPARE="--figure post --connections 32 --connections 256"

It needs git, wrk, taskset and setpriv. It talks to 127.0.0.1 only, and leaves no process behind, however it ends.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import click
import msgspec

from bench import bulk, campus, load, report, trees
from bench.campus import ROOT, SIZES
from bench.changes import table
from bench.figures import errors
from bench.processes import machine, others, take_machine
from bench.rounds import Bench, Plan, Started, made, measure_load, rotated, start
from bench.systems import Ours

FIGURES = {
    "get": load.GET,
    "roster": load.ROSTER,
    "mix": load.MIX,
    "post": load.POST,
    "drop": load.DROP,
    "bulk": load.BULK,
    "promote": load.PROMOTE,
    "start": "",
}
"""Each by its name on the command line, in the order in which they are measured; a start and its memory always are."""
MANY: Mapping[str, Callable[[Started], float]] = {
    load.BULK: lambda one: bulk.post(one.server, bulk.take(one.requests.pairs)),
    load.PROMOTE: lambda one: bulk.promote(one.server),
}
"""A request that does much, and how many rows a second it does."""

Cell = tuple[str, int]
"""A request and the number of connections that it is sent by."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("base", default="HEAD")
@click.option(
    "--pairs", "rounds", type=click.IntRange(1, 1000), default=20, show_default=True, help="Pairs of each figure."
)
@click.option("--seconds", type=click.IntRange(1, 4), default=1, show_default=True, help="Seconds of each load.")
@click.option("--figure", "figures", type=click.Choice([*FIGURES]), multiple=True, help="Only this; may be repeated.")
@click.option(
    "--connections",
    type=click.IntRange(1, 1000),
    multiple=True,
    help="Connections of each load; may be repeated.  [default: 32, and 1 for post, too]",
)
@click.option(
    "--size",
    type=click.Choice([str(size) for size in SIZES]),
    default=str(min(SIZES)),
    show_default=True,
    help="Enrollments in each file, about; 10 million take ten minutes to make.",
)
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write all samples there.")
def main(*, base: str, figures: Sequence[str], size: str, file: Path | None, **given: Any) -> None:
    """Tell what the checkout costs, or gains, beside the revision BASE.

    BASE is HEAD if it is not given. All the figures take ten minutes, and want a machine that does nothing else.
    """
    take_machine()
    cells = list(_cells(figures or [*FIGURES], given["connections"]))
    plan = Plan(**{**given, "connections": given["connections"] or (32,)}, warm_up=1, bulks=3, sizes=(int(size),))
    results = _measure(base, plan, cells)
    if file:
        file.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    click.echo(table(results))
    if errors(results):
        raise click.ClickException("Some answers were errors: the figures do not count.")


def _cells(figures: Sequence[str], connections: Sequence[int]) -> Iterator[Cell]:
    for name, request in FIGURES.items():
        if name in figures and request in MANY:
            yield request, 1
        elif name in figures and request:
            for number in connections or ((1, 32) if request == load.POST else (32,)):
                yield request, number


def _measure(base: str, plan: Plan, cells: Sequence[Cell]) -> dict[str, Any]:
    commit, changed = trees.commit(base), len(trees.changed())
    disturbed, began = others(), time.monotonic()
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="compare-", dir=build) as folder, report.Progress() as progress:
        bench = Bench(plan, campus.load(), Path(folder), progress)
        progress.say("making two trees of the service")
        code = {key: made(bench.folder / f"{key}-code") for key in ("old", "new")}
        trees.check_out(commit, code["old"])
        trees.copy_checkout(code["new"])
        pythons = trees.pythons(list(code.values()))
        systems = [Ours(key, key, tree, python) for (key, tree), python in zip(code.items(), pythons, strict=True)]
        for system in systems:
            progress.say(f"{system.name}: making its database")
            system.prepare(made(bench.folder / system.key), bench.campus, SIZES[plan.sizes[0]])
        for number in bench.rounds("pair"):
            _pair(bench, number, systems, cells)
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": " ".join(["python -m bench.compare", *sys.argv[1:]]),
            "machine": machine(),
            "disturbed": (others() - disturbed) / (time.monotonic() - began) / machine()["cores"],
            "campus": bench.campus.source,
            "plan": attrs.asdict(plan),
            "old": trees.title(commit),
            "new": trees.title("HEAD") + (f", and what changed in {changed} files" if changed else ""),
            **bench.samples,
        }


def _pair(bench: Bench, number: int, systems: Sequence[Ours], cells: Sequence[Cell]) -> None:
    """Start both on fresh copies of their files, and measure everything in turns."""
    copies = SIZES[bench.plan.sizes[0]]
    with ExitStack() as stack:
        started = [start(bench, number, system, stack, copies) for system in rotated(systems, number)]
        for at, (request, connections) in enumerate(cells):
            for one in rotated(started, at):
                for each in started:  # What the other one still does would be felt, too.
                    each.server.wait_until_idle()
                if request in MANY:
                    bench.progress.say(f"{request}: {one.system.name}")
                    for _ in range(bench.plan.bulks):
                        sample = {"request": request, "connections": connections, "rate": MANY[request](one)}
                        bench.samples["load"].append({"round": number, "system": one.system.key, **sample})
                else:
                    measure_load(bench, one, request, connections, counted=copies == 1)
        bench.samples["starts"] += [{**one.start, "memory_after": one.server.memory()} for one in started]


if __name__ == "__main__":
    main(prog_name="python -m bench.compare")
