"""What `serve` logs, and the ids of requests."""

import json
import logging
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import pytest
from conftest import ROOT
from programs import is_file, writing
from starlette.testclient import TestClient

from service import Settings, connect, create_app, students
from service.http.logs import AccessLog, Json, Text, logging_as
from service.storage.sqlite.slow import connection_class
from service.tokens import create_token

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@contextmanager
def logging_server(path: Path | str, **environ: str) -> Iterator[tuple[httpx2.Client, Callable[[], str]]]:
    """Run a server; give a client, and what ends the server and gives all that it has logged."""
    command = [sys.executable, "-m", "service", "serve", "--port", "0", "--database-url", str(path)]
    with subprocess.Popen(
        command, cwd=ROOT, env={"PATH": "", **environ}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found

        def ended() -> str:
            process.terminate()
            return process.communicate(timeout=20)[1]

        try:
            with httpx2.Client(base_url=found[0]) as client:
                yield client, ended
        finally:
            process.kill()


@pytest.mark.both
def test_lines_of_requests(path: Path | str) -> None:
    """With ACCESS_LOG and JSON each request is one line, without its query, its token and its body."""
    with connect(path) as db:
        token = create_token(db, "office", ["admin"])
    with logging_server(path, LOG="json", ACCESS_LOG="1", SLOW_MS="0.000001") as (client, ended):
        headers = {"authorization": f"Bearer {token}", "x-request-id": "from-nginx"}
        client.post("/students?secret=1", json={"name": "Hidden Name"}, headers=headers)
        answer = client.post("/students", json={"name": "Hidden Name"}, headers=headers)
        assert (answer.status_code, answer.headers["x-request-id"]) == (201, "from-nginx")
        client.get("/", headers=[("content-type", "a/b"), ("content-type", "a/b")])
        made = client.get("/a%0AFORGED%1b", headers={"cookie": "enrollment=hidden", "x-request-id": "n\tot sane"})
        client.delete(f"/tokens/{token}", headers=headers)
        log = ended()
    events = [json.loads(line) for line in log.splitlines()]
    assert not re.search(f"Hidden|secret|{token}|hidden", log)
    assert all(re.fullmatch(TIME, event["time"]) for event in events)
    requests = [event for event in events if event["message"] == "Request."]
    told = [(each["method"], each["path"], each["status"], each["request_id"]) for each in requests]
    assert told[:2] == [("POST", "/students", 422, "from-nginx"), ("POST", "/students", 201, "from-nginx")]
    assert told[2][:3] == ("GET", "/a\nFORGED\x1b", 404)
    assert re.fullmatch("[0-9a-f]{16}", told[2][3])
    assert made.headers["x-request-id"] == told[2][3]
    assert told[3][:3] == ("DELETE", f"/tokens/{token[:13]}...", 404)
    assert (requests[1]["actor"], requests[1]["client"]) == (f"token:{token[4:12]}", "127.0.0.1")
    assert requests[1]["bytes"] == len(answer.content)
    assert 0 < requests[1]["seconds"] < 10
    assert "A client was refused: The header field Content-Type comes more than once." in {
        each["message"] for each in events
    }
    slow = [event for event in events if event["message"] == "A statement was slow."]
    assert [each for each in slow if each["sql"] == "COMMIT" and each["ms"] > 0]
    # The threads that read from PostgreSQL do not know for which request they do.
    assert {each.get("request_id") for each in slow} >= ({"from-nginx", None} if is_file(path) else {None})


@pytest.mark.both
def test_nothing_is_logged_of_what_goes_well(path: Path | str) -> None:
    """Without the settings there is no line for a request that is answered."""
    with logging_server(path) as (client, ended):
        first, other = (client.get("/students").headers["x-request-id"] for _ in range(2))
        assert re.fullmatch("[0-9a-f]{16}", first)
        assert first != other
        assert ended() == ""


@pytest.mark.both
def test_a_503_is_logged(path: Path | str) -> None:
    """A write that is refused for another's lock is one line, whose id the problem and the answer have."""
    with logging_server(path, BUSY_TIMEOUT="0") as (client, ended):
        with writing(path):
            answers = [client.post("/students", json={"name": "Ada"}) for _ in range(2)]
        (line,) = ended().splitlines()
    assert [each.status_code for each in answers] == [503, 503]
    first = answers[0]
    assert first.headers["x-request-id"] == first.json()["request_id"]
    said = "A request was refused with 503 busy: Another process holds the database. Nothing was kept."
    assert re.fullmatch(f"{TIME} WARNING {re.escape(said)} request_id={first.json()['request_id']}", line)


def test_a_defect_has_its_id(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The problem, the answer and the line of a defect have one id; the traceback cannot forge a line."""

    def fail(*_: object) -> None:
        raise ValueError("one\n2026-01-01T00:00:00.000Z forged\x1b")

    monkeypatch.setattr(students, "find_student", fail)
    answer = client.get("/students/1", headers={"x-request-id": "abc"})
    assert (answer.json()["request_id"], answer.headers["x-request-id"]) == ("abc", "abc")
    (record,) = [each for each in caplog.records if each.exc_info]
    first, *rest = Text().format(record).splitlines()
    assert re.fullmatch(f"{TIME} ERROR GET /students/1 failed. request_id=abc", first)
    assert all(line.startswith("    ") for line in rest)
    assert rest[-1] == "    2026-01-01T00:00:00.000Z forged\\x1b"
    event = json.loads(Json().format(record))
    assert event["traceback"].endswith("forged\x1b")


@pytest.mark.parametrize(
    ("sent", "back"),
    [("a", "a"), ("~" * 128, "~" * 128), ("", None), ("~" * 129, None), ("a b", None), ("é", None)],
)
def test_which_ids_are_taken(client: TestClient, sent: str, back: str | None) -> None:
    """An id of 1 to 128 visible characters of ASCII is given back, whatever the answer; for another one is made."""
    headers = {b"x-request-id": sent.encode()}
    answers = [
        client.get(url, headers=headers)
        for url in ("/students", "/nothing", "/students/1", "/desk/desk.css", "/exports/students.csv")
    ]
    answers.append(client.head("/events", headers={**headers, b"accept": b"text/event-stream"}))
    lines = {**headers, b"accept": b"application/x-ndjson", b"content-type": b"text/csv"}
    url = "/imports?file_name=students.csv&dry_run=true"
    answers.append(client.post(url, headers=lines, content="external_id,name\n"))
    given = {answer.headers["x-request-id"] for answer in answers}
    if back:
        assert given == {back}
    else:
        assert len(given) == len(answers)
        assert all(re.fullmatch("[0-9a-f]{16}", each) for each in given)


def test_text_is_one_line() -> None:
    """What a client sends ends no line and hides none; values with spaces are quoted, and a token is cut off."""
    record = logging.LogRecord("service", logging.INFO, "", 0, "A\r\nB\x85\u2028", (), None)
    record.told = {"path": "/a b\n", "bytes": 3, "token": "enr_4fJq0Zc2_b3"}
    line = r' INFO A\r\nB\x85\u2028 path="/a b\n" bytes=3 token=enr_4fJq0Zc2_...'
    assert re.fullmatch(TIME + re.escape(line), Text().format(record))


@pytest.mark.anyio
async def test_the_lifespan_is_passed_on(path: Path) -> None:
    """What is no request is not logged."""
    called = []

    async def app(scope: object, receive: object, send: object) -> None:
        called.append((scope, receive, send))

    scope = {"type": "lifespan"}
    await AccessLog(app)(scope, None, None)  # type: ignore[arg-type]
    assert called == [(scope, None, None)]
    assert create_app(Settings(database_url=str(path)))


def test_handlers_are_for_the_block_only() -> None:
    """After the server has ended, its program logs as it did before."""
    before = [*logging.getLogger().handlers]
    with logging_as(Settings(log="json", access_log=True)):
        assert len(logging.getLogger().handlers) == len(before) + 1
    assert logging.getLogger().handlers == before


def test_a_request_is_told_once_it_is_over(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is told has the client and the actor where they are known, and the id that deeper lines have as well."""
    caplog.set_level(logging.INFO, "service.http.logs")
    with TestClient(AccessLog(create_app(Settings(database_url=str(path), slow_ms=1e-6)))) as client:
        client.post("/students", json={"name": "Ada"}, headers={"x-request-id": "abc"})
    told = [record.told for record in caplog.records if record.getMessage() == "Request."]  # type: ignore[attr-defined]
    assert [(each["path"], each["status"], each["client"], "actor" in each) for each in told] == [
        ("/students", 201, "testclient", False)
    ]
    slow = [record.told["sql"] for record in caplog.records if "slow" in record.message]  # type: ignore[attr-defined]
    assert [sql for sql in slow if sql.startswith("INSERT INTO students ")]
    assert not [sql for sql in slow if "Ada" in sql]


@pytest.mark.anyio
async def test_a_request_of_an_actor_without_an_address(caplog: pytest.LogCaptureFixture) -> None:
    """Where a server tells no client, none is told."""
    caplog.set_level(logging.INFO, "service.http.logs")

    async def app(scope: object, receive: object, send: object) -> None:
        assert scope
        assert receive
        assert send
        log = logging.getLogger("deep")
        log.warning("Deep.")
        assert json.loads(Json().format(caplog.records[-1]))["request_id"] == "abc"

    headers = [(b"x-request-id", b"abc")]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "state": {"actor": "token:1"}}
    await AccessLog(app)(scope, 1, 1)  # type: ignore[arg-type]
    told = caplog.records[-1].told  # type: ignore[attr-defined]
    assert ("client" in told, told["actor"], told["status"]) == (False, "token:1", 0)


@pytest.mark.long
def test_a_statement_that_is_slow_to_give_its_rows(caplog: pytest.LogCaptureFixture) -> None:
    """The time that the rows take counts as well; a statement that is quick is not told."""
    with closing(sqlite3.connect(":memory:", factory=connection_class(0.05))) as db:
        counted = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)\n "
        ends = f"{counted} SELECT i FROM n WHERE i IN (1, ?)"
        assert db.execute(ends, (9, 9)).fetchall() == [(1,), (9,)]
        assert caplog.records == []
        assert db.execute(ends, (3_000_000, 9)).fetchall() == [(1,), (9,)]
    (record,) = caplog.records
    assert record.told["sql"] == " ".join(ends.split())  # type: ignore[attr-defined]
    assert record.told["ms"] >= 50  # type: ignore[attr-defined]
