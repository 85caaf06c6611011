"""The roster by name: by family name, then by given name, and by the name of who has none; in pages."""

from pathlib import Path

import peewee as pw
import pytest
from answers import faults, pages, refusal, write
from starlette.testclient import TestClient

from service.courses import insert_course
from service.enrollments import enroll, list_roster_by_name
from service.errors import CourseNotFound
from service.students import insert_student

pytestmark = pytest.mark.both

PEOPLE = (
    ("Zoe", "adams"),
    ("bea", "Adams"),
    (None, "Baker"),
    ("Cy", "Baker"),
    ("Al", "Baker"),
    ("Al", "Baker"),
)
"""The given name and the family name of students 1 to 6; 7 is called Bach, and 8 Adler, with a given name alone."""
BY_NAME = [2, 1, 8, 7, 3, 5, 6, 4]


@pytest.fixture(autouse=True)
def _school(db: pw.SqliteDatabase) -> None:
    """Have all of them in Logic (1), and one more in line."""
    with db.atomic():
        insert_course(db, "Logic", "A1", 8, None)
        for given, family in PEOPLE:
            insert_student(db, "Somebody", given_name=given, family_name=family)
        insert_student(db, "Bach")
        insert_student(db, "Adler", given_name="Zed")
        insert_student(db, "Aaron")
        for student_id in range(1, 10):
            enroll(db, student_id, 1)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 100])
def test_a_roster_by_name_in_pages(client: TestClient, limit: int) -> None:
    """Whatever the size of a page, each student with a seat is there once, and A to Z count as a to z."""
    found = pages(client, f"/courses/1/students?order=name&limit={limit}")
    assert [row["id"] for page in found for row in page] == BY_NAME
    by_id = client.get("/courses/1/students").json()
    assert sorted((row for page in found for row in page), key=lambda row: row["id"]) == by_id


def test_a_page_begins_behind_a_student_who_has_gone(client: TestClient) -> None:
    """A cursor is a place in the order, and not a student: the next page is the same when the student has left."""
    link = client.get("/courses/1/students?order=name&limit=3").links["next"]["url"]
    client.delete("/students/8/courses/1")
    rows = client.get(link).json()
    assert [row["id"] for row in rows] == [7, 3, 5]


@pytest.mark.both(False, because="PostgreSQL stores no text that is not UTF-8")
def test_a_name_that_is_not_utf_8_has_its_place(client: TestClient, path: Path) -> None:
    """Another program may have written any bytes: each page ends and begins there as elsewhere."""
    write(path, "UPDATE students SET family_name = CAST(? AS TEXT) WHERE id = ?", [(b"Bak\xe9", 3), (b"Ba\xff", 4)])
    found = pages(client, "/courses/1/students?order=name&limit=1")
    assert sorted(row["id"] for page in found for row in page) == sorted(BY_NAME)


@pytest.mark.parametrize("query", ["order=level", "order=", "order=name&order=id"])
def test_no_order(client: TestClient, query: str) -> None:
    """There are two orders."""
    assert faults(client.get(f"/courses/1/students?{query}")) == ["order"]


def test_a_cursor_of_the_other_order_is_refused(client: TestClient) -> None:
    """The pages of one order do not go on in the other."""
    link = client.get("/courses/1/students?order=name&limit=3").links["next"]["url"]
    assert faults(client.get(link.replace("order=name", "order=id"))) == ["after"]


def test_without_http(client: TestClient, db: pw.SqliteDatabase) -> None:
    """The plain function gives the key of each row, behind which the next page begins."""
    (first, second), rest = list_roster_by_name(db, 1, limit=2), list_roster_by_name(db, 1, ("adams", "Zoe", 1))
    assert (first[0], second[0]) == (("Adams", "bea", 2), ("adams", "Zoe", 1))
    assert [row.id for _, row in rest] == BY_NAME[2:]
    with pytest.raises(CourseNotFound):
        list_roster_by_name(db, 9)
    assert refusal(client.get("/courses/9/students?order=name")) == (404, "course_not_found")
