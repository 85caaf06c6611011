"""How much work a hot request is, without a clock: Python calls and SQL statements, with a little headroom."""

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from starlette.types import ASGIApp, Message

from service import Settings, connect, courses, create_app, enrollments, students, tokens

REQUESTS = 20


class Counting:
    """Counts calls of Python functions, and of the database driver's execute, in the threads that start under it."""

    def __init__(self) -> None:
        """Count nothing yet."""
        self.on = False
        self.counts: Counter[str] = Counter()

    def __call__(self, _: FrameType, event: str, function: Any) -> None:
        """Be the interpreter's profiler."""
        if self.on and event == "call":
            self.counts["calls"] += 1
        elif self.on and event == "c_call" and function.__name__ in {"execute", "executemany"}:
            self.counts["statements"] += 1


@pytest.fixture
def counting() -> Iterator[Counting]:
    """Give a profiler that is installed, for what is started from here on."""
    counting = Counting()
    threading.setprofile(counting)
    sys.setprofile(counting)
    yield counting
    sys.setprofile(None)
    threading.setprofile(None)


async def ask(app: ASGIApp, method: str, path: str, body: bytes) -> int:
    """Send one request straight to the application, and give its answer's status."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(
        {
            "type": "http",
            "method": method,
            "path": path,
            "root_path": "",
            "query_string": b"",
            "headers": headers,
            "state": {},
        },
        receive,
        send,
    )
    status: int = sent[0]["status"]
    return status


async def let_in(app: ASGIApp, token: str, times: int) -> int:
    """Ask for one schedule again and again, with a token if there is one, and give the last answer's status."""
    headers = [(b"host", b"school"), *([(b"authorization", b"Bearer " + token.encode())] if token else [])]
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/students/1/courses", "root_path": "", "query_string": b""}
    for _ in range(times):
        await app({**scope, "headers": headers}, receive, send)
    status: int = sent[-2]["status"]
    return status


@pytest.mark.parametrize(("given", "calls"), [(False, 2), (True, 4)])
def test_a_guard_is_little_work(path: Path, counting: Counting, given: bool, calls: int) -> None:
    """Where no token was ever made, a guard makes two calls more for a request, and with a token four."""
    with connect(path) as db:
        students.insert_student(db, "Ada")
        token = tokens.create_token(db, "x", ["read"]) if given else ""
    counts = []
    for guarded in (False, True):
        app = create_app(Settings(database_url=str(path)), snapshot_per_turn=True, check_tokens=guarded)

        async def measure(app: ASGIApp = app) -> None:
            await let_in(app, token, 1)
            await asyncio.sleep(0.1)  # The use of the token is noted meanwhile.
            counting.counts.clear()
            counting.on = True
            assert await let_in(app, token, REQUESTS) == 200
            counting.on = False

        asyncio.run(measure())
        counts.append(counting.counts["calls"])
    assert counts[1] - counts[0] <= calls * REQUESTS


@pytest.mark.parametrize(
    ("method", "url", "status", "calls", "statements"),
    [
        ("GET", "/students/1/courses", 200, 57, REQUESTS),
        ("GET", "/courses/1/students", 200, 73, REQUESTS),
        ("POST", "/students/{}/courses", 201, 90, len(("the last event", "all enrollments", "their events"))),
        ("DELETE", "/students/{}/courses/1", 204, 86, REQUESTS),
    ],
)
def test_a_hot_request_is_no_more_work_than_it_was(  # noqa: PLR0913, PLR0917
    path: Path, counting: Counting, method: str, url: str, status: int, calls: int, statements: int
) -> None:
    """A request makes no more calls than when this was written, but for one in ten, and the turn no more statements.

    They are of one turn of the event loop, as `serve` has it: its reads share a snapshot, and its writes a
    transaction, which asks once whether the schema has changed. A request is one statement, but the enrollments of a
    turn are three in all.
    """
    db = connect(path)
    courses.insert_course(db, "Algebra", "1")
    for student in range(1, 2 * REQUESTS + 1):
        students.insert_student(db, "Ada")
        if method != "POST":
            enrollments.enroll(db, student, 1)
    db.close()
    app = create_app(Settings(database_url=str(path)), snapshot_per_turn=True)

    async def measure() -> None:
        for numbers in (range(1, REQUESTS + 1), range(REQUESTS + 1, 2 * REQUESTS + 1)):
            counting.on = numbers[0] > 1  # The first ones open the file and start the writer.
            requests = (ask(app, method, url.format(number), b'{"course_id": 1}') for number in numbers)
            assert await asyncio.gather(*requests) == [status] * REQUESTS
        counting.on = False

    asyncio.run(measure())
    assert counting.counts["calls"] / REQUESTS <= calls * 1.1
    around = ("BEGIN", "COMMIT or ROLLBACK") if method == "GET" else ("BEGIN", "the schema's version", "COMMIT")
    assert counting.counts["statements"] == statements + len(around)
