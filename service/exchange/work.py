"""What all stages of an import have in common: how it is done, what has come of it so far, and how far it is."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

from service.events import NOBODY, Why
from service.exchange.parts import Found, Kind, Part, Refused, Row, Skipped
from service.exchange.reading import Read
from service.exchange.refusals import Refusals
from service.exchange.report import KINDS, Progress, Report

Tick = Callable[[Progress], object]
"""Is told how far an import is, several times a second. An error that it raises ends the import between two slices."""

Placed = tuple[Part, Row]
Lost = tuple[Part | None, Refused]
"""A row that was refused, and its part; None where no row of a file speaks of what was refused."""


@attrs.frozen(kw_only=True)
class Options:
    """How files are imported."""

    dry_run: bool = False
    """Do all on a copy of the database, which is then thrown away."""
    override: bool = False
    """Give seats past the limit, the waitlist and the window."""
    drop_missing: bool = False
    """Drop who is in a course that the files speak of, and not in the files."""
    max_drops: float = 10
    """The most that `drop_missing` may drop, in percent of the enrollments in these courses."""
    why: Why = NOBODY
    """Who imports, and why, for the events."""
    refused_to: Path | None = None
    """Where to write a CSV file of the rows that are refused."""


class Work:
    """One import at work."""

    def __init__(self, found: Found, options: Options, tick: Tick) -> None:
        """Have done nothing yet. Raises SetupError where the CSV file of refused rows cannot be written."""
        self.options, self._tick = options, tick
        self.parts = {kind: [part for part in found.parts if part.kind == kind] for kind in KINDS}
        self.counts: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        """How many rows each kind has, once they are counted."""
        self.report = Report(found.format, options.dry_run, [*found.notes])
        self.refusals = Refusals(self.report, found.parts, options.refused_to)
        self._stage, self._stage_began = "", 0.0

    def show(self, stage: str, rows: int, of: int | None, percent: float) -> None:
        """Tell how far a stage is."""
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._stage_began = stage, now
        seconds = now - self._stage_began
        left = seconds * (100 - percent) / percent if percent else None
        self._tick(Progress(stage, rows, of, round(percent, 1), rows / seconds if seconds else 0, left))

    def show_rows(self, stage: str, rows: int, of: int) -> None:
        """Tell how many rows of a stage are done."""
        self.show(stage, rows, of, 100 * min(1, rows / max(1, of)))

    def count(self, kind: Kind, what: str, rows: int = 1) -> None:
        """Count rows that came to `created`, `dropped` or whatever else the totals have."""
        totals = self.report.totals[kind]
        setattr(totals, what, getattr(totals, what) + rows)

    def skip(self, kind: Kind, why: str) -> None:
        """Count a row that is not for the import."""
        skipped = self.report.totals[kind].skipped
        skipped[why] = skipped.get(why, 0) + 1

    def refuse(self, kind: Kind, lost: Iterable[Lost]) -> None:
        """Keep rows that were refused, in the order of the files."""
        place = {id(part): at for at, part in enumerate(self.parts[kind])}
        for part, row in sorted(lost, key=lambda each: (place.get(id(each[0])), each[1].line)):
            self.refusals.add(kind, part, row)

    def sift(self, kind: Kind, read: Iterable[Read]) -> tuple[list[Placed], list[Lost]]:
        """Give the rows that are to be taken, and those that are refused already, and count the others."""
        placed, lost = list[Placed](), list[Lost]()
        for part, item in read:
            if isinstance(item, Refused):
                lost.append((part, item))
            elif isinstance(item, Skipped):
                self.skip(kind, item.why)
            else:
                placed.append((part, item))
        return placed, lost
