"""Bodies and queries that break a rule are refused, with every fault, and nothing of them is kept."""

import json
import socket
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import peewee as pw
import pytest
from answers import BULK, JSON, LISTS, WRITES, ask, body, faults, forged, open_school, refusal
from conftest import Server
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from service import Settings, create_app
from service.courses import insert_course
from service.enrollments import enroll
from service.errors import InvalidPayload
from service.fields import UNKNOWN
from service.http.body import decode
from service.http.payloads import BulkRow
from service.http.reading import read_payload
from service.students import insert_student


@pytest.fixture
def school(client: TestClient, db: pw.Database) -> TestClient:
    """Give a client of the small school."""
    open_school(db)
    return client


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
    for method, url in (*WRITES, BULK):
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
    answer = client.post(
        "/courses", json=dict.fromkeys(unknown, 1) | {"name": None, "capacity": -1, "waitlist_capacity": ""}
    )
    known = ["name", "level", "capacity", "waitlist_capacity"]
    assert faults(answer) == sorted(f"#/{pointer}" for pointer in [*unknown.values(), *known])
    assert answer.json()["detail"] == "The payload has 12 faults."
    assert faults(client.post("/students", **body({"name": "Ada", "\ud800": 1}))) == ["#/%3F"]


def test_unknown_fields_are_counted_and_not_looked_at() -> None:
    """To refuse a row of 300,000 unknown fields takes next to no time once it is decoded, and no fault is forgotten."""
    content = json.dumps({"course_id": 0, **{f"key {n}": n for n in range(300_000)}}).encode()
    began = time.thread_time()  # What else the machine does is not the service's.
    row = decode(content)
    decoded = time.thread_time()
    with pytest.raises(InvalidPayload) as refusal:
        read_payload(BulkRow, row)
    assert time.thread_time() - decoded < (decoded - began) / 10
    missing, wrong, *unknown = refusal.value.faults
    assert (missing, wrong[0]) == (("#/student_id", "is required, or student_external_id"), "#/course_id")
    assert unknown == [(f"#/key%20{n}", UNKNOWN) for n in range(18)]
    assert refusal.value.left_out == 300_002 - 20


def taken(method: str, url: str) -> list[str]:
    """Give the media types that a request takes."""
    more = {"PATCH": ["application/merge-patch+json"], "POST /enrollments": ["application/x-ndjson"]}
    return ["application/json", *more.get(method, []), *more.get(f"{method} {url}", [])]


def unsupported(school: TestClient, method: str, url: str, headers: Any) -> tuple[str, httpx2.Headers]:
    """Send a body that must be refused for what it says that it is; give the detail, and the headers."""
    answer = school.request(method, url, content=b"{}", headers=headers)
    assert refusal(answer) == (415, "unsupported_media_type")
    detail = answer.json()["detail"]
    assert ", ".join(taken(method, url)) in detail
    return detail, answer.headers


@pytest.mark.parametrize(
    "media_type",
    [
        *("text/plain", "application/jsonx", "application/json x", "json", "*/*", "multipart/form-data; boundary=x"),
        *("application/json, application/json", "application/json;a=1, text/plain", 'application/json; a="', ";", "é"),
    ],
)
def test_a_body_of_another_type_is_refused(school: TestClient, media_type: str) -> None:
    """A body is taken only if it says that it is JSON; the refusal names what came and what is taken."""
    for method, url in (*WRITES, BULK):
        detail, headers = unsupported(school, method, url, {"content-type": media_type.encode()})
        assert f"came as {media_type}." in detail
        told = headers["accept-patch"] if method == "PATCH" else headers["accept"]
        assert told == ", ".join(taken(method, url))


def test_a_body_without_a_type_is_refused(school: TestClient) -> None:
    """A body that does not say what it is is refused in words that say so."""
    for method, url in (*WRITES, BULK):
        for headers in ({}, {"content-type": ""}):
            assert "without a Content-Type" in unsupported(school, method, url, headers)[0]


def test_a_merge_patch_is_for_patch_and_lines_are_for_bulk(school: TestClient) -> None:
    """What one kind of request takes is not taken by the others."""
    for method, url in (*WRITES, BULK):
        for other in {"application/merge-patch+json", "application/x-ndjson"}.difference(taken(method, url)):
            assert f"came as {other}." in unsupported(school, method, url, {"content-type": other})[0]


def test_a_type_that_is_given_twice_is_refused(school: TestClient) -> None:
    """Of two Content-Types nobody knows which is meant, not even where they are the same; both are named."""
    for types in (["application/json", "text/plain"], ["text/plain", "application/json"], ["application/json"] * 2):
        for parameter in ("", ";charset=utf-8", ";a=1"):
            given = [f"{media_type}{parameter}" for media_type in types]
            detail, _ = unsupported(school, "POST", "/students", [("content-type", each) for each in given])
            assert f"came as {', '.join(given)}." in detail
    twice = [("content-type", "application/json"), ("x", "1"), ("x", "2")]
    assert school.patch("/students/1", content=b"{}", headers=twice).status_code == 200


def test_a_type_of_any_length_is_named_in_short(school: TestClient) -> None:
    """What came is named by its beginning only."""
    detail, _ = unsupported(school, "POST", "/students", {"content-type": "x" * 10_000})
    assert len(detail) < 300


@pytest.mark.parametrize("charset", ["latin-1", '"ISO-8859-1"', "UTF-16", "utf-8-sig", "utf-8; charset=utf-16"])
def test_a_body_in_another_charset_is_refused(school: TestClient, charset: str) -> None:
    """A charset other than UTF-8 is refused by its name."""
    for method, url in (*WRITES, BULK):
        for media_type in taken(method, url):
            headers = {"content-type": f"{media_type}; a=b; Charset={charset}"}
            named = charset.strip('"').rpartition("=")[2]
            assert f"in the charset {named}." in unsupported(school, method, url, headers)[0]


@pytest.mark.parametrize(
    "parameter",
    [
        *(
            "",
            ";",
            "; ",
            ";charset=utf-8",
            '; Charset="UTF-8"',
            " ; charset=utf8 ",
            "; charset=us-ascii",
            ";charset=ASCII",
        ),
        *("; profile=https://example.org/a", '; profile="a; charset=latin-1"', '; a="\\"; charset=x"', "; version=1"),
        *("; version=1; charset=utf-8", ";odata.metadata=minimal;charset=utf-8", ";;a = b ;", "; a", "; charset"),
    ],
)
def test_json_is_taken_however_it_is_called(school: TestClient, parameter: str) -> None:
    """The media type is the same in any case, with the charset that JSON has anyway, and with any other parameter."""
    for media_type in ("application/json", "Application/JSON", "application/Merge-Patch+json"):
        headers = {"content-type": f"{media_type}{parameter}"}
        assert school.patch("/students/1", content=b"{}", headers=headers).status_code == 200
    for media_type, rows in (("application/json", b"[{}, {}]"), ("application/X-ndjson", b"{}\n{}")):
        answer = school.post("/enrollments", content=rows, headers={"content-type": f"{media_type}{parameter}"})
        assert answer.json()["totals"]["refused"] == 2


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, gzip", "x" * 5000])
def test_a_coded_body_is_refused(school: TestClient, coding: str) -> None:
    """A body with a Content-Encoding is refused by its name, and the answer says what would be taken (RFC 9110)."""
    for method, url in (*WRITES, BULK):
        detail, headers = unsupported(school, method, url, JSON | {"content-encoding": coding})
        assert f"with Content-Encoding {coding[:100]}." in detail
        assert headers["accept-encoding"] == "identity"
    assert school.get("/students", headers={"content-encoding": coding}).status_code == 200
    for plain in ("identity", "Identity", ""):
        answer = school.patch("/students/1", content=b"{}", headers=JSON | {"content-encoding": plain})
        assert answer.status_code == 200


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
            head = f"POST /students HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
            connection.sendall((head + start).encode())
    assert httpx2.get(f"{server.url}/students").json() == []
    server.process.terminate()
    server.process.wait(10)
    assert capfd.readouterr().err == ""


# Queries


BAD_NUMBERS = ["-1", "1.0", "1e2", "", "abc", " 1", "1_0", "+1", "٣", str(2**63), "9" * 5000, "true", "null"]
BAD_LIMITS = ["0", "1001", *BAD_NUMBERS]
BAD_CURSORS = [
    *("", "x", "%%%", "é", "\0", "[1]", "1", "_" * 5000, "WzFd", "WyJBZGEiLDFd"),
    *(urlsafe_b64encode(text).decode() for text in (b"", b"1", b"1 Ada", b"\0" * 8 + b"1 ", b"\xff" * 5000)),
]
BAD_KEYS = [
    *(b"", b" ", b"Ada", b" Ada", b"1", b"x Ada", b"-", b"+1 ", b"1.0 ", b"1_0 ", b"true ", "٣ ".encode(), b"[1] "),
    *(b"9223372036854775808 a", b"-9223372036854775809 a", b"9" * 5000 + b" a", b"1\n "),
]
"""What no row's key is, whatever is in the file."""


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        *(({"limit": limit}, ["limit"]) for limit in BAD_LIMITS),
        *(({"after": after}, ["after"]) for after in BAD_CURSORS),
        ({"limit": ["1", "1"]}, ["limit"]),
        ({"after": ["x", "x"]}, ["after"]),
        ({"colour": "red"}, ["colour"]),
        ({"": ""}, [""]),
        ({"Limit": "1", "a/b~c\0": ["1", "2"], "after": "x", "limit": "0"}, ["Limit", "a/b~c\0", "after", "limit"]),
        ({"after": "x", "limit": "0"}, ["after", "limit"]),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_page_that_cannot_be_is_refused(school: TestClient, query: dict[str, Any], parameters: list[str]) -> None:
    """A parameter that is unknown, repeated, out of range, or not a cursor of the list, is told; all at once."""
    for url in LISTS:
        assert faults(school.get(url, params=query)) == parameters


@pytest.mark.parametrize("key", BAD_KEYS, ids=repr)
def test_a_cursor_that_the_list_never_made_is_refused(school: TestClient, key: bytes) -> None:
    """What is no row's key is refused, although the cursor is of the list."""
    for url in (*(f"{url}?" for url in LISTS), "/students?name=a"):
        assert faults(school.get(f"{url}&limit=0&after={forged(url, key)}")) == ["after", "limit"]


PAGED = [
    *("/students?", "/students?name=", "/students?name=a", "/students?name=A", "/students?name=Ada"),
    *("/courses?", "/courses?name=", "/courses?name=a", "/courses?level=A1", "/courses?level=A1&name=a"),
    *("/courses?level=a", "/courses?name=A1"),
    *("/students/1/courses?", "/students/2/courses?", "/students/1/courses?status=enrolled"),
    *("/students/2/courses?status=waitlisted", "/courses/1/students?", "/courses/2/students?"),
    *("/courses/1/waitlist?", "/courses/2/waitlist?"),
]
"""Lists of more than one page, each another one."""


@pytest.fixture
def campus(client: TestClient, db: pw.Database) -> TestClient:
    """Give a client of a school in which each of those lists has several rows."""
    with db.atomic():
        for name in ("Ada", "ada", "AdA", "Bo", "Cy", "Di"):
            insert_student(db, name)
        for name in ("Ada", "adA", "A1", "a1"):
            for level in ("A1", "a", "A1", "a"):
                insert_course(db, name, level, 2, 4)
        for student_id in (1, 3, 4, 5, 6, 2):
            for course_id in (1, 2):
                enroll(db, student_id, course_id)
        for course_id in (3, 4):
            enroll(db, 1, course_id)
    return client


def test_a_cursor_of_another_list_is_refused(campus: TestClient) -> None:
    """A cursor is good for the list that made it, with those filters and any limit; every other list refuses it."""
    made = {}
    for url in PAGED:
        answer = campus.get(f"{url}&limit=1")
        made[url] = httpx2.URL(answer.links["next"]["url"]).params["after"]
    assert len({*made.values()}) == len(PAGED)
    for url in PAGED:
        for other, after in made.items():
            answer = campus.get(f"{url}&after={after}&limit=7")
            if url == other:
                assert answer.status_code == 200
            else:
                assert faults(answer) == ["after"]
        assert faults(campus.get(f"/events?after={made[url]}")) == ["after"]
        path, _, filters = url.partition("?")
        assert campus.head(f"{path}?limit=2&after={made[url]}&{filters}".rstrip("&")).status_code == 200


def test_a_cursor_goes_with_its_list(path: Path) -> None:
    """A cursor is as good under another mount, or over another app on the file, and however the filter is escaped."""
    app = create_app(Settings(database_url=str(path)))
    mounted = Starlette(routes=[Mount("/the registry", create_app(Settings(database_url=str(path))))])
    with TestClient(app) as client, TestClient(mounted) as other:
        for name in ("Anaïs & Bo", "Anaïs & Cy"):
            client.post("/students", json={"name": name})
        link = client.get("/students", params={"name": "Anaïs &", "limit": 1}).links["next"]["url"]
        after = httpx2.URL(link).params["after"]
        for url in (
            link,
            f"/students?after={after}&name=Ana%C3%AFs%20%26",
            f"/students?name=%41naïs+%26&limit=5&after={after}",
        ):
            assert [row["id"] for row in client.get(url).json()] == [2]
            assert [row["id"] for row in other.get(f"/the registry{url}").json()] == [2]


@pytest.mark.parametrize(
    ("url", "query", "parameters"),
    [
        *(("/courses", {"name": name}, ["name"]) for name in ("a" * 201, "a\0", ["a", "a"])),
        *(("/courses", {"level": level}, ["level"]) for level in ("a" * 201, "\x9f", ["a", "a"])),
        *(("/students/1/courses", {"status": status}, ["status"]) for status in ("", "Enrolled", ["enrolled"] * 2)),
        *(("/events", {"after": number}, ["after"]) for number in BAD_NUMBERS),
        ("/events", {"course_id": "x", "limit": "0", "student_id": ["1", "1"]}, ["course_id", "limit", "student_id"]),
        ("/students", {"level": "A1"}, ["level"]),
        ("/students/1/courses", {"name": "a", "level": "a"}, ["level", "name"]),
        ("/courses/1/students", {"status": "enrolled"}, ["status"]),
        ("/events", {"type": "dropped"}, ["type"]),
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
    for url in (*LISTS, "/events"):
        assert refusal(school.get(f"{url}?{query}")) == (422, "invalid_query")


@pytest.mark.parametrize(
    ("method", "url"),
    [
        *WRITES,
        BULK,
        *(("GET", url) for url in ("/students/1", "/courses/1", "/students/1/courses/1")),
        *(("DELETE", url) for url in ("/students/1", "/courses/1", "/students/1/courses/1")),
        ("PUT", "/students/1/courses/1"),
    ],
)
def test_what_has_no_pages_refuses_their_parameters(school: TestClient, method: str, url: str) -> None:
    """Where there are no pages, a page's parameters are unknown."""
    content: dict[str, Any] = {"json": {}} if (method, url) in (*WRITES, BULK) else {}
    assert refusal(school.request(method, f"{url}?limit=1", **content)) == (422, "invalid_query")
    assert school.get("/students/1/courses/1").status_code == 200
