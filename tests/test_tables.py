"""Text files and zips as schools send them: each is read as it was meant, or refused in a sentence that helps."""

import csv
import io
import itertools
import os
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.exchange.errors import UnreadableFile
from service.exchange.lookups import Lookups
from service.exchange.parts import Refused
from service.exchange.sources import MOST_MEMBERS, Measure, Source, members, opened
from service.exchange.tables import LONGEST_LINE, Record, Table, records, text_table

HEADER = ["external_id", "name"]
ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",  # The encoding writes its BOM itself.
    "utf-16-le": b"\xff\xfe",
    "utf-16-be": b"\xfe\xff",
    "cp1252": b"",
}


def table_of(path: Path) -> Table:
    """Read a text file as a table."""
    return text_table(opened(path), Measure(), loose=True)


def written(path: Path, content: bytes | str) -> Path:
    """Write a file."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows_of(table: Table) -> list[tuple[int, list[str]]]:
    """Give the line and the cells of each row."""
    columns = {str(place): place for place in range(len(table.header))}
    found = []
    for record in records(table, columns):
        assert isinstance(record, Record), record
        found.append((record.line, [record.cells.get(name, "") for name in columns]))
    return found


def refusal(path: Path) -> str:
    """Give the sentence with which a file is refused."""
    with pytest.raises(UnreadableFile) as caught:
        table_of(path)
    return str(caught.value)


CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from(' ",;\t\n\r'), max_size=8)
ACCENTED = st.text(st.sampled_from('aäöüßéÉñ ",;\t\n\r'), max_size=8)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_table_in_any_dialect(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """However a table is written, the same cells come back, each row with the line on which it begins.

    A space comes back for a break.
    """
    encoding = data.draw(st.sampled_from(list(ENCODINGS)))
    delimiter, newline = data.draw(st.sampled_from(",;\t")), data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    quotes_all = data.draw(st.booleans())
    width = data.draw(st.integers(2, 5))
    cells = ACCENTED if encoding == "cp1252" else CELLS
    table = data.draw(st.lists(st.lists(cells, min_size=width, max_size=width), max_size=6))
    blank = data.draw(st.sampled_from(["", newline, delimiter * (width - 1) + newline]))
    text = data.draw(st.sampled_from(["", f"sep={delimiter}{newline}"])) + blank
    expected = []
    for row in [[f"column {place}" for place in range(width)], *table]:
        line, piece = len(re.findall("\r\n|\r|\n", text)) + 1, io.StringIO(newline="")
        # Before Python 3.13 the module does not quote a cell because of another newline than its own.
        quotes: Literal[0, 1] = csv.QUOTE_ALL if quotes_all or re.search("[\r\n]", "".join(row)) else csv.QUOTE_MINIMAL
        csv.writer(piece, delimiter=delimiter, lineterminator=newline, quoting=quotes).writerow(row)
        text += piece.getvalue() + data.draw(st.sampled_from(["", blank]))
        if any(cell.strip() for cell in row):
            expected.append((line, [re.sub(r"\s*[\r\n]\s*", " ", cell).strip() for cell in row]))
    path = tmp_path_factory.getbasetemp() / "table.csv"
    found = table_of(written(path, ENCODINGS[encoding] + text.encode(encoding)))
    assert [*found.header] == expected[0][1]
    assert rows_of(found) == expected[1:]
    assert found.empty == (not expected[1:])
    assert found.size == path.stat().st_size
    assert list(found.notes) == [] or encoding == "cp1252"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_a_character_for_what_could_not_be_read(tmp_path: Path, encoding: str) -> None:
    """U+FFFD in a file is a character as others are: whoever wrote the file could not read something else."""
    path = written(
        tmp_path / "students.csv", ENCODINGS[encoding] + "external_id,name\n1,A\ufffda 😀\n".encode(encoding)
    )
    assert rows_of(table_of(path)) == [(2, ["1", "A\ufffda 😀"])]


@pytest.mark.parametrize(
    ("encoding", "delimiter", "newline"),
    [*itertools.product(ENCODINGS, ",;\t", ["\n", "\r\n", "\r"])],
)
def test_a_list_in_each_dialect(tmp_path: Path, encoding: str, delimiter: str, newline: str) -> None:
    """Names with accents, a break inside quotes, a blank row and no break at the end are read in every dialect."""
    lines: Sequence[list[str]] = (
        [" External ID ", "Name"],
        ["S1", '"Zoë\n""Zo"""'],
        [],
        ["S2\u00a0", " Çelik "],
        ["", ""],
        ["", "Ø"],
    )
    text = newline.join(delimiter.join(cells) for cells in lines)
    path = written(tmp_path / "students.csv", ENCODINGS[encoding] + text.encode(encoding))
    table = table_of(path)
    assert list(table.header) == ["External ID", "Name"]
    for _ in range(2):
        assert rows_of(table) == [(2, ["S1", 'Zoë "Zo"']), (5, ["S2", "Çelik"]), (7, ["", "Ø"])]
    assert [note.partition(":")[0] for note in table.notes] == [
        "students.csv is not in UTF-8 and was read as Windows-1252"
    ] * (encoding == "cp1252")


def test_rows_are_read_side_by_side(tmp_path: Path) -> None:
    """Two readers of one table do not disturb each other."""
    table = table_of(written(tmp_path / "a.csv", "external_id,name\n1,A\n2,B\n"))
    one, other = records(table, {"id": 0}), records(table, {"id": 0})
    assert [next(one), next(other), next(other), next(one)] == [
        Record(2, {"id": "1"}),
        Record(2, {"id": "1"}),
        Record(3, {"id": "2"}),
        Record(3, {"id": "2"}),
    ]


def test_too_many_and_too_few_cells(tmp_path: Path) -> None:
    """A row with a text too many is refused; empty cells too many, and cells too few, are none of the row's faults."""
    table = table_of(written(tmp_path / "a.csv", "external_id,name\n1,A,,\n2\n3,Byron,Ada\n4,D\n"))
    assert list(records(table, {"id": 0, "name": 1})) == [
        Record(2, {"id": "1", "name": "A"}),
        Record(3, {"id": "2"}),
        Refused(
            4,
            None,
            "Ada",
            "invalid_row",
            "The row has 3 cells, and the header has 2: put a cell into quotes if the character between the cells is "
            "in it.",
        ),
        Record(5, {"id": "4", "name": "D"}),
    ]


@pytest.mark.parametrize(
    ("content", "line", "word"),
    [
        (b"id,name\n1,Zo\xc3\xab\n2,\xe9", 3, "UTF-8"),
        (b"id,name\n1,\xe9\n2,Zo\xc3\xab\n", 2, "UTF-8"),
        (b"\xef\xbb\xbfid,name\n1,\xe9\n", 2, "UTF-8"),
        (b"id,name\r\n1,\xe9\r\n2,a\r3,\x81\r\n", 4, "Windows-1252"),
        (b"id,name\n1,a\n2,\0b\n", 3, "NUL"),
        ("id,name\n1,a\n".encode("utf-16-le"), 1, "NUL"),
        (b"\xff\xfe" + "id,name\n1,a\n".encode("utf-16-le")[:-1], 2, "UTF-16"),
        (b"\xfe\xff" + "id,name\n1,".encode("utf-16-be") + b"\xd8\x00\x00a", 2, "UTF-16"),
        ("id,name\n1,a\n".encode("utf-32"), 1, "NUL"),
        (b'id,name\n1,a\n2,"b\n3,c\n', 3, "quote"),
        (b'id,name\n1,a\n2,"b"c"\n', 3, "quote"),
        (b'id,name\n1,"a\nb"\n2,"' + b"b\n" * 70_000 + b'"\n', 4, "131,072"),
        (b"id,name\n1," + b"a" * 131_073 + b"\n", 2, "131,072"),
        (b"id,name\n1,a\n" + b"b" * (LONGEST_LINE + 1), 3, "characters"),
    ],
)
def test_a_file_that_nobody_can_read(tmp_path: Path, content: bytes, line: int, word: str) -> None:
    """What is wrong with a file as a whole is told with its name and the line, before any row is given."""
    said = refusal(written(tmp_path / "students.csv", content))
    assert re.search(rf"^students\.csv: .*\bline {line}\b", said), said
    assert word in said


@pytest.mark.parametrize("content", ["", "\n\n", ",,\n \n,,\n", " \t\n", "\ufeff", "sep=;\n"])
def test_an_empty_file(tmp_path: Path, content: str) -> None:
    """A file without any text is empty."""
    assert refusal(written(tmp_path / "a.csv", content)).startswith("a.csv is empty")


def test_a_file_with_a_header_only(tmp_path: Path) -> None:
    """A header without rows is a table, which says that it has none."""
    table = table_of(written(tmp_path / "a.csv", "external_id,name\n"))
    assert (table.empty, rows_of(table)) == (True, [])


def test_a_space_before_a_quote(tmp_path: Path) -> None:
    """People who write a list by hand put a space after a comma, which is no part of a cell in quotes."""
    table = table_of(written(tmp_path / "a.csv", 'id, "name"\n1, "Byron, Ada"\n2, Ada "the Great" Byron\n'))
    assert rows_of(table) == [(2, ["1", "Byron, Ada"]), (3, ["2", 'Ada "the Great" Byron'])]


def test_a_blank_row_of_another_delimiter(tmp_path: Path) -> None:
    """What stands between cells is no text, and so no header."""
    table = table_of(written(tmp_path / "a.csv", "\n;;;\nid,name\n1,A\n"))
    assert (list(table.header), rows_of(table)) == (["id", "name"], [(4, ["1", "A"])])


def test_one_column(tmp_path: Path) -> None:
    """A list of one column is a table; a quoted header may have what else is between cells."""
    assert rows_of(table_of(written(tmp_path / "a.csv", "id\n1\n"))) == [(2, ["1"])]
    assert list(table_of(written(tmp_path / "b.csv", '"a;b;c";"d,e"\n')).header) == ["a;b;c", "d,e"]


def test_a_file_that_changes(tmp_path: Path) -> None:
    """A file that is another one when its rows are read is refused then, and one that is gone too."""
    path = written(tmp_path / "a.csv", "external_id,name\n1,A\n")
    table = table_of(path)
    written(path, b"external_id,name\n1,\xe9\n")
    with pytest.raises(UnreadableFile, match=r"a\.csv was changed while it was read"):
        rows_of(table)
    path.unlink()
    with pytest.raises(UnreadableFile, match=r"a\.csv cannot be read: No such file"):
        rows_of(table)


def test_what_is_no_file(tmp_path: Path) -> None:
    """A folder, a pipe, a path that is not there and a workbook of an old kind are refused, each for what it is."""
    os.mkfifo(tmp_path / "pipe")
    written(tmp_path / "old.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512))
    for name, word in {
        "": "is a folder",
        "pipe": "is no regular file",
        "none.csv": "cannot be read: No such file",
        "old.xls": "save it as .xlsx",
        "a\0b": "null (byte|character)",
    }.items():
        with pytest.raises(UnreadableFile, match=word):
            opened(tmp_path / name)


def archive(path: Path, files: dict[str, Any], **more: Any) -> Path:
    """Write a zip."""
    with zipfile.ZipFile(path, "w", **more) as target:
        for name, content in files.items():
            target.writestr(name, content)
    return path


def patched(path: Path, change: Callable[[bytearray], object]) -> Path:
    """Change the bytes of a file."""
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    return path


def test_the_files_in_a_zip(tmp_path: Path) -> None:
    """A zip's files are read where they lie; what macOS adds is none of them."""
    files = {"a.csv": "id,name\n1,A\n", "__MACOSX/._a.csv": "\0", ".DS_Store": "x", "b.csv": "id,name\n2,B\n"}
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        found = members(opened(archive(tmp_path / "set.zip", files, compression=compression)))
        assert [source.file for source in found] == ["a.csv", "b.csv"]
        tables = [text_table(source, Measure(), loose=False) for source in found]
        assert [rows_of(table) for table in tables] == [[(2, ["1", "A"])], [(2, ["2", "B"])]]
        assert [table.size for table in tables] == [12, 12]


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"school/a.csv": "x"}, r"folder \('school/a.csv'\)"),
        ({"school/": ""}, "folder"),
        ({"../a.csv": "x"}, "folder"),
        ({"..": "x"}, "folder"),
        ({"a\\b.csv": "x"}, "folder"),
        ({f"{number}.csv": "x" for number in range(MOST_MEMBERS + 1)}, "has 101 files"),
    ],
)
def test_a_zip_that_is_refused(tmp_path: Path, files: dict[str, str], word: str) -> None:
    """Folders, and more files than an import takes, are refused without reading any."""
    with pytest.raises(UnreadableFile, match=word):
        members(opened(archive(tmp_path / "set.zip", files)))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_two_files_of_one_name(tmp_path: Path) -> None:
    """Of two files with one name nobody can tell which is meant."""
    path = archive(tmp_path / "set.zip", {"a.csv": "x"})
    with zipfile.ZipFile(path, "a") as target:
        target.writestr("a.csv", "y")
    with pytest.raises(UnreadableFile, match=r"two files with the name a\.csv"):
        members(opened(path))


def test_a_zip_packed_otherwise(tmp_path: Path) -> None:
    """A way to pack that can make terabytes of a few bytes, or a password, is refused."""
    with pytest.raises(UnreadableFile, match="packed in an uncommon way"):
        members(opened(archive(tmp_path / "a.zip", {"a.csv": "x"}, compression=zipfile.ZIP_LZMA)))
    path = patched(archive(tmp_path / "b.zip", {"a.csv": "x"}), flagged)
    with pytest.raises(UnreadableFile, match=r"a\.csv in it has a password"):
        members(opened(path))


def flagged(content: bytearray) -> None:
    """Say in the directory of a zip that its first file has a password."""
    content[content.index(b"PK\x01\x02") + 8] |= 1


def test_a_zip_in_a_zip(tmp_path: Path) -> None:
    """What is in a zip is not unpacked twice."""
    inner = archive(tmp_path / "inner.zip", {"a.csv": "x"}).read_bytes()
    (source,) = members(opened(archive(tmp_path / "set.zip", {"inner.csv": inner})))
    with pytest.raises(UnreadableFile, match=r"inner\.csv is a zip in a zip"):
        text_table(source, Measure(), loose=False)


def test_a_zip_that_holds_too_much(tmp_path: Path) -> None:
    """All files in zips have a bound together, which counts what comes out, and not what the directory says."""
    found = members(opened(archive(tmp_path / "set.zip", {"a.csv": "x" * 60, "b.csv": "x" * 60}, compression=8)))
    assert Measure(120).size(found[0]) == 60
    measure = Measure(100)
    measure.size(found[0])
    with pytest.raises(UnreadableFile, match=r"set\.zip has more than 2 GiB"):
        measure.size(found[1])
    assert Measure(0).size(Source("a", written(tmp_path / "loose.csv", "x"))) == 1


DAMAGES: Sequence[Callable[[bytearray], object]] = [
    lambda content: content.__delitem__(slice(-30, None)),
    lambda content: content.__setitem__(slice(40, 45), b"\xff\xff\xff\xff\xff"),
    lambda content: content.__setitem__(content.index(b"PK\x01\x02") + 24, 1),
    lambda content: content.__setitem__(content.index(b"PK\x01\x02") + 42, 7),
]


@pytest.mark.parametrize("change", DAMAGES)
def test_a_damaged_zip(tmp_path: Path, change: Callable[[bytearray], object]) -> None:
    """A zip that is cut off, or whose bytes or directory are wrong, is refused."""
    text = "".join(f"{number},name of {number * number}\n" for number in range(500))
    path = patched(archive(tmp_path / "set.zip", {"a.csv": text}, compression=8), change)
    with pytest.raises(UnreadableFile, match="is damaged"):
        [text_table(source, Measure(), loose=False) for source in members(opened(path))]


def test_a_zip_that_changes(tmp_path: Path) -> None:
    """A zip whose file is gone when its rows are read, or has another name there, is refused then."""
    path = archive(tmp_path / "set.zip", {"é.csv": "id,name\n1,A\n"})
    (source,) = members(opened(path))
    table = text_table(source, Measure(), loose=False)
    patched(path, lambda content: content.__setitem__(slice(30, 32), b"\xff\xff"))
    with pytest.raises(UnreadableFile, match=r"é\.csv is damaged"):
        rows_of(table)
    archive(path, {"b.csv": "id,name\n1,A\n"})
    with pytest.raises(UnreadableFile, match=r"é\.csv is damaged"):
        rows_of(table)


def test_a_folder_that_cannot_be_worked_in(tmp_path: Path) -> None:
    """What is looked up between files needs a folder that is there."""
    with (
        pytest.raises(UnreadableFile, match="none cannot be worked in"),
        Lookups(tmp_path / "none").use("x", lambda: ()),
    ):
        pass


def test_lookups(tmp_path: Path) -> None:
    """Of several values the first counts; a table is made once, and anew by another import, whatever lies there."""
    for value in ("1", "2"):
        lookups = Lookups(tmp_path)
        made: list[int] = []

        def pairs(value: str = value, made: list[int] = made) -> list[tuple[str, str]]:
            made.append(1)
            return [("", "none"), ("a", value), ("a", "other"), ("empty", "")]

        for _ in range(2):
            with lookups.use("x", pairs) as find, lookups.use("x", pairs) as again:
                assert [find("a"), again("a"), find("b"), find(""), find("empty")] == [value, value, None, None, ""]
        assert made == [1]
