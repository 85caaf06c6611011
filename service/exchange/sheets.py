"""Read the sheets of a workbook (.xlsx) as tables, with python-calamine, which is imported once there is a workbook.

calamine has no bound for what it keeps, and gives an error such as #N/A as an empty cell. So it is handed a copy of the
workbook: its bytes and cells have been counted, and its errors are texts. Of numbers calamine gives no format but that
of days and times: 7 that is shown as 007 is read as 7.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from datetime import date, time
from functools import reduce
from io import BytesIO
from typing import TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZipFile

from service.exchange.errors import UnreadableFile
from service.exchange.parts import Refused
from service.exchange.sources import Measure, Source, directory
from service.exchange.tables import Line, Table, unbroken

if TYPE_CHECKING:
    from python_calamine import CalamineSheet

MOST_BYTES = 256 << 20
"""The most bytes that a workbook may have once it is unpacked: all of them stand in memory."""
MOST_CELLS = 8 << 20
"""The most cells that a workbook may have, with the empty ones: calamine keeps all from A1 to the last of a sheet."""
CELL_BYTES = 32
"""What calamine keeps for a cell."""
MOST_EXACT = 1e15
"""From here on spreadsheet programs do not keep every digit of a number."""

# The tag of a cell as spreadsheet programs write it, with one place, such as B7. Of another tag, the start is found.
_MORE = rb'(?:\s(?:s|t|cm|vm|ph)="[^"<>]*")*'
_CELL = re.compile(rb'<(?:[^<>\s]*:)?c(?=[\s/>])(?:%b\sr="([A-Z]{1,3})([0-9]{1,7})"%b\s?/?>)?' % (_MORE, _MORE))
# What calamine gives as an empty cell: an error, and a formula without a result. Each has a mark, quick to be seen.
_UNSEEN = (
    (b't="e"', re.compile(rb'(<(?:[^<>\s]*:)?c(?=\s)[^<>]*\st=)"e"'), rb'\1"str"'),
    (
        b"<f",
        re.compile(rb"<c(?=\s)(?![^<>]*\st=)([^<>]*>)<f[^<>]*(?:/>|>[^<]*</f>)(?:<v ?/>|<v></v>)?</c>"),
        rb'<c t="str"\1<v>#RESULT!</v></c>',
    ),
)
_ERROR = re.compile("#(?:N/A|GETTING_DATA|[A-Z0-9/]+[!?])")


def is_workbook(source: Source) -> bool:
    """Tell whether a zip is a workbook. Raises UnreadableFile for one of another kind."""
    names = {info.filename for info in directory(source)}
    if "mimetype" in names or names & {"xl/workbook.bin", "word/document.xml"}:
        raise UnreadableFile(f"{source.file} is not a workbook of the kind .xlsx: save it as .xlsx, or as CSV.")
    return "[Content_Types].xml" in names


def sheets(source: Source, measure: Measure) -> tuple[list[Table], list[str]]:
    """Give a table for each sheet that has a text, and the names of those that are hidden. Raises UnreadableFile."""
    try:
        from python_calamine import CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum  # noqa: PLC0415 - it is optional.
    except ImportError as error:
        raise UnreadableFile(
            f"{source.file} is a workbook, which needs python-calamine: run pip install '.[xlsx]', or save it as CSV."
        ) from error
    copy = _copy(source, measure)
    tables: list[Table] = []
    hidden = []
    try:
        book = CalamineWorkbook.from_filelike(copy)
        for place, sheet in enumerate(book.sheets_metadata):
            file = f"{source.file} ({sheet.name})"
            if sheet.visible != SheetVisibleEnum.Visible:
                hidden.append(f"{file}, which is hidden,")
            elif sheet.typ == SheetTypeEnum.WorkSheet:
                tables += _table(book.get_sheet_by_index(place), file)
    except (UnreadableFile, KeyboardInterrupt):
        raise
    except BaseException as error:  # A panic in calamine, such as for a day in the year -1e18, is no Exception.
        raise _damaged(source, error) from error
    return tables, hidden


def _copy(source: Source, measure: Measure) -> BytesIO:
    """Copy what calamine reads of a workbook, within bounds. Raises UnreadableFile."""
    sizes = {info.filename: info.file_size for info in directory(source) if info.filename.endswith((".xml", ".rels"))}
    # What the directory of a zip says is known at once, but may be wrong.
    parts = [Source(source.file, source.path, name) for name in sizes]
    if sum(sizes.values()) > MOST_BYTES or sum(map(measure.size, parts)) > MOST_BYTES:
        raise _too_long(source, f"{MOST_BYTES >> 20} MiB once it is unpacked")
    copy, cells = BytesIO(), 0
    with ZipFile(copy, "w", ZIP_DEFLATED, compresslevel=1) as archive:
        for name, part in zip(sizes, parts, strict=True):
            with part.open() as stream:
                data = stream.read(MOST_BYTES)
            if b"\0" in data:
                raise _damaged(source, f"{name} is not in UTF-8")
            if b"sheetData" in data:
                cells += _cells(source, data)
                if cells > MOST_CELLS:
                    raise _too_long(source, f"{MOST_CELLS:,} cells, the empty ones before the last one too")
                for mark, unseen, seen in _UNSEEN:
                    data = unseen.sub(seen, data) if mark in data else data
            archive.writestr(name, data)
    copy.seek(0)
    return copy


def _cells(source: Source, data: bytes) -> int:
    """Count the cells of a sheet from A1 to its last row and column. Raises UnreadableFile."""
    columns, rows = {b""}, {b"0"}
    for found in _CELL.finditer(data):
        if found[1] is None:
            raise _damaged(source, "a cell does not say where it is")
        columns.add(found[1])
        rows.add(found[2])
    # The letters of a column are the digits of a number that has no zero.
    return max(map(int, rows)) * max(reduce(lambda number, letter: number * 26 + letter - 64, c, 0) for c in columns)


def _table(sheet: "CalamineSheet", file: str) -> Iterator[Table]:
    """Give the table that a sheet is, unless it has no text. Raises UnreadableFile, and whatever calamine does."""
    top, header, empty = 0, [""], True
    # Every row is read, so that a cell that calamine cannot give is known before anything is imported.
    for line, cells in enumerate(sheet.iter_rows(), 1):
        if top:
            empty = False
        elif any(texts := [_text(cell).strip() for cell in cells]):
            top, header = line, texts
            if fault := next(filter(None, map(_fault, cells)), None):
                raise UnreadableFile(f"{file}: row {top} should have the names of the columns. {fault}")
    # A sheet has a cell in each of its columns, so that a row may go on where the header ends.
    while header and not header[-1]:
        header.pop()

    def lines(columns: Collection[int]) -> Iterator[Line | Refused]:
        rows = enumerate(sheet.iter_rows(), 1)
        return (_row(line, cells, header, columns) for line, cells in rows if line > top)

    if header:
        yield Table(file, sheet.name, sheet.height * sheet.width * CELL_BYTES, False, header, lines, empty)


def _row(line: int, cells: Sequence[object], header: Sequence[str], columns: Collection[int]) -> Line | Refused:
    """Give a row, or refuse it for the first cell that is read and has no meaning."""
    texts = [_text(cell) for cell in cells]
    for place in columns:
        if fault := _fault(cells[place]):
            row = dict(zip(header, texts, strict=False))
            return Refused(line, header[place], texts[place], "invalid_row", fault, row)
    return line, texts


def _text(cell: object) -> str:
    match cell:
        case str():
            return unbroken(cell)
        case bool():
            return "true" if cell else "false"
        case float() if cell.is_integer():
            return str(int(cell))
        case float():
            return f"{cell:.15g}"
        case date() | time():
            return cell.isoformat()
    return str(cell)  # A duration.


def _fault(cell: object) -> str | None:
    """Say why nobody can know what a cell means."""
    if isinstance(cell, float) and not abs(cell) < MOST_EXACT:
        return "The number has more digits than a spreadsheet keeps: write it anew, in a cell of texts."
    if not (isinstance(cell, str) and _ERROR.fullmatch(cell)):
        return None
    if cell == "#RESULT!":
        return "The formula has no result: save the file in a spreadsheet program first."
    return f"The cell has the error {cell}: mend it, or clear it."


def _too_long(source: Source, most: str) -> UnreadableFile:
    return UnreadableFile(f"{source.file} has more than {most}, which is too much: save each sheet of it as CSV.")


def _damaged(source: Source, why: object) -> UnreadableFile:
    return UnreadableFile(f"{source.file} is damaged ({why}): open it in a spreadsheet program, and save it again.")
