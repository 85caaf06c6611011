"""Exports over HTTP: the files and their headers, slow clients and those that go away, and what is in the way."""

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import httpx2
import peewee as pw
import pytest
import roster_files
from answers import faults, open_school, refusal, write
from conftest import Server, serving
from programs import is_file, open_program, run_sql
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from stores import open_store
from test_exporting import rows

from service import Settings, create_app
from service.courses import update_course
from service.errors import Busy
from service.exchange.exporting import csv_of, roster_of, to_temporary
from service.http import files
from service.storage import patience
from service.terms import insert_term

pytestmark = pytest.mark.both

CSV = {
    "/exports/students.csv": csv_of("students"),
    "/exports/courses.csv": csv_of("courses"),
    "/exports/terms.csv": csv_of("terms"),
    "/exports/enrollments.csv": csv_of("enrollments"),
    "/exports/courses/1/roster.csv": roster_of(1),
}
MANY = 30_000
"""So many students make a file of several parts, and more than a socket takes that nobody reads from."""


@pytest.fixture
def school(client: TestClient, db: pw.Database) -> TestClient:
    """Give a client of the small school, whose course is of a term."""
    open_school(db)
    insert_term(db, "Autumn", external_id="2026A", starts_on="2026-09-01", ends_on="2026-12-18")
    insert_term(db, "Winter", external_id="2027A")
    update_course(db, 1, {"term_id": 1})
    return client


@pytest.fixture
def large(path: Path | str) -> Path | str:
    """Give a database with many students."""
    if isinstance(path, Path):
        write(path, "INSERT INTO students (name) VALUES (?)", ((f"{number} {'x' * 190}",) for number in range(MANY)))
    else:
        named = f"INSERT INTO students (name) SELECT n || ' {'x' * 190}' FROM generate_series(1, {MANY}) AS n"
        run_sql(path, "SET session_replication_role = replica", named)
    return path


@pytest.mark.parametrize("part", [7, 2**18])
@pytest.mark.parametrize("url", CSV)
def test_a_file(school: TestClient, db: pw.Database, monkeypatch: pytest.MonkeyPatch, url: str, part: int) -> None:
    """A file comes whole, as CSV that a browser saves, in however many parts; HEAD gets its headers and no body."""
    monkeypatch.setattr(files, "PART", part)
    school.headers["x-request-id"] = "abc"
    answer = school.get(url)
    file, size = to_temporary(db, CSV[url])
    with file:
        assert answer.content == file.read()
    name = "roster-1.csv" if "roster" in url else url.rpartition("/")[2]
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert answer.headers["content-length"] == str(size)
    assert answer.headers["cache-control"] == "no-store"
    head = school.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert {**head.headers} == {**answer.headers}


def test_a_spreadsheets_file(school: TestClient) -> None:
    """With excel=1 a file begins with a BOM, and has no formula."""
    school.post("/students", json={"name": "=1+1"})
    for url in ("/exports/students.csv", "/exports/courses/1/roster.csv"):
        assert school.get(f"{url}?excel=1").content.startswith(b"\xef\xbb\xbf")
        assert school.get(f"{url}?excel=0").content == school.get(url).content
        assert faults(school.get(f"{url}?excel=true")) == ["excel"]
    assert school.get("/exports/students.csv?excel=1").text.endswith(",,'=1+1,,,\r\n")


def test_a_term(school: TestClient) -> None:
    """A term is named by its id or its external id, and not by both."""
    for name in ("students", "courses", "terms", "enrollments"):
        url = f"/exports/{name}.csv"
        found = school.get(f"{url}?term_id=1").content
        assert found == school.get(f"{url}?term_external_id=2026A").content
        assert len(rows(found)) == {"students": 2, "enrollments": 2}.get(name, 1)
        assert len(rows(school.get(f"{url}?term_id=2").content)) == (name == "terms")
        assert faults(school.get(f"{url}?term_id=1&term_external_id=2026A")) == ["term_external_id"]
        assert faults(school.get(f"{url}?term_external_id=/")) == ["term_external_id"]
        assert refusal(school.get(f"{url}?term_external_id=none")) == (404, "term_not_found")


def test_oneroster(school: TestClient) -> None:
    """The zip keeps to the specification, whole and as a delta."""
    answer = school.get("/exports/oneroster.zip")
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == 'attachment; filename="oneroster.zip"'
    found = roster_files.read(answer.content)
    assert [row["sourcedId"] for row in found["enrollments"]] == ["enr-1"]
    assert found["orgs"][0]["name"] == "School"
    school.delete("/students/1/courses/1")
    url = "/exports/oneroster.zip?since=2"
    states = [(row["sourcedId"], row["status"]) for row in roster_files.read(school.get(url).content)["enrollments"]]
    assert states == [("enr-1", "tobedeleted"), ("enr-2", "active")]
    assert roster_files.read(school.get(f"{url}&term_id=2").content) == {}
    moment = "/exports/oneroster.zip?since=2020-01-01T00:00:00%2B01:00"
    assert len(roster_files.read(school.get(moment).content)["enrollments"]) == 2
    assert refusal(school.get("/exports/oneroster.zip?since=99")) == (410, "feed_rewound")
    assert faults(school.get("/exports/oneroster.zip?since=-1")) == ["since"]


def test_under_a_mount(path: Path) -> None:
    """A host program's service exports too, under the school's own name."""
    app = create_app(Settings(database_url=str(path), school_name="Hogwarts"))
    with TestClient(app), TestClient(Starlette(routes=[Mount("/enrollment", app)])) as client:
        found = roster_files.read(client.get("/enrollment/exports/oneroster.zip").content)
        assert [row["name"] for row in found["orgs"]] == ["Hogwarts"]


def test_only_so_many_files(school: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where too many files are being sent, one more is refused; those that were sent do not count."""
    monkeypatch.setattr(files, "MOST_FILES", 1)
    for _ in range(3):
        assert school.get("/exports/students.csv").status_code == 200
    monkeypatch.setattr(files, "MOST_FILES", 0)
    assert refusal(school.get("/exports/students.csv")) == (503, "busy")


@pytest.mark.anyio
async def test_only_so_many_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two long reads run at once, some wait for their turn, and the next ones are refused; short reads go on."""
    monkeypatch.setattr(patience, "MOST_SCANS", 3)
    going, go_on = threading.Semaphore(0), threading.Event()

    def wait(_: pw.Database) -> None:
        going.release()
        go_on.wait(10)

    with closing(open_store(path)) as busy:
        scans = [asyncio.ensure_future(busy.scan(wait)) for _ in range(3)]
        for _ in range(2):
            await asyncio.to_thread(going.acquire, timeout=10)
        assert not going.acquire(blocking=False)
        with pytest.raises(Busy, match="3 reads are waiting already"):
            await busy.scan(wait)
        assert await busy.read(lambda _: 7) == 7
        go_on.set()
        await asyncio.wait_for(asyncio.gather(*scans), 10)


def open_files(server: Server) -> list[str]:
    """Give the files that a server has open and that no folder has."""
    found = []
    for file in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # It may be closed just now.
            found.append(str(file.readlink()))
    return [file for file in found if file.endswith("(deleted)")]


def ask(server: Server, url: str) -> socket.socket:
    """Ask for a file, and read the beginning of the answer and no more."""
    address, port = server.url.removeprefix("http://").split(":")
    client = socket.create_connection((address, int(port)), timeout=30)
    client.sendall(f"GET {url} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
    assert client.recv(20).startswith(b"HTTP/1.1 200")
    return client


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has /proc")
def test_a_slow_client(serve: Callable[..., Server], large: Path | str) -> None:
    """A client that does not read holds neither the snapshot nor anybody else, and leaves no file when it goes."""
    server = serve()
    before = open_files(server)
    whole = httpx2.get(f"{server.url}/exports/students.csv").content
    assert len(rows(whole)) == MANY
    with ask(server, "/exports/students.csv"):
        assert len(open_files(server)) == len(before) + 1
        httpx2.post(f"{server.url}/students", json={"name": "Late"})
        with closing(open_program(large)) as db:
            if is_file(large):
                assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
            else:
                open_ = "datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()"
                assert db.execute(f"SELECT query FROM pg_stat_activity WHERE {open_}").fetchall() == []
    until = time.monotonic() + 10
    while open_files(server) != before and time.monotonic() < until:
        time.sleep(0.01)
    assert open_files(server) == before


LIMITED = """
import os, resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.long
def test_a_full_disk(large: Path | str) -> None:
    """Where there is no room for the file the answer says so, and the service goes on."""
    with serving("--database-url", str(large), through=(sys.executable, "-c", LIMITED)) as server:
        answer = httpx2.get(f"{server.url}/exports/students.csv")
        assert refusal(answer) == (503, "storage_unavailable")
        assert answer.json()["detail"] == "The export cannot be written: File too large. Nothing was kept."
        assert len(httpx2.get(f"{server.url}/students").json()) == 100
        assert httpx2.get(f"{server.url}/exports/courses.csv").status_code == 200
