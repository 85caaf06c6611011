"""The clients: one for each case, and the canary, an ordinary one that has to be served well meanwhile."""

import http.client
import json
import select
import socket
import struct
import time
from contextlib import closing, suppress
from itertools import count
from typing import Any

from fuzz.cases import Case
from fuzz.checks import Broken
from fuzz.live import SETTINGS

PATIENCE = 20
"""Seconds after which a connection must have ended, whatever was sent on it."""
BOUND = 2.0
"""Seconds within which each request of the canary must be answered as it should be."""
PADDED = 20_000
"""How many bytes the canary's bodies have, so that it is refused as busy if memory for bodies is never given back."""
PIECE = 2**16


def talk(address: tuple[str, int], case: Case) -> tuple[bytes, bool]:
    """Do what a case says: give what came, and whether nothing of it can have got lost. Raises Broken."""
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if case.end == "is deaf":
            _send_deaf(connection, case)
            return b"", False
        try:
            return _talk(connection, case)
        finally:
            if case.end == "resets":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _talk(connection: socket.socket, case: Case) -> tuple[bytes, bool]:
    """Send and read at the same time: the server reads no further from who does not read its answers."""
    came, left = bytearray(), [memoryview(piece) for piece in case.pieces]
    until, whole = time.monotonic() + PATIENCE, True
    while time.monotonic() < until:
        readable, writable, _ = select.select([connection], [connection] if left else [], [], 1)
        try:
            if writable:
                left[0] = left[0][connection.send(left[0][:PIECE]) :]
                if not left[0]:
                    del left[0]
                    time.sleep(case.pause if left else 0)
                if not left and case.end == "ends":
                    connection.shutdown(socket.SHUT_WR)
            if not left and case.end == "resets":
                return bytes(came), False
        except OSError:  # The server has ended the connection; what it answered before can perhaps still be read.
            left, whole = [], False
        if readable:
            try:
                more = connection.recv(PIECE)
            except OSError:
                return bytes(came), False
            if not more:
                return bytes(came), whole
            came += more
    raise Broken(f"The connection has not ended after {PATIENCE} s; so far {bytes(came)!r} came.")


def _send_deaf(connection: socket.socket, case: Case) -> None:
    connection.settimeout(float(SETTINGS["ANSWER_TIMEOUT"]) + 1)
    with suppress(OSError):
        connection.sendall(case.sent)
        time.sleep(0.2 + 4 * case.pause)


class Canary:
    """A client that adds a student and a course, enrolls the student, and reads the schedule."""

    def __init__(self, address: tuple[str, int]) -> None:
        """Ask nothing yet."""
        self._address = address
        self._numbers = count(1)
        self.rounds = self.busy = 0
        self.slowest = 0.0

    def sing(self) -> None:
        """Ask once, on a connection of its own. Raises Broken."""
        name = f"Canary {next(self._numbers)}"
        try:
            with closing(http.client.HTTPConnection(*self._address, timeout=BOUND)) as connection:
                student = self._ask(connection, "POST", "/students", {"name": name})["id"]
                course = self._ask(connection, "POST", "/courses", {"name": name, "level": "A1"})["id"]
                self._ask(connection, "POST", f"/students/{student}/courses", {"course_id": course})
                (row,) = self._ask(connection, "GET", f"/students/{student}/courses")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Broken(f"The canary was not answered: {error!r}.") from error
        self.rounds += 1
        if (row["id"], row["name"], row["status"]) != (course, name, "enrolled"):
            raise Broken(f"The canary was answered wrong: {row}.")

    def _ask(self, connection: http.client.HTTPConnection, method: str, path: str, value: object = None) -> Any:
        """Send a request, and once more as long as the service is busy, as its answer asks for."""
        began = time.monotonic()
        while True:
            body = None if value is None else json.dumps(value).ljust(PADDED)
            connection.request(method, path, body, {"Host": "school", "Content-Type": "application/json"})
            answer = connection.getresponse()
            told = json.loads(answer.read())
            took = time.monotonic() - began
            self.slowest = max(self.slowest, took)
            right = answer.status == (200 if value is None else 201)
            if took > BOUND or not (right or told.get("code") == "busy"):
                raise Broken(f"The canary was answered {answer.status} after {took:.1f} s: {told}.")
            if right:
                return told
            self.busy += 1
            time.sleep(0.01)
