"""What is exported is imported to the same state: schools made up at random, as CSV and as OneRoster."""

import csv
import json
import random
import shutil
from collections import Counter
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import peewee as pw
import pytest
import roster_files
import school_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_cli import run
from test_exporting import HOSTILE
from test_oulad import OULAD

from service import connect
from service.courses import insert_course
from service.enrollments import enroll
from service.errors import ServiceError
from service.exchange.exporting import Export, RosterExport, csv_of, oneroster_of, to_paths, zip_of_csv
from service.exchange.formats import read
from service.exchange.importing import Import, Options
from service.exchange.records import KINDS
from service.fields import NAME, external_id_text
from service.storage import fetch
from service.students import insert_student
from service.terms import insert_term

pytestmark = pytest.mark.both

STATE = {
    "terms": "SELECT external_id, name, starts_on, ends_on FROM terms ORDER BY external_id",
    "courses": """
        SELECT courses.external_id, courses.name, level, capacity, waitlist_capacity, enrolled, waitlisted,
            terms.external_id
        FROM courses LEFT JOIN terms ON terms.id = term_id ORDER BY courses.external_id""",
    "students": "SELECT external_id, name, given_name, family_name, email FROM students ORDER BY external_id",
    "seats": """
        SELECT courses.external_id, students.external_id FROM enrollments
        JOIN students ON students.id = student_id JOIN courses ON courses.id = course_id
        WHERE waiting IS NULL ORDER BY 1, 2""",
    "lines": """
        SELECT courses.external_id, students.external_id FROM enrollments
        JOIN students ON students.id = student_id JOIN courses ON courses.id = course_id
        WHERE waiting IS NOT NULL ORDER BY 1, waiting""",
}


def state(db: pw.Database) -> dict[str, list[Any]]:
    """Give what there is, without ids, times and events."""
    return {name: fetch(db, sql) for name, sql in STATE.items()}


def imported(empty: Path, folder: Path, *files: Path) -> tuple[dict[str, list[Any]], list[Any]]:
    """Import files into an empty database, and give what there is then, and the rows that were refused."""
    target = Path(shutil.copy(empty, folder / "target.db"))
    with closing(connect(target)) as db, TemporaryDirectory(dir=folder) as work:
        importing = Import(read(files, None, work=Path(work)), Options(), lambda _: None)
        importing.run(db)
        return state(db), [*importing.report.refused_rows]


def written(db: pw.Database, path: Path, export: Export) -> Path:
    """Export to a file."""
    with db.atomic():
        to_paths(db, {path: export})
    return path


def valid(check: Any) -> Any:
    """Take those texts that a rule leaves as they are."""

    def fits(text: str) -> bool:
        try:
            return bool(check(text) == text)
        except ValueError:
            return False

    return fits


texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(min_size=1, max_size=8),
    st.text(alphabet="ab ,;\"'=+-@\u202eé", min_size=1, max_size=8),
).filter(valid(NAME.check))
keys = texts.filter(valid(external_id_text))
days = st.none() | st.dates().map(str).filter(lambda day: day >= "1000")


@st.composite
def schools(draw: st.DrawFn) -> dict[str, Any]:
    """Make up a school, each row of which has an external id."""

    def some(most: int, least: int = 1) -> list[str]:
        return draw(st.lists(keys, min_size=least, max_size=most, unique=True))

    terms = []
    for key in some(3, 0):
        between = sorted(filter(None, draw(st.tuples(days, days))))
        starts_on, ends_on = [*between, None, None][:2]
        terms.append({"external_id": key, "name": draw(texts), "starts_on": starts_on, "ends_on": ends_on})
    limit = st.none() | st.integers(0, 3)
    term_ids = st.none() | st.integers(1, len(terms)) if terms else st.none()
    courses = [
        {
            "external_id": key,
            "name": draw(texts),
            "level": draw(texts),
            "capacity": draw(limit),
            "waitlist_capacity": draw(limit),
            "term_id": draw(term_ids),
        }
        for key in some(4)
    ]
    students = [
        {
            "external_id": key,
            "name": draw(texts),
            "given_name": draw(st.none() | texts),
            "family_name": draw(st.none() | texts),
            "email": draw(st.none() | st.just("a,b@example.org")),
        }
        for key in some(6)
    ]
    pairs = [(student, course) for student in range(1, len(students) + 1) for course in range(1, len(courses) + 1)]
    return {"terms": terms, "courses": courses, "students": students, "enrollments": draw(st.permutations(pairs))}


def found(db: pw.Database, school: dict[str, Any]) -> None:
    """Put a school into a database."""
    with db.atomic():
        for term in school["terms"]:
            insert_term(db, **term)
        for course in school["courses"]:
            insert_course(db, **course)
        for student in school["students"]:
            insert_student(db, **student)
    for pair in school["enrollments"]:
        try:
            enroll(db, *pair)
        except ServiceError:
            continue


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder for the files of all examples."""
    return tmp_path_factory.mktemp("round")


SOME = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.long
@SOME
@given(school=schools())
def test_csv_comes_back(empty_database: Path, folder: Path, school: dict[str, Any]) -> None:
    """A school of external ids comes back from its CSV files as it was."""
    source = Path(shutil.copy(empty_database, folder / "source.db"))
    with closing(connect(source)) as db:
        found(db, school)
        path = written(db, folder / "all.zip", zip_of_csv())
        before = state(db)
    assert imported(empty_database, folder, path) == (before, [])


@pytest.mark.long
@SOME
@given(school=schools())
def test_oneroster_comes_back(empty_database: Path, folder: Path, school: dict[str, Any]) -> None:
    """From a OneRoster file set seats, courses and who has a seat come back as they were; who waits does not."""
    source = Path(shutil.copy(empty_database, folder / "source.db"))
    with closing(connect(source)) as db:
        found(db, school)
        path = written(db, folder / "oneroster.zip", oneroster_of(RosterExport("School")))
        before = state(db)
        ids = {key: row_id for row_id, key in fetch(db, "SELECT id, external_id FROM terms")}
    roster_files.read(path.read_bytes())
    after, refused = imported(empty_database, folder, path)
    assert refused == []
    assert after["seats"] == before["seats"]
    assert after["lines"] == []
    dated = {key: row for key, *row in before["terms"] if None not in row}
    called = {key: f"term-{ids[key]}" if "," in key else key for key in dated}
    assert after["courses"] == [(*row[:6], 0, called.get(row[-1])) for row in before["courses"]]
    assert {key: row for key, *row in after["terms"]} == {
        called[key]: row for key, row in dated.items() if key in {course[-1] for course in before["courses"]}
    }
    assert {student for _, student in before["seats"]} <= {key for key, *_ in after["students"]}
    assert {*after["students"]} <= {*before["students"]}


def test_a_file_set_changes_nothing_where_it_came_from(empty_database: Path, folder: Path) -> None:
    """Names that OneRoster wants, and a school year for courses without a term, are not taken for the school's own."""
    names = [
        ("Plato", None, None),
        ("Ada Lovelace", None, None),
        ("Grace Hopper", "Grace", "Hopper"),
        ("Turing, Alan", "Alan", "Turing"),
        ("Emmy Noether", "Emmy", None),
    ]
    with closing(connect(Path(shutil.copy(empty_database, folder / "same.db")))) as db, TemporaryDirectory() as work:
        course = insert_course(db, "Logic", "1", external_id="L")
        for number, (name, given_name, family_name) in enumerate(names):
            student = insert_student(db, name, external_id=f"S{number}", given_name=given_name, family_name=family_name)
            enroll(db, student.id, course.id)
        path = written(db, folder / "same.zip", oneroster_of(RosterExport("School")))
        before = state(db)
        report = Import(read([path], None, work=Path(work))).run(db)
        assert state(db) == before
    assert [report.totals[kind].unchanged for kind in ("courses", "students", "enrollments")] == [1, 5, 5]
    assert report.totals["terms"].skipped == {"it stands for no term": 1}


def test_an_office_moves(empty_database: Path, folder: Path) -> None:
    """What one command has exported, another one imports into an empty file; twice is the same as once."""
    chance = random.Random(5)
    files = {
        "students.csv": [["external_id", "name"], *([f"{number}", f"Ada Byron {number}"] for number in range(120))],
        "courses.csv": [
            ["external_id", "name", "level", "capacity", "waitlist_capacity"],
            *([f"{module} 2026J", module, "1", chance.choice(["", "9"]), "unlimited"] for module in "ABCDEFG"),
        ],
        "enrollments.csv": [
            ["student_external_id", "course_external_id"],
            *([f"{number}", f"{module} 2026J"] for number in range(120) for module in chance.sample("ABCDEFG", 2)),
        ],
    }
    source, out = Path(shutil.copy(empty_database, folder / "office.db")), folder / "office"
    made = folder / "made"
    made.mkdir(exist_ok=True)
    done = run("import", "--database-url", str(source), *map(str, school_files.written(made, files)))
    assert done.exit_code == 0
    for format_, seen in ("csv", [*STATE]), ("oneroster", ["seats"]):
        assert run("export", f"{out}-{format_}.zip", "--format", format_, "--database-url", str(source)).exit_code == 0
        target = Path(shutil.copy(empty_database, folder / f"{format_}.db"))
        told = [
            json.loads(run("import", "--json", "--database-url", str(target), f"{out}-{format_}.zip").stdout)
            for _ in range(2)
        ]
        assert [sum(each["totals"]["enrollments"][word] for word in ("enrolled", "waitlisted")) for each in told] == [
            240 if format_ == "csv" else told[0]["totals"]["enrollments"]["enrolled"],
            0,
        ]
        with closing(connect(source)) as before, closing(connect(target)) as after:
            assert {name: state(before)[name] for name in seen} == {name: state(after)[name] for name in seen}


@pytest.mark.long
@pytest.mark.skipif(not OULAD.is_dir(), reason=f"OULAD is not at {OULAD}: put it there, or set OULAD_DIR")
def test_oulad_goes_out_as_it_came(empty_database: Path, folder: Path) -> None:
    """The registrations of OULAD are exported as the file has them."""
    source = Path(shutil.copy(empty_database, folder / "oulad.db"))
    with (OULAD / "studentRegistration.csv").open(encoding="utf-8", newline="") as file:
        pairs = [
            (row["id_student"], f"{row['code_module']} {row['code_presentation']}")
            for row in csv.DictReader(file)
            if not row["date_unregistration"]
        ]
    with closing(connect(source)) as db:
        connection = db.connection()
        for trigger in ("student_words_added", "student_words_replaced"):  # They are of no use here, and take long.
            db.execute_sql(f"DROP TRIGGER {trigger}")
        with db.atomic():
            for table, place in (("students", 0), ("courses", 1)):
                columns, more = ("name, external_id, level", ", '1'") if place else ("name, external_id", "")
                keys = [(pair[place],) * 2 for pair in {pair[place]: pair for pair in pairs}.values()]
                connection.executemany(f"INSERT INTO {table} ({columns}) VALUES (?, ?{more})", keys)
            connection.executemany(
                """
                INSERT INTO enrollments (student_id, course_id, enrolled_at)
                SELECT students.id, courses.id, '2026-09-01T08:30:00.000Z' FROM students JOIN courses
                WHERE students.external_id = ? AND courses.external_id = ?""",
                pairs,
            )
        for kind in KINDS:
            written(db, folder / f"{kind}.csv", csv_of(kind))
        with (folder / "enrollments.csv").open(encoding="utf-8", newline="") as file:
            out = [(row["student_external_id"], row["course_external_id"]) for row in csv.DictReader(file)]
        assert Counter(out) == Counter(pairs)
        seats = roster_files.read(
            written(db, folder / "oulad.zip", oneroster_of(RosterExport("Open University"))).read_bytes()
        )["enrollments"]
    assert Counter((row["userSourcedId"], row["classSourcedId"]) for row in seats) == Counter(pairs)
