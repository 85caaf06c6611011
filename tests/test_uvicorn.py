"""What the server uses of uvicorn although uvicorn does not promise it: when a part goes, a sentence names the part."""

import asyncio
import inspect
import re
import socket
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from test_server import running

from service import Settings, create_app
from service.http import protocol
from service.http import server as http_server

METHODS = {
    "startup": (["self", "sockets"], "listens itself first, and prints the address behind it"),
    "shutdown": (["self", "sockets"], "stops in its own way"),
    "handle_exit": (["self", "sig", "frame"], "lets a second Ctrl+C end the process"),
}
"""The methods of uvicorn.Server that `Server` in service/http/server.py overrides, and why."""
PARTS: dict[str, tuple[type, str]] = {
    "config": (uvicorn.Config, "service/http/server.py listens with its backlog"),
    "config.backlog": (int, "service/http/server.py listens with it"),
    "config.loaded_app": (object, "service/http/protocol.py runs it for each request"),
    "config.root_path": (str, "service/http/protocol.py puts it before each path"),
    "servers": (list, "service/http/server.py reads the address from it, and closes it to stop"),
    "should_exit": (bool, "service/http/server.py sets it to stop"),
    "lifespan.shutdown": (object, "service/http/server.py ends the application with it"),
    "server_state.connections": (set, "service/http/protocol.py is in it, and service/http/server.py waits for it"),
    "server_state.tasks": (set, "service/http/protocol.py adds the task of each request"),
    "server_state.total_requests": (int, "service/http/protocol.py counts requests in it"),
    "server_state.default_headers": (list, "service/http/protocol.py sends them: they are the Date"),
}
"""The parts of a running uvicorn.Server, the type of each, and what uses it."""


def changes(server: Any, given: dict[str, Any]) -> list[str]:
    """Say what of uvicorn is not there, or not as it was; `given` is what the server gave a protocol."""
    found = []
    for name, (parameters, purpose) in METHODS.items():
        method = getattr(uvicorn.Server, name, None)
        if method is None or [*inspect.signature(method).parameters] != parameters:
            found.append(f"Server.{name}({', '.join(parameters[1:])}): service/http/server.py {purpose}.")
    for name, (kind, purpose) in PARTS.items():
        try:
            part = attrgetter(name)(server)
        except AttributeError:
            found.append(f"Server.{name}: {purpose}.")
        else:
            if not isinstance(part, kind):
                found.append(f"Server.{name}, of the type {kind.__name__}: {purpose}.")
    takes = [*inspect.signature(protocol.Protocol.__init__).parameters][2:]
    if sorted(takes) != sorted(given):
        found.append(f"Config.http, called with {', '.join(takes)}: service/http/protocol.py takes those.")
    return [f"uvicorn {uvicorn.__version__} no longer has {each}" for each in found]


@pytest.fixture
def running_uvicorn(path: Path) -> Iterator[tuple[uvicorn.Server, dict[str, Any]]]:
    """Give uvicorn's own server while it runs, and what it gave the protocol of one connection."""
    given: dict[str, Any] = {}

    def note(**arguments: Any) -> asyncio.Protocol:
        given.update(arguments)
        return asyncio.Protocol()

    http: Any = note
    app = create_app(Settings(database_url=str(path)))
    server: Any = uvicorn.Server(uvicorn.Config(app, port=0, http=http, ws="none", log_level="warning"))
    with running(server), socket.create_connection(server.servers[0].sockets[0].getsockname(), timeout=5) as client:
        while not given:
            client.sendall(b"x")
        yield server, given


def test_the_parts_that_are_used_are_there(running_uvicorn: tuple[uvicorn.Server, dict[str, Any]]) -> None:
    """Each part is as the service takes it to be, and the headers of each answer begin with the Date."""
    server, given = running_uvicorn
    assert changes(server, given) == []
    assert (given["config"], given["server_state"]) == (server.config, server.server_state)
    assert [name for name, _ in server.server_state.default_headers][:1] == [b"date"]


def test_a_part_that_is_gone_is_named(
    running_uvicorn: tuple[uvicorn.Server, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method with other parameters, an attribute that is gone or another thing, an argument more: each is a line."""
    server, given = running_uvicorn
    with monkeypatch.context() as patched:
        patched.delattr(uvicorn.Server, "handle_exit")
        patched.setattr(uvicorn.Server, "startup", lambda self: self)
        patched.delattr(server.server_state, "total_requests")
        patched.setattr(server.server_state, "tasks", [])
        found = changes(server, given | {"http2": True})
    assert [line.removeprefix(f"uvicorn {uvicorn.__version__} no longer has ") for line in found] == [
        "Server.startup(sockets): service/http/server.py listens itself first, and prints the address behind it.",
        "Server.handle_exit(sig, frame): service/http/server.py lets a second Ctrl+C end the process.",
        "Server.server_state.tasks, of the type set: service/http/protocol.py adds the task of each request.",
        "Server.server_state.total_requests: service/http/protocol.py counts requests in it.",
        "Config.http, called with config, server_state, app_state, _loop: service/http/protocol.py takes those.",
    ]


def test_no_part_is_forgotten() -> None:
    """Whatever the two modules take from uvicorn's objects is in the tables."""
    server, connection = inspect.getsource(http_server.Server), inspect.getsource(protocol)
    own = re.findall(r"def (\w+)\(self", server)
    used = {*re.findall(r"self\.((?:config\.|server_state\.|lifespan\.)?(?!_)\w+)", server)}
    used |= {f"config.{name}" for name in re.findall(r"\bconfig\.(\w+)", connection)}
    used |= {f"server_state.{name}" for name in re.findall(r"self\._state\.(\w+)", connection)}
    assert used <= PARTS.keys()
    assert {*re.findall(r"super\(\)\.(?!_)(\w+)", server)} <= METHODS.keys()
    assert {name for name in own if not name.startswith("_")} == METHODS.keys()
