"""Several nodes on one PostgreSQL, one of which is killed; and a PostgreSQL whose standby takes over."""

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import postgresql
import psycopg
import pytest
from conftest import Server, serving
from test_postgresql import processes_of

from service import connect, courses, migrate
from service.enrollments import list_roster
from service.events import list_events

pytestmark = pytest.mark.anyio
STUDENTS = 2000


def fill(url: str) -> None:
    """Make a course without a limit, and students."""
    with connect(url) as db:
        courses.insert_course(db, "Algebra", "1")
        db.execute_sql(f"INSERT INTO students (name) SELECT 'Ada' FROM generate_series(1, {STUDENTS})")


def kept(url: str) -> set[int]:
    """Give the ids of who is enrolled, and hold the feed to it: the events have ids without gaps, one for each."""
    with connect(url) as db:
        found = {row.id for row in list_roster(db, 1, limit=STUDENTS)}
        told = list_events(db, 0, None, None, STUDENTS)
    assert [event.id for event in told] == [*range(1, len(told) + 1)]
    assert {event.student_id for event in told} == found
    return found


class Clients:
    """Clients who enroll students on all nodes, and remember what they were told."""

    def __init__(self, nodes: Sequence[Server]) -> None:
        """Have told nobody anything yet."""
        self.nodes = nodes
        self.acknowledged: set[int] = set()
        self.refused: list[tuple[int, Any]] = []
        self.last = self.slowest = 0.0
        self._next = iter(range(1, STUDENTS + 1))

    async def enroll(self, until: Callable[[], bool]) -> None:
        """Enroll one student after the other."""
        async with httpx2.AsyncClient(timeout=30) as client:
            for student in self._next:
                if until():
                    return
                node, began = self.nodes[student % len(self.nodes)], time.monotonic()
                try:
                    answer = await client.put(f"{node.url}/students/{student}/courses/1")
                except httpx2.TransportError:  # The node was killed.
                    continue
                if answer.status_code == 201:
                    self.acknowledged.add(student)
                    self.last = time.monotonic()
                    self.slowest = max(self.slowest, self.last - began)
                else:
                    self.refused.append((answer.status_code, answer))
                    await asyncio.sleep(0.05)


@pytest.mark.long
async def test_a_node_is_killed(school: str, serve_on: Callable[[str], Server]) -> None:
    """What two nodes acknowledged is there when one is killed, and the other one goes on."""
    fill(school)
    nodes = [serve_on(school), serve_on(school)]
    clients = Clients(nodes)
    end = time.monotonic() + 1.5

    async def kill() -> None:
        await asyncio.sleep(0.7)
        nodes[1].process.kill()

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(clients.enroll(lambda: time.monotonic() > end))
        group.create_task(kill())
    assert clients.refused == []
    assert clients.acknowledged
    assert clients.slowest < 3, "The node that was killed held the other one up."
    assert clients.acknowledged <= kept(school)
    answer = httpx2.get(f"{nodes[0].url}/health/ready")
    assert answer.status_code == 200


async def test_events_of_another_node(school: str, serve_on: Callable[[str], Server]) -> None:
    """Who follows the events on one node sees at once what another one does; a token that one made lets in on both."""
    fill(school)
    one, other = serve_on(school), serve_on(school)
    accept = {"accept": "text/event-stream"}
    async with (
        httpx2.AsyncClient(timeout=10) as client,
        client.stream("GET", f"{one.url}/events", headers=accept) as stream,
    ):
        assert stream.status_code == 200
        assert (await client.put(f"{other.url}/students/7/courses/1")).status_code == 201
        lines = stream.aiter_lines()
        async with asyncio.timeout(2):
            while '"type":"enrolled"' not in (line := await anext(lines)):
                pass
        assert '"student_id":7' in line
        assert (await client.delete(f"{one.url}/students/7/courses/1")).status_code == 204
        assert (await client.get(f"{other.url}/students/7/courses")).json() == []
        text = (await client.get(f"{other.url}/metrics")).text
    assert "enrollment_commit_seconds_count 1\n" in text


@contextmanager
def standby_of(server: postgresql.Server, folder: Path) -> Iterator[str]:
    """Run a standby that each commit waits for, and give the URL of the two."""
    process = Path("/proc", str(server.pid))
    programs, owner = (process / "exe").readlink().parent, process.stat()
    own: Any = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if not os.getuid() else {}
    home = server.data.parent / folder.name
    home.mkdir()
    os.chown(home, owner.st_uid, owner.st_gid)
    copy = [
        programs / "pg_basebackup",
        "-D",
        home / "data",
        "-R",
        "-c",
        "fast",
        "-h",
        server.data.parent,
        "-U",
        "postgres",
    ]
    subprocess.run([*map(str, copy)], check=True, cwd=home, **own)
    words = [f"--{name}={value}" for name, value in postgresql.SETTINGS.items() if name != "unix_socket_directories"]
    command = [str(programs / "postgres"), "-D", str(home / "data"), *words, f"--unix_socket_directories={home}"]
    quiet: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=home, **quiet, **own) as standby:
        try:
            server.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            server.execute("SELECT pg_reload_conf()")
            hosts = ",".join(quote(str(folder), safe="") for folder in (server.data.parent, home))
            yield f"postgresql://postgres@{hosts}/postgres"
        finally:
            standby.send_signal(signal.SIGQUIT)


def promote(url: str) -> None:
    """Make a primary of the standby, as Patroni does it."""
    with psycopg.connect(f"{url}?target_session_attrs=any", autocommit=True) as connection:
        connection.execute("SELECT pg_promote()")


@pytest.mark.long
async def test_a_standby_takes_over(tmp_path: Path, serve_on: Callable[[str], Server]) -> None:
    """When PostgreSQL is killed and its standby promoted, nothing acknowledged is lost, and the nodes go on."""
    with postgresql.running() as server, standby_of(server, tmp_path) as url:
        migrate(url)
        fill(url)
        nodes = [serve_on(url), serve_on(url)]
        clients = Clients(nodes)
        gone = [float("inf")]

        async def fail_over() -> None:
            await asyncio.sleep(0.7)
            for number in processes_of(server):
                os.kill(number, signal.SIGKILL)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(promote, url)
            gone[0] = time.monotonic()

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(
                    clients.enroll(lambda: clients.last > gone[0] + 0.3 or time.monotonic() > gone[0] + 5)
                )
            group.create_task(fail_over())
        assert clients.last > gone[0], "No node went on within five seconds."
        assert {status for status, _ in clients.refused} == {503}
        for _, answer in clients.refused:
            assert answer.headers["retry-after"]
            assert re.search("Nothing was (kept|read)|not known", answer.json()["detail"])
            assert str(server.data.parent) not in answer.text
        assert clients.acknowledged <= kept(url)
        async with httpx2.AsyncClient() as client:
            for node in nodes:
                assert (await client.get(f"{node.url}/health/ready")).status_code == 200


@pytest.fixture
def serve_on() -> Iterator[Callable[[str], Server]]:
    """Give a function that starts a node on a database."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(serving("--database-url", url))
