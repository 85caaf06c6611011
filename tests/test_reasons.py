"""Who and why: each event has the actor and the reason of the write that made it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import peewee as pw
import pytest
from answers import faults
from invariants import check
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send
from test_seats import dump

from service import Settings, bulk, create_app, registrar
from service.courses import insert_course
from service.enrolling import Asked
from service.enrollments import drop, enroll, ensure_enrolled
from service.errors import AlreadyEnrolled, InvalidPayload
from service.events import MAX_NOTES, Why, list_events
from service.students import insert_student

pytestmark = pytest.mark.both


@pytest.fixture(autouse=True)
def _school(db: pw.SqliteDatabase) -> None:
    """Have Logic (1) with one seat, which 1 has, and 2 and 3 in line, and Music (2), where 4 is; 5 is in neither."""
    with db.atomic():
        for number in range(1, 6):
            insert_student(db, f"Student {number}")
        insert_course(db, "Logic", "A1", 1, None)
        insert_course(db, "Music", "A1")
        for pair in ((1, 1), (2, 1), (3, 1), (4, 2)):
            enroll(db, *pair)


LAST = 4
"""The id of the newest event in the school."""
Told = list[tuple[str, int, str | None]]


def told(client: httpx2.Client, key: str = "reason") -> Told:
    """Give the events after those of the school as (type, student, what is kept under the key)."""
    events = client.get(f"/events?after={LAST}").json()
    return [(event["type"], event["student_id"], event[key]) for event in events]


DROPPED: Told = [("dropped", 1, "R"), ("promoted", 2, None)]
SWAPPED: Told = [("enrolled", 1, "R"), ("dropped", 1, "R"), ("promoted", 2, None)]
CANCELLED: Told = [("dropped", 2, "R"), ("dropped", 3, "R"), ("dropped", 1, "R")]
BODY, QUERY = {"reason": " R\n"}, "?reason=R%20"
WRITES: dict[str, tuple[str, str, dict[str, object] | None, Told]] = {
    "enroll": ("POST", "/students/5/courses", {"course_id": 2, **BODY}, [("enrolled", 5, "R")]),
    "wait": ("POST", "/students/5/courses", {"course_id": 1, **BODY}, [("waitlisted", 5, "R")]),
    "override": ("POST", "/students/5/courses", {"course_id": 1, "override": True, **BODY}, [("enrolled", 5, "R")]),
    "overtake": ("POST", "/students/3/courses", {"course_id": 1, "override": True, **BODY}, [("promoted", 3, "R")]),
    "put": ("PUT", f"/students/5/courses/2{QUERY}", None, [("enrolled", 5, "R")]),
    "put again": ("PUT", f"/students/1/courses/1{QUERY}", None, []),
    "drop": ("DELETE", f"/students/1/courses/1{QUERY}", None, DROPPED),
    "swap": ("POST", "/students/1/swap", {"drop_course_id": 1, "enroll_course_id": 2, **BODY}, SWAPPED),
    "withdraw": ("POST", "/students/1/withdraw", {**BODY}, DROPPED),
    "withdraw, no body": ("POST", f"/students/1/withdraw{QUERY}", None, DROPPED),
    "withdraw, empty body": ("POST", f"/students/1/withdraw{QUERY}", {}, DROPPED),
    "cancel": ("POST", "/courses/1/cancel", {**BODY}, CANCELLED),
    "cancel, no body": ("POST", f"/courses/1/cancel{QUERY}", None, CANCELLED),
}


@pytest.mark.parametrize("url", ["/students/1/withdraw", "/courses/1/cancel"])
def test_two_reasons_are_one_too_many(client: TestClient, url: str) -> None:
    """A reason in the body and another in the query is refused, as nobody knows which is meant."""
    assert faults(client.post(f"{url}?reason=Q", json={"reason": "R"})) == ["reason"]
    assert client.get("/courses/1").json()["enrolled"] == 1


@pytest.mark.parametrize("name", WRITES)
def test_a_write_says_why(client: TestClient, path: Path, name: str) -> None:
    """The reason is kept, trimmed, with each event of the write, but with no promotion that made itself."""
    method, url, payload, expected = WRITES[name]
    assert client.request(method, url, json=payload).is_success
    assert told(client) == expected
    assert {actor for _, _, actor in told(client, "actor")} <= {None}
    check(path)


def test_each_row_of_a_bulk_says_why(client: TestClient, db: pw.SqliteDatabase, path: Path) -> None:
    """Rows have their own reasons, or none, in both forms of a bulk; a row that is refused leaves none."""
    rows = [
        {"student_id": 5, "course_id": 2, "reason": "first"},
        {"student_id": 4, "course_id": 2, "reason": "refused"},
        {"student_id": 5, "course_id": 1},
        {"student_id": 4, "course_id": 1, "override": True, "reason": "second"},
        {"student_id": 3, "course_id": 2, "reason": None},
        {"student_id": 2, "course_id": 2, "reason": "third"},
    ]
    body = "\n".join(map(json.dumps, rows))
    client.post("/enrollments?dry_run=true", json=rows)
    client.post("/enrollments", content=body, headers={"content-type": "application/x-ndjson"})
    assert [reason for _, _, reason in told(client)] == ["first", None, "second", None, "third"]
    many = MAX_NOTES * 2 + 1
    db.execute_sql("INSERT INTO students (name) VALUES " + ", ".join(["('Student')"] * many))
    bulk.enroll_all(db, [Asked(6 + at, 2, why=Why(None, f"row {at}")) for at in range(many)])
    assert [event.reason for event in list_events(db, LAST + 5, limit=many)] == [f"row {at}" for at in range(many)]
    check(path)


@pytest.mark.parametrize("reason", ["x" * 201, "", " ", "a\tb"])
def test_a_reason_has_the_rules_of_a_name(client: TestClient, path: Path, reason: str) -> None:
    """A reason that is too long, or that nobody can see, is a fault of its member or parameter; nothing is kept."""
    before = dump(path)
    for method, url, payload, _ in WRITES.values():
        if payload:
            assert faults(client.request(method, url, json={**payload, "reason": reason})) == ["#/reason"]
        else:
            bare = url.partition("?")[0]
            assert faults(client.request(method, bare, params={"reason": reason}, json=payload)) == ["reason"]
    (result,) = client.post("/enrollments", json=[{"student_id": 5, "course_id": 2, "reason": reason}]).json()[
        "results"
    ]
    assert [error["pointer"] for error in result["problem"]["errors"]] == ["#/reason"]
    assert dump(path) == before
    assert client.delete("/students/1/courses/1", params={"reason": "é" * 200}).status_code == 204


def test_where_no_reason_is_taken(client: TestClient) -> None:
    """A write that has a body takes no ?reason=, one that says nothing to an event takes none at all."""
    swap = {"drop_course_id": 1, "enroll_course_id": 2}
    assert faults(client.post("/students/1/swap?reason=R", json=swap)) == ["reason"]
    assert faults(client.post("/students/5/courses?reason=R", json={"course_id": 2})) == ["reason"]
    assert faults(client.post("/students/1/erase?reason=R")) == ["reason"]
    assert faults(client.patch("/students/1", json={"reason": "R"})) == ["#/reason"]
    assert faults(client.post("/courses/1/cancel", json={"reason": "R", "actor": "Eve"})) == ["#/actor"]


class Names:
    """A middleware of a host program, which says who asks."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before an application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the name from a header."""
        if scope["type"] == "http":
            request = Request(scope)
            request.state.actor = request.headers.get("user")
        await self.app(scope, receive, send)


@pytest.fixture
def host(path: Path) -> Iterator[TestClient]:
    """Give a client of a host program that has mounted the app."""
    app = Mount("/enrollment", create_app(Settings(database_url=str(path))))
    with TestClient(Starlette(routes=[app], middleware=[Middleware(Names)])) as client:
        client.base_url = client.base_url.join("/enrollment")
        yield client


@pytest.mark.parametrize("name", WRITES)
def test_the_host_says_who(host: TestClient, name: str) -> None:
    """The actor whom a host's middleware names is kept with each event that has a reason, with a reason or without."""
    method, url, payload, expected = WRITES[name]
    bare = {key: value for key, value in payload.items() if key != "reason"} if payload else None
    answer = host.request(method, url.partition("?")[0], json=bare, headers={"user": "Eve"})
    assert answer.is_success
    assert told(host, "actor") == [(kind, student, reason and "Eve") for kind, student, reason in expected]
    assert {reason for _, _, reason in told(host)} <= {None}


def test_each_request_has_its_own_actor(host: TestClient) -> None:
    """A bulk has one actor for all its rows; a request without a name has none, whoever asked before."""
    rows = [{"student_id": 5, "course_id": 2}, {"student_id": 3, "course_id": 2, "reason": "R"}]
    host.post("/enrollments", json=rows, headers={"user": "Eve"})
    host.delete("/students/5/courses/2")
    host.delete("/students/3/courses/2", headers={"user": "Ada"})
    assert [actor for _, _, actor in told(host, "actor")] == ["Eve", "Eve", None, "Ada"]
    assert [reason for _, _, reason in told(host)] == [None, "R", None, None]


def test_the_plain_functions_say_who_and_why(db: pw.SqliteDatabase, path: Path) -> None:
    """Each plain function that makes events takes an actor and a reason, and keeps neither where it is refused."""
    why: dict[str, Any] = {"actor": " Eve", "reason": "R"}
    assert ensure_enrolled(db, 5, 2, **why)[1]
    assert not ensure_enrolled(db, 5, 2, actor="Ada")[1]
    drop(db, 5, 2, **why)
    enroll(db, 5, 2, override=True, **why)
    registrar.swap(db, 1, 1, 2, **why)
    assert registrar.withdraw(db, 1, **why) == 1
    assert registrar.cancel(db, 2, **why) == 2
    with pytest.raises(AlreadyEnrolled):
        enroll(db, 2, 1, **why)
    events = list_events(db, LAST)
    assert [event.type for event in events if event.actor is None] == ["promoted"]
    assert {(event.actor, event.reason) for event in events if event.type != "promoted"} == {("Eve", "R")}
    assert [list_events(db, LAST, student_id=5), list_events(db, LAST, course_id=2)] == [
        [event for event in events if event.student_id == 5],
        [event for event in events if event.course_id == 2],
    ]
    check(path)


@pytest.mark.parametrize("key", ["actor", "reason"])
@pytest.mark.parametrize("value", ["", "x" * 201, 7])
def test_the_plain_functions_refuse_what_is_no_name(db: pw.SqliteDatabase, path: Path, key: str, value: Any) -> None:
    """An actor or a reason that breaks its rule is InvalidPayload, and nothing is kept."""
    before = dump(path)
    more: dict[str, Any] = {key: value}
    for call in (
        lambda: enroll(db, 5, 2, **more),
        lambda: enroll(db, 5, 1, override=True, **more),
        lambda: ensure_enrolled(db, 5, 2, **more),
        lambda: drop(db, 1, 1, **more),
        lambda: registrar.swap(db, 1, 1, 2, **more),
        lambda: registrar.withdraw(db, 1, **more),
        lambda: registrar.cancel(db, 1, **more),
    ):
        with pytest.raises(InvalidPayload) as refused:
            call()
        assert [where for where, _ in refused.value.faults] == [f"#/{key}"]
    assert dump(path) == before


def test_an_actor_that_cannot_be_kept_is_the_hosts_fault(host: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """Where the host names an actor that is none, the client is not told to mend what it has not sent."""
    for method, url, body in (
        ("POST", "/students/5/courses", {"course_id": 2}),
        ("DELETE", "/students/1/courses/1", None),
    ):
        answer = host.request(method, url, json=body, headers={"user": "a" * 201})
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "The host program names the actor 'aaa" in caplog.text
    assert told(host) == []
