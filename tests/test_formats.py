"""The formats of a school's files: which is meant, and what becomes of each row."""

import contextlib
import itertools
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from school_files import canvas_set, messy, taken, workbook, written, zipped
from test_tables import archive

from service.exchange.errors import UnreadableFile
from service.exchange.formats import read
from service.exchange.parts import Found, Part, Refused, Row, Skipped
from service.exchange.shapes import FormatName

ENROLLMENTS = [["student_external_id", "course_external_id"], ["S1", "C1"]]


@pytest.fixture
def found(tmp_path: Path) -> Any:
    """Give the function that reads tables, each written as a file of its own."""

    def find(tables: dict[str, Iterable[Sequence[object]]], format: FormatName | None = None) -> Found:
        return read(written(tmp_path, tables), format, work=tmp_path)

    return find


@pytest.fixture
def refused(tmp_path: Path) -> Any:
    """Give the function that gives the sentence with which tables are refused."""

    def refuse(tables: dict[str, Iterable[Sequence[object]]], format: FormatName | None = None) -> str:
        with pytest.raises(UnreadableFile) as caught:
            read(written(tmp_path, tables), format, work=tmp_path)
        return str(caught.value)

    return refuse


def kinds(found: Found) -> list[tuple[str, str]]:
    """Give the kind and the file of each part."""
    return [(part.kind, part.file) for part in found.parts]


def rows(found: Found, kind: str) -> list[Row | Skipped | Refused]:
    """Read all rows of a kind, twice, and give what becomes of each."""
    parts = [part for part in found.parts if part.kind == kind]
    one, other = ([row for part in parts for row in part.rows()] for _ in range(2))
    assert one == other
    return one


def values(found: Found, kind: str) -> list[dict[str, str | None]]:
    """Give the values of all rows of a kind, each of which can be taken."""
    return [dict(row.values) for row in rows(found, kind) if isinstance(row, Row)]


def whys(found: Found, kind: str) -> list[tuple[int, str]]:
    """Give the lines that are skipped or refused, with the reason."""
    return [
        (row.line, row.why if isinstance(row, Skipped) else f"{row.column}={row.value}: {row.detail}")
        for row in rows(found, kind)
        if not isinstance(row, Row)
    ]


# The API's own names.

OURS: dict[str, list[list[str]]] = {
    "enrollments.csv": [
        ["Student External ID", "course-external-id", "Action"],
        ["S1", "C1", "Drop"],
        ["S2", "C1", ""],
    ],
    "courses.csv": [
        ["external_id", "name", "level", "capacity", "term_external_id", "opens_at", "availability", "id"],
        ["C1", "Algebra", "A1", "30", "T1", "2026-09-01T08:00:00Z", "open", "7"],
    ],
    "students.csv": [["name", "external_id", "E-Mail", "id"], ["Ada", "S1", "a@b", "1"], ["Bo", "S2", "", "2"]],
    "terms.csv": [["external_id", "name", "starts_on", "ends_on"], ["T1", "Autumn", "2026-09-01", "2027-01-31"]],
}
STUDENTS = [{"name": "Ada", "external_id": "S1", "email": "a@b"}, {"name": "Bo", "external_id": "S2"}]


@pytest.mark.parametrize("way", ["loose", "zip", "workbook"])
def test_our_own_columns(tmp_path: Path, way: str) -> None:
    """All four files are read, loose, in a zip or as sheets, in the order of an import, and without a note."""
    match way:
        case "loose":
            files = written(tmp_path, OURS)
        case "zip":
            files = [zipped(tmp_path / "school.zip", OURS)]
        case _:
            files = [workbook(tmp_path / "school.xlsx", {name.removesuffix(".csv"): OURS[name] for name in OURS})]
    found = read(files, work=tmp_path)
    assert (found.format, found.notes) == ("csv", [])
    assert [part.kind for part in found.parts] == ["terms", "courses", "students", "enrollments"]
    names = [f"school.xlsx ({part.kind})" if way == "workbook" else f"{part.kind}.csv" for part in found.parts]
    assert [part.file for part in found.parts] == names
    assert all(part.size > 20 for part in found.parts)
    assert values(found, "students") == STUDENTS
    assert values(found, "courses") == [
        {
            "external_id": "C1",
            "name": "Algebra",
            "level": "A1",
            "capacity": "30",
            "term_external_id": "T1",
            "opens_at": "2026-09-01T08:00:00Z",
        }
    ]
    assert values(found, "terms") == [
        {"external_id": "T1", "name": "Autumn", "starts_on": "2026-09-01", "ends_on": "2027-01-31"}
    ]
    assert rows(found, "enrollments") == [
        Row(2, {"student_external_id": "S1", "course_external_id": "C1", "action": "drop"}),
        Row(3, {"student_external_id": "S2", "course_external_id": "C1", "action": "enroll"}),
    ]
    columns = {part.kind: part.columns for part in found.parts}
    assert columns["students"] == {"external_id": "external_id", "name": "name", "email": "E-Mail"}
    assert columns["enrollments"] == {
        "student_external_id": "Student External ID",
        "course_external_id": "course-external-id",
        "action": "Action",
    }


def test_an_exported_roster_comes_back(found: Any) -> None:
    """A status is what an enrollment says; where both ids stand, the school's own counts; an action goes before it."""
    header = ["student_id", "student_external_id", "course_id", "course_external_id", "status", "position", "action"]
    set_ = found(
        {
            "enrollments.csv": [
                header,
                ["1", "S1", "1", "C1", "enrolled", "", ""],
                ["2", "", "1", "", "WAITLISTED", "3", ""],
                ["3", "S3", "1", "C1", "enrolled", "", "drop"],
                ["4", "", "", "", "enrolled", "", ""],
                ["", "", "1", "", "enrolled", "", ""],
                ["5", "", "1", "", "gone", "", ""],
            ]
        }
    )
    assert set_.notes == []
    assert values(set_, "enrollments") == [
        {"student_external_id": "S1", "course_external_id": "C1", "action": "enroll"},
        {"student_id": "2", "course_id": "1", "action": "enroll"},
        {"student_external_id": "S3", "course_external_id": "C1", "action": "drop"},
    ]
    assert [(line, why.partition(":")[0]) for line, why in whys(set_, "enrollments")] == [
        (5, "course_external_id=None"),
        (6, "student_external_id=None"),
        (7, "status=gone"),
    ]
    assert whys(set_, "enrollments")[0][1].endswith(
        ": The row has nothing in course_external_id or course_id: fill the cell, or take the row out."
    )
    assert set_.parts[0].columns["action"] == "action"


def test_one_term_of_two_ids(found: Any) -> None:
    """A course with both ids of its term is in the one that the school has named."""
    header = ["external_id", "level", "term_id", "term_external_id"]
    set_ = found({"x.csv": [header, ["C1", "A", "7", "T1"], ["C2", "A", "7", ""]]})
    assert values(set_, "courses") == [
        {"external_id": "C1", "level": "A", "term_external_id": "T1"},
        {"external_id": "C2", "level": "A", "term_id": "7"},
    ]


@pytest.mark.parametrize(
    ("file", "header", "kind"),
    [
        ("list.csv", ["external_id", "email", "name"], "students"),
        ("list.csv", ["external_id", "name", "starts_on"], "terms"),
        ("list.csv", ["external_id", "name", "level"], "courses"),
        ("list.csv", ["external_id", "name", "level", "term_id"], "courses"),  # A term of Canvas has two of them.
        ("courses.csv", ["term_id", "external_id", "name"], "courses"),
        ("2026 Students (1).csv", ["external_id", "name"], "students"),
        ("our terms.txt", ["external_id", "name"], "terms"),
        ("students.csv", ["student_id", "course_external_id"], "enrollments"),
        ("students in courses.csv", ["external_id", "given_name"], "students"),
    ],
)
def test_the_kind_of_a_file(found: Any, file: str, header: list[str], kind: str) -> None:
    """The columns tell what the rows are, and the file's name where the columns do not."""
    assert kinds(found({file: [header, ["1"] * len(header)]})) == [(kind, file)]


@pytest.mark.parametrize(
    ("file", "header", "words"),
    [
        ("list.csv", ["external_id", "name"], "list.csv may be terms or courses or students by its columns"),
        ("list.csv", ["external_id", "name"], "Name it terms or courses or students (over HTTP with file_name), or"),
        (
            "students.csv",
            ["external_id", "name", "level"],
            "may be courses by its columns, which are external_id, name",
        ),
        (
            "students.csv",
            ["name", "email"],
            "students.csv lacks what students need in the format csv: the column exter",
        ),
        (
            "students.csv",
            ["Our list", "", "2026"],
            "Its columns are Our list and 2026. Rename the columns",
        ),
        ("x.csv", ["externalid2", "email"], "Is externalid2 meant for external_id?"),
        ("enrollments.csv", ["student", "course_id"], "the column student_external_id or student_id. Its columns are"),
        ("enrollments.csv", ["foo", "bar"], "the columns student_external_id or student_id and course_external_id or"),
        ("x.csv", ["external_id", "email", "External ID"], "two columns for external_id, 'external_id' and 'External"),
        ("x.csv", [f"column {number}" for number in range(40)], "column 29 and 10 more. Rename"),
        (
            "users.csv",
            ["user", "login_id", "first_name", "last_name"],
            "what users need in the format canvas: the colu",
        ),
    ],
)
def test_columns_that_are_refused(refused: Any, file: str, header: list[str], words: str) -> None:
    """Where columns are missing, or do not tell what is meant, the sentence names them."""
    assert words in refused({file: [header, ["1"] * len(header)]})


def test_what_people_should_know(found: Any, tmp_path: Path) -> None:
    """Columns that nobody knows, and a file without rows, are told; a column without a name is not."""
    set_ = found(
        {
            "students.csv": [["external_id", "Shoe size", "", "Hat"], ["S1", "42", "x", "7"]],
            "terms.csv": [["external_id"]],
        }
    )
    assert set_.notes == [
        "students.csv: nothing was read from the columns Shoe size and Hat.",
        "terms.csv has no row after its header.",
    ]
    assert values(set_, "students") == [{"external_id": "S1"}]
    files = {"students.csv": "external_id,Hat\nS1,7\n", "liesmich.txt": "a,b\n", "photo.jpg": b"\xff\xd8"}
    set_ = read([archive(tmp_path / "set.zip", files)], work=tmp_path)
    assert set_.notes == [
        "students.csv: nothing was read from the column Hat.",
        "photo.jpg and liesmich.txt were left out.",
    ]


def test_nothing_to_import(refused: Any, tmp_path: Path) -> None:
    """Without any row there is nothing to import."""
    assert refused({"students.csv": [["external_id"]]}) == (
        "There is nothing to import in the files. students.csv has no row after its header."
    )
    path = archive(tmp_path / "set.zip", {"a.txt": "x,y\n1,2\n"})
    for files in ([], [path]):
        with pytest.raises(UnreadableFile, match="nothing to import"):
            read(files, work=tmp_path)


def test_one_format_at_a_time(refused: Any, found: Any, tmp_path: Path) -> None:
    """Files of two formats are refused, and so is a file that is not of the format that was named."""
    both = {"students.csv": OURS["students.csv"], "users.csv": [["user_id", "login_id"], ["1", "a"]]}
    said = refused(both)
    assert "students.csv of the format csv and users.csv of the format canvas" in said
    assert "students.csv lacks" in refused(both, "canvas")
    assert kinds(found({"students.csv": OURS["students.csv"]}, "csv")) == [("students", "students.csv")]
    path = tmp_path / "students.csv"
    assert len(read([path, path], work=tmp_path).parts) == 1


def test_a_messy_spreadsheet(tmp_path: Path) -> None:
    """A German list is read with a note of its encoding; its total is refused, and each row knows its line."""
    path = tmp_path / "Liste.csv"
    path.write_bytes(messy(40))
    found = read([path], work=tmp_path)
    assert found.notes == [
        "Liste.csv is not in UTF-8 and was read as Windows-1252: see whether names with accents are right.",
        "Liste.csv: nothing was read from the columns Student-Nr. and Bemerkung.",
    ]
    read_rows = rows(found, "students")
    assert read_rows[0] == Row(
        3, {"external_id": "S0001", "given_name": "Bo", "family_name": "Groß", "email": "bo1@schule.example"}
    )
    assert len(read_rows) == 42
    assert Counter(row.values["external_id"] for row in read_rows if isinstance(row, Row))["S0001"] == 2
    (total,) = (row for row in read_rows if isinstance(row, Refused))
    line = path.read_bytes().decode("cp1252").replace("\r\n", "\n").split("\n").index("Summe;;41;;;;") + 1
    assert (total.line, total.column, total.code) == (line, "External ID", "invalid_row")


# OneRoster.

DECLARED = ("academicSessions", "classes", "courses", "enrollments", "roles", "users")
BULK: dict[str, list[list[str]]] = {
    "manifest.csv": [
        ["propertyName", "value"],
        ["manifest.version", "1.0"],
        ["oneroster.version", "1.2"],
        *([f"file.{name}", "bulk"] for name in DECLARED),
        ["file.demographics", "absent"],
    ],
    "orgs.csv": [["sourcedId", "status", "dateLastModified", "name", "type"], ["O1", "", "", "School", "school"]],
    "academicSessions.csv": [
        ["sourcedId", "status", "dateLastModified", "title", "type", "startDate", "endDate", "parentSourcedId",
         "schoolYear"],
        ["T1", "", "", "Autumn", "term", "2026-09-01T00:00:00.000Z", "2027/1/31", "", "2027"],
        ["T2", "", "", "Spring", "term", "2027-02-01", "2027-07-01", "", "2027"],
        ["T3", "", "", "Odd", "term", "1/05/2023", "2023-13-01", "", "2023"],
        ["T4", "", "", "Odd", "term", "2023-01-01", "2023-13-01", "", "2023"],
        ["T5", "tobedeleted", "", "Gone", "term", "2023-01-01", "2023-13-01", "", "2023"],
        ["", "", "", "Nobody", "term", "2023-01-01", "2023-12-01", "", "2023"],
    ],
    "courses.csv": [
        ["sourcedId", "status", "dateLastModified", "title", "courseCode", "grades", "orgSourcedId"],
        ["CO1", "", "", "Algebra\nI", "ALG", "09,10", "O1"],
    ],
    "classes.csv": [
        ["\ufeffSourcedID", "status", "dateLastModified", "title", "grades", "courseSourcedId", "classCode",
         "classType",
         "schoolSourcedId", "termSourcedIds", "metadata.capacity", "metadata.colour"],
        ["CL1", "", "", "", "", "CO1", "", "scheduled", "O1", "T1,T2", "30", "red"],
        ["CL4", "", "", "Music", "", "CO1", "", "scheduled", "O1", "T4", "", ""],
        ["CL2", "", "", "Art", "11", "CO9", "", "scheduled", "O1", "T3", "", ""],
        ["CL3", "tobedeleted", "", "Gone", "", "CO1", "", "scheduled", "O1", "", "", ""],
        ["", "", "", "Nobody", "", "CO1", "", "scheduled", "O1", "", "", ""],
    ],
    "users.csv": [
        ["sourcedId", "status", "enabledUser", "username", "givenName", "familyName", "email", "preferredGivenName"],
        ["U1", "", "true", "ada", "Ada", "Byron", "ada@school.example", "Countess"],
        ["U2", "", "true", "bo", "", "Bo", "", ""],
        ["U3", "", "true", "cy", "Cy", "Teacher", "", ""],
        ["U4", "", "true", "di", "Di", "Nobody", "", ""],
        ["U5", "TOBEDELETED", "false", "ed", "Ed", "Gone", "", ""],
        ["U6", "", "true", "fi", "Fi", "Both", "", ""],
        ["", "", "true", "xx", "X", "Y", "", ""],
    ],
    "roles.csv": [
        ["sourcedId", "status", "dateLastModified", "userSourcedId", "roleType", "role", "orgSourcedId"],
        ["R1", "", "", "U3", "primary", "teacher", "O1"],
        ["R2", "", "", "U6", "primary", "Parent", "O1"],
        ["R3", "", "", "U6", "secondary", "Student", "O1"],
        ["R4", "tobedeleted", "", "U4", "primary", "aide", "O1"],
    ],
    "enrollments.csv": [
        ["sourcedId", "status", "dateLastModified", "classSourcedId", "schoolSourcedId", "userSourcedId", "role"],
        ["E1", "", "", "CL1", "O1", "U1", "Student"],
        ["E2", "tobedeleted", "", "CL2", "O1", "U2", "student"],
        ["E3", "", "", "CL1", "O1", "U3", "teacher"],
        ["E4", "", "", "", "O1", "U1", "student"],
        ["E5", "", "", "CL1", "O1", "", "student"],
        ["E6", "", "", "CL1", "O1", "U1", ""],
    ],
}  # fmt: skip


@pytest.mark.parametrize("way", ["loose", "zip"])
def test_oneroster(tmp_path: Path, way: str) -> None:
    """A bulk set: classes are the courses, sessions of classes the terms, and students those who are enrolled."""
    files = written(tmp_path, BULK) if way == "loose" else [zipped(tmp_path / "set.zip", BULK)]
    found = read(files, work=tmp_path)
    assert (found.format, found.notes) == ("oneroster", ["orgs.csv was left out."])
    assert kinds(found) == [
        ("terms", "academicSessions.csv"),
        ("courses", "classes.csv"),
        ("students", "users.csv"),
        ("enrollments", "enrollments.csv"),
    ]
    assert values(found, "terms") == [
        {"external_id": "T1", "name": "Autumn", "starts_on": "2026-09-01", "ends_on": "2027-01-31"}
    ]
    assert [(line, why.partition(":")[0]) for line, why in whys(found, "terms")] == [
        (3, "no class is held in it"),
        (4, "startDate=1/05/2023"),
        (5, "endDate=2023-13-01"),
        (6, "tobedeleted"),
        (7, "sourcedId=None"),
    ]
    assert "year, month and day, such as 2026-09-01" in whys(found, "terms")[1][1]
    assert values(found, "courses") == [
        {"external_id": "CL1", "name": "Algebra I", "level": "09,10", "capacity": "30", "term_external_id": "T1"},
        {"external_id": "CL4", "name": "Music", "level": "09,10", "term_external_id": "T4"},
        {"external_id": "CL2", "name": "Art", "level": "11", "term_external_id": "T3"},
    ]
    assert whys(found, "courses") == [
        (5, "tobedeleted"),
        (6, "SourcedID=None: The row has nothing in SourcedID: fill the cell, or take the row out."),
    ]
    assert values(found, "students") == [
        {"external_id": "U1", "given_name": "Ada", "family_name": "Byron", "email": "ada@school.example"},
        {"external_id": "U2", "family_name": "Bo", "name": "Bo"},
    ]
    assert whys(found, "students")[:4] == [
        (4, "role teacher"),
        (5, "no student's enrollment"),
        (6, "tobedeleted"),
        (7, "no student's enrollment"),
    ]
    assert values(found, "enrollments") == [
        {"student_external_id": "U1", "course_external_id": "CL1", "action": "enroll"},
        {"student_external_id": "U2", "course_external_id": "CL2", "action": "drop"},
    ]
    assert [why.partition(":")[0] for _, why in whys(found, "enrollments")] == [
        "role teacher",
        "classSourcedId=None",
        "userSourcedId=None",
        "role=None",
    ]


def test_oneroster_without_enrollments(found: Any) -> None:
    """Without enrollments whoever has no other role is a student, and without classes every session is a term."""
    files = {name: BULK[name] for name in ("users.csv", "roles.csv", "academicSessions.csv")}
    set_ = found(files)
    assert set_.notes == []
    assert [row["external_id"] for row in values(set_, "students")] == ["U1", "U2", "U4", "U6"]
    assert [row["external_id"] for row in values(set_, "terms")] == ["T1", "T2"]


def test_oneroster_1_1(found: Any) -> None:
    """In 1.1 the role stands with the user; in a delta a student need not have an enrollment."""
    users = [
        ["sourcedId", "status", "dateLastModified", "enabledUser", "orgSourcedIds", "role", "username", "givenName",
         "familyName"],
        ["U1", "active", "", "true", "O1", "student", "ada", "Ada", "Byron"],
        ["U2", "active", "", "true", "O1", "teacher", "bo", "Bo", "Fox"],
        ["U3", "active", "", "true", "O1", "", "cy", "Cy", "Fox"],
    ]  # fmt: skip
    manifest = [
        ["propertyName", "value"],
        ["oneroster.version", "1.1"],
        ["file.users", "DELTA"],
        ["file.enrollments", "delta"],
    ]
    set_ = found({"manifest.csv": manifest, "users.csv": users, "enrollments.csv": BULK["enrollments.csv"][:1]})
    assert [row["external_id"] for row in values(set_, "students")] == ["U1"]
    assert whys(set_, "students") == [(3, "role teacher"), (4, "no student's enrollment")]
    assert set_.notes == ["enrollments.csv has no row after its header."]


def test_a_manifest_that_says_otherwise(found: Any) -> None:
    """Where the manifest and the files differ, the files are read, and people are told."""
    manifest = [["propertyName", "value"], ["file.users", "absent"], ["file.classes", "bulk"]]
    set_ = found({"manifest.csv": manifest, "users.csv": BULK["users.csv"], "roles.csv": BULK["roles.csv"]})
    assert set_.notes == [
        "manifest.csv has nothing for oneroster.version, and was read as 1.2.",
        "classes.csv is bulk in manifest.csv, but it is not there.",
        "users.csv is absent in manifest.csv, and was read all the same.",
        "roles.csv is missing in manifest.csv, and was read all the same.",
    ]


def test_a_delta_of_nothing(found: Any, refused: Any) -> None:
    """A night without changes is no fault; a set that says that it has files, and has none, is one."""
    head = [["propertyName", "value"], ["oneroster.version", "1.2"]]
    set_ = found({"manifest.csv": [*head, *([f"file.{name}", "absent"] for name in DECLARED)]})
    assert (set_.format, kinds(set_), set_.notes) == (
        *("oneroster", []),
        ["The manifest says that there is nothing to import."],
    )
    for word in ("delta", "bulk"):
        manifest = [*head, *([f"file.{name}", word if name == "users" else "absent"] for name in DECLARED)]
        assert f"users.csv is {word} in manifest.csv, but it is not there." in refused({"manifest.csv": manifest})
    assert "nothing to import" in refused({"manifest.csv": head})


# Canvas.


def canvas(**files: list[list[str]]) -> dict[str, list[list[str]]]:
    """Make a small set of Canvas, in which some files are others, or with None not there."""
    set_ = {
        "terms": [["term_id", "name", "status", "start_date", "end_date"], ["T1", "Autumn", "active",
        "2026-09-01T00:00:00Z", ""],
                  ["T2", "Gone", "deleted", "", ""], ["", "x", "active", "", ""]],
        "courses": [["course_id", "short_name", "long_name", "account_id", "term_id", "status"],
                    ["C1", "ALG", "Algebra", "", "T1", "active"], ["C2", "ART", "", "", "", "completed"],
                    ["C3", "BIO", "Biology", "", "T1", "deleted"], ["", "X", "X", "", "", "active"]],
        "sections": [["section_id", "course_id", "name", "status"], ["S1", "C1", "Section 1", "active"],
                     ["S2", "C1", "ALGEBRA evening", "active"], ["S3", "C2", "", "active"], ["S4", "C9", "Alone",
                      "active"],
                     ["S5", "C1", "Gone", "Deleted"], ["S6", "C3", "x", "active"], ["", "C1", "y", "active"],
                     ["S7", "C1", "n" * 199, "active"], ["S8", "C1", "", "active"]],
        "users": [["user_id", "integration_id", "login_id", "first_name", "last_name", "full_name", "sortable_name",
        "short_name",
                   "email", "status"],
                  ["U1", "I1", "u1", "Ada", "Byron", "", "", "Countess", "a@b", "active"],
                  ["U2", "I2", "u2", "", "", "", "Fox, Bo", "", "", "active"],
                  ["U3", "", "u3", "", "", "Cy Fox", "", "", "", "active"],
                  ["U4", "", "u4", "Di", "", "", "", "", "", "active"],
                  ["U5", "", "u5", "", "", "", "Madonna", "", "", "active"],
                  ["U6", "", "u6", "Ed", "Old", "", "", "", "", "deleted"],
                  ["U7", "", "u7", "Teacher", "T", "", "", "", "", "active"],
                  ["", "", "u8", "X", "X", "", "", "", "", "active"]],
        "enrollments": [["course_id", "section_id", "user_id", "user_integration_id", "role", "role_id", "status"],
                        ["C1", "S1", "U1", "", "student", "", "active"],
                        ["C1", "S1", "U1", "", "student", "", "deleted"],
                        ["C2", "", "", "I2", "StudentEnrollment", "", "COMPLETED"],
                        ["", "S1", "U3", "", "Student", "", "inactive"], ["", "S1", "U4", "", "student", "",
                         "deleted_last_completed"],
                        ["", "S1", "U5", "", "student", "", "active"], ["C1", "S1", "U7", "", "teacher", "", "active"],
                        ["", "S1", "", "I9", "student", "", "active"], ["", "S1", "", "", "student", "", "active"],
                        ["", "", "U1", "", "student", "", "active"], ["", "S1", "U1", "", "student", "", ""],
                        ["", "S1", "U1", "", "student", "", "gone"], ["", "S1", "U1", "", "", "7", "active"],
                        ["", "S1", "U1", "", "", "", "active"]],
    }  # fmt: skip
    return {f"{name}.csv": rows for name, rows in (set_ | files).items() if rows}


def test_canvas(found: Any) -> None:
    """Sections are the courses, and a course that an enrollment names without a section is one too."""
    set_ = found(canvas())
    assert (set_.format, set_.notes) == ("canvas", [])
    assert kinds(set_) == [
        ("terms", "terms.csv"),
        ("courses", "courses.csv"),
        ("courses", "sections.csv"),
        ("students", "users.csv"),
        ("enrollments", "enrollments.csv"),
    ]
    assert values(set_, "terms") == [{"external_id": "T1", "name": "Autumn", "starts_on": "2026-09-01"}]
    assert whys(set_, "terms")[0] == (3, "deleted")
    assert values(set_, "courses") == [
        {"external_id": "C2", "name": "ART"},
        {"external_id": "S1", "name": "Algebra, Section 1", "term_external_id": "T1"},
        {"external_id": "S2", "name": "ALGEBRA evening", "term_external_id": "T1"},
        {"external_id": "S3"},
        {"external_id": "S4", "name": "Alone"},
        {"external_id": "S7", "name": "n" * 199, "term_external_id": "T1"},
        {"external_id": "S8", "name": "Algebra", "term_external_id": "T1"},
    ]
    assert [(line, why.partition(":")[0]) for line, why in whys(set_, "courses")] == [
        (2, "its sections are the courses"),
        (4, "deleted"),
        (5, "course_id=None"),
        (6, "deleted"),
        (7, "its course is deleted"),
        (8, "section_id=None"),
    ]
    assert values(set_, "students") == [
        {"external_id": "U1", "given_name": "Ada", "family_name": "Byron", "name": "Countess", "email": "a@b"},
        {"external_id": "U2", "given_name": "Bo", "family_name": "Fox"},
        {"external_id": "U3", "name": "Cy Fox"},
        {"external_id": "U4", "given_name": "Di", "name": "Di"},
        {"external_id": "U5", "name": "Madonna"},
    ]
    assert [(line, why.partition(":")[0]) for line, why in whys(set_, "students")] == [
        (7, "deleted"),
        (8, "no student's enrollment"),
        (9, "user_id=None"),
    ]
    assert [tuple(row.values()) for row in values(set_, "enrollments")] == [
        ("U1", "S1", "enroll"),
        ("U1", "S1", "drop"),
        ("U2", "C2", "drop"),
        ("U3", "S1", "drop"),
        ("U4", "S1", "drop"),
        ("U5", "S1", "enroll"),
    ]
    assert [(line, why.partition(":")[0]) for line, why in whys(set_, "enrollments")] == [
        (8, "role teacher"),
        (9, "user_integration_id=I9"),
        (10, "user_id=None"),
        (11, "section_id=None"),
        (12, "status=None"),
        (13, "status=gone"),
        (14, "role_id=7"),
        (15, "role=None"),
    ]


def test_canvas_without_sections(found: Any) -> None:
    """Without sections the courses are the courses; without enrollments every user is a student."""
    set_ = found(canvas(sections=[], enrollments=[]))
    assert values(set_, "courses") == [
        {"external_id": "C1", "name": "Algebra", "term_external_id": "T1"},
        {"external_id": "C2", "name": "ART"},
    ]
    assert [row["external_id"] for row in values(set_, "students")] == ["U1", "U2", "U3", "U4", "U5", "U7"]


def test_canvas_with_what_an_import_has_no_use_for(found: Any) -> None:
    """Files of Canvas that are for nothing here are left out, and people are told."""
    xlists = [["xlist_course_id", "section_id", "status"], ["C9", "S1", "active"]]
    logins = [["user_id", "login_id", "existing_user_id"], ["U9", "other", "U1"]]
    set_ = found(canvas(xlists=xlists, logins=logins))
    assert set_.notes == ["xlists.csv and logins.csv were left out."]
    assert [part.kind for part in set_.parts].count("students") == 1


@pytest.mark.long
def test_a_large_set_of_canvas(tmp_path: Path) -> None:
    """Every one of 14,000 enrollments becomes what its row says, from a zip whose files have any name."""
    tables = canvas_set()
    assert tables == canvas_set()
    path = zipped(tmp_path / "canvas.zip", {f"{number}.csv": rows for number, rows in enumerate(tables.values())})
    found = read([path], work=tmp_path)
    assert found.notes == []
    counts = Counter(
        row.values["action"] if isinstance(row, Row) else getattr(row, "why", "refused")
        for row in rows(found, "enrollments")
    )
    expected = taken(tables["enrollments.csv"][1:])
    assert counts == expected
    assert sum(counts.values()) == 14_000
    assert {"enroll", "drop", "role teacher"} == counts.keys()
    pairs = [(row.values["student_external_id"], row.values["course_external_id"]) for row in rows(found, "enrollments")
             if isinstance(row, Row)]  # fmt: skip
    assert len(pairs) - len(set(pairs)) > 100
    students = {row["external_id"] for row in values(found, "students")}
    assert students <= {student for student, _ in pairs}
    assert not rows(found, "courses")[0].line > 2
    assert isinstance(found.parts[0], Part)


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Give the bytes of a text, of zips and of a workbook."""
    folder = tmp_path_factory.mktemp("samples")
    files = [zipped(folder / "a.zip", BULK), zipped(folder / "b.zip", canvas()), workbook(folder / "c.xlsx", OURS)]
    with zipfile.ZipFile(folder / "d.zip", "w") as stored:  # Here a changed byte is one of a text.
        for file in written(folder, OURS):
            stored.write(file, file.name)
    return [messy(), *(file.read_bytes() for file in [*files, folder / "d.zip"])]


@pytest.mark.long
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_a_file_has(
    data: st.DataObject, samples: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A file of which any bytes are others is read or refused, and nothing else is raised."""
    content = bytearray(data.draw(st.sampled_from(samples)))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    work = tmp_path_factory.getbasetemp()
    (work / "sample").write_bytes(content)
    with contextlib.suppress(UnreadableFile):
        for part in read([work / "sample"], work=work).parts:
            assert all(isinstance(row, Row | Skipped | Refused) for row in part.rows())


def test_rows_of_a_file_that_are_read_by_halves(found: Any) -> None:
    """A reader that stops in the middle leaves nothing open."""
    set_ = found(canvas())
    for part in set_.parts:
        list(itertools.islice(part.rows(), 1))
    assert len(values(set_, "students")) == 5
