"""Of use to all tests over HTTP: a small school, what to ask, and what to check of every answer."""

import asyncio
import json
import re
import sqlite3
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import Any

import attrs
import httpx2
import peewee as pw
from starlette.testclient import TestClient

from service.courses import insert_course
from service.enrollments import enroll
from service.errors import ServiceError
from service.http.answers import MEMBERS
from service.http.api import API
from service.http.problems import PROBLEMS
from service.students import insert_student

JSON = {"content-type": "application/json"}
LISTS = ["/students", "/courses", "/students/1/courses", "/courses/1/students", "/courses/1/waitlist"]
"""What has pages with an opaque cursor."""
WRITES = [
    ("POST", "/students"),
    ("PATCH", "/students/1"),
    ("POST", "/courses"),
    ("PATCH", "/courses/1"),
    ("POST", "/students/1/courses"),
]
"""What takes one payload; a bulk takes many."""
BULK = ("POST", "/enrollments")
SHOWN = {"external_id": None, "given_name": None, "family_name": None}
"""What a roster shows of a student who has but a name, beside the id and the name."""
STUDENT = {**SHOWN, "email": None}
"""What a student who has but a name is shown with, beside the id and the name."""
COURSE = {"external_id": None, "term_id": None, "opens_at": None, "closes_at": None}
"""What a course of no term, with no window, is shown with, beside what every course has."""
UNNOTED = {"actor": None, "reason": None}
"""What an event has of which nobody has said who made it, and why."""


def open_school(db: pw.Database) -> None:
    """Have Music (1) with one seat and one place in line: Ada (1) is enrolled, Bo (2) waits, Cy (3) is left over."""
    with db.atomic():
        insert_course(db, "Music", "A1", 1, 1)
        for name in ("Ada", "Bo", "Cy"):
            insert_student(db, name)
        for student_id in (1, 2):
            enroll(db, student_id, 1)


def write(path: Path, sql: str, rows: Iterable[Sequence[object]]) -> None:
    """Write rows as another program may have done before the database had any triggers to refuse them."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        ours = "type = 'trigger' AND tbl_name IN ('students', 'courses')"
        triggers = connection.execute(f"SELECT name, sql FROM sqlite_master WHERE {ours}").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.executemany(sql, rows)
        for _, made in triggers:
            connection.execute(made)


def body(value: object) -> dict[str, Any]:
    """Give a request's body and its type; JSON's escapes let lone surrogates through, and 1e999 as Infinity."""
    return {"content": json.dumps(value), "headers": JSON}


def forged(of: str, key: bytes) -> str:
    """Write a key as a cursor of a list is written, whatever it is."""
    return urlsafe_b64encode(blake2b(of.encode(), digest_size=8).digest() + key).decode().rstrip("=")


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


def tree(error: type[ServiceError] = ServiceError) -> Iterator[type[ServiceError]]:
    """Give every kind of refusal."""
    yield error
    for kind in error.__subclasses__():
        yield from tree(kind)


KINDS: dict[str, Any] = {error.__dict__["code"]: error for error in tree() if "code" in error.__dict__}
"""Every refusal by its code."""


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    """Check that an answer is a problem as the table has it, and give its status and code."""
    problem = answer.json()
    code = problem["code"]
    row = PROBLEMS[code]
    known = {"type": f"/problems/{code}", "title": row.title, "status": row.status, "code": code}
    fields = {field.name for field in attrs.fields(KINDS[code])}
    errors = {"errors"} if fields & {"faults", "refusals"} else set()
    told = fields & {*MEMBERS, "newest_id"} & problem.keys()  # What is no id is not told.
    assert all(problem[name] for name in told - {"newest_id"})
    if row.status >= 500:  # What was refused before it was a request has no id.
        told |= {"request_id"} & problem.keys()
    assert problem == known | {key: problem[key] for key in {"detail"} | errors | told}
    assert problem["detail"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("retry-after" in answer.headers) == (row.status == 503)
    return answer.status_code, code


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


class DeclaringClient(TestClient):
    """A client of the app that checks of every answer that its operation declares it."""

    def request(self, method: str, url: Any, **options: Any) -> httpx2.Response:
        """Send a request; an answer that is not declared is an error."""
        answer = super().request(method, url, **options)
        if answer.content and answer.headers.get("content-type") == "application/problem+json":
            check_declared(answer)
        return answer


def check_declared(answer: httpx2.Response) -> None:
    """Check that the operation that was asked for declares this refusal."""
    code, path = answer.json()["code"], answer.request.url.path
    patterns = {re.sub(r"\{\w+\}", "[^/]+", re.sub(r"\{\w+:path\}", ".*", template)): template for template in API}
    found = [template for pattern, template in patterns.items() if re.fullmatch(pattern, path, re.DOTALL)]
    if (code == "not_found" and not found) or code in {"foreign_origin", "misdirected_request"}:
        return  # It is refused whatever the operation is.
    operations = API[found[0]]
    method = "GET" if answer.request.method == "HEAD" else answer.request.method
    if method not in operations:
        assert code in {"method_not_allowed", "invalid_query"}
        return
    assert code in {refusal.code for refusal in operations[method].refuses}, f"{method} {path} gave {code}"
