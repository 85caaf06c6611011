"""Refused rows that were mended are taken, whatever format they had, and without the files that stood beside them."""

import csv
import io
import json
from contextlib import closing
from pathlib import Path

import pytest
from school_files import TABLES, workbook, zipped
from test_import_command import imported
from test_seats import audit

from service import connect
from service.courses import list_courses
from service.students import list_students
from service.terms import list_terms

CANVAS: TABLES = {
    "terms.csv": [["term_id", "name", "status", "start_date"], ["T1", "Autumn", "active", "1/9/26"]],
    "courses.csv": [
        ["course_id", "short_name", "long_name", "term_id", "status"],
        ["K1", "K", "Logic", "T1", "active"],
    ],
    "sections.csv": [["section_id", "course_id", "name", "status"], ["C1", "K1", "Morning", "active"]],
    "users.csv": [
        ["user_id", "login_id", "first_name", "last_name", "email", "status"],
        ["S1", "s1", "Ada", "Byron", "nope", "active"],
        ["S2", "s2", "Bo", "Li", "bo@example.org", "active"],
        ["S3", "s3", "Cy", "Ng", "cy@example.org", "active"],
        ["", "s4", "Di", "Wu", "di@example.org", "active"],
    ],
    "enrollments.csv": [
        ["section_id", "user_id", "role", "role_id", "status"],
        ["C1", "S1", "student", "", "active"],
        ["C1", "S2", "student", "", "here"],
        ["C1", "S3", "student", "", "active"],
        ["C1", "S2", "", "7", "active"],
    ],
}
ONEROSTER: TABLES = {
    "academicSessions.csv": [["sourcedId", "title", "startDate", "endDate"], ["T1", "Autumn", "1/9/26", ""]],
    "courses.csv": [["sourcedId", "title", "courseCode", "grades"], ["K1", "Logic, Morning", "K", "unspecified"]],
    "classes.csv": [["sourcedId", "courseSourcedId", "classType", "termSourcedIds"], ["C1", "K1", "scheduled", "T1"]],
    "users.csv": [
        ["sourcedId", "givenName", "familyName", "email"],
        ["S1", "Ada", "Byron", "nope"],
        ["S2", "Bo", "Li", "bo@example.org"],
        ["S3", "Cy", "Ng", "cy@example.org"],
        ["", "Di", "Wu", "di@example.org"],
    ],
    "enrollments.csv": [
        ["classSourcedId", "userSourcedId", "role"],
        ["C1", "S1", "student"],
        ["C1", "S2", "student"],
        ["C1", "S3", "student"],
    ],
}
PLAIN: TABLES = {
    "terms.csv": [["External ID", "Name", "Starts on"], ["T1", "Autumn", "1/9/26"]],
    "courses.csv": [
        ["external_id", "name", "level", "term_external_id"],
        ["C1", "Logic, Morning", "unspecified", "T1"],
    ],
    "students.csv": [
        ["E-Mail", "External ID", "given name", "family name"],
        ["nope", "S1", "Ada", "Byron"],
        ["bo@example.org", "S2", "Bo", "Li"],
        ["cy@example.org", "S3", "Cy", "Ng"],
        ["di@example.org", "", "Di", "Wu"],
    ],
    "enrollments.csv": [
        ["Student External ID", "Course External ID", "Status"],
        ["S1", "C1", ""],
        ["S2", "C1", "here"],
        ["S3", "C1", "role 7"],
    ],
}
MENDED = {"1/9/26": "2026-09-01", "nope": "ada@example.org", "here": "enroll", "role 7": "enroll"}
KINDS = ("terms", "courses", "students", "enrollments")


def as_written(folder: Path) -> dict[str, list[list[str]]]:
    """Give the CSV files of refused rows that the command wrote, by their kinds."""
    return {
        kind: [*csv.reader(io.StringIO(place.read_text("utf-8-sig"), newline=""))]
        for kind in KINDS
        if (place := folder / f"bad-{kind}.csv").exists()
    }


def as_at_the_desk(report: str) -> dict[str, list[list[str]]]:
    """Make the tables of refused rows as the desk does from the report: the column at fault is one more of them."""
    found: dict[str, list[list[str]]] = {}
    rows = json.loads(report)["refused_rows"]
    for kind in KINDS:
        some = [row for row in rows if row["kind"] == kind]
        columns = [*dict.fromkeys(name for row in some for name in (*row["row"], row["column"]))]
        cells = [{row["column"]: row["value"] or "", **row["row"]} for row in some]
        lines = [
            [*(each.get(name, "") for name in columns), str(row["line"]), row["code"], row["detail"]]
            for each, row in zip(cells, some, strict=True)
        ]
        found |= {kind: [[*columns, "line", "code", "reason"], *lines]} if some else {}
    return found


@pytest.mark.parametrize("desk", [True, False], ids=["desk", "command"])
@pytest.mark.parametrize(
    ("format_", "tables"), [("canvas", CANVAS), ("oneroster", ONEROSTER), ("csv", PLAIN)], ids=["canvas", "1r", "csv"]
)
def test_mended(path: Path, tmp_path: Path, format_: str, tables: TABLES, *, desk: bool) -> None:
    """The files of refused rows are refused again as they are, and taken once they are mended."""
    zip_file = zipped(tmp_path / "school.zip", tables)
    told = imported(path, str(zip_file), "--json", "--report", str(tmp_path / "bad.csv"))
    assert told.exit_code == 3
    bad = as_at_the_desk(told.stdout) if desk else as_written(tmp_path)
    assert [*bad] == [*KINDS]
    for kind, (header, *rows) in bad.items():
        file = tmp_path / f"again-{kind}.csv"
        for mend in (False, True):
            lines = [[MENDED.get(cell, cell) if mend else cell for cell in row] for row in rows]
            if kind == "students" and mend:
                place = next(at for at, name in enumerate(header) if name.casefold() in {"external_id", "external id"})
                lines[1][place] = "S4"
            with file.open("w", encoding="utf-8-sig", newline="") as out:
                csv.writer(out).writerows([header, *lines])
            # A program that is told of the format each night is told of it here too.
            told = imported(path, str(file), "--format", format_) if mend else imported(path, str(file))
            # The rows of these are refused for what another file lacked, which is there by now.
            well = kind == "courses" or (kind, format_) == ("enrollments", "oneroster")
            assert told.exit_code == (0 if mend or well else 3), told.stdout
    with closing(connect(path)) as db:
        assert [(each.external_id, each.starts_on) for each in list_terms(db)] == [("T1", "2026-09-01")]
        (course,) = list_courses(db)
        assert (course.external_id, course.name, course.level) == ("C1", "Logic, Morning", "unspecified")
        assert course.term_id == 1
        people = {each.external_id: (each.name, each.email) for each in list_students(db)}
        assert people["S1"] == ("Ada Byron", "ada@example.org")
        assert people["S4"] == ("Di Wu", "di@example.org")
        assert course.enrolled == 3
    audit(path)


def test_a_row_of_a_workbook(path: Path, tmp_path: Path) -> None:
    """A row that is refused for a cell without a meaning keeps its other cells."""
    rows = [["External ID", "Name", "E-Mail"], ["S1", "Ada", "#N/A"], ["S2", "Bo", ""]]
    book = workbook(tmp_path / "students.xlsx", {"students": rows})
    told = imported(path, str(book), "--report", str(tmp_path / "bad.csv"), "--json")
    assert told.exit_code == 3
    assert json.loads(told.stdout)["refused_rows"][0]["row"] == {"External ID": "S1", "Name": "Ada", "E-Mail": "#N/A"}
    text = (tmp_path / "bad.csv").read_text("utf-8-sig")
    (tmp_path / "bad.csv").write_text(text.replace("#N/A", "ada@example.org"), "utf-8")
    assert imported(path, str(tmp_path / "bad.csv")).exit_code == 0
    with closing(connect(path)) as db:
        assert {each.external_id: each.email for each in list_students(db)} == {"S1": "ada@example.org", "S2": None}
