"""The house: imports go one way, the rules know neither HTTP nor a database's own ways, files are short."""

import ast
import asyncio
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from conftest import ROOT
from test_work import ask

from service import Settings, connect, create_app
from service.courses import insert_course
from service.enrollments import enroll
from service.students import insert_student

SERVICE = ROOT / "service"
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SERVICE.rglob("*.py")
}
"""Every module of the service by its name."""
RULES = (
    *("bulk", "courses", "enrolling", "enrollments", "errors", "events", "fields", "overrides", "registrar", "rows"),
    *("sessions", "students", "terms", "tokens"),
    *("exchange.dropping", "exchange.importing", "exchange.pairs", "exchange.reading", "exchange.refusals"),
    *("exchange.report", "exchange.rosters", "exchange.turns", "exchange.upserting", "exchange.words", "exchange.work"),
)


def imported(path: Path) -> set[str]:
    """Give the names of all modules that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{each.name}" for each in node.names}
            found |= (names & FILES.keys()) or {node.module}
    return found


def test_imports_never_go_round() -> None:
    """No module imports, by however many others, one that imports it."""
    graph = {name: imported(path) & FILES.keys() for name, path in FILES.items()}
    done: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in done:
            for other in sorted(graph[name]):
                # The package's face hands names on, and imports them only when they are asked for.
                if other != "service":
                    visit(other, (*above, name))
            done.append(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("name", RULES)
def test_rules_are_plain(name: str) -> None:
    """A rule imports neither HTTP's modules nor a database's own, nor the libraries that those are made of."""
    modules = imported(FILES[f"service.{name}"])
    assert not [module for module in modules if module.startswith(("service.http", "service.storage.", "service.app"))]
    assert modules.isdisjoint({"sqlite3", "starlette", "uvicorn", "httptools", "playhouse"})
    assert not [module for module in modules if module.startswith(("starlette.", "uvicorn.", "playhouse."))]


def test_storage_knows_no_rule() -> None:
    """What stores imports of the service its own folder, errors, fields and the log, and nothing of HTTP."""
    for name, path in FILES.items():
        if name.startswith("service.storage"):
            ours = {module for module in imported(path) if module.startswith("service")}
            assert {
                module
                for module in ours
                if not module.startswith(("service.storage", "service.errors", "service.fields", "service.log"))
            } <= set(), name


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_in_one_sitting(name: str) -> None:
    """No file has more than 300 lines."""
    assert len(FILES[name].read_text("utf-8").splitlines()) <= 300


class Watching:
    """Notes which files of the service lie between the driver and the caller whenever a statement is run."""

    def __init__(self) -> None:
        """See nothing yet."""
        self.rooms: list[list[str]] = []

    def __call__(self, frame: FrameType, event: str, function: Any) -> None:
        """Be the interpreter's profiler."""
        # What a handler writes is taken at `ask`, handed over at `submit`, and goes on in the writer's thread.
        handed_over = event == "call" and frame.f_code.co_name in {"ask", "submit"}
        if handed_over or (event == "c_call" and getattr(function, "__name__", "") in {"execute", "executemany"}):
            self._note(frame)

    def _note(self, frame: FrameType | None) -> None:
        found: list[str] = []
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            room = str(path.relative_to(SERVICE)) if path.is_relative_to(SERVICE) else ""
            if room and found[:1] != [room]:
                found.insert(0, room)
            frame = frame.f_back
        self.rooms.append(found)


@pytest.mark.parametrize(
    ("method", "status", "rooms"),
    [
        (
            "GET",
            200,
            [
                "http/operations.py",
                "http/handlers.py",
                "storage/sqlite/store.py",
                "enrollments.py",
                "storage/__init__.py",
            ],
        ),
        (
            "POST",
            201,
            [
                "http/operations.py",
                "http/handlers.py",
                "storage/sqlite/store.py",
                "storage/groups.py",
                "storage/sqlite/writer.py",
                "enrolling.py",
                "storage/sqlite/inserting.py",
            ],
        ),
    ],
)
def test_the_way_from_a_request_to_its_statement(path: Path, method: str, status: int, rooms: list[str]) -> None:
    """Behind `http/server.py`, which reads bytes, a schedule passes five files and an enrollment seven, each once."""
    with connect(path) as db:
        for name in ("Ada", "Bo"):
            insert_student(db, name)
        insert_course(db, "Algebra", "1")
        enroll(db, 1, 1)
    app, watching = create_app(Settings(database_url=str(path))), Watching()
    url = {"GET": "/students/1/courses", "POST": "/students/2/courses"}[method]
    threading.setprofile(watching)
    sys.setprofile(watching)
    try:
        assert asyncio.run(ask(app, method, url, b'{"course_id": 1}')) == status
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    if method == "GET":
        assert rooms in watching.rooms
        return
    for stretch in (rooms[:4], rooms[3:4], rooms[3:]):
        assert stretch in watching.rooms
