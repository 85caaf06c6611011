"""Terms, which courses are held in."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import peewee as pw
import pytest
from answers import faults, pages
from starlette.testclient import TestClient
from test_seats import dump, refusal

from service.courses import insert_course
from service.errors import InvalidPayload
from service.terms import insert_term, update_term

pytestmark = pytest.mark.both

AUTUMN = {"external_id": "2026A", "name": "Autumn", "starts_on": "2026-09-01", "ends_on": "2026-12-18"}


def test_a_new_term_is_found_at_its_location(client: TestClient) -> None:
    """A term that is added is served at the Location of the answer, and in the list; all but the name may be absent."""
    made = client.post("/terms", json=AUTUMN)
    assert (made.status_code, made.json(), made.headers["location"]) == (201, {"id": 1, **AUTUMN}, "/terms/1")
    bare = client.post("/terms", json={"name": " Spring "})
    assert bare.json() == {"id": 2, "external_id": None, "name": "Spring", "starts_on": None, "ends_on": None}
    assert client.get("/terms/1").json() == client.get("/terms/by-external-id/2026A").json() == made.json()
    assert client.get("/terms").json() == [made.json(), bare.json()]
    assert client.get("/terms?external_id=2026A").json() == [made.json()]


def test_terms_are_paged_by_id(client: TestClient, db: pw.SqliteDatabase) -> None:
    """The pages of the list, followed to the end, hold every term once."""
    for number in range(5):
        insert_term(db, f"Term {number}")
    assert [[row["id"] for row in page] for page in pages(client, "/terms?limit=2")] == [[1, 2], [3, 4], [5]]


DAYS: list[tuple[dict[str, Any], list[str]]] = [
    ({"starts_on": "2026-9-1"}, ["#/starts_on"]),
    ({"starts_on": "2026-02-29"}, ["#/starts_on"]),
    ({"starts_on": "0000-01-01"}, ["#/starts_on"]),
    ({"starts_on": "2026-09-01T00:00:00Z"}, ["#/starts_on"]),
    ({"starts_on": "20260901"}, ["#/starts_on"]),
    ({"starts_on": "2026-W36-2"}, ["#/starts_on"]),
    ({"starts_on": " 2026-09-01"}, ["#/starts_on"]),
    ({"starts_on": "2026-09-0\u0661"}, ["#/starts_on"]),
    ({"starts_on": 20260901, "ends_on": ""}, ["#/ends_on", "#/starts_on"]),
    ({"starts_on": "2026-09-02", "ends_on": "2026-09-01"}, ["#/ends_on"]),
]


@pytest.mark.parametrize(("days", "pointers"), DAYS)
def test_days_that_are_none_are_refused(client: TestClient, days: dict[str, Any], pointers: list[str]) -> None:
    """A day is a date of the calendar in the form 2026-09-01, and the end is not before the start."""
    client.post("/terms", json={"name": "Autumn"})
    for answer in (
        client.post("/terms", json={"name": "Spring", **days}),
        client.patch("/terms/1", json=days),
        client.put("/terms/by-external-id/X", json={"name": "Spring", **days}),
    ):
        assert faults(answer) == pointers
    assert [(row["starts_on"], row["ends_on"]) for row in client.get("/terms").json()] == [(None, None)]


def test_a_patch_of_one_day_is_held_against_the_other(client: TestClient) -> None:
    """A change of one of two days is refused where the two would be out of order; one day is a term too."""
    client.post("/terms", json=AUTUMN)
    for key, wrong in (("starts_on", "2026-12-19"), ("ends_on", "2026-08-31")):
        assert faults(client.patch("/terms/1", json={key: wrong})) == [f"#/{key}"]
        assert faults(client.put("/terms/by-external-id/2026A", json={key: wrong})) == [f"#/{key}"]
    assert client.get("/terms/1").json() == {"id": 1, **AUTUMN}
    for days in (
        {"starts_on": "2026-12-18"},
        {"ends_on": None},
        {"starts_on": "2027-01-01"},
        {"ends_on": "2027-01-01"},
    ):
        assert client.patch("/terms/1", json=days).status_code == 200


def test_the_plain_functions_hold_days_against_each_other(db: pw.SqliteDatabase) -> None:
    """The rule of days is the plain functions' own."""
    with pytest.raises(InvalidPayload):
        insert_term(db, "Autumn", starts_on="2026-09-02", ends_on="2026-09-01")
    insert_term(db, "Autumn", starts_on="2026-09-01", ends_on="2026-09-01")
    with pytest.raises(InvalidPayload):
        update_term(db, 1, {"ends_on": "2026-08-31"})


@pytest.mark.parametrize(
    ("payload", "pointers"),
    [
        ({}, ["#/name"]),
        ({"name": ""}, ["#/name"]),
        ({"name": None, "id": 1, "level": "A"}, ["#/id", "#/level", "#/name"]),
    ],
)
def test_a_term_has_a_name(client: TestClient, payload: dict[str, Any], pointers: list[str]) -> None:
    """A term without a name, or with what it does not have, is refused with every fault."""
    assert faults(client.post("/terms", json=payload)) == pointers


@pytest.mark.parametrize("term_id", ["2", "0", "x", str(2**63)])
def test_a_term_that_does_not_exist_is_not_found(client: TestClient, term_id: str) -> None:
    """An id that no term has is a 404, to show, change or delete."""
    client.post("/terms", json=AUTUMN)
    url = f"/terms/{term_id}"
    for answer in (client.get(url), client.patch(url, json={"name": "x"}), client.delete(url)):
        assert refusal(answer) == (404, "term_not_found")
    assert client.get("/terms").json() == [{"id": 1, **AUTUMN}]


def test_a_term_with_courses_stays(client: TestClient, path: Path) -> None:
    """A term is deleted only when no course has it any more; its id and its external id are then free of it."""
    client.post("/terms", json=AUTUMN)
    client.post("/courses", json={"name": "Logic", "level": "A1", "term_id": 1})
    before = dump(path)
    assert refusal(client.delete("/terms/1")) == (409, "term_has_courses")
    assert client.delete("/terms/1").json()["term_id"] == 1
    assert dump(path) == before
    client.patch("/courses/1", json={"term_id": None})
    answer = client.delete("/terms/1")
    assert (answer.status_code, answer.content) == (204, b"")
    assert refusal(client.get("/terms/1")) == (404, "term_not_found")
    assert client.post("/terms", json=AUTUMN).json()["id"] == 2


def test_a_course_is_held_in_a_term_that_exists(client: TestClient, path: Path) -> None:
    """A term that does not exist is a 404 of the course that asks for it, by POST, PATCH and PUT; nothing is kept."""
    client.post("/terms", json=AUTUMN)
    client.post("/courses", json={"name": "Logic", "level": "A1", "external_id": "L", "term_id": 1})
    before = dump(path)
    music = {"name": "Music", "level": "A1", "term_id": 9}
    for answer in (
        client.post("/courses", json=music),
        client.patch("/courses/1", json=music),
        client.put("/courses/by-external-id/L", json={"term_id": 9, "capacity": 5}),
        client.put("/courses/by-external-id/M", json=music),
    ):
        assert refusal(answer) == (404, "term_not_found")
        assert answer.json()["term_id"] == 9
    assert dump(path) == before
    for wrong in (0, "1", 1.0, True, 2**63):
        assert faults(client.patch("/courses/1", json={"term_id": wrong})) == ["#/term_id"]


def test_courses_of_a_term(client: TestClient, db: pw.SqliteDatabase) -> None:
    """The filter goes together with names, levels and pages; a term without courses has an empty list."""
    for name in ("Autumn", "Spring", "Summer"):
        insert_term(db, name)
    for number in range(12):
        name, level = ("Music", "Logic", "Mute")[number % 3], ("A1", "B2")[number % 2]
        insert_course(db, name, level, term_id=(1, 2, None)[number // 4])

    def found(query: str) -> list[list[int]]:
        return [[row["id"] for row in page] for page in pages(client, f"/courses?limit=2&{query}")]

    assert found("term_id=1") == [[1, 2], [3, 4]]
    assert found("term_id=2") == [[5, 6], [7, 8]]
    assert found("term_id=1&name=m") == [[1, 4], [3]]
    assert found("term_id=2&level=A1") == [[5, 7]]
    assert found("term_id=2&level=B2&name=mu") == [[6]]
    assert found("term_id=3") == found("term_id=0") == found("term_id=9223372036854775807") == [[]]
    assert all(row["term_id"] == 1 for row in client.get("/courses?term_id=1").json())
    for wrong in ("", "x", "-1", "1.0", "9223372036854775808"):
        assert faults(client.get(f"/courses?term_id={wrong}")) == ["term_id"]


def test_days_of_python(db: pw.Database) -> None:
    """The plain functions take a date of Python for a day, and give the text that is stored."""
    term = insert_term(db, "Autumn", starts_on=date(2026, 9, 1), ends_on="2026-12-18")
    assert (term.starts_on, term.ends_on) == ("2026-09-01", "2026-12-18")
    with pytest.raises(InvalidPayload):
        insert_term(db, "Spring", starts_on=datetime(2027, 1, 4, tzinfo=UTC))
