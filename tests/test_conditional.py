"""Conditional requests: a record's tag is that of all that is in it, and a write with an old tag changes nothing."""

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import httpx2
import peewee as pw
import pytest
from answers import open_school, refusal
from conftest import Server
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import Settings, connect, create_app
from service.courses import insert_course
from service.enrollments import enroll
from service.http.api import API
from service.http.conditional import tag_of
from service.http.payloads import CourseChanges, StudentChanges, TermChanges
from service.students import insert_student
from service.terms import insert_term

pytestmark = pytest.mark.both

ADA, MUSIC, TERM, SEAT, PLACE = (
    "/students/1",
    "/courses/1",
    "/terms/1",
    "/students/1/courses/1",
    "/students/2/courses/1",
)
RECORDS = [ADA, MUSIC, TERM, SEAT, PLACE]
EXTERNAL = {
    ADA: "/students/by-external-id/S/1",
    MUSIC: "/courses/by-external-id/M-1",
    TERM: "/terms/by-external-id/2026A",
}
"""The path by external id of each record that has one."""
CHANGES: dict[str, dict[str, Any]] = {
    ADA: {"name": "Di", "external_id": "S/2", "given_name": "Di", "family_name": "Da", "email": "di@example.org"},
    MUSIC: {
        **dict.fromkeys(("capacity", "waitlist_capacity", "term_id"), 2),
        "name": "Art",
        "level": "B1",
        "external_id": "M-2",
        "opens_at": "2998-01-01T00:00:00Z",
        "closes_at": "2999-01-01T00:00:00Z",
    },
    TERM: {"name": "Fall", "external_id": "2026B", "starts_on": "2026-09-01", "ends_on": "2026-12-18"},
}
"""Another value of each field that a PATCH takes."""
PATCHES: dict[str, Any] = {ADA: StudentChanges, MUSIC: CourseChanges, TERM: TermChanges}
OTHER = '"another"'


@pytest.fixture
def school(client: TestClient, db: pw.Database) -> TestClient:
    """Give a client of the small school, in which Ada, Music and a term have external ids, and of two terms."""
    open_school(db)
    insert_term(db, "Autumn", external_id="2026A")
    insert_term(db, "Winter")
    client.patch(ADA, json={"external_id": "S/1"}).raise_for_status()
    client.patch(MUSIC, json={"external_id": "M-1"}).raise_for_status()
    return client


def tag(client: httpx2.Client, url: str) -> str:
    """Give the tag of a record as it is now."""
    answer = client.get(url)
    assert answer.status_code == 200
    found: str = answer.headers["etag"]
    return found


# The tag


@pytest.mark.parametrize("url", RECORDS)
def test_a_record_has_a_tag(school: TestClient, url: str) -> None:
    """The tag is a strong one, the hash of the body; HEAD has it too, and it is the same by external id."""
    school.headers["x-request-id"] = "abc"
    answer = school.get(url)
    assert answer.headers.get_list("etag") == [f'"{blake2b(answer.content, digest_size=12).hexdigest()}"']
    assert answer.headers["cache-control"] == "no-store"
    assert school.head(url).headers == answer.headers
    if url in EXTERNAL:
        assert tag(school, EXTERNAL[url]) == answer.headers["etag"]


@pytest.mark.parametrize("url", CHANGES)
def test_the_tag_is_of_every_field(school: TestClient, url: str) -> None:
    """Each field that is changed changes the tag, and the answer to PATCH has the new one."""
    assert CHANGES[url].keys() == {field.name for field in attrs.fields(PATCHES[url])}
    seen = {tag(school, url)}
    for name, value in CHANGES[url].items():
        changed = school.patch(url, json={name: value})
        assert changed.status_code == 200
        assert changed.headers["etag"] == tag(school, url)
        assert changed.headers["etag"] not in seen
        seen.add(changed.headers["etag"])
        assert school.patch(url, json={name: value}).headers["etag"] == changed.headers["etag"]


def test_the_tag_is_of_who_comes_and_goes(school: TestClient) -> None:
    """A place in line that moves, a seat that is given, and the counts of a course are in their tags."""
    school.patch(MUSIC, json={"waitlist_capacity": 2}).raise_for_status()
    school.put("/students/3/courses/1").raise_for_status()
    place = "/students/3/courses/1"
    seen: set[tuple[str, str]] = {(tag(school, place), tag(school, MUSIC))}
    for gone in (1, 2):  # Bo gets Ada's seat, and Cy is first in line; then Cy has a seat.
        school.delete(f"/students/{gone}/courses/1").raise_for_status()
        now = tag(school, place), tag(school, MUSIC)
        assert not any(part in each for part in now for each in seen)
        seen.add(now)


def test_the_tag_is_of_the_window(school: TestClient) -> None:
    """When the window of a course opens or closes, its availability is another one, and so is its tag."""
    school.patch(MUSIC, json={"opens_at": "2999-01-01T00:00:00Z"}).raise_for_status()
    before = tag(school, MUSIC)
    answer = school.patch(MUSIC, json={"opens_at": "2020-01-01T00:00:00Z"}, headers={"if-match": before})
    assert answer.json()["availability"] == "full"
    assert answer.headers["etag"] != before


def test_who_is_made_has_a_tag(school: TestClient) -> None:
    """The POST of a student, a course or a term answers with the tag that GET gives; an enrollment's and PUT do not."""
    for url, payload in (
        ("/students", {"name": "Di"}),
        ("/courses", {"name": "Go", "level": "1"}),
        ("/terms", {"name": "Spring"}),
    ):
        made = school.post(url, json=payload)
        assert made.headers["etag"] == tag(school, made.headers["location"])
    for answer in (
        school.post("/students/3/courses", json={"course_id": 2}),
        school.put("/students/3/courses/2"),
        school.put("/students/by-external-id/9", json={"name": "Ed"}),
        school.put("/students/by-external-id/9", json={"name": "Ed"}),
        school.get("/students"),
        school.get("/students/1/courses"),
        school.get("/students/1/export"),
        school.get("/health/live"),
        school.get("/students/99"),
    ):
        assert "etag" not in answer.headers


# If-None-Match


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("url", [*RECORDS, *EXTERNAL.values()])
def test_who_has_the_record_gets_no_body(school: TestClient, method: str, url: str) -> None:
    """With the record's tag in If-None-Match the answer is 304 with the tag, and without body, type or length."""
    known = tag(school, url)
    for given in (known, f"W/{known}", f'{OTHER}, {known} ,"c"', f", {known},,", "*"):
        answer = school.request(method, url, headers={"if-none-match": given})
        assert (answer.status_code, answer.content) == (304, b"")
        assert {name for name, _ in answer.headers.multi_items()} == {
            *("etag", "cache-control", "x-content-type-options", "cross-origin-resource-policy", "x-request-id")
        }
        assert (answer.headers["etag"], answer.headers["cache-control"]) == (known, "no-store")
    for given in (OTHER, known.upper().replace('"', '"x', 1), f"W/{OTHER}"):
        assert school.request(method, url, headers={"if-none-match": given}).status_code == 200


def test_both_headers_come_in_several_lines(school: TestClient) -> None:
    """Lines of one header are one list, and If-Match comes before If-None-Match."""
    known = tag(school, ADA)
    several = [("if-none-match", OTHER), ("if-none-match", known)]
    assert school.get(ADA, headers=several).status_code == 304
    assert school.get(ADA, headers=[*several, ("if-match", known)]).status_code == 304
    assert refusal(school.get(ADA, headers=[*several, ("if-match", OTHER)])) == (412, "precondition_failed")


def test_what_is_not_there_is_not_found(school: TestClient) -> None:
    """RFC 9110, section 13.2.1: what would be 404 without conditions is 404 with them, read or written."""
    for url in ("/students/9", "/courses/9", "/terms/9", "/students/3/courses/1", "/students/by-external-id/9"):
        for method in ("GET", "PATCH", "DELETE"):
            for headers in ({"if-match": "*"}, {"if-match": OTHER}, {"if-none-match": "*"}):
                answer = school.request(method, url, headers=headers, json={} if method == "PATCH" else None)
                if answer.status_code != 405:
                    assert answer.status_code == 404


# If-Match


def write(client: httpx2.Client, method: str, url: str, headers: Any) -> httpx2.Response:
    """Send a write that would change a record."""
    value = {"PATCH": {"name": "New"}, "PUT": {"name": "New"}}.get(method)
    return client.request(method, url, headers=headers, json=None if "/courses/1" in url[1:] else value)


WRITES = [
    *(("PATCH", url) for url in (ADA, MUSIC, TERM)),
    *(("PUT", url) for url in (*EXTERNAL.values(), SEAT)),
    *(("DELETE", url) for url in ("/students/3", "/courses/2", "/terms/2", SEAT, PLACE)),
]


@pytest.mark.parametrize(("method", "url"), WRITES)
def test_a_write_with_another_tag_changes_nothing(school: TestClient, db: pw.Database, method: str, url: str) -> None:
    """Only with the record's own tag, compared strongly, or with * a write is done; else it is 412."""
    insert_course(db, "Art", "A1")
    before = school.get(url)
    known = before.headers["etag"]
    for headers in (
        {"if-match": OTHER},
        {"if-match": f"W/{known}"},
        {"if-match": f'{OTHER}, W/{known}, "*"'},
        {"if-none-match": known},
        {"if-none-match": f"W/{known}"},
        {"if-none-match": "*"},
        {"if-match": known, "if-none-match": "*"},
    ):
        assert refusal(write(school, method, url, headers)) == (412, "precondition_failed")
        assert school.get(url).content == before.content
    done = write(school, method, url, {"if-match": f"{OTHER},{known}", "if-none-match": OTHER})
    assert done.status_code == (204 if method == "DELETE" else 200)
    if method != "DELETE":
        assert write(school, method, url, {"if-match": "*"}).status_code == 200
    after = school.get(url)
    assert (after.content == before.content) == (url == SEAT and method == "PUT")


def test_a_put_that_would_add(school: TestClient) -> None:
    """PUT adds only without If-Match; with If-None-Match: * it adds, and changes nothing that is there."""
    for url, payload in (
        ("/students/by-external-id/9", {"name": "Di"}),
        ("/courses/by-external-id/9", {"name": "Go", "level": "1"}),
        ("/terms/by-external-id/9", {"name": "Spring"}),
        ("/students/3/courses/2", None),
    ):
        if "students/3" in url:
            school.post("/courses", json={"name": "Art", "level": "A1"}).raise_for_status()
        for given in ("*", OTHER):
            answer = school.put(url, headers={"if-match": given}, json=payload)
            assert refusal(answer) == (412, "precondition_failed")
            assert "none yet" in answer.json()["detail"]
            assert school.get(url).status_code == 404
        assert school.put(url, headers={"if-none-match": "*"}, json=payload).status_code == 201
        answer = school.put(url, headers={"if-none-match": "*"}, json=payload)
        assert refusal(answer) == (412, "precondition_failed")
        assert "not there" in answer.json()["detail"]
    for url, code in (("/students/9/courses/1", "student_not_found"), ("/students/3/courses/9", "course_not_found")):
        for headers in ({"if-match": "*"}, {"if-none-match": "*"}):
            assert refusal(school.put(url, headers=headers)) == (404, code)


@pytest.mark.both(False, because="what is refused here reaches no database")
@pytest.mark.parametrize("name", ["if-match", "if-none-match"])
@pytest.mark.parametrize(
    "value",
    [
        *("", " ", ",", "another", '"another', 'another"', '""another""', 'w/"another"', 'W/ "another"', "W/", "**"),
        *('"a" "b"', '"a b"', '*, "another"', '"another", *', '"a";"b"', '"a\tb"', '"\x7f"', "'another'"),
    ],
)
def test_what_is_no_list_of_tags(school: TestClient, name: str, value: str) -> None:
    """A header that is neither * nor a list of tags is 400, which names the header, and changes nothing."""
    before = school.get(ADA)
    for method, payload in (("GET", None), ("PATCH", {"name": "Di"}), ("DELETE", None)):
        answer = school.request(method, ADA, headers={name.encode(): value.encode("latin-1")}, json=payload)
        assert refusal(answer) == (400, "bad_request")
        assert answer.json()["detail"].lower().startswith(f"{name} is neither")
    assert school.get(ADA).content == before.content


def test_a_tag_may_be_any(school: TestClient) -> None:
    """A tag of any bytes that RFC 9110 lets a tag have is one, and a long list is read fast."""
    for value in ('""', '"!#~\xff"', ", ".join(['"x"'] * 10_000), f"{',' * 50_000}{OTHER}{', ' * 5_000}"):
        assert refusal(school.patch(ADA, headers={b"if-match": value.encode("latin-1")}, json={"name": "Di"}))[0] == 412
    for value in (",\t" * 30_000, f"{OTHER}, " * 5_000 + "x", '"' * 60_000):
        assert refusal(school.patch(ADA, headers={b"if-match": value.encode("latin-1")}, json={"name": "Di"}))[0] == 400


UNTAGGED = [
    ("POST", "/students", {"name": "Di"}),
    ("POST", "/courses", {"name": "Go", "level": "1"}),
    ("POST", "/terms", {"name": "Spring"}),
    ("POST", "/students/3/courses", {"course_id": 1}),
    ("POST", "/enrollments", [{"student_id": 3, "course_id": 1}]),
    ("POST", "/students/1/swap", {"drop_course_id": 1, "enroll_course_id": 1}),
    ("POST", "/students/1/withdraw", None),
    ("POST", "/students/1/erase", None),
    ("POST", "/courses/1/cancel", None),
]


@pytest.mark.parametrize(("method", "url", "payload"), UNTAGGED, ids=lambda part: str(part)[:20])
def test_no_write_passes_over_a_condition(school: TestClient, method: str, url: str, payload: object) -> None:
    """A write that is of no single record refuses both headers, whatever is in them, and changes nothing."""
    before = [school.get(path).content for path in ("/students", "/courses", "/terms", "/events")]
    for headers in ({"if-match": "*"}, {"if-match": OTHER}, {"if-none-match": OTHER}, {"if-match": "nonsense"}):
        answer = school.request(method, url, headers=headers, json=payload)
        assert refusal(answer) == (412, "precondition_failed")
        assert "no single record" in answer.json()["detail"]
    assert [school.get(path).content for path in ("/students", "/courses", "/terms", "/events")] == before


def test_every_write_is_one_of_these() -> None:
    """Each write of the API either compares a record's tag or refuses the headers; a list passes over them."""
    for path, methods in API.items():
        for method, each in methods.items():
            assert (each.run_if is not None) == (
                (method != "GET" and each.right is not None) or "PATCH" in methods or "PUT" in methods
            ), (method, path)


def test_a_list_passes_over_both(school: TestClient) -> None:
    """A list has no tag, so that it is read whatever the headers are; OPTIONS is answered likewise."""
    for url in ("/students", "/students/1/courses", "/courses/1/students", "/events", "/health/live"):
        for headers in ({"if-match": OTHER}, {"if-none-match": "*"}, {"if-match": "nonsense"}):
            assert school.get(url, headers=headers).status_code == 200
    assert school.options(ADA, headers={"if-match": OTHER}).status_code == 204


def test_the_actor_and_the_reason_are_told(school: TestClient) -> None:
    """A drop under a condition is noted with its reason, as one without."""
    url = f"{SEAT}?reason=Moved%20away"
    assert school.delete(url, headers={"if-match": tag(school, SEAT)}).status_code == 204
    dropped = school.get("/events?after=2").json()[0]
    assert (dropped["type"], dropped["reason"]) == ("dropped", "Moved away")


@pytest.mark.both(False, because="PostgreSQL stores no text that is not UTF-8")
def test_a_text_that_is_not_utf8_has_a_tag(school: TestClient, db: pw.Database) -> None:
    """What another program wrote, and what is shown of it, is the same for the tag that a write compares."""
    db.execute_sql("PRAGMA ignore_check_constraints = ON")
    db.execute_sql("UPDATE students SET email = CAST(x'4164ff40' AS TEXT) WHERE id = 3")
    answer = school.get("/students/3")
    assert answer.json()["email"] == "Ad\ufffd@"
    changed = school.patch("/students/3", json={"name": "Di"}, headers={"if-match": answer.headers["etag"]})
    assert changed.status_code == 200


# A rush


CLIENTS, ROUNDS = 12, 8


def test_of_many_with_one_tag_one_wins(serve: Callable[..., Server], db: pw.Database) -> None:
    """However many send a PATCH with one tag at once, to two processes, one is done and the others change nothing."""
    insert_student(db, "Ada")
    urls = [serve().url, serve().url]

    async def rush() -> None:
        async with httpx2.AsyncClient() as client:
            for turn in range(ROUNDS):
                known = (await client.get(f"{urls[0]}{ADA}")).headers["etag"]
                answers = await asyncio.gather(
                    *(
                        client.patch(
                            f"{urls[number % 2]}{ADA}", json={"name": f"{turn}.{number}"}, headers={"if-match": known}
                        )
                        for number in range(CLIENTS)
                    )
                )
                won = [answer for answer in answers if answer.status_code == 200]
                assert [refusal(answer) for answer in answers if answer not in won] == [
                    (412, "precondition_failed")
                ] * (CLIENTS - 1)
                (winner,) = won
                now = await client.get(f"{urls[1]}{ADA}")
                assert (now.content, now.headers["etag"]) == (winner.content, winner.headers["etag"])

    asyncio.run(rush())


def test_who_reads_before_each_change_loses_none(live: httpx2.Client, db: pw.Database) -> None:
    """Threads that each raise a course's capacity by one, again after each 412, raise it by as much as they are."""
    insert_course(db, "Music", "A1", 0)
    base = live.base_url

    def raise_it() -> None:
        with httpx2.Client(base_url=base) as client:
            for _ in range(ROUNDS):
                while True:
                    found = client.get(MUSIC)
                    changes = {"capacity": found.json()["capacity"] + 1}
                    answer = client.patch(MUSIC, json=changes, headers={"if-match": found.headers["etag"]})
                    if answer.status_code == 200:
                        break
                    assert answer.status_code == 412

    threads = [threading.Thread(target=raise_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert live.get(MUSIC).json()["capacity"] == 4 * ROUNDS


def test_a_refused_write_of_a_group_leaves_the_others(path: Path, db: pw.Database) -> None:
    """In one transaction, what comes behind a write sees it, and a refusal undoes none of the others."""
    insert_student(db, "Ada")
    insert_student(db, "Bo")
    app = create_app(Settings(database_url=str(path)))
    with TestClient(app) as client:
        known = tag(client, ADA)
    sent: list[int] = []

    async def ask(url: str, name: bytes, match: str) -> None:
        headers = [(b"content-type", b"application/json"), (b"if-match", match.encode())]
        scope = {"type": "http", "method": "PATCH", "path": url, "query_string": b"", "headers": headers}

        async def receive() -> Message:
            return {"type": "http.request", "body": b'{"name": "%s"}' % name}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent.append(message["status"])

        await app(scope, receive, send)

    async def all_at_once() -> None:
        await asyncio.gather(
            ask(ADA, b"One", known), ask(ADA, b"Two", known), ask("/students/2", b"Bea", "*"), ask(ADA, b"Di", known)
        )

    asyncio.run(all_at_once())
    assert sorted(sent) == [200, 200, 412, 412]
    with TestClient(app) as client:
        assert [each["name"] for each in client.get("/students").json()] == ["One", "Bea"]


def test_a_connection_that_drops(live: httpx2.Client, db: pw.Database) -> None:
    """A request whose body does not come changes nothing; one whose client is gone is done whole, or not at all."""
    insert_student(db, "Ada")
    known = tag(live, ADA)
    place = urlsplit(str(live.base_url))
    body = b'{"name": "Di"}'
    head = (
        f"PATCH {ADA} HTTP/1.1\r\nHost: school\r\nContent-Type: application/json\r\nIf-Match: {known}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    for sent in (head, head + body[:5]):
        with closing(socket.create_connection((place.hostname, place.port))) as connection:
            connection.sendall(sent)
    assert tag(live, ADA) == known
    with closing(socket.create_connection((place.hostname, place.port))) as connection:
        connection.sendall(head + body)
    again = live.patch(ADA, json={"name": "Eve"}, headers={"if-match": known})
    assert (again.status_code, live.get(ADA).json()["name"]) in {(412, "Di"), (200, "Eve")}


def test_nothing_comes_behind_a_304(live: httpx2.Client, db: pw.Database) -> None:
    """On one connection, requests go on behind an answer 304, to GET and to HEAD."""
    insert_student(db, "Ada")
    known = tag(live, ADA)
    place = urlsplit(str(live.base_url))
    line = f"{ADA} HTTP/1.1\r\nHost: 127.0.0.1\r\nIf-None-Match: {known}\r\n"
    last = f"GET {ADA} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    with closing(socket.create_connection((place.hostname, place.port), timeout=10)) as connection:
        connection.sendall(f"GET {line}\r\nHEAD {line}\r\n{last}".encode())
        came = b""
        while part := connection.recv(2**16):
            came += part
    first, second, third, body = came.split(b"\r\n\r\n")
    for head in (first, second):
        assert head.startswith(b"HTTP/1.1 304 Not Modified\r\n")
        assert b"content-length" not in head
        assert f"etag: {known}".encode() in head
    assert third.startswith(b"HTTP/1.1 200 OK\r\n")
    assert known == tag_of(body).decode()


# In a host program


class OwnTags:
    """A host's middleware that gives a tag of its own to each answer that has none."""

    def __init__(self, app: ASGIApp) -> None:
        """Keep what is behind it."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the header, as a list that a middleware may append to."""

        async def tagging(message: Message) -> None:
            if message["type"] == "http.response.start" and b"etag" not in dict(message["headers"]):
                message["headers"].append((b"etag", b'W/"host"'))
            await send(message)

        await self._app(scope, receive, tagging)


def test_behind_a_hosts_middleware(path: Path, db: pw.Database) -> None:
    """Behind a host's compression and tags, and under any mount, the tag of a record is its own, and is heeded."""
    open_school(db)
    app = create_app(Settings(database_url=str(path)))
    layers = [Middleware(OwnTags), Middleware(GZipMiddleware, minimum_size=1)]
    with TestClient(app) as plain, TestClient(Starlette(routes=[Mount("/a b", app)], middleware=layers)) as client:
        at = f"/a b{ADA}"
        answer = client.get(at)
        known = answer.headers["etag"]
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers.get_list("etag") == [known] == [tag(plain, ADA)]
        unchanged = client.get(at, headers={"if-none-match": known})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert not {"content-encoding", "content-length"} & unchanged.headers.keys()
        assert client.patch(at, json={"name": "Di"}, headers={"if-match": known}).status_code == 200
        assert client.patch(at, json={"name": "Eve"}, headers={"if-match": known}).status_code == 412
        assert client.get("/a b/students").headers["etag"] == 'W/"host"'
        assert plain.get(ADA).json()["name"] == "Di"


def test_under_a_root_path(serve: Callable[..., Server], db: pw.Database) -> None:
    """A proxy's path is in no record, so the tag is the same behind all of them."""
    insert_student(db, "Ada")
    insert_course(db, "Music", "A1")
    enroll(db, 1, 1)
    one, other = serve().url, serve("--root-path", "/registry").url
    with httpx2.Client() as client:
        for url in (ADA, MUSIC, SEAT):
            assert tag(client, f"{one}{url}") == tag(client, f"{other}{url}")


def test_a_tag_needs_the_right_to_read(path: Path) -> None:
    """Who may not read learns no tag, and who may not write nothing of whether one holds."""
    with connect(path) as db:
        insert_student(db, "Ada")
    app = create_app(Settings(database_url=str(path)), authenticate=lambda headers, _: (None, headers["may"].split()))
    with TestClient(app) as client:
        known = client.get(ADA, headers={"may": "read"}).headers["etag"]
        for method, right in (("GET", "metrics"), ("PATCH", "read"), ("DELETE", "read")):
            for given in (known, OTHER, "*"):
                headers = {"may": right, "if-match": given, "if-none-match": given}
                assert refusal(client.request(method, ADA, headers=headers)) == (403, "insufficient_scope")
