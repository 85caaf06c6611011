"""Runs units of work on the database for async callers: reads inline, writes in groups.

A unit of work is a function `work(db, *args)`. A read is a few indexed rows, which cost
less than handing them to a thread would. A write waits its turn: one thread takes all that
is waiting, runs it in one transaction and commits once, so that one sync to the disk serves
many callers, and none of them hears of success before it is on the disk.
"""

import asyncio
import os
import sqlite3
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, TypeVar, TypeVarTuple

import peewee as pw

from service.database import Database, File, database_path, fetch_all, is_locked, refusal
from service.errors import StorageUnavailable
from service.schema import Schema
from service.writer import Job, Together, Writer, settle

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

READY_TIMEOUT = 1.0
"""Seconds within which a store that is ready opens a write transaction."""

READER_CACHE = -2_000
"""KiB, SQLite's own: each commit empties the caches of readers, so more would take memory and gain no time."""


class Store:
    """One database file, which exists; several event loops and threads may share it.

    It opens at its first use, and again at the first use after `close`.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        busy_timeout: float,
        max_pending_writes: int,
        together: Mapping[Callable[..., Any], Together] = MappingProxyType({}),
    ) -> None:
        """Remember which file it is: another one at the same path will be refused.

        Calls of a work that `together` names are run in one go when they follow each other in a group.
        """
        self._busy_timeout = busy_timeout
        self._file = File(database_path(url))
        self._idle_readers: deque[Database] = deque()
        self._reading: dict[asyncio.AbstractEventLoop, Database] = {}
        self._writing: dict[asyncio.AbstractEventLoop, list[Job]] = {}
        self._schema = Schema(url)
        self._writer = Writer(self._file, busy_timeout, max_pending_writes, together, self._schema.verify)
        # What was accepted is still written when the program ends, or when nobody holds the store.
        weakref.finalize(self, _close, self._writer, self._idle_readers)

    async def read(self, work: Callable[[pw.Database, *Ts], T], *args: *Ts) -> T:
        """Run a bounded read. Raises what the work raises, Busy, StorageUnavailable.

        The reads of one turn of the event loop share a snapshot: taking and releasing one costs
        four system calls, a sixth of a whole GET under load. Nobody can tell: a turn begins after
        the requests that it serves have come in, so whatever was acknowledged before them is there.
        """
        loop = asyncio.get_running_loop()
        try:
            return work(self._reading.get(loop) or self._begin_turn(loop), *args)
        except (pw.DatabaseError, sqlite3.Error, OSError) as error:
            if loop in self._reading:
                self._reading.pop(loop).close()
            if not is_locked(error):
                raise refusal(error, "Nothing was read.") from error
        # Somebody holds the file alone. Waiting here would stop every other request.
        return await asyncio.to_thread(self._read_patiently, work, *args)

    def _begin_turn(self, loop: asyncio.AbstractEventLoop) -> Database:
        self._file.verify()
        try:
            db = self._idle_readers.pop()
        except IndexError:
            db = self._file.open(0, cache_size=READER_CACHE)
        self._reading[loop] = db
        db.begin()
        loop.call_soon(self._end_turn, loop)
        return db

    def _end_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop in self._reading:
            db = self._reading.pop(loop)
            db.rollback()
            self._idle_readers.append(db)

    def _read_patiently(self, work: Callable[..., T], *args: Any) -> T:
        db = self._file.open(self._busy_timeout)
        try:
            return work(db, *args)
        except (pw.DatabaseError, sqlite3.Error) as error:
            raise refusal(error, "Nothing was read.") from error
        finally:
            db.close()

    async def write(self, work: Callable[[pw.Database, *Ts], T], *args: *Ts, alone: bool = False) -> T:
        """Run a write; when this returns it is on the disk.

        The work must be atomic in itself: what it raises is its own refusal, and the rest
        of its group is committed. Work of many statements would pay for that with a savepoint,
        which makes a bulk take 2.7 times as long: run it `alone`, outside any transaction, and
        what it opens is one. Raises what the work raises, Busy, StorageUnavailable.

        The writes of one turn of the event loop are handed over together: an eighth more
        requests a second where one in ten writes.
        """
        loop = asyncio.get_running_loop()
        job = Job(work, args, loop, loop.create_future(), alone)
        if loop in self._writing:
            self._writing[loop].append(job)
        else:
            self._writing[loop] = [job]
            loop.call_soon(self._hand_over, loop)
        result: T = await job.future
        return result

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop in self._writing:
            settle(self._writer.submit(self._writing.pop(loop)))

    async def check_ready(self) -> None:
        """Raise Busy or StorageUnavailable unless a write would be accepted and kept now."""
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                await self.write(self._probe)
        except TimeoutError as error:
            raise StorageUnavailable(f"No write transaction opened within {READY_TIMEOUT:g} s.") from error

    def _probe(self, db: pw.Database) -> None:
        self._schema.check(db)
        if self._writer.failed:
            # Only a commit that writes can tell whether commits work again: store a value as it is.
            ((version,),) = fetch_all(db, "PRAGMA user_version")
            db.execute_sql(f"PRAGMA user_version = {version}")

    def close(self) -> None:
        """Finish what was accepted, then let go of the file."""
        with suppress(RuntimeError):
            loop = asyncio.get_running_loop()
            self._end_turn(loop)
            self._hand_over(loop)
        _close(self._writer, self._idle_readers)


def _close(writer: Writer, idle_readers: deque[Database]) -> None:
    writer.close()
    with suppress(IndexError):
        while True:
            idle_readers.pop().close()
