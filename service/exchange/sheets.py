"""Read the sheets of a workbook (.xlsx) as tables: each cell as people see it, and a date as ISO 8601 has it."""

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, time, timedelta
from functools import partial

from service.exchange.parts import Refused
from service.exchange.sources import Measure, Source
from service.exchange.tables import Line, Table
from service.exchange.unreadable import UnreadableFile
from service.exchange.workbooks import MOST_COLUMNS, Cell, Sheet, Workbook, formats, rows, texts, unescaped, workbook

# The formats of days and times that are built in, so that a workbook does not say what they are: section 18.8.30.
_DAYS = {str(number) for number in (*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59))}
# What stands in the code of a format for itself, and not for a part of the number: section 18.8.31.
_VERBATIM = re.compile(r'"[^"]*"|\[[^]]*\]|\\.|_.|\*.')
_PADDED = re.compile("0{2,}")
MOST_EXACT = 1e15
"""From here on spreadsheet programs do not keep every digit of a number."""


class _Fault(Exception):
    """A cell of which nobody can say what it means."""

    def __init__(self, cell: Cell, what: str) -> None:
        super().__init__(what)
        self.cell = cell
        self.place = 0


def sheets(source: Source, measure: Measure) -> tuple[list[Table], list[str]]:
    """Give a table for each sheet that has a text, and the names of those that are hidden. Raises UnreadableFile."""
    book = workbook(source, measure)
    tables, hidden = [], []
    for sheet in book.sheets:
        file = f"{source.file} ({sheet.name})"
        if sheet.hidden:
            hidden.append(f"{file}, which is hidden,")
        elif table := _table(book, sheet, file):
            tables.append(table)
    return tables, hidden


def _table(book: Workbook, sheet: Sheet, file: str) -> Table | None:
    reading, text_of = rows(sheet), _texts_of(book)
    for top, cells in reading:
        try:
            header = [text.strip() for text in _row(cells, text_of, range(MOST_COLUMNS))]
        except _Fault as fault:
            raise UnreadableFile(f"{file}: row {top} should have the names of the columns. {fault}") from fault
        if any(header):
            break
    else:
        return None

    def lines(columns: Collection[int]) -> Iterator[Line | Refused]:
        text_of, wanted = _texts_of(book), frozenset(columns)
        for line, cells in rows(sheet):
            if line > top:
                try:
                    yield line, _row(cells, text_of, wanted, len(header))
                except _Fault as fault:
                    yield Refused(line, header[fault.place], fault.cell.text, "invalid_row", str(fault))

    return Table(file, sheet.name, sheet.size, False, header, lines, next(reading, None) is None)


def _row(
    cells: Mapping[int, Cell], text_of: Callable[[Cell], str], columns: Collection[int], width: int = 0
) -> Sequence[str]:
    """Give the texts of a row: those of some columns, and those after the width of the header. Raises _Fault."""
    found = [""] * max(width, *(place + 1 for place in cells), 0)
    for place, cell in cells.items():
        if place in columns:
            try:
                found[place] = text_of(cell)
            except _Fault as fault:
                fault.place = place
                raise
        elif place >= width:
            found[place] = cell.text or ""
    return found


def _texts_of(book: Workbook) -> Callable[[Cell], str]:
    """Give the function that gives the text of a cell. Raises UnreadableFile."""
    shared = texts(book.texts) if book.texts else ()
    first_day = datetime(1904, 1, 1) if book.from_1904 else datetime(1899, 12, 30)  # noqa: DTZ001 - a cell has no zone.
    styles = formats(book.styles) if book.styles else {}
    shown = {style: _shown(number, code, first_day) for style, (number, code) in styles.items()}

    def text_of(cell: Cell) -> str:
        if cell.text is None or (cell.kind == "n" and not cell.text):
            if cell.formula:
                raise _Fault(cell, "The formula has no result: save the file in a spreadsheet program first.")
            return ""
        match cell.kind:
            case "n":
                return shown.get(cell.style, _number)(cell)
            case "s" if cell.text.isdecimal() and int(cell.text) < len(shared):
                return shared[int(cell.text)]
            case "s" | "e":
                raise _Fault(cell, f"The cell has the error {cell.text}: mend it, or clear it.")
            case "b":
                return "TRUE" if cell.text == "1" else "FALSE"
        return unescaped(cell.text)

    return text_of


def _shown(number: str, code: str, first_day: datetime) -> Callable[[Cell], str]:
    """Give the function that gives the text of a number in some format."""
    if _PADDED.fullmatch(code):
        return lambda cell: _number(cell).zfill(len(code))
    if number in _DAYS or re.search("[dmyhs]", _VERBATIM.sub("", code).lower()):
        return partial(_day, first_day)
    return _number


def _number(cell: Cell) -> str:
    text = cell.text or ""
    if text.isascii() and text.isdigit():
        return text
    value = _value(cell)
    if abs(value) >= MOST_EXACT:
        raise _Fault(cell, "The number has more digits than a spreadsheet keeps: write it anew, in a cell of texts.")
    return str(int(value)) if value == int(value) else f"{value:.15g}"


def _day(first_day: datetime, cell: Cell) -> str:
    """Give a day, a day and a time, or a time alone, to the second."""
    days = _value(cell)
    try:
        moment = first_day + timedelta(seconds=round(days * 86_400))
    except OverflowError as error:
        raise _Fault(cell, "The number is shown as a date, but no date has it: write the date anew.") from error
    if 0 <= days < 1:
        return moment.time().isoformat()
    return moment.isoformat() if moment.time() != time.min else moment.date().isoformat()


def _value(cell: Cell) -> float:
    try:
        value = float(cell.text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _Fault(cell, "The cell is said to have a number, but it has none: write it anew.")
    return value
