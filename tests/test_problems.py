"""Every refusal is a problem (RFC 9457); every path tells its methods, and what is nobody's id is not found."""

import copy
import pickle
import re
from pathlib import Path
from typing import Any

import httpx2
import peewee as pw
import pytest
from answers import JSON, KINDS, ask, open_school, pages, refusal
from programs import lost, writing
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from service import Settings, create_app, errors, students
from service.courses import insert_course
from service.errors import ServiceError
from service.http.api import API
from service.http.edge import InsufficientScope, InvalidToken, MethodNotAllowed, Unauthorized
from service.http.problems import PROBLEMS
from service.terms import insert_term

pytestmark = pytest.mark.both


HOST = {
    "sqlite": (
        """
        CREATE TRIGGER host BEFORE INSERT ON students WHEN NEW.name = 'Mallory'
        BEGIN SELECT raise(ABORT, 'fees unpaid'); END""",
    ),
    "postgresql": (
        "CREATE FUNCTION host() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'fees unpaid'; END $$",
        """
        CREATE TRIGGER host BEFORE INSERT ON students FOR EACH ROW WHEN (NEW.name = 'Mallory')
        EXECUTE FUNCTION host()""",
    ),
}
"""A rule of a host program, which refuses a student."""


@pytest.fixture
def school(client: TestClient, db: pw.Database, kind: str) -> TestClient:
    """Give a client of the small school, with a course that opens later and one that has closed, both of a term."""
    open_school(db)
    insert_term(db, "Autumn", external_id="2026A")
    insert_course(db, "Later", "A1", term_id=1, opens_at="2999-01-01T00:00:00Z")
    insert_course(db, "Over", "A1", term_id=1, closes_at="2000-01-01T00:00:00Z")
    for sql in HOST[kind]:
        db.execute_sql(sql)
    return client


# Every code


REFUSALS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "malformed_json": ("POST", "/students", {"content": "{", "headers": JSON}),
    "not_found": ("GET", "/nothing", {}),
    "student_not_found": ("GET", "/students/4", {}),
    "course_not_found": ("GET", "/courses/9", {}),
    "term_not_found": ("GET", "/terms/9", {}),
    "enrollment_not_found": ("GET", "/students/1/courses/2", {}),
    "method_not_allowed": ("PUT", "/students", {}),
    "already_enrolled": ("POST", "/students/1/courses", {"json": {"course_id": 1}}),
    "already_waitlisted": ("POST", "/students/2/courses", {"json": {"course_id": 1}}),
    "course_full": ("POST", "/students/3/courses", {"json": {"course_id": 1}}),
    "enrollment_not_open": ("POST", "/students/3/courses", {"json": {"course_id": 2}}),
    "enrollment_closed": ("POST", "/students/3/courses", {"json": {"course_id": 3}}),
    "external_id_taken": ("POST", "/terms", {"json": {"name": "Autumn", "external_id": "2026A"}}),
    "term_has_courses": ("DELETE", "/terms/1", {}),
    "capacity_below_enrolled": ("PATCH", "/courses/1", {"json": {"capacity": 0}}),
    "waitlist_capacity_below_waitlisted": ("PATCH", "/courses/1", {"json": {"waitlist_capacity": 0}}),
    "bulk_refused": ("POST", "/enrollments?atomic=true", {"json": [{"student_id": 3, "course_id": 1}]}),
    "student_has_enrollments": ("DELETE", "/students/2", {}),
    "course_has_enrollments": ("DELETE", "/courses/1", {}),
    "constraint_violated": ("POST", "/students", {"json": {"name": "Mallory"}}),
    "feed_rewound": ("GET", "/events?after=3", {}),
    "precondition_failed": ("PATCH", "/students/1", {"json": {"name": "Di"}, "headers": {"if-match": '"another"'}}),
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


def test_a_locked_database_is_busy(path: Path | str) -> None:
    """While another program writes for longer than the timeout, a write is a 503 with Retry-After."""
    with TestClient(create_app(Settings(database_url=str(path), busy_timeout=0))) as client:
        with writing(path):
            answer = client.post("/students", json={"name": "Ada"})
        assert refusal(answer) == (503, "busy")
        assert int(answer.headers["retry-after"]) > 0
        assert client.get("/students").json() == []
        assert client.post("/students", json={"name": "Ada"}).status_code == 201


def test_a_lost_database_is_unavailable(client: TestClient, path: Path | str) -> None:
    """When the database is gone, reads and writes are a 503 with Retry-After."""
    with lost(path):
        for answer in (client.get("/students"), client.post("/students", json={"name": "Ada"})):
            assert refusal(answer) == (503, "storage_unavailable")
            assert int(answer.headers["retry-after"]) > 0


def test_a_defect_leaks_nothing(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody foresaw is a 500 that says nothing of the cause; the log has it, with its traceback."""

    def divide(_: pw.Database, number: int) -> float:
        return number / 0

    monkeypatch.setattr(students, "find_student", divide)
    answer = client.get("/students/1")
    assert refusal(answer) == (500, "internal_error")
    assert not re.search("Error|division|divide|line|\\.py", answer.text)
    assert re.search(r"(?s)GET /students/1 failed\..*Traceback.*in divide.*ZeroDivisionError", caplog.text)


def test_every_code_is_explained(client: TestClient) -> None:
    """The path in a problem's type says what its code means and what to do; there are no others."""
    for code, row in PROBLEMS.items():
        answer = client.get(f"/problems/{code}")
        assert answer.status_code == 200
        assert answer.json() == {"code": code, "status": row.status, "title": row.title, "advice": row.advice}
        assert row.title
        assert row.advice
    elsewhere = {"busy", "storage_unavailable", "internal_error", "foreign_origin", "misdirected_request"}
    elsewhere |= {"unauthorized", "invalid_token", "insufficient_scope", "token_not_found", "token_ended"}
    elsewhere |= {"unreadable_file", "too_many_drops", "repeated", "invalid_row"}
    elsewhere |= {"bad_request", "request_timeout", "uri_too_long", "headers_too_large"}
    assert PROBLEMS.keys() == REFUSALS.keys() | elsewhere
    for unknown in ("nothing", "Busy", "busy%0A", "%00"):
        assert refusal(client.get(f"/problems/{unknown}")) == (404, "not_found")


def test_every_refusal_of_the_rules_has_a_status() -> None:
    """Each ServiceError that has a code has a row in the table of problems, and there are no other rows."""
    assert PROBLEMS.keys() == KINDS.keys()


@pytest.mark.parametrize(
    "refusal",
    [
        errors.AlreadyEnrolled(1, 2),
        errors.BulkRefused({1: errors.CourseFull(3)}, 5),
        errors.ConstraintViolated("fees unpaid"),
        errors.FeedRewound(7),
        errors.InvalidPayload([("#/name", "is required")]),
        errors.Busy("Later."),
        MethodNotAllowed(((b"allow", b"GET"),)),
        Unauthorized(),
        InvalidToken("The token was revoked."),
        InsufficientScope("enroll"),
    ],
    ids=lambda refusal: refusal.code,
)
def test_a_refusal_can_be_copied_and_pickled(refusal: ServiceError) -> None:
    """A refusal keeps what it is about wherever a program sends it."""
    for other in (copy.copy(refusal), pickle.loads(pickle.dumps(refusal))):  # noqa: S301 - it is our own.
        assert (type(other), other.code, other.detail) == (type(refusal), refusal.code, refusal.detail)
        assert repr(vars(other)) == repr(vars(refusal))


def test_a_process_may_live_and_not_be_ready(client: TestClient, path: Path | str) -> None:
    """Without its database the service is live and not ready."""
    for check in ("live", "ready"):
        answer = client.get(f"/health/{check}")
        assert (answer.status_code, answer.json()) == (200, {"status": check})
    with lost(path):
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


@pytest.mark.parametrize("at", ["//evil.example", "///evil.example", "/\\evil.example", "/", "//"])
def test_no_url_leads_to_another_host(path: Path, at: str) -> None:
    """Wherever a mount may be, Location, Link and type are paths; those of a mount of two slashes lead back to it."""
    app = create_app(Settings(database_url=str(path)))
    for mount in ("/{tenant:path}", at.rstrip("/")) if at.strip("/") else ("/{tenant:path}",):
        with TestClient(app), TestClient(Starlette(routes=[Mount(mount, app)])) as client:

            def send(method: str, url: str, client: TestClient = client, **options: Any) -> httpx2.Response:
                return client.request(method, f"http://testserver{url}", **options)

            added = [send("POST", f"{at}/students", json={"name": "Ada"}) for _ in range(2)][1]
            link = send("GET", f"{at}/students?limit=1").links.get("next", {"url": "/"})["url"]
            found = [added.headers["location"], link, send("GET", f"{at}/nothing").json()["type"]]
            assert [url[:2] for url in found if not re.match(r"/(?![/\\])", url)] == []
            if mount == at:
                assert send("GET", found[0]).json() == added.json()
                assert send("GET", found[1]).json()[0]["id"] == 2
                assert send("GET", found[2]).json()["code"] == "not_found"


# Headers


def test_every_answer_has_the_headers_of_safety(live: httpx2.Client, db: pw.Database) -> None:
    """No answer, with a body or without, is kept by a cache, taken for another type, or loaded into another's page."""
    open_school(db)
    for method, url, payload, status in (
        ("GET", "/students", None, 200),
        ("HEAD", "/students/1/courses", None, 200),
        ("POST", "/students", {"name": "Di"}, 201),
        ("POST", "/enrollments", [{"student_id": 1, "course_id": 1}], 200),
        ("DELETE", "/students/3", None, 204),
        ("OPTIONS", "/students", None, 204),
        ("GET", "/students/9", None, 404),
        ("GET", "/nothing", None, 404),
        ("PUT", "/students", None, 405),
        ("GET", "/health/ready", None, 200),
        ("GET", "/problems/busy", None, 200),
    ):
        answer = live.request(method, url, json=payload)
        assert answer.status_code == status
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


# Methods


ALLOW = {
    "/students": "GET, HEAD, OPTIONS, POST",
    "/students/{student_id}": "DELETE, GET, HEAD, OPTIONS, PATCH",
    "/students/{student_id}/courses": "GET, HEAD, OPTIONS, POST",
    "/students/{student_id}/courses/{course_id}": "DELETE, GET, HEAD, OPTIONS, PUT",
    "/courses": "GET, HEAD, OPTIONS, POST",
    "/courses/{course_id}": "DELETE, GET, HEAD, OPTIONS, PATCH",
    "/courses/{course_id}/students": "GET, HEAD, OPTIONS",
    "/courses/{course_id}/waitlist": "GET, HEAD, OPTIONS",
    "/courses/{course_id}/cancel": "OPTIONS, POST",
    "/students/{student_id}/swap": "OPTIONS, POST",
    "/students/{student_id}/withdraw": "OPTIONS, POST",
    "/students/{student_id}/erase": "OPTIONS, POST",
    "/students/{student_id}/export": "GET, HEAD, OPTIONS",
    "/terms": "GET, HEAD, OPTIONS, POST",
    "/terms/{term_id}": "DELETE, GET, HEAD, OPTIONS, PATCH",
    "/students/by-external-id/{external_id:path}": "GET, HEAD, OPTIONS, PUT",
    "/courses/by-external-id/{external_id:path}": "GET, HEAD, OPTIONS, PUT",
    "/terms/by-external-id/{external_id:path}": "GET, HEAD, OPTIONS, PUT",
    "/enrollments": "OPTIONS, POST",
    "/events": "GET, HEAD, OPTIONS",
    "/imports": "OPTIONS, POST",
    "/exports/students.csv": "GET, HEAD, OPTIONS",
    "/exports/courses.csv": "GET, HEAD, OPTIONS",
    "/exports/terms.csv": "GET, HEAD, OPTIONS",
    "/exports/enrollments.csv": "GET, HEAD, OPTIONS",
    "/exports/courses/{course_id}/roster.csv": "GET, HEAD, OPTIONS",
    "/exports/oneroster.zip": "GET, HEAD, OPTIONS",
    "/session": "DELETE, GET, HEAD, OPTIONS, POST",
    "/tokens": "GET, HEAD, OPTIONS, POST",
    "/tokens/{token_id}": "DELETE, GET, HEAD, OPTIONS",
    "/tokens/{token_id}/rotate": "OPTIONS, POST",
    "/health/live": "GET, HEAD, OPTIONS",
    "/health/ready": "GET, HEAD, OPTIONS",
    "/metrics": "GET, HEAD, OPTIONS",
    "/problems/{code}": "GET, HEAD, OPTIONS",
    "/": "GET, HEAD, OPTIONS",
    "/desk": "GET, HEAD, OPTIONS",
    "/desk/{file}": "GET, HEAD, OPTIONS",
    "/docs": "GET, HEAD, OPTIONS",
    "/openapi.json": "GET, HEAD, OPTIONS",
}


def test_every_path_tells_its_methods(client: TestClient) -> None:
    """OPTIONS is a 204 with the full Allow, and so is the Allow of the 405 that any other method gets."""
    assert ALLOW.keys() == API.keys()
    for template, allow in ALLOW.items():
        url = template.replace(":path", "").format(
            student_id="x",
            course_id=9,
            term_id=9,
            external_id="a/b",
            token_id="x",  # noqa: S106 - the id is no secret.
            file="desk.js",
            code="busy",
        )
        answer = client.options(url)
        assert (answer.status_code, answer.content, answer.headers["allow"]) == (204, b"", allow)
        takes = "application/json, application/merge-patch+json" if "PATCH" in allow else None  # RFC 5789, section 3.1.
        assert answer.headers.get("accept-patch") == takes
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"}.difference(allow.split(", ")):
            answer = client.request(method, url)
            assert refusal(answer) == (405, "method_not_allowed")
            assert answer.headers["allow"] == allow


def test_head_sends_no_body_itself(client: TestClient) -> None:
    """The answer to HEAD has no body, whether or not the server would strip it."""
    start, end = ask(client, "HEAD", "/health/live")
    assert (start["status"], end["body"]) == (200, b"")
    assert (b"content-length", b"17") in start["headers"]


def test_head_and_options_over_the_wire(live: httpx2.Client, db: pw.Database) -> None:
    """HEAD has the status and the headers of GET and no body; OPTIONS has no body either."""
    open_school(db)
    for url in (
        *("/students?limit=1", "/students/1", "/students/1/courses", "/students/4", "/nothing", "/health/ready"),
        *("/courses/1/waitlist", "/events?limit=1", "/enrollments"),
    ):
        got, head = live.get(url), live.head(url)
        assert (head.status_code, head.content) == (got.status_code, b"")
        for answer in (got, head):
            for name in ("date", "x-request-id"):
                answer.headers.pop(name)
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
    assert refusal(school.get(f"/courses/{word}/waitlist")) == course
    assert refusal(school.get(f"/students/{word}/courses/1")) == enrollment
    assert refusal(school.delete(f"/students/1/courses/{word}")) == enrollment
    assert [row["id"] for row in school.get("/students/1/courses").json()] == [1]


@pytest.mark.both(False, because="what is refused here reaches no database")
@pytest.mark.parametrize(
    "url",
    [
        *("/%FF", "/%00", "/Students", "//students", "/students/", "/students%0A", "/students/1/"),
        *(
            "/students/1/courses/1/2",
            "/courses/1/students/1",
            "/courses/1/waitlist/2",
            "/students/1%2F2",
            "/students/%2F1",
            "/students/1%2F",
            "/students/1%2F..%2F2",
            "/students%2F",
            "/%2Fstudents",
            "/enrollments/",
            "/events/1",
            "/health",
            "/health/live%0A",
            "/problems",
        ),
    ],
)
def test_an_unknown_path_is_not_found(school: TestClient, url: str) -> None:
    """A path that is not in the table is a 404, for any method; there are no redirects."""
    for method in ("GET", "POST", "OPTIONS"):
        assert refusal(school.request(method, f"http://testserver{url}")) == (404, "not_found")


def test_an_id_of_5000_digits_over_the_wire(live: httpx2.Client) -> None:
    """A number that Python itself would refuse to read is nobody's id."""
    assert refusal(live.get(f"/students/{'9' * 5000}")) == (404, "student_not_found")
