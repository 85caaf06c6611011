"""The server on the wire: what leaves it in one piece, and what must not wait."""

import gc
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import Settings, create_app
from service.server import Server

HEAD = "Host: school\r\nContent-Type: application/json\r\n"
GET = f"GET /students HTTP/1.1\r\n{HEAD}\r\n".encode()
ADA = b'{"name": "Ada"}'


@pytest.fixture
def connection(path: Path) -> Iterator[socket.socket]:
    """Give a connection to a server that runs in a thread, and ends well; who waits on it for over 5 s fails."""
    settings = Settings(database_url=str(path), port=0)
    server = Server(create_app(settings), settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while thread.is_alive() and not server.started:
            time.sleep(0.01)
        where = server.servers[0].sockets[0].getsockname()
        with socket.create_connection(where, timeout=5) as connection:
            yield connection
    finally:
        server.should_exit = True
        thread.join(10)
        gc.unfreeze()
    assert not thread.is_alive()


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
    post = f"POST /students HTTP/1.1\r\n{HEAD}Content-Length: {len(ADA)}\r\n\r\n".encode() + ADA
    connection.sendall(GET + post + GET)
    answers = b""
    while not answers.endswith(b'[{"id":1,"name":"Ada"}]'):
        answers += connection.recv(65536)
    assert [line.split()[1] for line in answers.split(b"\r\n") if b"HTTP/1.1" in line] == [b"200", b"201", b"200"]


def test_a_client_that_asks_first_is_told_to_go_on(connection: socket.socket) -> None:
    """100 Continue (RFC 9110, section 10.1.1) does not wait for the answer, which waits for the body."""
    head = f"POST /students HTTP/1.1\r\n{HEAD}Content-Length: {len(ADA)}\r\nExpect: 100-continue\r\n\r\n"
    connection.sendall(head.encode())
    assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(ADA)
    assert connection.recv(65536).startswith(b"HTTP/1.1 201 Created\r\n")


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
