"""The server on the wire: what leaves it in one piece, and what must not wait."""

import asyncio
import gc
import math
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.types import Receive, Scope, Send

from service import Settings, connect, create_app, students
from service.errors import SetupError
from service.http.server import Server, taking_port

HEAD = "Host: school\r\nContent-Type: application/json\r\n"
GET = f"GET /students HTTP/1.1\r\n{HEAD}\r\n".encode()
ADA = b'{"name": "Ada"}'
POST_ADA = f"POST /students HTTP/1.1\r\n{HEAD}Content-Length: {len(ADA)}\r\n\r\n".encode() + ADA


@pytest.fixture
def server(path: Path) -> Server:
    """Give a server that does not run yet."""
    settings = Settings(database_url=str(path), port=0)
    return Server(create_app(settings), settings)


@contextmanager
def running(server: Server, sockets: list[socket.socket] | None = None) -> Iterator[None]:
    """Run a server in a thread until the block ends, and see it end well."""
    thread = threading.Thread(target=server.run, args=[sockets])
    thread.start()
    try:
        while thread.is_alive() and not server.started:
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join(10)
        gc.unfreeze()
    assert not thread.is_alive()


@pytest.fixture
def connection(server: Server) -> Iterator[socket.socket]:
    """Give a connection to a server that runs; who waits on it for over 5 s fails."""
    with running(server), socket.create_connection(server.servers[0].sockets[0].getsockname(), timeout=5) as connection:
        yield connection


def test_another_that_listens_first(server: Server) -> None:
    """Two can take a port while neither listens; who listens last is told that it is in use, and ends in good order."""
    with taking_port(Settings(port=0)) as (first,), taking_port(Settings(port=first.getsockname()[1])) as sockets:
        first.listen()
        with pytest.raises(SetupError, match=r"address already in use\. Choose another port with --port"):
            server.run(sockets)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0"])  # noqa: S104
def test_every_address_of_a_host_is_listened_to(path: Path, host: str) -> None:
    """A name may have an address of each kind: all of them get the one port, and each answers on it."""
    settings = Settings(database_url=str(path), host=host, port=0)
    if host == "::1":
        try:
            socket.create_server((host, 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("This machine has no IPv6.")
    with taking_port(settings) as sockets:
        server = Server(create_app(settings), settings)
        with running(server, sockets):
            assert len({listening.getsockname()[1] for listening in sockets}) == 1
            for listening in sockets:
                where = listening.getsockname()
                with socket.create_connection(where[:2], timeout=5) as connection:
                    connection.sendall(GET)
                    assert connection.recv(65536).endswith(b"\r\n\r\n[]")


def test_an_answer_that_is_not_taken_yet_is_waited_for(
    server: Server, connection: socket.socket, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a client has not read of its answer counts as a request under way, and is not lost."""
    db = connect(path)
    with db.atomic():
        for _ in range(1000):
            students.insert_student(db, "A" * 200)
    db.close()
    protocol, asked = protocol_of(server, connection), 0
    while not protocol.transport.get_write_buffer_size():
        connection.sendall(GET.replace(b"/students", b"/students?limit=1000"))
        asked += 1
        while server.server_state.total_requests <= asked:  # The first one was protocol_of's.
            time.sleep(0.01)
    capsys.readouterr()
    server.should_exit = True
    while not (said := capsys.readouterr().err):
        time.sleep(0.01)
    answers = b"".join(iter(lambda: connection.recv(2**20), b""))
    assert said == "Waiting up to 30 s for 1 request to end. Press Ctrl+C again to quit now.\n"
    assert answers.count(b"HTTP/1.1 200 OK") == asked
    assert answers.endswith(b'"email":null}]')


def test_what_takes_too_long_is_cut_off(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """After its time of grace the server ends, whatever still waits or works, and says so without a traceback."""
    monkeypatch.setattr("service.http.server.GRACE", 0.3)
    settings = Settings(database_url=str(path), port=0)
    app = create_app(settings)

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/endless":
            await asyncio.Event().wait()
        await app(scope, receive, send)

    server = Server(endless, settings)
    with ExitStack() as stack:
        with running(server):
            where = server.servers[0].sockets[0].getsockname()
            unsent, unanswered = (stack.enter_context(socket.create_connection(where, timeout=5)) for _ in range(2))
            unsent.sendall(POST_ADA.removesuffix(ADA))
            unanswered.sendall(GET.replace(b"/students", b"/endless"))
            while len(server.server_state.tasks) < 2:
                time.sleep(0.01)
        for connection in unsent, unanswered:
            with suppress(ConnectionResetError):
                assert connection.recv(65536) == b""
    assert capsys.readouterr().err.splitlines() == [
        "Waiting up to 0.3 s for 2 requests to end. Press Ctrl+C again to quit now.",
        "Cutting off what has not ended within 0.3 s.",
    ]
    assert caplog.text == ""


@pytest.mark.long
def test_idle_connections_are_kept(connection: socket.socket) -> None:
    """Unless it is told otherwise the server keeps them longer than the 5 seconds that uvicorn would."""
    assert Settings().keep_alive == 75
    connection.sendall(GET)
    assert connection.recv(65536).endswith(b"\r\n\r\n[]")
    time.sleep(5.5)
    connection.sendall(GET)
    assert connection.recv(65536).endswith(b"\r\n\r\n[]")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts the segments that came.")
def test_an_answer_leaves_in_one_piece(connection: socket.socket) -> None:
    """Head and body are one write, and one TCP segment."""
    for number in range(1, 21):
        connection.sendall(GET)
        assert connection.recv(65536).endswith(b"\r\n\r\n[]")
        # struct tcp_info in linux/tcp.h
        (came,) = struct.unpack_from("I", connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 152)
        assert came == number


def test_an_answer_without_a_body_is_not_held_back(connection: socket.socket) -> None:
    """HEAD, 204 and an answer that ends the connection come at once, too."""
    connection.sendall(GET.replace(b"GET", b"HEAD"))
    assert connection.recv(65536).endswith(b"content-length: 2\r\n\r\n")
    connection.sendall(GET.replace(b"GET", b"OPTIONS"))
    assert connection.recv(65536).startswith(b"HTTP/1.1 204 No Content\r\n")
    connection.sendall(GET.replace(b"Host", b"Connection: close\r\nHost"))
    assert connection.recv(65536).endswith(b"\r\n\r\n[]")
    assert connection.recv(65536) == b""


def test_requests_that_come_at_once_are_answered_in_order(connection: socket.socket) -> None:
    """Pipelined requests (RFC 9112, section 9.3.2) get an answer each."""
    connection.sendall(GET + POST_ADA + GET)
    answers = b""
    while not answers.endswith(b'"email":null}]'):
        answers += connection.recv(65536)
    assert [line.split()[1] for line in answers.split(b"\r\n") if b"HTTP/1.1" in line] == [b"200", b"201", b"200"]


def test_a_client_that_asks_first_is_told_to_go_on(connection: socket.socket) -> None:
    """100 Continue (RFC 9110, section 10.1.1) does not wait for the answer, which waits for the body."""
    head = f"POST /students HTTP/1.1\r\n{HEAD}Content-Length: {len(ADA)}\r\nExpect: 100-continue\r\n\r\n"
    connection.sendall(head.encode())
    assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(ADA)
    assert connection.recv(65536).startswith(b"HTTP/1.1 201 Created\r\n")


def test_a_client_that_has_no_more_to_ask_is_answered(server: Server, connection: socket.socket) -> None:
    """One that closes its side behind the request, as `nc -N` does, still gets the answer to a read."""
    follow_up(server, connection, lambda _: connection.shutdown(socket.SHUT_WR))  # Found before the answer is sent.
    connection.sendall(GET)
    assert connection.recv(65536).endswith(b"\r\n\r\n[]")
    assert connection.recv(65536) == b""


def test_an_answer_is_not_lost_when_the_server_stops_in_the_same_turn(
    server: Server, connection: socket.socket
) -> None:
    """What waits to be sent is sent before the connection is closed."""
    follow_up(server, connection, lambda protocol: protocol.shutdown())
    connection.sendall(GET)
    assert connection.recv(65536).endswith(b"\r\n\r\n[]")
    assert connection.recv(65536) == b""


@pytest.mark.usefixtures("connection")
def test_a_full_collection_leaves_out_what_was_loaded() -> None:
    """The garbage collector goes through what came after the start: the modules are not among it."""
    everything = gc.get_freeze_count() + len(gc.get_objects())
    assert len(gc.get_objects()) < everything / 2


def test_what_is_not_http_is_refused(connection: socket.socket) -> None:
    """The server's own refusal is sent before it closes the connection."""
    connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
    assert connection.recv(65536).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert connection.recv(65536) == b""


def test_a_refusal_does_not_overtake_an_answer(server: Server, connection: socket.socket) -> None:
    """What is not HTTP may come while the answer to the request before it waits to be sent."""
    follow_up(server, connection, lambda protocol: protocol.data_received(b"\x16\x03\x01 hello\r\n\r\n"))
    connection.sendall(GET)
    answers = b""
    while more := connection.recv(65536):
        answers += more
    assert re.findall(rb"HTTP/1\.1 (\d+) ", answers) == [b"200", b"400"]


def test_the_answers_of_a_turn_reach_each_its_own(server: Server, connection: socket.socket, path: Path) -> None:
    """Requests that come while the event loop is busy are answered in one turn; a client that goes harms nobody."""
    db = connect(path)
    for number in range(8):
        students.insert_student(db, f"Student {number}")
    db.close()
    protocol = protocol_of(server, connection)
    app = protocol.app

    async def left(scope: Scope, receive: Receive, send: Send) -> None:
        protocol.transport.abort()
        await app(scope, receive, send)

    protocol.app = left
    others = [socket.create_connection(connection.getpeername(), timeout=5) for _ in range(8)]
    while len(server.server_state.connections) < 9:
        time.sleep(0.01)
    busy = threading.Event()
    server.servers[0].get_loop().call_soon_threadsafe(busy.wait, 5)
    connection.sendall(GET)
    for number, other in enumerate(others, 1):
        other.sendall(GET.replace(b"/students", f"/students/{number}".encode()))
    busy.set()
    for other in others:
        with other:
            assert other.recv(65536).endswith(b'"email":null}')
    assert connection.recv(65536) == b""


def test_a_client_that_does_not_read_holds_up_itself_alone(
    server: Server, connection: socket.socket, path: Path
) -> None:
    """What it asks for is not made before there is room to send it, and comes whole once it reads."""
    protocol = protocol_of(server, connection)
    db = connect(path)
    with db.atomic():
        for _ in range(1000):
            students.insert_student(db, "A" * 200)
    db.close()
    many = 120
    asking = threading.Thread(
        target=connection.sendall, args=(GET.replace(b"/students", b"/students?limit=1000") * many,)
    )
    asking.start()
    time.sleep(0.5)
    with socket.create_connection(connection.getpeername(), timeout=5) as other:
        other.sendall(GET.replace(b"/students", b"/students/1"))
        assert other.recv(65536).endswith(b'"email":null}')
    assert protocol.transport.get_write_buffer_size() < 2**20
    with connection.makefile("rb") as answers:
        for _ in range(many):
            head = b"".join(iter(answers.readline, b"\r\n"))
            body = answers.read(int(head.partition(b"content-length: ")[2].split()[0]))
            assert len(body) > 200_000
            assert body.endswith(b'"email":null}]')
    asking.join()


def protocol_of(server: Server, connection: socket.socket) -> Any:
    """Give the server's side of the only connection."""
    connection.sendall(GET)
    assert connection.recv(65536)
    (protocol,) = cast("set[Any]", server.server_state.connections)
    return protocol


def follow_up(server: Server, connection: socket.socket, act: Callable[[Any], None]) -> None:
    """Let something happen to the connection in the turn that answers its next request, right behind the answer."""
    protocol = protocol_of(server, connection)
    app = protocol.app

    async def acting(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)
        act(protocol)

    protocol.app = acting


def test_an_answer_is_not_lost_when_the_connection_is_idle_too_long(server: Server, connection: socket.socket) -> None:
    """A loop that stalls behind an answer may find the keep-alive timeout over before the answer is sent."""
    follow_up(server, connection, lambda protocol: protocol.check(math.inf))
    connection.sendall(GET)
    assert connection.recv(65536).endswith(b"\r\n\r\n[]")
    assert connection.recv(65536) == b""


@pytest.mark.parametrize(("method", "body"), [(b"GET", b"Internal Server Error"), (b"HEAD", b"")])
def test_a_request_that_is_cut_short_is_answered(
    server: Server, connection: socket.socket, method: bytes, body: bytes
) -> None:
    """The server's own 500 is whole, and ends the connection."""

    async def cut_short(_: Scope, __: Receive, ___: Send) -> None:
        raise asyncio.CancelledError

    protocol_of(server, connection).app = cut_short
    connection.sendall(GET.replace(b"GET", method))
    head, _, rest = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert head.count(b"connection: close") == 1
    assert rest == body
