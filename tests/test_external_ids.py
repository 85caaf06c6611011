"""External ids, and the other names of a student: rows are found, made and changed by the school's own numbers."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import peewee as pw
import pytest
from answers import ask, faults, pages
from starlette.testclient import TestClient
from test_seats import dump, refusal

from service import connect, courses, students, terms
from service.enrolling import enroll_each
from service.errors import ExternalIdTaken, InvalidPayload
from service.rows import ExternalId

pytestmark = pytest.mark.both

NEW: dict[str, dict[str, Any]] = {
    "students": {"name": "Ada"},
    "courses": {"name": "Logic", "level": "A1"},
    "terms": {"name": "Autumn"},
}
every_kind = pytest.mark.parametrize("table", NEW)

IDS = {
    "S1": "S1",
    "1": "1",
    "S%201": "S 1",
    "CS/101": "CS/101",
    "CS%2f102": "CS/102",
    "a%252Fb": "a%2Fb",
    "%C3%A9": "é",
    "u%CC%88": "ü",
    "courses": "courses",
    "1/courses": "1/courses",
    "1%2Fcourses/1": "1/courses/1",
    "1/swap": "1/swap",
    "by-external-id/1": "by-external-id/1",
    "a%3Fb%23c%26d%3D%2B%25": "a?b#c&d=+%",
    "x/": "x/",
    ".../..a": ".../..a",
    "%F0%9F%8E%93" * 200: "🎓" * 200,
}
"""The end of a path, and the external id that it means."""
REFUSED = {
    "%2e": ".",
    "%2E%2E": "..",
    "a/%2e%2e/b": "a/../b",
    "a%2F%2Fb": "a//b",
    "a//b": "a//b",
    "/a": "/a",
    "%2Fa": "/a",
    "x" * 201: "x" * 201,
    "%00": "\0",
    "a%0Ab": "a\nb",
    "a%1Fb": "a\x1fb",
    "a%C2%85b": "a\x85b",
    "%20": " ",
    "": "",
    "a%FF": "a\udcff",
}
"""The end of a path, and the text that it means, which is no external id."""


@every_kind
def test_a_put_makes_a_row_and_then_changes_it(client: TestClient, path: Path, table: str) -> None:
    """The first PUT is a 201 with a Location, each later one a 200; what it does not name stays, and none is odd."""
    url = f"/{table}/by-external-id/N-1"
    assert refusal(client.get(url)) == (404, f"{table[:-1]}_not_found")
    assert client.get(url).json()[f"{table[:-1]}_external_id"] == "N-1"
    made = client.put(url, json=NEW[table])
    assert (made.status_code, made.headers["location"]) == (201, f"/{table}/1")
    row = made.json()
    assert row.items() >= {"id": 1, "external_id": "N-1", **NEW[table]}.items()
    before = dump(path)
    for payload in (NEW[table], {}):
        again = client.put(url, json=payload)
        assert (again.status_code, again.json()) == (200, row)
        assert "location" not in again.headers
    assert dump(path) == before
    changed = client.put(url, json={"name": "New"})
    assert (changed.status_code, changed.json()) == (200, {**row, "name": "New"})
    assert client.get(url).json() == client.get(f"/{table}/1").json() == changed.json()
    assert client.get(f"/{table}").json() == [changed.json()]


@every_kind
def test_a_put_of_a_new_row_wants_what_a_post_wants(client: TestClient, table: str) -> None:
    """A PUT without the members that a new row must have, or with its ids, makes nothing."""
    url = f"/{table}/by-external-id/N-1"
    assert faults(client.put(url, json={})) == [f"#/{name}" for name in sorted(NEW[table])]
    assert faults(client.put(url, json={**NEW[table], "id": 1, "external_id": "N-1"})) == ["#/external_id", "#/id"]
    assert client.get(f"/{table}").json() == []


@pytest.mark.parametrize("caller", ["client", "live"])
def test_an_external_id_is_the_rest_of_the_path(request: pytest.FixtureRequest, caller: str) -> None:
    """Whatever the id looks like, and however it is encoded, it means one row: in this process and over a socket."""
    client: Any = request.getfixturevalue(caller)
    for kind, payload in NEW.items():
        for at, (end, external_id) in enumerate(IDS.items(), 1):
            url = f"/{kind}/by-external-id/{end}"
            made = client.put(url, json=payload)
            assert (made.status_code, made.json()["id"], made.json()["external_id"]) == (201, at, external_id)
            assert client.put(url, json={}).status_code == 200
            assert client.get(url).json() == made.json()
            assert client.get(f"/{kind}", params={"external_id": external_id}).json() == [made.json()]
    # The same id in another form: in NFC already, or with another slash.
    for end, external_id in {"%C3%BC": "ü", "CS%2F101": "CS/101", "1/courses%2F1": "1/courses/1"}.items():
        assert client.get(f"/students/by-external-id/{end}").json()["external_id"] == external_id


@pytest.mark.parametrize("caller", ["client", "live"])
def test_what_is_no_external_id_is_refused(request: pytest.FixtureRequest, caller: str) -> None:
    """An id with the parts that proxies fold, of more than 200 characters, or not to be seen, is a 422."""
    found: Any = request.getfixturevalue(caller)
    client = TestClient(found.app) if caller == "client" else found
    for kind, payload in NEW.items():
        for end, text in REFUSED.items():
            url = f"/{kind}/by-external-id/{end}"
            assert faults(client.get(url)) == faults(client.put(url, json=payload)) == ["external_id"]
            content = json.dumps({**payload, "external_id": text})
            headers = {"content-type": "application/json"}
            assert faults(client.post(f"/{kind}", content=content, headers=headers)) == ["#/external_id"]
        assert client.get(f"/{kind}").json() == []


@every_kind
def test_an_external_id_is_of_one_row(client: TestClient, path: Path, table: str) -> None:
    """A POST or a PATCH that asks for another row's id is refused; null gives the id up, for others to take."""
    for external_id in ("N-1", "N-2", None):
        answer = client.post(f"/{table}", json={**NEW[table], "external_id": external_id})
        assert (answer.status_code, answer.json()["external_id"]) == (201, external_id)
    before = dump(path)
    for answer in (
        client.post(f"/{table}", json={**NEW[table], "external_id": " N-1\t"}),
        client.patch(f"/{table}/2", json={"external_id": "N-1", "name": "New"}),
        client.patch(f"/{table}/3", json={"external_id": "N-1"}),
    ):
        assert refusal(answer) == (409, "external_id_taken")
        assert answer.json()["external_id"] == "N-1"
    assert dump(path) == before
    assert client.patch(f"/{table}/1", json={"external_id": "N-1"}).status_code == 200
    assert client.patch(f"/{table}/1", json={"external_id": None}).json()["external_id"] is None
    assert client.patch(f"/{table}/3", json={"external_id": "N-1"}).json()["external_id"] == "N-1"
    assert client.get(f"/{table}/by-external-id/N-1").json()["id"] == 3


INSERT: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "students": (students.insert_student, students.put_student),
    "courses": (courses.insert_course, courses.put_course),
    "terms": (terms.insert_term, terms.put_term),
}


@every_kind
def test_writers_who_race_for_an_external_id(path: Path, table: str) -> None:
    """Of connections that insert the same id at once one wins; of those that put it one makes the row."""
    insert, put = INSERT[table]
    barrier = threading.Barrier(4)

    def race(number: int) -> list[object]:
        told: list[object] = []
        with closing(connect(path)) as db:
            for turn in range(8):
                barrier.wait(20)
                try:
                    insert(db, **NEW[table], external_id=f"I{turn}")
                    told.append(True)
                except ExternalIdTaken:
                    told.append(False)
                barrier.wait(20)
                row, new = put(db, f"P{turn}", {**NEW[table], "name": f"Name {number}"})
                assert row.external_id == f"P{turn}"
                told.append(new)
        return told

    with ThreadPoolExecutor(4) as pool:
        for told in zip(*pool.map(race, range(4)), strict=True):
            assert sorted(map(bool, told)) == [False, False, False, True]


@every_kind
def test_the_plain_functions_put_an_id_in_its_form(db: pw.SqliteDatabase, table: str) -> None:
    """A put by a plain function is as safe to repeat as one over HTTP, whatever the form of the id."""
    put = INSERT[table][1]
    row, new = put(db, "e\u0301", NEW[table])
    assert (row.external_id, new) == ("é", True)
    assert put(db, " e\u0301", {}) == put(db, "é", NEW[table]) == (row, False)
    for text in ("..", "a//b", "", None):
        with pytest.raises(InvalidPayload) as refused:
            put(db, text, NEW[table])
        assert [where for where, _ in refused.value.faults] == ["#/external_id"]


def test_a_list_is_narrowed_to_an_external_id(client: TestClient) -> None:
    """The filter is exact, goes together with the others and with pages, and nothing has the empty id."""
    for number in range(3):
        client.post("/courses", json={"name": f"Logic {number}", "level": "A1", "external_id": f"C{number}"})
    client.post("/courses", json={"name": "Logic 3", "level": "A1"})

    def found(query: str) -> list[list[int]]:
        return [[row["id"] for row in page] for page in pages(client, f"/courses?limit=1&{query}")]

    assert found("external_id=C1") == found("external_id=%20C1") == [[2]]
    assert found("external_id=C1&name=logic&level=A1") == [[2]]
    for nothing in (
        "external_id=c1",
        "external_id=C",
        "external_id=",
        "external_id=C1&name=x",
        "external_id=C1&level=B",
    ):
        assert found(nothing) == [[]]
    cursor = client.get("/courses?limit=1").links["next"]["url"]
    assert faults(client.get(f"{cursor}&external_id=C1")) == ["after"]
    assert faults(client.get("/courses?external_id=C1&external_id=C2")) == ["external_id"]


def test_bodies_take_external_ids(client: TestClient) -> None:
    """Enrolling, in a single request, in either form of a bulk, and swapping, take one id or the other."""
    for number in range(1, 5):
        client.post("/students", json={"name": "Ada", "external_id": f"S/{number}"})
        client.post("/courses", json={"name": "Logic", "level": "A1", "external_id": f"C/{number}"})
    answer = client.post("/students/1/courses", json={"course_external_id": "C/2"})
    assert (answer.status_code, answer.headers["location"]) == (201, "/students/1/courses/2")
    rows: list[dict[str, object]] = [
        {"student_external_id": "S/2", "course_external_id": "C/1"},
        {"student_external_id": "S/3", "course_id": 1},
        {"student_id": 4, "course_external_id": " C/1"},
        {"student_external_id": "S/9", "course_external_id": "C/9"},
        {"student_external_id": "S/1", "course_external_id": "C/9"},
    ]
    for content, media_type in (
        (json.dumps(rows), "application/json"),
        ("\n".join(map(json.dumps, rows)), "application/x-ndjson"),
    ):
        results = client.post("/enrollments", content=content, headers={"content-type": media_type}).json()["results"]
        problems = [result.get("problem", {}) for result in results]
        assert [problem.get("student_external_id") for problem in problems[3:]] == ["S/9", None]
        assert [problem.get("course_external_id") for problem in problems[3:]] == [None, "C/9"]
        if media_type == "application/json":
            seats = [(each["enrollment"]["student_id"], each["enrollment"]["course_id"]) for each in results[:3]]
            assert seats == [(2, 1), (3, 1), (4, 1)]
        else:
            assert [problem["code"] for problem in problems[:3]] == ["already_enrolled"] * 3
    swap = {"drop_course_external_id": "C/2", "enroll_course_external_id": "C/3"}
    assert client.post("/students/1/swap", json=swap).json()["enrollment"]["course_id"] == 3


BOTH_OR_NEITHER: list[tuple[str, dict[str, object], list[str]]] = [
    ("/students/1/courses", {}, ["#/course_id"]),
    ("/students/1/courses", {"course_id": 1, "course_external_id": "C"}, ["#/course_id"]),
    ("/students/1/courses", {"course_external_id": "a//b"}, ["#/course_external_id"]),
    ("/students/1/courses", {"course_external_id": None}, ["#/course_external_id"]),
    ("/students/1/swap", {}, ["#/drop_course_id", "#/enroll_course_id"]),
    ("/students/1/swap", {"drop_course_id": 1, "enroll_course_external_id": 7}, ["#/enroll_course_external_id"]),
    (
        "/students/1/swap",
        {"drop_course_id": 1, "drop_course_external_id": "C", "enroll_course_id": 2},
        ["#/drop_course_id"],
    ),
]


@pytest.mark.parametrize(("url", "payload", "pointers"), BOTH_OR_NEITHER)
def test_one_id_and_no_two(client: TestClient, url: str, payload: dict[str, object], pointers: list[str]) -> None:
    """A body that has both ids of a row, or neither, or one that no row can have, is refused with the pointer."""
    assert faults(client.post(url, json=payload)) == pointers
    if url.endswith("/courses"):
        (result,) = client.post("/enrollments", json=[payload]).json()["results"]
        pointed = sorted(error["pointer"] for error in result["problem"]["errors"])
        assert pointed == sorted([*pointers, "#/student_id"])


@pytest.mark.both(False, because="PostgreSQL enrolls so many in one go")
def test_a_bulk_looks_rows_up_when_their_turn_comes(db: pw.SqliteDatabase) -> None:
    """A slice whose time is over has not looked up the rows that are left for the next ones."""
    courses.insert_course(db, "Logic", "A1", external_id="C")
    for number in range(50):
        students.insert_student(db, "Ada", external_id=f"S{number}")
    asked: list[str] = []
    with db.atomic():
        db.connection().set_trace_callback(asked.append)
        assert len(enroll_each(db, [(ExternalId(f"S{n}"), ExternalId("C")) for n in range(50)], until=0)) == 1
        db.connection().set_trace_callback(None)
    assert 2 <= sum("WHERE external_id" in sql for sql in asked) <= 4


def test_a_server_that_hands_on_no_raw_path(client: TestClient) -> None:
    """Where the server leaves raw_path out, as ASGI allows, the external id is taken from the decoded path."""
    client.put("/students/by-external-id/a/b", json={"name": "Ada"})
    start, end = ask(client, "GET", "/students/by-external-id/a/b")
    assert (start["status"], json.loads(end["body"])["external_id"]) == (200, "a/b")
