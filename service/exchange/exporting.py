"""Write a school's data to files: CSV with the API's own names, or a OneRoster file set.

All of one export is read from one transaction of the caller's, and so from one snapshot of the database.
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile, mkstemp
from typing import IO
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import attrs
import peewee as pw

from service.courses import find_course
from service.errors import FeedRewound, StorageUnavailable
from service.events import newest_event
from service.exchange.parts import Kind
from service.exchange.records import KINDS, roster, sheet
from service.exchange.rostering import Rosters
from service.exchange.selecting import BOM, Page, Sheet, Tick, pages
from service.fields import timestamp
from service.rows import Key
from service.storage import fetch_one
from service.terms import find_term

MANY = 4_000_000
"""How many seats there are where a file in a zip may get larger than 4 GB, which not every program can read."""
SEATS = "SELECT coalesce(sum(enrolled), 0) FROM courses"
SINCE = "SELECT id FROM enrollment_events WHERE at >= ? ORDER BY id LIMIT 1"

Rows = Mapping[str, int]
"""How many rows each file has, by its name."""
Export = Callable[[pw.Database, IO[bytes]], Rows]
"""Writes an export to a file that can be sought in."""


def nothing(_: str) -> None:
    """Tell nobody how far it is."""


@attrs.frozen
class Selection:
    """What is exported: the rows of one term or of all, and how their texts are written."""

    term: Key | None = None
    excel: bool = False
    """Whether a spreadsheet is to open the file: it begins with a BOM, and no cell is a formula."""

    def term_id(self, db: pw.Database) -> int | None:
        """Give the id of the term. Raises TermNotFound."""
        return None if self.term is None else find_term(db, self.term).id


EVERYTHING = Selection()


def csv_of(kind: Kind, selection: Selection = EVERYTHING, tick: Tick = nothing) -> Export:
    """Give the export of one kind of records. It raises TermNotFound."""

    def export(db: pw.Database, file: IO[bytes]) -> Rows:
        rows = sheet(db, kind, selection.term_id(db), excel=selection.excel)
        return _csv(db, file, f"{kind}.csv", rows, selection, tick)

    return export


def roster_of(course: Key, selection: Selection = EVERYTHING) -> Export:
    """Give the export of the class list of a course. It raises CourseNotFound."""

    def export(db: pw.Database, file: IO[bytes]) -> Rows:
        rows = roster(db, find_course(db, course).id, excel=selection.excel)
        return _csv(db, file, "roster.csv", rows, selection, nothing)

    return export


def _csv(  # noqa: PLR0913, PLR0917 - what is written where, and how.
    db: pw.Database, file: IO[bytes], name: str, rows: Sheet, selection: Selection, tick: Tick
) -> Rows:
    file.write((BOM if selection.excel else b"") + rows.header)
    return {name: _write(file, _lines(db, rows), name, tick)}


def _lines(db: pw.Database, rows: Sheet) -> Iterator[Page]:
    return (page for scan in rows.scans for page in pages(db, scan))


def _write(file: IO[bytes], lines: Iterable[Page], name: str, tick: Tick) -> int:
    written = 0
    for page, count in lines:
        file.write(page)
        written += count
        tick(name)
    return written


def zip_of_csv(selection: Selection = EVERYTHING, tick: Tick = nothing) -> Export:
    """Give the export of all records, each kind in a file of its own, in one zip. It raises TermNotFound."""

    def export(db: pw.Database, file: IO[bytes]) -> Rows:
        written: dict[str, int] = {}
        with _zip(db, file) as add:
            for kind in KINDS:
                with add(f"{kind}.csv") as member:
                    written |= csv_of(kind, selection, tick)(db, member)
        return written

    return export


@attrs.frozen
class RosterExport:
    """What a OneRoster file set is to have."""

    school: str
    """The name of the school."""
    term: Key | None = None
    since: int | str | None = None
    """The id of an event, or a moment as RFC 3339 in UTC, for what has changed since; None for all."""


def oneroster_of(asked: RosterExport, tick: Tick = nothing) -> Export:
    """Give the export of a OneRoster file set. It raises TermNotFound, and FeedRewound for an event yet to come."""

    def export(db: pw.Database, file: IO[bytes]) -> Rows:
        now = datetime.now(UTC)
        term_id = Selection(asked.term).term_id(db)
        rosters = Rosters(asked.school, now.date(), timestamp(now), term_id, _since(db, asked.since))
        written: dict[str, int] = {}
        with _zip(db, file) as add:
            for name, rows in rosters.sheets(db):
                lines = _lines(db, rows)
                # A file of the binding has rows, or is not there.
                if first := next(lines, None):
                    with add(f"{name}.csv") as member:
                        member.write(rows.header)
                        written[name] = _write(member, chain([first], lines), name, tick)
            with add("manifest.csv") as member:
                member.write(rosters.manifest(written))
        return {f"{name}.csv": count for name, count in written.items()}

    return export


def _since(db: pw.Database, since: int | str | None) -> int | None:
    """Give the id of the last event that a receiver has seen. Raises FeedRewound."""
    if since is None:
        return None
    newest = newest_event(db)
    if isinstance(since, str):
        found = fetch_one(db, SINCE, since)
        return found[0] - 1 if found else newest
    if since > newest:
        raise FeedRewound(newest)
    return since


@contextmanager
def _zip(db: pw.Database, file: IO[bytes]) -> Iterator[Callable[[str], IO[bytes]]]:
    """Write a zip; the function that is given begins a file in it."""
    seats = fetch_one(db, SEATS) or (0,)
    at = datetime.now(UTC).timetuple()[:6]
    with ZipFile(file, "w", ZIP_DEFLATED) as archive:

        def add(name: str) -> IO[bytes]:
            member = ZipInfo(name, at)
            member.compress_type, member.external_attr = ZIP_DEFLATED, 0o600 << 16
            return archive.open(member, "w", force_zip64=seats[0] > MANY)

        yield add


def to_temporary(db: pw.Database, export: Export) -> tuple[IO[bytes], int]:
    """Write an export to a file that no folder has, and give the file, at its beginning, and its size in bytes.

    Raises StorageUnavailable where there is no room for the file, and what the export raises.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(TemporaryFile())
            export(db, file)
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
        except OSError as error:
            raise StorageUnavailable(f"The export cannot be written: {error.strerror}. Nothing was kept.") from error
        stack.pop_all()
    return file, size


def to_paths(db: pw.Database, exports: Mapping[Path, Export]) -> Rows:
    """Write exports to files, which are put into place once all of them are whole and on the disk.

    Only their owner may read the files. Raises OSError, and what the exports raise; no file is changed then, but where
    a file cannot be put into place, those before it are.
    """
    written: dict[str, int] = {}
    with ExitStack() as stack:
        made: dict[Path, str] = {}
        for path, export in exports.items():
            target = path.resolve()  # A symbolic link stays, and leads to the new file.
            if target.exists() and not target.is_file():
                raise FileExistsError(errno.EEXIST, f"{path} is there, and no ordinary file")
            descriptor, made[target] = mkstemp(".part", f".{target.name}.", target.parent)
            stack.callback(Path(made[target]).unlink, missing_ok=True)
            with open(descriptor, "w+b") as file:  # noqa: PTH123 - a descriptor is no path.
                written |= export(db, file)
                file.flush()
                os.fsync(descriptor)
        for target, part in made.items():
            Path(part).replace(target)
        for folder in {target.parent for target in made}:
            _sync(folder)
    return written


def _sync(folder: Path) -> None:
    """Let the names of the files in a folder be on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
