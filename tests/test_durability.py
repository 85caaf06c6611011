"""What a real server process promises of its answers: through kill -9, SIGTERM, locks and full disks."""

import json
import re
import resource
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from conftest import Server, serving
from invariants import check

Pair = tuple[int, int]
"""A student's id and a course's."""

STUDENTS = 400
COURSES = 100


@pytest.fixture(autouse=True)
def _school(path: Path) -> None:
    """Put students and courses into the file."""
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany("INSERT INTO students (name) VALUES (?)", [("Ada",)] * STUDENTS)
        db.executemany("INSERT INTO courses (name, level) VALUES (?, 'A1')", [("Chess",)] * COURSES)


def enrolled(path: Path) -> set[Pair]:
    """Give the enrollments in the file, once it has proved sound."""
    return {(student_id, course_id) for course_id, (seats, _) in check(path).items() for student_id in seats}


def everyone_in(course_id: int) -> list[Pair]:
    """Give what one client has to do: enroll each student in its own course."""
    return [(student_id, course_id) for student_id in range(1, STUDENTS + 1)]


def enroll(url: str, pairs: list[Pair], answers: dict[Pair, int]) -> None:
    """Be a client: enroll one pair after another on one connection, note each answer, and stop where none comes."""
    headers = {"Content-Type": "application/json"}
    with closing(HTTPConnection(urlsplit(url).netloc, timeout=20)) as connection:
        for pair in pairs:
            with suppress(OSError, HTTPException):
                connection.request("POST", f"/students/{pair[0]}/courses", json.dumps({"course_id": pair[1]}), headers)
                response = connection.getresponse()
                response.read()
                answers[pair] = response.status
            if pair not in answers:
                break


@contextmanager
def load(url: str, work: list[list[Pair]]) -> Iterator[dict[Pair, int]]:
    """Run one client for each list of pairs, and give the answers as they come; at the end wait for the clients."""
    answers: dict[Pair, int] = {}
    with ThreadPoolExecutor(len(work)) as pool:
        clients = [pool.submit(enroll, url, pairs, answers) for pairs in work]
        yield answers
    for client in clients:
        client.result()


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll a condition, for at most a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def created(answers: dict[Pair, int]) -> set[Pair]:
    """Give the pairs whose enrollment was acknowledged."""
    return {pair for pair, status in answers.items() if status == 201}


def listens(url: str) -> bool:
    """Tell whether a server takes connections."""
    where = urlsplit(url)
    try:
        socket.create_connection((where.hostname, where.port), timeout=5).close()
    except ConnectionError:  # Refused, or reset with all that waited to be accepted.
        return False
    return True


def post(client: httpx2.Client, student_id: int, course_id: int) -> httpx2.Response:
    """Enroll one student."""
    return client.post(f"/students/{student_id}/courses", json={"course_id": course_id})


def is_refused(response: httpx2.Response, code: str) -> bool:
    """Tell whether a response is a 503 with this code, which says when to come back."""
    return (
        response.status_code == 503
        and response.headers["content-type"] == "application/problem+json"
        and response.json()["code"] == code
        and int(response.headers["retry-after"]) > 0
    )


def kill_at_work(server: Server, courses: range, enough: int) -> dict[Pair, int]:
    """Kill a server under load, after so many answers, and give all the answers that came."""
    with load(server.url, [everyone_in(course) for course in courses]) as answers:
        wait_until(lambda: len(answers) >= enough)
        server.process.kill()
    assert server.process.wait(10) == -signal.SIGKILL
    return answers


def test_kill_9_loses_no_acknowledged_enrollment(serve: Callable[[], Server], path: Path) -> None:
    """Five times a server is killed in the midst of its work; what it acknowledged is there, in a sound file."""
    answers: dict[Pair, int] = {}
    for turn in range(5):
        answers |= kill_at_work(serve(), range(16 * turn + 1, 16 * turn + 17), 100 * (turn + 1))
    assert set(answers.values()) == {201}
    kept = enrolled(path)
    assert answers.keys() <= kept
    assert len(kept) <= len(answers) + 5 * 16


def test_sigterm_finishes_what_was_accepted(serve: Callable[[], Server], path: Path) -> None:
    """Requests that wait in the queue at SIGTERM get their answers; each 201 is in the file, and nothing else is."""
    server = serve()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        with load(server.url, [everyone_in(course) for course in range(1, 33)]) as answers:
            wait_until(lambda: len(answers) >= 200)
            other.execute("BEGIN IMMEDIATE")
            before = -1
            while before < len(answers):
                before = len(answers)
                time.sleep(0.2)
            server.process.terminate()
            wait_until(lambda: not listens(server.url))
            assert server.process.poll() is None
            assert len(answers) == before
            other.execute("ROLLBACK")
        assert len(answers) == before + 32
    server.process.wait(10)
    assert set(answers.values()) == {201}
    assert enrolled(path) == created(answers)


def test_sigterm_at_full_speed_keeps_nothing_unanswered(serve: Callable[[], Server], path: Path) -> None:
    """A server that is stopped in the midst of its work stops soon, and what is in the file has had its 201."""
    server = serve()
    with load(server.url, [everyone_in(course) for course in range(1, 17)]) as answers:
        wait_until(lambda: len(answers) >= 200)
        server.process.terminate()
    server.process.wait(10)
    assert set(answers.values()) == {201}
    assert enrolled(path) == created(answers)


def test_two_processes_share_a_file(serve: Callable[[], Server], path: Path) -> None:
    """Two servers take writes for one file at once and lose none."""
    work = [everyone_in(course)[:60] for course in range(1, 17)]
    with load(serve().url, work[::2]) as some, load(serve().url, work[1::2]) as others:
        pass
    assert set(some.values()) == set(others.values()) == {201}
    assert enrolled(path) == some.keys() | others.keys() == {pair for pairs in work for pair in pairs}


def test_2000_writes_of_64_clients_leave_exactly_the_good_ones(serve: Callable[[], Server], path: Path) -> None:
    """Every tenth write is bad: it alone is refused, and every other one is kept."""
    there = {(student_id, COURSES) for student_id in range(1, 68)}
    with closing(sqlite3.connect(path)) as db, db:
        add = "INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (?, ?, '2026-01-01T00:00:00.000Z')"
        db.executemany(add, there)
    expected = {(1 + n % STUDENTS, 1 + n // STUDENTS): 201 for n in range(1800)}
    good = set(expected)
    work = [*good]
    for n in range(200):
        pair, status = (((10**6 + n, 1), 404), ((1, 10**6 + n), 404), ((1 + n // 3, COURSES), 409))[n % 3]
        work.insert(9 + 10 * n, pair)
        expected[pair] = status
    with load(serve().url, [work[client::64] for client in range(64)]) as answers:
        pass
    assert answers == expected
    assert enrolled(path) == there | good


def test_a_lock_is_waited_for_and_then_refused(serve: Callable[..., Server], path: Path) -> None:
    """While another process holds the lock a write waits, then gets 503 busy; reads go on, and then all works."""
    server = serve(BUSY_TIMEOUT="0.3")
    with closing(sqlite3.connect(path, isolation_level=None)) as other, httpx2.Client(base_url=server.url) as client:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        assert is_refused(post(client, 1, 1), "busy")
        assert 0.3 <= time.monotonic() - began < 3
        assert is_refused(client.get("/health/ready"), "busy")
        assert client.get("/students/1/courses").json() == []
        other.execute("ROLLBACK")
        assert client.get("/health/ready").status_code == 200
        assert post(client, 2, 2).status_code == 201
    assert enrolled(path) == {(2, 2)}


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="Only Linux limits a process that runs.")
@pytest.mark.parametrize("room", [0, 50_000])
def test_a_disk_that_is_full_for_a_while_costs_no_acknowledged_write(
    serve: Callable[[], Server], path: Path, room: int
) -> None:
    """A server that may not write refuses and is not ready; when it may again it works, without a restart."""
    server = serve()
    with httpx2.Client(base_url=server.url) as client:
        assert post(client, 1, 1).status_code == 201
        assert len(client.get("/students/1/courses").json()) == 1
        limit = room and path.with_name(f"{path.name}-wal").stat().st_size + room
        usual = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (limit, usual[1]))
        with load(server.url, [everyone_in(course)[:20] for course in range(2, 10)]) as answers:
            pass
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, usual[1]))  # Not even a page fits any more.
        refused = post(client, 1, 50)
        assert is_refused(refused, "storage_unavailable")
        assert "Whether anything was kept is not known." in refused.json()["detail"]
        assert is_refused(client.get("/health/ready"), "storage_unavailable")
        assert client.get("/students/1/courses").status_code == 200
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, usual)
        assert client.get("/health/ready").status_code == 200
        assert post(client, 1, 60).status_code == 201
    assert set(answers.values()) == ({201, 503} if room else {503})
    assert enrolled(path) == created(answers) | {(1, 1), (1, 60)}


@pytest.mark.long
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="Only Linux limits a process that runs.")
def test_a_disk_that_fails_is_logged_once_a_second(path: Path, tmp_path: Path) -> None:
    """However many writes fail, there is a line a second, with its traceback, which counts those that have none."""
    log = tmp_path / "log"
    into_log = ["bash", "-c", 'exec "$@" 2> >(cat > "$0")', str(log)]  # The server itself may not write to a file.
    more = r"(?: \(And ([\d,]+) more since the last such line\.\))?"
    line = rf"^\S+ ERROR The database cannot be used\.{more}\n +Traceback"

    def logged() -> list[int]:
        """Give how many failures each line is of."""
        found = re.findall(line, log.read_text(), re.MULTILINE)
        return [1 + int(more.replace(",", "") or 0) for more in found]

    with serving("--database-url", str(path), through=into_log) as server, httpx2.Client(base_url=server.url) as client:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        until, failed = time.monotonic() + 2.5, 0
        while time.monotonic() < until:
            failed += is_refused(post(client, 1, 1), "storage_unavailable")
        time.sleep(1)
        assert is_refused(post(client, 1, 1), "storage_unavailable")
        wait_until(lambda: sum(logged()) == failed + 1)
    assert 3 <= len(logged()) <= 5
    assert failed > 20
