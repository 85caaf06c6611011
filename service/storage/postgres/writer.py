"""The writer thread of a store on PostgreSQL: one connection, and one transaction for each group of jobs."""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import nullcontext, suppress
from itertools import groupby
from operator import attrgetter
from threading import Thread

import peewee as pw
from psycopg.errors import ConnectionTimeout

from service.errors import Busy, ServiceError, StorageUnavailable
from service.storage.groups import NOTHING, UNKNOWN, Groups, Job, take
from service.storage.measured import SECONDS, Histogram
from service.storage.postgres.connections import Database
from service.storage.postgres.faults import ERRORS, cause_of, is_failure, is_locked, unavailable
from service.storage.postgres.pipeline import LATE, Connection, Unsure
from service.storage.postgres.violations import violation

NEARLY = 0.2
"""Seconds before a job's time is over, from which on the job is given up: so PostgreSQL says that others hold the turn
before the thread would give the connection up."""
READ_ONLY = "25006"
"""The SQLSTATE of a write on a server that is a standby, or was made to refuse writes."""


class Writer(Groups):
    """The writer thread of a database of PostgreSQL."""

    def __init__(
        self,
        db: Database,
        seconds: float,
        lock_seconds: float,
        max_pending: int,
        verify_schema: Callable[[Database], None],
    ) -> None:
        """Keep what the thread needs.

        A job is done, or known to have failed, within `seconds` of its arrival, and a transaction waits for
        `lock_seconds` for the turn. `verify_schema` raises a ServiceError when nothing may be written.
        """
        super().__init__(max_pending)
        self.failed = False
        """Whether the last commit failed."""
        self.commits = Histogram(SECONDS)
        self._db, db.committed = db, self.commits.observe
        self._connecting: Future[Connection] | None = None
        """The connection that is being made, or was made when the time of those who waited for it was over."""
        self._seconds, self._lock_seconds = seconds, lock_seconds
        self._verify_schema = verify_schema

    def _let_go(self) -> None:
        self._db.close()
        if self._connecting is not None:
            self._connecting.add_done_callback(_close)
            self._connecting = None

    def _look_around(self) -> None:
        self._look_at = math.inf

    def _commit_at_once(self, group: Sequence[Job], join: Callable[[], list[Job]]) -> bool:
        # It may take long to connect: that is not begun at the last moment.
        late = time.monotonic() + (0 if self._db.is_connected() else min(NEARLY, self._seconds / 10))
        over = [job for job in group if job.until <= late]
        for job in over:
            job.error = Busy(f"Other writes took all of {self._seconds:g} s. {NOTHING}")
        self._tell(over)
        due = [job for job in group if job.until > late]
        return not due or self._commit_due(due, join)

    def _commit_due(self, group: list[Job], join: Callable[[], list[Job]] = list, *, again: bool = True) -> bool:
        """Do what `_commit_at_once` does with jobs whose time is not over; `again`, if the connection was lost.

        While another node had the turn, more jobs may have come. They share this turn, for which they would else wait
        once more.
        """
        db, alone = self._db, group[0].alone
        was_connected = db.is_connected()
        for job in group:
            job.result = job.error = None  # These may be of a run that was undone.
        try:
            if not was_connected:
                was_connected = self._connecting is not None and self._connecting.done()
                self._connect(group)
            # A job that is alone opens transactions of its own, which may be many, so each answer has its time.
            db.wait_until(math.inf if alone else min(job.until for job in group), self._seconds)
            with nullcontext() if alone else db.atomic("IMMEDIATE", self._lock_timeout(group)):
                self._verify_schema(db)
                self._run(group)
                more = [] if alone else join()
                group += more
                self._run(more)
            self.failed = False
        except Exception as error:  # noqa: BLE001 - if the writer thread ended, callers would wait for ever.
            if not is_failure(error) and not isinstance(error, StorageUnavailable):
                for job in group:
                    if not isinstance(job.error, ServiceError):
                        job.error = violation(db, error)
                return False
            return self._fail(group, error, again=again and was_connected)
        return True

    def _connect(self, group: Sequence[Job]) -> None:
        """Connect until the time of a job is over, which may be one that waits behind the group.

        It is done in another thread, which goes on then, for it may take longer than the oldest job has: the others
        have the connection later. Raises ConnectionTimeout, and the errors of the database.
        """
        with self._changed:
            oldest = [*group, *self._pending[:1], *[*self._alone][:1]]
        until = min(job.until for job in oldest)
        if self._connecting is None:
            self._connecting = self._begin_to_connect()
        wait([self._connecting], max(0.0, until - time.monotonic()))
        if not self._connecting.done():
            raise ConnectionTimeout(LATE)
        connecting, self._connecting = self._connecting, None
        self._db.adopt(connecting.result())

    def _begin_to_connect(self) -> "Future[Connection]":
        self._db.wait_until(patience=self._seconds)
        connecting: Future[Connection] = Future()

        def connect() -> None:
            try:
                connecting.set_result(self._db.connected())
            except BaseException as error:  # noqa: BLE001 - whoever waits is told.
                connecting.set_exception(error)

        try:
            Thread(target=connect, name="enrollment-connecting", daemon=True).start()
        except RuntimeError:  # The program ends, or has too many threads.
            connect()
        return connecting

    def _lock_timeout(self, group: Sequence[Job]) -> int | None:
        """Give the milliseconds that a group may wait for the turn, where it is less than the connection is set to."""
        left = min(job.until for job in group) - time.monotonic() - NEARLY
        return max(1, round(left * 1000)) if left < self._lock_seconds - NEARLY else None

    def _fail(self, group: list[Job], error: Exception, *, again: bool) -> bool:
        """Set the error of a group's jobs, or run those jobs once more for which there is hope."""
        connection, alone = self._db.last_connection(), group[0].alone
        is_lost = connection is None or connection.closed
        is_unsure = (
            connection is not None and connection.committing and (is_lost or isinstance(cause_of(error), Unsure))
        )
        if not is_locked(error):
            self._db.close()
        if not is_unsure and (not alone or group[0].error is None):  # One that is alone, and has begun, has an error.
            if (is_lost or is_locked(error)) and (over := self._tell_late(group, error)):
                rest = [job for job in group if job not in over]
                return not rest or self._commit_due(rest)
            if again and is_lost:
                # PostgreSQL was restarted since the last group, or what is between it and here let go.
                return self._commit_due(group, again=False)
            is_of_all = is_lost or is_locked(error) or isinstance(error, StorageUnavailable)
            if len(group) > 1 and not is_of_all and getattr(cause_of(error), "sqlstate", None) != READ_ONLY:
                return False
        answer = self._answer(error, UNKNOWN if is_unsure else NOTHING)
        for job in group:
            job.error = answer
        return True

    def _tell_late(self, group: Sequence[Job], error: Exception) -> Sequence[Job]:
        """Tell the callers whose time is over of an error, also those who wait behind the group, and give their jobs.

        The others still have some time.
        """
        late = time.monotonic() + NEARLY
        over = [job for job in group if job.until <= late] + self._take_late(late)
        for job in over:
            job.error = self._answer(error, NOTHING)
        self._tell(over)
        return over

    def _answer(self, error: Exception, kept: str) -> ServiceError:
        answer = error if isinstance(error, StorageUnavailable) else unavailable(error, kept)
        self.failed |= not isinstance(answer, Busy)
        return answer

    def _run(self, group: Sequence[Job]) -> None:
        for (_, is_row), same in groupby(group, attrgetter("rule", "is_row")):
            jobs = [*same]
            if len(jobs) > 1 and is_row:
                # An error of the one call for all rows is no single job's: it undoes the group, and each job is run by
                # itself.
                take(jobs, jobs[0].rule(self._db, [row for job in jobs for row in job.args]))
            else:
                for job in jobs:
                    self._run_one(job)

    def _run_one(self, job: Job) -> None:
        try:
            if job.is_row:
                take([job], job.rule(self._db, [*job.args]))
            else:
                job.result = job.rule(self._db, *job.args)
        except BaseException as error:  # noqa: BLE001 - see `Job.fail`.
            job.fail(error)
        connection = self._db.last_connection()
        if not job.alone and connection is not None and connection.is_undone:
            raise job.error or pw.OperationalError("the transaction was undone")
        if isinstance(job.error, ERRORS):
            if is_failure(job.error):
                raise job.error
            job.error = violation(self._db, job.error)


def _close(connecting: "Future[Connection]") -> None:
    """Close a connection for which nobody waits any more, if there came to be one."""
    with suppress(*ERRORS):
        connecting.result().close()
