"""Keep the rows that are refused: the first ones for the report, and all of them in CSV files to be mended."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from service.errors import SetupError
from service.exchange.parts import ADDED, Kind, Part, Refused
from service.exchange.report import MOST_LISTED, RefusedRow, Report

COLUMNS: Mapping[Kind, Sequence[str]] = {
    "terms": ("external_id", "name", "starts_on", "ends_on"),
    "courses": ("external_id", "name", "level", "capacity", "waitlist_capacity", "term_external_id"),
    "students": ("external_id", "name", "given_name", "family_name", "email"),
    "enrollments": ("student_external_id", "course_external_id", "action"),
}
"""The columns of refused rows that were in another format than the service's own: all that a row of it may have."""
TELLING: Mapping[Kind, Sequence[str]] = {"terms": ["starts_on"], "courses": ["level"], "students": ["email"]}
"""A column that tells what rows are where they have no more than an external id and a name."""


def place_of(path: Path, kind: Kind) -> Path:
    """Give the file for the refused rows of a kind where rows of several kinds were refused."""
    return path.with_stem(f"{path.stem}-{kind}")


class Refusals:
    """The refused rows of one import.

    A CSV file for each kind is written in a folder beside the place where it is wanted, and moved there by `close`, so
    that nothing is there before it is whole. Its columns are named as in the school's own files where those are in the
    service's own format, and else as the fields of the API.
    """

    def __init__(self, report: Report, parts: Sequence[Part], path: Path | None) -> None:
        """Keep the rows in the report and, where a path is given, in files.

        Raises SetupError where no file can be made there.
        """
        self._report, self._path = report, path
        self._columns: dict[Kind, dict[str, str]] = {}
        for part in parts:
            known = self._columns.setdefault(part.kind, {})
            for field, header in self._named(part).items():
                known.setdefault(field, header)
        for kind, known in self._columns.items():
            for field in TELLING.get(kind, ()):
                known.setdefault(field, field)
        self._writers: dict[Kind, tuple[IO[str], Any]] = {}
        if path:
            with writing(path):
                self._folder = TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent)

    def _named(self, part: Part) -> Mapping[str, str]:
        """Give the columns of a part's refused rows, by field."""
        return part.columns if self._report.format == "csv" else {name: name for name in COLUMNS[part.kind]}

    def add(self, kind: Kind, part: Part | None, row: Refused) -> None:
        """Keep a row, of a part or of no file. Raises SetupError where it cannot be written."""
        self._report.totals[kind].refused += 1
        cells = {**row.values, **(_cell(part.columns, row) if part else {})}
        if len(self._report.refused_rows) < MOST_LISTED:
            named = self._named(part) if part else {name: name for name in cells}
            read = {name: cells.get(field) or "" for field, name in named.items()}
            file = part.file if part else ""
            fault = row.line, row.column, row.value, row.code, row.detail
            self._report.refused_rows.append(RefusedRow(kind, file, *fault, read))
        if self._path and part:
            told = row.line, row.code, row.detail
            with writing(self._path):
                self._writer(kind).writerow([*(cells.get(field) or "" for field in self._columns[kind]), *told])

    def _writer(self, kind: Kind) -> Any:
        if kind not in self._writers:
            # The BOM tells spreadsheets that the file is UTF-8.
            file = (Path(self._folder.name) / kind).open("w", encoding="utf-8-sig", newline="")
            self._writers[kind] = file, csv.writer(file)
            self._writers[kind][1].writerow([*self._columns[kind].values(), *ADDED])
        return self._writers[kind][1]

    def close(self) -> None:
        """Put the files where they are wanted, and name them in the report. Raises SetupError.

        Where rows of several kinds were refused, the kind is behind the name of each file. Where no row was refused,
        the file has the names of the added columns alone, so that none of an earlier import is taken for it.
        """
        if self._path is None:
            return
        with writing(self._path), self._folder as folder:
            for file, _ in self._writers.values():
                file.close()
            if not self._writers:
                self._path.write_text(",".join(ADDED), "utf-8")
            for kind in self._writers:
                place = place_of(self._path, kind) if len(self._writers) > 1 else self._path
                (Path(folder) / kind).replace(place)
                self._report.refused_files.append(str(place))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise an error of a file as SetupError."""
    try:
        yield
    except OSError as error:
        message = f"The report cannot be written to {path}: {error.strerror}."
        raise SetupError(message) from error


def _cell(columns: Mapping[str, str], row: Refused) -> dict[str, str | None]:
    """Give the cell that is at fault, which may not be among those that could be read."""
    return {field: row.value for field, header in columns.items() if header == row.column and row.value is not None}
