"""The HTTP edge: every refusal is a problem (RFC 9457), and no input, however strange, is a failure."""

import asyncio
import json
import re
import socket
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx2
import peewee as pw
import pytest
from conftest import Server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from service import Settings, create_app
from service.api import ROUTES
from service.courses import insert_course
from service.enrollments import enroll
from service.errors import ServiceError
from service.problems import PROBLEMS
from service.students import insert_student

JSON = {"content-type": "application/json"}
LISTS = ["/students", "/courses", "/students/1/courses", "/courses/1/students"]
WRITES = [
    ("POST", "/students"),
    ("PATCH", "/students/1"),
    ("POST", "/courses"),
    ("PATCH", "/courses/1"),
    ("POST", "/students/1/courses"),
]


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    """Check that an answer is a problem as the table has it, and give its status and code."""
    body = answer.json()
    row = PROBLEMS[body["code"]]
    known = {"type": f"/problems/{body['code']}", "title": row.title, "status": row.status, "code": body["code"]}
    assert body == known | {"detail": body["detail"]} | ({"errors": body["errors"]} if row.status == 422 else {})
    assert body["detail"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("retry-after" in answer.headers) == (row.status == 503)
    return answer.status_code, body["code"]


def faults(answer: httpx2.Response) -> list[str]:
    """Check that an answer is a 422, and give the pointers or the parameters of its faults in order."""
    status, code = refusal(answer)
    where = {"invalid_payload": "pointer", "invalid_query": "parameter"}[code]
    errors = answer.json()["errors"]
    assert status == 422
    assert all(error.keys() == {"detail", where} and error["detail"] for error in errors)
    return sorted(error[where] for error in errors)


def pages(client: httpx2.Client, url: str) -> list[list[dict[str, Any]]]:
    """Follow a list's Link headers to its last page."""
    found: list[list[dict[str, Any]]] = []
    while url:
        assert url.startswith("/")
        assert len(found) < 100
        answer = client.get(url)
        assert answer.status_code == 200
        found.append(answer.json())
        url = answer.links.get("next", {}).get("url", "")
    return found


def body(value: object) -> dict[str, Any]:
    """Give a request's body and its type; JSON's escapes let lone surrogates through, and 1e999 as Infinity."""
    return {"content": json.dumps(value), "headers": JSON}


def ask(client: TestClient, method: str, path: str, *messages: dict[str, Any], length: int = 0) -> list[Any]:
    """Ask the app as a server does, without one, and give what it sends."""
    left, sent = iter(messages), []

    async def receive() -> dict[str, Any]:
        return next(left)

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % length)]
        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}
        await client.app(scope, receive, send)

    asyncio.run(run())
    return sent


@pytest.fixture
def school(client: TestClient, db: pw.Database) -> TestClient:
    """Give a client of a school where Ada (1) is enrolled in Music (1)."""
    with db.atomic():
        insert_student(db, "Ada")
        insert_course(db, "Music", "A1")
        enroll(db, 1, 1)
    return client


# Every code


REFUSALS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "malformed_json": ("POST", "/students", {"content": "{", "headers": JSON}),
    "not_found": ("GET", "/nothing", {}),
    "student_not_found": ("GET", "/students/2", {}),
    "course_not_found": ("GET", "/courses/2", {}),
    "enrollment_not_found": ("GET", "/students/1/courses/2", {}),
    "method_not_allowed": ("PUT", "/students", {}),
    "already_enrolled": ("POST", "/students/1/courses", {"json": {"course_id": 1}}),
    "student_has_enrollments": ("DELETE", "/students/1", {}),
    "course_has_enrollments": ("DELETE", "/courses/1", {}),
    "payload_too_large": ("POST", "/students", {"content": b" " * (2**20 + 1), "headers": JSON}),
    "unsupported_media_type": ("POST", "/students", {"content": "{}"}),
    "invalid_payload": ("POST", "/students", {"json": {}}),
    "invalid_query": ("GET", "/students?limit=0", {}),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refusal_is_a_problem(school: TestClient, code: str) -> None:
    """Each refusal is problem+json, with the code and the status that it is known by."""
    method, url, options = REFUSALS[code]
    assert refusal(school.request(method, url, **options)) == (PROBLEMS[code].status, code)


def test_a_locked_database_is_busy(path: Path, db: pw.Database) -> None:
    """While another connection holds the lock for longer than the timeout, a write is a 503 with Retry-After."""
    with TestClient(create_app(Settings(database_url=str(path), busy_timeout=0))) as client:
        with db.atomic("IMMEDIATE"):
            answer = client.post("/students", json={"name": "Ada"})
        assert refusal(answer) == (503, "busy")
        assert int(answer.headers["retry-after"]) > 0
        assert client.get("/students").json() == []
        assert client.post("/students", json={"name": "Ada"}).status_code == 201


def test_a_lost_database_is_unavailable(client: TestClient, path: Path) -> None:
    """When the file is gone, reads and writes are a 503 with Retry-After."""
    path.unlink()
    for answer in (client.get("/students"), client.post("/students", json={"name": "Ada"})):
        assert refusal(answer) == (503, "storage_unavailable")


def test_a_defect_leaks_nothing(client: TestClient, db: pw.Database, caplog: pytest.LogCaptureFixture) -> None:
    """What nobody foresaw is a 500 that says nothing of the cause; the log has it, with its traceback."""
    # A trigger of somebody else's swallows the row, so that the rule has none to give.
    db.execute_sql("CREATE TRIGGER trap BEFORE INSERT ON students BEGIN SELECT RAISE(IGNORE); END")
    answer = client.post("/students", json={"name": "Ada"})
    assert refusal(answer) == (500, "internal_error")
    assert not re.search("Error|Missing|argument|insert_student|line|\\.py", answer.text)
    assert re.search(r"(?s)POST /students failed\..*Traceback.*in insert_student.*TypeError: Missing", caplog.text)
    assert client.get("/students").json() == []


def test_every_code_is_explained(client: TestClient) -> None:
    """The path in a problem's type says what its code means and what to do; there are no others."""
    for code, row in PROBLEMS.items():
        answer = client.get(f"/problems/{code}")
        assert answer.status_code == 200
        assert answer.json() == {"code": code, "status": row.status, "title": row.title, "advice": row.advice}
        assert row.title
        assert row.advice
    assert PROBLEMS.keys() == REFUSALS.keys() | {"busy", "storage_unavailable", "internal_error"}
    for unknown in ("nothing", "Busy", "busy%0A", "%00"):
        assert refusal(client.get(f"/problems/{unknown}")) == (404, "not_found")


def test_every_refusal_of_the_rules_has_a_status() -> None:
    """Each ServiceError that has a code has a row in the table of problems."""

    def tree(error: type[ServiceError]) -> Iterator[type[ServiceError]]:
        yield error
        for kind in error.__subclasses__():
            yield from tree(kind)

    codes = {error.__dict__["code"] for error in tree(ServiceError) if "code" in error.__dict__}
    assert len(codes) == 10
    assert codes <= PROBLEMS.keys()


def test_a_process_may_live_and_not_be_ready(client: TestClient, path: Path) -> None:
    """Without its database the service is live and not ready."""
    for check in ("live", "ready"):
        answer = client.get(f"/health/{check}")
        assert (answer.status_code, answer.json()) == (200, {"status": check})
    path.unlink()
    assert client.get("/health/live").status_code == 200
    assert refusal(client.get("/health/ready")) == (503, "storage_unavailable")


def test_paths_include_the_mount(path: Path) -> None:
    """Under a host's mount, Location, Link and a problem's type start with the mount's path, percent-encoded."""
    app = create_app(Settings(database_url=str(path)))
    with TestClient(app), TestClient(Starlette(routes=[Mount("/the registry", app)])) as client:
        locations = [client.post("/the registry/students", json={"name": "Ada"}).headers["location"] for _ in range(2)]
        assert locations == ["/the%20registry/students/1", "/the%20registry/students/2"]
        assert [client.get(location).json()["id"] for location in locations] == [1, 2]
        found = client.get("/the registry/students?limit=1")
        assert found.headers["link"].startswith("</the%20registry/students?limit=1&after=")
        assert [row["id"] for page in pages(client, str(found.url.path)) for row in page] == [1, 2]
        for unknown in ("/the registry/nothing", "/the registry/students/3"):
            problem = client.get(unknown).json()
            assert problem["type"] == f"/the%20registry/problems/{problem['code']}"
            assert client.get(problem["type"]).json()["code"] == problem["code"]


# Methods


ALLOW = {
    "/students": "GET, HEAD, OPTIONS, POST",
    "/students/{student_id}": "DELETE, GET, HEAD, OPTIONS, PATCH",
    "/students/{student_id}/courses": "GET, HEAD, OPTIONS, POST",
    "/students/{student_id}/courses/{course_id}": "DELETE, GET, HEAD, OPTIONS, PUT",
    "/courses": "GET, HEAD, OPTIONS, POST",
    "/courses/{course_id}": "DELETE, GET, HEAD, OPTIONS, PATCH",
    "/courses/{course_id}/students": "GET, HEAD, OPTIONS",
    "/health/live": "GET, HEAD, OPTIONS",
    "/health/ready": "GET, HEAD, OPTIONS",
    "/problems/{code}": "GET, HEAD, OPTIONS",
}


def test_every_path_tells_its_methods(client: TestClient) -> None:
    """OPTIONS is a 204 with the full Allow, and so is the Allow of the 405 that any other method gets."""
    assert ALLOW.keys() == ROUTES.keys()
    for template, allow in ALLOW.items():
        url = template.format(student_id="x", course_id=9, code="busy")
        answer = client.options(url)
        assert (answer.status_code, answer.content, answer.headers["allow"]) == (204, b"", allow)
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"}.difference(allow.split(", ")):
            answer = client.request(method, url)
            assert refusal(answer) == (405, "method_not_allowed")
            assert answer.headers["allow"] == allow


def test_head_sends_no_body_itself(client: TestClient) -> None:
    """The answer to HEAD has no body, whether or not the server would strip it."""
    start, end = ask(client, "HEAD", "/health/live")
    assert (start["status"], end["body"]) == (200, b"")
    assert (b"content-length", b"17") in start["headers"]


def test_head_and_options_over_the_wire(live: httpx2.Client) -> None:
    """HEAD has the status and the headers of GET and no body; OPTIONS has no body either."""
    for name in ("Ada", "Bo"):
        live.post("/students", json={"name": name})
    for url in ("/students?limit=1", "/students/1", "/students/1/courses", "/students/3", "/nothing", "/health/ready"):
        got, head = live.get(url), live.head(url)
        assert (head.status_code, head.content) == (got.status_code, b"")
        for answer in (got, head):
            answer.headers.pop("date")
        assert head.headers == got.headers
        assert int(head.headers["content-length"]) == len(got.content)
    answer = live.options("/students/1")
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["allow"] == ALLOW["/students/{student_id}"]


# Paths


@pytest.mark.parametrize(
    "word",
    [
        *("0", "-1", "+1", "01", "1.0", "1e0", "1_0", "0x1", "true", "null", "1;2", "1,2", "*"),
        *("%201", "1%20", "1%0A", "%D9%A1", "%C2%B9", "%00", "%FF", "%ED%A0%80"),
        *(str(2**63 - 1), str(2**63), "9" * 5000),
    ],
)
def test_what_is_no_id_is_not_found(school: TestClient, word: str) -> None:
    """In a path anything but a plain integer that is somebody's id is a 404."""
    student, course, enrollment = (404, "student_not_found"), (404, "course_not_found"), (404, "enrollment_not_found")
    assert refusal(school.get(f"/students/{word}")) == student
    assert refusal(school.patch(f"/students/{word}", json={"name": "Bo"})) == student
    assert refusal(school.delete(f"/students/{word}")) == student
    assert refusal(school.get(f"/students/{word}/courses")) == student
    assert refusal(school.post(f"/students/{word}/courses", json={"course_id": 1})) == student
    assert refusal(school.put(f"/students/{word}/courses/1")) == student
    assert refusal(school.put(f"/students/1/courses/{word}")) == course
    assert refusal(school.get(f"/courses/{word}/students")) == course
    assert refusal(school.get(f"/students/{word}/courses/1")) == enrollment
    assert refusal(school.delete(f"/students/1/courses/{word}")) == enrollment
    assert [row["id"] for row in school.get("/students/1/courses").json()] == [1]


@pytest.mark.parametrize(
    "url",
    [
        *("/", "/%FF", "/%00", "/Students", "//students", "/students/", "/students%0A", "/students/1/"),
        *("/students/1/courses/1/2", "/courses/1/students/1", "/health", "/health/live%0A", "/problems"),
    ],
)
def test_an_unknown_path_is_not_found(school: TestClient, url: str) -> None:
    """A path that is not in the table is a 404, for any method; there are no redirects."""
    for method in ("GET", "POST", "OPTIONS"):
        assert refusal(school.request(method, f"http://testserver{url}")) == (404, "not_found")


def test_an_id_of_5000_digits_over_the_wire(live: httpx2.Client) -> None:
    """A number that Python itself would refuse to read is nobody's id."""
    assert refusal(live.get(f"/students/{'9' * 5000}")) == (404, "student_not_found")


# Bodies


DEEP = 100_000


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" ",
        b"{",
        b'{"name": "Ada"}}',
        b"{'name': 'Ada'}",
        b'{"name": "\xff"}',
        b'{"name": "\xed\xa0\x80"}',
        b'{"name": "a\x00b"}',
        b'{"name": "a\nb"}',
        b'{"name": NaN}',
        b'{"name": "Ada", "x": -Infinity}',
        b'\xef\xbb\xbf{"name": "Ada"}',
        '{"name": "Ada"}'.encode("utf-16"),
        b"[" * DEEP,
        b"[" * DEEP + b"]" * DEEP,
        b'{"name":' * DEEP + b"1" + b"}" * DEEP,
        b'{"name": "Ada", "x": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    ],
    ids=lambda content: repr(content[:20]),
)
def test_what_is_not_json_is_refused(school: TestClient, content: bytes) -> None:
    """Bytes that are not JSON in UTF-8, or nest deeper than can be read, are a 400."""
    for method, url in WRITES:
        assert refusal(school.request(method, url, content=content, headers=JSON)) == (400, "malformed_json")


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "name", [], [{"name": "Ada"}], 10**400])
def test_a_payload_is_an_object(school: TestClient, value: object) -> None:
    """JSON that is not an object is a 422 that points at the whole of it."""
    for method, url in WRITES:
        assert faults(school.request(method, url, **body(value))) == ["#"]


@pytest.mark.parametrize("text", ["1e999", "-1e999", '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', "9" * 5000])
def test_json_that_is_no_name_is_pointed_at(school: TestClient, text: str) -> None:
    """JSON that is sound, and yet holds more than most programs do, is a fault of its field."""
    for method, url in WRITES[:2]:
        answer = school.request(method, url, content=f'{{"name": {text}}}', headers=JSON)
        assert faults(answer) == ["#/name"]


def test_every_fault_of_a_payload_is_told(client: TestClient) -> None:
    """All the faults come at once, each with its pointer, escaped as RFC 6901 wants it in a URI."""
    unknown = {"a/b": "a~1b", "m~n": "m~0n", "~1": "~01", "é": "%C3%A9", "": "", " ": "%20", 'k"l': "k%22l", "%": "%25"}
    answer = client.post("/courses", json=dict.fromkeys(unknown, 1) | {"name": None})
    assert faults(answer) == sorted(f"#/{pointer}" for pointer in [*unknown.values(), "name", "level"])
    assert answer.json()["detail"] == "The payload has 10 faults."
    assert faults(client.post("/students", **body({"name": "Ada", "\ud800": 1}))) == ["#/%3F"]


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/jsonx", "application/json; charset=latin-1"])
def test_a_body_of_another_type_is_refused(school: TestClient, media_type: str) -> None:
    """A body is taken only if it says that it is JSON, in UTF-8; a merge patch only in a PATCH."""
    unsupported = (415, "unsupported_media_type")
    for method, url in WRITES:
        assert refusal(school.request(method, url, content=b"{}")) == unsupported
        assert refusal(school.request(method, url, content=b"{}", headers={"content-type": media_type})) == unsupported
    merge_patch = {"content-type": "application/merge-patch+json"}
    assert refusal(school.post("/students", content=b"{}", headers=merge_patch)) == unsupported


@pytest.mark.parametrize("parameter", ["", ";charset=utf-8", '; Charset="UTF-8"', " ; charset=utf8 "])
def test_json_is_taken_however_it_is_called(school: TestClient, parameter: str) -> None:
    """The media type is the same in any case, and with the charset that JSON has anyway."""
    for media_type in ("application/json", "Application/JSON", "application/Merge-Patch+json"):
        headers = {"content-type": f"{media_type}{parameter}"}
        assert school.patch("/students/1", content=b"{}", headers=headers).status_code == 200


@pytest.mark.parametrize("length", ["abc", "-1", "1.0", "", "9" * 5000])
def test_a_content_length_is_not_trusted(client: TestClient, length: str) -> None:
    """A length that is no number, which some servers let through, is no failure of the service."""
    answer = client.post("/students", content=b'{"name": "Ada"}', headers=JSON | {"content-length": length})
    assert answer.status_code < 500


def test_a_body_that_is_announced_too_large_is_not_read(client: TestClient) -> None:
    """A Content-Length over 1 MiB is refused before a byte of the body has come."""
    start, _ = ask(client, "POST", "/students", length=2**20 + 1)
    assert start["status"] == 413


def test_a_body_over_1_mib_is_refused_over_the_wire(live: httpx2.Client) -> None:
    """A body of 1 MiB is read and one of a byte more is not, whether it comes with its length or in chunks."""

    def chunks(length: int) -> Iterator[bytes]:
        for start in range(0, length, 65536):
            yield b" " * min(65536, length - start)

    too_large = (413, "payload_too_large")
    for length, expected in ((2**20, (400, "malformed_json")), (2**20 + 1, too_large), (2**24, too_large)):
        for content in (b" " * length, chunks(length)):
            assert refusal(live.post("/students", content=content, headers=JSON)) == expected
    assert live.get("/students").json() == []


def test_a_body_that_breaks_off_is_not_answered(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """When the server tells that the client is gone, nobody is answered, nothing is kept and nothing is logged."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": b'{"name": "Ada"}', "more_body": True},
        {"type": "http.disconnect"},
    ]
    assert ask(client, "POST", "/students", *messages) == []
    assert caplog.records == []
    assert client.get("/students").json() == []


def test_a_client_that_hangs_up_is_no_error(capfd: pytest.CaptureFixture[str], serve: Callable[..., Server]) -> None:
    """When a client goes away in mid-body nothing is kept, nothing is logged, and others are served."""
    server = serve()
    url = httpx2.URL(server.url)
    for framing, start in (("Content-Length: 100", '{"name": "Ada"}'), ("Transfer-Encoding: chunked", "10\r\n{")):
        with socket.create_connection((url.host, url.port), timeout=10) as connection:
            head = f"POST /students HTTP/1.1\r\nHost: school\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
            connection.sendall((head + start).encode())
    assert httpx2.get(f"{server.url}/students").json() == []
    server.process.terminate()
    server.process.wait(10)
    assert capfd.readouterr().err == ""


# Queries


def cursor(key: object) -> str:
    """Write a key as a cursor is written, whatever it is."""
    return urlsafe_b64encode(json.dumps(key, separators=(",", ":")).encode()).decode().rstrip("=")


BAD_LIMITS = ["0", "1001", "-1", "1.0", "1e2", "", "abc", " 1", "1_0", "+1", "٣", "9" * 5000, "true", "null"]
BAD_CURSORS = [
    *("", "x", "%%%", "é", "\0", "[1]", "1", "_" * 5000, f"{cursor([1])}!", f"!{cursor([1])}"),
    *(cursor(key) for key in ([], [0], [-1], [2**63], [True], ["1"], [1.0], [None], [[1]], ["a", 1, 1])),
    *(cursor(key) for key in ({}, {"0": 1}, 1, "1", None)),
    *(urlsafe_b64encode(text).decode() for text in (b"[1", b"[\xff]", b"[" + b"9" * 5000 + b"]", b"[" * 2000)),
]

BAD_KEYS: list[Any] = [[], [1], ["b", 1], [""], ["", 1], ["a", 0], ["a", "1"], ["a\0", 1], ["a" * 201, 1], [1, "a"]]


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        *(({"limit": limit}, ["limit"]) for limit in BAD_LIMITS),
        *(({"after": after}, ["after"]) for after in BAD_CURSORS),
        ({"limit": ["1", "1"]}, ["limit"]),
        ({"after": [cursor([1])] * 2}, ["after"]),
        ({"colour": "red"}, ["colour"]),
        ({"": ""}, [""]),
        ({"Limit": "1", "a/b~c\0": ["1", "2"], "after": "x", "limit": "0"}, ["Limit", "a/b~c\0", "after", "limit"]),
        ({"after": cursor(["Ada", 1])}, ["after"]),
        ({"after": cursor(["Ada", 1]), "limit": "0"}, ["after", "limit"]),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_page_that_cannot_be_is_refused(school: TestClient, query: dict[str, Any], parameters: list[str]) -> None:
    """A parameter that is unknown, repeated, out of range, or not a cursor of the list, is told; all at once."""
    for url in LISTS:
        assert faults(school.get(url, params=query)) == parameters


@pytest.mark.parametrize(
    ("url", "query", "parameters"),
    [
        *(("/students", {"name": "a", "after": cursor(key)}, ["after"]) for key in BAD_KEYS),
        *(("/courses", {"name": name}, ["name"]) for name in ("a" * 201, "a\0", ["a", "a"])),
        *(("/courses", {"level": level}, ["level"]) for level in ("a" * 201, "\x9f", ["a", "a"])),
        ("/students", {"level": "A1"}, ["level"]),
        ("/students/1/courses", {"name": "a", "level": "a"}, ["level", "name"]),
        (
            "/courses",
            {"limit": "0", "after": "x", "name": "a" * 201, "level": ["a", "a"], "colour": ["red", "blue"]},
            ["after", "colour", "level", "limit", "name"],
        ),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_filter_that_cannot_be_is_refused(
    client: TestClient, url: str, query: dict[str, Any], parameters: list[str]
) -> None:
    """A filter has the rules of what it filters, and a cursor is good only with the filter that it came from."""
    assert faults(client.get(url, params=query)) == parameters


@pytest.mark.parametrize("query", ["%FF=1", "limit=%FF", "name=%ED%A0%80", "&".join(f"p{n}=1" for n in range(60))])
def test_a_query_that_cannot_be_read_is_refused(school: TestClient, query: str) -> None:
    """A query that is not UTF-8, or has parameters without end, is refused as a whole."""
    for url in LISTS:
        assert refusal(school.get(f"{url}?{query}")) == (422, "invalid_query")


@pytest.mark.parametrize(
    ("method", "url"),
    [
        *WRITES,
        *(("GET", url) for url in ("/students/1", "/courses/1", "/students/1/courses/1")),
        *(("DELETE", url) for url in ("/students/1", "/courses/1", "/students/1/courses/1")),
        ("PUT", "/students/1/courses/1"),
    ],
)
def test_a_path_that_takes_no_parameters_refuses_any(school: TestClient, method: str, url: str) -> None:
    """Where there is no parameter at all, every one is unknown."""
    content: dict[str, Any] = {"json": {}} if (method, url) in WRITES else {}
    assert refusal(school.request(method, f"{url}?limit=1", **content)) == (422, "invalid_query")
    assert school.get("/students/1/courses/1").status_code == 200


# Anything


anything = settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
texts = st.text(st.characters(), max_size=8) | st.sampled_from(["Ada", "a" * 200, "a" * 201])
scalars = (
    st.none() | st.booleans() | st.integers() | st.sampled_from([1, 2**63 - 1, 2**63, 2**64]) | st.floats() | texts
)
keys = st.sampled_from(["name", "level", "course_id"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | texts, inner, max_size=3), max_leaves=8
)
payloads = st.dictionaries(keys, scalars | st.just(10**4000), max_size=3) | values


@anything
@given(endpoint=st.sampled_from([*WRITES, ("PUT", "/students/1/courses/1")]), value=payloads)
def test_no_json_is_a_failure(school: TestClient, endpoint: tuple[str, str], value: object) -> None:
    """Whatever JSON is sent to whatever writes, it is taken, or refused for what it is."""
    answer = school.request(*endpoint, **body(value))
    assert answer.status_code < 300 or refusal(answer)[0] in (400, 404, 409, 422)


words = (
    st.sampled_from(["limit", "after", "name", "level", "1", "1000", "0", ""])
    | st.binary(max_size=8)
    | texts.map(lambda text: text.encode(errors="surrogatepass"))
    | values.map(lambda key: cursor(key).encode())
)
pairs = st.lists(st.tuples(words, words), max_size=4).map(urlencode)
queries = pairs | st.text(max_size=50).map(lambda text: quote(text, "=&%;+"))


@anything
@given(url=st.sampled_from([*LISTS, "/students/1", "/health/live"]), query=queries)
def test_no_query_is_a_failure(school: TestClient, url: str, query: str) -> None:
    """Whatever is asked for, it is served or refused for what it is."""
    answer = school.get(f"{url}?{query}")
    assert answer.status_code == 200 or refusal(answer) == (422, "invalid_query")


letters = st.sampled_from("aAbBzZ[_`@{ éÉİKß\U0010ffff") | st.characters(exclude_categories=["Cc", "Cs"])
names = st.text(letters, min_size=1, max_size=6) | st.sampled_from(["a" * 200, "A" * 199 + "b", "\U0010ffff" * 200])


@anything
@given(
    given_names=st.lists(names, max_size=10),
    prefix=st.text(letters, max_size=2) | names,
    cut=st.none() | st.tuples(st.integers(0, 9), st.integers(0, 6)),
    limit=st.integers(1, 5),
)
def test_paging_by_name_gives_exactly_the_names_that_begin_so(  # noqa: PLR0913, PLR0917
    client: TestClient,
    db: pw.Database,
    given_names: list[str],
    prefix: str,
    cut: tuple[int, int] | None,
    limit: int,
) -> None:
    """Any prefix of any set of names gives those that begin so, in either case of ASCII, each once and in order."""
    with db.atomic():
        db.execute_sql("DELETE FROM students")
        rows = [insert_student(db, name) for name in given_names]
    if cut and rows:  # A prefix that is there, in the other case.
        prefix = given_names[cut[0] % len(rows)][: cut[1]].swapcase()
    # bytes.lower folds ASCII only, and UTF-8 sorts as its characters do.
    expected = sorted(
        (row.name.encode().lower(), row.id)
        for row in rows
        if row.name.encode().lower().startswith(prefix.encode().lower())
    )
    found = pages(client, f"/students?{urlencode({'name': prefix, 'limit': limit})}")
    assert [(row["name"].encode().lower(), row["id"]) for page in found for row in page] == expected
    assert all(len(page) == limit for page in found[:-1])
