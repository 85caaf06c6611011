"""The writer thread, which alone writes to the database, in groups of jobs: one sync to the disk serves a group."""

import asyncio
import math
import sqlite3
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from itertools import groupby
from operator import attrgetter
from typing import Any

import attrs
import peewee as pw

from service.errors import Busy, ServiceError, StorageUnavailable
from service.storage import fetch
from service.storage.sqlite.commits import Commits
from service.storage.sqlite.connections import Database
from service.storage.sqlite.file import File
from service.storage.sqlite.others import Others
from service.storage.sqlite.violations import is_failure, is_locked, may_leave_half, unavailable, violation

LOOK_AGAIN = 1.0
"""Seconds from a write until the writer thread looks around, and from one look to the next while there is reason to."""

_NOTHING = "Nothing was kept."
_UNKNOWN = "Whether anything was kept is not known."


class _Half(Exception):
    """Raised to undo a transaction in which a refused rule may have left half of its changes."""


@attrs.define(eq=False)
class Job:
    """A rule to run, the future and event loop of the caller that waits, and the rule's result or error."""

    rule: Callable[..., Any]
    args: tuple[Any, ...]
    alone: bool = False
    """Whether the rule is a group by itself, and is called outside any transaction because it opens its own."""
    is_row: bool = False
    """Whether the rule takes a list of rows; `args` is one row then."""
    loop: asyncio.AbstractEventLoop = attrs.field(init=False)
    future: "asyncio.Future[Any]" = attrs.field(init=False)
    result: Any = None
    error: Exception | None = None


def _run_row(rule: Callable[..., Any], db: pw.Database, row: Any) -> Any:
    """Call a rule that takes many rows with one row. Raises the row's refusal."""
    (result,) = rule(db, [row])
    if isinstance(result, ServiceError):
        raise result
    return result


class Writer:
    """The writer thread and its queue; the thread starts with the first job and ends with `close`."""

    def __init__(
        self, file: File, busy_timeout: float, max_pending: int, verify_schema: Callable[[Database], None]
    ) -> None:
        """Keep what the thread needs; `verify_schema` raises a ServiceError when nothing may be written."""
        self.failed = False
        """Whether the last commit failed."""
        self.told: set[Callable[[], object]] = set()
        """What the thread calls behind each group: those wait for a commit."""
        self._file = file
        self._db = file.open(busy_timeout)
        self._db.timed = self.commits = Commits(file)
        self._others = Others()
        self._busy_timeout = busy_timeout
        self._max_pending = max_pending
        self._verify_schema = verify_schema
        self._pending: list[Job] = []
        self._alone: deque[Job] = deque()
        """The jobs that wait and are `alone`: a bulk's slices, and bulks that are one transaction."""
        self._alone_next = False
        """Whether the last group was none of those jobs, so that the first of them has its turn."""
        self._look_at = math.inf
        """When to look around, by the monotonic clock."""
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._pending) + len(self._alone)

    def submit(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Queue the jobs that there is room for; give the others back, each with its error set."""
        failure = None
        with self._changed:
            room = max(0, self._max_pending - self.waiting)
            try:
                self._start()
            except RuntimeError as error:
                room, failure = 0, error
            for job in jobs[:room]:
                (self._alone if job.alone else self._pending).append(job)
            self._changed.notify()
        for job in jobs[room:]:
            job.error = failure or Busy(f"{self._max_pending} writes are waiting already. {_NOTHING}")
        return jobs[room:]

    def _start(self) -> None:
        if self._thread is None:
            # A daemon thread does not keep the program from ending; the store's finalizer lets it finish its jobs.
            thread = threading.Thread(target=self._serve_groups, name="enrollment-writer", daemon=True)
            thread.start()
            self._thread = thread

    def close(self) -> None:
        """Finish the jobs in the queue, then close the file and end the thread."""
        with self._changed:
            thread = self._thread
            self._closing = thread is not None
            self._changed.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def pause(self) -> None:
        """Finish the jobs in the queue, close the file, and make `submit` wait until `resume`."""
        self._changed.acquire()
        while self._thread not in {None, threading.current_thread()}:
            self._changed.release()
            self.close()
            self._changed.acquire()

    def resume(self) -> None:
        """Let `submit` take jobs again."""
        self._changed.release()

    def _serve_groups(self) -> None:
        while self._serve_group():
            pass

    def _serve_group(self) -> bool:
        """Serve one group, and forget it, so that its jobs can be freed while the thread waits for the next one."""
        group = self._next_group()
        if group:
            self._serve(group)
        if time.monotonic() >= self._look_at:
            self._look_around()
        return group is not None

    def _serve(self, group: Sequence[Job]) -> None:
        self._commit(group)
        self.commits.groups.observe(len(group))
        self._look_at = min(self._look_at, time.monotonic() + LOOK_AGAIN)
        by_loop = defaultdict(list)
        for job in group:
            by_loop[job.loop].append(job)
        for loop, jobs in by_loop.items():
            with suppress(RuntimeError):  # The event loop is closed, so no caller waits on it.
                loop.call_soon_threadsafe(settle, jobs)
        for tell in self.told.copy():
            tell()

    def _next_group(self) -> list[Job] | None:
        """Wait for jobs, and take those that may share a transaction.

        A job that is `alone` is a group by itself. Such jobs take turns with groups of the others, so a single write
        waits for one of them at most, however many there are, and neither kind waits for ever.

        Gives an empty list when it is time to look around, and None when the writer is closed.
        """
        with self._changed:
            idle = None if self._look_at == math.inf else max(0.0, self._look_at - time.monotonic())
            if not self._changed.wait_for(lambda: self._pending or self._alone or self._closing, idle):
                return []
            if self._alone and (self._alone_next or not self._pending):
                group, self._alone_next = [self._alone.popleft()], False
            else:
                group, self._pending, self._alone_next = self._pending, [], True
            if not group:
                self._db.close()
                self._file.close()
                self._thread, self._closing = None, False
                return None
        return group

    def _look_around(self) -> None:
        """Look whether something else writes to the file, and whether the -wal is too large.

        A long reader keeps SQLite from copying the -wal to the database, so the -wal grows meanwhile. Only the next
        write would shorten it, which may come late. So the -wal is truncated here once no connection reads an old state
        from it any more. The thread never waits for readers here.
        """
        self._look_at = math.inf
        with suppress(pw.DatabaseError, OSError):
            self._file.verify()
            ((limit,),) = fetch(self._db, "PRAGMA journal_size_limit")
            self._others.look(self._db)
            if self._file.log_size() > limit:
                self._look_at = time.monotonic() + LOOK_AGAIN
                self.commits.truncate(self._db)

    def _commit(self, group: Sequence[Job]) -> None:
        """Commit a group in one transaction or, where a constraint or a rule undid it, job by job.

        Only one job is to blame for that, and the others are to be kept.
        """
        if not self._commit_at_once(group) and len(group) > 1:
            for job in group:
                job.result = job.error = None  # These are of the first run, which was undone.
                self._commit_at_once([job])

    def _commit_at_once(self, group: Sequence[Job]) -> bool:
        """Run a group in one transaction, and set each job's result or error; give False if one job undid it."""
        self._db.committing, self._db.violated = False, None
        try:
            self._file.verify()
            with nullcontext() if group[0].alone else self._db.atomic("IMMEDIATE"):
                self._verify_schema(self._db)
                for _, jobs in groupby(group, attrgetter("rule", "is_row")):
                    self._run([*jobs])
                self._undo_halves(group)
            self._file.verify()
            self.failed = False
        except _Half:
            return False
        except Exception as error:  # noqa: BLE001 - if the writer thread ended, callers would wait for ever.
            if not is_failure(error) and not isinstance(error, StorageUnavailable):
                for job in group:
                    if not isinstance(job.error, ServiceError):
                        job.error = self._db.violated or violation(self._db, error)
                return False
            if isinstance(error, OSError):
                self._file.rescue()
            # A COMMIT that met another connection's lock was rolled back. Of another failure nobody can tell.
            kept = _UNKNOWN if self._db.committing and not is_locked(error) else _NOTHING
            answer = error if isinstance(error, StorageUnavailable) else unavailable(error, kept)
            self.failed |= not isinstance(answer, Busy)
            for job in group:
                job.error = answer
            self._db.close()
        return True

    def _undo_halves(self, group: Sequence[Job]) -> None:
        """Raise _Half where a rule that was refused may have left half of its changes.

        A group of one refused job has nothing to keep, so it is undone without asking further.
        """
        refused = any(map(attrgetter("error"), group)) and not group[0].alone
        if refused and (len(group) == 1 or may_leave_half(self._db)):
            self._file.verify()
            raise _Half

    def _run(self, jobs: Sequence[Job]) -> None:
        """Run jobs that follow each other and have the same rule."""
        if len(jobs) == 1 or not jobs[0].is_row:
            for job in jobs:
                self._run_one(job)
            return
        # An error of the one call for all rows is no single job's: it undoes the group, and each job is run by itself.
        rows = [row for job in jobs for row in job.args]
        for job, result in zip(jobs, jobs[0].rule(self._db, rows), strict=True):
            if isinstance(result, ServiceError):
                job.error = result
            else:
                job.result = result

    def _run_one(self, job: Job) -> None:
        try:
            if job.is_row:
                job.result = _run_row(job.rule, self._db, *job.args)
            else:
                job.result = job.rule(self._db, *job.args)
        except BaseException as error:  # noqa: BLE001 - it goes to the caller, and must not end the writer thread.
            job.error = RuntimeError(f"The rule raised {error!r}.")
            if isinstance(error, Exception) and not isinstance(error, StopIteration):  # A future takes no others.
                job.error = error
        # A full disk, a failed write, or a ROLLBACK by a trigger of another program undoes the whole transaction, not
        # just the statement. Each later statement would then be committed by itself.
        if not job.alone and not self._db.connection().in_transaction:
            raise job.error or pw.OperationalError("the transaction was undone")
        if isinstance(job.error, (pw.IntegrityError, sqlite3.IntegrityError)):
            job.error = self._db.violated or violation(self._db, job.error)
        elif isinstance(job.error, (pw.DatabaseError, sqlite3.Error)):
            if job.alone:
                raise job.error
            job.error = unavailable(job.error, _NOTHING)


def settle(jobs: Sequence[Job]) -> None:
    """Set the result or the error of each job's future; call this on the callers' event loop."""
    for job in jobs:
        if job.future.done():  # The caller gave up waiting.
            continue
        if job.error is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(job.error)
