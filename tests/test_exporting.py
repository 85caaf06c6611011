"""Exports without HTTP: what each file has, that it comes back to the same state, and how it comes into place."""

import csv
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import msgspec
import peewee as pw
import pytest
import roster_files
from answers import write
from click.testing import CliRunner, Result
from conftest import ROOT
from programs import run_sql

from service import connect, courses, registrar, students, terms
from service.__main__ import cli
from service.enrollments import drop, enroll, list_roster_by_name, list_waitlist
from service.errors import CourseNotFound, FeedRewound, StorageUnavailable, TermNotFound
from service.events import newest_event
from service.exchange import exporting, selecting
from service.exchange.exporting import (
    Export,
    RosterExport,
    Selection,
    csv_of,
    oneroster_of,
    roster_of,
    to_temporary,
    zip_of_csv,
)
from service.exchange.records import KINDS
from service.exchange.sourcing import school_year
from service.rows import ExternalId
from service.storage import backend_of, fetch, kinds
from service.terms import insert_term

pytestmark = pytest.mark.both

HOSTILE = [
    '=HYPERLINK("http://evil.example","Click")',
    "O'Brien, Jr.",
    'The "Duke"',
    "+1",
    "-1",
    "@here",
    "ليلى بنت خالد",
    "Zoë 🎓",
    "%_",
    "?",
    "a;b",
]


def written(db: pw.Database, export: Export) -> bytes:
    """Give the bytes of an export."""
    file, size = to_temporary(db, export)
    with file:
        data = file.read()
    assert len(data) == size
    return data


def rows(data: bytes) -> list[dict[str, str]]:
    """Read a CSV file as a stranger does."""
    return [*csv.DictReader(data.decode().splitlines())]


def rosters(db: pw.Database, **asked: Any) -> dict[str, roster_files.Rows]:
    """Export a OneRoster file set, and hold it to the specification."""
    return roster_files.read(written(db, oneroster_of(RosterExport("School", **asked))))


def export(*args: str, path: Path | None = None, **environ: str) -> Result:
    """Run the command."""
    at = ("--database-url", str(path)) if path else ()
    return CliRunner().invoke(cli, ("export", *args, *at), env={"SCHOOL_NAME": None, **environ})


@pytest.fixture
def school(db: pw.Database) -> pw.Database:
    """Give a school: Ada and Bo have seats, Cy and Di wait for Bo's course, in that order."""
    autumn = insert_term(db, "Autumn", external_id="2026A", starts_on="2026-09-01", ends_on="2026-12-18").id
    insert_term(db, "Some day")
    for name, external_id in (("Ada Lovelace", "20001"), ("Bo", "20002"), ("Di Prima", None), ("Cy Twombly", "20004")):
        students.insert_student(db, name, external_id=external_id)
    courses.insert_course(db, "Logic", "A1", external_id="LOG/1", term_id=autumn)
    courses.insert_course(db, "Chess, fast", "A2", 1, 2, external_id="CH", opens_at="2020-01-01T00:00:00Z")
    courses.insert_course(db, "Go", "B1", waitlist_capacity=None, term_id=2)
    for student_id, course_id in ((1, 1), (2, 2), (4, 2), (3, 2), (1, 3)):
        enroll(db, student_id, course_id)
    return db


# CSV


def test_each_kind(school: pw.Database) -> None:
    """The files have the records of the API under their own names, and who waits in the order of the line."""
    assert written(school, csv_of("students")).decode() == (
        "id,external_id,name,given_name,family_name,email\r\n"
        "1,20001,Ada Lovelace,,,\r\n2,20002,Bo,,,\r\n3,,Di Prima,,,\r\n4,20004,Cy Twombly,,,\r\n"
    )
    assert written(school, csv_of("courses")).decode() == (
        "id,external_id,name,level,capacity,waitlist_capacity,term_external_id,opens_at,closes_at,enrolled,waitlisted"
        "\r\n1,LOG/1,Logic,A1,unlimited,0,2026A,,,1,0"
        '\r\n2,CH,"Chess, fast",A2,1,2,,2020-01-01T00:00:00.000Z,,1,2'
        "\r\n3,,Go,B1,unlimited,unlimited,,,,1,0\r\n"
    )
    assert written(school, csv_of("terms")).decode() == (
        "id,external_id,name,starts_on,ends_on\r\n1,2026A,Autumn,2026-09-01,2026-12-18\r\n2,,Some day,,\r\n"
    )
    found = written(school, csv_of("enrollments")).decode()
    assert re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", found) == (
        "student_id,student_external_id,course_id,course_external_id,status,position,enrolled_at\r\n"
        "1,20001,1,LOG/1,enrolled,,TIME\r\n1,20001,3,,enrolled,,TIME\r\n2,20002,2,CH,enrolled,,TIME\r\n"
        "4,20004,2,CH,waitlisted,1,\r\n3,,2,CH,waitlisted,2,\r\n"
    )


def test_the_columns_are_the_records_own(school: pw.Database) -> None:
    """A column of students, courses and terms is a field of the record, with its value."""
    finders: dict[Any, Any] = {
        "students": students.find_student,
        "courses": courses.find_course,
        "terms": terms.find_term,
    }
    for kind, find in finders.items():
        for row in rows(written(school, csv_of(kind))):
            record = msgspec.to_builtins(find(school, int(row["id"])))
            row.pop("term_external_id", None)
            nulls = {"capacity": "unlimited", "waitlist_capacity": "unlimited"}
            assert row == {name: nulls.get(name, "") if record[name] is None else str(record[name]) for name in row}


def test_one_term(school: pw.Database) -> None:
    """With a term, by its id or its external id, there is only what belongs to it."""
    for key in (1, ExternalId("2026A")):
        found = {kind: rows(written(school, csv_of(kind, Selection(key)))) for kind in KINDS}
        assert [row["id"] for row in found["students"]] == ["1"]
        assert [row["id"] for row in found["courses"]] == ["1"]
        assert [row["id"] for row in found["terms"]] == ["1"]
        assert [(row["student_id"], row["course_id"]) for row in found["enrollments"]] == [("1", "1")]
    courses.update_course(school, 2, {"term_id": 1})
    assert [row["student_id"] for row in rows(written(school, csv_of("enrollments", Selection(1))))] == [*"1243"]
    assert [row["id"] for row in rows(written(school, csv_of("students", Selection(1))))] == [*"1234"]
    for kind in KINDS:
        with pytest.raises(TermNotFound):
            written(school, csv_of(kind, Selection(9)))


def test_the_class_list(school: pw.Database) -> None:
    """A class list has who has a seat, by name, as the API sorts them."""
    for family, given_name in (("de Vries", "Åsa"), ("De Vries", "anna"), ("Zola", "Émile"), ("", "Bo")):
        student = students.insert_student(school, f"{given_name} {family}".strip(), family_name=family or None)
        students.update_student(school, student.id, {"given_name": given_name, "email": "a@example.org"})
        enroll(school, student.id, 1)
    found = rows(written(school, roster_of(ExternalId("LOG/1"))))
    assert [row["name"] for row in found] == [row.name for _, row in list_roster_by_name(school, 1)]
    assert [*found[0]] == ["external_id", "family_name", "given_name", "name", "email", "enrolled_at"]
    assert len(found) == 5
    with pytest.raises(CourseNotFound):
        written(school, roster_of(9))


def test_for_a_spreadsheet(school: pw.Database) -> None:
    """With a BOM a spreadsheet sees UTF-8, and what would be a formula has a quote before it."""
    for name in HOSTILE:
        students.insert_student(school, name)
    data = written(school, csv_of("students", Selection(excel=True)))
    assert data.startswith(b"\xef\xbb\xbfid,")
    found = [row["name"] for row in rows(data.removeprefix(b"\xef\xbb\xbf"))][4:]
    assert found == [f"'{name}" if name[0] in "=+-@" else name for name in HOSTILE]
    assert [row["name"] for row in rows(written(school, csv_of("students")))][4:] == HOSTILE


def test_what_another_program_wrote(school: pw.Database, path: Path | str) -> None:
    """Line breaks, and texts that are not UTF-8, which only a file can have, do not spoil an export."""
    school.execute_sql("UPDATE students SET name = ? WHERE id = 2", ("Bo\r\nB",))
    school.close()
    if isinstance(path, Path):
        write(path, "UPDATE students SET name = CAST(? AS TEXT) WHERE id = 1", [(b"Ad\xe9",)])
    else:
        run_sql(path, "UPDATE students SET name = 'Ad\ufffd' WHERE id = 1")
    with connect(path) as db:
        found = written(db, csv_of("students"))
        assert [row["name"] for row in csv.DictReader(found.decode().splitlines(keepends=True))][:2] == [
            "Ad\ufffd",
            "Bo\r\nB",
        ]
        users = rosters(db)["users"]
    assert [user["givenName"] for user in users][:2] == ["Ad\ufffd", "Bo  B"]


def test_pages(school: pw.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is the same, whatever size its pages have; the positions go on from page to page."""
    course = courses.insert_course(school, "Art", "1", 3, 50).id
    for number in range(20):
        enroll(school, students.insert_student(school, f"S{number}").id, course)
    drop(school, 5, course)
    exports = [csv_of(kind) for kind in KINDS]
    whole, sets = [written(school, each) for each in exports], rosters(school, since=0)
    for size in (1, 3, 7):
        monkeypatch.setattr(selecting, "PAGE", size)
        assert [written(school, each) for each in exports] == whole
        again = rosters(school, since=0)
        for name, found in sets.items():
            assert [{**row, "dateLastModified": ""} for row in again[name]] == [
                {**row, "dateLastModified": ""} for row in found
            ]
    line = [row for row in rows(whole[3]) if row["course_id"] == str(course) and row["position"]]
    assert [(int(row["student_id"]), int(row["position"])) for row in line] == [
        (row.id, row.position) for _, row in list_waitlist(school, course)
    ]
    assert len(line) == 16


def test_all_is_of_one_moment(school: pw.Database, path: Path) -> None:
    """What is written meanwhile is in none of the files."""
    with closing(connect(path)) as other:

        def tick(name: str) -> None:
            if name == "students.csv":
                late = students.insert_student(other, "Late").id
                enroll(other, late, 1)

        with (
            kinds.schema_of(path).reading(path, 5) as db,
            ZipFile(BytesIO(written(db, zip_of_csv(tick=tick)))) as archive,
        ):
            texts = [archive.read(f"{kind}.csv") for kind in KINDS]
    assert [len(rows(text)) for text in texts] == [4, 3, 2, 5]
    assert len(rows(written(school, csv_of("enrollments")))) == 6


# OneRoster


def test_a_file_set(school: pw.Database) -> None:
    """A school becomes a file set that keeps to the specification."""
    found = rosters(school)
    year = school_year(datetime.now(UTC).date())
    assert found.keys() == {"academicSessions", "classes", "courses", "enrollments", "orgs", "roles", "users"}
    assert [(row["sourcedId"], row["type"], row["schoolYear"]) for row in found["academicSessions"]] == [
        ("2026A", "term", "2027"),
        (f"school-year-{year}", "schoolYear", f"{year}"),
    ]
    assert [(row["sourcedId"], row["name"], row["type"]) for row in found["orgs"]] == [("org-1", "School", "school")]
    assert [(row["sourcedId"], row["title"], row["courseCode"]) for row in found["courses"]] == [
        ("course-1", "Logic", "LOG/1"),
        ("course-2", "Chess, fast", "CH"),
        ("course-3", "Go", "3"),
    ]
    classes = [(row["sourcedId"], row["termSourcedIds"], row["metadata.level"]) for row in found["classes"]]
    assert classes == [("LOG/1", "2026A", "A1"), ("CH", classes[1][1], "A2"), ("class-3", f"school-year-{year}", "B1")]
    assert [(row["metadata.capacity"], row["metadata.waitlistCapacity"]) for row in found["classes"]] == [
        *(("unlimited", "0"), ("1", "2"), ("unlimited", "unlimited")),
    ]
    assert [(row["sourcedId"], row["username"], row["givenName"], row["familyName"]) for row in found["users"]] == [
        ("20001", "20001", "Ada", "Lovelace"),
        ("20002", "20002", "Bo", "Bo"),
        ("user-3", "user-3", "Di", "Prima"),
        ("20004", "20004", "Cy", "Twombly"),
    ]
    seats = [(row["sourcedId"], row["userSourcedId"], row["classSourcedId"]) for row in found["enrollments"]]
    assert seats == [("enr-1", "20001", "LOG/1"), ("enr-5", "20001", "class-3"), ("enr-2", "20002", "CH")]
    today = datetime.now(UTC).date().isoformat()
    assert {(row["beginDate"], row["endDate"]) for row in found["enrollments"]} == {(today, "")}


def test_the_lists_are_quoted(school: pw.Database) -> None:
    """A cell that may hold a list is in quotes; a term's external id with a comma is not taken for two."""
    terms.update_term(school, 1, {"external_id": "2026,A"})
    data = written(school, oneroster_of(RosterExport("School")))
    with ZipFile(BytesIO(data)) as archive:
        assert b',"term-1",' in archive.read("classes.csv")
    assert roster_files.read(data)["academicSessions"][0]["sourcedId"] == "term-1"


def test_an_empty_school(db: pw.Database) -> None:
    """A file that would have no row is absent; a delta of nothing is a manifest alone."""
    assert rosters(db).keys() == {"orgs"}
    assert rosters(db, since=0) == {}
    assert rows(written(db, csv_of("students"))) == []


def test_names(db: pw.Database) -> None:
    """Where a part of a name is not known, the name is split at its last space, and one word is both."""
    for name, given_name, family_name in (
        ("Ana María  de la Cruz", None, None),
        ("Ana María", "Ana", None),
        ("Cher", None, None),
        ("Cher", "Cherilyn", None),
        ("The King", "Elvis", "Presley"),
    ):
        students.insert_student(db, name, given_name=given_name, family_name=family_name)
    assert [(user["givenName"], user["familyName"]) for user in rosters(db)["users"]] == [
        ("Ana María  de la", "Cruz"),
        ("Ana", "María"),
        ("Cher", "Cher"),
        ("Cherilyn", "Cher"),
        ("Elvis", "Presley"),
    ]


@pytest.mark.parametrize(
    ("starts_on", "ends_on", "year"),
    [
        ("2026-09-01", "2026-12-18", "2027"),
        ("2027-02-01", "2027-06-18", "2027"),
        ("2026-04-01", "2027-03-31", "2027"),
        ("2026-08-01", "2028-07-31", "2028"),
        ("2026-07-31", "2026-12-18", "2026"),
    ],
)
def test_school_years(db: pw.Database, starts_on: str, ends_on: str, year: str) -> None:
    """The school year of a term is the one that ends with or after it, and begins in August."""
    insert_term(db, "T", starts_on=starts_on, ends_on=ends_on)
    assert [row["schoolYear"] for row in rosters(db)["academicSessions"]] == [year]
    assert [school_year(date(2026, month, 1)) for month in (7, 8)] == [2026, 2027]


def test_no_two_have_one_name(school: pw.Database) -> None:
    """A row without an external id is never called what another row's external id is."""
    found = rosters(school)
    (made,) = {row["termSourcedIds"] for row in found["classes"]} - {"2026A"}
    for external_id in ("user-3", "user-3-"):
        students.insert_student(school, "Other", external_id=external_id)
    courses.insert_course(school, "Other", "1", external_id="class-3", term_id=1)
    insert_term(school, "School year", external_id=made, starts_on="2026-08-01", ends_on="2027-07-31")
    found = rosters(school)
    assert [user["sourcedId"] for user in found["users"]][2:] == ["user-3--", "20004", "user-3", "user-3-"]
    assert [each["sourcedId"] for each in found["classes"]] == ["LOG/1", "CH", "class-3-", "class-3"]
    assert [each["title"] for each in found["academicSessions"]] == ["Autumn", "School year"]
    assert "class-3-" in {row["classSourcedId"] for row in found["enrollments"]}


def test_one_term_of_rosters(school: pw.Database) -> None:
    """With a term, there is only what belongs to it."""
    found = rosters(school, term=ExternalId("2026A"))
    assert {name: [row["sourcedId"] for row in rows] for name, rows in found.items()} == {
        "academicSessions": ["2026A"],
        "orgs": ["org-1"],
        "courses": ["course-1"],
        "classes": ["LOG/1"],
        "users": ["20001"],
        "roles": ["role-1"],
        "enrollments": ["enr-1"],
    }
    assert [row["sourcedId"] for row in rosters(school, term=2)["classes"]] == ["class-3"]
    assert rosters(school, term=2, since=5) == {}
    assert [row["sourcedId"] for row in rosters(school, term=2, since=4)["users"]] == ["20001"]
    with pytest.raises(TermNotFound):
        rosters(school, term=9)


def test_a_delta(school: pw.Database) -> None:
    """A delta has the seats that were given and lost since an event, under the names that they had before."""
    since = newest_event(school)
    before = {row["sourcedId"] for row in rosters(school)["enrollments"]}
    drop(school, 2, 2)  # Cy is promoted.
    drop(school, 3, 2)  # Di only waited, and was never exported.
    drop(school, 1, 3)
    enroll(school, 1, 3)
    for _ in range(2):  # These begin and end within the delta.
        enroll(school, 4, 1)
        drop(school, 4, 1)
    found = rosters(school, since=since)
    states = {(row["sourcedId"], row["status"], row["userSourcedId"]) for row in found["enrollments"]}
    cy, again = 3, since + 5
    assert states == {
        ("enr-2", "tobedeleted", "20002"),
        ("enr-5", "tobedeleted", "20001"),
        (f"enr-{since + 6}", "tobedeleted", "20004"),
        (f"enr-{since + 8}", "tobedeleted", "20004"),
        (f"enr-{cy}", "active", "20004"),
        (f"enr-{again}", "active", "20001"),
    }
    lost = {name for name, status, _ in states if status == "tobedeleted"}
    given_seats = {name for name, status, _ in states if status == "active"}
    assert {row["sourcedId"] for row in rosters(school)["enrollments"]} == (before - lost) | given_seats
    assert [row["endDate"] for row in found["enrollments"]] == [datetime.now(UTC).date().isoformat()] * 4 + [""] * 2
    assert {row["sourcedId"] for row in found["classes"]} == {"LOG/1", "CH", "class-3"}
    assert {row["sourcedId"] for row in found["users"]} >= {"20001", "20002", "20004"}
    assert rosters(school, since=newest_event(school)) == {}
    with pytest.raises(FeedRewound):
        rosters(school, since=newest_event(school) + 1)


def test_a_delta_since_a_moment(school: pw.Database) -> None:
    """A moment stands for the events from that moment on."""
    time.sleep(0.002)
    ((now,),) = fetch(school, f"SELECT {backend_of(school).NOW}")
    assert rosters(school, since=now) == {}
    time.sleep(0.002)
    enroll(school, 2, 1)
    assert [row["userSourcedId"] for row in rosters(school, since=now)["enrollments"]] == ["20002"]
    assert len(rosters(school, since="2020-01-01T00:00:00.000Z")["enrollments"]) == 4


def test_who_is_erased_is_to_be_deleted(school: pw.Database) -> None:
    """The seats of an erased student, and of a deleted course, are to be deleted, under the names that they had."""
    since = newest_event(school)
    registrar.erase_student(school, 1)
    courses.delete_course(school, 3)
    found = rosters(school, since=since)["enrollments"]
    assert [(row["sourcedId"], row["status"], row["userSourcedId"], row["classSourcedId"]) for row in found] == [
        ("enr-1", "tobedeleted", "user-1", "LOG/1"),
        ("enr-5", "tobedeleted", "user-1", "class-3"),
    ]


@pytest.mark.both(False, because="only files have older schemas")
def test_older_enrollments_have_names(school: pw.Database) -> None:
    """An enrollment that does not lead to its event is found in the events; so is one by override."""
    enroll(school, 2, 1, override=True)
    overridden = newest_event(school)
    found = rosters(school)["enrollments"]
    assert f"enr-{overridden}" in {row["sourcedId"] for row in found}
    triggers = fetch(school, "SELECT name FROM sqlite_master WHERE type = 'trigger'")
    for (name,) in triggers:
        school.execute_sql(f"DROP TRIGGER {name}")
    school.execute_sql("UPDATE enrollment_events SET filed = 1")
    school.execute_sql("UPDATE enrollments SET event_id = NULL")
    assert rosters(school)["enrollments"] == found
    assert rosters(school, since=0)["enrollments"] != []
    school.execute_sql("DELETE FROM enrollment_events")
    assert [row["sourcedId"] for row in rosters(school)["enrollments"]][:2] == ["enr-1-1", "enr-1-3"]


# Into files


def test_the_command(school: pw.Database, path: Path, tmp_path: Path) -> None:
    """A folder, one file or a zip is written, for its owner alone; the numbers of rows are told."""
    school.close()
    result = export(f"{tmp_path}/new/", path=path)
    assert (result.exit_code, result.stdout.split()) == (
        0,
        [
            *[
                "students.csv",
                "4",
                "rows",
                "courses.csv",
                "3",
                "rows",
                "terms.csv",
                "2",
                "rows",
                "enrollments.csv",
                "5",
                "rows",
            ]
        ],
    )
    assert (
        result.stderr == "Without an external id, by which an import knows them again: 1 student, 1 course, 1 term.\n"
    )
    folder = tmp_path / "new"
    assert {file.name for file in folder.iterdir()} == {f"{kind}.csv" for kind in KINDS}
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    one = folder / "students.csv"
    before = one.read_bytes()
    one.write_bytes(b"old")
    assert export(str(one), path=path).exit_code == 0
    assert one.read_bytes() == before
    assert export(str(folder), path=path).exit_code == 0
    target = tmp_path / "all.zip"
    assert export(str(target), "--term", "2026A", path=path).exit_code == 0
    with ZipFile(target) as archive:
        assert {info.filename: len(rows(archive.read(info))) for info in archive.infolist()} == {
            "students.csv": 1,
            "courses.csv": 1,
            "terms.csv": 1,
            "enrollments.csv": 1,
        }
    result = export(str(target), "--format", "oneroster", "--since", "4", path=path, SCHOOL_NAME="Pim's || 'School'")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == "In no term that has both days, and so in the current school year: 2 courses.\n"
    assert [row["name"] for row in roster_files.read(target.read_bytes())["orgs"]] == ["Pim's || 'School'"]
    assert not [file for file in [*tmp_path.iterdir(), *folder.iterdir()] if file.name.endswith(".part")]


def test_a_link_stays(school: pw.Database, path: Path, tmp_path: Path) -> None:
    """A symbolic link stays one, and leads to the new file."""
    school.close()
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "students.csv"
    link.symlink_to(tmp_path / "elsewhere/kept.csv")
    assert export(str(link), path=path).exit_code == 0
    assert link.is_symlink()
    assert len(rows(link.read_bytes())) == 4


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nothing.txt"], "is none of these"),
        (["x.csv", "--format", "oneroster"], "let PATH end in .zip"),
        (["x.zip", "--since", "1"], "add --format oneroster"),
        (["x.zip", "--format", "oneroster", "--since", "yesterday"], "must be the id of an event, or a time"),
        (["x.zip", "--format", "oneroster", "--since", "99"], "The newest event has the id 0"),
        (["x.zip", "--term", "."], "'--term'"),
        (["x.zip", "--term", "nothing"], "No term has the external id 'nothing'."),
        (["missing/x.zip"], "Nothing was exported: No such file or directory."),
        (["missing/folder/"], "Nothing was exported: No such file or directory."),
        (["x.zip", "--format", "xml"], "is not one of"),
    ],
)
def test_what_cannot_be_exported(path: Path, tmp_path: Path, args: list[str], said: str) -> None:
    """A command that cannot be carried out says why, and leaves no file."""
    result = export(str(tmp_path / args[0]) + "/" * args[0].endswith("/"), *args[1:], path=path)
    assert result.exit_code in {1, 2}
    assert said in " ".join(result.stderr.split())
    assert [file.name for file in tmp_path.iterdir() if not file.name.startswith("school.db")] == []


@pytest.mark.parametrize("name", ["folder", "folder/", "a folder of 2026"])
def test_a_folder_that_is_not_there(path: Path, tmp_path: Path, name: str) -> None:
    """A folder is made where there is none, which only its owner may enter; a file in its place stays."""
    assert export(f"{tmp_path}/{name}", path=path).exit_code == 0
    folder = tmp_path / name
    assert {each.name for each in folder.iterdir()} == {f"{kind}.csv" for kind in KINDS}
    assert folder.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("mine")
    result = export(f"{tmp_path}/file", path=path)
    assert (result.exit_code, (tmp_path / "file").read_text()) == (1, "mine")
    assert "Nothing was exported: File exists." in result.stderr


def test_no_device_is_replaced(path: Path, tmp_path: Path) -> None:
    """What is there and no ordinary file stays."""
    pipe = tmp_path / "students.csv"
    os.mkfifo(pipe)
    result = export(str(pipe), path=path)
    assert (result.exit_code, "no ordinary file" in result.stderr) == (1, True)
    assert pipe.is_fifo()


@pytest.mark.both(False, because="it damages a file")
def test_a_damaged_database(path: Path, tmp_path: Path) -> None:
    """Where the database cannot be read the old file stays."""
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany("INSERT INTO students (name) VALUES (?)", [(f"Student {number}",) for number in range(3000)])
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size // 2))
    target = tmp_path / "students.csv"
    target.write_text("old")
    result = export(str(target), path=path)
    assert result.exit_code == 1
    assert "cannot be used" in result.stderr
    assert target.read_text() == "old"


LIMITED = """
import resource, signal, sys
from service.__main__ import cli
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
cli(sys.argv[1:])
"""


def test_a_full_disk(db: pw.Database, path: Path | str, tmp_path: Path) -> None:
    """Where there is no room for the new file the old one stays, and nothing is left of the new one."""
    db.execute_sql(
        "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 2000)"
        " INSERT INTO students (name) SELECT 'Student with the number ' || x FROM n"
    )
    db.close()
    target = tmp_path / "students.csv"
    target.write_text("old")
    command = [sys.executable, "-c", LIMITED, "export", str(target), "--database-url", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "Error: Nothing was exported: File too large.\n")
    assert target.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir() if file.name.endswith(".part")] == []


def test_no_room_for_a_temporary_file(db: pw.Database) -> None:
    """What cannot be written to a temporary file is refused, and says why."""

    def full(_: pw.Database, __: Any) -> dict[str, int]:
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageUnavailable, match="The export cannot be written: No space left on device"):
        to_temporary(db, full)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_nothing(
    school: pw.Database, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Ctrl+C and SIGTERM end an export, and no file is left behind."""
    school.close()
    there: list[str] = []

    def interrupted(db: pw.Database, scan: selecting.Scan) -> Iterator[selecting.Page]:
        for page in selecting.pages(db, scan):
            there.extend(file.name for file in tmp_path.iterdir() if file.name.endswith(".part"))
            os.kill(os.getpid(), number)
            yield page

    monkeypatch.setattr(exporting, "pages", interrupted)
    usual = signal.getsignal(number)
    assert export(str(tmp_path / "out.zip"), path=path).exit_code == 128 + number
    assert signal.getsignal(number) is usual
    assert len(there) == 1
    assert [file.name for file in tmp_path.iterdir() if "out.zip" in file.name] == []


def test_large_members_of_a_zip(db: pw.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file in a zip may get larger than 4 GB, the zip is of the kind that can have it."""
    monkeypatch.setattr(exporting, "MANY", -1)
    with ZipFile(BytesIO(written(db, zip_of_csv()))) as archive:
        assert archive.testzip() is None
        assert {info.extract_version for info in archive.infolist()} == {45}
