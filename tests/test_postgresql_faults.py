"""What clients of a node are told, and how soon, while PostgreSQL or another node is killed or stands still."""

import json
import logging
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
import postgresql
import psycopg
import pytest
from conftest import serving
from invariants import check
from starlette.testclient import TestClient
from test_postgresql import killed, stopped
from test_postgresql_nodes import fill
from test_postgresql_rules import host, trigger

from service import Settings, create_app, migrate
from service.http.logs import AccessLog, Json

RECOVERY = 5
"""Seconds after which a node goes on where PostgreSQL alone was restarted."""
ROOM = 1.5
"""Seconds that this machine may take beside what the service waits for: the tests run beside others."""
WHO = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'enrollment public'"


@pytest.fixture(scope="module")
def own() -> Iterator[tuple[postgresql.Server, str]]:
    """Run a PostgreSQL that a test may stop, and make a school with a course and students, for others to be copies."""
    with postgresql.running() as server, server.database() as template:
        migrate(template)
        fill(template)
        yield server, template


@pytest.fixture
def server(own: tuple[postgresql.Server, str]) -> postgresql.Server:
    """Give that PostgreSQL."""
    return own[0]


@pytest.fixture
def url(own: tuple[postgresql.Server, str]) -> Iterator[str]:
    """Give the URL of a school on it, the test's own."""
    with own[0].database(own[1]) as url:
        yield url


@contextmanager
def node_on(url: str, *options: str, **environ: str) -> Iterator[httpx2.Client]:
    """Run a node, and give a client of it."""
    with (
        serving("--database-url", url, *options, **environ) as node,
        httpx2.Client(base_url=node.url, timeout=30) as client,
    ):
        yield client


def timed(ask: Callable[[], httpx2.Response]) -> tuple[float, httpx2.Response]:
    """Give how many seconds a client waited, and the answer."""
    began = time.monotonic()
    answer = ask()
    return time.monotonic() - began, answer


def told(answer: httpx2.Response) -> str:
    """Check that an answer is a 503 that says when to try again, and give what it says was kept."""
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) > 0
    found = re.search(r"(Nothing was (read|kept)|Whether anything was kept is not known)\.$", answer.json()["detail"])
    assert found, answer.json()["detail"]
    return found[0]


def recovered(client: httpx2.Client, since: float, again: Callable[[], object] = int) -> float:
    """Give how many seconds later a node reads and writes again; until then each answer is a 503 with the truth."""
    for method, path, well in (("PUT", "/students/2/courses/1", {200, 201}), ("GET", "/students/2/courses", {200})):
        while (answer := client.request(method, path)).status_code not in well:
            told(answer)
            again()
            time.sleep(0.02)
    return time.monotonic() - since


@pytest.mark.long
def test_a_process_of_postgresql_is_killed(url: str) -> None:
    """PostgreSQL ends all connections and begins anew where one of its processes is killed: nodes go on in time."""
    with node_on(url) as client:
        assert client.put("/students/1/courses/1").status_code == 201
        with psycopg.connect(url) as connection:
            found = connection.execute(WHO).fetchall()
        began = time.monotonic()
        os.kill(found[0][0], signal.SIGKILL)
        assert recovered(client, began) < RECOVERY
        assert [row["id"] for row in client.get("/courses/1/students").json()] == [1, 2]
    check(url)


@pytest.mark.long
def test_postgresql_is_killed_and_started() -> None:
    """While PostgreSQL is gone, a client is told so at once; as soon as it takes connections again, a node goes on."""
    with postgresql.running() as server, node_on(server.url, "--migrate") as client:
        fill(server.url)
        assert client.put("/students/1/courses/1").status_code == 201
        with killed(server) as start:
            for method, path in (("PUT", "/students/2/courses/1"), ("GET", "/students/2/courses")):
                seconds, answer = timed(lambda method=method, path=path: client.request(method, path))  # type: ignore[misc]
                assert told(answer).startswith("Nothing")
                assert seconds < ROOM
            began = time.monotonic()
            assert recovered(client, began, start) < RECOVERY
            assert client.get("/courses/1").json()["enrolled"] == 2
            check(server.url)


@pytest.mark.long
def test_postgresql_stands_still(server: postgresql.Server, url: str) -> None:
    """Whoever asks while PostgreSQL says nothing has an answer within BUSY_TIMEOUT, also where a node must connect."""
    with node_on(url, BUSY_TIMEOUT="2") as client, ThreadPoolExecutor() as pool:
        assert client.put("/students/1/courses/1").status_code == 201
        with stopped(server):
            for _ in range(2):
                asked = [
                    pool.submit(timed, lambda: client.put("/students/2/courses/1")),
                    pool.submit(timed, lambda: client.post("/enrollments", json=[{"student_id": 3, "course_id": 1}])),
                    pool.submit(timed, lambda: client.get("/students/2/courses")),
                ]
                for seconds, answer in (each.result() for each in asked):
                    assert told(answer).startswith("Nothing")
                    assert 1.5 < seconds < 2 + ROOM
        assert recovered(client, time.monotonic()) < RECOVERY
    check(url)


@pytest.mark.long
def test_a_node_stands_still_with_the_turn(url: str) -> None:
    """A node that was stopped within its transaction holds the others up for three seconds, and then goes on itself."""
    host(url, *trigger("AFTER INSERT", "PERFORM pg_sleep(0.3 * (NEW.student_id = 1)::int); RETURN NULL;"))
    with serving("--database-url", url) as node, node_on(url) as other, ThreadPoolExecutor() as pool:
        place = f"{node.url}/students/{{}}/courses/1"
        assert httpx2.put(place.format(9)).status_code == 201
        stuck = pool.submit(lambda: httpx2.put(place.format(1), timeout=30))
        with psycopg.connect(url, autocommit=True) as connection:
            while not connection.execute("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'").fetchall():
                time.sleep(0.01)
        node.process.send_signal(signal.SIGSTOP)
        try:
            seconds, answer = timed(lambda: other.put("/students/2/courses/1"))
        finally:
            node.process.send_signal(signal.SIGCONT)
        assert answer.status_code == 201, answer.text
        assert 2 < seconds < 3.3 + ROOM
        # Its transaction was undone, and it may have done the write once more since.
        assert stuck.result().status_code == 201 or told(stuck.result()) == "Nothing was kept."
        assert httpx2.put(place.format(3)).status_code == 201
    check(url)


@pytest.mark.long
def test_a_wait_for_the_standby_that_is_broken_off(server: postgresql.Server, url: str) -> None:
    """A client whose write may be lost with this server is told that nobody knows; what was written is in the feed."""
    with node_on(url) as client, ThreadPoolExecutor() as pool:
        assert client.put("/students/1/courses/1").status_code == 201
        with server.waiting_for_a_standby():
            waiting = pool.submit(lambda: client.put("/students/2/courses/1"))
            while not waiting.done():
                server.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
                time.sleep(0.05)
            assert told(waiting.result()) == "Whether anything was kept is not known."
        assert recovered(client, time.monotonic()) < RECOVERY
    check(url)


class Lines(logging.Handler):
    """Keeps what is logged, in the form that it has at that moment and in that thread."""

    def __init__(self) -> None:
        """Have nothing yet."""
        super().__init__()
        self.lines: list[dict[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(json.loads(Json().format(record)))


def test_slow_statements_have_the_id_of_their_request(url: str) -> None:
    """Whatever thread runs a statement that is slow, its line of the log has the id of the request."""
    log, kept = logging.getLogger("service.storage.slow"), Lines()
    log.addHandler(kept)
    try:
        with TestClient(AccessLog(create_app(Settings(database_url=url, slow_ms=1e-6)))) as client:
            for method, path in (("GET", "/students/1"), ("PATCH", "/students/1"), ("GET", "/exports/students.csv")):
                sent = {"json": {"name": "Bo"}} if method == "PATCH" else {}
                client.request(method, path, headers={"x-request-id": f"{method}{path}"}, **sent)  # type: ignore[arg-type]
            assert client.put("/students/1/courses/1").status_code == 201
    finally:
        log.removeHandler(kept)
    told = {(line.get("request_id"), line["sql"].split()[0]) for line in kept.lines}
    assert told >= {
        ("GET/students/1", "SELECT"),
        ("PATCH/students/1", "UPDATE"),
        ("GET/exports/students.csv", "SELECT"),
        (None, "COMMIT"),
    }
