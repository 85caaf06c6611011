"""Measure the service against what else one could pick: `make bench`, or `make bench QUICK=1`.

Six systems hold the same campus (OULAD where it is, else a made-up one of the same size): a bare ASGI
function and Starlette's hello, which are the limits of the server and of the framework under us, the
service, FastAPI + SQLAlchemy, PocketBase and Bun + bun:sqlite. Each is served from core 0, and wrk loads
it from core 1. In a round all of them are up, each on a fresh copy of its file, and take turns: they are
measured one after the other in each way, in another order every time. Figures are medians over the rounds,
and a ratio is taken within each round before that.

Then come bulk (rows per second, against executemany on a bare sqlite3 connection) and growth (the service
on 32 thousand, 1 million and 10 million enrollments), live (1,000 clients that listen to the events
while 1,000 enrollments a second come), and postgresql (the service on a PostgreSQL of the benchmark's own,
beside FastAPI + SQLAlchemy + asyncpg on the same server). The table comes out here; results.json and the
charts go to the output folder. Parts of it:

    make bench BENCH="--section load --system ours --system hello --connections 32"
    make bench BENCH="--section postgresql --system ours --rounds 1"
    make bench BENCH="--redraw"

It needs wrk, taskset and setpriv, and npm to install Bun the first time. It talks to 127.0.0.1 only, and
leaves no process behind, however it ends.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import click
import msgspec

from bench import campus, charts, figures, footprint, report
from bench.campus import ROOT, SIZES
from bench.processes import machine, take_machine
from bench.rounds import SECTIONS, Bench, Plan
from bench.systems import SYSTEMS

HERE = Path(__file__).parent
WHOLE = Plan(
    rounds=5,
    seconds=3,
    warm_up=1,
    bulks=5,
    connections=(1, 32, 256),
    growth_connections=(1, 32),
    systems=tuple(SYSTEMS),
    sections=tuple(SECTIONS),
    sizes=tuple(SIZES),
)
QUICK = attrs.evolve(
    WHOLE,
    rounds=1,
    seconds=1,
    warm_up=0,
    bulks=1,
    connections=(32,),
    growth_connections=(1,),
    sizes=tuple(SIZES)[:2],
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--quick", is_flag=True, help="One short round, no warm-up, 32 connections, no 10 million: under a minute."
)
@click.option("--rounds", type=click.IntRange(1, 50), help=f"Rounds.  [default: {WHOLE.rounds}]")
@click.option("--seconds", type=click.IntRange(1, 8), help=f"Seconds of each load.  [default: {WHOLE.seconds}]")
@click.option(
    "--connections",
    type=click.IntRange(1, 1000),
    multiple=True,
    help=f"Connections of a load; may be repeated.  [default: {', '.join(map(str, WHOLE.connections))}]",
)
@click.option(
    "--system", "systems", type=click.Choice(WHOLE.systems), multiple=True, help="Only this; may be repeated."
)
@click.option(
    "--section", "sections", type=click.Choice(WHOLE.sections), multiple=True, help="Only this; may be repeated."
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where results.json and charts/ go.  [default: tests/bench for a whole run, build/bench for a part]",
)
@click.option("--redraw", is_flag=True, help="Measure nothing: print and draw what results.json has.")
@click.option("--markdown", is_flag=True, help="Print the tables of tests/bench/README.md, too.")
def main(*, quick: bool, output: Path | None, redraw: bool, markdown: bool, **given: Any) -> None:
    """Measure the service against what else one could pick, side by side on this machine.

    A whole run takes about half an hour, and wants a machine that does nothing else.
    """
    plan = attrs.evolve(QUICK if quick else WHOLE, **{name: value for name, value in given.items() if value})
    output = output or (HERE if redraw or plan == WHOLE else ROOT / "build/bench")
    file = output / "results.json"
    if not redraw:
        take_machine()
        output.mkdir(parents=True, exist_ok=True)
        file.write_bytes(msgspec.json.format(msgspec.json.encode(_measure(plan))) + b"\n")
    elif not file.exists():
        raise click.ClickException(f"There is no {file}: measure first.")
    results = msgspec.json.decode(file.read_bytes())
    charts.draw(results, output / "charts")
    click.echo(report.table(results))
    if markdown:
        click.echo(f"\n{report.markdown(results)}")
    click.echo(f"\nWritten: {file} and {output / 'charts'}")
    if figures.errors(results):
        raise click.ClickException("Some answers were errors: the figures do not count.")


def _measure(plan: Plan) -> dict[str, Any]:
    data = campus.load()
    results = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m bench", *sys.argv[1:]]) if sys.argv[1:] else "make bench",
        "machine": machine(),
        "versions": footprint.versions(),
        "campus": data.source,
        "plan": attrs.asdict(plan),
        "systems": {
            key: {"name": SYSTEMS[key].name, "note": SYSTEMS[key].note, **footprint.installed(SYSTEMS[key])}
            for key in plan.systems
        },
    }
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="bench-", dir=build) as folder, report.Progress() as progress:
        bench = Bench(plan, data, Path(folder), progress)
        for section in plan.sections:
            SECTIONS[section](bench)
    return {**results, **bench.samples}


if __name__ == "__main__":
    main(prog_name="python -m bench")
