"""Imports: what becomes of each row, that a second import changes nothing, and that a typo drops nobody."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import msgspec
import peewee as pw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import LEAVE_OUT, host_rule, is_file, refuse, run_sql, writing
from test_seats import audit, audited

from service import connect
from service.courses import find_course, insert_course
from service.enrollments import drop, enroll, list_roster, list_waitlist
from service.errors import SetupError
from service.events import list_events, why
from service.exchange import report as reports
from service.exchange import rosters, turns, upserting
from service.exchange.errors import UnreadableFile
from service.exchange.importing import Import, Options
from service.exchange.parts import Found, Kind, Part, Refused, Row, Skipped
from service.exchange.reading import ahead
from service.exchange.report import Progress, Report, RowTotals, lines
from service.exchange.work import Tick
from service.rows import ExternalId
from service.storage import backend_of
from service.students import find_student, insert_student, list_students

pytestmark = pytest.mark.both

Item = Mapping[str, str | None] | Skipped | Refused
ORDER: Sequence[Kind] = ("terms", "courses", "students", "enrollments")


def part(kind: Kind, *items: Item, file: str | None = None) -> Part:
    """Make a part of rows, which begin on line 2; a column is named as its field, in capitals."""
    named = [Row(line, item) if isinstance(item, Mapping) else item for line, item in enumerate(items, 2)]
    fields = {name: name.upper() for item in named if not isinstance(item, Skipped) for name in item.values}
    return Part(kind, file or f"{kind}.csv", fields, lambda: iter(named), 100)


def found(*parts: Part) -> Found:
    """Put parts in their order."""
    return Found("csv", sorted(parts, key=lambda part: ORDER.index(part.kind)), [])


def take(db: pw.Database, *parts: Part, tick: Tick = id, **options: Any) -> Report:
    """Import parts."""
    return Import(found(*parts), Options(**options), tick).run(db)


def pair(student: str, course: str, action: str = "enroll") -> dict[str, str | None]:
    """Give a row of an enrollment."""
    return {"student_external_id": student, "course_external_id": course, "action": action}


def students(*names: str) -> Part:
    """Give a part of students."""
    return part("students", *({"external_id": name, "name": f"Student {name}"} for name in names))


def courses(*names: str, **more: str | None) -> Part:
    """Give a part of courses."""
    return part("courses", *({"external_id": name, "name": name, "level": "1", **more} for name in names))


def enrollments(*rows: str) -> Part:
    """Give a part of enrollments, each written as "S1 C1" or "S1 C1 drop"."""
    return part("enrollments", *(pair(*row.split()) for row in rows))


def nonzero(totals: RowTotals) -> dict[str, Any]:
    """Give the totals that are not 0."""
    return {name: value for name, value in msgspec.structs.asdict(totals).items() if value}


def codes(report: Report) -> list[tuple[int, str | None, str]]:
    """Give the line, the column and the code of each refused row."""
    return [(row.line, row.column, row.code) for row in report.refused_rows]


def rosters_of(db: pw.Database) -> dict[str, tuple[list[str | None], list[str | None]]]:
    """Give who has a seat in each course, and who waits, by external ids."""
    rows = db.execute_sql("SELECT id, external_id FROM courses ORDER BY id").fetchall()
    return {
        name: (
            [row.external_id for row in list_roster(db, row_id)],
            [row.external_id for _, row in list_waitlist(db, row_id)],
        )
        for row_id, name in rows
    }


def state(db: pw.Database) -> list[Any]:
    """Give all that an import may change."""
    tables = ("terms", "courses", "students", "enrollments", "enrollment_events", "event_notes")
    return [db.execute_sql(f"SELECT * FROM {table}").fetchall() for table in tables]


SCHOOL = (
    part("terms", {"external_id": "fall", "name": "Fall", "starts_on": "2026-09-01"}),
    courses("C1", term_external_id="fall", capacity="1", waitlist_capacity="1"),
    students("S1", "S2", "S3"),
    enrollments("S3 C1", "S2 C1", "S1 C1"),
)


# What becomes of rows


def test_a_school(db: pw.Database, path: Path) -> None:
    """Terms, courses, students and enrollments are taken in this order, with seats and places in that of the files."""
    report = take(db, *reversed(SCHOOL))
    assert {kind: nonzero(totals) for kind, totals in report.totals.items()} == {
        "terms": {"created": 1},
        "courses": {"created": 1},
        "students": {"created": 3},
        "enrollments": {"enrolled": 1, "waitlisted": 1, "refused": 1},
    }
    assert report.finished
    assert not report.problem
    assert rosters_of(db) == {"C1": (["S3"], ["S2"])}
    assert codes(report) == [(4, "COURSE_EXTERNAL_ID", "course_full")]
    assert report.refused_rows[0].value == "C1"
    assert find_course(db, 1).term_id == 1
    audit(path)


def test_twice_is_once(db: pw.Database) -> None:
    """A second import of the same files finds all the same, and writes nothing."""
    take(db, *SCHOOL)
    before = state(db)
    report = take(db, *SCHOOL)
    assert state(db) == before
    assert [nonzero(report.totals[kind]) for kind in ORDER] == [
        {"unchanged": 1},
        {"unchanged": 1},
        {"unchanged": 3},
        {"unchanged": 2, "refused": 1},
    ]


def test_changes(db: pw.Database) -> None:
    """What a row says is changed, what it does not say stays, and a cell that is None clears its field."""
    take(db, *SCHOOL)
    report = take(
        db,
        part("students", {"external_id": "S1", "email": "ada@example.org"}, {"id": "2", "external_id": "T2"}),
        part(
            "courses",
            {"external_id": "C1", "capacity": None, "term_external_id": None, "opens_at": "2026-01-01T00:00:00Z"},
        ),
    )
    assert nonzero(report.totals["students"]) == {"updated": 2}
    assert nonzero(report.totals["courses"]) == {"updated": 1}
    assert (find_student(db, 1).name, find_student(db, 1).email) == ("Student S1", "ada@example.org")
    assert find_student(db, 2).external_id == "T2"
    course = find_course(db, 1)
    assert (course.capacity, course.waitlist_capacity, course.term_id) == (None, 1, None)
    assert rosters_of(db) == {"C1": (["T2", "S3"], [])}


def test_both_names(db: pw.Database) -> None:
    """Who has no name is named by both names, and a new family name changes the name too."""
    row = {"external_id": "S1", "given_name": "Ada", "family_name": "Byron"}
    take(db, part("students", row))
    report = take(db, part("students", row | {"family_name": "Lovelace"}))
    assert nonzero(report.totals["students"]) == {"updated": 1}
    assert find_student(db, 1).name == "Ada Lovelace"


REFUSED: list[tuple[Kind, Mapping[str, str | None], str | None, str]] = [
    ("students", {"external_id": "N1", "name": "N", "email": "nope"}, "EMAIL", "invalid_payload"),
    ("students", {"external_id": "N1", "name": "N", "shoe": "44"}, "SHOE", "invalid_payload"),
    ("students", {"external_id": "N1"}, "NAME", "invalid_payload"),
    ("students", {"external_id": ".."}, "EXTERNAL_ID", "invalid_payload"),
    ("students", {"name": "N"}, "EXTERNAL_ID", "invalid_payload"),
    ("students", {"id": "9", "name": "N"}, "ID", "student_not_found"),
    ("students", {"id": "x", "name": "N"}, "ID", "invalid_payload"),
    ("students", {"id": "1", "external_id": "S2"}, "EXTERNAL_ID", "external_id_taken"),
    ("courses", {"external_id": "N1", "name": "N"}, "LEVEL", "invalid_payload"),
    ("courses", {"external_id": "N1", "name": "N", "level": "1", "capacity": "many"}, "CAPACITY", "invalid_payload"),
    ("courses", {"external_id": "C1", "capacity": "0"}, "CAPACITY", "capacity_below_enrolled"),
    ("courses", {"external_id": "C1", "waitlist_capacity": "0"}, "WAITLIST_CAPACITY",
     "waitlist_capacity_below_waitlisted"),
    ("courses", {"external_id": "C1", "term_external_id": "no"}, "TERM_EXTERNAL_ID", "term_not_found"),
    ("courses", {"external_id": "C1", "term_external_id": ".."}, "TERM_EXTERNAL_ID", "invalid_payload"),
    ("courses", {"external_id": "C1", "term_id": "9"}, "TERM_ID", "term_not_found"),
    ("courses", {"id": "9", "name": "N"}, "ID", "course_not_found"),
    ("terms", {"external_id": "N1", "name": "N", "starts_on": "1.9."}, "STARTS_ON", "invalid_payload"),
    ("enrollments", pair("S1", "C1"), "COURSE_EXTERNAL_ID", "course_full"),
    ("enrollments", pair("S1", "C2"), "COURSE_EXTERNAL_ID", "enrollment_not_open"),
    ("enrollments", pair("S1", "C3"), "COURSE_EXTERNAL_ID", "enrollment_closed"),
    ("enrollments", pair("S9", "C9"), "STUDENT_EXTERNAL_ID", "student_not_found"),
    ("enrollments", pair("S1", "C9"), "COURSE_EXTERNAL_ID", "course_not_found"),
    ("enrollments", pair("S9", "C1", "drop"), "STUDENT_EXTERNAL_ID", "student_not_found"),
    ("enrollments", {"student_id": "9", "course_id": "1"}, "STUDENT_ID", "student_not_found"),
    ("enrollments", {"student_id": "1", "course_id": str(2**63)}, "COURSE_ID", "invalid_payload"),
    ("enrollments", {"student_id": "1", "course_id": "one"}, "COURSE_ID", "invalid_payload"),
    ("enrollments", {"student_id": "1"}, "COURSE_EXTERNAL_ID", "invalid_payload"),
    ("enrollments", pair("..", "C1"), "STUDENT_EXTERNAL_ID", "invalid_payload"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "row", "column", "code"), REFUSED)
def test_refusals(db: pw.Database, table: Kind, row: Mapping[str, str | None], column: str | None, code: str) -> None:
    """A row that cannot be taken says where, why and what to do; the rows around it are taken."""
    take(db, *SCHOOL)
    insert_course(db, "Later", "1", external_id="C2", opens_at="2999-01-01T00:00:00Z")
    insert_course(db, "Over", "1", external_id="C3", closes_at="2000-01-01T00:00:00Z")
    others: dict[Kind, tuple[Item, Item]] = {
        "terms": ({"external_id": "A", "name": "A"}, {"external_id": "B", "name": "B"}),
        "courses": ({"external_id": "A", "name": "A", "level": "1"}, {"external_id": "B", "name": "B", "level": "1"}),
        "students": ({"external_id": "A", "name": "A"}, {"external_id": "B", "name": "B"}),
        "enrollments": (pair("S3", "C1"), pair("S2", "C1")),
    }
    report = take(db, part(table, others[table][0], row, others[table][1]))
    ((kept),) = report.refused_rows
    assert (kept.kind, kept.file, kept.line, kept.column, kept.code) == (table, f"{table}.csv", 3, column, code)
    assert kept.value == row.get((column or "").lower())
    assert kept.detail.endswith(".")
    assert "{" not in kept.detail
    assert sum(nonzero(report.totals[table]).get(name, 0) for name in ("created", "unchanged")) == 2


def test_rows_that_say_other_things(db: pw.Database) -> None:
    """Each cell gets to its own column, also where the rows beside it leave out what is made of others."""
    parts = {"given_name": "Alan", "family_name": "Turing"}
    rows = [{"external_id": "S1", **parts}, {"external_id": "S2", "name": "Turing, Alan", **parts}]
    for some in (rows, [{**dict(reversed(row.items())), "external_id": f"{row['external_id']}+"} for row in rows]):
        take(db, part("students", *some))
    there = [(row.external_id, row.name, row.given_name, row.family_name) for row in list_students(db)]
    assert sorted(there) == [
        (key, name, "Alan", "Turing")
        for key, name in (
            *(("S1", "Alan Turing"), ("S1+", "Alan Turing")),
            *(("S2", "Turing, Alan"), ("S2+", "Turing, Alan")),
        )
    ]


@pytest.mark.parametrize("cell", ["unlimited", "Unlimited", "UNLIMITED"])
def test_no_limit(db: pw.Database, cell: str) -> None:
    """A course without a limit has a word for that, in any letters."""
    take(db, courses("C1", capacity="1", waitlist_capacity="1"))
    report = take(db, courses("C1", capacity=cell, waitlist_capacity=cell))
    assert nonzero(report.totals["courses"]) == {"updated": 1}
    assert (find_course(db, 1).capacity, find_course(db, 1).waitlist_capacity) == (None, None)


@pytest.mark.parametrize("cell", ["30.0", "1,000", "-1", "+5", "many", "٣", "none", "9223372036854775808"])
def test_what_is_no_limit(db: pw.Database, cell: str) -> None:
    """What a limit must be is said as a spreadsheet has it, where nothing is null."""
    (row,) = take(db, courses("C1", capacity=cell)).refused_rows
    assert row.value == cell
    assert row.detail.startswith("CAPACITY must be a whole number without signs, such as 30, or the word unlimited.")


def test_the_same_external_id_twice(db: pw.Database) -> None:
    """A row that says the same as an earlier one changes nothing; one that says something else is refused."""
    row = {"external_id": "S1", "name": "Ada"}
    report = take(
        db,
        part("students", row, row, {"external_id": "S1", "name": "Eve"}, row),
        part(
            "students", {"external_id": "S1", "email": "eve@example.org"}, {"id": "1", "name": "Eve"}, file="more.csv"
        ),
    )
    assert nonzero(report.totals["students"]) == {"created": 1, "unchanged": 2, "refused": 3}
    assert codes(report) == [(4, "EXTERNAL_ID", "repeated"), (2, "EXTERNAL_ID", "repeated"), (3, "ID", "repeated")]
    assert all("Line 2 of students.csv" in row.detail for row in report.refused_rows)
    assert find_student(db, 1).name == "Ada"


def test_repeated_in_another_slice(db: pw.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier slice has taken is remembered."""
    monkeypatch.setattr(turns, "SHORT", (0, 0, 0))
    insert_student(db, "Ada", external_id="S1")
    rows = [{"external_id": "S1", "name": name} for name in ("Bo", "Cy")]
    assert codes(take(db, part("students", *rows))) == [(3, "EXTERNAL_ID", "repeated")]
    assert find_student(db, 1).name == "Bo"


def test_skipped_and_unreadable_rows(db: pw.Database) -> None:
    """What a format leaves out is counted by its reason, and what it refuses is among the refused rows."""
    bad = Refused(3, "ACTION", "joined", "invalid_row", "Write enroll or drop.", pair("S1", "C1", "joined"))
    report = take(
        db,
        students("S1"),
        courses("C1"),
        part("enrollments", Skipped(2, "role teacher"), bad, pair("S1", "C1"), Skipped(5, "role teacher")),
    )
    assert nonzero(report.totals["enrollments"]) == {
        "enrolled": 1, "refused": 1, "skipped": {"role teacher": 2},
    }  # fmt: skip
    assert codes(report) == [(3, "ACTION", "invalid_row")]


def test_override(db: pw.Database, path: Path) -> None:
    """With an override everybody gets a seat, and who waits too; a second time nothing is changed."""
    take(db, *SCHOOL)
    report = take(db, enrollments("S1 C1", "S2 C1", "S3 C1"), override=True)
    assert nonzero(report.totals["enrollments"]) == {"enrolled": 2, "unchanged": 1}
    assert rosters_of(db) == {"C1": (["S1", "S2", "S3"], [])}
    before = state(db)
    take(db, enrollments("S1 C1", "S2 C1", "S3 C1"), override=True)
    assert state(db) == before
    audit(path)


def test_who_and_why(db: pw.Database) -> None:
    """The events of an import say who imports, and why, where that is told."""
    take(db, *SCHOOL)
    take(db, enrollments("S3 C1 drop", "S1 C1"), why=why("office", "fall import"))
    told = [(event.type, event.actor, event.reason) for event in list_events(db)]
    assert told[:2] == [("enrolled", None, None), ("waitlisted", None, None)]
    assert told[2:] == [
        ("dropped", "office", "fall import"),
        ("promoted", None, None),
        ("waitlisted", "office", "fall import"),
    ]


@pytest.fixture
def full(db: pw.Database) -> pw.Database:
    """Have C1 of the term fall and C2 of no term, each with S1 to S4; in C1 S3 and S4 wait."""
    take(
        db,
        part("terms", {"external_id": "fall", "name": "Fall"}),
        part(
            "courses",
            {"external_id": "C1", "name": "1", "level": "1", "capacity": "2", "waitlist_capacity": "9",
             "term_external_id": "fall"},
            {"external_id": "C2", "name": "2", "level": "1"},
        ),
        students("S1", "S2", "S3", "S4"),
        enrollments(*(f"S{student} C{course}" for course in (1, 2) for student in (1, 2, 3, 4))),
    )  # fmt: skip
    return db


# Drops


def test_drops_come_first(db: pw.Database, path: Path) -> None:
    """Seats are free before anybody is enrolled, wherever in the files the drops are."""
    take(db, *SCHOOL)
    report = take(db, enrollments("S1 C1", "S2 C1 drop", "S3 C1 drop", "S3 C1 drop", "S1 C1 enroll"))
    assert nonzero(report.totals["enrollments"]) == {"enrolled": 1, "dropped": 2, "unchanged": 2}
    assert rosters_of(db) == {"C1": (["S1"], [])}
    # Who waited was dropped before a seat fell free.
    assert [event[0] for event in audit(path)] == ["enrolled", "waitlisted", "dropped", "dropped", "enrolled"]


def test_a_rule_that_drops_more(full: pw.Database, path: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whom a trigger of the host has dropped already, or another program, is as the row wants it."""
    monkeypatch.setattr(turns, "SHORT", (0, 0, 0))
    also = "DELETE FROM enrollments WHERE student_id = 2 AND course_id = 2"
    with host_rule(path, "AFTER DELETE ON enrollments", also, when="OLD.student_id = 1 AND OLD.course_id = 2"):
        report = take(full, enrollments("S1 C2 drop", "S2 C2 drop", "S3 C2 drop"))
    assert nonzero(report.totals["enrollments"]) == {"dropped": 2, "unchanged": 1}
    assert rosters_of(full)["C2"] == (["S4"], [])


@pytest.mark.parametrize("rows", [("S3 C1 drop", "S3 C1"), ("S3 C1", "S3 C1 drop")])
def test_an_active_row_wins(db: pw.Database, rows: Sequence[str]) -> None:
    """Where one row enrolls and one drops the same pair, it stays, whatever the order."""
    take(db, *SCHOOL)
    before = state(db)
    report = take(db, enrollments(*rows, "S1 C1 drop"))
    assert state(db) == before
    assert nonzero(report.totals["enrollments"]) == {"unchanged": 2, "skipped": {rosters.SUPERSEDED: 1}}


@pytest.mark.parametrize("format_", ["csv", "canvas", "oneroster"])
def test_a_drop_of_nobody(db: pw.Database, format_: Literal["csv", "canvas", "oneroster"]) -> None:
    """A student system tells of students and courses that are gone; a hand that writes a list may have slipped."""
    take(db, *SCHOOL)
    rows = enrollments("S9 C1 drop", "S1 C9 drop", "S9 C9 drop", "S9 C1", "S3 C1 drop", f"{'x' * 201} C1 drop")
    totals = Import(Found(format_, [rows], [])).run(db).totals["enrollments"]
    skipped = {} if format_ == "csv" else {"skipped": {rosters.NOT_THERE: 3}}
    assert nonzero(totals) == {"dropped": 1, "refused": 2 if skipped else 5, **skipped}


# Who is missing


ALL: dict[str, Any] = {"drop_missing": True, "max_drops": 100}


def test_missing_are_dropped(full: pw.Database, path: Path) -> None:
    """Who is in a course of the files, but not in the files, is dropped, who waits first; other courses stay."""
    events = len(audit(path))
    report = take(full, enrollments("S3 C1"), **ALL)
    assert rosters_of(full) == {"C1": (["S3"], []), "C2": (["S1", "S2", "S3", "S4"], [])}
    assert nonzero(report.totals["enrollments"]) == {"dropped": 3, "unchanged": 1}
    assert [(row.course_external_id, row.student_external_id) for row in report.missing] == [
        ("C1", "S4"), ("C1", "S1"), ("C1", "S2"),
    ]  # fmt: skip
    assert report.missing_count == 3
    assert [event[0] for event in audit(path)[events:]] == ["dropped", "dropped", "promoted", "dropped"]


def test_only_where_it_is_asked_for(full: pw.Database) -> None:
    """Without the option nobody is dropped for being missing."""
    before = state(full)
    take(full, enrollments("S3 C1"))
    assert state(full) == before


def test_too_many_drops(full: pw.Database) -> None:
    """Where more would be dropped than may be, nothing of the import is done, and the report says who it would be."""
    before = state(full)
    report = take(full, students("S9"), enrollments("S9 C1", "S1 C1", "S2 C1"), drop_missing=True, max_drops=49.9)
    assert state(full) == before
    assert report.problem
    assert report.problem.code == "too_many_drops"
    assert "up to 50 %." in report.problem.detail
    assert (report.missing_count, report.finished) == (2, False)
    allowed = take(full, students("S9"), enrollments("S9 C1", "S1 C1", "S2 C1"), drop_missing=True, max_drops=50)
    assert nonzero(allowed.totals["enrollments"]) == {"waitlisted": 1, "dropped": 2, "unchanged": 2}


FOUR = "S1 S2 S3 S4"
FALL, NEW = (part("terms", {"external_id": name, "name": name}) for name in ("fall", "new"))


@pytest.mark.parametrize(
    ("parts", "one", "two"),
    [
        # Rows of courses speak of courses, too.
        ([courses("C1", capacity=None)], "", FOUR),
        ([part("courses", {"id": "1", "name": "One"})], "", FOUR),
        # A student or a course that is not there may be a typo; one that the files bring is none.
        ([enrollments("S1 C1", "S9 C1")], FOUR, FOUR),
        ([enrollments("S1 C1", "S1 C2", "S2 C9")], "S1 S2", "S1 S2"),
        ([enrollments("S1 C1", "S9 C9")], FOUR, FOUR),
        ([enrollments("S1 C1", "S9 C1"), students("S9")], "S1 S9", FOUR),
        ([enrollments("S1 C1", "S2 C9"), courses("C9")], "S1", FOUR),
        # Where terms are named, other courses are not meant.
        ([enrollments("S1 C1", "S1 C2"), FALL], "S1", FOUR),
        ([enrollments("S1 C1", "S1 C2"), NEW], FOUR, FOUR),
        ([enrollments("S1 C2"), part("courses", {"external_id": "C2", "term_external_id": "fall"})], FOUR, "S1"),
        ([enrollments("S1 C2"), part("courses", {"external_id": "C1", "term_id": "1"})], "", FOUR),
        # A row that drops somebody speaks of the student; so does one that is refused.
        ([enrollments("S1 C1", "S1 C2", "S2 C1 drop")], "S1", "S1"),
        ([part("enrollments", pair("S1", "C1"), Refused(3, None, "", "no", "", pair("S2", "C1", "?")))], "S1 S2", FOUR),
        ([part("enrollments", pair("S1", "C1"), Refused(3, None, "", "no", ""))], FOUR, FOUR),
        # An external id that is changed is known by the old row.
        ([enrollments("S1 C1", "T2 C1"), part("students", {"id": "2", "external_id": "T2"})], "S1 T2", "S1 S3 S4 T2"),
    ],
)
def test_who_is_missing(full: pw.Database, parts: Sequence[Part], one: str, two: str) -> None:
    """Nobody is dropped whom a row may have meant, and nobody who is in a course of another term."""
    take(full, *parts, **ALL)
    there = {name: " ".join(sorted(map(str, seats + line))) for name, (seats, line) in rosters_of(full).items()}
    assert (there["C1"], there["C2"]) == (one, two)


def test_a_note_says_where_nobody_is_dropped(full: pw.Database) -> None:
    """Where a typo may be the reason that somebody is missing, the report says so."""
    assert "In 1 of the courses nobody who is missing is dropped" in take(full, enrollments("S9 C1"), **ALL).notes[0]


# A dry run


@pytest.mark.parametrize("options", [{}, ALL, {"override": True}])
def test_a_dry_run_changes_nothing_and_says_all(full: pw.Database, options: Mapping[str, Any]) -> None:
    """A dry run's report is that of the import itself, and nothing is changed, nor left in the temporary folder."""
    parts = (students("S9"), enrollments("S9 C1", "S1 C1", "S8 C1", "S4 C2 drop"), courses("C1", capacity="1"))
    before = state(full)
    planned = take(full, *parts, dry_run=True, **options)
    assert state(full) == before
    done = take(full, *parts, **options)
    for report in (planned, done):
        report.seconds = 0
    assert planned.dry_run
    assert msgspec.structs.replace(planned, dry_run=False) == done


def test_a_dry_run_never_waits(
    db: pw.Database, path: Path | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another program writes, a dry run goes on; its copy is removed, whatever happens."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shown: list[Progress] = []
    with writing(path):
        assert take(db, *SCHOOL, dry_run=True, tick=shown.append).finished
    assert {progress.stage for progress in shown} >= {"copying", "reading", "enrollments"}
    with pytest.raises(ZeroDivisionError):
        take(db, *SCHOOL, dry_run=True, tick=lambda _: 1 / 0)
    assert not [*tmp_path.glob("enrollment-*")]


# What happens meanwhile


def test_a_stop_between_slices(db: pw.Database, path: Path) -> None:
    """What was committed before an error of `tick` stays and is in the report; the same import again does the rest."""

    def tick(progress: Progress) -> None:
        if progress.stage == "students":
            raise KeyboardInterrupt

    work = Import(found(*SCHOOL), Options(), tick)
    with pytest.raises(KeyboardInterrupt):
        work.run(db)
    assert not work.report.finished
    assert nonzero(work.report.totals["students"]) == {"created": 3}
    assert nonzero(work.report.totals["enrollments"]) == {}
    assert nonzero(take(db, *SCHOOL).totals["students"]) == {"unchanged": 3}
    assert rosters_of(db) == {"C1": (["S3"], ["S2"])}
    audit(path)


def test_progress(db: pw.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage ends with all of its rows done."""
    monkeypatch.setattr(turns, "SHORT", (0, 0, 0))
    shown: list[Progress] = []
    take(db, *SCHOOL, tick=shown.append)
    last = {progress.stage: progress for progress in shown}
    assert [*last] == ["reading", "terms", "courses", "students", "enrollments"]
    assert [progress.rows for progress in last.values()] == [8, 1, 1, 3, 3]
    assert {progress.percent for stage, progress in last.items() if stage != "reading"} == {100}
    assert [progress.rows for progress in shown if progress.stage == "enrollments"] == [1, 2, 3, 3]


def test_a_lock_of_another_program(db: pw.Database, path: Path | str) -> None:
    """Where another program writes for too long, the report says so."""
    db.execute_sql("PRAGMA busy_timeout = 1" if is_file(path) else "SET lock_timeout = 1")
    with writing(path):
        report = take(db, *SCHOOL)
    assert report.problem
    assert report.problem.code == "busy"
    assert not report.finished


@pytest.mark.both(False, because="it bounds the size of a file")
def test_a_full_disk(db: pw.Database, path: Path) -> None:
    """Where the disk is full, what was committed stays, and the import goes on once there is room."""
    ((pages,),) = db.execute_sql("PRAGMA page_count").fetchall()
    db.execute_sql(f"PRAGMA max_page_count = {pages + 20}")
    many = students(*(f"S{number}" for number in range(2_000)))
    report = take(db, many)
    assert report.problem
    assert report.problem.code == "storage_unavailable"
    assert "full" in report.problem.detail
    assert "What was committed before stays." in report.problem.detail
    ((kept,),) = db.execute_sql("SELECT count(*) FROM students").fetchall()
    assert report.totals["students"].created == kept
    db.execute_sql("PRAGMA max_page_count = 1000000")
    assert nonzero(take(db, many).totals["students"]) == {"created": 2_000 - kept} | (
        {"unchanged": kept} if kept else {}
    )
    audit(path)


RULES = {
    "ABORT": ("BEFORE", refuse("not this one")),
    "FAIL": ("AFTER", {**refuse("not this one"), "sqlite": "SELECT raise(FAIL, 'not this one')"}),
    "ROLLBACK": (
        "AFTER",
        {
            "sqlite": "SELECT raise(ROLLBACK, 'not this one')",
            "postgresql": "RAISE check_violation USING MESSAGE = 'not this one'",
        },
    ),
}
"""When a trigger refuses a row, and how; a trigger of PostgreSQL cannot undo more than its statement."""


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("table", "when", "count"), [("students", "NEW.external_id = 'S2'", 2), ("enrollments", "NEW.student_id = 2", 1)]
)
def test_a_rule_of_another_program(  # noqa: PLR0913, PLR0917 - two tables of parameters.
    db: pw.Database, path: Path | str, rule: str, table: Kind, when: str, count: int
) -> None:
    """A row that a trigger of the host refuses, in whatever way, is refused alone, and in the trigger's words."""
    moment, does = RULES[rule]
    with host_rule(path, f"{moment} INSERT ON {table}", does, when=when):
        report = take(db, courses("C1"), students("S1", "S2", "S3"), enrollments("S1 C1", "S2 C1", "S3 C1"))
    refused = [row for row in report.refused_rows if row.code == "constraint_violated"]
    assert [(row.kind, row.line) for row in refused] == [(table, 3)]
    assert "not this one" in refused[0].detail
    assert report.refused_rows[-1].line == 3
    assert len(report.refused_rows) == count
    assert rosters_of(db) == {"C1": (["S1", "S3"], [])}
    audit(path)


def test_a_rule_that_leaves_a_row_out(db: pw.Database, path: Path | str) -> None:
    """A row that a trigger of the host leaves out without a word is refused, and the others are added."""
    with host_rule(path, "BEFORE INSERT ON students", LEAVE_OUT, when="NEW.external_id = 'S2'"):
        report = take(db, students("S1", "S2", "S3"))
    assert [(row.line, row.code) for row in report.refused_rows] == [(3, "constraint_violated")]
    assert [each.external_id for each in list_students(db)] == ["S1", "S3"]


def test_the_same_in_another_form(db: pw.Database) -> None:
    """A row that differs from what is stored by its form alone changes nothing."""
    take(db, part("students", {"external_id": "S1", "name": "Zo\u00eb"}))
    report = take(db, part("students", {"external_id": "S1 ", "name": "Zoe\u0308"}))
    assert nonzero(report.totals["students"]) == {"unchanged": 1}


def test_a_rule_that_keeps_somebody(full: pw.Database, path: Path | str) -> None:
    """A drop that a trigger of the host refuses is among the refused rows, whether a row asks for it or none."""
    with host_rule(path, "BEFORE DELETE ON enrollments", refuse("they stay"), when="OLD.student_id < 3"):
        report = take(full, enrollments("S3 C1", "S4 C1 drop", "S1 C1 drop"), **ALL)
    assert [(row.file, row.line, row.code) for row in report.refused_rows] == [
        ("enrollments.csv", 4, "constraint_violated"),
        ("", 0, "constraint_violated"),
    ]
    assert nonzero(report.totals["enrollments"]) == {"dropped": 1, "unchanged": 1, "refused": 2}


def test_a_rule_that_is_checked_at_commit(db: pw.Database, path: Path | str) -> None:
    """A deferred foreign key of the host refuses its row alone."""
    run_sql(
        path,
        "CREATE TABLE rooms (id INTEGER PRIMARY KEY)",
        "CREATE TABLE keys (room INTEGER REFERENCES rooms (id) DEFERRABLE INITIALLY DEFERRED)",
    )
    with host_rule(path, "AFTER INSERT ON students", "INSERT INTO keys VALUES (7)", when="NEW.external_id = 'S2'"):
        report = take(db, students("S1", "S2", "S3"))
    assert codes(report) == [(3, None, "constraint_violated")]
    assert "rooms" in report.refused_rows[0].detail
    assert nonzero(report.totals["students"]) == {"created": 2, "refused": 1}


def test_who_changes_meanwhile(full: pw.Database, path: Path) -> None:
    """Rows that others have enrolled or dropped in the meantime are as they should be already."""

    def tick(progress: Progress) -> None:
        with closing(connect(path)) as other:
            if (
                progress.stage == "dropping"
                and not progress.rows
                and rosters_of(other)["C2"][0] == ["S1", "S2", "S3", "S4"]
            ):
                drop(other, ExternalId("S1"), ExternalId("C2"))
            if progress.stage == "dropping" and progress.rows and "S9" not in rosters_of(other)["C2"][0]:
                enroll(other, ExternalId("S9"), ExternalId("C2"))

    report = take(full, students("S9"), enrollments("S1 C2 drop", "S9 C2"), tick=tick)
    assert report.finished
    assert rosters_of(full)["C2"] == (["S2", "S3", "S4", "S9"], [])


def test_the_others_have_their_turn(db: pw.Database, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two slices is a pause."""
    monkeypatch.setattr(turns, "QUIET", 0)
    monkeypatch.setattr(turns, "LONG", (0, 0, 0.1))
    report = take(db, students(*(f"S{number}" for number in range(4 * upserting.TOGETHER))))
    assert report.seconds >= 0.3  # Each slice is one statement, so there are four of them.
    audit(path)


@pytest.mark.both(False, because="PostgreSQL tells who waits, in tests/test_postgresql_rules.py")
def test_slices_are_short_where_others_write(db: pw.Database, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody else writes, slices are long; the first write of another connection makes them short again."""
    monkeypatch.setattr(turns, "QUIET", 0)
    taking = turns.Turns(db, alone=False)

    def seconds() -> float:
        began = time.monotonic()
        ((until,),) = taking.write([0], lambda _, until: [(until - began,)])  # type: ignore[misc]
        return float(until)

    assert seconds() > turns.LONG[0] - 0.01
    insert_into(path)
    monkeypatch.setattr(turns, "QUIET", 60)
    assert seconds() < turns.LONG[0]
    assert seconds() < turns.LONG[0]


def test_who_waits_has_its_turn(db: pw.Database, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program that waits for the file gets it, although slice follows slice without a break in between."""
    monkeypatch.setattr(turns, "QUIET", 0)
    taking, held = turns.Turns(db, alone=False), 0.0

    def hold(rows: Sequence[int], until: float) -> Sequence[int]:
        nonlocal held
        began = time.monotonic()
        time.sleep(max(0, until - began))
        held += time.monotonic() - began
        return rows

    taking.write([0], hold)
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(insert_into, path)
        while not waiting.done():
            taking.write([0], hold)
        waiting.result()
    # On a machine that is busy, it may miss the first pause.
    assert held < 3 * turns.LONG[1]


def test_a_pause_may_begin_with_other_work(db: pw.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where other work has kept an import from writing for a while, the rest of the pause comes at once."""
    monkeypatch.setattr(turns, "QUIET", 0)
    monkeypatch.setattr(turns, "LONG", (0.1, 0.1, 0.1))
    taking, moments = turns.Turns(db, alone=False), list[float]()

    def work(rows: Sequence[int], _: float) -> Sequence[int]:
        moments.append(time.monotonic())
        time.sleep(0.06)
        return rows

    taking.write([0], work)
    time.sleep(0.06)
    taking.write([0], work)
    assert moments[1] - moments[0] >= 0.06 + 0.1


def insert_into(path: Path) -> None:
    """Write with another connection."""
    with closing(connect(path)) as other:
        insert_student(other, "Ada")


# Reading ahead


def counted(count: int, read: list[int]) -> Part:
    """Give a part whose rows note their lines as they are read; behind them is the end of a broken file."""

    def rows() -> Iterator[Row]:
        for line in range(count):
            read.append(line)
            yield Row(line, {})
        raise UnreadableFile("It breaks off.")

    return Part("students", "students.csv", {}, rows, 100)


def test_rows_are_read_ahead() -> None:
    """While some rows are at work the next ones are read, in another thread, but no more of them."""
    read = list[int]()
    with closing(ahead([counted(10, read)], 2)) as some:
        assert [row.line for _, row in next(some)] == [0, 1]
        eventually(lambda: len(read) == 4)
        assert [row.line for _, row in next(some)] == [2, 3]
        eventually(lambda: len(read) == 6)
        assert len(read) == 6
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("enrollment-reader")]


def test_a_fault_that_is_read_ahead() -> None:
    """A fault is raised once the rows before are taken."""
    with closing(ahead([counted(2, [])], 2)) as some:
        assert len(next(some)) == 2
        with pytest.raises(UnreadableFile, match="breaks off"):
            next(some)


def eventually(reached: Callable[[], bool]) -> None:
    """Wait for another thread."""
    until = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("last", "order"),
    [({"external_id": "S4", "given_name": "b", "family_name": "y"}, "S2 S4 S3 S1"),
     ({"external_id": "S1 ", "name": "z"}, "S1 S2 S3"), ({"id": "9", "name": "b"}, "S1 S2 S3")],
)  # fmt: skip
def test_many_students(db: pw.Database, monkeypatch: pytest.MonkeyPatch, last: Mapping[str, str], order: str) -> None:
    """Many students are added by their names, and in the order of the file where that may count; refusals by line."""
    monkeypatch.setattr(upserting, "MANY", 5)
    named = [{"external_id": f"S{number}", "name": name} for number, name in enumerate(("z", "Az", "c"), 1)]
    report = take(db, part("students", *named, {"external_id": "S0", "name": " "}, last))
    assert [student.external_id for student in list_students(db)] == order.split()
    assert report.refused_rows[0].line == 5
    assert report.finished


# The refused rows


def refused_rows(path: Path) -> list[str]:
    """Read the lines of a CSV file."""
    return path.read_text("utf-8-sig").splitlines()


def test_the_refused_rows_to_be_mended(db: pw.Database, tmp_path: Path) -> None:
    """The refused rows come with all of their cells, by the file's own columns; each kind has a file of its own."""
    place = tmp_path / "bad.csv"
    bad = Refused(4, "ACTION", "joined", "invalid_row", "Write enroll or drop.", pair("S1", "C1", "joined"))
    rows = part("enrollments", pair("S9", "C1"), pair("S1", "C1"), bad)
    report = take(db, courses("C1"), students("S1"), rows, refused_to=place)
    assert report.refused_files == [str(place)]
    head, one, two = refused_rows(place)
    assert head == "STUDENT_EXTERNAL_ID,COURSE_EXTERNAL_ID,ACTION,line,code,reason"
    assert one.startswith('S9,C1,enroll,2,student_not_found,"No student')
    assert two == "S1,C1,joined,4,invalid_row,Write enroll or drop."
    noemail = part("students", {"external_id": "S2", "name": "B", "email": "b"})
    report = take(db, noemail, rows, refused_to=place)
    assert report.refused_files == [str(tmp_path / f"bad-{kind}.csv") for kind in ("students", "enrollments")]
    assert refused_rows(tmp_path / "bad-students.csv")[1].startswith("S2,B,b,2,invalid_payload,")
    assert {*tmp_path.iterdir()} >= {place}
    assert not [*tmp_path.glob(".bad*")]


def test_nothing_was_refused(db: pw.Database, tmp_path: Path) -> None:
    """Where no row was refused, the file says so, whatever an earlier import had put there."""
    place = tmp_path / "bad.csv"
    place.write_text("old", "utf-8")
    assert take(db, students("S1"), refused_to=place).refused_files == []
    assert refused_rows(place) == ["line,code,reason"]


def test_columns_of_another_format(db: pw.Database, tmp_path: Path) -> None:
    """Refused rows of another format are written by the names of the API."""
    bad = Found("canvas", [enrollments("S9 C9")], [])
    Import(bad, Options(refused_to=tmp_path / "bad.csv")).run(db)
    assert refused_rows(tmp_path / "bad.csv")[0].startswith("student_external_id,course_external_id,action,")


def test_no_place_for_the_refused_rows(db: pw.Database, tmp_path: Path) -> None:
    """Where the file cannot be written, nothing is imported."""
    with pytest.raises(SetupError, match="cannot be written"):
        take(db, students("S1"), refused_to=tmp_path / "no" / "bad.csv")
    assert not state(db)[2]


def test_the_report_is_bounded(full: pw.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report lists the first refused rows and the first who are missing, and counts all."""
    for module in ("importing", "refusals"):
        monkeypatch.setattr(f"service.exchange.{module}.MOST_LISTED", 2)
    report = take(full, enrollments("S1 C8", "S1 C7", "S1 C6", "S1 C1"), **ALL)
    assert (len(report.refused_rows), report.refused_count) == (2, 3)
    assert (len(report.missing), report.missing_count) == (2, 3)


def test_the_report_for_people(full: pw.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal shows totals, who is missing, the first refused rows with what to do, and how to see more."""
    monkeypatch.setattr(reports, "MOST_SHOWN", 1)
    report = take(full, enrollments("S1 C1"), courses("C8" * 50), **ALL)
    report.refused_rows += take(full, enrollments("S9 " + "C" * 60, "S9\x1b C2")).refused_rows
    report.totals["enrollments"].refused = 2
    report.totals["enrollments"].skipped["role teacher"] = 3
    report.refused_files = ["bad.csv"]
    shown = "\n".join(lines(report))
    assert "3 enrollments are not in the files, and are dropped:" in shown
    assert "and 2 more; --json" in shown
    assert "and 1 more." in shown
    assert "bad.csv has the refused rows" in shown
    assert "3 of enrollments left out: role teacher." in shown
    assert shown.endswith(" s.")
    report.missing_count = 1
    assert "1 enrollment is not in the files, and is dropped:" in lines(report)
    report.refused_files = []
    assert "--report FILE" in "\n".join(lines(report))
    assert "\x1b" not in "\n".join(lines(report))
    assert reports.short("x" * 41) == "x" * 39 + "…"
    assert reports.short("\x1bx") == "�x"


def test_an_empty_import(db: pw.Database) -> None:
    """Where there are no rows, nothing is done, and that is said."""
    assert [*lines(take(db))][-1].startswith("Done in")
    assert [*lines(take(db, dry_run=True))][-1].endswith("nothing was changed.")


# Whatever the rows


NAMES = st.sampled_from(["S1", "S2", "S3", "S9"])
ROWS = st.lists(st.tuples(NAMES, st.sampled_from(["C1", "C2", "C9"]), st.sampled_from(["enroll", "drop"])), max_size=12)


@pytest.fixture
def small(db: pw.Database) -> pw.Database:
    """Have two small courses, three students, and some of them enrolled."""
    take(db, courses("C1", "C2", capacity="1", waitlist_capacity="1"), students("S1", "S2", "S3"))
    take(db, enrollments("S3 C1", "S2 C1", "S2 C2"))
    return db


@pytest.mark.long
@settings(max_examples=10)
@given(rows=ROWS, missing=st.booleans(), data=st.data())
def test_any_roster(small: pw.Database, rows: list[tuple[str, str, str]], missing: bool, data: Any) -> None:
    """Whatever the rows: a second import changes nothing that the first one could do, and drops are of no order."""
    options: dict[str, Any] = {"drop_missing": missing, "max_drops": 100}
    dropped = []
    for order in (rows, data.draw(st.permutations(rows))):
        with backend_of(small).copied(small, max) as db:
            take(db, part("enrollments", *(pair(*row) for row in order)), **options)
            first = state(db)
            dropped.append(sorted((e.student_id, e.course_id) for e in list_events(db) if e.type == "dropped"))
            second = take(db, part("enrollments", *(pair(*row) for row in order)), **options)
            assert second.totals["enrollments"].dropped == 0
            if not second.totals["enrollments"].enrolled + second.totals["enrollments"].waitlisted:
                assert state(db) == first
            third = take(db, part("enrollments", *(pair(*row) for row in order)), **options)
            assert (third.totals["enrollments"].enrolled, third.totals["enrollments"].waitlisted) == (0, 0)
            audited(db)
    assert dropped[0] == dropped[1]


def test_a_file_that_breaks_off(db: pw.Database) -> None:
    """Where a file cannot be read to its end, nothing of the import is done."""

    def rows() -> Iterator[Row]:
        yield Row(2, {"external_id": "S1", "name": "Ada"})
        raise SetupError("students.csv breaks off.")

    with pytest.raises(SetupError, match="breaks off"):
        take(db, courses("C1"), Part("students", "students.csv", {}, rows, 9))
    assert state(db)[1] == []
