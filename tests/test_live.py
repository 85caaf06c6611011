"""The feed as server-sent events: whoever listens gets each event once, in order and soon, and nobody else pays."""

import asyncio
import http.client
import json
import logging
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import httpx2
import peewee as pw
import pytest
import uvicorn
from answers import refusal
from conftest import Server as Serving
from programs import lost
from starlette.testclient import TestClient
from stores import open_store
from test_docs import API_PAGE, OPERATING, SECURITY, SHOWN, blocks, settled
from test_server import running

from service import Settings, connect, create_app
from service.courses import insert_course, update_course
from service.enrollments import drop, enroll
from service.errors import Busy
from service.events import EventRecord, list_events
from service.http import listener, live
from service.http.api import API
from service.http.guard import HostGuard
from service.http.server import Server
from service.storage import news
from service.students import insert_student
from service.tokens import create_token, revoke_token

if TYPE_CHECKING:
    from service.storage.sqlite.store import Store

pytestmark = pytest.mark.both
STREAM = {"accept": "text/event-stream"}
STUDENTS, COURSES = 3, 2


@pytest.fixture(autouse=True)
def _school(db: pw.SqliteDatabase, in_time: None) -> None:
    """Have three students and two courses without a limit; a stream that hangs fails its test."""
    del in_time
    with db.atomic():
        for at in range(STUDENTS):
            insert_student(db, f"Student {at}")
        for at in range(COURSES):
            insert_course(db, f"Course {at}", "1")


class Client:
    """A client that listens, on a connection of its own."""

    def __init__(self, address: tuple[str, int], query: str = "", method: str = "GET", **headers: str) -> None:
        """Ask for the stream, and read the head of the answer."""
        self.connection = http.client.HTTPConnection(*address[:2], timeout=10)
        sent = {**STREAM, **{name.replace("_", "-"): value for name, value in headers.items()}}
        self.connection.request(method, f"/events{query}", headers=sent)
        self.answer = self.connection.getresponse()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self.answer.close()
        self.connection.close()

    def message(self) -> dict[str, str] | None:
        """Give the fields of the next message, a comment as the field with no name; None at the end of the stream."""
        fields: dict[str, str] = {}
        while line := self.answer.readline():
            if line == b"\n":
                return fields
            name, _, value = line.decode().rstrip("\n").partition(":")
            fields[name] = value.removeprefix(" ")
        return None

    def messages(self) -> Iterator[dict[str, str]]:
        """Give all messages up to the end."""
        return iter(self.message, None)

    def events(self, count: int) -> list[dict[str, Any]]:
        """Give so many events, as the list has them."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            message = self.message()
            assert message is not None, "The stream ended."
            if "data" in message:
                found.append(json.loads(message["data"]))
                assert message == {"id": str(found[-1]["id"]), "data": message["data"]}
        return found


@contextmanager
def serving(
    path: Path | str, options: dict[str, Any] | None = None, *, kind: str = "own", **settings: Any
) -> Iterator[tuple[Any, Any]]:
    """Run the service's own server or plain uvicorn in this process; give the app and the address."""
    given = Settings(database_url=str(path), port=0, **settings)
    app = create_app(given, **(options or {}))
    plain = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    server: Any = Server(app, given) if kind == "own" else plain
    with running(server):
        yield app, server.servers[0].sockets[0].getsockname()


def until(done: Callable[[], object], seconds: float = 30) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "It does not come about."
        time.sleep(0.005)


def change(db: pw.Database, times: int = 1, student: int = 1, course: int = 1) -> None:
    """Enroll a student and drop the student again, in a commit each time that is of two events."""
    for _ in range(times):
        with db.atomic("IMMEDIATE"):
            enroll(db, student, course)
            drop(db, student, course)


MANY = """
    WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 10000)
    INSERT INTO enrollment_events (type, at, student_id, course_id)
    SELECT 'dropped', '2026-09-01T08:30:00.000Z', 1, 1 FROM number"""
NOTES = """
    INSERT INTO event_notes (event_id, actor)
    SELECT id, ? FROM enrollment_events WHERE id NOT IN (SELECT event_id FROM event_notes)"""


def change_much(db: pw.SqliteDatabase) -> None:
    """Add 10,000 events, of 3 MB, as no program would."""
    with db.atomic():
        db.execute_sql(MANY)
        db.execute_sql(NOTES, ["a" * 200])


def ids(events: list[dict[str, Any]]) -> list[int]:
    """Give the ids of events."""
    return [event["id"] for event in events]


def listening(app: Any) -> list[Any]:
    """Give all who listen to an app."""
    return [each for feed in [*app.feeds.open.values()] for each in [*feed.listeners]]


def level(app: Any) -> int:
    """Count those who listen and are level with the feed."""
    return sum(each.is_level for each in listening(app))


def address_of(url: str) -> tuple[str, int]:
    """Give the host and the port of a URL."""
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 0)


# What comes


def test_form(live: httpx2.Client, db: pw.SqliteDatabase) -> None:
    """A message has the id and the record of the list, and nothing else; first come old events, and then new ones."""
    change(db, 2)
    with Client(address_of(str(live.base_url))) as client:
        assert (client.answer.status, client.answer.headers["content-type"]) == (200, "text/event-stream")
        assert client.answer.headers["x-accel-buffering"] == "no"
        assert client.answer.headers["cache-control"] == "no-store"
        assert client.message() == {"retry": "1000"}
        first = client.events(4)
        live.post("/students/2/courses", json={"course_id": 1, "reason": "ill: é ✓"})
        change(db)
        assert first + client.events(3) == live.get("/events").json()


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not on this machine")
def test_the_example(serve: Callable[..., Serving], db: pw.SqliteDatabase) -> None:
    """The page of the API shows what curl prints of a stream, until it is interrupted."""
    update_course(db, 1, {"capacity": 1, "waitlist_capacity": 1})
    for student, course in ((3, 2), (1, 1), (2, 1)):
        enroll(db, student, course)
    section = API_PAGE.section("Live")
    (command,), (shown,) = blocks("sh", section), blocks("text", section)
    command = command.replace(SHOWN, serve().url.removeprefix("http://")).replace("curl", "curl --max-time 1")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert settled(done.stdout) == settled(shown)


@pytest.mark.parametrize(
    ("accept", "streams"),
    [
        ("text/event-stream", True),
        ("application/json;q=0.5, text/event-stream", True),
        ("text/*", True),
        ("application/json, text/event-stream", False),
        ("text/event-stream;q=0.1, */*", False),
        ("*/*", False),
        ("text/html", False),
        ("", False),
    ],
)
def test_what_accept_says(path: Path, accept: str, streams: bool) -> None:
    """The stream is for who prefers its type; for all others the list is as it was."""
    with serving(path) as (_, address), Client(address, accept=accept) as client:
        kind = client.answer.headers["content-type"]
        assert kind == ("text/event-stream" if streams else "application/json")
        assert streams or client.answer.read() == b"[]"


def test_where_it_begins(path: Path, db: pw.SqliteDatabase) -> None:
    """It begins behind Last-Event-ID, or else behind `after`; from no text that is no id, nor from an id to come."""
    change(db, 2)
    with serving(path) as (app, address):
        for query, headers, first in (
            ("", {}, 1),
            ("?after=2", {}, 3),
            ("?after=2", {"last_event_id": "3"}, 4),
            ("?after=2", {"last_event_id": "0"}, 1),
            ("?after=9", {"last_event_id": "1"}, 2),
            ("?after=2", {"last_event_id": ""}, 3),
        ):
            with Client(address, query, **headers) as client:
                assert ids(client.events(1)) == [first]
        for query, headers, status in (
            ("?after=9", {}, 410),
            ("", {"last_event_id": "5"}, 410),
            ("", {"last_event_id": "x"}, 422),
            ("", {"last_event_id": "-1"}, 422),
            ("", {"last_event_id": "9223372036854775808"}, 422),
            ("?nothing=1", {}, 422),
        ):
            with Client(address, query, **headers) as client:
                problem = json.loads(client.answer.read())
                assert client.answer.status == problem["status"] == status
                if headers and status == 422:
                    assert [error["parameter"] for error in problem["errors"]] == ["Last-Event-ID"]
        until(lambda: not app.feeds.open)


@pytest.mark.parametrize("by", ["own", "uvicorn"])
def test_filters(path: Path, db: pw.SqliteDatabase, by: str) -> None:
    """Who asks for a student, a course or both gets what the list gives, of old events and of new ones."""
    queries = ["student_id=1", "course_id=2", "student_id=2&course_id=2", "student_id=9"]
    with ExitStack() as stack:
        app, address = stack.enter_context(serving(path, kind=by))
        pairs = [(student, course) for student in range(1, STUDENTS + 1) for course in range(1, COURSES + 1)]
        for student, course in pairs:
            change(db, 1, student, course)
        clients = {query: stack.enter_context(Client(address, f"?{query}")) for query in queries}
        until(lambda: level(app) == len(queries))
        for student, course in pairs:
            change(db, 2, student, course)
        for query, client in clients.items():
            wanted = {name: int(value) for name, value in (each.split("=") for each in query.split("&"))}
            assert ids(client.events(len(list_events(db, **wanted)))) == [each.id for each in list_events(db, **wanted)]


def test_head_and_http_1_0(path: Path, db: pw.SqliteDatabase) -> None:
    """HEAD has the head alone, and the connection goes on; HTTP/1.0 has the stream without chunks."""
    change(db)
    with serving(path) as (app, address), Client(address, method="HEAD") as client:
        assert client.answer.headers["content-type"] == "text/event-stream"
        assert (client.answer.read(), app.feeds.open) == (b"", {})
        client.connection.request("GET", "/students/1")
        assert client.connection.getresponse().read().startswith(b'{"id":1')
        with socket.create_connection(address, timeout=5) as old:
            old.sendall(b"GET /events HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n")
            data = b""
            while b'"dropped"' not in data:
                data += old.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        assert b"connection: close" in head
        assert body.startswith(b"retry: 1000\n\nid: 1\ndata: {")


def test_requests_behind_a_stream_wait(path: Path) -> None:
    """What is sent behind the request for a stream is answered when the stream has ended."""
    with serving(path) as (app, address), socket.create_connection(address, timeout=5) as client:
        client.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
        client.sendall(b"GET /students/1 HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: level(app) == 1)
        (feed,) = app.feeds.open.values()
        feed.loop.call_soon_threadsafe(feed.end)
        data = b""
        while b"Student 0" not in data:
            data += client.recv(65536)
        assert re.findall(rb"HTTP/1.1 (\d+)", data) == [b"200", b"200"]
        assert data.index(b"\r\n0\r\n\r\n") < data.index(b"Student 0")


# No gap, and no event twice


def test_no_gap_and_no_repeat(serve: Callable[..., Serving], path: Path) -> None:
    """While the server and another program write, who loses the connection again and again misses nothing."""
    address, done = address_of(serve().url), threading.Event()

    def write_here() -> None:
        with closing(connect(path)) as db:
            while not done.is_set():
                change(db, 1, 1, 1)
                time.sleep(0.005)  # Without a pause, the server would hardly ever get the lock.

    def write_there() -> None:
        with httpx2.Client(base_url=f"http://{address[0]}:{address[1]}") as client:
            while not done.is_set():
                client.put("/students/2/courses/2").raise_for_status()
                client.delete("/students/2/courses/2").raise_for_status()

    def follow(query: str, wanted: Callable[[dict[str, Any]], bool]) -> list[int]:
        seen: list[int] = []
        last = "0"
        while len(seen) < 100:
            with Client(address, f"?after=0&{query}", last_event_id=last) as client:
                events = client.events(17)
            assert all(map(wanted, events))
            seen += ids(events)
            last = str(seen[-1])
        return seen

    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(each) for each in (write_here, write_there)]
        followers = [
            pool.submit(follow, "", lambda _: True),
            pool.submit(follow, "student_id=2", lambda event: event["student_id"] == 2),
        ]
        while not all(each.done() for each in followers) and not any(each.done() for each in writers):
            time.sleep(0.01)
        done.set()
        for each in writers:
            each.result()
        everything, some = (each.result() for each in followers)
    with closing(connect(path)) as db:
        assert everything == [event.id for event in list_events(db, limit=len(everything))]
        assert some == [event.id for event in list_events(db, 0, 2, limit=len(some))]


def test_kill_and_restart(serve: Callable[..., Serving], db: pw.SqliteDatabase) -> None:
    """Behind a kill the client goes on at the next server where it was."""
    server = serve()
    change(db, 2)
    with Client(address_of(server.url)) as client:
        seen = client.events(4)
        server.process.kill()
        with suppress(OSError, http.client.HTTPException):  # The connection is reset, or the body has no end.
            assert client.message() is None
    change(db)
    with Client(address_of(serve().url), last_event_id=str(seen[-1]["id"])) as client:
        change(db)
        assert ids(seen + client.events(4)) == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.both(False, because="it counts what SQLite runs")
def test_one_query_for_a_commit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many listen, each commit costs one query, and nothing is asked where nobody listens."""
    monkeypatch.setattr(live, "TURN", 10)
    with ExitStack() as stack:
        app, address = stack.enter_context(serving(path))
        clients = [stack.enter_context(Client(address)) for _ in range(30)]
        until(lambda: level(app) == 30)
        store: Store = app.parts[0]
        (reader,) = store._idle_readers  # noqa: SLF001 - what it runs is counted.
        statements: list[str] = []
        reader.connection().set_trace_callback(statements.append)
        (feed,) = app.feeds.open.values()
        for _ in range(3):
            asyncio.run_coroutine_threadsafe(store.write(change), feed.loop).result(5)
            for client in clients:
                client.events(2)
        queries = [each for each in statements if "enrollment_events" in each and "JOIN" in each]
        assert len(queries) == 3
        until(lambda: sum("data_version" in each for each in statements) > 4)
        for client in clients:
            client.close()
        until(lambda: not app.feeds.open)
        statements.clear()
        time.sleep(0.25)
        assert statements == []


def test_many_are_dealt_into_groups(path: Path, db: pw.SqliteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few clients are one group; more of them are groups of the same size, and each of them gets each event once."""
    monkeypatch.setattr(live, "TURN", 3)
    with ExitStack() as stack:
        app, address = stack.enter_context(serving(path))

        def sizes() -> list[int]:
            (feed,) = app.feeds.open.values()
            return [len(group.listeners) for group in feed._groups]  # noqa: SLF001

        clients: list[Client] = []
        for more, groups in ((3, [3, 0, 0, 0]), (10, [4, 3, 3, 3]), (3, [4, 4, 4, 4])):
            clients += [stack.enter_context(Client(address)) for _ in range(more)]
            until(lambda: level(app) == len(clients))  # noqa: B023 - it is called at once.
            assert sizes() == groups
        change(db, 50)
        assert [ids(client.events(100)) for client in clients] == [[*range(1, 101)]] * 16
        for client in clients[2:]:
            client.close()
        until(lambda: len(listening(app)) == 2)
        change(db)
        assert [ids(client.events(2)) for client in clients[:2]] == [[101, 102]] * 2


@pytest.mark.long
def test_groups_have_their_turns_one_after_the_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is committed after the turn of one group is sent to the next one at once, with what came before."""
    monkeypatch.setattr(live, "TURN", 1)
    monkeypatch.setattr(live, "GATHER_SECONDS", 2)
    with serving(path) as (app, address), Client(address) as first, Client(address) as second:
        assert first.message() == second.message() == {"retry": "1000"}
        until(lambda: level(app) == 2)
        (feed,) = app.feeds.open.values()

        def commit() -> None:
            asyncio.run_coroutine_threadsafe(app.parts[0].write(change), feed.loop).result(5)

        commit()
        (early,) = select.select([first.connection.sock, second.connection.sock], [], [], 5)[0]
        one, other = (first, second) if early is first.connection.sock else (second, first)
        assert ids(one.events(2)) == [1, 2]
        commit()
        assert ids(other.events(4)) == [1, 2, 3, 4]
        assert not select.select([one.connection.sock], [], [], 0)[0]
        assert ids(one.events(2)) == [3, 4]


@pytest.mark.long
def test_no_more_is_read_than_is_sent(path: Path, db: pw.SqliteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where many events come at once, a page of them is sent to all groups before more is read."""
    monkeypatch.setattr(live, "TURN", 1)
    sizes, take = [], listener.Group.take

    def counted(group: listener.Group) -> listener.Batch:
        sizes.append(len(group.events))
        return take(group)

    monkeypatch.setattr(listener.Group, "take", counted)
    with ExitStack() as stack:
        app, address = stack.enter_context(serving(path))
        clients = [stack.enter_context(Client(address)) for _ in range(live.GROUPS)]
        until(lambda: level(app) == live.GROUPS)
        change_much(db)
        for client in clients:
            assert ids(client.events(10_000)) == [*range(1, 10_001)]
        assert max(sizes) == listener.PAGE


def test_no_group_keeps_more_than_a_page(path: Path) -> None:
    """A group that got its first client late keeps less than others, and yet no more is read than they may keep."""
    event = EventRecord(1, "enrolled", "2026-01-01T00:00:00.000Z", 1, 1, None, None)
    with serving(path) as (app, address), Client(address):
        until(lambda: level(app) == 1)
        (feed,) = app.feeds.open.values()
        for kept in (0, 1, listener.PAGE):
            feed._groups[1].events = [event] * kept  # noqa: SLF001
            assert feed._room() == listener.PAGE - kept  # noqa: SLF001
        feed._groups[1].events = []  # noqa: SLF001


def test_commits_without_events(path: Path, db: pw.SqliteDatabase) -> None:
    """However many of them there are, they cost a listener's server few reads."""
    with serving(path) as (app, address), Client(address) as client:
        until(lambda: level(app) == 1)
        (feed,) = app.feeds.open.values()
        reads, read = [], feed.store.read

        def counted(*args: Any) -> Any:
            reads.append(args)
            return read(*args)

        feed.store = SimpleNamespace(read=counted, changed=feed.store.changed)
        until_at = time.monotonic() + 0.5
        while time.monotonic() < until_at:
            insert_student(db, "Bo")
        assert len(reads) <= 0.6 / live.GATHER_SECONDS
        change(db)
        assert ids(client.events(2)) == [1, 2]


def test_own_commits_need_no_look(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the service itself commits is sent at once, and not at the next look for other programs' commits."""
    monkeypatch.setattr(news, "LOOK_SECONDS", 60)
    with serving(path) as (app, address), Client(address) as client:
        until(lambda: level(app) == 1)
        (feed,) = app.feeds.open.values()
        time.sleep(0.1)  # The feed has looked once.
        asyncio.run_coroutine_threadsafe(app.parts[0].write(change), feed.loop).result(5)
        assert ids(client.events(2)) == [1, 2]


def test_who_was_sent_an_event_gets_it_no_more(path: Path, db: pw.SqliteDatabase) -> None:
    """A client that has read further than the feed gets of the feed's next batch only what is new to the client."""
    change(db, 2)

    async def follow() -> None:
        store = open_store(path)
        feeds = live.Feeds(store, None, Settings(database_url=str(path)))
        feed = feeds.of_loop()
        behind, ahead = listener.Listener(0, None, None), listener.Listener(0, None, None)
        for each in (behind, ahead):
            feed.add(each)
        feed.join(behind, [], 0)
        feed.join(ahead, list_events(db, 0, limit=3), 3)
        late = listener.Listener(0, None, None)
        feed.add(late)
        feed._newest = 4  # noqa: SLF001
        feed.join(late, [], 3)
        assert (behind.is_level, ahead.is_level, late.is_level) == (True, True, False)
        batch = listener.Batch(list_events(db))
        taken = []
        for each in (behind, ahead, late):
            each.offer(batch, 0)
            taken.append([event.id for waiting in each._waiting for event in waiting.events])  # noqa: SLF001
        assert taken == [[1, 2, 3, 4], [4], []]
        for each in (behind, ahead, late):
            feed.remove(each)
        assert feeds.open == {}
        await asyncio.sleep(0)
        store.close()

    asyncio.run(follow())


# Bounds


@pytest.mark.long
def test_a_slow_client_is_bounded(path: Path, db: pw.SqliteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads too slowly has little waiting in memory, falls behind, and still gets every event once."""
    monkeypatch.setattr(listener, "MOST_WAITING", 2**14)
    with serving(path) as (app, address), Client(address) as client:
        until(lambda: level(app) == 1)
        (slow,) = listening(app)
        count = 0
        while slow.is_level:  # The buffers of the operating system have to be full first.
            change_much(db)
            count += 10_000
            assert slow._bytes <= 2**14  # noqa: SLF001
        assert ids(client.events(count)) == [*range(1, count + 1)]
        until(lambda: level(app) == 1)
        change(db)
        assert ids(client.events(2)) == [count + 1, count + 2]


def fill(address: tuple[str, int], app: Any, db: pw.SqliteDatabase) -> socket.socket:
    """Give a connection of a client that listens, and reads nothing although much was sent."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**12)
    client.connect(address[:2])
    client.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
    until(lambda: listening(app))
    for _ in range(3):
        change_much(db)
    return client


@pytest.mark.long
@pytest.mark.parametrize("by", ["own", "uvicorn"])
def test_who_reads_nothing_is_cut_off(path: Path, db: pw.SqliteDatabase, by: str) -> None:
    """A client that takes nothing of what it was sent is cut off, and can see that this was not the end."""
    with ExitStack() as stack:
        app, address = stack.enter_context(serving(path, kind=by, answer_timeout=1))
        client = stack.enter_context(fill(address, app, db))
        until(lambda: not app.feeds.open)
        data = b""
        with suppress(ConnectionError):
            while more := client.recv(2**20):
                data = data[-10:] + more
        assert not data.endswith(b"0\r\n\r\n")


def test_half_of_the_connections_may_listen(path: Path) -> None:
    """One more is told that the service is busy, while other requests are answered; then a place is free again."""
    with ExitStack() as stack:
        app, address = stack.enter_context(serving(path, max_connections=5))
        first, _ = (stack.enter_context(Client(address)) for _ in range(2))
        with Client(address) as third:
            assert (third.answer.status, json.loads(third.answer.read())["code"]) == (503, "busy")
        with Client(address, accept="application/json") as other:
            assert other.answer.read() == b"[]"
        first.close()
        until(lambda: len(listening(app)) == 1)
        with Client(address) as third:
            assert third.answer.status == 200


def test_who_leaves_leaves_nothing_behind(path: Path, db: pw.SqliteDatabase) -> None:
    """When all have hung up no task runs, nobody is waited for, and the writer tells nobody of its commits."""
    with serving(path) as (app, address):
        clients = [Client(address) for _ in range(20)]
        (feed,) = app.feeds.open.values()
        store: Store = app.parts[0]
        until(lambda: level(app) == 20)
        until(lambda: len(store._writer.told) == 1)  # noqa: SLF001 - between two waits nobody is in it.
        for client in clients:
            client.close()
        until(lambda: not app.feeds.open)
        assert listening(app) == []

        async def tasks() -> int:
            await asyncio.sleep(0)
            return len(asyncio.all_tasks())

        # This one, and the server's own: it runs, and its application's lifespan. A last read may be under way.
        until(lambda: asyncio.run_coroutine_threadsafe(tasks(), feed.loop).result(5) == 3)
        assert store._writer.told == set()  # noqa: SLF001
        change(db)
        with Client(address) as client:
            assert ids(client.events(2)) == [1, 2]


# What comes with time


def test_heartbeat(path: Path) -> None:
    """A client that hears nothing gets a comment now and then."""
    with serving(path) as (app, address):
        app.feeds.heartbeat = 0.1
        with Client(address) as client:
            assert [client.message() for _ in range(3)] == [{"retry": "1000"}, {"": ""}, {"": ""}]


def test_a_token_that_is_revoked_ends_its_streams(path: Path, db: pw.SqliteDatabase) -> None:
    """Within a second or so, the streams of the token end as they should, and those of others go on."""
    gone, kept = (create_token(db, name, ["read"]) for name in ("gone", "kept"))
    with ExitStack() as stack:
        app, address = stack.enter_context(serving(path, {"check_tokens": True}))
        first, second, other = (
            stack.enter_context(Client(address, authorization=f"Bearer {token}")) for token in (gone, gone, kept)
        )
        until(lambda: level(app) == 3)
        revoke_token(db, gone[4:12])
        assert [*first.messages()] == [*second.messages()] == [{"retry": "1000"}]
        with Client(address, authorization=f"Bearer {gone}") as client:
            assert client.answer.status == 401
        change(db)
        assert ids(other.events(2)) == [1, 2]


def test_whom_a_host_no_longer_knows(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A host's function is asked again about each stream; one that it fails at ends as one that it refuses does."""
    monkeypatch.setattr(HostGuard, "again", 0.0)
    known = {"ada", "bo", "cy"}

    def authenticate(headers: Any, _: Any) -> Any:
        name = headers["name"]
        if "bo" in known or name != "bo":
            return (name, ["read"]) if name in known else None
        raise OSError("The directory is down.")

    with ExitStack() as stack:
        _, address = stack.enter_context(serving(path, {"authenticate": authenticate}))
        ada, bo, cy = (stack.enter_context(Client(address, name=name)) for name in sorted(known))
        known -= {"ada", "bo"}
        assert [*ada.messages()] == [*bo.messages()] == [{"retry": "1000"}]
        with closing(connect(path)) as db:
            change(db)
        assert ids(cy.events(2)) == [1, 2]
    assert "could not be found out" in caplog.text


def test_the_right_is_the_operations() -> None:
    """The right that is asked for again is the one that was asked for first."""
    assert API["/events"]["GET"].right == live.RIGHT


def test_the_pages_have_the_numbers() -> None:
    """The numbers in the text are those of the code."""
    limits = {what: limit.partition(";")[0] for what, limit, _ in SECURITY.table("Limits")}
    assert limits["events that wait for one that listens"] == f"{listener.MOST_WAITING >> 10} KiB"
    assert f"for {live.HEARTBEAT:g} seconds" in API_PAGE.words("Live")
    assert f"{live.HEARTBEAT:g} seconds without a byte" in OPERATING.words("nginx")
    assert f"{Settings().max_connections // 2:,} clients" in OPERATING.words("Limits")


# Ends


def test_the_server_stops_at_once(serve: Callable[..., Serving], db: pw.SqliteDatabase) -> None:
    """SIGTERM ends streams with the end of their bodies, and the server, long before its patience is over."""
    server = serve()
    change(db)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(address_of(server.url))) for _ in range(20)]
        for client in clients:
            client.events(2)
        began = time.monotonic()
        server.process.terminate()
        assert [client.message() for client in clients] == [None] * 20
        assert server.process.wait(5) in {0, -signal.SIGTERM}
        assert time.monotonic() - began < 3


def test_the_server_stops_without_a_signal(path: Path) -> None:
    """Where a program stops the server, streams end too."""
    with serving(path) as (app, address):
        client = Client(address)
        until(lambda: level(app) == 1)
    with client:
        assert [*client.messages()] == [{"retry": "1000"}]


HOST = """
from starlette.applications import Starlette
from service import Settings, create_app
app = Starlette()
app.mount("/enrollment", create_app(Settings(database_url={path!r})))
"""


def test_plain_uvicorn_stops(path: Path, tmp_path: Path, db: pw.SqliteDatabase) -> None:
    """Mounted in a host that uvicorn serves, streams end as soon as uvicorn is told to stop."""
    (tmp_path / "host.py").write_text(HOST.format(path=str(path)))
    command = [sys.executable, "-m", "uvicorn", "host:app", "--port", "0", "--app-dir", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ}) as process:
        try:
            assert process.stderr
            line = next(line for line in process.stderr if "running on" in line)
            found = re.search(r"http://(\S+):(\d+)", line)
            assert found
            with Client((found[1], int(found[2])), "/../enrollment/events") as client:
                assert client.answer.status == 404
            connection = http.client.HTTPConnection(found[1], int(found[2]), timeout=10)
            connection.request("GET", "/enrollment/events", headers=STREAM)
            answer = connection.getresponse()
            change(db)
            while b"dropped" not in answer.readline():
                pass
            process.terminate()
            assert answer.read() == b"\n"
            assert process.wait(5) in {0, -signal.SIGTERM}
            connection.close()
        finally:
            process.kill()


def test_the_handler_of_sigterm_tells_that_uvicorn_stops(path: Path) -> None:
    """As long as uvicorn runs, its server's method handles SIGTERM, and the server says whether it is to stop."""

    class Uvicorn:
        should_exit = False

        def handle_exit(self, *_: object) -> None:
            raise AssertionError

    server = Uvicorn()
    usual = signal.signal(signal.SIGTERM, server.handle_exit)
    try:
        with serving(path) as (app, address), Client(address) as client:
            until(lambda: level(app) == 1)
            server.should_exit = True
            assert [*client.messages()] == [{"retry": "1000"}]
    finally:
        signal.signal(signal.SIGTERM, usual)


def test_half_closed(path: Path) -> None:
    """A client that will send nothing more gets the end of the stream: that is how most clients go."""
    with serving(path) as (app, address), socket.create_connection(address, timeout=5) as client:
        client.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
        until(lambda: level(app) == 1)
        client.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: client.recv(65536), b"")).endswith(b"\r\n0\r\n\r\n")
        until(lambda: not app.feeds.open)


def test_a_database_that_is_gone(path: Path | str, db: pw.Database, caplog: pytest.LogCaptureFixture) -> None:
    """Where the database cannot be read any more streams end, those of clients behind too, and new ones are refused."""
    change(db, listener.PAGE)
    with serving(path) as (app, address), Client(address, "?after=0") as client, Client(address) as other:
        until(lambda: level(app) == 2)
        client.events(2 * listener.PAGE)
        other.events(2 * listener.PAGE)
        with lost(path):
            assert (client.message(), other.message()) == (None, None)
            with Client(address) as late:
                assert late.answer.status == 503
    assert "The streams of events ended: " in caplog.text


# Without a server


@pytest.mark.parametrize(("error", "goes_on"), [(Busy("Held."), True), (RuntimeError("A defect."), False)])
def test_a_store_that_fails(  # noqa: PLR0913, PLR0917 - two fixtures more than parameters.
    path: Path | str,
    db: pw.Database,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    goes_on: bool,
) -> None:
    """Where the database is busy it is asked again; at a defect, which is logged, the streams end."""
    with serving(path) as (app, address):
        store = app.parts[0]
        changed, failures = store.changed, [error]

        async def flaky(since: object = None) -> object:
            if failures:
                raise failures.pop()
            return await changed(since)

        monkeypatch.setattr(store, "changed", flaky)
        with Client(address) as client:
            change(db)
            if goes_on:
                assert ids(client.events(2)) == [1, 2]
            else:
                assert "data" not in [*client.messages()][-1]
        until(lambda: not app.feeds.open)
    assert ("The feed of the events failed." in caplog.text) != goes_on


def test_a_page_that_cannot_be_read(path: Path, db: pw.SqliteDatabase, caplog: pytest.LogCaptureFixture) -> None:
    """A client behind whose next page cannot be read gets the end of the stream, and comes back."""
    caplog.set_level(logging.INFO)
    change(db, listener.PAGE)

    async def follow() -> list[Any]:
        feeds = live.Feeds(open_store(path), None, Settings(database_url=str(path)))
        found = list_events(db, limit=listener.PAGE)
        stream = live.EventStream(200, b"", (), feeds, listener.Listener(10**6, None, None), found, 10**6)
        sent = []

        async def send(message: Any) -> None:
            sent.append(message)
            await asyncio.sleep(0)
            stream.listener.seen = 10**6  # It is as if the file had been put back to an earlier state.

        async def receive() -> Any:
            await asyncio.sleep(10)

        await stream({"type": "http", "method": "GET", "headers": []}, receive, send)
        feeds.store.close()
        return sent

    sent = asyncio.run(follow())
    assert sent[-1] == {"type": "http.response.body", "body": b""}
    assert "A stream of events ended: The newest event" in caplog.text


@pytest.mark.parametrize("end", ["cancel", "OSError", "lifespan"])
def test_how_another_server_ends_it(path: Path, end: str) -> None:
    """A server may cancel the request, raise OSError where the client is gone, or end the lifespan: nothing is left."""
    app: Any = create_app(Settings(database_url=str(path)))

    async def follow() -> list[Any]:
        sent: list[Any] = []
        began = asyncio.Event()

        async def send(message: Any) -> None:
            sent.append(message)
            if message.get("body"):
                began.set()
                if end == "OSError":
                    raise OSError

        async def receive() -> Any:
            await asyncio.sleep(10)

        headers = [(b"accept", b"text/event-stream")]
        scope = {"type": "http", "method": "GET", "path": "/events", "query_string": b"", "headers": headers}
        async with app.router.lifespan_context(app):
            request = asyncio.create_task(app(scope, receive, send))
            await began.wait()
            if end == "cancel":
                await asyncio.sleep(0.05)
                request.cancel()
            if end != "lifespan":
                await asyncio.wait([request], timeout=5)
        await asyncio.wait([request], timeout=5)
        assert request.done()
        assert request.cancelled() == (end == "cancel")
        assert app.feeds.open == {}
        return sent

    sent = asyncio.run(follow())
    assert (sent[-1] == {"type": "http.response.body", "body": b""}) == (end == "lifespan")


def test_trio_is_refused(path: Path) -> None:
    """On another event loop than asyncio's nobody can listen, and is told so before a stream begins."""
    with TestClient(create_app(Settings(database_url=str(path))), backend="trio") as client:
        assert refusal(client.get("/events", headers=STREAM)) == (500, "internal_error")


def test_nobody_pays_who_does_not_listen(path: Path) -> None:
    """What streams are made of is imported when the first client listens."""
    program = f"""
import sys
from starlette.testclient import TestClient
from service import Settings, create_app
modules = {{"service.http.live", "service.http.listener", "service.storage.news"}}
with TestClient(create_app(Settings(database_url={str(path)!r}))) as client:
    assert client.get("/events").status_code == 200
assert modules.isdisjoint(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
