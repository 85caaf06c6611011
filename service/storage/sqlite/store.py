"""Run rules on the database for async callers: reads on the event loop itself, writes in groups on one thread.

A rule is a function `rule(db, *args)`. A rule that reads fetches a few indexed rows, which takes less time than handing
the read to another thread would. A read that turns out to be long is broken off, and run again in a thread. A rule that
writes waits for the writer thread. That thread takes all writes that are waiting, runs them in one transaction and
commits once. So one sync to the disk serves many callers, and no caller is told of success before its write is on the
disk.
"""

import asyncio
import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, TypeVarTuple

import peewee as pw

from service.errors import ServiceError, SetupError, StorageUnavailable
from service.storage import fetch
from service.storage.event_loop import running_loop
from service.storage.fork import pause_at_forks
from service.storage.groups import Job, check_ready
from service.storage.measured import Measured
from service.storage.patience import Patience, scans
from service.storage.sqlite.connections import Database, close_all, state
from service.storage.sqlite.file import File, check_writable
from service.storage.sqlite.schema import Schema
from service.storage.sqlite.slow import connection_class
from service.storage.sqlite.urls import database_path
from service.storage.sqlite.violations import is_interrupted, is_locked, unavailable
from service.storage.sqlite.writer import Writer

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Row = TypeVar("Row")


MOST_READING = 1.0
"""Seconds that a fork waits for a read in another thread, beyond the time that the read may wait for a lock."""

READER_CACHE = -2_000
"""The page cache of a connection that reads, in KiB (SQLite counts KiB where the number is negative).

It is SQLite's default. A larger cache would take memory and save no time, because each commit makes SQLite empty the
caches of all connections that read."""


class Store:
    """The rules' access to one database file that exists; several event loops and threads may share a store.

    The store opens the file at its first use, and again at the first use after `close` or after a fork.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        busy_timeout: float,
        max_pending_writes: int,
        snapshot_per_turn: bool = False,
        slow_ms: float = 0,
    ) -> None:
        """Remember which file is at the URL's path, so that another file put there later is refused.

        `busy_timeout` is how many seconds a statement waits for another connection's lock. With `snapshot_per_turn`,
        all reads of one turn (iteration) of the event loop share a snapshot. That is right only where nothing else in
        this program writes to the file: a later read of the same turn would not see such a write. Statements that take
        `slow_ms` milliseconds or more are logged, unless it is 0. Raises SetupError for a URL that names no SQLite
        file, OSError if there is no file.
        """
        self._path = database_path(url)
        self._busy_timeout = busy_timeout
        self._snapshot_per_turn = snapshot_per_turn
        self._file = File(self._path, connection_class(slow_ms / 1000))
        self._patience = Patience(busy_timeout)
        self._scans = scans()
        self._idle_readers: deque[Database] = deque()
        self._reading: dict[object, Database | None] = {}
        """The readers that a fork waits for: each event loop with the connection of its turn, and other connections."""
        self._left_behind: dict[object, Database | None] = {}
        """In a child process: what was in `_reading` when the parent forked. Its connections are the parent's."""
        self._gate = threading.Lock()
        """Held while a fork is under way, so that no read begins."""
        self._paused = False
        self._schema = Schema(url)
        self._writer = Writer(self._file, busy_timeout, max_pending_writes, self._schema.verify)
        # Writes that were accepted are still done when the program ends, or when nothing refers to the store any more.
        weakref.finalize(self, _close, self._writer, self._idle_readers, self._file)
        pause_at_forks(self)

    def open(self) -> None:
        """Hold the file from now on, and not only from its first use on. Raises OSError.

        While the file is held, the command `rollback` refuses to undo a migration of it.
        """
        self._file.verify()

    async def read(self, rule: Callable[[pw.Database, *Ts], T], *args: *Ts) -> T:
        """Do what `Store.read` in `service.storage` says.

        To take a snapshot and release it costs four system calls, a sixth of a whole GET under load. With
        `snapshot_per_turn`, all reads of one turn of the event loop share a snapshot. A client of the server cannot
        notice that: every request that a turn serves came in before the turn began. So the snapshot, which is taken
        within the turn, has each write that was acknowledged before the client sent the request.
        """
        loop = running_loop()
        try:
            db = self._reading.get(loop) or self._begin_turn(loop)
            db.ticks = 0
            return rule(db, *args)
        except (pw.DatabaseError, sqlite3.Error, OSError) as error:
            if not is_interrupted(error):
                if broken := self._reading.get(loop):
                    broken.close()
                self._reading.pop(loop, None)
                if not is_locked(error):
                    raise unavailable(error, "Nothing was read.") from error
        finally:
            if not self._snapshot_per_turn:
                self._end_turn(loop)
        # The read takes long, or another program holds an exclusive lock: every other request would wait meanwhile.
        return await self._patience.run(lambda seconds: self._read_patiently(seconds, rule, *args))

    async def scan(self, rule: Callable[[pw.Database, *Ts], T], *args: *Ts) -> T:
        """Do what `Store.scan` in `service.storage` says."""
        running_loop()
        return await self._scans.run(lambda _: self._read_patiently(self._busy_timeout, rule, *args))

    def _begin_turn(self, loop: asyncio.AbstractEventLoop) -> Database:
        self._reading[loop] = None  # A fork waits for each event loop and connection that is a key of `_reading`.
        if self._paused:
            self._wait(loop)
        self._file.verify()
        try:
            db = self._idle_readers.pop()
        except IndexError:
            db = self._file.open(0, cache_size=READER_CACHE)
            self._reading[loop] = db
            db.limit_reads()
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

    def _read_patiently(self, seconds: float, rule: Callable[..., T], *args: Any) -> T:
        db = self._file.open(seconds, cache_size=READER_CACHE)
        self._wait(db)
        try:
            self._file.verify()
            db.begin()
            return rule(db, *args)
        except (pw.DatabaseError, sqlite3.Error, OSError) as error:
            raise unavailable(error, "Nothing was read.") from error
        finally:
            db.close()
            self._reading.pop(db)

    def _wait(self, reader: object) -> None:
        """Wait until no fork is under way, then note a reader, so that the next fork waits for it."""
        self._reading.pop(reader, None)
        with self._gate:
            self._reading[reader] = None

    async def write(self, rule: Callable[[pw.Database, *Ts], T], *args: *Ts, alone: bool = False) -> T:
        """Do what `Store.write` in `service.storage` says.

        The rule must be atomic in itself: when it raises an error, that error goes to its caller alone, and the other
        rules of its group are committed. A rule of many statements would need a savepoint for that, which makes a bulk
        take 2.7 times as long. Run such a rule with `alone`: it is called outside any transaction and opens its own. A
        rule may be run a second time, after all that its first run did was undone.
        """
        result: T = await self._writer.ask(Job(rule, args, alone=alone))
        return result

    async def write_row(self, rule: Callable[[pw.Database, Sequence[Row]], Sequence[T | ServiceError]], row: Row) -> T:
        """Do what `Store.write_row` in `service.storage` says.

        Where rows for the same rule follow each other in a group, the writer thread calls the rule once for all.
        """
        result: T = await self._writer.ask(Job(rule, (row,), is_row=True))
        return result

    async def changed(self, since: object = None) -> object:
        """Do what `Store.changed` in `service.storage` says."""
        from service.storage.news import wait  # noqa: PLC0415 - only who follows the file pays for it.

        return await wait(self.read, state, self._writer.told, since)

    async def check_ready(self) -> None:
        """Do what `Store.check_ready` in `service.storage` says."""
        running_loop()
        await check_ready(self.write, self._probe)

    def _probe(self, db: pw.Database) -> None:
        try:
            check_writable(self._path)
        except SetupError as error:
            raise StorageUnavailable(str(error)) from error
        self._schema.check(db)
        if self._writer.failed:
            # After a commit that failed, only a commit that writes can tell whether commits work again. So write a
            # value that changes nothing: user_version as it is.
            ((version,),) = fetch(db, "PRAGMA user_version")
            db.execute_sql(f"PRAGMA user_version = {version}")

    def measured(self) -> Measured:
        """Do what `Store.measured` in `service.storage` says."""
        return self._writer.commits.measured(self._writer.waiting, self._writer.sizes)

    def end_turn(self) -> None:
        """End the running event loop's turn early: release its snapshot and hand its writes to the writer thread.

        Where no event loop runs in this thread, nothing is done.
        """
        with suppress(RuntimeError):
            loop = asyncio.get_running_loop()
            self._end_turn(loop)
            self._writer.end_turn(loop)

    def close(self) -> None:
        """Finish the writes that were accepted, then close every connection to the file."""
        self.end_turn()
        with self._gate:
            _close(self._writer, self._idle_readers, self._file)

    def pause(self) -> None:
        """Finish the writes that were accepted, close every connection, and make callers wait until `resume`."""
        self.end_turn()
        self._gate.acquire()
        self._paused = True
        self._writer.pause()
        until = time.monotonic() + self._busy_timeout + MOST_READING
        while self._reading and time.monotonic() < until:
            time.sleep(0.001)
        close_all(self._idle_readers)
        self._file.pause()

    def resume(self, *, forked: bool = False) -> None:
        """Let callers go on; their next use opens the file again.

        With `forked`, in a child process, the writes that wait are forgotten: the parent does them.
        """
        if forked:
            # A connection that another thread of the parent was reading from must not be closed in the child: keep a
            # reference to it.
            self._left_behind, self._reading = self._reading, {}
            self._patience.forget()
            self._scans.forget()
            self._writer.forget()
        self._file.resume()
        self._writer.resume()
        self._paused = False
        self._gate.release()


def _close(writer: Writer, idle_readers: deque[Database], file: File) -> None:
    writer.close()
    close_all(idle_readers)
    file.close()
