"""Runs units of work on the database for async callers: reads inline, writes in groups.

A unit of work is a function `work(db, *args)`. A read is a few indexed rows, which cost
less than handing them to a thread would. A write waits its turn: one thread takes all that
is waiting, runs it in one transaction and commits once, so that one sync to the disk serves
many callers, and none of them hears of success before it is on the disk.
"""

import asyncio
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar, TypeVarTuple

import peewee as pw

from service.database import Database, fetch_all, is_locked, refusal
from service.errors import AsyncioOnly, SetupError, StorageUnavailable
from service.file import File, check_writable
from service.fork import pause_at_forks
from service.schema import Schema
from service.urls import database_path
from service.writer import Job, Together, Writer, settle

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
P = ParamSpec("P")

READY_TIMEOUT = 1.0
"""Seconds within which a store that is ready opens a write transaction."""

MOST_READING = 1.0
"""Seconds that a fork waits for a read of another thread that has all that it needs."""

READER_CACHE = -2_000
"""KiB, SQLite's own: each commit empties the caches of readers, so more would take memory and gain no time."""


logger = logging.getLogger(__name__)


class Store:
    """One database file, which exists; several event loops and threads may share it.

    It opens at its first use, and again at the first use after `close` or in a process that was forked.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        busy_timeout: float,
        max_pending_writes: int,
        together: Mapping[Callable[..., Any], Together] = MappingProxyType({}),
        snapshot_per_turn: bool = False,
    ) -> None:
        """Remember which file it is: another one at the same path will be refused.

        Calls of a work that `together` names are run in one go when they follow each other in a group.
        With `snapshot_per_turn` the reads of one turn of the event loop share a snapshot, which is right
        only where nothing else in this program writes to the file: a later read of that turn would miss it.
        """
        self._path = database_path(url)
        self._busy_timeout = busy_timeout
        self._snapshot_per_turn = snapshot_per_turn
        self._file = File(self._path)
        self._idle_readers: deque[Database] = deque()
        self._reading: dict[object, Database | None] = {}
        self._left_behind: dict[object, Database | None] = {}
        self._gate = threading.Lock()
        self._paused = False
        self._writing: dict[asyncio.AbstractEventLoop, list[Job]] = {}
        self._schema = Schema(url)
        self._writer = Writer(self._file, busy_timeout, max_pending_writes, together, self._schema.verify)
        # What was accepted is still written when the program ends, or when nobody holds the store.
        weakref.finalize(self, _close, self._writer, self._idle_readers, self._file)
        pause_at_forks(self)

    def open(self) -> None:
        """Hold the file from now on, not from its first use on: nobody rolls it back then. Raises OSError."""
        self._file.verify()

    async def read(self, work: Callable[[pw.Database, *Ts], T], *args: *Ts) -> T:
        """Run a bounded read, in a snapshot. Raises what the work raises, Busy, StorageUnavailable, AsyncioOnly.

        Taking and releasing a snapshot costs four system calls, a sixth of a whole GET under load, so with
        `snapshot_per_turn` the reads of a turn share one. No client can tell: a turn begins after the requests
        that it serves have come in, so whatever was acknowledged before them is there.
        """
        loop = _running_loop()
        try:
            return work(self._reading.get(loop) or self._begin_turn(loop), *args)
        except (pw.DatabaseError, sqlite3.Error, OSError) as error:
            if db := self._reading.get(loop):
                db.close()
            self._reading.pop(loop, None)
            if not is_locked(error):
                raise refusal(error, "Nothing was read.") from error
        finally:
            if not self._snapshot_per_turn:
                self._end_turn(loop)
        # Somebody holds the file alone. Waiting here would stop every other request.
        return await in_thread(self._read_patiently, work, *args)

    def _begin_turn(self, loop: asyncio.AbstractEventLoop) -> Database:
        self._reading[loop] = None  # A fork waits for whoever is in here.
        if self._paused:
            self._wait(loop)
        self._file.verify()
        try:
            db = self._idle_readers.pop()
        except IndexError:
            db = self._file.open(0, cache_size=READER_CACHE)
        self._reading[loop] = db
        db.begin()
        if self._snapshot_per_turn:
            loop.call_soon(self._end_turn, loop)
        return db

    def _end_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        if db := self._reading.get(loop):
            db.rollback()
            self._idle_readers.append(db)
        self._reading.pop(loop, None)

    def _read_patiently(self, work: Callable[..., T], *args: Any) -> T:
        db = self._file.open(self._busy_timeout)
        self._wait(db)
        try:
            self._file.verify()
            return work(db, *args)
        except (pw.DatabaseError, sqlite3.Error, OSError) as error:
            raise refusal(error, "Nothing was read.") from error
        finally:
            db.close()
            self._reading.pop(db)

    def _wait(self, reader: object) -> None:
        """Wait until no fork is under way; from then on a fork waits for this reader."""
        self._reading.pop(reader, None)
        with self._gate:
            self._reading[reader] = None

    async def write(self, work: Callable[[pw.Database, *Ts], T], *args: *Ts, alone: bool = False) -> T:
        """Run a write; when this returns it is on the disk.

        The work must be atomic in itself: what it raises is its own refusal, and the rest
        of its group is committed. Work of many statements would pay for that with a savepoint,
        which makes a bulk take 2.7 times as long: run it `alone`, outside any transaction, and
        what it opens is one. A work may be run twice, when what the first run did was undone.
        Raises what the work raises, ConstraintViolated, Busy, StorageUnavailable, AsyncioOnly.

        The writes of one turn of the event loop are handed over together: an eighth more
        requests a second where one in ten writes.
        """
        loop = _running_loop()
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
        _running_loop()
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                await self.write(self._probe)
        except TimeoutError as error:
            raise StorageUnavailable(f"No write transaction opened within {READY_TIMEOUT:g} s.") from error

    def _probe(self, db: pw.Database) -> None:
        try:
            check_writable(self._path)
        except SetupError as error:
            raise StorageUnavailable(str(error)) from error
        self._schema.check(db)
        if self._writer.failed:
            # Only a commit that writes can tell whether commits work again: store a value as it is.
            ((version,),) = fetch_all(db, "PRAGMA user_version")
            db.execute_sql(f"PRAGMA user_version = {version}")

    def end_turn(self) -> None:
        """Let go of what the turn of the running event loop, if one runs, has read, and hand over what it writes."""
        with suppress(RuntimeError):
            loop = asyncio.get_running_loop()
            self._end_turn(loop)
            self._hand_over(loop)

    def close(self) -> None:
        """Finish what was accepted, then let go of the file."""
        self.end_turn()
        with self._gate:
            _close(self._writer, self._idle_readers, self._file)

    def pause(self) -> None:
        """Finish what was accepted, let go of the file, and keep whoever wants it waiting, until `resume`."""
        self.end_turn()
        self._gate.acquire()
        self._paused = True
        self._writer.pause()
        until = time.monotonic() + self._busy_timeout + MOST_READING
        while self._reading and time.monotonic() < until:
            time.sleep(0.001)
        _close_all(self._idle_readers)
        self._file.pause()

    def resume(self, *, forked: bool = False) -> None:
        """Open again at the next use; what waits in the parent of a process that was `forked` is not done twice."""
        if forked:
            # A connection that another thread was reading from is not to be closed here.
            self._left_behind, self._reading = self._reading, {}
            self._writing.clear()
        self._file.resume()
        self._writer.resume()
        self._paused = False
        self._gate.release()


async def in_thread(work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """Run what takes long beside the event loop. Raises what the work raises, AsyncioOnly."""
    _running_loop()
    return await asyncio.to_thread(work, *args, **named)


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        error = AsyncioOnly()
    logger.error(error.detail)
    raise error


def _close(writer: Writer, idle_readers: deque[Database], file: File) -> None:
    writer.close()
    _close_all(idle_readers)
    file.close()


def _close_all(idle_readers: deque[Database]) -> None:
    with suppress(IndexError):
        while True:
            idle_readers.pop().close()
