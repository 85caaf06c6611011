"""Workbooks: a cell is read as people see it, and what nobody can see is refused."""

import subprocess
import sys
import zipfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from conftest import ROOT
from openpyxl.styles import numbers
from school_files import workbook, written
from test_formats import rows, values
from test_tables import archive

from service.exchange.errors import UnreadableFile
from service.exchange.formats import read
from service.exchange.parts import Refused, Row

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
STRICT = "http://purl.oclc.org/ooxml/spreadsheetml/main"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
SHEET = "xl/worksheets/sheet1.xml"
FORMATS = ("General", "00000", "yyyy\\-mm\\-dd", '"day" 0', "[h]:mm", "[Red]0.00")


def relations(*found: tuple[str, str, str]) -> str:
    """Give a part that names others, each by its id, its type and its name."""
    return "".join(
        [
            "<Relationships>",
            *(f'<Relationship Id="{id}" Type="{RELATIONS}/{kind}" Target="{name}"/>' for id, kind, name in found),
            "</Relationships>",
        ]
    )


def package(
    path: Path, rows: str, namespace: str = MAIN, more: str = "", changed: Mapping[str, str | None] | None = None
) -> Path:
    """Write a workbook with one sheet of students by its XML; a part may be another, or with None not there."""
    codes = "".join(
        f'<numFmt numFmtId="{200 + place}" formatCode="{code.replace(chr(34), "&quot;")}"/>'
        for place, code in enumerate(FORMATS)
    )
    styles = "".join(f'<xf numFmtId="{200 + place}"/>' for place in range(len(FORMATS)))
    parts: dict[str, str | None] = {
        "[Content_Types].xml": "<Types/>",
        "_rels/.rels": relations(("a", "officeDocument", "xl/workbook.xml")),
        "xl/workbook.xml": f'<workbook xmlns="{namespace}" xmlns:r="{RELATIONS}">{more}<sheets>'
        '<sheet name="Students" r:id="s1"/><sheet name="Chart" r:id="s2"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": relations(
            ("s1", "worksheet", "worksheets/sheet1.xml"),
            ("s2", "chartsheet", "chartsheets/sheet1.xml"),
            ("s3", "sharedStrings", "sharedStrings.xml"),
            ("s4", "styles", "styles.xml"),
        ),
        "xl/sharedStrings.xml": f'<sst xmlns="{namespace}"><si><t>external_id</t></si><si><r><t>na</t></r>'
        "<r><t>me</t></r><rPh><t>ナ</t></rPh></si><si><t>Ada_x000D_B</t></si></sst>",
        "xl/styles.xml": f'<styleSheet xmlns="{namespace}"><numFmts>{codes}</numFmts><cellStyleXfs><xf numFmtId="14"/>'
        f'</cellStyleXfs><cellXfs>{styles}<xf/><xf numFmtId="14"/></cellXfs><cellStyles/></styleSheet>',
        SHEET: f'<worksheet xmlns="{namespace}"><sheetData><row r="2"><c t="s" r="B2"><v>0</v></c>'
        f'<c r="C2" t="s"><v>1</v></c></row>{rows}</sheetData></worksheet>',
    }  # fmt: skip
    return archive(path, {name: text for name, text in (parts | dict(changed or {})).items() if text is not None})


def cells(*found: str) -> str:
    """Give the XML of rows from the third on, each with the external id 7, and a cell for the name."""
    placed = (cell.replace("<c", f'<c r="C{line}"', 1) for line, cell in enumerate(found, 3))
    return "".join(f'<row r="{line}"><c r="B{line}"><v>7</v></c>{cell}</row>' for line, cell in enumerate(placed, 3))


def names(path: Path) -> list[Any]:
    """Give what becomes of the cells for the name: a text, or the value that is refused and why."""
    found = read([path], work=path.parent)
    assert found.notes == []
    return [
        row.values.get("name") if isinstance(row, Row) else (row.value, row.column) if isinstance(row, Refused) else row
        for row in rows(found, "students")
    ]


@pytest.mark.parametrize("namespace", [MAIN, STRICT])
def test_each_kind_of_cell(tmp_path: Path, namespace: str) -> None:
    """Whole numbers, texts, truths, days and times are read as people see them."""
    wanted = {
        "<c><v>12</v></c>": "12",
        "<c><v>12.0</v></c>": "12",
        "<c><v>1.5</v></c>": "1.5",
        '<c s="5"><v>0.30000000000000004</v></c>': "0.3",
        "<c><v>-3</v></c>": "-3",
        '<c s="0"><v>1E3</v></c>': "1000",
        '<c s="1"><v>123</v></c>': "123",
        '<c s="2"><v>46266</v></c>': "2026-09-01",
        '<c s="7"><v>46266.354166666664</v></c>': "2026-09-01T08:30:00",
        '<c s="7"><v>0.5</v></c>': "12:00:00",
        '<c s="4"><v>0.5</v></c>': "12:00:00",
        '<c s="3"><v>5</v></c>': "5",
        '<c t="s"><v>2</v></c>': "Ada B",
        '<c t="str"><f>"a"</f><v>a_x0041_</v></c>': "aA",
        '<c t="inlineStr"><is><t> Ada </t></is></c>': "Ada",
        '<c t="b"><v>1</v></c>': "true",
        '<c t="b"><v>0</v></c>': "false",
        '<c t="d"><v>2026-09-01</v></c>': "2026-09-01",
        '<c t="n"/>': None,
        "<c><v></v></c>": None,
        '<c t="str"><f>""</f><v></v></c>': None,
        '<c t="inlineStr"><is><t>an e is t="e"</t></is></c>': 'an e is t="e"',
        "": None,
    }
    path = package(tmp_path / "a.xlsx", cells(*wanted), namespace)
    assert names(path) == list(wanted.values())


def test_cells_that_nobody_can_read(tmp_path: Path) -> None:
    """Errors, formulas without a result, and numbers that have lost digits are refused, each in its row."""
    wanted = {
        '<c t="e"><f>1/0</f><v>#DIV/0!</v></c>': "#DIV/0!",
        '<c s="1" t="e"><v>#N/A</v></c>': "#N/A",
        '<c t="e" s="1"><v>#NAME?</v></c>': "#NAME?",
        "<c><f>A1</f></c>": "#RESULT!",
        '<c s="1"><f>A1</f><v></v></c>': "#RESULT!",
        '<c><f t="shared" si="0"/><v /></c>': "#RESULT!",
        "<c><v>1.2345678901234568E+17</v></c>": "123456789012345680",
        "<c><v>1e999</v></c>": "inf",
    }
    path = package(tmp_path / "a.xlsx", cells(*wanted))
    assert names(path) == [(value, "name") for value in wanted.values()]
    refused = rows(read([path], work=tmp_path), "students")
    assert [row.line for row in refused] == [*range(3, 3 + len(wanted))]
    details = [row.detail for row in refused if isinstance(row, Refused)]
    assert details[0] == "The cell has the error #DIV/0!: mend it, or clear it."
    assert details[3] == "The formula has no result: save the file in a spreadsheet program first."
    assert details[6].startswith("The number has more digits than a spreadsheet keeps")


def test_days_from_1904(tmp_path: Path) -> None:
    """Workbooks of the Macintosh count the days from another one."""
    path = package(tmp_path / "a.xlsx", cells('<c s="7"><v>44804</v></c>'), more='<workbookPr date1904="1"/>')
    assert names(path) == ["2026-09-01"]


def test_cells_beyond_the_header(tmp_path: Path) -> None:
    """A text in a column without a name is none of the table's; one beyond all names is refused, and an error not."""
    none = '<c r="E6"/><c t="str" r="F6"><f>""</f><v></v></c>'
    tall = '<row r="3"><c r="A3"><v>1</v></c><c r="B3"><v>7</v></c></row><row r="4"><c r="B4"><v>8</v></c>'
    path = package(tmp_path / "a.xlsx", f'{tall}<c t="e" r="F4"><v>#N/A</v></c></row><row r="6">{none}</row>')
    found = rows(read([path], work=tmp_path), "students")
    assert found[0] == Row(3, {"external_id": "7"})
    assert isinstance(found[1], Refused)
    assert (found[1].line, found[1].value, len(found)) == (4, "#N/A", 2)


def test_an_error_in_the_header(tmp_path: Path) -> None:
    """A header with an error is no header."""
    with pytest.raises(UnreadableFile, match=r"a.xlsx \(Students\): row 5 should have the names of the columns"):
        read(
            [package(tmp_path / "a.xlsx", "", changed={SHEET: sheet('<c r="B5" t="e"><v>#REF!</v></c>')})],
            work=tmp_path,
        )


def sheet(cells: str) -> str:
    """Give a sheet with one row of cells."""
    return f'<worksheet xmlns="{MAIN}"><sheetData><row>{cells}</row></sheetData></worksheet>'


DAMAGES: list[dict[str, str | None]] = [
    {SHEET: f'<worksheet xmlns="{MAIN}"><sheetData><row><c r="A1">'},
    {SHEET: None},
    {SHEET: "\0".join(sheet('<c r="A1"><v>1</v></c>'))},  # In UTF-16, of which calamine reads nothing.
    {"_rels/.rels": None},
    {"_rels/.rels": "<Relationships/>", "xl/workbook.xml": None},
    {SHEET: sheet('<c r="A1" t="s"><v>3</v></c>')},
    {SHEET: sheet('<c r="A1"><v>1</v></c><c><v>2</v></c>')},
    {SHEET: sheet('<c r="A1" r="XFD1048576"><v>1</v></c>')},
    {SHEET: sheet('<c r="ABCD1"><v>1</v></c>')},
    {SHEET: sheet('<c r="1"><v>1</v></c>')},
    {SHEET: sheet('<c r="A1" s="4"><v>1e300</v></c>')},  # A duration.
    {SHEET: sheet('<c r="A1" s="2"><v>-1e18</v></c>')},  # A day, for which calamine panics.
]


@pytest.mark.parametrize("changed", DAMAGES)
def test_a_damaged_workbook(tmp_path: Path, changed: dict[str, str | None]) -> None:
    """A workbook of which a part is missing or wrong is refused."""
    with pytest.raises(UnreadableFile, match=r"a\.xlsx is damaged \(.*\): open it in a spreadsheet program"):
        read([package(tmp_path / "a.xlsx", cells(""), changed=changed)], work=tmp_path)


def test_a_workbook_with_a_password_on_its_parts(tmp_path: Path) -> None:
    """A part that the zip says to be encrypted cannot be read."""
    path = package(tmp_path / "a.xlsx", cells(""))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    content[6] |= 1
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match=r"Content_Types.* is encrypted"):
        read([path], work=tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("honest", [True, False])
def test_too_long_a_workbook(tmp_path: Path, honest: bool) -> None:
    """A workbook that does not fit into the memory is refused, whatever the directory of its zip says."""
    path = package(tmp_path / "a.xlsx", cells(""))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as book:
        book.writestr("xl/long.xml", b" " * ((256 << 20) + 1))
        if not honest:
            book.getinfo("xl/long.xml").file_size = 1
    error = (
        "has more than 256 MiB once it is unpacked, which is too much: save each sheet of it as CSV"
        if honest
        else "is damaged"
    )
    with pytest.raises(UnreadableFile, match=error):
        read([path], work=tmp_path)


@pytest.mark.parametrize("place", ["XFD1048576", "I1048577", "CWH3242"])
def test_too_wide_a_sheet(tmp_path: Path, place: str) -> None:
    """One cell far away makes a sheet of so many cells that no memory has room for them."""
    path = package(tmp_path / "a.xlsx", f'<row r="4"><c r="{place}" s="1"><v>1</v></c></row>')
    with pytest.raises(UnreadableFile, match="has more than 8,388,608 cells, the empty ones before the last"):
        read([path], work=tmp_path)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without python-calamine, a workbook is refused with what to install."""
    monkeypatch.setitem(sys.modules, "python_calamine", None)  # So that it cannot be imported.
    path = workbook(tmp_path / "a.xlsx", {"students": [["external_id"], ["S1"]]})
    with pytest.raises(UnreadableFile, match=r"run pip install '\.\[xlsx\]', or save it as CSV"):
        read([path], work=tmp_path)


def test_the_package_is_loaded_for_a_workbook_only(tmp_path: Path) -> None:
    """Who has texts only loads nothing of calamine."""
    written(tmp_path, {"students.csv": [["external_id"], ["S1"]]})
    script = f"""
import sys
from pathlib import Path
from service.exchange.formats import read
folder = Path({str(tmp_path)!r})
read([folder / "students.csv"], work=folder)
print("python_calamine" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


@pytest.mark.parametrize("name", ["mimetype", "xl/workbook.bin", "word/document.xml"])
def test_other_documents(tmp_path: Path, name: str) -> None:
    """A spreadsheet of another kind, or a letter, is refused for what it is."""
    path = archive(tmp_path / "a.ods", {name: "x", "[Content_Types].xml": "x"})
    with pytest.raises(UnreadableFile, match=r"a\.ods is not a workbook of the kind \.xlsx"):
        read([path], work=tmp_path)


def test_a_workbook_of_a_spreadsheet_program(tmp_path: Path) -> None:
    """Sheets that are hidden, empty or for something else are left out; days and numbers are as in the cells."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Terms 2026"
    day = date(2026, 9, 1)
    for row in (
        [None, None, None],
        [None, "External ID", "starts on", "Name"],
        [None, 2026, day, "Autumn"],
        [],
        [None, None, None, 1],
    ):
        sheet.append(row)
    sheet["C3"].number_format = numbers.FORMAT_DATE_XLSX14
    book.create_sheet("Tabelle2")
    hidden = book.create_sheet("Old")
    hidden["A1"] = "external_id"
    hidden.sheet_state = "hidden"
    book.create_sheet("Notes")["A1"] = "Ask Ada"
    book.save(tmp_path / "school.xlsx")
    found = read([tmp_path / "school.xlsx"], work=tmp_path)
    assert values(found, "terms") == [{"external_id": "2026", "starts_on": "2026-09-01", "name": "Autumn"}]
    (_, total) = rows(found, "terms")
    assert isinstance(total, Refused)
    assert (total.line, total.column) == (5, "External ID")
    assert found.notes == ["school.xlsx (Old), which is hidden, and school.xlsx (Notes) were left out."]


def test_a_workbook_beside_texts(tmp_path: Path) -> None:
    """A workbook and other files are one import."""
    files = written(tmp_path, {"courses.csv": [["external_id", "level"], ["C1", "A"]]})
    path = workbook(tmp_path / "a.xlsx", {"x": [["external_id", "email"], ["S1", "a@b"]]})
    found = read([path, *files], work=tmp_path)
    assert [(part.kind, part.file) for part in found.parts] == [("courses", "courses.csv"), ("students", "a.xlsx (x)")]
