"""Read a school's files, whatever their format is: see `read`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from service.exchange import canvas, oneroster, plain
from service.exchange.errors import UnreadableFile
from service.exchange.lookups import Lookups
from service.exchange.parts import Found, Kind
from service.exchange.shapes import Format, FormatName, is_refused, listed
from service.exchange.sheets import is_workbook, sheets
from service.exchange.sources import ZIP, Measure, members, opened
from service.exchange.tables import Table, text_table

FORMATS: Mapping[FormatName, Format] = {
    "csv": plain.FORMAT,
    "oneroster": oneroster.FORMAT,
    "canvas": canvas.FORMAT,
}
TEXTS = (".csv", ".tsv", ".tab", ".txt")
"""How the names of the files end that are read from a zip."""


def read(files: Sequence[Path], format: FormatName | None = None, *, work: Path, whole: bool = False) -> Found:
    """Read the files of one import: texts, zips of texts, and workbooks.

    The format is told by the columns, unless it is given: the API's own names ("csv"), OneRoster, or a SIS import of
    Canvas. The refused rows of an import, whichever format it had, have the API's own names. What is looked up between
    files is kept in the folder `work`, which the caller removes after the last use of what is found. With `whole`,
    files that have only what has changed are refused. Raises UnreadableFile, here and while the rows of a part are
    read.
    """
    tables, left_out = _tables(files)
    chosen = FORMATS["csv" if all(map(is_refused, tables)) else format or _format_of(tables)]
    found, others, notes = chosen.files(tables)
    if whole and chosen.is_delta(found):
        raise UnreadableFile(
            "The files have only what has changed, as manifest.csv says, so who is missing in them has not left. Keep "
            "who is missing, or import a whole set."
        )
    if left_out := [*left_out, *others]:
        notes.append(f"{listed(left_out)} {'was' if len(left_out) == 1 else 'were'} left out.")
    parts = sorted(chosen.parts(found, Lookups(work)), key=lambda part: get_args(Kind).index(part.kind))
    is_empty = not parts or all(file.table.empty for files in found.values() for file in files)
    if is_empty and chosen.tells_nothing(found):
        notes.append("The manifest says that there is nothing to import.")
    elif is_empty:
        raise UnreadableFile(" ".join(["There is nothing to import in the files.", *notes]))
    return Found(chosen.title, parts, notes)


def _tables(files: Sequence[Path]) -> tuple[list[Table], list[str]]:
    """Give the tables in files, and the names of what is no table."""
    tables, left_out, measure = [], [], Measure()
    for source in map(opened, dict.fromkeys(files)):
        if not source.begins_with().startswith(ZIP):
            tables.append(text_table(source, measure, loose=True))
        elif is_workbook(source):
            found, hidden = sheets(source, measure)
            tables += found
            left_out += hidden
        else:
            for member in members(source):
                if member.file.casefold().endswith(TEXTS) or member.begins_with().startswith(ZIP):
                    tables.append(text_table(member, measure, loose=False))
                else:
                    left_out.append(member.file)
    return tables, left_out


def _format_of(tables: Sequence[Table]) -> FormatName:
    """Tell the format by the columns. Raises UnreadableFile where there are several."""
    fitting = {name: [table.file for table in tables if name in _fitting(table)] for name in FORMATS}
    found = [name for name, names in fitting.items() if names]
    if len(found) > 1:
        several = listed([f"{fitting[name][0]} of the format {name}" for name in found])
        raise UnreadableFile(f"The files are of several formats: {several}. Import those of each format by themselves.")
    # Where no file has all columns that it needs, the format of which the files have most tells what is missing.
    return max(found or FORMATS, key=lambda name: sum(map(FORMATS[name].count, tables)))


def _fitting(table: Table) -> Sequence[FormatName]:
    """Give the formats that a table may be of: where it fits several, those that know most of its columns."""
    counts = {name: format.count(table) for name, format in FORMATS.items() if format.fitting(table)}
    return [name for name, count in counts.items() if count == max(counts.values())]
