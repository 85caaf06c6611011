"""The search ?q= over HTTP: a filter of the lists of students and courses, with their order, pages and refusals."""

import peewee as pw
import pytest
from answers import faults, pages
from starlette.testclient import TestClient

from service.courses import insert_course
from service.students import insert_student
from service.terms import insert_term

pytestmark = pytest.mark.both


@pytest.fixture(autouse=True)
def _school(db: pw.SqliteDatabase) -> None:
    """Have five students whose names differ by case and accents, and four courses of two levels, two of a term."""
    with db.atomic():
        insert_student(db, "Éva Kovács", external_id="S-101", email="eva.k@example.org")
        insert_student(db, "eva Szabó", external_id="S-102")
        insert_student(db, "Adam Evans")
        insert_student(db, "Łukasz Łódź", email="lukasz@eva.example")
        insert_student(db, "Li Wu")
        insert_term(db, "Autumn")
        for name, level, term in (
            ("Biology", "A1", 1),
            ("Marine biology", "A2", 1),
            ("Biography", "A1", None),
            ("Go", "A1", None),
        ):
            insert_course(db, name, level, external_id=f"C/{name}", term_id=term)


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("eva", ["Adam Evans", "eva Szabó", "Éva Kovács"]),
        ("ÉVA", ["Adam Evans", "eva Szabó", "Éva Kovács"]),
        ("eva ko", ["Éva Kovács"]),
        ("kov eva", ["Éva Kovács"]),
        ("lodz", ["Łukasz Łódź"]),
        ("s-10", ["eva Szabó", "Éva Kovács"]),
        ("S-102", ["eva Szabó"]),
        ("eva.k", ["Éva Kovács"]),
        ("example", []),
        ("ev", ["eva Szabó", "Éva Kovács"]),
        ("e", ["eva Szabó", "Éva Kovács"]),
        ("li wu", ["Li Wu"]),
        ("nobody", []),
    ],
)
def test_every_word_begins_a_word(client: TestClient, q: str, found: list[str]) -> None:
    """Words in any order, case and accents find students, by (name, id); a short word alone begins the name."""
    assert [row["name"] for row in client.get("/students", params={"q": q}).json()] == found


def test_a_search_goes_on_by_its_links(client: TestClient) -> None:
    """The pages of a search are as those of a list by name, and a cursor of one search is none of another."""
    found = pages(client, "/students?q=eva&limit=1")
    assert [row["name"] for page in found for row in page] == ["Adam Evans", "eva Szabó", "Éva Kovács"]
    link = client.get("/students?q=eva&limit=1").links["next"]["url"]
    assert faults(client.get(link.replace("q=eva", "q=kov"))) == ["after"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=bio", ["Biography", "Biology", "Marine biology"]),
        ("q=bio&level=A1", ["Biography", "Biology"]),
        ("q=bio&term_id=1", ["Biology", "Marine biology"]),
        ("q=bio&name=b", ["Biography", "Biology"]),
        ("q=bio&name=b&level=A1&term_id=1", ["Biology"]),
        ("q=bio&external_id=C/Biography", ["Biography"]),
        ("q=go", ["Go"]),
        ("q=", ["Biography", "Biology", "Go", "Marine biology"]),
    ],
)
def test_a_search_goes_with_the_other_filters(client: TestClient, query: str, found: list[str]) -> None:
    """A course has to fit the search and every other filter."""
    assert [row["name"] for row in client.get(f"/courses?{query}").json()] == found


def test_a_write_is_found_at_once(client: TestClient) -> None:
    """What is changed or deleted is found by its new words only, as soon as the answer is there."""
    client.patch("/students/3", json={"name": "Adam Bode", "email": "abode@example.org"})
    assert [row["id"] for row in client.get("/students?q=evans").json()] == []
    assert [row["id"] for row in client.get("/students?q=abode").json()] == [3]
    client.delete("/students/3")
    assert client.get("/students?q=abode").json() == []


@pytest.mark.parametrize("query", ["q=" + "a" * 201, "q=a%00", "q=a&q=b"])
def test_no_search(client: TestClient, query: str) -> None:
    """A search has the rules of a name's beginning."""
    assert faults(client.get(f"/students?{query}")) == ["q"]
