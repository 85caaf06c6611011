"""The one thread that writes, in groups: one transaction, and one sync to the disk, serves many callers."""

import asyncio
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

from service.database import Database, File, is_locked, refusal
from service.errors import Busy, ServiceError

PATIENCE, MOST_PATIENCE = 0.25, 0.01
"""How long a group waits for callers who were just answered: a share of what the last one took, and seconds at most."""

Together = Callable[[pw.Database, Sequence[tuple[Any, ...]]], Sequence[Any]]
"""Runs one kind of work for several callers, given the arguments of each: a result or a ServiceError for each."""

_NOTHING = "Nothing was kept."
_UNKNOWN = "Whether anything was kept is not known."


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
        self._max_pending = max_pending
        self._together = together
        self._verify_schema = verify_schema
        self._pending: list[Job] = []
        self._expected = 0
        self._patience = 0.0
        self._ended = 0.0
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

    def _run(self) -> None:
        while self._run_group():
            pass

    def _run_group(self) -> bool:
        """Serve one group and forget it: what waits for the next one keeps no job alive."""
        group = self._next_group()
        started = time.monotonic()
        self._commit(group)
        self._ended = time.monotonic()
        self._patience = min((self._ended - started) * PATIENCE, MOST_PATIENCE)
        with self._changed:
            self._expect(len(group) + len(self._pending), (*group, *self._pending))
        by_loop = defaultdict(list)
        for job in group:
            by_loop[job.loop].append(job)
        for loop, jobs in by_loop.items():
            with suppress(RuntimeError):  # A loop that is closed has nobody waiting.
                loop.call_soon_threadsafe(settle, jobs)
        return bool(group)

    def _next_group(self) -> list[Job]:
        """Wait for work and take what may share a transaction; none means that the writer is closed.

        Callers who were just answered tend to come back at once. Waiting for them makes one group of what
        would be two that take turns for ever, each with a sync: 1.1 times as many enrollments a second.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._closing)
            if time.monotonic() - self._ended > MOST_PATIENCE:  # They have gone.
                self._expected = 0
            self._changed.wait_for(lambda: len(self._pending) >= self._expected or self._closing, self._patience)
            end = next((at for at, job in enumerate(self._pending) if job.alone), len(self._pending)) or 1
            group, self._pending = self._pending[:end], self._pending[end:]
            if not group:
                self._db.close()
                self._thread, self._closing = None, False
        return group

    def _commit(self, group: Sequence[Job]) -> None:
        if not group:
            return
        self._db.committing = False
        try:
            self._file.verify()
            with nullcontext() if group[0].alone else self._db.atomic("IMMEDIATE"):
                self._verify_schema(self._db)
                for work, jobs in groupby(group, attrgetter("work")):
                    self._run_work(work, list(jobs))
            self._file.verify()
            self.failed = False
        except Exception as error:  # noqa: BLE001 - nothing may end this thread: its callers would wait for ever.
            # A commit that found a lock in its way was rolled back; of another failure nobody can tell.
            kept = _UNKNOWN if self._db.committing and not is_locked(error) else _NOTHING
            answer = error if isinstance(error, ServiceError) else refusal(error, kept)
            self.failed |= not isinstance(answer, Busy)
            for job in group:
                job.error = answer
            self._db.close()

    def _run_work(self, work: Callable[..., Any], jobs: Sequence[Job]) -> None:
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

    def _work(self, job: Job) -> None:
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
