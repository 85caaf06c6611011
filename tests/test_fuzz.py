"""The fuzz: it finds what is broken, and tells how to see it again; the same seed makes the same cases."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from fuzz import __main__ as fuzz
from fuzz import clients, live
from fuzz.cases import Case, make
from fuzz.checks import Broken, judge, most_requests
from fuzz.values import Asked

from service.http.api import API
from service.http.exchange import written

LIVE = b"GET /health/live HTTP/1.1\r\nHost: school\r\n\r\n"
OPERATION = API["/health/live"]["GET"]
FIELDS = {
    b"date": b"now",
    b"content-type": b"application/json",
    b"cache-control": b"no-store",
    b"x-content-type-options": b"nosniff",
    b"cross-origin-resource-policy": b"same-origin",
}


def answer(
    status: int = 200, body: bytes = b"{}", *, close: bool = False, length: int | None = None, **more: str
) -> bytes:
    """Write an answer as the service does; `more` are other values of header fields, and an empty one is left out."""
    kind = b"application/json" if status < 400 else b"application/problem+json"
    size = b"%d" % (len(body) if length is None else length)
    changed = {name.replace("_", "-").encode(): value.encode() for name, value in more.items()}
    fields = {**FIELDS, b"content-type": kind, b"content-length": size, **changed}
    return written(status, [field for field in fields.items() if field[1]], body, close=close)


def problem(status: int, code: str, *, close: bool = False, retry_after: str = "") -> bytes:
    """Write a refusal."""
    return answer(
        status, b'{"code": "%s", "status": %d}' % (code.encode(), status), close=close, retry_after=retry_after
    )


def sending(*pieces: bytes, asked: int = 0) -> Case:
    """Make a case that sends this, and asks so often for the health of the service if its requests are known."""
    return Case(0, pieces, 0, "ends", [Asked("GET", OPERATION)] * asked if asked else None)


@pytest.mark.parametrize(
    ("case", "came", "statuses"),
    [
        (sending(LIVE, LIVE, asked=2), answer() * 2, [200, 200]),
        (sending(LIVE), problem(400, "bad_request", close=True), [400]),
        (sending(LIVE.replace(b"GET", b"HEAD")), answer(body=b"", length=2), [200]),
        (sending(LIVE.replace(b"GET", b"HEAD") + LIVE), answer(body=b"", length=2) + answer(), [200, 200]),
        (sending(LIVE), b"HTTP/1.1 100 Continue\r\n\r\n" + answer(204, b"", content_type="", content_length=""), [204]),
        (sending(LIVE), problem(503, "busy", retry_after="1"), [503]),
        (sending(LIVE, LIVE), b"", []),
    ],
)
def test_what_holds(case: Case, came: bytes, statuses: list[int]) -> None:
    """What the service promises is nothing to complain of."""
    assert [each.status for each in judge(case, came, whole=True)] == statuses


@pytest.mark.parametrize(
    ("case", "came", "why"),
    [
        (sending(LIVE), problem(500, "internal_error"), "has the status 500"),
        (sending(LIVE), problem(503, "storage_unavailable", retry_after="1"), "a code that"),
        (sending(LIVE), problem(404, "course_full"), "a code that"),
        (sending(LIVE), problem(404, "nothing"), "a code that"),
        (sending(LIVE), problem(503, "busy"), "Retry-After"),
        (sending(LIVE), answer(302), "has the status 302"),
        (sending(LIVE), answer(x_content_type_options=""), "x-content-type-options"),
        (sending(LIVE), answer(cache_control="public"), "cache-control"),
        (sending(LIVE), answer(date=""), "date"),
        (sending(LIVE), answer(content_type="text/html"), "content type"),
        (sending(LIVE), answer(body=b"<p>"), "not JSON"),
        (sending(LIVE), answer(length=3), "cut off"),
        (sending(LIVE), answer(body=b"{}{}", length=2), "cut off"),
        (sending(LIVE), answer().replace(b"HTTP/1.1", b"HTTP/1.0"), "another version"),
        (sending(LIVE), answer(content_length="x"), "not HTTP/1.1"),
        (sending(LIVE), answer(x="a\0b"), "not HTTP/1.1"),
        (sending(LIVE, LIVE), answer(close=True) + answer(), "there is more"),
        (sending(LIVE), answer() * 2, "2 answers to 1 requests"),
        (sending(b"GET /health/live\r\n\r\n"), answer(close=True), "1 answers to 0 requests"),
        (sending(LIVE, LIVE, asked=2), answer(), "2 requests got 1 answers"),
        (sending(LIVE, asked=1), answer(201), "does not declare 201"),
        (sending(LIVE, asked=1), problem(404, "student_not_found"), "does not declare student_not_found"),
    ],
)
def test_what_does_not_hold(case: Case, came: bytes, why: str) -> None:
    """Whatever is wrong with an answer, or with how many there are, it is found."""
    with pytest.raises(Broken, match=why):
        judge(case, came, whole=True)


@pytest.mark.parametrize(
    ("sent", "requests"),
    [
        (b"", 0),
        (LIVE * 3 + LIVE[:-2], 3),
        (LIVE.replace(b"\r\n\r\n", b"\r\nContent-Length: 99\r\n\r\n") + LIVE, 1),
        (LIVE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + LIVE, 1),
        (LIVE.replace(b"Host", b"Ho st") + LIVE, 2),
    ],
)
def test_requests_are_counted_as_another_parser_reads_them(sent: bytes, requests: int) -> None:
    """What is in a body, or behind the last request, is none; where the other parser gives up, each may be one."""
    assert most_requests(sent) == requests


def test_the_same_seed_makes_the_same_cases() -> None:
    """A case is made of its seed and its number alone, and the cases reach every operation."""
    cases = [make(7, number) for number in range(500)]
    assert [make(7, number) for number in range(499, -1, -1)] == cases[::-1]
    assert make(8, 0) != cases[0]
    asked = {id(each.operation) for case in cases for each in case.asked or ()}
    assert asked >= {id(each) for methods in API.values() for each in methods.values()}


@contextmanager
def wrong(said: bytes) -> Iterator[Any]:
    """Run a server that gives everybody the same answer, in the place of the service."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(0.2)
                    with suppress(TimeoutError):
                        while connection.recv(2**16):
                            pass
                    connection.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield SimpleNamespace(
                address=listening.getsockname(), memory=1, peak=1, files=1, log=Path(os.devnull), check=bool
            )
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("said", [problem(500, "internal_error"), answer(length=9), b"nonsense"])
def test_a_wrong_server_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """The fuzz ends with 1, shows and keeps what it sent and what came, and says how to send it again."""
    monkeypatch.setattr(live, "serving", lambda: wrong(said))
    monkeypatch.setattr(clients.Canary, "sing", lambda _: None)
    monkeypatch.setattr(fuzz, "KEPT", tmp_path)
    cases = (make(7, number) for number in count())
    case = next(each for each in cases if each.end == "ends" and 0 < len(each.sent) < 1000)
    done = CliRunner().invoke(fuzz.main, ["--seed", "7", "--case", str(case.number)])
    assert done.exit_code == 1
    assert repr(said) in done.output
    assert repr(case.sent) in done.output
    assert f"make fuzz FUZZ='--seed 7 --case {case.number}'" in done.output
    assert (tmp_path / f"7-{case.number}.bin").read_bytes() == case.sent


def test_a_canary_without_an_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary client that is not served well ends the fuzz, too."""
    monkeypatch.setattr(live, "serving", lambda: wrong(problem(404, "not_found")))
    done = CliRunner().invoke(fuzz.main, ["--seconds", "1"])
    assert done.exit_code == 1
    assert "The canary was answered 404" in done.output


def test_an_unknown_argument_is_refused() -> None:
    """Nothing is sent where an option is misspelt."""
    assert CliRunner().invoke(fuzz.main, ["--second", "1"]).exit_code == 2
