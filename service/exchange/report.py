"""What came of an import: the totals of each kind, the rows that were refused, and how far an import is."""

from collections.abc import Iterator, Sequence

import msgspec

from service.exchange.parts import Kind

KINDS: Sequence[Kind] = ("terms", "courses", "students", "enrollments")
MOST_LISTED = 10_000
"""The most refused rows, and the most dropped enrollments, that a report lists; it counts all of them."""
MOST_SHOWN = 20
"""The most refused rows, and the most dropped enrollments, that a terminal shows."""
WIDEST = 40
"""The most characters of a cell that a terminal shows."""


class RowTotals(msgspec.Struct):
    """How many rows of one kind came to what."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    """The rows that say what the database has already."""
    enrolled: int = 0
    waitlisted: int = 0
    dropped: int = 0
    refused: int = 0
    skipped: dict[str, int] = {}
    """The rows that are not for the import, by the reason."""


class RefusedRow(msgspec.Struct, frozen=True):
    """A row that was not taken; `file` is empty and `line` is 0 for an enrollment that no row of a file speaks of."""

    kind: Kind
    file: str
    line: int
    column: str | None
    value: str | None
    code: str
    detail: str
    row: dict[str, str] = {}
    """The cells of the row that could be read, by the columns of the file."""


class Missing(msgspec.Struct, frozen=True):
    """An enrollment that the files do not have, so that it is dropped."""

    course_id: int
    course_external_id: str | None
    student_id: int
    student_external_id: str | None
    student_name: str


class BrokenOff(msgspec.Struct, frozen=True):
    """Why an import did not come to its end."""

    code: str
    detail: str


class Report(msgspec.Struct, tag_field="type", tag="report"):
    """What came of an import, or has come of it so far."""

    format: str
    dry_run: bool
    notes: list[str]
    finished: bool = False
    """Whether every row was looked at."""
    problem: BrokenOff | None = None
    seconds: float = 0
    totals: dict[str, RowTotals] = msgspec.field(default_factory=lambda: {kind: RowTotals() for kind in KINDS})
    refused_rows: list[RefusedRow] = []
    """The first rows that were refused, at most MOST_LISTED of them."""
    missing: list[Missing] = []
    """The first enrollments that the files do not have, at most MOST_LISTED of them."""
    missing_count: int = 0
    refused_files: list[str] = []
    """The CSV files that have all refused rows."""

    @property
    def refused_count(self) -> int:
        """Count all refused rows."""
        return sum(each.refused for each in self.totals.values())


class Progress(msgspec.Struct, frozen=True, tag_field="type", tag="progress"):
    """How far an import is."""

    stage: str
    """What is at work: "copying", "reading", "dropping", or a kind of rows."""
    rows: int
    """How many rows of the stage are done."""
    of: int | None
    """How many rows the stage has, where that is known."""
    percent: float
    """How much of the stage is done, from 0 to 100."""
    rows_per_second: float
    seconds_left: float | None
    """How long the stage is going to take, where that can be told."""


COUNTS = ("created", "updated", "unchanged", "enrolled", "waitlisted", "dropped", "refused")


def lines(report: Report) -> Iterator[str]:
    """Write a report for a terminal, line by line."""
    kinds = [kind for kind in KINDS if report.totals[kind] != RowTotals()]
    if kinds:
        head = ["", *kinds]
        rows = [[name, *(f"{getattr(report.totals[kind], name):,}" for kind in kinds)] for name in COUNTS]
        yield from aligned([head, *(row for row in rows if {*row[1:]} != {"0"})], numbers=True)
    for kind in kinds:
        for why, count in sorted(report.totals[kind].skipped.items()):
            yield f"{count:,} of {kind} left out: {why}."
    yield from report.notes
    yield from _missing(report)
    yield from _refused(report)
    yield from _end(report)


def _missing(report: Report) -> Iterator[str]:
    if report.missing_count:
        nouns, are = ("enrollment", "is") if report.missing_count == 1 else ("enrollments", "are")
        dropped = "" if report.dry_run or report.problem else f", and {are} dropped"
        yield f"{report.missing_count:,} {nouns} {are} not in the files{dropped}:"
        rows = [
            (
                each.course_external_id or f"id {each.course_id}",
                each.student_external_id or f"id {each.student_id}",
                each.student_name,
            )
            for each in report.missing[:MOST_SHOWN]
        ]
        yield from aligned([("COURSE", "STUDENT", "NAME"), *rows])
        if report.missing_count > MOST_SHOWN:
            yield f"and {report.missing_count - MOST_SHOWN:,} more; --json lists {MOST_LISTED:,}."


def _refused(report: Report) -> Iterator[str]:
    count = report.refused_count
    if not count:
        return
    yield f"{count:,} {'row was' if count == 1 else 'rows were'} refused:"
    shown = report.refused_rows[:MOST_SHOWN]
    rows = [(each.file, str(each.line), each.column or "", each.value or "", each.detail) for each in shown]
    yield from aligned([("FILE", "LINE", "COLUMN", "VALUE", "WHAT TO DO"), *rows])
    if count > len(shown):
        yield f"and {count - len(shown):,} more" + ("." if report.refused_files else "; to see all: --report FILE.")
    for name in report.refused_files:
        yield f"{name} has the refused rows: mend them there, and import that file."


def _end(report: Report) -> Iterator[str]:
    if report.problem:
        yield report.problem.detail
    elif report.dry_run:
        yield f"This was a dry run of {report.seconds:.1f} s: nothing was changed."
    else:
        yield f"Done in {report.seconds:.1f} s."


def aligned(rows: Sequence[Sequence[str]], *, numbers: bool = False) -> Iterator[str]:
    """Align the columns of a table: all but the first to the right where they are `numbers`; the last one is whole."""
    cut = [[*(short(cell) for cell in row[:-1]), printable(row[-1])] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cut, strict=True)]
    for row in cut:
        cells = [
            cell.rjust(width) if numbers and at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def short(text: str) -> str:
    """Cut a long text."""
    shown = printable(text[: WIDEST + 1])
    return shown if len(shown) <= WIDEST else f"{shown[: WIDEST - 1]}…"


def printable(text: str) -> str:
    """Replace in a text what no terminal should be sent."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)
