"""Workbooks: a cell is read as people see it, and what nobody can see is refused."""

import zipfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from openpyxl.styles import numbers
from school_files import workbook, written
from test_formats import rows, values
from test_tables import archive

from service.exchange.formats import read
from service.exchange.parts import Refused, Row
from service.exchange.unreadable import UnreadableFile

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
STRICT = "http://purl.oclc.org/ooxml/spreadsheetml/main"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
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
            ("s1", "worksheet", "sheets/one.xml"),
            ("s2", "chartsheet", "sheets/two.xml"),
            ("s3", "sharedStrings", "/xl/texts.xml"),
            ("s4", "styles", "styles.xml"),
        ),
        "xl/texts.xml": f'<sst xmlns="{namespace}"><si><t>external_id</t></si><si><r><t>na</t></r><r><t>me</t></r>'
        "<rPh><t>ナ</t></rPh></si><si><t>Ada_x000D_B</t></si></sst>",
        "xl/styles.xml": f'<styleSheet xmlns="{namespace}"><numFmts>{codes}</numFmts><cellStyleXfs><xf numFmtId="14"/>'
        f'</cellStyleXfs><cellXfs>{styles}<xf/><xf numFmtId="14"/></cellXfs><cellStyles/></styleSheet>',
        "xl/sheets/one.xml": f'<worksheet xmlns="{namespace}"><sheetData><row/><row r="2"><c t="s" r="B2"><v>0</v></c>'
        f'<c t="s"><v>1</v></c></row>{rows}</sheetData></worksheet>',
    }  # fmt: skip
    return archive(path, {name: text for name, text in (parts | dict(changed or {})).items() if text is not None})


def cells(*found: str) -> str:
    """Give the XML of a row with the number 3, an external id, and some cells for the name."""
    return "".join(
        f'<row r="{3 + place}"><c r="B{3 + place}"><v>7</v></c>{cell}</row>' for place, cell in enumerate(found)
    )


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
    """Numbers, texts, truths and dates are read as people see them."""
    wanted = {
        '<c r="C3"><v>12</v></c>': "12",
        '<c r="C3"><v>12.0</v></c>': "12",
        "<c><v>1.5</v></c>": "1.5",
        '<c s="5"><v>0.30000000000000004</v></c>': "0.3",
        "<c><v>-3</v></c>": "-3",
        "<c><v>123456789012345678</v></c>": "123456789012345678",
        '<c s="0"><v>1E3</v></c>': "1000",
        '<c s="1"><v>123</v></c>': "00123",
        '<c s="2"><v>46266</v></c>': "2026-09-01",
        '<c s="7"><v>46266.354166666664</v></c>': "2026-09-01T08:30:00",
        '<c s="7"><v>0.5</v></c>': "12:00:00",
        '<c s="3"><v>5</v></c>': "5",
        '<c s="6"><v>5</v></c>': "5",
        '<c s="99"><v>5</v></c>': "5",
        '<c t="s"><v>2</v></c>': "Ada\rB",
        '<c t="str"><f>"a"</f><v>a_x0041_</v></c>': "aA",
        '<c t="str"><v>_xD800_x</v></c>': "_xD800_x",
        '<c t="inlineStr"><is><t> Ada </t></is></c>': "Ada",
        '<c t="b"><v>1</v></c>': "TRUE",
        '<c t="b"><v>0</v></c>': "FALSE",
        '<c t="d"><v>2026-09-01</v></c>': "2026-09-01",
        '<c t="n"/>': None,
        "<c><v></v></c>": None,
        '<c t="str"><f>""</f><v></v></c>': None,
        "": None,
    }
    path = package(tmp_path / "a.xlsx", cells(*wanted), namespace)
    assert names(path) == list(wanted.values())


def test_cells_that_nobody_can_read(tmp_path: Path) -> None:
    """Errors, formulas without a result, numbers that have lost digits, and dates without a day are refused."""
    wanted = {
        '<c t="e"><f>1/0</f><v>#DIV/0!</v></c>': "#DIV/0!",
        "<c><f>A1</f></c>": None,
        "<c><v>1.2345678901234568E+17</v></c>": "1.2345678901234568E+17",
        "<c><v>x</v></c>": "x",
        "<c><v>1e999</v></c>": "1e999",
        "<c><f>A1</f><v></v></c>": "",
        '<c s="2"><v>4000000</v></c>': "4000000",
        '<c s="2"><v>-800000</v></c>': "-800000",
        '<c t="s"><v>3</v></c>': "3",
        '<c t="s"><v>-1</v></c>': "-1",
    }
    path = package(tmp_path / "a.xlsx", cells(*wanted))
    assert names(path) == [(value, "name") for value in wanted.values()]
    refused = rows(read([path], work=tmp_path), "students")
    assert [row.line for row in refused] == [*range(3, 3 + len(wanted))]
    details = [row.detail for row in refused if isinstance(row, Refused)]
    assert details[0] == "The cell has the error #DIV/0!: mend it, or clear it."
    assert details[2].startswith("The number has more digits than a spreadsheet keeps")


def test_days_from_1904(tmp_path: Path) -> None:
    """Workbooks of the Macintosh count the days from another one."""
    path = package(tmp_path / "a.xlsx", cells('<c s="7"><v>44804</v></c>'), more='<workbookPr date1904="1"/>')
    assert names(path) == ["2026-09-01"]


def test_a_workbook_without_texts_and_styles(tmp_path: Path) -> None:
    """What a workbook need not have may be missing."""
    other = relations(("s1", "worksheet", "sheets/one.xml"))
    top = '<row><c t="str"><v>external_id</v></c></row>'
    sheet = f'<worksheet xmlns="{MAIN}">{top}<row><c><v>1</v></c><c/></row></worksheet>'
    path = package(
        tmp_path / "Students.xlsx", "", changed={"xl/_rels/workbook.xml.rels": other, "xl/sheets/one.xml": sheet}
    )
    found = read([path], work=tmp_path)
    assert rows(found, "students") == [Row(2, {"external_id": "1"})]


def test_cells_beyond_the_header(tmp_path: Path) -> None:
    """A text in a column without a name is none of the table's; one beyond all names is refused, and an error not."""
    tall = '<row r="3"><c r="A3"><v>1</v></c><c r="B3"><v>7</v></c></row><row r="4"><c r="B4"><v>8</v></c>'
    path = package(tmp_path / "a.xlsx", f'{tall}<c r="F4" t="e"><v>#N/A</v></c></row><row r="6"><c r="F6"/></row>')
    found = rows(read([path], work=tmp_path), "students")
    assert found[0] == Row(3, {"external_id": "7"})
    assert isinstance(found[1], Refused)
    assert (found[1].line, found[1].value, len(found)) == (4, "#N/A", 2)


def test_an_error_in_the_header(tmp_path: Path) -> None:
    """A header with an error is no header."""
    sheet = f'<worksheet xmlns="{MAIN}"><row r="5"><c t="e"><v>#REF!</v></c></row></worksheet>'
    with pytest.raises(UnreadableFile, match=r"a.xlsx \(Students\): row 5 should have the names of the columns"):
        read([package(tmp_path / "a.xlsx", "", changed={"xl/sheets/one.xml": sheet})], work=tmp_path)


DAMAGES: list[dict[str, str | None]] = [
    {"xl/sheets/one.xml": "<worksheet>"},
    {"xl/sheets/one.xml": None},
    {"_rels/.rels": None},
    {"_rels/.rels": "<Relationships/>", "xl/workbook.xml": None},
    {"xl/texts.xml": "<!DOCTYPE sst [<!ENTITY a 'a'>]><sst/>"},
    {"xl/sheets/one.xml": f'<worksheet xmlns="{MAIN}"><row r="x"/></worksheet>'},
    {"xl/sheets/one.xml": f'<worksheet xmlns="{MAIN}"><row><c r="ABCD1"><v>1</v></c></row></worksheet>'},
    {"xl/sheets/one.xml": f'<worksheet xmlns="{MAIN}"><row><c r="é1"><v>1</v></c></row></worksheet>'},
    {"xl/sheets/one.xml": f'<worksheet xmlns="{MAIN}"><row><c r="1"><v>1</v></c></row></worksheet>'},
]


@pytest.mark.parametrize("changed", DAMAGES)
def test_a_damaged_workbook(tmp_path: Path, changed: dict[str, str | None]) -> None:
    """A workbook of which a part is missing or wrong is refused."""
    with pytest.raises(UnreadableFile, match=r"a\.xlsx is damaged \(.*\): open it in a spreadsheet program"):
        read([package(tmp_path / "a.xlsx", cells(""), changed=changed)], work=tmp_path)


def test_too_long_a_part(tmp_path: Path) -> None:
    """Texts that do not fit into the memory are refused before they are read."""
    path = tmp_path / "a.xlsx"
    package(path, cells(""))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as book, pytest.warns(UserWarning, match="Duplicate name"):
        book.writestr("xl/texts.xml", b" " * ((256 << 20) + 1))
    with pytest.raises(UnreadableFile, match=r"a.xlsx is too long \(xl/texts.xml\)"):
        read([path], work=tmp_path)


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
