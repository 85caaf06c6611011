"""Fixtures: real database files, the app in this process, and the server as a process of its own."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx2
import peewee as pw
import pytest
from answers import DeclaringClient
from starlette.testclient import TestClient
from stores import open_store

from service import Settings, connect, create_app, migrate
from service.storage.sqlite.store import Store

ROOT = Path(__file__).parent.parent

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Whoever runs the tests in the background of a shell may have Ctrl+C ignored, which the servers would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Server:
    """A running `python -m service serve`."""

    def __init__(self, process: "subprocess.Popen[str]", line: str) -> None:
        """Read where it listens from the line that it prints."""
        self.process = process
        self.line = line
        found = re.search(r"at (http://\S+)", line)
        assert found, f"The server did not start: {line!r}"
        self.url = found[1]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrate one file, once, for others to be copies of."""
    path = tmp_path_factory.mktemp("empty") / "empty.db"
    migrate(path)
    return path


@pytest.fixture
def path(tmp_path: Path, empty_database: Path) -> Path:
    """Give a migrated database file of the test's own."""
    return Path(shutil.copy(empty_database, tmp_path / "school.db"))


@pytest.fixture
def db(path: Path) -> Iterator[pw.SqliteDatabase]:
    """Give a connection to the file, for the rules without HTTP."""
    database = connect(path)
    yield database
    database.close()


@pytest.fixture
def client(path: Path) -> Iterator[TestClient]:
    """Give a client of the app, in this process, on the file."""
    with DeclaringClient(create_app(Settings(database_url=str(path)))) as client:
        yield client


@contextmanager
def serving(*options: str, through: Sequence[str] = (), **environ: str) -> Iterator[Server]:
    """Run the server on a free port until the block ends; whatever is left of it is killed.

    `through` is a command that runs the command behind it.
    """
    command = [*through, sys.executable, "-m", "service", "serve", "--port", "0", *options]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environ}, text=True, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout
            yield Server(process, process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture
def serve(path: Path) -> Iterator[Callable[..., Server]]:
    """Give a function that starts a server on the file, as often as a test wants."""
    with ExitStack() as stack:
        yield lambda *options, **environ: stack.enter_context(serving("--database-url", str(path), *options, **environ))


@pytest.fixture
def live(serve: Callable[..., Server]) -> Iterator[httpx2.Client]:
    """Give an HTTP client of a server process on the file."""
    with httpx2.Client(base_url=serve().url) as client:
        yield client


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """Give a store on the file."""
    with closing(open_store(path)) as store:
        yield store


@pytest.fixture
def anyio_backend() -> str:
    """Run the async tests on asyncio alone."""
    return "asyncio"


@pytest.fixture
def in_time() -> Iterator[None]:
    """Fail a test that hangs: a caller without an answer would wait for ever."""
    usual = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("It hangs."))
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, usual)
