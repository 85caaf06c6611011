"""Fixtures: real databases, the app in this process, and the server as a process of its own.

A file with `pytestmark = pytest.mark.both` runs each test that asks for a database twice: with a file of SQLite, and
with a database of PostgreSQL, whose URL `path` is then. All other files run on SQLite, and so does a test of such a
file that says why: `@pytest.mark.both(False, because="it damages a file")`.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from pathlib import Path

import httpcore2
import httpx2
import peewee as pw
import postgresql
import pytest
from answers import DeclaringClient
from forks import Fork
from hypothesis import HealthCheck, settings
from schools import Schools
from starlette.testclient import TestClient
from stores import open_db, open_store

from service import Settings, create_app, migrate
from service.storage.sqlite.store import Store

ROOT = Path(__file__).parent.parent
EVERY_CASE = {"test_enrollment.py", "test_course.py"}
"""The files of which the quick tests leave out nothing but what takes long: what the service is for."""
MEMORY = Path("/dev/shm")  # noqa: S108 - pytest and TemporaryDirectory make folders there that only their owner enters.

if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 2**31:
    # The databases are files like any others there, but a commit does not wait for a disk, which no test pulls the plug
    # of. The servers inherit the variable, and so do the other processes of these tests.
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)

# Each new client would read all certificates of this machine, for longer than most tests take, and speaks plain HTTP.
vars(httpcore2)["default_ssl_context"] = cache(httpcore2.default_ssl_context)

# How long an example takes is the machine's, and a fixture that all examples of a test share is meant.
CHECKS = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("service", deadline=None, suppress_health_check=CHECKS)
settings.load_profile("service")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Whoever runs the tests in the background of a shell may have Ctrl+C ignored, which the servers would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Server:
    """A running `python -m service serve`."""

    def __init__(self, process: "subprocess.Popen[str] | Fork", line: str) -> None:
        """Read where it listens from the line that it prints."""
        self.process = process
        self.line = line
        found = re.search(r"at (http://\S+)", line)
        assert found, f"The server did not start: {line!r}"
        self.url = found[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let pytest take --quick."""
    parser.addoption("--quick", action="store_true", help="leave out long tests, and all cases of the others but one")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --quick, keep the first case of each test on each kind of database, and every case in the files EVERY_CASE.

    The tests that are marked with `long` are left out.
    """
    if not config.getoption("quick"):
        return
    kept: dict[object, pytest.Item] = {}
    for item in items:
        if not item.get_closest_marker("long"):
            name = item.nodeid if item.path.name in EVERY_CASE else item.nodeid.partition("[")[0]
            callspec = getattr(item, "callspec", None)
            kept.setdefault((name, callspec and callspec.params.get("kind")), item)
    stays = {*map(id, kept.values())}
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in stays])
    items[:] = kept.values()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on each kind of database if it, or its file, is marked with `both`; `both(False)` takes it out."""
    marker = metafunc.definition.get_closest_marker("both")
    if marker and marker.args == (False,):
        assert marker.kwargs["because"], metafunc.definition.nodeid
    elif "kind" in metafunc.fixturenames and marker:
        metafunc.parametrize("kind", ["sqlite", "postgresql"])


@pytest.fixture(scope="session")
def server() -> Iterator[postgresql.Server]:
    """Give a PostgreSQL, started when the first test asks for it."""
    if not postgresql.found():
        (pytest.fail if os.environ.get("MUST_POSTGRES") else pytest.skip)(postgresql.MISSING)
    with postgresql.server() as server:
        yield server


@pytest.fixture(scope="session")
def empty_school(server: postgresql.Server) -> Iterator[str]:
    """Migrate one database of PostgreSQL, once, for others to be copies of."""
    with server.database() as url:
        migrate(url)
        yield url


@pytest.fixture(scope="session")
def schools(server: postgresql.Server, empty_school: str) -> Iterator[Schools]:
    """Give what lends migrated databases of PostgreSQL."""
    with closing(Schools(server, empty_school)) as schools:
        yield schools


@pytest.fixture
def url_of_school(schools: Schools) -> Iterator[str]:
    """Give the URL of a migrated database of PostgreSQL, the test's own."""
    with schools.lent() as url:
        yield url


@pytest.fixture
def postgresql_school(url_of_school: str) -> str:
    """Give the same, in the tests of PostgreSQL alone."""
    return url_of_school


@pytest.fixture
def school(postgresql_school: str) -> str:
    """Give the URL of a migrated database of PostgreSQL; a file of tests may call something else its school."""
    return postgresql_school


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrate one file, once, for others to be copies of."""
    path = tmp_path_factory.mktemp("empty") / "empty.db"
    migrate(path)
    return path


@pytest.fixture
def kind() -> str:
    """Name the kind of database that a test runs on."""
    return "sqlite"


@pytest.fixture
def path(kind: str, request: pytest.FixtureRequest) -> Path | str:
    """Give a migrated database of the test's own: a file, or the URL of a database of PostgreSQL."""
    if kind == "postgresql":
        return str(request.getfixturevalue("url_of_school"))
    empty = request.getfixturevalue("empty_database")
    return Path(shutil.copy(empty, request.getfixturevalue("tmp_path") / "school.db"))


@pytest.fixture
def db(path: Path) -> Iterator[pw.Database]:
    """Give a connection to the database, for the rules without HTTP."""
    database = open_db(path)
    yield database
    database.close()


@pytest.fixture
def client(path: Path) -> Iterator[TestClient]:
    """Give a client of the app, in this process, on the database."""
    with DeclaringClient(create_app(Settings(database_url=str(path)))) as client:
        yield client


@contextmanager
def serving(*options: str, through: Sequence[str] = (), **environ: str) -> Iterator[Server]:
    """Run the server on a free port until the block ends; whatever is left of it is killed.

    `through` is a command that runs the command behind it.
    """
    arguments, env = ["serve", "--port", "0", *options], {**os.environ, **environ}
    if not through:
        with closing(Fork(arguments, env)) as fork:
            yield Server(fork, fork.stdout.readline())
        return
    command = [*through, sys.executable, "-m", "service", *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            yield Server(process, process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture
def serve(path: Path) -> Iterator[Callable[..., Server]]:
    """Give a function that starts a server on the database, as often as a test wants."""
    with ExitStack() as stack:
        yield lambda *options, **environ: stack.enter_context(serving("--database-url", str(path), *options, **environ))


@pytest.fixture
def live(serve: Callable[..., Server]) -> Iterator[httpx2.Client]:
    """Give an HTTP client of a server process on the database."""
    with httpx2.Client(base_url=serve().url) as client:
        yield client


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """Give a store on the database."""
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
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, usual)
