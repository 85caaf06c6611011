"""Courses over HTTP: what they have beyond what students have, which is a level and two capacities."""

import peewee as pw
import pytest
from answers import COURSE, body, faults, pages, refusal
from starlette.testclient import TestClient

from service.courses import insert_course

pytestmark = pytest.mark.both

MUSIC = {"name": "Music", "level": "A1"}
EMPTY = {
    "capacity": None,
    "waitlist_capacity": 0,
    "enrolled": 0,
    "waitlisted": 0,
    "seats_left": None,
    "availability": "open",
    **COURSE,
}
"""What a course shows beside its name and level unless told."""


def test_a_new_course_is_found_at_its_location(client: TestClient) -> None:
    """A course that is added is trimmed, and served at the Location of the answer."""
    answer = client.post("/courses", json={"name": " Music ", "level": "\tA1 "})
    assert (answer.status_code, answer.json()) == (201, {"id": 1, **MUSIC, **EMPTY})
    assert answer.headers["location"] == "/courses/1"
    shown = client.get("/courses/1")
    assert (shown.status_code, shown.json()) == (200, answer.json())


@pytest.mark.both(False, because="what is refused here reaches no database")
@pytest.mark.parametrize(
    ("payload", "pointers"),
    [
        ({}, ["#/level", "#/name"]),
        ({"name": "Music"}, ["#/level"]),
        ({"level": "A1"}, ["#/name"]),
        ({"name": "", "level": None}, ["#/level", "#/name"]),
        ({"name": "a\0b", "level": "a" * 201, "room": 1}, ["#/level", "#/name", "#/room"]),
        ({**MUSIC, "level": "\ud800"}, ["#/level"]),
        ({**MUSIC, "id": 7}, ["#/id"]),
        ({**MUSIC, **EMPTY}, ["#/availability", "#/enrolled", "#/seats_left", "#/waitlisted"]),
    ],
)
def test_a_course_that_breaks_its_rules_is_refused(
    client: TestClient, payload: dict[str, object], pointers: list[str]
) -> None:
    """A level has the rules of a name, both are required, what is counted is not given; every fault is told at once."""
    assert faults(client.post("/courses", **body(payload))) == pointers
    assert client.get("/courses").json() == []


@pytest.mark.parametrize("key", ["capacity", "waitlist_capacity"])
@pytest.mark.parametrize("value", [None, 0, 1, 2**63 - 1])
def test_a_capacity_is_kept_as_it_is(client: TestClient, key: str, value: int | None) -> None:
    """A capacity is null or an integer from 0 to 2⁶³-1; a POST and a PATCH agree."""
    given = client.post("/courses", json={**MUSIC, key: value})
    client.post("/courses", json=MUSIC)
    changed = client.patch("/courses/2", json={key: value})
    assert (given.status_code, changed.status_code) == (201, 200)
    assert given.json()[key] == value
    assert changed.json() == {**given.json(), "id": 2}
    assert client.get("/courses").json() == [given.json(), changed.json()]


@pytest.mark.both(False, because="what is refused here reaches no database")
@pytest.mark.parametrize("key", ["capacity", "waitlist_capacity"])
@pytest.mark.parametrize("value", [True, False, 1.0, 1.5, "1", "", "null", -1, 2**63, 10**4000, [], [1], {}])
def test_a_capacity_that_is_no_number_is_refused(client: TestClient, key: str, value: object) -> None:
    """Nothing is coerced to a capacity; a POST and a PATCH agree."""
    client.post("/courses", json=MUSIC)
    answers = client.post("/courses", **body({**MUSIC, key: value})), client.patch("/courses/1", **body({key: value}))
    assert [faults(answer) for answer in answers] == [[f"#/{key}"]] * 2
    assert client.get("/courses").json() == [{"id": 1, **MUSIC, **EMPTY}]


COURSES = [("Mute", "A1"), ("Music", "a1"), ("math", "A1"), ("mud", "A1"), ("MATH", "A1"), ("Art", "B2")]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", [[1, 2], [3, 4], [5, 6]]),
        ("&level=A1", [[1, 3], [4, 5]]),
        ("&level=a1", [[2]]),
        ("&level=A", [[]]),
        ("&level=", [[]]),
        ("&name=M", [[3, 5], [4, 2], [1]]),
        ("&name=m&level=A1", [[3, 5], [4, 1]]),
        ("&level=A1&name=mu", [[4, 1]]),
        ("&name=mu&level=B2", [[]]),
    ],
)
def test_courses_are_found_by_name_and_level(
    client: TestClient, db: pw.Database, query: str, found: list[list[int]]
) -> None:
    """A level is exact and a name is a prefix; together they narrow, and every page keeps to both."""
    for name, level in COURSES:
        insert_course(db, name, level)
    assert [[row["id"] for row in page] for page in pages(client, f"/courses?limit=2{query}")] == found


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": "Song"},
        {"level": "B1"},
        {"name": "Song", "level": "B1"},
        {"waitlist_capacity": 5},
        {"waitlist_capacity": None, "level": "B1"},
        {"name": "Song", "capacity": None},
    ],
)
def test_a_patch_changes_what_it_names(client: TestClient, changes: dict[str, str | int | None]) -> None:
    """A merge patch (RFC 7396) changes the keys that it has and keeps the rest; a capacity may be null."""
    client.post("/courses", json=MUSIC)
    answer = client.patch("/courses/1", json=changes)
    assert (answer.status_code, answer.json()) == (200, {"id": 1, **MUSIC, **EMPTY, **changes})
    assert client.get("/courses/1").json() == answer.json()


def test_a_patch_that_breaks_a_rule_changes_nothing(client: TestClient) -> None:
    """A merge patch is taken whole or not at all; null, which would remove a name or a level, is refused."""
    client.post("/courses", json=MUSIC)
    changes = {"name": "Song", "capacity": 1, "level": None, "id": 2, "enrolled": 0}
    assert faults(client.patch("/courses/1", json=changes)) == ["#/enrolled", "#/id", "#/level"]
    assert client.get("/courses/1").json() == {"id": 1, **MUSIC, **EMPTY}


def test_a_deleted_course_is_gone_and_its_id_too(client: TestClient) -> None:
    """A course that is deleted is found no more, and no later one gets its id."""
    client.post("/courses", json=MUSIC)
    answer = client.delete("/courses/1")
    assert (answer.status_code, answer.content) == (204, b"")
    assert refusal(client.delete("/courses/1")) == (404, "course_not_found")
    assert client.post("/courses", json=MUSIC).json() == {"id": 2, **MUSIC, **EMPTY}
    assert client.get("/courses").json() == [{"id": 2, **MUSIC, **EMPTY}]


def test_a_course_that_does_not_exist_is_not_found(client: TestClient) -> None:
    """An id that no course has is a 404, to show, change or delete."""
    client.post("/courses", json=MUSIC)
    for answer in (client.get("/courses/2"), client.patch("/courses/2", json={"level": "B1"})):
        assert refusal(answer) == (404, "course_not_found")
    assert refusal(client.delete("/courses/2")) == (404, "course_not_found")
    assert client.get("/courses").json() == [{"id": 1, **MUSIC, **EMPTY}]
