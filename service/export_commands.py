"""The command that exports a school's data to files.

How many rows each file got goes to stdout, and what else there is to say goes to stderr.
"""

import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click
import peewee as pw

from service.errors import FeedRewound, SetupError, TermNotFound
from service.fields import SINCE
from service.options import clear, database_url_option, settings_of, show
from service.rows import ExternalId
from service.storage import fetch
from service.storage.kinds import schema_of, without_password

if TYPE_CHECKING:
    from service.exchange.exporting import Export

NAMES = "a folder, or a file named so: *.zip, students.csv, courses.csv, terms.csv, enrollments.csv"
UNNAMED = """
    SELECT (SELECT count(*) FROM students WHERE external_id IS NULL),
        (SELECT count(*) FROM courses WHERE external_id IS NULL),
        (SELECT count(*) FROM terms WHERE external_id IS NULL),
        (SELECT count(*) FROM courses
         LEFT JOIN terms ON terms.id = courses.term_id AND terms.starts_on IS NOT NULL AND terms.ends_on IS NOT NULL
         WHERE terms.id IS NULL)"""
"""How many students, courses and terms have no external id, and how many courses are in no term with both days."""


@click.command(short_help="Export students, courses, terms and enrollments to files.")
@click.argument("path", type=click.Path(), metavar="PATH")
@database_url_option
@click.option(
    "--format",
    "format_",
    type=click.Choice(["csv", "oneroster"]),
    default="csv",
    show_default=True,
    help="What is written: CSV with the API's own names, or a OneRoster 1.2 zip.",
)
@click.option("--term", metavar="EXTERNAL_ID", help="Export only what belongs to this term.")
@click.option(
    "--since",
    metavar="EVENT_ID|MOMENT",
    help="Export only what has changed after this event, or from this time on, such as 2026-09-01T08:30:00Z. For "
    "oneroster alone, where it makes a delta.",
)
def export(path: str, database_url: str | None, format_: str, term: str | None, since: str | None) -> None:
    """Export students, courses, terms and enrollments to PATH, all as they were at one moment.

    PATH is a folder, which need not be there yet, for four CSV files; or it is one of these files, such as
    students.csv; or it ends in .zip, for all in one file. A file that is there is replaced once the new one is whole.
    Only you may read the files.

    The service may go on meanwhile. With a setting SCHOOL_NAME the school has that name in OneRoster.
    """
    settings = settings_of(database_url=database_url)
    with (
        schema_of(settings.database_url).reading(settings.database_url, settings.busy_timeout) as db,
        _interrupted(),
        _explained(settings.database_url),
    ):
        exports = _exports(path, format_, term, since, settings.school_name)
        written, counts = _written(db, exports)
    for name, count in written.items():
        click.echo(f"{name:<22}{count:>12,} {'row' if count == 1 else 'rows'}")
    for sentence in _notes(format_, counts):
        click.echo(sentence, err=True)


def _exports(path: str, format_: str, term: str | None, since: str | None, school: str) -> Mapping[Path, "Export"]:
    # The other commands need nothing of this.
    from service.exchange import exporting  # noqa: PLC0415
    from service.exchange.records import KINDS  # noqa: PLC0415

    began, key = time.monotonic(), _key(term)

    def tick(name: str) -> None:
        show(name.removesuffix(".csv"), time.monotonic() - began)

    place = Path(path)
    if format_ == "oneroster":
        if place.suffix.lower() != ".zip" or place.is_dir():
            raise click.UsageError("A OneRoster file set is a zip: let PATH end in .zip.")
        return {place: exporting.oneroster_of(exporting.RosterExport(school, key, _since(since)), tick)}
    if since is not None:
        raise click.UsageError("Only a OneRoster file set can be a delta: add --format oneroster.")
    selection = exporting.Selection(key)
    if path.endswith("/") or place.is_dir() or not place.suffix:
        place.mkdir(mode=0o700, exist_ok=True)
        return {place / f"{kind}.csv": exporting.csv_of(kind, selection, tick) for kind in KINDS}
    if place.suffix.lower() == ".zip":
        return {place: exporting.zip_of_csv(selection, tick)}
    for kind in KINDS:
        if place.name == f"{kind}.csv":
            return {place: exporting.csv_of(kind, selection, tick)}
    raise click.UsageError(f"{path} is none of these: {NAMES}.")


def _key(term: str | None) -> ExternalId | None:
    try:
        return None if term is None else ExternalId(term)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--term'") from error


def _since(since: str | None) -> int | str | None:
    try:
        return None if since is None else SINCE.check(since)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--since'") from error


def _written(db: pw.Database, exports: Mapping[Path, "Export"]) -> tuple[Mapping[str, int], Sequence[int]]:
    """Write the files, and give how many rows each has, and the numbers of which the notes tell."""
    from service.exchange.exporting import to_paths  # noqa: PLC0415 - as in `_exports`.

    try:
        return to_paths(db, exports), fetch(db, UNNAMED)[0]
    finally:
        clear()


def _notes(format_: str, counts: Sequence[int]) -> Iterator[str]:
    *unnamed, undated = (
        f"{count:,} {noun if count == 1 else f'{noun}s'}" if count else ""
        for count, noun in zip(counts, ("student", "course", "term", "course"), strict=True)
    )
    if format_ == "csv" and any(unnamed):
        yield f"Without an external id, by which an import knows them again: {', '.join(filter(None, unnamed))}."
    if format_ == "oneroster" and undated:
        yield f"In no term that has both days, and so in the current school year: {undated}."


@contextmanager
def _explained(database_url: str) -> Iterator[None]:
    """Raise what the user can mend as SetupError."""
    try:
        yield
    except (TermNotFound, FeedRewound) as error:
        raise SetupError(error.detail) from error
    except pw.DatabaseError as error:
        raise SetupError(f"The database {without_password(database_url)} cannot be used: {error}.") from error
    except OSError as error:
        raise SetupError(f"Nothing was exported: {error.strerror or error}.") from error


@contextmanager
def _interrupted() -> Iterator[None]:
    """End the program at SIGINT and SIGTERM, but not before the files that are not whole are removed."""

    def end(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
