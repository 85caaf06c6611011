"""Figures: medians of the samples, ratios within each round, and what they must reach."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from statistics import median
from typing import Any, NamedTuple

from bench.bulk import WHOLE
from bench.load import BULK, GET, KINDS, POST
from bench.postgres import ATOMIC, DRY_RUN, NODES, PEER, SERVICE, SLOW

Results = Mapping[str, Any]
Samples = Mapping[int, float]
"""A figure in each round."""


class Figure(NamedTuple):
    """A median, and the least and the most that it is the middle of."""

    middle: float
    least: float
    most: float


class Goal(NamedTuple):
    """A figure that must reach a bound."""

    what: str
    figure: Figure | None
    """None if it was not measured."""
    bound: float
    unit: str
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Tell whether it was measured and reaches it."""
        if self.figure is None:
            return False
        return self.figure.middle <= self.bound if self.at_most else self.figure.middle >= self.bound


def figure(samples: Samples) -> Figure | None:
    """Give the median over the rounds, if there are any."""
    values = samples.values()
    return Figure(median(values), min(values), max(values)) if values else None


def digits(number: float) -> str:
    """Write a number to three digits; the rest is noise."""
    return f"{float(f'{number:.3g}'):,.0f}"


def pick(results: Results, section: str, key: str, **where: Any) -> dict[int, float]:
    """Give one key of the samples that are so, by round; the median where a round has several."""
    found: dict[int, list[float]] = {}
    for sample in results.get(section, ()):
        if all(sample.get(name) == value for name, value in where.items()):
            found.setdefault(sample["round"], []).append(sample[key])
    return {number: median(values) for number, values in found.items()}


def ratio(over: Samples, under: Samples) -> Figure | None:
    """Divide within each round, then take the median."""
    return figure({number: over[number] / under[number] for number in over.keys() & under.keys() if under[number]})


def errors(results: Results, section: str = "", **where: Any) -> dict[str, int]:
    """Count what went wrong, by kind: `refused` by the server, `failed` on the way, `lost` though answered."""
    found = Counter[str]()
    for sample in chain.from_iterable(
        results.get(one, ()) for one in ([section] if section else ("load", "growth", "live", "postgresql"))
    ):
        if all(sample.get(name) == value for name, value in where.items()):
            found.update({kind: sample.get(kind, 0) for kind in ("refused", "failed", "lost")})
    return dict(+found)


def usual_connections(results: Results) -> int:
    """Give the number of connections that ratios are taken at: 32 if it was measured."""
    measured: Sequence[int] = results["plan"]["connections"]
    return 32 if 32 in measured else measured[0]


def growth_ratio(results: Results, size: int, key: str = "rate", **where: Any) -> Figure | None:
    """Give how many times the time of a request on the smallest file it takes on one of this size.

    It is the mean, from the rates, which has every pause in it; or a latency, by its key.
    """
    small, large = (pick(results, "growth", key, size=each, **where) for each in (min(results["plan"]["sizes"]), size))
    return ratio(small, large) if key == "rate" else ratio(large, small)


def grown(results: Results) -> list[tuple[str, int]]:
    """Give each request and number of connections that growth was measured with."""
    return list(dict.fromkeys((sample["request"], sample["connections"]) for sample in results.get("growth", ())))


def goals(results: Results) -> list[Goal]:
    """Compare with what we claim."""
    connections = usual_connections(results)

    def samples(system: str, request: str, key: str = "rate") -> Samples:
        return pick(results, "load", key, system=system, request=request, connections=connections)

    def start(system: str, key: str) -> Samples:
        return pick(results, "starts", key, system=system)

    get, post, hello = samples("ours", GET), samples("ours", POST), samples("hello", GET)
    failed = float(sum(errors(results).values()))
    found = [Goal("errors", Figure(failed, failed, failed), 0, "", at_most=True)]
    found += [Goal(f"{GET} / Starlette hello", ratio(get, hello), 0.75, "×")]
    found += [
        Goal(f"{GET} / {name}", ratio(get, samples(system, GET)), bound, "×")
        for system, name, bound in (("fastapi", "FastAPI + SQLAlchemy", 15), ("pocketbase", "PocketBase", 5))
    ]
    found += [Goal(f"{POST} / Starlette hello's GET", ratio(post, hello), 0.4, "×")]
    found += [
        Goal(f"{POST} / {name}", ratio(post, samples(system, POST)), bound, "×")
        for system, name, bound in (
            ("bun", "Bun + bun:sqlite", 2.5),
            ("pocketbase", "PocketBase", 3),
            ("fastapi", "FastAPI + SQLAlchemy", 12),
        )
    ]
    tail = ratio(samples("ours", GET, "p99"), samples("hello", GET, "p99"))
    found += [Goal(f"{GET}, p99 / Starlette hello's", tail, 1.6, "×", at_most=True)]
    singles = [
        growth_ratio(results, 10_000_000, "p50", request=request, connections=1)
        for request, connections in grown(results)
        if request in KINDS and connections == 1
    ]
    worst = max((one for one in singles if one), default=None)
    found += [Goal("slowest single request, 10 million / 32 thousand, median time", worst, 1.3, "×", at_most=True)]
    late = figure(pick(results, "live", "p99"))
    found += [Goal("enrollment to the clients that listen, p99", late, 50, "ms", at_most=True)]
    found += _on_postgresql(results, connections)
    bulk = ratio(pick(results, "bulk", "service"), pick(results, "bulk", "bare"))
    found += [Goal("bulk / bare executemany", bulk, 0.2, "×")]
    for key, what, bound, unit in (
        ("memory", "resident memory after start", 50, "MB"),
        ("seconds", "start to first answer", 0.4, "s"),
    ):
        ours = start("ours", key)
        found += [Goal(what, figure(ours), bound, unit, at_most=True)]
        found += [Goal(f"{what} / FastAPI + SQLAlchemy's", ratio(ours, start("fastapi", key)), 0.7, "×", at_most=True)]
    return found


def _on_postgresql(results: Results, connections: int) -> Iterator[Goal]:
    """Compare with what we claim of PostgreSQL, if that was measured."""
    if not results.get("postgresql"):
        return

    def samples(system: str, request: str, key: str = "rate", at: int = connections) -> Samples:
        return pick(results, "postgresql", key, system=system, request=request, connections=at)

    for request, bound in ((GET, 10.0), (POST, 8.0)):
        ours, theirs = samples(SERVICE, request), samples(PEER, request)
        yield Goal(f"PostgreSQL: {request} / {PEER}", ratio(ours, theirs), bound, "×")
        tails = (samples(system, request, "p99") for system in (SERVICE, PEER))
        yield Goal(f"PostgreSQL: {request}, p99 / {PEER}'s", ratio(*tails), 0.1, "×", at_most=True)
    for system, bound, what in ((SLOW, 0.65, "1 ms more for each flush"), (NODES, 0.95, "two nodes")):
        slowed = ratio(samples(system, POST), samples(SERVICE, POST))
        yield Goal(f"PostgreSQL: {POST}, {what} / without", slowed, bound, "×")
    yield Goal("PostgreSQL: bulk", figure(samples(SERVICE, BULK, at=1)), 12_000, "rows/s")
    for request in (ATOMIC, DRY_RUN):
        seconds = {turn: WHOLE / rate for turn, rate in samples(SERVICE, request, at=1).items()}
        yield Goal(f"PostgreSQL: {request}", figure(seconds), 0.25, "s", at_most=True)
