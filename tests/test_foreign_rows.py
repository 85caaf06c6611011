"""Rows that other programs wrote: whatever text is in the file, it is shown, and paging goes past it."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import httpx2
import peewee as pw
import pytest
from answers import STUDENT, pages, write
from conftest import Server
from starlette.testclient import TestClient

from service import Settings, connect, courses, create_app, enrollments, students
from service.storage import fetch

JOSE = b"Jos\xe9"
"""A name in Latin-1, as it comes out of many a spreadsheet."""

NAMES = [
    *[b"Jos\xe9", b"Jos\xea", b"Jos\xff", b"jos\xe9", b"Jos\xc3\xa9", "Jos\ufffd".encode(), b"Jos\xe9 Luis", b"Jos\xc0"]
    * 3,
    *(
        b"",
        b"\r\n",
        b"Ada\r",
        b"Ben\tB",
        b"C" * 250,
        b"C" * 251,
        b"Ame\xcc\x81lie",
        b"\x80",
        b"\xff" * 3,
        b" Jo",
        b"Jo\0se",
    ),
    *(b"Jos\xf4\x8f\xbf\xbf" * 60, "\ufeffBea".encode(), b"JOSS", b"Jot", b"Jn", b"\xed\xa0\x80", b"Jos\xf5"),
]
"""Names that no rule would have taken, and those around them."""


ADD_STUDENT = "INSERT INTO students (name) VALUES (CAST(? AS TEXT))"
ADD_COURSE = """
    INSERT INTO courses (name, level, capacity, waitlist_capacity)
    VALUES (CAST(? AS TEXT), CAST(? AS TEXT), 1, 9)"""


@pytest.fixture
def foreign(path: Path) -> Path:
    """Fill the file as another program does, with the names of students and of courses, each of which has them all."""
    write(path, ADD_STUDENT, [(name,) for name in NAMES])
    write(path, ADD_COURSE, [(name, level) for name in NAMES for level in (b"A1", name)])
    return path


def shown(name: bytes) -> str:
    """Give a name as it is shown."""
    return name.decode(errors="replace")


def test_a_name_that_is_not_utf_8_is_shown(path: Path, client: TestClient) -> None:
    """A text that is not UTF-8 has U+FFFD for what cannot be read, wherever it is shown, and makes nothing fail."""
    write(path, ADD_STUDENT, [(b"Ada",), (JOSE,), (b"Zoe",)])
    write(path, ADD_COURSE, [(b"Caf\xe9", b"avanc\xe9")])
    rows = [{"student_id": student_id, "course_id": 1} for student_id in (2, 1, 3)]
    dry = client.post("/enrollments?dry_run=true", json=rows)
    assert [result["status"] for result in dry.json()["results"]] == [201, 201, 201]
    for student_id in (2, 1):
        assert client.post(f"/students/{student_id}/courses", json={"course_id": 1}).status_code == 201

    jose, cafe = {"id": 2, "name": "Jos\ufffd"}, {"id": 1, "name": "Caf\ufffd", "level": "avanc\ufffd"}
    all_of_jose = {**jose, **STUDENT}
    assert client.get("/students").json()[1] == client.get("/students?limit=1&name=J").json()[0] == all_of_jose
    assert client.get("/students/2").json() == all_of_jose
    for url in (
        "/courses/1",
        "/courses",
        "/courses?name=caf",
        "/students/2/courses",
        "/students/2/courses?status=enrolled",
    ):
        answer = client.get(url)
        assert answer.status_code == 200
        found = answer.json()
        assert (found[0] if isinstance(found, list) else found).items() >= cafe.items()
    assert client.get("/courses/1/students").json()[0].items() >= jose.items()
    assert client.get("/courses/1/waitlist").json()[0]["name"] == "Ada"
    client.delete("/students/2/courses/1")
    client.put("/students/2/courses/1")
    assert client.get("/courses/1/waitlist").json()[0].items() >= jose.items()
    for url, changes in (("/courses/1", {"capacity": 2}), ("/students/2", {})):
        answer = client.patch(url, json=changes)
        assert answer.status_code == 200
        assert "\ufffd" in answer.json()["name"]
    assert client.get("/health/ready").status_code == 200
    assert (
        client.patch("/students/2", json={"name": "Jos\xe9"}).json()
        == client.get("/students/2").json()
        == {"id": 2, "name": "Jos\xe9", **STUDENT}
    )
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT CAST(name AS BLOB) FROM courses").fetchall() == [(b"Caf\xe9",)]


def test_a_name_that_is_not_utf_8_over_the_wire(foreign: Path, serve: Callable[..., Server]) -> None:
    """So it is with a server of its own: every page of every list is served."""
    assert foreign
    with httpx2.Client(base_url=serve().url) as live:
        assert [row["name"] for page in pages(live, "/students?limit=7") for row in page] == [*map(shown, NAMES)]
        assert len([row for page in pages(live, "/courses?name=&limit=7") for row in page]) == 2 * len(NAMES)


@pytest.mark.parametrize("limit", [1, 2, 1000])
@pytest.mark.parametrize(
    "prefix", ["", "j", "Jos", "JOS\xe9", "Jos\ufffd", "A", "B", "C", "C" * 200, "\ufeff", "Bea", "\U0010ffff"]
)
def test_paging_by_name_takes_every_row_once(foreign: Path, prefix: str, limit: int) -> None:
    """The service takes each cursor that it made, whatever the name in it, and every row comes once and in order."""
    begin = "" if prefix == "\ufeff" else prefix
    at = {index: name for index, name in enumerate(NAMES) if name.lower().startswith(begin.encode().lower())}
    with TestClient(create_app(Settings(database_url=str(foreign)))) as client, closing(connect(foreign)) as db:
        for path, ids in (
            ("/students?", {index + 1: name for index, name in at.items()}),
            ("/courses?", {2 * index + each: name for index, name in at.items() for each in (1, 2)}),
            ("/courses?level=A1&", {2 * index + 1: name for index, name in at.items()}),
        ):
            found: list[int] = []
            url = path + urlencode({"name": prefix, "limit": limit})
            while url:
                answer = client.get(url)
                assert answer.status_code == 200
                assert len(found) <= len(ids)
                found += [row["id"] for row in answer.json()]
                assert all(row["name"] == shown(ids[row["id"]]) for row in answer.json())
                url = answer.links.get("next", {}).get("url", "")
            table = path[1:].partition("?")[0]
            in_order = [row_id for (row_id,) in fetch(db, f"SELECT id FROM {table} ORDER BY name, id")]
            assert found == [row_id for row_id in in_order if row_id in ids]


def test_a_page_goes_on_behind_the_very_name(foreign: Path) -> None:
    """Without HTTP too a row's name and id lead to the next page, although the name is not shown as it is stored."""
    with closing(connect(foreign)) as db:
        for call in (
            students.list_students,
            lambda db, prefix, after, limit: courses.list_courses(db, prefix, "A1", after, limit),
        ):
            seen, after = [], None
            while rows := call(db, "Jos", after, 1):
                seen += [row.id for row in rows]
                after = rows[-1].name, rows[-1].id
            assert len(seen) == len({*seen}) == sum(name.lower().startswith(b"jos") for name in NAMES)
        assert isinstance(students.find_student(db, 1).name, str)
        assert students.update_student(db, 2, {"name": students.find_student(db, 1).name}).name == "Jos\ufffd"


def test_a_blob_for_a_name_is_listed_once(path: Path, client: TestClient) -> None:
    """A name that is no text at all, as a program that binds bytes leaves it, does not stop the lists either."""
    names: list[object] = ["Ada", b"Ada", b"\xff", "Zoe", b"Ada"]
    write(path, "INSERT INTO students (name) VALUES (?)", [(name,) for name in names])
    for url in ("/students?limit=1", "/students?limit=2&name="):
        assert sorted(row["id"] for page in pages(client, url) for row in page) == [1, 2, 3, 4, 5]
    assert client.get("/students?name=A").json() == [{"id": 1, "name": "Ada", **STUDENT}]


def test_ids_from_below_are_listed_once(path: Path, client: TestClient) -> None:
    """Rows with ids that the service never gives, such as 0, are in the lists as well."""
    rows = [(0, ""), (-5, ""), (-(2**63), "a"), (7, "a")]
    write(path, "INSERT INTO students (id, name) VALUES (?, ?)", rows)
    for url in ("/students?limit=1", "/students?limit=1&name="):
        assert len([row for page in pages(client, url) for row in page]) == 4
    assert [row["id"] for page in pages(client, "/students?limit=1&name=A") for row in page] == [-(2**63), 7]


def test_what_writes_is_not_run_again(db: pw.SqliteDatabase) -> None:
    """A statement that has written, and then cannot be read, is an error, and has written once."""
    with db.atomic(), pytest.raises(sqlite3.OperationalError, match="Could not decode to UTF-8"):
        fetch(db, "INSERT INTO students (name) VALUES (CAST(x'ff' AS TEXT)) RETURNING name")
    assert fetch(db, "SELECT count(*) FROM students") == [(1,)]


def test_a_connection_stays_as_it_was(db: pw.SqliteDatabase) -> None:
    """To read what is not UTF-8 changes nothing for whoever has the connection too, not even where it fails again."""
    students.insert_student(db, "Ada")
    db.execute_sql("UPDATE students SET name = CAST(x'ff' AS TEXT)")
    assert students.find_student(db, 1).name == "\ufffd"
    with pytest.raises(sqlite3.OperationalError):
        db.execute_sql("SELECT name FROM students").fetchall()
    with pytest.raises(sqlite3.OperationalError, match="overflow"):
        fetch(db, "SELECT name, 1 FROM students UNION ALL SELECT 'a', abs(-9223372036854775808)")
    assert db.connection().text_factory is str


def test_a_host_that_reads_texts_its_own_way(db: pw.SqliteDatabase) -> None:
    """Where the host has told its connection how to read a text, so it is read."""
    db.connection().text_factory = lambda text: text.decode("latin-1")
    db.execute_sql("INSERT INTO students (name) VALUES (CAST(? AS TEXT))", (JOSE,))
    assert students.list_students(db)[0].name == "Jos\xe9"


def test_schedules_and_rosters_of_such_names(foreign: Path) -> None:
    """A schedule and a roster have every row, in pages of one."""
    with closing(connect(foreign)) as db:
        with db.atomic():
            for course_id in range(1, 2 * len(NAMES) + 1):
                enrollments.enroll(db, 1, course_id)
            courses.update_course(db, 1, {"capacity": None})
            for student_id in range(2, len(NAMES) + 1):
                enrollments.enroll(db, student_id, 1)
        with TestClient(create_app(Settings(database_url=str(foreign)))) as client:
            assert [row["name"] for page in pages(client, "/courses/1/students?limit=1") for row in page] == [
                *map(shown, NAMES)
            ]
            assert len([row for page in pages(client, "/students/1/courses?limit=2") for row in page]) == 2 * len(NAMES)
