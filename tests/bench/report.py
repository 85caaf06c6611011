"""What a person sees: progress while it runs, and the table at the end."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

import click

from bench.figures import (
    Figure,
    Goal,
    Results,
    digits,
    errors,
    figure,
    goals,
    grown,
    growth_ratio,
    pick,
    ratio,
    usual_connections,
)
from bench.load import KINDS
from bench.postgres import SERVICE

Row = Sequence[str]
LEFT = 3
"""Columns of words; the rest are numbers."""


class Progress:
    """One line on the terminal that says what is being measured, or a line for each where there is none."""

    def __enter__(self) -> Self:
        """Start the clock."""
        self._started = time.monotonic()
        self._live = sys.stderr.isatty()
        self.prefix = ""
        return self

    def __exit__(self, *_: object) -> None:
        """Clear the line."""
        if self._live:
            click.echo("\r\x1b[K", nl=False, err=True)

    def say(self, text: str) -> None:
        """Show what is next."""
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        line = f"{minutes:02}:{seconds:02} {self.prefix}{text}"
        click.echo(f"\r\x1b[K{line}" if self._live else line, nl=not self._live, err=True)


def table(results: Results) -> str:
    """Lay everything out as text."""
    machine, plan = results["machine"], results["plan"]
    head = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, Linux {machine['kernel']}, "
        f"Python {machine['python']}\n{results['at']}, {results['command']}: {plan['rounds']} rounds of "
        f"{plan['seconds']} s, data: {results['campus']}. Medians; ± is half of most less least."
    )
    notes = "\n".join(
        f"{one['name']}: {one['note']}." for one in results["systems"].values() if one["note"] and results.get("load")
    )
    latencies = ("p50 ms", "p99 ms", "p99.9 ms", "errors")
    blocks = {
        ("request", "conn.", "system", "req/s", "±", "ours is", *latencies): _load(results),
        ("", "", "system", "first answer s", "±", "MB idle", "MB after", "packages", "MB on disk"): _footprint(results),
        ("rows at once", "", "", "rows/s", "±", "ours is"): _bulk(results),
        ("growth", "conn.", "enrollments", "req/s", "±", "time ×", *latencies): _growth(results),
        ("live", "", "listeners", "events/s", "±", "of a core", *latencies): _live(results),
        ("PostgreSQL", "conn.", "system", "req/s", "±", "ours is", *latencies): _on_postgresql(results),
        ("claim", "", "", "measured", "±", "goal"): map(_goal, goals(results)),
    }
    rows = [row for head, body in blocks.items() if (found := list(body)) for row in (head, *found, ())]
    return f"{head}\n\n{aligned(rows)}\n{notes}"


def markdown(results: Results) -> str:
    """Lay out the tables of README.md here: requests per second, how many times as many ours is, and the footprint."""
    where = {"connections": usual_connections(results)}
    load = [["", *(f"{kind}, req/s" for kind in KINDS)]]
    footprint = [["", "start to first answer", "MB after start", "MB after the load", "packages", "MB on disk"]]
    for key, system in results["systems"].items():
        load.append([system["name"]])
        for kind in KINDS:
            ours, rates = (pick(results, "load", "rate", system=one, request=kind, **where) for one in ("ours", key))
            found, times = figure(rates), ratio(ours, rates)
            cell = digits(found.middle) if found else ""
            load[-1].append(cell + (f" ({times.middle:.2g} ×)" if times and key != "ours" else ""))
        seconds, *memory = (pick(results, "starts", name, system=key) for name in ("seconds", "memory", "memory_after"))
        megabytes = [f"{one.middle:.0f}" for one in map(figure, memory) if one]
        start = figure(seconds)
        disk = [str(system["packages"]), f"{system['megabytes']:.0f}"]
        footprint.append([system["name"], f"{start.middle:.2f} s" if start else "", *megabytes, *disk])
    return "\n\n".join("\n".join(_piped(rows)) for rows in (load, footprint))


def _piped(rows: Sequence[Row]) -> Iterator[str]:
    for at, row in enumerate(rows):
        yield "|" + "".join(f" {cell} |" if cell else " |" for cell in row)
        if at == 0:
            yield f"|{' --- |' * len(row)}"


def _load(results: Results) -> Iterator[Row]:
    for kind in KINDS:
        for connections in results["plan"]["connections"]:
            where = {"request": kind, "connections": connections}
            ours = pick(results, "load", "rate", system="ours", **where)
            for key, system in results["systems"].items():
                rates = pick(results, "load", "rate", system=key, **where)
                if rates:
                    compared = _times(ratio(ours, rates)) if key != "ours" else ""
                    latencies = _latencies(results, "load", system=key, **where)
                    wrong = _errors(results, "load", system=key, **where)
                    yield (kind, str(connections), system["name"], *_rate(figure(rates)), compared, *latencies, wrong)


def _footprint(results: Results) -> Iterator[Row]:
    for key, system in results["systems"].items():
        seconds, idle, after = (
            figure(pick(results, "starts", name, system=key)) for name in ("seconds", "memory", "memory_after")
        )
        if seconds and idle and after:
            memory = (f"{idle.middle:.1f}", f"{after.middle:.1f}")
            disk = (str(system["packages"]), f"{system['megabytes']:.1f}")
            yield ("", "", system["name"], f"{seconds.middle:.3f}", _spread(seconds), *memory, *disk)


def _bulk(results: Results) -> Iterator[Row]:
    ours = pick(results, "bulk", "service")
    for key, what in (
        ("service", "POST /enrollments"),
        ("bare", "executemany, bare file"),
        ("triggers", "executemany, our file"),
    ):
        rates = pick(results, "bulk", key)
        if rates:
            yield (what, "", "", *_rate(figure(rates)), _times(ratio(ours, rates)) if key != "service" else "")


def _growth(results: Results) -> Iterator[Row]:
    for request, connections in grown(results):
        for size in results["plan"]["sizes"]:
            where = {"request": request, "connections": connections, "size": size}
            measured = _rate(figure(pick(results, "growth", "rate", **where)))
            more = ["", "", "", ""]
            if request in KINDS:
                more = [*_latencies(results, "growth", **where), _errors(results, "growth", **where)]
            yield (request, str(connections), f"{size:,}", *measured, _times(growth_ratio(results, **where)), *more)


def _live(results: Results) -> Iterator[Row]:
    for count in dict.fromkeys(sample["listeners"] for sample in results.get("live", ())):
        rates, busy = (pick(results, "live", key, listeners=count) for key in ("rate", "busy"))
        share = figure(busy)
        rest = (*_latencies(results, "live", listeners=count), _errors(results, "live", listeners=count))
        yield ("events", "", f"{count:,}", *_rate(figure(rates)), f"{share.middle:.0%}" if share else "", *rest)


def _on_postgresql(results: Results) -> Iterator[Row]:
    cells = ((one["request"], one["connections"], one["system"]) for one in results.get("postgresql", ()))
    for request, connections, system in sorted(dict.fromkeys(cells), key=lambda cell: cell[:2]):
        where = {"request": request, "connections": connections}
        ours, rates = (pick(results, "postgresql", "rate", system=one, **where) for one in (SERVICE, system))
        compared = _times(ratio(ours, rates)) if system != SERVICE else ""
        more = ["", "", "", ""]
        if request in KINDS:
            where["system"] = system
            more = [*_latencies(results, "postgresql", **where), _errors(results, "postgresql", **where)]
        yield (request, str(connections), system, *_rate(figure(rates)), compared, *more)


def _goal(goal: Goal) -> Row:
    bound = f"{'≤' if goal.at_most else '≥'} {goal.bound:g} {goal.unit}"
    if goal.figure is None:
        return (goal.what, "", "", "not measured", "", bound)
    return (
        goal.what,
        "",
        "",
        f"{goal.figure.middle:.2f} {goal.unit}",
        _spread(goal.figure),
        bound,
        "met" if goal.met else "MISSED",
    )


def _latencies(results: Results, section: str, **where: Any) -> Iterator[str]:
    for key in ("p50", "p99", "p999"):
        found = figure(pick(results, section, key, **where))
        yield f"{found.middle:.2f}" if found else ""


def _errors(results: Results, section: str, **where: Any) -> str:
    return ", ".join(f"{count:,} {kind.upper()}" for kind, count in errors(results, section, **where).items()) or "0"


def _rate(found: Figure | None) -> tuple[str, str]:
    return (f"{found.middle:,.0f}", _spread(found)) if found else ("", "")


def _spread(found: Figure) -> str:
    share = (found.most - found.least) / 2 / found.middle if found.middle else 0
    return f"{share:.0%}" if share else ""


def _times(found: Figure | None) -> str:
    return f"{found.middle:.2f} ×" if found else ""


def aligned(rows: Sequence[Row]) -> str:
    """Put the rows' cells under each other."""
    wide = max(map(len, rows))
    full = [[*row, *[""] * (wide - len(row))] for row in rows]
    # A row's first words may run on into the columns of words that it leaves empty.
    widths = [
        max(len(row[at]) for row in full if at >= LEFT - 1 or row[1] or row[2] or not row[0]) for at in range(wide)
    ]
    lead = sum(widths[:LEFT]) + 2 * (LEFT - 1)
    lead = max(lead, *(len(row[0]) for row in full))
    return "\n".join(_line(row, widths, lead) for row in full)


def _line(row: Row, widths: Sequence[int], lead: int) -> str:
    words = "  ".join(text.ljust(width) for text, width in zip(row[:LEFT], widths, strict=False))
    numbers = "  ".join(text.rjust(width) for text, width in zip(row[LEFT:], widths[LEFT:], strict=True))
    return f"{(words if row[1] or row[2] else row[0]).ljust(lead)}  {numbers}".rstrip()
