"""Read the parts of a workbook in Office Open XML (.xlsx, ECMA-376), a piece at a time: which sheets, which cells.

The packages that read workbooks were not fit: one gives an error such as #N/A as an empty cell, and one takes a minute
for 500,000 rows.
"""

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar
from xml.parsers import expat

import attrs
import msgspec

from service.exchange.sources import CHUNK, Measure, Source, directory
from service.exchange.unreadable import UnreadableFile

MOST_COLUMNS = 16384
"""The most columns that a sheet may have (ECMA-376-1, section 18.3.1.4, and Excel)."""
MOST_BYTES = 256 << 20
"""The most bytes of a part that stands in memory as a whole: the texts, the styles."""
MOST_BYTES_OF_SHEET = 2 << 30

# The namespace of Excel, and that of "Strict Open XML".
_NAMESPACES = (
    "http://schemas.openxmlformats.org/spreadsheetml/2006/main",
    "http://purl.oclc.org/ooxml/spreadsheetml/main",
)
_ESCAPED = re.compile("_x(?!D[89A-F])([0-9A-F]{4})_", re.IGNORECASE)
Attributes = Mapping[str, str]
F = TypeVar("F", bound=Callable[..., None])


class Cell(msgspec.Struct, frozen=True, gc=False):
    """What a sheet says of a cell."""

    kind: str
    """The cell's type, as in section 18.18.11: "n" for a number, "s" for a text that stands among the texts."""
    text: str | None
    """What stands in the cell; None for nothing."""
    style: str | None
    formula: bool


@attrs.frozen
class Sheet:
    """A sheet of a workbook."""

    name: str
    hidden: bool
    part: Source
    size: int
    """The bytes of the part."""


@attrs.frozen
class Workbook:
    """What all sheets of a workbook have in common."""

    sheets: Sequence[Sheet]
    texts: Source | None
    styles: Source | None
    from_1904: bool
    """Whether the first day is that of 1904, as it was on the Macintosh, and not that of 1900."""


def is_workbook(source: Source) -> bool:
    """Tell whether a zip is a workbook. Raises UnreadableFile for one of another kind."""
    names = {info.filename for info in directory(source)}
    if "mimetype" in names or names & {"xl/workbook.bin", "word/document.xml"}:
        raise UnreadableFile(f"{source.file} is not a workbook of the kind .xlsx: save it as .xlsx, or as CSV.")
    return "[Content_Types].xml" in names


def workbook(source: Source, measure: Measure) -> Workbook:
    """Read what is in a workbook. Raises UnreadableFile."""
    package = _Package(source, measure, frozenset(info.filename for info in directory(source)))
    main = package.related("").get("officeDocument", [("", "xl/workbook.xml")])[0][1]
    related = package.related(main)
    worksheets = dict(related.get("worksheet", ()))
    tags = _tags(package.part(main)[0])
    sheets = []
    for tag, attributes in tags:
        identity = next((value for name, value in attributes.items() if name.endswith("relationships id")), "")
        if tag == "sheet" and identity in worksheets:
            hidden = attributes.get("state", "visible") != "visible"
            part, size = package.part(worksheets[identity], MOST_BYTES_OF_SHEET)
            sheets.append(Sheet(attributes.get("name", ""), hidden, part, size))
    texts, styles = (
        package.part(related[kind][0][1])[0] if kind in related else None for kind in ("sharedStrings", "styles")
    )
    from_1904 = any(tag == "workbookPr" and found.get("date1904") in {"1", "true"} for tag, found in tags)
    return Workbook(sheets, texts, styles, from_1904)


@attrs.frozen
class _Package:
    """The parts of a workbook, which are the files in its zip."""

    source: Source
    measure: Measure
    names: frozenset[str]

    def part(self, name: str, most: int = MOST_BYTES) -> tuple[Source, int]:
        """Give a part and the number of its bytes. Raises UnreadableFile."""
        if name not in self.names:
            raise _damaged(self.source, f"{name} is missing")
        part = Source(self.source.file, self.source.path, name)
        size = self.measure.size(part)
        if size > most:
            raise UnreadableFile(f"{self.source.file} is too long ({name}): save each sheet of it as CSV.")
        return part, size

    def related(self, name: str) -> Mapping[str, Sequence[tuple[str, str]]]:
        """Give the parts that a part names, as their ids and names, by the last word of their type."""
        folder, file = posixpath.split(name)
        found: dict[str, list[tuple[str, str]]] = {}
        for _, attributes in _tags(self.part(posixpath.join(folder, "_rels", f"{file}.rels"))[0]):
            target = posixpath.normpath(posixpath.join("/", folder, attributes.get("Target", "")))
            kind = attributes.get("Type", "").rpartition("/")[2]
            found.setdefault(kind, []).append((attributes.get("Id", ""), target[1:]))
        return found


def _damaged(source: Source, why: object) -> UnreadableFile:
    return UnreadableFile(f"{source.file} is damaged ({why}): open it in a spreadsheet program, and save it again.")


def _parsed(
    source: Source,
    start: Callable[[str, Attributes], object],
    end: Callable[[str], object] | None = None,
    text: Callable[[str], object] | None = None,
) -> Iterator[None]:
    """Hand what stands in an XML part to functions, and give the control back after each piece of it."""

    def refuse(*_: object) -> None:
        raise ValueError("it declares a type of document")  # Which could make a short part a long one.

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    with source.open() as stream:
        while True:
            chunk = stream.read(CHUNK)
            try:
                parser.Parse(chunk, not chunk)
            except (expat.ExpatError, ValueError) as error:
                raise _damaged(source, error) from error
            yield
            if not chunk:
                return


def _tags(source: Source) -> Sequence[tuple[str, Attributes]]:
    """Give the tags in a part, without their namespaces, each with its attributes."""
    found: list[tuple[str, Attributes]] = []
    for _ in _parsed(source, lambda tag, attributes: found.append((tag.rpartition(" ")[2], attributes))):
        pass
    return found


def texts(source: Source) -> Sequence[str]:
    """Read the texts that cells name by their number."""
    found: list[str] = []
    pieces: list[str] = []
    reading = spoken = False

    def start(tag: str, _: Attributes) -> None:
        nonlocal reading, spoken
        name = tag.rpartition(" ")[2]
        if name == "si":
            pieces.clear()
        spoken = spoken or name == "rPh"  # How a Japanese text is pronounced is no part of the text.
        reading = name == "t" and not spoken

    def end(tag: str) -> None:
        nonlocal reading, spoken
        name = tag.rpartition(" ")[2]
        reading = False
        if name == "rPh":
            spoken = False
        if name == "si":
            found.append(unescaped("".join(pieces)))

    for _ in _parsed(source, start, end, lambda piece: pieces.append(piece) if reading else None):
        pass
    return found


def unescaped(text: str) -> str:
    """Give a text with the characters that XML cannot have, which are written as _x000D_ (section 22.9.2.19)."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text) if "_x" in text else text


def formats(source: Source) -> Mapping[str | None, tuple[str, str]]:
    """Give the number and the code of the format of each style of a cell; a format that is built in has no code."""
    codes: dict[str, str] = {}
    found: dict[str | None, tuple[str, str]] = {}
    inside = False
    for tag, attributes in _tags(source):
        if tag == "numFmt":
            codes[attributes.get("numFmtId", "")] = attributes.get("formatCode", "")
        inside = tag == "cellXfs" or (inside and tag != "cellStyles")
        if inside and tag == "xf":
            number = attributes.get("numFmtId", "0")
            found[str(len(found))] = (number, codes.get(number, ""))
    return found


def rows(sheet: Sheet) -> Iterator[tuple[int, Mapping[int, Cell]]]:
    """Read the rows of a sheet, each with its number from 1, and its cells by the column from 0."""
    reading = _Rows()
    for _ in _parsed(sheet.part, reading.start, reading.end, reading.text):
        yield from reading.rows
        reading.rows.clear()


class _Rows:
    """Collects the rows of a sheet as the parser comes by them."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, Mapping[int, Cell]]] = []
        self._line = 0
        self._in_value = False
        self._starts = _by_tag({"row": self._row, "c": self._cell, "v": self._value, "t": self._value, "f": self._f})
        self._ends = _by_tag({"row": self._end_row, "c": self._end_cell, "v": self._end_value, "t": self._end_value})

    def start(self, tag: str, attributes: Attributes) -> None:
        if tag in self._starts:
            self._starts[tag](attributes)

    def end(self, tag: str) -> None:
        if tag in self._ends:
            self._ends[tag]()

    def text(self, piece: str) -> None:
        if self._in_value:
            self._pieces.append(piece)

    def _row(self, attributes: Attributes) -> None:
        self._line = int(attributes.get("r", self._line + 1))
        self._column = -1
        self._cells: dict[int, Cell] = {}

    def _cell(self, attributes: Attributes) -> None:
        self._column = _column(attributes["r"].rstrip("0123456789")) if "r" in attributes else self._column + 1
        self._kind, self._style = attributes.get("t", "n"), attributes.get("s")
        self._pieces: list[str] = []
        self._has_value = self._has_formula = False

    def _value(self, _: Attributes) -> None:
        self._in_value = self._has_value = True

    def _f(self, _: Attributes) -> None:
        self._has_formula = True

    def _end_value(self) -> None:
        self._in_value = False

    def _end_cell(self) -> None:
        text = "".join(self._pieces) if self._has_value else None
        self._cells[self._column] = Cell(self._kind, text, self._style, self._has_formula)

    def _end_row(self) -> None:
        self.rows.append((self._line, self._cells))


def _by_tag(functions: Mapping[str, F]) -> Mapping[str, F]:
    return {f"{namespace} {name}": function for namespace in _NAMESPACES for name, function in functions.items()}


@lru_cache(MOST_COLUMNS)
def _column(letters: str) -> int:
    """Give the place of a column, from 0, by its letters. Raises ValueError."""
    number = 0
    for letter in letters:
        number = number * 26 + "ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(letter) + 1
    if not 0 < number <= MOST_COLUMNS:
        raise ValueError(f"it has a column {letters!r}")
    return number - 1
