"""HTTP on the wire, by raw sockets: what is a request, what is refused, and what one client can make it hold."""

import asyncio
import gc
import json
import logging
import re
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
import uvicorn
from conftest import serving
from starlette.types import Receive, Scope, Send
from test_server import running

import service
from service import Settings, create_app, students
from service.http import server as http_server
from service.http.connections import SWEEP_SECONDS, Connections
from service.http.parser import MAX_FIELDS, MAX_HEAD
from service.http.protocol import LINGER_SECONDS, MAX_LINGER
from service.log import SECONDS

HOST = b"Host: school\r\n"
JSON = b"Content-Type: application/json\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\n" + HOST + b"\r\n"
ADA = b'{"name": "Ada"}'


def post(body: bytes = ADA, *fields: bytes, length: int | None = None) -> bytes:
    """Give a request that adds a student."""
    size = b"Content-Length: %d\r\n" % (len(body) if length is None else length)
    return (
        b"POST /students HTTP/1.1\r\n"
        + HOST
        + JSON
        + size
        + b"".join(b"%s\r\n" % each for each in fields)
        + b"\r\n"
        + body
    )


def chunked(*chunks: bytes, trailers: bytes = b"", fields: bytes = b"") -> bytes:
    """Give a request that adds a student, its body in chunks."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in chunks)
    head = b"POST /students HTTP/1.1\r\n" + HOST + JSON + fields + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + body + b"0\r\n" + trailers + b"\r\n"


@contextmanager
def talking(settings: Settings, app: Any = None) -> Iterator[tuple[Any, Callable[[], socket.socket]]]:
    """Run a server in this process; give it, and a function that connects to it."""
    server = http_server.Server(app or create_app(settings), settings)
    opened: list[socket.socket] = []

    def connect() -> socket.socket:
        opened.append(socket.create_connection(server.servers[0].sockets[0].getsockname(), timeout=10))
        return opened[-1]

    with running(server):
        try:
            yield server, connect
        finally:
            for each in opened:
                each.close()


@pytest.fixture
def settings(path: Path) -> Settings:
    """Give short deadlines."""
    return Settings(database_url=str(path), port=0, head_timeout=1, body_timeout=1, answer_timeout=1, keep_alive=1)


@pytest.fixture
def connect(settings: Settings) -> Iterator[Callable[[], socket.socket]]:
    """Give a function that connects to a server."""
    with talking(settings) as (_, connect):
        yield connect


def answers(connection: socket.socket, count: int = 0) -> list[tuple[int, dict[str, str], bytes]]:
    """Read so many answers, or all until the connection ends: (status, header fields, body) of each."""
    found: list[tuple[int, dict[str, str], bytes]] = []
    data = b""
    while True:
        while b"\r\n\r\n" in data:
            head, _, rest = data.partition(b"\r\n\r\n")
            line, *fields = head.decode().split("\r\n")
            named = dict(field.split(": ", 1) for field in fields)
            size = int(named.get("content-length", 0))
            if len(rest) < size:
                break
            found.append((int(line.split()[1]), named, rest[:size]))
            data = rest[size:]
        if count and len(found) >= count:
            return found
        more = connection.recv(2**16)
        if not more:
            assert data == b""
            return found
        data += more


def codes(found: list[tuple[int, dict[str, str], bytes]]) -> list[Any]:
    """Shorten answers to the code of a problem, or else the status."""
    return [json.loads(body)["code"] if status >= 400 else status for status, _, body in found]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (LIVE, [200]),
        (LIVE * 20, [200] * 20),
        (post(ADA, b"Connection: Upgrade", b"Upgrade: h2c") + LIVE, [201, 200]),
        (post(LIVE, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c") + LIVE, ["malformed_json", 200]),
        (LIVE.replace(HOST, HOST + b"Connection: upgrade\r\nUpgrade: websocket\r\n") + LIVE, [200, 200]),
        (chunked(ADA[:5], ADA[5:], fields=b"Connection: Upgrade\r\nUpgrade: x\r\n") + LIVE, [201, 200]),
        (chunked(ADA, trailers=b"Connection: close\r\nContent-Type: text/plain\r\n") + LIVE, [201]),
        (LIVE.replace(HOST, HOST + b"Connection: upgrade\r\nUpgrade: websocket\r\n"), [200]),
        (LIVE.replace(HOST, HOST + b"X: 1\r\nX: 2\r\n") + LIVE, [200, 200]),
        (LIVE.replace(HOST, b"") + LIVE, ["bad_request", 200]),
        (LIVE.replace(HOST, HOST * 2) + LIVE, ["bad_request", 200]),
        (post(ADA, b"Content-Type: text/plain") + LIVE, ["bad_request", 200]),
        (post(ADA, b"Content-Encoding: identity \t") + LIVE, [201, 200]),
        (LIVE.replace(b"1.1", b"1.0").replace(HOST, b"Expect: 100-continue\r\n"), [200]),
        (b"GET /students/1%2Fcourses HTTP/1.1\r\n" + HOST + b"\r\n", ["student_not_found"]),
        (b"GET /%68ealth/live HTTP/1.1\r\n" + HOST + b"\r\n", [200]),
        (LIVE.replace(b"/health", b"http://school/health") + LIVE, [200, 200]),
        (
            LIVE.replace(b"/health", b"HTTP://school:80/%68ealth").replace(b"live", b"live?x=/a://b/c"),
            ["invalid_query"],
        ),
        (LIVE.replace(b"/health/live", b"http://school") + LIVE, [200, 200]),
        (LIVE.replace(b"/health", b"http://school/health").replace(HOST, b"") + LIVE, ["bad_request", 200]),
        (LIVE.replace(b"/health", b"http:///health"), ["bad_request"]),
    ],
)
def test_what_is_a_request_is_answered(connect: Callable[[], socket.socket], sent: bytes, expected: list[Any]) -> None:
    """Each request has its answer, in order; what is said to be a body is read as one, whatever else the head says."""
    connection = connect()
    connection.sendall(sent)
    assert codes(answers(connection, len(expected))) == expected


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x16\x03\x01 hello\r\n\r\n", "bad_request"),
        (b"GET /health/live\r\n\r\n", "bad_request"),
        (LIVE.replace(b"1.1", b"2.0").replace(HOST, b""), "bad_request"),
        (post(ADA, b"Content-Length: 3"), "bad_request"),
        (post(ADA, b"Transfer-Encoding: chunked"), "bad_request"),
        (post(ADA, b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 3"), "bad_request"),
        (b"CONNECT school:80 HTTP/1.1\r\n" + HOST + b"\r\n", "bad_request"),
        (b"CONNECT /school HTTP/1.1\r\n" + HOST + b"\r\n", "bad_request"),
        (post(ADA, b"Connection: Upgrade", b"Upgrade: x", b"Transfer-Encoding: gzip"), "bad_request"),
        (b"GET /" + b"y" * MAX_HEAD + b" HTTP/1.1\r\n" + HOST + b"\r\n", "uri_too_long"),
        (b"GET /" + b"y" * 2 * MAX_HEAD, "uri_too_long"),
        (LIVE.replace(HOST, HOST + b"X: y\r\n" * MAX_FIELDS), "headers_too_large"),
        (LIVE.replace(HOST, HOST + b"X: " + b"y" * MAX_HEAD + b"\r\n"), "headers_too_large"),
        (LIVE.replace(HOST, HOST + b"X: " + b"y" * 2 * MAX_HEAD), "headers_too_large"),
        (chunked(ADA, trailers=b"X: y\r\n" * MAX_FIELDS), "headers_too_large"),
        (chunked(ADA).removesuffix(b"\r\n") + b"X: " + b"y" * 2 * MAX_HEAD, "headers_too_large"),
        (chunked().removesuffix(b"0\r\n\r\n") + b"1;" + b"y" * 2 * MAX_HEAD, "headers_too_large"),
    ],
)
def test_what_is_none_is_refused_behind_the_answers_that_are_due(
    connect: Callable[[], socket.socket], sent: bytes, code: str
) -> None:
    """Requests before it are answered first; then comes the refusal, and the connection ends."""
    connection = connect()
    connection.sendall(LIVE * 3 + sent)
    found = answers(connection)
    assert codes(found) == [200] * 3 + [code]
    assert found[-1][1]["connection"] == "close"


def test_a_body_may_come_byte_by_byte(connect: Callable[[], socket.socket]) -> None:
    """A chunk of one byte has more bytes around it than in it, and is no attack."""
    connection = connect()
    body = b'{"name": "%s"}' % (b"a" * 200)
    connection.sendall(chunked(*(body[at : at + 1] for at in range(len(body)))))
    assert codes(answers(connection, 1)) == [201]


@pytest.mark.parametrize("sent", [b"", b"GET /stud", LIVE, LIVE + b"GET", post(length=99), chunked(ADA)[:-9]])
def test_who_does_not_go_on_is_not_waited_for(connect: Callable[[], socket.socket], sent: bytes) -> None:
    """A head, a body, or the next request that does not come in time ends the connection; what began is told so."""
    connection, began = connect(), time.monotonic()
    connection.sendall(sent)
    found = codes(answers(connection))
    assert time.monotonic() - began < 4
    assert found == [200] * sent.startswith(LIVE) + ["request_timeout"] * (sent not in (b"", LIVE))


@pytest.mark.long
def test_a_body_that_trickles_is_not_waited_for(connect: Callable[[], socket.socket]) -> None:
    """A byte now and then is progress, but not enough."""
    connection, began = connect(), time.monotonic()
    connection.sendall(post(length=1000))
    connection.settimeout(0.2)
    found = b""
    while time.monotonic() - began < 8 and b"request_timeout" not in found:
        try:
            connection.sendall(b" ")
            found += connection.recv(4096)
        except TimeoutError:
            continue
    assert b"request_timeout" in found
    assert time.monotonic() - began < 5


@pytest.mark.long
def test_a_client_that_does_not_read_is_cut_off(settings: Settings, path: Path) -> None:
    """Its requests are not read either, so that it holds little; when it has not read for long, it is cut off."""
    with closing(service.connect(path)) as db, db.atomic():
        for _ in range(1000):
            students.insert_student(db, "A" * 200)
    with talking(settings) as (server, connect):
        connection = connect()
        connection.settimeout(1)
        page = LIVE.replace(b"/health/live", b"/students?limit=1000")
        assert sent_until_the_end(connection, page * 1000, 2**26) < 2**25
        until = time.monotonic() + settings.answer_timeout + 5
        while server.server_state.connections:
            assert time.monotonic() < until
            time.sleep(0.01)


def sent_until_the_end(connection: socket.socket, data: bytes, most: int) -> int:
    """Send for as long as it is taken; give how many bytes were."""
    sent = 0
    with suppress(TimeoutError, ConnectionError):
        while sent < most:
            sent += connection.send(data)
    return sent


def test_one_that_waits_longest_gives_way(path: Path) -> None:
    """One connection too many closes one that never asked, or else the idlest; if all are at work, it gets 503."""
    settings = Settings(database_url=str(path), port=0, max_connections=3)
    entered, go_on = threading.Event(), threading.Event()
    app = create_app(settings)

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") == "/slow":
            entered.set()
            await asyncio.to_thread(go_on.wait, 10)
            scope = {**scope, "path": "/health/live"}
        await app(scope, receive, send)

    with talking(settings, slow) as (_, connect):
        idle, silent, busy = connect(), connect(), connect()
        idle.sendall(LIVE)
        assert codes(answers(idle, 1)) == [200]
        busy.sendall(LIVE.replace(b"/health/live", b"/slow"))
        entered.wait(5)
        others = []
        for _ in range(3):
            others.append(connect())
            if len(others) < 3:
                others[-1].sendall(LIVE.replace(b"/health/live", b"/slow"))
                time.sleep(0.3)
        assert silent.recv(1) == b""
        assert idle.recv(1) == b""
        assert codes(answers(others[2])) == ["busy"]
        go_on.set()
        for each in (busy, *others[:2]):
            assert codes(answers(each, 1)) == [200]


@pytest.fixture
def slow(settings: Settings) -> Iterator[tuple[Any, Callable[[], socket.socket], threading.Event, threading.Event]]:
    """Give a server whose application answers when it is told to: also when it has begun, and when it may go on."""
    entered, go_on = threading.Event(), threading.Event()
    app = create_app(settings)

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            entered.set()
            await asyncio.to_thread(go_on.wait, 10)
        await app(scope, receive, send)

    with talking(settings, slow) as (server, connect):
        yield server, connect, entered, go_on
        go_on.set()


def test_a_client_that_is_gone_is_not_answered(slow: Any) -> None:
    """What the application sends for a client that has gone meanwhile is dropped, and the next client is served."""
    server, connect, entered, go_on = slow
    connection = connect()
    connection.sendall(LIVE)
    assert entered.wait(5)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    while server.server_state.connections:
        time.sleep(0.01)
    go_on.set()
    other = connect()
    other.sendall(LIVE)
    assert codes(answers(other, 1)) == [200]


@pytest.mark.long
def test_half_a_request_behind_one_that_takes_long(slow: Any, settings: Settings) -> None:
    """A client that ended in the middle of its next request gets the answers that are due, and no refusal."""
    _, connect, entered, go_on = slow
    connection = connect()
    connection.sendall(LIVE + b"GET /stu")
    connection.shutdown(socket.SHUT_WR)
    assert entered.wait(5)
    time.sleep(settings.head_timeout + 1)
    go_on.set()
    assert codes(answers(connection)) == [200]


def test_a_refusal_that_is_due_while_the_server_stops(slow: Any) -> None:
    """What came before the stop is still answered and refused; a client that only lingers keeps nobody waiting."""
    server, connect, entered, go_on = slow
    lingering, connection = connect(), connect()
    lingering.sendall(b"nonsense\r\n\r\n")
    assert codes(answers(lingering)) == ["bad_request"]
    connection.sendall(LIVE + b"nonsense\r\n\r\n")
    assert entered.wait(5)
    server.should_exit = True
    time.sleep(0.5)
    go_on.set()
    assert codes(answers(connection)) == [200, "bad_request"]


def test_the_bodies_that_are_held_have_a_bound(path: Path) -> None:
    """Bodies that are not complete yet take so much memory in all; one that would take more is refused."""
    settings = Settings(database_url=str(path), port=0, max_held_bytes=2**22)
    with talking(settings) as (server, connect):
        held = [connect() for _ in range(5)]
        for number, each in enumerate(held):
            while server._connections.held < number * 900_000:  # noqa: SLF001
                time.sleep(0.01)
            each.sendall(post(b" " * 900_000, length=2**20))
        (found,) = answers(held[-1])
        assert codes([found]) == ["busy"]
        for each in held[:4]:
            each.sendall(b" " * (2**20 - 900_000))
            assert codes(answers(each, 1)) == ["malformed_json"]
        connection = connect()
        connection.sendall(post())
        assert codes(answers(connection, 1)) == [201]
        assert server._connections.held == 0  # noqa: SLF001


def test_a_refusal_in_the_midst_of_an_upload_can_be_read(connect: Callable[[], socket.socket]) -> None:
    """A client that sends a body to its end before it reads still gets the answer, and not a reset."""
    connection = connect()
    body = b" " * (MAX_LINGER // 4)
    connection.sendall(post(body))
    assert codes(answers(connection)) == ["payload_too_large"]


def test_who_ends_in_the_midst_of_an_upload_that_is_answered_already(
    connect: Callable[[], socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    """A client that gives up its body once it has read the answer is no defect, and nothing is logged of it."""
    connection = connect()
    connection.sendall(LIVE.replace(HOST, HOST + b"Content-Length: 9\r\n"))
    assert codes(answers(connection)) == [200]
    connection.shutdown(socket.SHUT_WR)
    other = connect()
    other.sendall(LIVE)
    assert codes(answers(other, 1)) == [200]
    assert caplog.text == ""


@pytest.mark.long
def test_what_comes_behind_a_refusal_is_not_read_for_ever(connect: Callable[[], socket.socket]) -> None:
    """Whoever goes on sending is cut off."""
    connection = connect()
    connection.sendall(b"nonsense\r\n\r\n")
    assert sent_until_the_end(connection, b"x" * 2**16, MAX_LINGER * 4) < MAX_LINGER * 2
    other, began = connect(), time.monotonic()
    other.sendall(b"nonsense\r\n\r\n")
    assert codes(answers(other)) == ["bad_request"]
    with suppress(ConnectionError):
        while time.monotonic() - began < LINGER_SECONDS + 5:
            other.sendall(b"x")
            time.sleep(0.1)
    assert LINGER_SECONDS - 1 < time.monotonic() - began < LINGER_SECONDS + 3


@pytest.mark.parametrize("sent", [post(), LIVE * 3, LIVE + post(), post()[:-3], b"GET /stu"])
def test_a_client_that_has_no_more_to_send_is_answered(connect: Callable[[], socket.socket], sent: bytes) -> None:
    """Who closes the sending side gets an answer to each whole request, and no other."""
    connection = connect()
    connection.sendall(sent)
    connection.shutdown(socket.SHUT_WR)
    whole = {post(): [201], LIVE * 3: [200] * 3, LIVE + post(): [200, 201]}
    assert codes(answers(connection)) == whole.get(sent, [])


def test_an_answer_in_parts(settings: Settings) -> None:
    """An application may send a body in parts, with or without its length, and a client of HTTP/1.0 may get it.

    What is written straight to the transport, where there are chunks, comes where it was written.
    """

    async def parts(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await create_app(settings)(scope, receive, send)
            return
        sized = [(b"content-length", b"6")] if scope["path"] == "/sized" else []
        await send({"type": "http.response.start", "status": 200, "headers": sized})
        for part in (b"abc", b"", b"def"):
            await send({"type": "http.response.body", "body": part, "more_body": part != b"def"})
            transport = cast("Any", send).__self__.chunk_transport()
            if transport is not None and not part:
                transport.write(b"1\r\n-\r\n")
        with pytest.raises(RuntimeError):
            await send({"type": "http.response.body", "body": b"more"})

    with talking(settings, parts) as (_, connect):
        for version, path, end in (
            (b"1.1", b"/", b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\n-\r\n3\r\ndef\r\n0\r\n\r\n"),
            (b"1.1", b"/sized", b"content-length: 6\r\n\r\nabcdef"),
            (b"1.0", b"/", b"connection: close\r\n\r\nabcdef"),
        ):
            connection, found = connect(), b""
            connection.sendall(LIVE.replace(b"/health/live", path).replace(b"1.1", version))
            while not found.endswith(end):
                more = connection.recv(4096)
                assert more, found
                found += more
        connection = connect()
        connection.sendall(LIVE.replace(b"GET", b"HEAD"))
        assert connection.recv(4096).endswith(b"transfer-encoding: chunked\r\n\r\n")


@pytest.mark.parametrize("how", ["raises", "is silent", "stops half way"])
def test_an_application_that_fails(settings: Settings, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """What fails before its answer is 500; an answer that stops half way is cut off, and does not seem whole."""

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await create_app(settings)(scope, receive, send)
        elif how == "raises":
            raise ZeroDivisionError
        elif how == "stops half way":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"abc", "more_body": True})

    with talking(settings, failing) as (_, connect):
        connection = connect()
        connection.sendall(LIVE)
        found = b""
        try:
            while more := connection.recv(4096):
                found += more
        except ConnectionError:
            assert how == "stops half way"
        assert found.startswith(b"HTTP/1.1 500 ") == (how != "stops half way")
        assert not found.endswith(b"0\r\n\r\n")
    assert ("ZeroDivisionError" in caplog.text) == (how == "raises")


@pytest.mark.long
def test_what_is_refused_is_logged_once_a_second(
    connect: Callable[[], socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    """A flood of one kind is one line a second, which counts the others; another kind has a line of its own."""
    caplog.set_level(logging.INFO)
    bytes_, host = (
        "A client was refused: The bytes that came are no",
        "A client was refused: A request in HTTP/1.1 names",
    )
    flood = {bytes_: b"nonsense\r\n\r\n", host: LIVE.replace(HOST, b"Connection: close\r\n")}
    sent = dict.fromkeys(flood, 0)

    def send(*kinds: str) -> None:
        for kind in kinds:
            connection = connect()
            connection.sendall(flood[kind])
            assert codes(answers(connection)) == ["bad_request"]
            sent[kind] += 1

    time.sleep(SECONDS)
    send(bytes_, host)  # These tell of what other tests have sent.
    caplog.clear()
    until = time.monotonic() + 2 * SECONDS
    while time.monotonic() < until:
        send(bytes_)
        time.sleep(0.01)
    send(host)
    time.sleep(SECONDS)
    send(bytes_, host)
    lines = [record.getMessage() for record in caplog.records]
    for kind, most in (bytes_, 4), (host, 2):
        ours = [line for line in lines if line.startswith(kind)]
        told = sum(int(found[1]) for line in ours if (found := re.search(r"\(And (\d+) more since", line)))
        assert 0 < len(ours) <= most
        assert len(ours) + told == sent[kind] - 1
    assert sent[bytes_] > 20


AGREED = [
    LIVE,
    LIVE.replace(b"GET", b"HEAD"),
    LIVE.replace(b"GET", b"OPTIONS"),
    LIVE.replace(b"GET", b"PATCH"),
    LIVE.replace(b"/health/live", b"/nothing"),
    LIVE.replace(b"/health/live", b"/students?limit=0"),
    LIVE.replace(b"/health/live", b"/%C3%A9"),
    LIVE.replace(HOST, HOST + b"Connection: close\r\n"),
    LIVE.replace(b"1.1", b"1.0"),
    post(),
    post(b"{"),
    chunked(ADA[:4], ADA[4:]),
    post(ADA, b"Expect: 100-continue"),
]


@pytest.mark.long
def test_it_agrees_with_uvicorn_s_own(tmp_path: Path, path: Path) -> None:
    """Ordinary requests get the same status, header fields and body from uvicorn's own protocol."""
    found: list[list[Any]] = []
    for number in range(2):
        copy = tmp_path / f"{number}.db"
        copy.write_bytes(path.read_bytes())
        settings = Settings(database_url=str(copy), port=0)
        server: Any = http_server.Server(create_app(settings), settings)
        if number:
            server = uvicorn.Server(
                uvicorn.Config(
                    create_app(settings),
                    port=0,
                    http="httptools",
                    log_level="error",
                    server_header=False,
                    date_header=True,
                )
            )
        with running(server):
            where = server.servers[0].sockets[0].getsockname()
            replies = []
            for sent in AGREED:
                with socket.create_connection(where, timeout=10) as connection:
                    connection.sendall(sent)
                    connection.settimeout(0.3)
                    data = b""
                    try:
                        while more := connection.recv(2**16):
                            data += more
                    except TimeoutError:
                        pass
                replies.append(re.sub(rb"(date|x-request-id): [^\r]*", rb"\1", data))
            found.append(replies)
        gc.unfreeze()
    for sent, ours, theirs in zip(AGREED, *found, strict=True):
        assert sorted(ours.split(b"\r\n")) == sorted(theirs.split(b"\r\n")), sent


def test_few_file_descriptors(path: Path) -> None:
    """Where a process may open 100 files, 64 are kept for the database, which goes on through a flood of clients."""
    limited = ["sh", "-c", 'ulimit -n 100; exec "$@"', "sh"]
    with ExitStack() as stack, serving("--database-url", str(path), through=limited) as server:
        url = httpx2.URL(server.url)
        flood = [stack.enter_context(socket.create_connection((url.host, url.port), timeout=5)) for _ in range(300)]
        places = 100 - http_server.SPARE_FILES
        for gone in flood[:-places]:
            assert gone.recv(1) == b""
        for kept in flood[-places:]:
            kept.sendall(LIVE)
            assert codes(answers(kept, 1)) == [200]
        for _ in range(3):
            assert httpx2.post(f"{server.url}/students", json={"name": "Ada"}).status_code == 201
            assert httpx2.get(f"{server.url}/health/ready").status_code == 200


def test_more_file_descriptors(settings: Settings) -> None:
    """As many as all connections may need are asked for, and as many as are granted are used."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + http_server.SPARE_FILES
    granted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        assert http_server._places(settings) == granted - http_server.SPARE_FILES  # noqa: SLF001
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (granted, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Checked:
    """A connection that counts how often its deadlines are looked at."""

    checks = 0

    def check(self, _: float) -> None:
        """Be looked at."""
        self.checks += 1

    def give_way(self) -> None:
        """Never be asked to."""
        raise AssertionError


@pytest.mark.long
def test_nobody_is_looked_after_once_all_have_gone(settings: Settings) -> None:
    """The deadlines are looked at while a connection is open, then no more, and anew with the next connection."""
    connection = Checked()

    async def come_and_go() -> None:
        hub = Connections(settings, 10)
        for _ in range(2):
            assert hub.add(connection)
            hub.remove(connection)
            await asyncio.sleep(2 * SWEEP_SECONDS)

    asyncio.run(come_and_go())
    assert connection.checks == 2
