"""What a host puts around the service may change its answers: none fails, and no write that is kept is a 500."""

import gzip
import json
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copy
from typing import Any

import httpx2
import pytest
import uvicorn
from answers import ask, body
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.testclient import TestClient

from service import Settings, create_app


async def stamp(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Set a header, as what a host decorates with `@app.middleware("http")` does, and touch the session if any."""
    if "session" in request.scope:
        request.session["visits"] = request.session.get("visits", 0) + 1
    response = await call_next(request)
    response.headers["stamp"] = "yes"
    return response


STAMP = Middleware(BaseHTTPMiddleware, dispatch=stamp)
AROUND = {
    "gzip": [Middleware(GZipMiddleware, minimum_size=1)],
    "cors": [
        Middleware(CORSMiddleware, allow_origins=["http://host"], allow_methods=["*"], expose_headers=["location"])
    ],
    "trusted host": [Middleware(TrustedHostMiddleware, allowed_hosts=["school", "127.0.0.1"])],
    "session": [Middleware(SessionMiddleware, secret_key="secret"), STAMP],  # noqa: S106 - of a test.
    "http": [STAMP],
}
AROUND["all"] = [layer for layers in AROUND.values() for layer in layers]

HOSTS: dict[str, type[Starlette]] = {"Starlette": Starlette, "FastAPI": FastAPI}

ANSWERS: list[tuple[str, str, object, int]] = [
    ("POST", "/students", {"name": "Ada"}, 201),
    ("POST", "/courses", {"name": "Music", "level": "A1", "capacity": 1}, 201),
    ("PUT", "/students/1/courses/1", None, 201),
    ("POST", "/students/1/courses", {"course_id": 1}, 409),
    ("POST", "/students", {"name": ""}, 422),
    ("POST", "/enrollments", [{"student_id": 1, "course_id": 1}] * 50, 200),
    ("GET", "/students", None, 200),
    ("GET", "/students/1/courses?limit=1", None, 200),
    ("HEAD", "/students", None, 200),
    ("GET", "/nowhere", None, 404),
    ("PATCH", "/courses/1", {"capacity": 2}, 200),
    ("PUT", "/courses/1", None, 405),
    ("OPTIONS", "/courses/1", None, 204),
    ("DELETE", "/students/1/courses/1", None, 204),
    ("DELETE", "/students/1", None, 204),
]


def wrapped(path: Path, layers: list[Middleware], host: str) -> tuple[Any, str]:
    """Put layers, the outermost first, around the service in a host; give the whole, and the path to the service."""
    service = create_app(Settings(database_url=str(path)))
    program, at = (service, "") if host == "the app itself" else (HOSTS[host](), "/enrollment")
    for layer in reversed(layers):
        if layer is STAMP and isinstance(program, FastAPI):
            program.middleware("http")(stamp)
        else:
            program.add_middleware(layer.cls, *layer.args, **layer.kwargs)
    if at:
        program.mount(at, service)
    return program, at


def settled(answer: httpx2.Response) -> tuple[int, object, dict[str, str]]:
    """Give what the service tells in an answer: status, body and headers, but for the time and the length."""
    known = ("content-type", "location", "link", "allow", "accept-patch")
    content = re.sub(r"20\d\d-[\d:.T-]+Z", "TIME", answer.text)
    return answer.status_code, content, {name: answer.headers[name] for name in known if name in answer.headers}


def check_answers(client: httpx2.Client, at: str, layers: list[Middleware], path: Path) -> None:
    """Ask all there is to ask, and a twin without the layers too, which is on a copy of the file."""
    kinds: set[Any] = {layer.cls for layer in layers}
    added = {
        "stamp": BaseHTTPMiddleware,
        "access-control-allow-origin": CORSMiddleware,
        "set-cookie": SessionMiddleware,
        "content-encoding": GZipMiddleware,
    }
    service = create_app(Settings(database_url=str(copy(path, path.with_name("twin.db")))))
    with TestClient(Starlette(routes=[Mount(at, service)]) if at else service) as twin:
        for method, url, payload, status in ANSWERS:
            headers = {"origin": "http://host", "accept-encoding": "gzip"}
            answer = client.request(method, at + url, json=payload, headers=headers)
            assert answer.status_code == status
            assert settled(answer) == settled(twin.request(method, at + url, json=payload))
            for header, kind in added.items():
                if header != "content-encoding" or answer.content:
                    assert (header in answer.headers) == (kind in kinds), header
            if answer.content and "content-length" in answer.headers:
                assert int(answer.headers["content-length"]) == answer.num_bytes_downloaded


@pytest.mark.parametrize("host", ["the app itself", *HOSTS])
@pytest.mark.parametrize("layers", AROUND.values(), ids=AROUND)
def test_what_a_host_has_around_the_service(path: Path, layers: list[Middleware], host: str) -> None:
    """Behind each of Starlette's middlewares every answer is as it is without, and has what the middleware adds."""
    app, at = wrapped(path, layers, host)
    with TestClient(app, base_url="http://school") as client:
        check_answers(client, at, layers, path)


@contextmanager
def uvicorn_of(app: Any) -> Iterator[str]:
    """Serve an application in a thread of this process until the block ends, and give its URL."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.mark.parametrize("host", ["the app itself", *HOSTS])
def test_what_a_host_has_around_the_service_over_the_wire(path: Path, host: str) -> None:
    """So it is over HTTP, with uvicorn as a host runs it, and with all of them at once."""
    app, at = wrapped(path, AROUND["all"], host)
    with uvicorn_of(app) as url, httpx2.Client(base_url=url) as client:
        check_answers(client, at, AROUND["all"], path)


def test_a_preflight_is_the_hosts(path: Path) -> None:
    """A CORS preflight is answered by the host's middleware, and what it announces is then done."""
    app, at = wrapped(path, AROUND["cors"], "Starlette")
    with TestClient(app, base_url="http://school") as client:
        headers = {"origin": "http://host", "access-control-request-method": "POST"}
        assert client.options(f"{at}/students", headers=headers).status_code == 200
        assert client.post(f"{at}/students", json={"name": "Ada"}, headers=headers).status_code == 201


def test_a_stranger_of_a_host_is_refused_by_it(path: Path) -> None:
    """A host name that the middleware does not trust never comes to the service."""
    app, at = wrapped(path, AROUND["trusted host"], "Starlette")
    with TestClient(app, base_url="http://elsewhere") as client:
        assert client.post(f"{at}/students", json={"name": "Ada"}).status_code == 400
    with TestClient(app, base_url="http://school") as client:
        assert client.get(f"{at}/students").json() == []


def test_headers_are_as_asgi_has_them(client: TestClient) -> None:
    """The headers of every answer are a list of its own, of pairs of bytes, with names in lower case."""
    for method, url in (("GET", "/students"), ("HEAD", "/students"), ("OPTIONS", "/students"), ("GET", "/nowhere")):
        sent = [ask(client, method, url)[0]["headers"] for _ in range(2)]
        first, second = ([each for each in headers if each[0] != b"x-request-id"] for headers in sent)
        assert first == second
        assert sent[0] is not sent[1]
        for headers in sent:
            assert type(headers) is list
            assert all(type(part) is bytes for header in headers for part in header)
            assert all(name == name.lower() for name, _ in headers)
            assert (b"content-length" in dict(headers)) == (method != "OPTIONS")


def test_a_body_comes_through(path: Path) -> None:
    """A bulk of many chunks is read behind a middleware, and its answer is whole when it is compressed."""
    app, at = wrapped(path, [*AROUND["gzip"], STAMP], "Starlette")
    rows = [{"student_id": 1, "course_id": 1}] * 5000

    def chunks() -> Iterator[bytes]:
        content = json.dumps(rows).encode()
        for start in range(0, len(content), 10_000):
            yield content[start : start + 10_000]

    with uvicorn_of(app) as url, httpx2.Client(base_url=url) as client:
        answer = client.post(f"{at}/enrollments", content=chunks(), headers=body(0)["headers"])
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.json()["totals"] == {"enrolled": 0, "waitlisted": 0, "refused": 5000}
        with client.stream("POST", f"{at}/enrollments", content=chunks(), headers=body(0)["headers"]) as raw:
            assert json.loads(gzip.decompress(b"".join(raw.iter_raw()))) == answer.json()
