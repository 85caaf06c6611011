"""Files over HTTP: what comes of them, and what a client, a file or the end of the server may do meanwhile."""

import asyncio
import io
import json
import os
import signal
import socket
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import peewee as pw
import pytest
from answers import open_school, refusal
from conftest import Server
from programs import lost
from starlette.testclient import TestClient

from service import Settings, create_app, events, students, tokens
from service.http import body, imports

pytestmark = pytest.mark.both

CSV = {"content-type": "text/csv"}
STUDENTS = "external_id,name\n"


def many(count: int) -> bytes:
    """Write a file of so many students."""
    return (STUDENTS + "".join(f"N{number},Student {number}\n" for number in range(count))).encode()


def send(client: Any, content: bytes | str, query: str = "", **headers: str) -> Any:
    """Send a file of students."""
    return client.post(f"/imports?file_name=students.csv{query}", content=content, headers={**CSV, **headers})


@pytest.fixture
def guarded(db: pw.Database, path: Path) -> Iterator[TestClient]:
    """Give a client of the small school's app, which asks for tokens."""
    open_school(db)
    with TestClient(create_app(Settings(database_url=str(path), auth="tokens"), check_tokens=True)) as client:
        yield client


@pytest.mark.long
def test_a_table(client: TestClient, db: pw.Database) -> None:
    """What can be taken is taken, and each other row is in the report; the same again changes nothing."""
    told = send(client, STUDENTS + "7,Ada\n8,\n9,Cy\n").json()
    assert told["totals"]["students"] == told["totals"]["terms"] | {"created": 2, "refused": 1}
    (row,) = told["refused_rows"]
    assert (row["file"], row["line"], row["row"]) == ("students.csv", 3, {"external_id": "8", "name": ""})
    assert (told["finished"], told["problem"], told["dry_run"]) == (True, None, False)
    assert [each.name for each in students.list_students(db)] == ["Ada", "Cy"]
    again = send(client, STUDENTS + "7,Ada\n9,Cy\n").json()
    assert again["totals"]["students"] == told["totals"]["terms"] | {"unchanged": 2}


def test_what_the_environment_means_to_others(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app has its settings from its program, so an import heeds no variable that happens to have such a name."""
    for name, value in {"PORT": "tcp://10.0.0.1:80", "AUTH": "ldap", "DATABASE_URL": "elsewhere.db"}.items():
        monkeypatch.setenv(name, value)
    assert send(client, STUDENTS + "7,Ada\n").json()["totals"]["students"]["created"] == 1


@pytest.mark.long
def test_a_zip_with_who_and_why(guarded: TestClient, db: pw.Database) -> None:
    """A zip has several tables; its events tell the token and the reason. Without the scope, nobody is let past."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("students.csv", STUDENTS + "7,Di\n")
        archive.writestr("enrollments.csv", "student_external_id,course_id\n7,1\n")
    token = tokens.create_token(db, "sync", ["import"])
    headers = {"content-type": "application/zip", "authorization": f"Bearer {token}"}
    answer = guarded.post("/imports?reason=Nightly&override=true", content=held.getvalue(), headers=headers)
    assert refusal(answer) == (403, "insufficient_scope")
    answer = guarded.post("/imports?reason=Nightly", content=held.getvalue(), headers=headers)
    assert answer.json()["refused_rows"][0]["code"] == "course_full"
    both = tokens.create_token(db, "sync", ["import", "override"])
    headers["authorization"] = f"Bearer {both}"
    answer = guarded.post("/imports?reason=Nightly&override=true", content=held.getvalue(), headers=headers)
    assert answer.json()["totals"]["enrollments"]["enrolled"] == 1
    newest = events.list_events(db)[-1]
    assert (newest.student_id, newest.actor, newest.reason) == (4, f"token:{both[4:12]}", "Nightly")


@pytest.mark.long
def test_a_dry_run(client: TestClient, db: pw.Database) -> None:
    """A dry run tells what would come, and changes nothing; where too many would be dropped, it lists them."""
    open_school(db)
    told = send(client, STUDENTS + "7,Di\n", "&dry_run=true").json()
    assert (told["dry_run"], told["totals"]["students"]["created"]) == (True, 1)
    assert len(students.list_students(db)) == 3
    pairs = "student_id,course_id\n3,1\n"
    query = "/imports?missing=drop&max_drops=50"
    assert refusal(client.post(query, content=pairs, headers=CSV)) == (409, "too_many_drops")
    told = client.post(f"{query}&dry_run=true", content=pairs, headers=CSV).json()
    assert [each["student_name"] for each in told["missing"]] == ["Bo", "Ada"]
    assert told["problem"]["code"] == "too_many_drops"


def test_lines(client: TestClient) -> None:
    """As JSON lines, the answer tells how far the import is, and ends with the report."""
    answer = send(client, many(300), accept="application/x-ndjson")
    assert answer.headers["content-type"] == "application/x-ndjson"
    told = [json.loads(line) for line in answer.text.splitlines()]
    assert {each["type"] for each in told[:-1]} == {"progress"}
    assert told[-1]["type"] == "report"
    assert told[-1]["totals"]["students"]["created"] == 300


@pytest.mark.both(False, because="what is no file reaches no database")
@pytest.mark.parametrize(
    ("content", "headers", "expected"),
    [
        (b"\0", CSV, (422, "unreadable_file")),
        (b"", CSV, (422, "unreadable_file")),
        (b"PK\x03\x04", {"content-type": "application/zip"}, (422, "unreadable_file")),
        (b"a,b\n1,2\n", CSV, (422, "unreadable_file")),
        (b"x", {"content-type": "text/plain"}, (415, "unsupported_media_type")),
        (b"x", {}, (415, "unsupported_media_type")),
        (b"x", {**CSV, "content-encoding": "gzip"}, (415, "unsupported_media_type")),
        (b"x", {**CSV, "content-length": str(2**40)}, (413, "payload_too_large")),
    ],
)
def test_what_is_no_file(
    client: TestClient, content: bytes, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    """What cannot be read is refused with what to do, whichever answer the client prefers."""
    for accept in ("*/*", "application/x-ndjson"):
        answer = client.post("/imports", content=content, headers={**headers, "accept": accept})
        assert refusal(answer) == expected


def test_a_file_that_does_not_say_how_large_it_is(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is counted as it comes; the charset that a client names means nothing, because the bytes tell."""
    monkeypatch.setattr(body, "MAX_UPLOAD", 100)
    parts = (part for part in [b"external_id,name\n", *[b"1,a\n"] * 30])
    answer = client.post("/imports", content=parts, headers=CSV)
    assert refusal(answer) == (413, "payload_too_large")
    answer = client.post(
        "/imports?file_name=students",
        content="external_id,name\n1,é\n".encode("cp1252"),
        headers={"content-type": "TEXT/CSV; charset=x"},
    )
    assert answer.json()["totals"]["students"]["created"] == 1
    assert "Windows-1252" in answer.json()["notes"][0]


@pytest.mark.both(False, because="no name reaches the database")
@pytest.mark.parametrize("name", ["../../etc/passwd", "/abs", "a%00b", "%F0%9F%98%80" * 40, "-x", "...", "a\\b.xlsx"])
def test_names_lead_nowhere(client: TestClient, tmp_path: Path, name: str) -> None:
    """The name of a file is shown, and no path."""
    before = sorted(each.name for each in tmp_path.iterdir())
    answer = client.post(f"/imports?file_name={name}", content=STUDENTS + "7,Ada\n", headers=CSV)
    assert answer.status_code in {200, 422}
    assert sorted(each.name for each in tmp_path.iterdir()) == before


@pytest.mark.long
def test_one_at_a_time(live: httpx2.Client) -> None:
    """While one import is at work another one is told so; other requests are answered."""
    with live.stream(
        "POST", "/imports?file_name=students.csv", content=many(6000), headers={**CSV, "accept": "application/x-ndjson"}
    ) as first:
        lines = first.iter_lines()
        next(lines)
        assert refusal(send(live, many(1))) == (503, "busy")
        assert live.get("/students?limit=1").status_code == 200
        assert json.loads([*lines][-1])["totals"]["students"]["created"] == 6000
    assert send(live, many(1)).json()["totals"]["students"]["unchanged"] == 1


@pytest.mark.long
def test_a_client_that_sends_slowly(live: httpx2.Client) -> None:
    """Others import while the body of an import is still coming; once it is there, it has its turn."""
    live.timeout = httpx2.Timeout(60)
    host, port = str(live.base_url.host), live.base_url.port
    content = many(3)
    lines = "POST /imports?file_name=students.csv HTTP/1.1", "host: x", "content-type: text/csv"
    head = "\r\n".join([*lines, f"content-length: {len(content)}", "", ""]).encode()
    with socket.create_connection((host, port or 80)) as slow:
        slow.sendall(head + content[:-5])
        assert send(live, many(1)).json()["totals"]["students"]["created"] == 1
        slow.sendall(content[-5:])
        told = b""
        while b'"totals"' not in told:
            told += slow.recv(65536)
    assert b'"created":2' in told


@pytest.mark.parametrize("at_the_end", [True, False])
@pytest.mark.anyio
async def test_a_body_that_is_there_too_late(path: Path, *, at_the_end: bool) -> None:
    """An import whose body has come while another one was at work is told so, and what it held is let go."""
    app: Any = create_app(Settings(database_url=str(path)))
    sent = list[Any]()

    async def receive() -> dict[str, Any]:
        if at_the_end:
            app.imports._at_work = True  # noqa: SLF001
        else:
            app.imports._held = imports.MOST_HELD - 5  # noqa: SLF001
        return {"type": "http.request", "body": many(1)}

    async def sending(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/imports", "query_string": b"file_name=students.csv"}
    async with app.router.lifespan_context(app):
        await app({**scope, "headers": [(b"content-type", b"text/csv")]}, receive, sending)
    assert (sent[0]["status"], json.loads(sent[1]["body"])["code"]) == (503, "busy")
    assert app.imports._held == (0 if at_the_end else imports.MOST_HELD - 5)  # noqa: SLF001


def begun(url: str, accept: str) -> socket.socket:
    """Begin an import of many students, and wait until some of them are there."""
    host, port = url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)))
    content = many(50_000)
    lines = (
        *("POST /imports?file_name=students.csv HTTP/1.1", "host: x", f"accept: {accept}", "content-type: text/csv"),
        *(f"content-length: {len(content)}", "", ""),
    )
    client.sendall("\r\n".join(lines).encode() + content)
    until = time.monotonic() + 60
    while not httpx2.get(f"{url}/students?limit=1").json():
        assert time.monotonic() < until
        time.sleep(0.02)
    return client


@pytest.mark.long
@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_a_client_that_leaves(
    serve: Callable[..., Server], db: pw.Database, tmp_path_factory: pytest.TempPathFactory, accept: str
) -> None:
    """If the client leaves, the import stops between two rows; what was taken stays, and the same again ends it."""
    kept = tmp_path_factory.mktemp("kept")
    url = serve(TMPDIR=str(kept)).url
    begun(url, accept).close()
    until = time.monotonic() + 60
    with httpx2.Client(base_url=url, timeout=60) as client:
        while (answer := send(client, many(1000))).status_code == 503:
            assert time.monotonic() < until
        (count,) = db.execute_sql("SELECT count(*) FROM students").fetchone()
        assert 1000 <= count < 50_000
        assert answer.json()["finished"]
    assert [*kept.iterdir()] == []


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_the_end_of_the_server(serve: Callable[..., Server], accept: str) -> None:
    """When the server ends, the import stops between two rows, and the client is told so."""
    server = serve()
    told = b""
    with begun(server.url, accept) as client:
        server.process.send_signal(signal.SIGTERM)
        while part := client.recv(2**16):
            told += part
    assert b"was interrupted" in told
    assert server.process.wait(20) == -signal.SIGTERM


def test_a_full_disk(client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the file cannot be kept, nothing is imported."""
    monkeypatch.setattr(imports, "TemporaryDirectory", lambda **_: open_nothing(tmp_path))
    answer = send(client, many(1))
    assert refusal(answer) == (503, "storage_unavailable")
    assert "Nothing was imported" in answer.json()["detail"]


def open_nothing(folder: Path) -> Any:
    """Fail as a full disk does."""
    raise OSError(28, os.strerror(28), str(folder))


def test_a_command_that_does_not_begin(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the command ends at once, the answer has its words."""
    monkeypatch.setattr(imports, "PACKAGE", Path("/nowhere"))
    answer = send(client, many(1))
    assert refusal(answer) == (503, "busy")
    assert "nothing was imported" in answer.json()["detail"]


def test_a_command_that_does_not_end(client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A command that heeds no signal is killed."""
    monkeypatch.setattr(imports, "PATIENCE", 0.2)
    folder = tmp_path / "other" / "service"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "__main__.py").write_text(
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        'print(\'{"type":"report","format":"","dry_run":false,"notes":[]}\', flush=True)\n'
        "os.close(1); time.sleep(600)\n"
    )
    monkeypatch.setattr(imports, "PACKAGE", folder.parent)
    began = time.monotonic()
    assert send(client, many(1)).status_code == 200
    assert time.monotonic() - began < 30


@pytest.mark.anyio
async def test_the_end_of_what_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A command that is killed has ended before its answer has, and nobody leaves it behind."""
    monkeypatch.setattr(imports, "PATIENCE", 0.1)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", deaf, stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    await process.stdout.readline()
    left = asyncio.get_running_loop().create_future()
    await imports.Command(process, tmp_path / "errors", left).end()  # type: ignore[arg-type]
    assert process.returncode == -signal.SIGKILL


def test_the_store_is_asked_first(client: TestClient, path: Path | str) -> None:
    """Where nothing can be written, no command is begun."""
    with lost(path):
        assert refusal(send(client, many(1))) == (503, "storage_unavailable")


def test_a_file_in_small_parts(client: TestClient) -> None:
    """A file may come in any parts."""
    parts = (bytes([byte]) for byte in (STUDENTS + "7,Ada\n").encode())
    answer = client.post("/imports?file_name=students.csv", content=parts, headers=CSV)
    assert answer.json()["totals"]["students"]["created"] == 1


def test_another_one_is_at_work(client: TestClient) -> None:
    """An import waits for no other one, and the next may come as soon as that has ended."""
    running: Any = client.app
    running.imports._at_work = True  # noqa: SLF001
    assert refusal(send(client, many(1))) == (503, "busy")
    running.imports._end()  # noqa: SLF001
    assert send(client, many(1)).status_code == 200


@pytest.mark.anyio
async def test_who_leaves_ends_the_command(path: Path) -> None:
    """Once the server says that the client has gone, the command ends, and the report says so."""
    app = create_app(Settings(database_url=str(path)))
    went, sent = asyncio.Event(), list[Any]()
    parts: list[dict[str, Any]] = [{"body": many(30_000), "more_body": True}, {"body": b""}, {"body": b""}]
    came = iter([{"type": "http.request", **part} for part in parts])

    async def receive() -> dict[str, Any]:
        if (message := next(came, None)) is None:
            await went.wait()
            return {"type": "http.disconnect"}
        return message

    async def sending(message: Any) -> None:
        sent.append(message)
        if len(sent) == 3:
            went.set()

    headers = [(b"content-type", b"text/csv"), (b"accept", b"application/x-ndjson")]
    scope = {"type": "http", "method": "POST", "path": "/imports", "query_string": b"file_name=students.csv"}
    await app({**scope, "headers": headers}, receive, sending)
    last = json.loads(b"".join(message.get("body", b"") for message in sent).splitlines()[-1])
    assert last["problem"]["code"] == "interrupted"
    assert last["totals"]["students"]["created"] < 30_000
