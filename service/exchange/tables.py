"""Read a file of rows as spreadsheets and other programs write it: its encoding, its delimiter, its header.

A file is read from end to end before any row of it is given, so that what is wrong with the file as a whole is known
before anything is imported.
"""

import codecs
import csv
import io
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter

import attrs
import msgspec

from service.exchange.errors import UnreadableFile
from service.exchange.parts import Refused
from service.exchange.sources import CHUNK, ZIP, Measure, Source

LONGEST_LINE = 4 << 20
"""The most characters that a line may have: a line stands in memory as a whole."""
DELIMITERS = ",;\t"

Line = tuple[int, Sequence[str]]
"""A row: the line of the file on which it begins, and its cells."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """A row by the names that a format gives the columns: the line on which it begins, and its cells with a text."""

    line: int
    cells: Mapping[str, str]


@attrs.frozen
class Table:
    """A header, and rows that can be read many times."""

    file: str
    """The name of the file, as people know it."""
    name: str
    """The name that may say what the rows are: of the file, or of the sheet in a workbook."""
    size: int
    """The number of bytes that reading the rows goes through."""
    loose: bool
    """Whether the file was named by itself, and did not come with others in a zip or a workbook."""
    header: Sequence[str]
    lines: Callable[[Collection[int]], Iterator[Line | Refused]]
    """Begin to read the rows after the header; of what use are the cells of these columns only."""
    empty: bool
    """Whether no row comes after the header."""
    notes: Sequence[str] = ()
    count: int | None = None
    """How many rows with a text come after the header; None where that is not known yet."""
    has: Callable[[str], bool] = lambda _: True
    """Tell whether a word, in small letters, may be in the table: in any letter case, and as a part of another word."""


def records(table: Table, columns: Mapping[str, int]) -> Iterator[Record | Refused]:
    """Read the rows of a table, each cell without the white space around it.

    A row without any text is left out. Raises UnreadableFile if the file is another one than before.
    """
    names, width = tuple(columns), len(table.header)
    # With one name only, itemgetter would give a cell and not a tuple of cells.
    cells_of, strip = itemgetter(*columns.values(), 0), str.strip
    for item in table.lines(columns.values()):
        if isinstance(item, Refused):
            yield item
            continue
        line, cells = item
        if len(cells) != width:
            if extra := "".join(cells[width:]).strip():
                yield Refused(line, None, extra, "invalid_row", _TOO_MANY.format(len(cells), width))
                continue
            cells = [*cells, *[""] * (width - len(cells))]
        values = dict(zip(names, map(strip, cells_of(cells)), strict=False))
        if "" in values.values():
            values = {name: cell for name, cell in values.items() if cell}
            if not values and not any(map(strip, cells)):
                continue
        yield Record(line, values)


_TOO_MANY = (
    "The row has {} cells, and the header has {}: put a cell into quotes if the character between the cells is in it."
)


def text_table(source: Source, measure: Measure, *, loose: bool) -> Table:
    """Give the table that a text file is. Raises UnreadableFile."""
    size = measure.size(source)
    encoding, notes = _encoding(source)
    skipped, delimiter = _delimiter(source, encoding)

    def rows() -> tuple[Sequence[str] | None, Iterator[Line]]:
        """Begin to read the file: the header, and the rows after it."""
        found = _rows(source, encoding, delimiter, skipped)
        return next((cells for _, cells in found if _has_text(cells)), None), found

    header, found = rows()
    if header is None:
        raise UnreadableFile(f"{source.file} is empty: it needs a row with the names of the columns, and rows.")
    count = sum(1 for _ in filter(str.strip, map("".join, (cells for _, cells in found))))

    names, has = [name.strip() for name in header], partial(_has, source, encoding)
    return Table(source.file, source.file, size, loose, names, lambda _: rows()[1], not count, notes, count, has)


def _has(source: Source, encoding: str, word: str) -> bool:
    """Look for a word in a file. Raises UnreadableFile."""
    before = ""
    with source.open() as stream, io.TextIOWrapper(stream, encoding, errors="replace") as text:
        while chunk := text.read(CHUNK):
            before = before[-len(word) :] + chunk.casefold()
            if word in before:
                return True
    return False


def unbroken(text: str) -> str:
    """Put a space where a cell goes on in a new line, which in a spreadsheet is only for the eye."""
    return re.sub(r"\s*[\r\n]\s*", " ", text)


def _has_text(cells: Sequence[str]) -> bool:
    """Tell whether a row has more than what may stand between cells."""
    return any(cell.strip().strip(DELIMITERS) for cell in cells)


def _rows(source: Source, encoding: str, delimiter: str, skipped: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Read the rows after so many lines, without those that have no character at all."""
    with source.open() as stream, io.TextIOWrapper(stream, encoding, newline="") as text:
        # Strict, because the rest of a file would otherwise go into the one cell whose quote is not closed.
        reader, begins = csv.reader(text, delimiter=delimiter, skipinitialspace=True, strict=True), 1
        try:
            for cells in reader:
                if cells and begins > skipped:
                    yield begins, cells if reader.line_num == begins else [*map(unbroken, cells)]
                begins = reader.line_num + 1
        except csv.Error as error:
            raise UnreadableFile(
                f"{source.file}: the row that begins on line {begins} cannot be read ({error}). Close every quote that "
                "a cell begins with, and write a quote inside of such a cell twice; a cell has 131,072 characters at "
                "most."
            ) from error
        except UnicodeDecodeError as error:
            raise UnreadableFile(f"{source.file} was changed while it was read: begin again.") from error


# What a decoder puts where it cannot read, which no text has, and what UTF-8 alone makes of several bytes.
_UNREAD = re.compile("[\ud800-\udfff]")
_SEVERAL = re.compile("[^\0-\x7f\udc80-\udcff]")


@attrs.frozen
class _Scan:
    wrong: int | None
    """The first line that is not in the encoding."""
    several: bool
    """Whether a character of several bytes is."""


def _encoding(source: Source) -> tuple[str, Sequence[str]]:
    """Give the encoding of a file, and what is to be said of it. Raises UnreadableFile."""
    head = source.begins_with()
    if head.startswith(ZIP):
        raise UnreadableFile(f"{source.file} is a zip in a zip: take it out, and give it by itself.")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        if wrong := _scan(source, "utf-16", "surrogatepass").wrong:
            raise UnreadableFile(_wrong(source, wrong, "UTF-16"))
        return "utf-16", ()
    utf_8 = _scan(source, "utf-8-sig", "surrogateescape")
    if utf_8.wrong is None:
        return "utf-8-sig", ()
    # In Windows-1252 hardly any text has what would be a character of several bytes in UTF-8.
    if utf_8.several or head.startswith(codecs.BOM_UTF8):
        raise UnreadableFile(_wrong(source, utf_8.wrong, "UTF-8, as other lines are"))
    if wrong := _scan(source, "cp1252", "surrogateescape").wrong:
        raise UnreadableFile(_wrong(source, wrong, "UTF-8 or Windows-1252"))
    return "cp1252", (
        f"{source.file} is not in UTF-8 and was read as Windows-1252: see whether names with accents are right.",
    )


def _wrong(source: Source, line: int, encoding: str) -> str:
    return f'{source.file}: line {line} is not in {encoding}. Save the file as "CSV UTF-8" where it was made.'


def _scan(source: Source, encoding: str, errors: str) -> _Scan:
    """Decode a file to its end. Raises UnreadableFile for what no encoding allows."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(errors), translate=True)
    line, length = 1, 0
    wrong, several = None, False
    with source.open() as stream:
        while True:
            chunk = stream.read(CHUNK)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError:  # The last character of a file in UTF-16 is not whole.
                return _Scan(wrong or line, several)
            if "\0" in text:
                where = line + text.count("\n", 0, text.index("\0"))
                raise UnreadableFile(
                    f'{source.file}: line {where} has a NUL, which no text has. Save the file as "CSV UTF-8" where it '
                    "was made."
                )
            last = text.rfind("\n")
            length = length + len(text) if last < 0 else len(text) - last - 1
            if length > LONGEST_LINE:
                raise UnreadableFile(
                    f"{source.file}: line {line + text.count(chr(10))} has more than {LONGEST_LINE:,} characters. "
                    "Give a text file with a row on each line."
                )
            if not text.isascii():
                several = several or _SEVERAL.search(text) is not None
                if wrong is None and (found := _UNREAD.search(text)):
                    wrong = line + text.count("\n", 0, found.start())
            line += text.count("\n")
            if not chunk:
                return _Scan(wrong, several)


def _delimiter(source: Source, encoding: str) -> tuple[int, str]:
    """Give how many lines at the start are for Excel only, and the character between the cells."""
    with source.open() as stream, io.TextIOWrapper(stream, encoding, newline="") as text:
        said = re.fullmatch(r'"?sep=([,;|\t])"?[\r\n]*', text.readline(16), re.IGNORECASE)
    if said:
        return 1, said[1]

    def cells(delimiter: str) -> int:
        found = (cells for _, cells in _rows(source, encoding, delimiter) if _has_text(cells))
        try:
            return len(next(found, ()))
        except UnreadableFile:  # With another delimiter the quotes may be right.
            return 0

    return 0, max(DELIMITERS, key=cells)
