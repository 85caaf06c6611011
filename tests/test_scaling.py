"""The page "Scaling out" is held to the code: a school goes the way there and back, by the commands that are shown."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx2
import pytest
from conftest import ROOT, serving
from postgresql import Server, binaries
from test_docs import COMMANDS, SCALING
from test_moving import contents

from service import connect, migrate
from service.courses import insert_course
from service.enrollments import drop, enroll
from service.students import insert_student
from service.terms import insert_term
from service.tokens import create_token

SHOWN = "postgresql://enrollment@db.example.org"


@pytest.fixture
def tour(tmp_path: Path) -> Path:
    """Make the file that the page moves."""
    path = tmp_path / "tour.db"
    migrate(path)
    with closing(connect(path)) as db:
        insert_term(db, "Autumn")
        for name in ("Ada Lovelace", "Grace Hopper", "Alan Turing"):
            insert_student(db, name)
        for name in ("Logic", "Compilers"):
            insert_course(db, name, "beginner", 1, 1)
        enroll(db, 1, 1)
        enroll(db, 2, 1)
        enroll(db, 3, 2)
        drop(db, 1, 1, reason="moved away")
        enroll(db, 1, 1)
        create_token(db, "reports", ["read"])
    return path


@pytest.mark.long
def test_the_way_there_and_back(server: Server, tour: Path, tmp_path: Path) -> None:
    """What is shown is what comes, the backup is whole, and the file at the end is that of the beginning."""
    programs = binaries()
    if not server.pid or programs is None or not (programs / "pg_dump").exists():
        pytest.skip("The programs of PostgreSQL are not on this machine.")
    place = urlsplit(server.url).netloc.partition("@")[2]
    ours = {
        "pip install '.[postgresql]'\n": "",
        " --pwprompt": "",
        "python -m": f"{sys.executable} -m",
        SHOWN: f"postgresql://enrollment@{place}",
        "/tmp/tour.db": str(tour),  # noqa: S108 - it is not used.
        "/tmp/again.db": str(tmp_path / "again.db"),  # noqa: S108
    }

    def real(text: str) -> str:
        for there, here in ours.items():
            text = text.replace(there, here)
        return text

    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PGHOST": unquote(place),
        "PGUSER": "postgres",
    }
    shown = {command: answer for command, answer in COMMANDS.findall(SCALING.text) if not command.startswith("make")}
    assert len(shown) == 7
    try:
        for command, answer in shown.items():
            done = subprocess.run(
                ["sh", "-ec", real(command)], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert not answer or done.stdout == real(answer)
        with two_nodes(real(f"{SHOWN}/school")) as (one, other):
            assert one.post("/students", json={"name": "New"}).status_code == 201
            assert [each["name"] for each in other.get("/students?name=N").json()] == ["New"]
        assert contents(tmp_path / "again.db") == contents(tour) == contents(real(f"{SHOWN}/restored"))
    finally:
        for name in ("school", "restored"):
            server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        server.execute("DROP ROLE IF EXISTS enrollment")


@contextmanager
def two_nodes(url: str) -> Iterator[list[httpx2.Client]]:
    """Serve a school by two processes, and give a client of each."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(serving("--database-url", url, AUTH="none")) for _ in range(2)]
        yield [stack.enter_context(httpx2.Client(base_url=node.url)) for node in nodes]
