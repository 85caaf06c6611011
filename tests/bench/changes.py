"""Changes: each figure of the old code and of the new, in pairs, and what can be said of the two."""

from functools import cached_property
from math import comb
from statistics import median, quantiles
from typing import Any

import attrs

from bench import report
from bench.figures import Results, Samples, pick
from bench.load import BULK, GET, POST, PROMOTE

LIMIT = 0.03
"""The share that a change may cost."""
PERCENT = f"{LIMIT * 100:g} %"
CONFIDENCE = 0.95


@attrs.frozen
class Change:
    """What became of a figure: samples of the old code and of the new, by the number of their pair."""

    name: str
    unit: str
    form: str
    """How its numbers are written."""
    old: Samples
    new: Samples
    more_is_better: bool

    @cached_property
    def ratios(self) -> list[float]:
        """Divide new by old in each pair; the least comes first."""
        return sorted(self.new[pair] / self.old[pair] for pair in self.old.keys() & self.new.keys())

    @property
    def ratio(self) -> float:
        """Give the median."""
        return median(self.ratios)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Give the bounds of the middle half of the pairs."""
        if len(self.ratios) == 1:
            return self.ratio, self.ratio
        first, _, third = quantiles(self.ratios, method="inclusive")
        return first, third

    @property
    def interval(self) -> tuple[float, float] | None:
        """Give the bounds that the true median lies within, at CONFIDENCE at least; None if the pairs are too few.

        They are two of the ratios themselves: each lies below the true median as a coin falls heads, so that nothing
        need be known of how the ratios are spread.
        """
        pairs, left_out, tail = len(self.ratios), 0, 0.0
        while 2 * (tail := tail + comb(pairs, left_out) / 2**pairs) <= 1 - CONFIDENCE:
            left_out += 1
        return (self.ratios[left_out - 1], self.ratios[-left_out]) if left_out else None

    @property
    def certain(self) -> bool:
        """Tell whether there is a change at all: the interval has no 1 in it."""
        return self.interval is not None and not self.interval[0] <= 1 <= self.interval[1]

    @property
    def hidden(self) -> bool:
        """Tell whether the spread may hide a change for the worse of more than LIMIT."""
        return not self.certain and (self.interval is None or any(map(self._costs, self.interval)))

    @property
    def worse(self) -> bool:
        """Tell whether there is a change for the worse of more than LIMIT."""
        return self.certain and self._costs(self.ratio)

    def _costs(self, ratio: float) -> bool:
        return ratio < 1 - LIMIT if self.more_is_better else ratio > 1 + LIMIT

    @property
    def verdict(self) -> str:
        """Say it in words."""
        if self.interval is None:
            return "too few pairs to tell"
        if not self.certain:
            return f"within the spread, which may hide {PERCENT}" if self.hidden else "within the spread"
        more = self.ratio > 1
        share = f"{abs(self.ratio - 1) * 100:.1f} % {'more' if more else 'less'}"
        size = f"{self.ratio:.3g} times as much" if self.ratio >= 2 else share
        return f"{size}: {'better' if more == self.more_is_better else 'worse'}"


def changes(results: Results) -> list[Change]:
    """Give each figure that was measured."""

    def change(name: str, unit: str, form: str, key: str, **where: Any) -> Change:
        section = "load" if where else "starts"
        old, new = (pick(results, section, key, system=system, **where) for system in ("old", "new"))
        return Change(name, unit, form, old, new, more_is_better=key == "rate")

    rates, processor, tails = [], [], []
    for request, number in dict.fromkeys((one["request"], one["connections"]) for one in results.get("load", ())):
        name, where = f"{request}, {number} connection{'s' * (number > 1)}", {"request": request, "connections": number}
        if request in (BULK, PROMOTE):
            rates.append(change(request, "rows/s", ",.0f", "rate", **where))
        else:
            rates.append(change(name, "req/s", ",.0f", "rate", **where))
            processor.append(change(f"{name}, the server's own time", "µs", ".1f", "processor", **where))
        if request in (GET, POST):
            tails.append(change(f"{name}, p99", "ms", ".2f", "p99", **where))
    starts = [
        change("start to first answer", "s", ".3f", "seconds"),
        change("memory after start", "MB", ".1f", "memory"),
        change("memory after the load", "MB", ".1f", "memory_after"),
    ]
    return rates + processor + tails + starts


def table(results: Results) -> str:
    """Lay everything out as text."""
    about, plan, found = results["machine"], results["plan"], changes(results)
    head = (
        f"old: {results['old']}\nnew: {results['new']}\n{about['processor']}, {about['cores']} cores, Linux "
        f"{about['kernel']}, Python {about['python']}, data: {results['campus']}, about {plan['sizes'][0]:,} "
        f"enrollments\nMedians of {plan['rounds']} pairs; loads of {plan['seconds']} s; "
        f"other programs had {results['disturbed'] * 100:.0f} % of the machine."
    )
    wide = max(len(one.verdict) for one in found)
    rows: list[report.Row] = [("", "", "", "old", "new", "new/old", "half of the pairs", "95 % sure", "".ljust(wide))]
    for one in found:
        medians = (format(median(samples.values()), one.form) for samples in (one.old, one.new))
        spread = (f"{one.ratio:.3f}", _between(one.quartiles), _between(one.interval))
        rows.append((one.name, "", one.unit, *medians, *spread, one.verdict.ljust(wide)))
    worse = "; ".join(one.name for one in found if one.worse)
    hidden = "; ".join(one.name for one in found if one.hidden)
    told = [f"More than {PERCENT} worse: {worse}." if worse else f"Nothing is found to be more than {PERCENT} worse."]
    told += [f"It takes more pairs, or a quieter machine, to tell of: {hidden}."] if hidden else []
    if found[0].interval is None:
        told = ["These pairs are too few to tell anything."]
    return f"{head}\n\n{report.aligned(rows)}\n\n" + "\n".join(told)


def _between(bounds: tuple[float, float] | None) -> str:
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else ""
