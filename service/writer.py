"""The one thread that writes, in groups: one transaction, and one sync to the disk, serves many callers."""

import asyncio
import math
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from itertools import groupby
from operator import attrgetter
from typing import Any

import attrs
import peewee as pw

from service.database import Database, fetch_all, is_failure, is_locked, may_leave_half, refusal, violation
from service.errors import Busy, ServiceError, StorageUnavailable
from service.file import File

PATIENCE, MOST_PATIENCE = 0.25, 0.01
"""How long a group waits for callers who were just answered: a share of what the last one took, and seconds at most."""

LOOK_AGAIN = 1.0
"""Seconds after which it is looked again whether the -wal is too large."""

Together = Callable[[pw.Database, Sequence[tuple[Any, ...]]], Sequence[Any]]
"""Runs one kind of work for several callers, given the arguments of each: a result or a ServiceError for each."""

_NOTHING = "Nothing was kept."
_UNKNOWN = "Whether anything was kept is not known."


class _Half(Exception):
    """A transaction is to be undone, as a unit in it may have left half of itself behind."""


@attrs.define(eq=False)
class Job:
    """A unit of work, who waits for it on which event loop, and what came of it."""

    work: Callable[..., Any]
    args: tuple[Any, ...]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    alone: bool
    result: Any = None
    error: Exception | None = None


class Writer:
    """The one thread that writes. It starts with the first job and ends with `close`."""

    def __init__(
        self,
        file: File,
        busy_timeout: float,
        max_pending: int,
        together: Mapping[Callable[..., Any], Together],
        verify_schema: Callable[[Database], None],
    ) -> None:
        """Open the file at the first job; `verify_schema` raises a ServiceError when nothing may be written."""
        self.failed = False
        """Whether the last commit failed."""
        self._file = file
        self._db = file.open(busy_timeout)
        self._busy_timeout = busy_timeout
        self._max_pending = max_pending
        self._together = together
        self._verify_schema = verify_schema
        self._pending: list[Job] = []
        self._expected = 0
        self._patience = 0.0
        self._ended = 0.0
        self._look_at = math.inf
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    def submit(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Take the jobs that there is room for; give the others, each with its error."""
        failure = None
        with self._changed:
            room = max(0, self._max_pending - len(self._pending))
            try:
                self._start()
            except RuntimeError as error:
                room, failure = 0, error
            self._pending += jobs[:room]
            self._expect(self._expected, jobs)
            self._changed.notify()
        for job in jobs[room:]:
            job.error = failure or Busy(f"{self._max_pending} writes are waiting already. {_NOTHING}")
        return jobs[room:]

    def _expect(self, callers: int, jobs: Sequence[Job]) -> None:
        """Expect so many in the next group, but no more than may wait, and nobody where work alone ends it early."""
        self._expected = 0 if any(job.alone for job in jobs) else min(callers, self._max_pending)

    def _start(self) -> None:
        if self._thread is None:
            # A daemon, so that it does not keep a host program alive; the finalizer drains it.
            thread = threading.Thread(target=self._run, name="enrollment-writer", daemon=True)
            thread.start()
            self._thread = thread

    def close(self) -> None:
        """Finish what was taken, then let go of the file."""
        with self._changed:
            thread = self._thread
            self._closing = thread is not None
            self._changed.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def pause(self) -> None:
        """Finish what was taken, let go of the file, and take nothing more until `resume`."""
        self._changed.acquire()
        while self._thread not in {None, threading.current_thread()}:
            self._changed.release()
            self.close()
            self._changed.acquire()

    def resume(self) -> None:
        """Take work again."""
        self._changed.release()

    def _run(self) -> None:
        while self._run_group():
            pass

    def _run_group(self) -> bool:
        """Serve one group and forget it: what waits for the next one keeps no job alive."""
        group = self._next_group()
        if group:
            self._serve(group)
        if time.monotonic() >= self._look_at:
            self._shorten_log()
        return group is not None

    def _serve(self, group: Sequence[Job]) -> None:
        started = time.monotonic()
        self._commit(group)
        self._ended = time.monotonic()
        self._patience = min((self._ended - started) * PATIENCE, MOST_PATIENCE)
        self._look_at = min(self._look_at, self._ended + LOOK_AGAIN)
        with self._changed:
            self._expect(len(group) + len(self._pending), (*group, *self._pending))
        by_loop = defaultdict(list)
        for job in group:
            by_loop[job.loop].append(job)
        for loop, jobs in by_loop.items():
            with suppress(RuntimeError):  # A loop that is closed has nobody waiting.
                loop.call_soon_threadsafe(settle, jobs)

    def _next_group(self) -> list[Job] | None:
        """Wait for work and take what may share a transaction; none: look after the log; None: the writer is closed.

        Callers who were just answered tend to come back at once. Waiting for them makes one group of what
        would be two that take turns for ever, each with a sync: 1.1 times as many enrollments a second.
        """
        with self._changed:
            idle = None if self._look_at == math.inf else max(0.0, self._look_at - time.monotonic())
            if not self._changed.wait_for(lambda: self._pending or self._closing, idle):
                return []
            if time.monotonic() - self._ended > MOST_PATIENCE:  # They have gone.
                self._expected = 0
            self._changed.wait_for(lambda: len(self._pending) >= self._expected or self._closing, self._patience)
            end = next((at for at, job in enumerate(self._pending) if job.alone), len(self._pending)) or 1
            group, self._pending = self._pending[:end], self._pending[end:]
            if not group:
                self._db.close()
                self._file.close()
                self._thread, self._closing = None, False
                return None
        return group

    def _shorten_log(self) -> None:
        """Cut the -wal off once it is too large and nobody reads an old state of it any more, without waiting for them.

        While a reader kept it from being copied to the database, it has grown; and the next one to write may be late.
        """
        self._look_at = math.inf
        with suppress(pw.DatabaseError, OSError):
            self._file.verify()
            ((limit,),) = fetch_all(self._db, "PRAGMA journal_size_limit")
            if self._file.log_size() > limit:
                self._look_at = time.monotonic() + LOOK_AGAIN
                self._db.timeout = 0
                try:
                    fetch_all(self._db, "PRAGMA wal_checkpoint(TRUNCATE)")
                finally:
                    self._db.timeout = self._busy_timeout

    def _commit(self, group: Sequence[Job]) -> None:
        """Commit a group at once, or, where a constraint or a rule undid that, unit by unit: only one is to blame."""
        if not self._commit_at_once(group) and len(group) > 1:
            for job in group:
                job.result = job.error = None  # What came of the first run is undone.
                self._commit_at_once([job])

    def _commit_at_once(self, group: Sequence[Job]) -> bool:
        """Run a group in one transaction, and put what came of it in its jobs; tell whether it was not undone."""
        self._db.committing, self._db.violated = False, None
        try:
            self._file.verify()
            with nullcontext() if group[0].alone else self._db.atomic("IMMEDIATE"):
                self._verify_schema(self._db)
                for work, jobs in groupby(group, attrgetter("work")):
                    self._run_work(work, list(jobs))
                self._undo_halves(group)
            self._file.verify()
            self.failed = False
        except _Half:
            return False
        except Exception as error:  # noqa: BLE001 - nothing may end this thread: its callers would wait for ever.
            if not is_failure(error) and not isinstance(error, StorageUnavailable):
                for job in group:
                    if not isinstance(job.error, ServiceError):
                        job.error = self._db.violated or violation(self._db, error)
                return False
            if isinstance(error, OSError):
                self._file.rescue()
            # A commit that found a lock in its way was rolled back; of another failure nobody can tell.
            kept = _UNKNOWN if self._db.committing and not is_locked(error) else _NOTHING
            answer = error if isinstance(error, StorageUnavailable) else refusal(error, kept)
            self.failed |= not isinstance(answer, Busy)
            for job in group:
                job.error = answer
            self._db.close()
        return True

    def _undo_halves(self, group: Sequence[Job]) -> None:
        """Raise where a unit that was refused may have left half of itself behind."""
        refused = any(job.error for job in group) and not group[0].alone
        if refused and (len(group) == 1 or may_leave_half(self._db)):
            self._file.verify()
            raise _Half

    def _run_work(self, work: Callable[..., Any], jobs: Sequence[Job]) -> None:
        together = self._together.get(work) if len(jobs) > 1 else None
        if together is None:
            for job in jobs:
                self._work(job)
            return
        # What goes wrong here is no caller's own: it undoes the group, and each is run by itself.
        for job, result in zip(jobs, together(self._db, [job.args for job in jobs]), strict=True):
            if isinstance(result, ServiceError):
                job.error = result
            else:
                job.result = result

    def _work(self, job: Job) -> None:
        try:
            job.result = job.work(self._db, *job.args)
        except BaseException as error:  # noqa: BLE001 - it is its caller's, and may not end this thread.
            job.error = RuntimeError(f"The work raised {error!r}.")
            if isinstance(error, Exception) and not isinstance(error, StopIteration):  # Those fit in a future.
                job.error = error
        # A full disk, a failed write or a host's ROLLBACK undoes the whole transaction, not just the statement; what
        # follows would then commit by itself.
        if not job.alone and not self._db.connection().in_transaction:
            raise job.error or pw.OperationalError("the transaction was undone")
        if isinstance(job.error, (pw.IntegrityError, sqlite3.IntegrityError)):
            job.error = self._db.violated or violation(self._db, job.error)
        elif isinstance(job.error, (pw.DatabaseError, sqlite3.Error)):
            if job.alone:
                raise job.error
            job.error = refusal(job.error, _NOTHING)


def settle(jobs: Sequence[Job]) -> None:
    """Tell each caller what came of its job; to be called on the callers' event loop."""
    for job in jobs:
        if job.future.done():  # Its caller gave up waiting.
            continue
        if job.error is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(job.error)
