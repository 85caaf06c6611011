"""The operations: each refusal that one declares can come, and what its handler's signature says holds."""

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, get_args

import httpx2
import msgspec
import peewee as pw
import pytest
from answers import JSON, DeclaringClient, open_school, refusal
from starlette.testclient import TestClient
from stores import held

from service import Settings, connect, create_app, events
from service.courses import insert_course, update_course
from service.enrolling import EnrollmentRecord
from service.enrollments import enroll
from service.fields import Id
from service.http import desk, exports, exposition, handlers, imports, office, sessions, tokens
from service.http.answers import NoContent, Ok, PlainText, no_content, ok
from service.http.api import API
from service.http.calls import Call, Rows
from service.http.described import Described
from service.http.files import Csv, Zip
from service.http.operations import operation
from service.http.payloads import NewEnrollment, NewStudent, Payload
from service.http.problems import PROBLEMS
from service.http.queries import PageQuery
from service.students import update_student
from service.terms import insert_term
from service.tokens import SCOPES, create_token, revoke_token

pytestmark = pytest.mark.both

OPERATIONS = {(path, method): each for path, methods in API.items() for method, each in methods.items()}

SOUND: dict[tuple[str, str], tuple[str, Any]] = {
    ("/students", "POST"): ("/students", {"name": "Di"}),
    ("/students/{student_id}", "PATCH"): ("/students/3", {"name": "Cyd"}),
    ("/students/{student_id}", "DELETE"): ("/students/3", None),
    ("/courses", "POST"): ("/courses", {"name": "Go", "level": "1"}),
    ("/courses/{course_id}", "PATCH"): ("/courses/2", {"name": "Chess"}),
    ("/courses/{course_id}", "DELETE"): ("/courses/2", None),
    ("/students/{student_id}/courses", "POST"): ("/students/3/courses", {"course_id": 2}),
    ("/students/{student_id}/courses/{course_id}", "GET"): ("/students/1/courses/1", None),
    ("/students/{student_id}/courses/{course_id}", "PUT"): ("/students/3/courses/2", None),
    ("/students/{student_id}/courses/{course_id}", "DELETE"): ("/students/1/courses/1", None),
    ("/students/{student_id}/swap", "POST"): (
        "/students/1/swap",
        {"drop_course_id": 1, "enroll_course_id": 2},
    ),
    ("/courses/by-external-id/{external_id:path}", "GET"): ("/courses/by-external-id/M-1/a", None),
    ("/courses/by-external-id/{external_id:path}", "PUT"): ("/courses/by-external-id/M-1/a", {"capacity": 3}),
    ("/students/by-external-id/{external_id:path}", "GET"): ("/students/by-external-id/7", None),
    ("/students/by-external-id/{external_id:path}", "PUT"): ("/students/by-external-id/8", {"name": "Di"}),
    ("/terms/by-external-id/{external_id:path}", "GET"): ("/terms/by-external-id/2026A", None),
    ("/terms/by-external-id/{external_id:path}", "PUT"): ("/terms/by-external-id/2026A", {"name": "Fall"}),
    ("/terms", "POST"): ("/terms", {"name": "Spring"}),
    ("/terms/{term_id}", "PATCH"): ("/terms/2", {"name": "Spring"}),
    ("/terms/{term_id}", "DELETE"): ("/terms/2", None),
    ("/enrollments", "POST"): ("/enrollments?atomic=true", [{"student_id": 3, "course_id": 2}]),
    ("/imports", "POST"): ("/imports?file_name=students.csv", b"external_id,name\n8,Di"),
    ("/tokens", "POST"): ("/tokens", {"name": "desk", "scopes": ["read"]}),
    ("/tokens/{token_id}", "GET"): ("/tokens/spare000", None),
    ("/tokens/{token_id}", "DELETE"): ("/tokens/spare000", None),
    ("/tokens/{token_id}/rotate", "POST"): ("/tokens/spare000/rotate", None),
    ("/problems/{code}", "GET"): ("/problems/busy", None),
    ("/desk/{file}", "GET"): ("/desk/desk.css", None),
}
"""A request that is granted in the school, if it is not the path with 1 for each id; and the JSON of its body."""

REFUSED: dict[tuple[str, str, str], tuple[str, Any]] = {
    ("/students/{student_id}/courses", "POST", "course_not_found"): ("/students/3/courses", {"course_id": 9}),
    ("/students/{student_id}/courses", "POST", "already_enrolled"): ("/students/1/courses", {"course_id": 1}),
    ("/students/{student_id}/courses", "POST", "already_waitlisted"): ("/students/2/courses", {"course_id": 1}),
    ("/students/{student_id}/courses", "POST", "course_full"): ("/students/3/courses", {"course_id": 1}),
    ("/students/{student_id}/courses/{course_id}", "PUT", "course_not_found"): ("/students/3/courses/9", None),
    ("/students/{student_id}/courses/{course_id}", "PUT", "course_full"): ("/students/3/courses/1", None),
    ("/students/{student_id}/courses", "POST", "enrollment_not_open"): ("/students/3/courses", {"course_id": 3}),
    ("/students/{student_id}/courses", "POST", "enrollment_closed"): ("/students/3/courses", {"course_id": 4}),
    ("/students/{student_id}/courses/{course_id}", "PUT", "enrollment_not_open"): ("/students/3/courses/3", None),
    ("/students/{student_id}/courses/{course_id}", "PUT", "enrollment_closed"): ("/students/3/courses/4", None),
    **{
        ("/students/{student_id}/swap", "POST", code): (
            f"/students/{student_id}/swap",
            {"drop_course_id": drop, "enroll_course_id": to},
        )
        for code, student_id, drop, to in (
            ("student_not_found", 9, 1, 2),
            ("course_not_found", 1, 1, 9),
            ("enrollment_not_found", 3, 1, 2),
            ("already_enrolled", 1, 5, 1),
            ("already_waitlisted", 2, 5, 1),
            ("enrollment_not_open", 1, 1, 3),
            ("enrollment_closed", 1, 1, 4),
            ("course_full", 1, 1, 6),
        )
    },
    ("/students", "POST", "external_id_taken"): ("/students", {"name": "Di", "external_id": "7"}),
    ("/students/{student_id}", "PATCH", "external_id_taken"): ("/students/1", {"external_id": "7"}),
    ("/courses", "POST", "external_id_taken"): ("/courses", {"name": "Go", "level": "1", "external_id": "M-1/a"}),
    ("/courses", "POST", "term_not_found"): ("/courses", {"name": "Go", "level": "1", "term_id": 9}),
    ("/courses/{course_id}", "PATCH", "external_id_taken"): ("/courses/2", {"external_id": "M-1/a"}),
    ("/courses/{course_id}", "PATCH", "term_not_found"): ("/courses/2", {"term_id": 9}),
    **{
        ("/courses/by-external-id/{external_id:path}", "PUT", code): ("/courses/by-external-id/M-1/a", changes)
        for code, changes in {
            "term_not_found": {"term_id": 9},
            "capacity_below_enrolled": {"capacity": 0},
            "waitlist_capacity_below_waitlisted": {"waitlist_capacity": 0},
        }.items()
    },
    ("/terms", "POST", "external_id_taken"): ("/terms", {"name": "Fall", "external_id": "2026A"}),
    ("/terms/{term_id}", "PATCH", "external_id_taken"): ("/terms/2", {"external_id": "2026A"}),
    ("/terms/{term_id}", "DELETE", "term_has_courses"): ("/terms/1", None),
    ("/enrollments", "POST", "bulk_refused"): ("/enrollments?atomic=true", [{"student_id": 9, "course_id": 1}]),
    ("/events", "GET", "feed_rewound"): ("/events?after=99", None),
    ("/exports/oneroster.zip", "GET", "feed_rewound"): ("/exports/oneroster.zip?since=99", None),
    **{
        (f"/exports/{name}", "GET", "term_not_found"): (f"/exports/{name}?term_id=9", None)
        for name in ("students.csv", "courses.csv", "terms.csv", "enrollments.csv", "oneroster.zip")
    },
    ("/students/{student_id}", "DELETE", "student_has_enrollments"): ("/students/1", None),
    ("/courses/{course_id}", "DELETE", "course_has_enrollments"): ("/courses/1", None),
    ("/courses/{course_id}", "PATCH", "capacity_below_enrolled"): ("/courses/1", {"capacity": 0}),
    ("/courses/{course_id}", "PATCH", "waitlist_capacity_below_waitlisted"): ("/courses/1", {"waitlist_capacity": 0}),
    ("/imports", "POST", "too_many_drops"): (
        "/imports?missing=drop",
        b"student_external_id,course_external_id\n7,M-1/a",
    ),
    ("/imports", "POST", "unreadable_file"): ("/imports", b"\0"),
    ("/problems/{code}", "GET", "not_found"): ("/problems/nothing", None),
    ("/desk/{file}", "GET", "not_found"): ("/desk/__init__.py", None),
    ("/session", "POST", "not_found"): ("/session", {"token": "any"}),
    ("/session", "POST", "invalid_token"): ("/session", {"token": "any"}),
    ("/session", "DELETE", "not_found"): ("/session", None),
    ("/tokens/{token_id}/rotate", "POST", "token_ended"): ("/tokens/ended000/rotate", None),
}
"""A request that is refused so in the school, if it is not the granted one with an id that nothing has."""

TOKENS: dict[str, str] = {}
"""Tokens of the school, by their scope."""

RULE = """
    CREATE TRIGGER host_{table}_{verb} BEFORE {verb} ON {table}
    BEGIN SELECT raise(ROLLBACK, 'fees unpaid'); END"""
"""Of another program. A bulk that it undoes is refused whole; what it only refuses, is refused row by row."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """Fill one file, once, for the school of each test to be a copy of."""
    path = Path(shutil.copy(empty_database, tmp_path_factory.mktemp("filled") / "school.db"))
    with closing(connect(path)) as db:
        fill(db)
    return path


def fill(db: pw.Database) -> None:
    """Add to the small school more courses: Algebra (2) is empty, and Ada (1) and Bo (2) are in Debate (5).

    Later (3) is not open yet, Over (4) has closed, and Full (6) has no seat. Music (1) and Cy (3) have external ids,
    and so has the term (1) of Algebra.
    """
    open_school(db)
    insert_term(db, "Autumn", external_id="2026A")
    insert_term(db, "Winter")
    courses: dict[str, dict[str, Any]] = {
        "Algebra": {"term_id": 1},
        "Later": {"opens_at": "2999-01-01T00:00:00Z"},
        "Over": {"closes_at": "2000-01-01T00:00:00Z"},
        "Debate": {},
        "Full": {"capacity": 0},
    }
    for name, more in courses.items():
        insert_course(db, name, "1", **more)
    for student_id in (1, 2):
        enroll(db, student_id, 5)
    update_student(db, 3, {"external_id": "7"})
    update_course(db, 1, {"external_id": "M-1/a"})
    TOKENS.update((scope, create_token(db, scope, [scope])) for scope in SCOPES)
    for name in ("spare000", "ended000"):
        create_token(db, name, ["read"])
        db.execute_sql("UPDATE api_tokens SET id = name WHERE name = ?", (name,))
    revoke_token(db, "ended000")


@pytest.fixture
def school(filled: Path, tmp_path: Path) -> Path:
    """Give a copy of the filled file."""
    return Path(shutil.copy(filled, tmp_path / "school.db"))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Undo at the end what a refusal takes."""
    with ExitStack() as stack:
        yield stack


def granted(template: str, method: str) -> tuple[str, Any]:
    """Give a request that an operation grants."""
    if (template, method) == ("/session", "POST"):
        return "/session", {"token": TOKENS["admin"]}
    return SOUND.get((template, method), (re.sub(r"\{\w+_id\}", "1", template), None))


def send(
    client: TestClient, method: str, url: str, value: Any, *, who: str = "admin", **options: Any
) -> httpx2.Response:
    """Send a request with a JSON body, if there is one, and with a token, if `who` is not empty.

    `who` is the scope of one of the school's tokens, or a text that is no token.
    """
    if isinstance(value, bytes):
        options = {"content": value, "headers": {"content-type": "text/csv"}, **options}
    elif value is not None and not options:
        options = {"json": value}
    # A session that never began ends as one does that began.
    headers = {"cookie": "enrollment=any", **options.pop("headers", {})}
    if who:
        headers["authorization"] = f"Bearer {TOKENS.get(who, who)}"
    return client.request(method, url, headers=headers, **options)


UNREADABLE: dict[str, dict[str, Any]] = {
    "malformed_json": {"content": b"{", "headers": JSON},
    "unsupported_media_type": {"content": b"{}", "headers": {"content-type": "text/plain"}},
    "payload_too_large": {"content": b" " * (2**22 + 1), "headers": JSON},
    "invalid_payload": {"json": 1},
}
"""A body that is refused so, whatever it is for."""


CONDITIONS = {"precondition_failed": '"another"', "bad_request": "another"}
"""A value of If-Match that is refused so, whatever it is for."""


TOO_LARGE: dict[str, Any] = {
    "content": b"",
    "headers": {"content-type": "text/csv", "content-length": str(2**28 + 1)},
}
"""A file that says of itself that it is too large."""
STRANGERS = {"unauthorized": "", "invalid_token": "any", "insufficient_scope": "metrics"}
"""What `send` takes for who makes a request that is refused so, whatever it is for."""


def refused(template: str, method: str, code: str) -> tuple[str, Any]:
    """Give a request that an operation refuses, if it is not for the situation that it is made in."""
    url, value = REFUSED.get((template, method, code), granted(template, method))
    if code.endswith("_not_found") and (template, method, code) not in REFUSED:
        url = re.sub(r"\{\w+_id(:path)?\}", "9", template)
    if code == "invalid_query":
        url += ("&" if "?" in url else "?") + "nothing=1"
    return url, value


def bring_about(code: str, method: str, school: Path, stack: ExitStack) -> None:
    """Make the situation in which an operation refuses with a code, once the app is there."""
    if code == "storage_unavailable":
        shutil.move(school, school.with_name("moved.db"))
    if code == "busy":
        with closing(connect(school)) as db:
            db.execute_sql(
                f"PRAGMA journal_mode = {'delete' if method == 'GET' else 'wal'}"
            )  # A reader waits for a writer only without it.
        stack.enter_context(held(school, "BEGIN EXCLUSIVE"))
    if code == "constraint_violated":
        with connect(school) as db:
            for table in ("students", "courses", "terms", "enrollments", "api_tokens"):
                for verb in ("INSERT", "UPDATE", "DELETE"):
                    db.execute_sql(RULE.format(table=table, verb=verb))


CASES = [
    (path, method, kind.code)
    for (path, method), each in OPERATIONS.items()
    for kind in each.refuses
    if kind.code != "internal_error"  # A defect, which nobody can ask for.
]


@pytest.mark.parametrize(("template", "method", "code"), CASES)
def test_each_declared_refusal_comes(school: Path, stack: ExitStack, template: str, method: str, code: str) -> None:
    """Each operation gives each refusal that it declares, with the status of the refusal's row."""
    settings = Settings(database_url=str(school), busy_timeout=0)
    has_sessions = code != "not_found" or not template.startswith(("/session", "/tokens"))
    # Without its lifespan: it holds the file from the first request on.
    client = DeclaringClient(create_app(settings, check_tokens=has_sessions))
    bring_about(code, method, school, stack)
    url, value = refused(template, method, code)
    options = UNREADABLE.get(code, {})
    if (template, code) == ("/imports", "payload_too_large"):
        options = TOO_LARGE
    if code in CONDITIONS:
        options = {"headers": {"if-match": CONDITIONS[code]}, "json": value}
    who = "read" if (template, code) == ("/metrics", "insufficient_scope") else STRANGERS.get(code, "admin")
    answer = send(client, method, url, value, who=who, **options)
    assert refusal(answer) == (PROBLEMS[code].status, code)


@pytest.mark.parametrize(("template", "method"), OPERATIONS)
def test_each_operation_gives_what_it_declares(school: Path, template: str, method: str) -> None:
    """A granted request gets a status that the operation declares, and a body of the declared type."""
    url, value = granted(template, method)
    with TestClient(create_app(Settings(database_url=str(school)), check_tokens=True)) as client:
        answer = send(client, method, url, value)
    declared = OPERATIONS[template, method].gives
    assert answer.status_code in declared
    kind = declared[answer.status_code]
    if kind is None:
        assert answer.content == b""
    elif kind is PlainText:
        assert answer.headers["content-type"] == exposition.TYPE
    elif kind in {Csv, Zip}:
        assert answer.headers["content-type"] == kind.MEDIA_TYPE
        assert answer.content
    elif kind is str:
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
    elif kind is bytes:
        assert answer.headers["content-type"] == "text/css; charset=utf-8"
    else:
        msgspec.convert(answer.json(), kind)
        found = answer.json()[0] if isinstance(answer.json(), list) else answer.json()
        (row,) = get_args(kind) if isinstance(answer.json(), list) else (kind,)
        tag = getattr(getattr(row, "__struct_config__", None), "tag_field", None)
        assert found.keys() == {*getattr(row, "__struct_fields__", found), *([tag] if tag else [])}


@pytest.mark.parametrize("query", ["", "?", "?&", "?&&"])
def test_an_empty_query_is_none(client: TestClient, query: str) -> None:
    """A query string with nothing in it is no fault, whether the operation takes a query or not."""
    assert client.get(f"/health/live{query}").status_code == 200
    assert client.get(f"/students{query}").json() == []


def test_the_table_is_derived_from_the_signatures() -> None:
    """What an operation takes, gives and is called is what its handler's signature and docstring say."""
    enroll = API["/students/{student_id}/courses"]["POST"]
    assert (enroll.words, enroll.body, enroll.right) == ([("student_id", Id)], NewEnrollment, "enroll")
    assert enroll.gives == {201: EnrollmentRecord}
    assert enroll.summary == "Enroll a student in a course: a seat, or else the last place in line."
    assert API["/students/{student_id}/courses/{course_id}"]["PUT"].gives == {
        201: EnrollmentRecord,
        200: EnrollmentRecord,
    }
    assert API["/events"]["GET"].gives == {200: list[events.EventRecord]}
    assert API["/enrollments"]["POST"].body is Rows
    for (path, _), each in OPERATIONS.items():
        assert [name for name, _ in each.words] == re.findall(r"\{(\w+)", path)
        assert each.summary


async def first(name: str, call: Call) -> Ok[str]:
    """Take the call last."""
    return ok(f"{name} {call}")


async def mixed(call: Call, payload: NewStudent, query: PageQuery) -> NoContent:
    """Take the body before the query."""
    return no_content(((payload.name.encode(), f"{call}{query}".encode()),))


async def two(call: Call, student: NewStudent, enrollment: Payload) -> NoContent:
    """Take two bodies."""
    return no_content(((student.name.encode(), f"{call}{enrollment}".encode()),))


@pytest.mark.parametrize("handler", [first, mixed, two])
def test_a_handler_with_another_signature_is_refused(handler: Any) -> None:
    """What cannot be bound is told where it is declared, and not at the first request."""
    with pytest.raises(TypeError, match="takes a Call, then words of the path, then a Query"):
        operation("read", handler)


def test_every_handler_is_declared() -> None:
    """Each handler is the handler of one operation, and none is left over."""
    public = {
        name
        for place in (desk, exports, exposition, handlers, imports, office, sessions, tokens, Described)
        for name, each in vars(place).items()
        if iscoroutinefunction(each) and getattr(each, "__module__", "") == getattr(place, "__module__", place.__name__)
    }
    assert {each.handler.__name__ for each in OPERATIONS.values()} == {
        name for name in public if not name.startswith("_")
    }
