"""Runs units of work on the database for async callers: reads inline, writes in groups.

A unit of work is a function `work(db, *args)`. A read is a few indexed rows, which cost
less than handing them to a thread would. A write waits its turn: one thread takes all that
is waiting, runs it in one transaction and commits once, so that one sync to the disk serves
many callers, and none of them hears of success before it is on the disk.
"""

import asyncio
import errno
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, TypeVarTuple

import attrs
import peewee as pw

from service.database import Database, database_path, fetch_all, is_locked, open_database
from service.errors import Busy, ServiceError, SetupError, StorageUnavailable
from service.schema import check

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

READY_TIMEOUT = 1.0
"""Seconds within which a store that is ready opens a write transaction."""

READER_CACHE = -2_000
"""KiB, SQLite's own: each commit empties the caches of readers, so more would take memory and gain no time."""

PATIENCE, MOST_PATIENCE = 0.25, 0.01
"""How long a group waits for callers who were just answered: a share of what the last one took, and seconds at most."""

Together = Callable[[pw.Database, Sequence[tuple[Any, ...]]], Sequence[Any]]
"""Runs one kind of work for several callers, given the arguments of each: a result or a ServiceError for each."""

_NOTHING = "Nothing was kept."
_UNKNOWN = "Whether anything was kept is not known."

logger = logging.getLogger(__name__)


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

        Calls of a work that `together` names are run at once when they follow each other in a group.
        """
        self._url = url
        self._busy_timeout = busy_timeout
        self._file = _File(database_path(url))
        self._idle_readers: deque[Database] = deque()
        self._reading: dict[asyncio.AbstractEventLoop, Database] = {}
        self._writing: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
        self._writer = _Writer(self._file, busy_timeout, max_pending_writes, together)
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
                raise _refusal(error, "Nothing was read.") from error
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
            raise _refusal(error, "Nothing was read.") from error
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
        job = _Job(work, args, loop, loop.create_future(), alone)
        if loop in self._writing:
            self._writing[loop].append(job)
        else:
            self._writing[loop] = [job]
            loop.call_soon(self._hand_over, loop)
        result: T = await job.future
        return result

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop in self._writing:
            _settle(self._writer.submit(self._writing.pop(loop)))

    async def check_ready(self) -> None:
        """Raise Busy or StorageUnavailable unless a write would be accepted and kept now."""
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                await self.write(self._probe)
        except TimeoutError as error:
            raise StorageUnavailable(f"No write transaction opened within {READY_TIMEOUT:g} s.") from error

    def _probe(self, db: pw.Database) -> None:
        try:
            check(db, self._url)
        except SetupError as error:
            raise StorageUnavailable(str(error)) from error
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


def _close(writer: "_Writer", idle_readers: "deque[Database]") -> None:
    writer.close()
    with suppress(IndexError):
        while True:
            idle_readers.pop().close()


class _File:
    """The file that the store was given: SQLite itself goes on writing to one that is gone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity = self._look()

    def _look(self) -> tuple[int, int]:
        found = os.stat(self._path)  # noqa: PTH116 - on the path of every request, and Path.stat is slower.
        return found.st_dev, found.st_ino

    def verify(self) -> None:
        """Raise OSError unless the file that was opened is still the one at the path."""
        if self._look() != self._identity:
            raise OSError(errno.ESTALE, "its file was replaced while the service ran; restart the service")

    def open(self, busy_timeout: float, **pragmas: Any) -> Database:
        return open_database(self._path, busy_timeout=busy_timeout, thread_safe=False, **pragmas)


@attrs.define(eq=False)
class _Job:
    work: Callable[..., Any]
    args: tuple[Any, ...]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    alone: bool
    result: Any = None
    error: Exception | None = None


class _Writer:
    """The one thread that writes. It starts with the first job and ends with `close`."""

    def __init__(
        self,
        file: _File,
        busy_timeout: float,
        max_pending: int,
        together: Mapping[Callable[..., Any], Together],
    ) -> None:
        self.failed = False
        """Whether the last commit failed."""
        self._file = file
        self._db = file.open(busy_timeout)
        self._max_pending = max_pending
        self._together = together
        self._pending: list[_Job] = []
        self._expected = 0
        self._patience = 0.0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    def submit(self, jobs: Sequence[_Job]) -> Sequence[_Job]:
        """Take the jobs that there is room for; give the others, each with its error."""
        failure = None
        with self._changed:
            room = max(0, self._max_pending - len(self._pending))
            try:
                self._start()
            except RuntimeError as error:
                room, failure = 0, error
            self._pending += jobs[:room]
            self._changed.notify()
        for job in jobs[room:]:
            job.error = failure or Busy(f"{self._max_pending} writes are waiting already. {_NOTHING}")
        return jobs[room:]

    def _start(self) -> None:
        if self._thread is None:
            # A daemon, so that it does not keep a host program alive; the finalizer drains it.
            thread = threading.Thread(target=self._run, name="enrollment-writer", daemon=True)
            thread.start()
            self._thread = thread

    def close(self) -> None:
        with self._changed:
            thread = self._thread
            self._closing = thread is not None
            self._changed.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while self._run_group():
            pass

    def _run_group(self) -> bool:
        """Serve one group and forget it: what waits for the next one keeps no job alive."""
        group = self._next_group()
        started = time.monotonic()
        self._commit(group)
        self._patience = min((time.monotonic() - started) * PATIENCE, MOST_PATIENCE)
        self._expected = sum(not job.alone for job in group) + len(self._pending)
        by_loop = defaultdict(list)
        for job in group:
            by_loop[job.loop].append(job)
        for loop, jobs in by_loop.items():
            with suppress(RuntimeError):  # A loop that is closed has nobody waiting.
                loop.call_soon_threadsafe(_settle, jobs)
        return bool(group)

    def _next_group(self) -> list[_Job]:
        """Wait for work and take what may share a transaction; none means that the writer is closed.

        Who was just answered tends to come back at once. To wait for them makes one group of what would
        be two that take turns for ever, each with a sync: 1.1 times as many enrollments a second.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._closing)
            self._changed.wait_for(lambda: len(self._pending) >= self._expected or self._closing, self._patience)
            end = next((at for at, job in enumerate(self._pending) if job.alone), len(self._pending)) or 1
            group, self._pending = self._pending[:end], self._pending[end:]
            if not group:
                self._db.close()
                self._thread, self._closing = None, False
        return group

    def _commit(self, group: Sequence[_Job]) -> None:
        if not group:
            return
        self._db.committing = False
        try:
            self._file.verify()
            with nullcontext() if group[0].alone else self._db.atomic("IMMEDIATE"):
                for work, jobs in groupby(group, attrgetter("work")):
                    self._run_work(work, list(jobs))
            self._file.verify()
            self.failed = False
        except Exception as error:  # noqa: BLE001 - nothing may end this thread: its callers would wait for ever.
            # A commit that found a lock in its way was rolled back; of another failure nobody can tell.
            kept = _UNKNOWN if self._db.committing and not is_locked(error) else _NOTHING
            refusal = _refusal(error, kept)
            self.failed |= not isinstance(refusal, Busy)
            for job in group:
                job.error = refusal
            self._db.close()

    def _run_work(self, work: Callable[..., Any], jobs: Sequence[_Job]) -> None:
        together = self._together.get(work) if len(jobs) > 1 else None
        if together is None:
            for job in jobs:
                self._work(job)
            return
        # What goes wrong here is no caller's own: it undoes the group.
        for job, result in zip(jobs, together(self._db, [job.args for job in jobs]), strict=True):
            if isinstance(result, ServiceError):
                job.error = result
            else:
                job.result = result

    def _work(self, job: _Job) -> None:
        try:
            job.result = job.work(self._db, *job.args)
        except BaseException as error:  # noqa: BLE001 - it is its caller's, and may not end this thread.
            job.error = RuntimeError(f"The work raised {error!r}.")
            if isinstance(error, Exception) and not isinstance(error, StopIteration):  # Those fit in a future.
                job.error = error
        # A full disk or a failed write undoes the whole transaction, not just the statement; what
        # follows would then commit by itself.
        if not job.alone and not self._db.connection().in_transaction:
            raise job.error or pw.OperationalError("the transaction was undone")
        # A constraint that no rule expects is a defect; any other error is the database's own.
        defect = isinstance(job.error, pw.IntegrityError) and not self._db.committing
        if isinstance(job.error, (pw.DatabaseError, sqlite3.Error)) and not defect:
            if job.alone:
                raise job.error
            job.error = _refusal(job.error, _NOTHING)


def _settle(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        if job.future.done():  # Its caller gave up waiting.
            continue
        if job.error is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(job.error)


def _refusal(error: Exception, kept: str) -> ServiceError:
    """Put a database error in the service's words, and in the log."""
    if is_locked(error):
        return Busy(f"Another process holds the database. {kept}")
    logger.error("The database cannot be used.", exc_info=error)
    cause: BaseException = error
    while cause.__context__ is not None:  # A rollback that fails hides what it was to undo.
        cause = cause.__context__
    return StorageUnavailable(f"The database cannot be used: {getattr(cause, 'strerror', cause)}. {kept}")
