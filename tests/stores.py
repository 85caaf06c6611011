"""Of use to all tests of the store in this process: groups of writes, locks of others, a disk that fails, the file."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import peewee as pw

from service.storage.kinds import is_postgresql
from service.storage.sqlite.connections import open_database
from service.storage.sqlite.store import Store

HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    db.execute(statement).fetchall()
print("held", flush=True)
sys.stdin.read()
"""


def open_store(path: Path | str, *, busy_timeout: float = 5, max_pending_writes: int = 1000, **options: Any) -> Any:
    """Make a store that waits long, unless told otherwise: on a file, or on the database that a URL names."""
    kind: Any = Store
    if isinstance(path, str) and is_postgresql(path):
        from service.storage.postgres import store  # noqa: PLC0415 - only these tests need psycopg.

        kind = store.Store
    return kind(path, busy_timeout=busy_timeout, max_pending_writes=max_pending_writes, **options)


def open_db(path: Path | str) -> pw.Database:
    """Connect as `connect` does, but do not compare the schema, which takes PostgreSQL longer than most tests do."""
    if isinstance(path, str) and is_postgresql(path):
        from service.storage.postgres import connections  # noqa: PLC0415

        db: pw.Database = connections.open_database(path)
    else:
        db = open_database(Path(path))
    db.connect()
    return db


@contextmanager
def held(path: Path, *statements: str) -> Iterator[None]:
    """Have another process run statements on the file, and keep what they lock until the block ends."""
    command = [sys.executable, "-c", HOLD, str(path), *statements]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield


@asynccontextmanager
async def stalled(store: Store, first: Callable[[pw.Database], object] = id) -> AsyncIterator[None]:
    """Keep the writer inside a transaction until the block ends: what is written meanwhile is one group."""
    started, go_on = threading.Event(), threading.Event()

    def stall(db: pw.Database) -> None:
        first(db)
        started.set()
        go_on.wait(10)

    (stalling,) = await submit(store.write(stall))
    await asyncio.to_thread(started.wait, 10)
    try:
        yield
    finally:
        go_on.set()
        await stalling


async def submit(*writes: Awaitable[Any]) -> list[asyncio.Future[Any]]:
    """Start writes, in this order."""
    started: list[asyncio.Future[Any]] = [asyncio.ensure_future(write) for write in writes]
    await asyncio.sleep(0)  # They begin,
    await asyncio.sleep(0)  # and the store hands them to its writer.
    return started


async def as_one_group(store: Store, *writes: Awaitable[Any]) -> list[Any]:
    """Give what became of writes that share a transaction: a result or an error each."""
    async with stalled(store):
        started = await submit(*writes)
    return await asyncio.wait_for(asyncio.gather(*started, return_exceptions=True), 5)


def names(path: Path) -> list[str]:
    """Give the names of the students in the file, as another program finds them."""
    with closing(sqlite3.connect(path)) as db:
        return [name for (name,) in db.execute("SELECT name FROM students ORDER BY id")]


def wal(path: Path) -> Path:
    """Give the write-ahead log's path: it is there while anybody has the file open."""
    return path.with_name(f"{path.name}-wal")


def fail_to_write(path: Path) -> None:
    """Have every write of this process to the write-ahead log fail, as on a broken disk, until it is opened again."""
    readable = os.open(wal(path), os.O_RDONLY)
    for descriptor in set(range(256)) - {readable}:
        with suppress(OSError):  # Not every number is a descriptor.
            if os.path.samestat(os.fstat(descriptor), os.fstat(readable)):
                os.dup2(readable, descriptor, inheritable=False)
    os.close(readable)
