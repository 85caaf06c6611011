"""PostgreSQL: one server on both cores, the service on it, and what else one could put there.

The server flushes each commit to the disk, as PostgreSQL does unless it is told otherwise. A flush is made to take
longer by PostgreSQL's own commit_delay, for which whoever flushes sleeps before, and others may join meanwhile:
https://www.postgresql.org/docs/current/runtime-config-wal.html#GUC-COMMIT-DELAY
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import postgresql

from bench import load
from bench.campus import Campus
from bench.processes import LOAD_CORE, SERVER_CORE, Server, run
from bench.systems import COURSES, ENROLLMENTS, OURS, STUDENTS, Ours, System, uvicorn

SETTINGS = ("fsync=on", "full_page_writes=on", "max_wal_size=4GB", "shared_buffers=512MB", "log_min_messages=fatal")
DELAY = 1_000
"""Microseconds that each flush takes longer."""
SERVICE, PEER = "this service", "FastAPI + SQLAlchemy + asyncpg"
SLOW, NODES = "this service, 1 ms more for each flush", "this service, two nodes"
ATOMIC, DRY_RUN = "2,000 rows atomic", "2,000 rows dry run"


class _OnServer(System):
    """A system whose database is on the server."""

    def place(self, folder: Path) -> str:
        del folder
        return self.database

    def count(self, folder: Path) -> int:
        import psycopg  # noqa: PLC0415 - what compares two revisions on SQLite does without.

        del folder
        with psycopg.connect(self.database) as db:
            ((count,),) = db.execute("SELECT count(*) FROM enrollments")
            return int(count)


class Service(_OnServer, Ours):
    """The service, on the database of a URL."""

    def __init__(self, url: str, name: str = SERVICE) -> None:
        """Keep the URL."""
        super().__init__("postgresql", name)
        self.database = url

    def prepare(self, folder: Path, campus: Campus, copies: int = 1) -> None:
        """Fill a file by the rules, and move it to the server."""
        OURS.prepare(folder, campus, copies)
        command = [self.python, "-m", "service", "move", OURS.database, self.database]
        run(command, folder, PYTHONPATH=str(self.tree))


class Peer(_OnServer):
    """What many would start with."""

    key, name = "asyncpg", PEER
    note = "async endpoints; no seats, no events"

    def __init__(self, url: str) -> None:
        """Keep the URL."""
        self.database = url

    def command(self) -> list[str]:
        """Give the command that serves."""
        return uvicorn("fastapi_asyncpg")

    def place(self, folder: Path) -> str:
        """Give the URL as SQLAlchemy wants it, with the folder of the server's socket in its query."""
        del folder
        given = urlsplit(self.database)
        return f"postgresql+asyncpg://{given.username}@{given.path}?host={given.hostname}"

    def prepare(self, folder: Path, campus: Campus) -> None:
        """Put the campus into its tables."""
        import psycopg  # noqa: PLC0415 - as above.

        self.create(folder)
        rows: dict[str, Any] = {
            STUDENTS: enumerate(campus.students, 1),
            COURSES: ((at, *course) for at, course in enumerate(campus.courses, 1)),
            ENROLLMENTS: ((*pair, self.enrolled_at) for pair in campus.enrollments),
        }
        with psycopg.connect(self.database, autocommit=True) as db:
            with db.transaction(), db.cursor() as cursor:
                for statement, values in rows.items():
                    cursor.executemany(statement.replace("?", "%s"), values)
            db.execute("VACUUM ANALYZE")


@contextmanager
def running() -> Iterator[postgresql.Server]:
    """Run a server, with all its processes on both cores, until the block ends."""
    os.sched_setaffinity(0, {SERVER_CORE, LOAD_CORE})
    with postgresql.running(*SETTINGS) as server:
        os.sched_setaffinity(0, {LOAD_CORE})
        yield server


def delay(server: postgresql.Server, url: str) -> None:
    """Let each flush for a database take longer."""
    name = url.rpartition("/")[2]
    server.execute(f"ALTER DATABASE {name} SET commit_delay = {DELAY}")
    server.execute(f"ALTER DATABASE {name} SET commit_siblings = 0")


def measure_nodes(
    nodes: Sequence[Server], system: System, campus: Campus, connections: int, seconds: int
) -> dict[str, Any]:
    """Load the nodes of one database at once with POSTs, by so many connections in all."""
    asked = [load.Requests(system, campus) for _ in nodes]
    for at, requests in enumerate(asked):
        requests.pairs = islice(requests.pairs, at, None, len(nodes))
    each = max(1, connections // len(nodes))
    before = system.count(nodes[0].folder)
    with ThreadPoolExecutor(len(nodes)) as pool:
        found = [
            pool.submit(load.measure, node, requests, load.POST, each, seconds)
            for node, requests in zip(nodes, asked, strict=True)
        ]
        samples = [one.result() for one in found]
    total = {key: sum(one[key] for one in samples) for key in ("rate", "requests", "refused", "failed")}
    worst = {key: max(one[key] for one in samples) for key in ("p50", "p99", "p999")}
    kept = system.count(nodes[0].folder) - before
    lost = max(0, total["requests"] - total["refused"] - kept)
    return {"request": load.POST, "connections": connections, **total, **worst, "lost": lost}
