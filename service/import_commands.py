"""The command that imports a school's files.

What came of it goes to stdout, as a table or as JSON; how far it is goes to stderr, or to stdout as JSON lines.
"""

import gc
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
import msgspec

from service.errors import InvalidPayload
from service.events import Why, why
from service.options import database_url_option, settings_of
from service.storage.kinds import connect

if TYPE_CHECKING:
    from service.exchange.report import Progress, Report

PATIENCE = 60.0
"""The fewest seconds that an import waits for the writes of others."""
SHOWN_EVERY = {"bar": 0.2, "ndjson": 0.5}
"""Seconds from one line that tells how far an import is to the next."""
SOME_REFUSED = 3
"""The exit code where every row was looked at, and some were refused."""
BAR = 30
"""How many characters wide the bar is."""
INTERRUPTED = (
    "The import was interrupted. What its totals count is kept, unless this was a dry run; the same import again goes "
    "on from there."
)


class Stopped(Exception):
    """A signal told the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _stoppable() -> Iterator[Callable[[], None]]:
    """Give a function that raises Stopped once SIGINT or SIGTERM has come: an import ends between two slices.

    A second signal ends the program at once, as it would without this.
    """
    told: list[int] = []

    def tell(number: int, _: FrameType | None) -> None:
        told.append(number)
        signal.signal(number, signal.SIG_DFL)

    def check() -> None:
        if told:
            raise Stopped(told[0])

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _rarely_collected() -> Iterator[None]:
    """Let Python look for circles of garbage more rarely: an import has many objects at work, and makes no circles.

    To look through all of them again and again takes a third of the time of an import.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class _Show:
    """Tells how far an import is."""

    def __init__(self, how: str, check: Callable[[], None]) -> None:
        self._how, self._check, self._at, self._stage = how, check, 0.0, ""

    def __call__(self, progress: "Progress") -> None:
        self._check()
        now = time.monotonic()
        if self._how == "none" or (now < self._at and progress.stage == self._stage):
            return
        self._at, self._stage = now + SHOWN_EVERY[self._how], progress.stage
        if self._how == "ndjson":
            click.echo(msgspec.json.encode(progress))
        else:
            click.echo(f"\r\x1b[K{bar(progress)}", nl=False, err=True)

    def end(self) -> None:
        """Erase the line of a terminal."""
        if self._how == "bar":
            click.echo("\r\x1b[K", nl=False, err=True)


def bar(progress: "Progress") -> str:
    """Draw how far an import is, in one line."""
    full = round(BAR * progress.percent / 100)
    rows = f"{progress.rows:,}" + (f" of {progress.of:,}" if progress.of else "") + " rows"
    left = "" if progress.seconds_left is None else f"  {progress.seconds_left:,.0f} s left"
    return (
        f"{progress.stage:<12}[{'#' * full}{'.' * (BAR - full)}] {progress.percent:3.0f} %  {rows}"
        f"  {progress.rows_per_second:,.0f}/s{left}"
    )


def _why(actor: str | None, reason: str | None) -> Why:
    try:
        return why(actor, reason)
    except InvalidPayload as error:
        hint = f"'--{error.faults[0][0].removeprefix('#/')}'"
        raise click.BadParameter(error.faults[0][1], param_hint=hint) from error


def _check_place(report: Path, files: Sequence[Path]) -> None:
    """Refuse to write over a file that is imported: the rows that are not refused would be lost with it."""
    from service.exchange.refusals import place_of  # noqa: PLC0415 - as in `import_`.
    from service.exchange.report import KINDS  # noqa: PLC0415

    places = {each.resolve() for each in (report, *(place_of(report, kind) for kind in KINDS))}
    for file in files:
        if file.resolve() in places:
            message = f"{file} is to be imported, and would be written over: name another file."
            raise click.BadParameter(message, param_hint="'--report'")


@contextmanager
def _written(path: Path | None) -> Iterator[Callable[["Report"], object]]:
    """Give a function that writes the report as JSON; the file is put into place once it is whole.

    Raises SetupError where no file can be made there, before anything is imported.
    """
    if path is None:
        yield id
        return
    from service.exchange.refusals import writing  # noqa: PLC0415 - as in `import_`.

    def tell(report: "Report") -> None:
        with writing(path):
            (Path(made.name) / path.name).write_bytes(msgspec.json.encode(report))
            (Path(made.name) / path.name).replace(path)

    with writing(path):
        made = TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent)
    with made:
        yield tell


def _check_percent(_: click.Context, __: click.Parameter, value: float) -> float:
    if math.isnan(value):  # It is neither less nor more than anything, so it would be no limit at all.
        raise click.BadParameter("nan is no number.")
    return value


@click.command("import", short_help="Import students, courses, terms and enrollments from files.")
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@database_url_option
@click.option("--dry-run", is_flag=True, help="Do all on a copy, and report what an import would do; change nothing.")
@click.option(
    "--report",
    "refused_to",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the refused rows to a CSV file, with the reason beside each, to be mended there and imported. Where "
    "rows of several kinds are refused, each kind has a file of its own, such as FILE-students.csv. Where FILE ends in "
    ".json, write the whole report there as JSON.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["csv", "oneroster", "canvas"]),
    help="What the files are.  [default: what their columns say]",
)
@click.option("--override", is_flag=True, help="Give seats past the limit, the waitlist and the window of a course.")
@click.option(
    "--missing",
    type=click.Choice(["keep", "drop"]),
    default="keep",
    show_default=True,
    help="Whether to drop who is in a course that the files speak of, but not in the files; where the files name "
    "terms, in courses of these terms alone. A row that is refused never lets anybody be dropped.",
)
@click.option(
    "--max-drops",
    type=click.FloatRange(0, 100),
    callback=_check_percent,
    default=10,
    show_default=True,
    metavar="PERCENT",
    help="With --missing drop: where more of the enrollments in these courses would be dropped, nothing at all is "
    "imported.",
)
@click.option("--actor", metavar="TEXT", help="Who imports, for the events.")
@click.option("--reason", metavar="TEXT", help="Why, for the events.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one line of JSON.")
@click.option(
    "--progress",
    type=click.Choice(["bar", "ndjson", "none"]),
    help="Show how far it is: as a bar on stderr, or as JSON lines on stdout, the last of which is the report.  "
    "[default: bar where stderr is a terminal, else none]",
)
def import_(  # noqa: PLR0913, PLR0917 - each is an option.
    files: Sequence[Path],
    database_url: str | None,
    refused_to: Path | None,
    format_: Any,
    missing: str,
    max_drops: float,
    actor: str | None,
    reason: str | None,
    progress: str | None,
    *,
    dry_run: bool,
    override: bool,
    as_json: bool,
) -> None:
    """Import students, courses, terms and enrollments from files: CSV files, a OneRoster zip, a SIS export of Canvas.

    Rows are added or changed by their external ids, by the same rules as in the API; what a file does not say stays as
    it is. The service may go on meanwhile. To import the same files again changes nothing, so an import that was
    interrupted is finished by the same command.

    Exits with 0 if every row was taken, with 3 if some were refused and all others were taken, with 1 if nothing could
    be imported or the import broke off, and with 130 after Ctrl+C.
    """
    # The other commands need nothing of this.
    from service.exchange.errors import UnreadableFile  # noqa: PLC0415
    from service.exchange.formats import read  # noqa: PLC0415
    from service.exchange.importing import Import, Options  # noqa: PLC0415
    from service.exchange.report import BrokenOff, Report, lines  # noqa: PLC0415

    settings = settings_of(database_url=database_url)
    told_to = None
    if refused_to:
        _check_place(refused_to, files)
        if refused_to.suffix.lower() == ".json":
            told_to, refused_to = refused_to, None
    options = Options(
        dry_run=dry_run,
        override=override,
        drop_missing=missing == "drop",
        max_drops=max_drops,
        why=_why(actor, reason),
        refused_to=refused_to,
    )
    with (
        _stoppable() as check,
        _rarely_collected(),
        _written(told_to) as tell,
        TemporaryDirectory(prefix="enrollment-") as work,
        closing(connect(settings.database_url, busy_timeout=max(PATIENCE, settings.busy_timeout))) as db,
    ):
        show = _Show(progress or ("bar" if sys.stderr.isatty() else "none"), check)
        try:
            found = read(files, format_, work=Path(work), whole=missing == "drop")
        except UnreadableFile as error:
            if progress != "ndjson":
                raise
            click.echo(msgspec.json.encode(Report("", dry_run, [], problem=BrokenOff("unreadable_file", str(error)))))
            sys.exit(1)
        importing = Import(found, options, show)
        report, code = importing.report, 0
        try:
            importing.run(db)
        except Stopped as stopped:
            report.problem = BrokenOff("interrupted", INTERRUPTED)
            code = 128 + stopped.number
        finally:
            show.end()
        tell(report)
    if as_json or progress == "ndjson":
        click.echo(msgspec.json.encode(report))
    else:
        for line in lines(report):
            click.echo(line)
    sys.exit(code or _exit_code(report))


def _exit_code(report: "Report") -> int:
    if report.problem:
        return 1
    return SOME_REFUSED if report.refused_count else 0
