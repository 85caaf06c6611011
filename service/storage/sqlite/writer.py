"""The writer thread, which alone writes to the database, in groups of jobs: one sync to the disk serves a group."""

import math
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from itertools import groupby
from operator import attrgetter

import peewee as pw

from service.errors import Busy, ServiceError, StorageUnavailable
from service.storage import fetch
from service.storage.groups import LOOK_AGAIN, NOTHING, UNKNOWN, Groups, Job, take
from service.storage.sqlite.commits import Commits
from service.storage.sqlite.connections import Database
from service.storage.sqlite.file import File
from service.storage.sqlite.others import Others
from service.storage.sqlite.violations import is_failure, is_locked, may_leave_half, unavailable, violation


class _Half(Exception):
    """Raised to undo a transaction in which a refused rule may have left half of its changes."""


class Writer(Groups):
    """The writer thread of a file."""

    def __init__(
        self, file: File, busy_timeout: float, max_pending: int, verify_schema: Callable[[Database], None]
    ) -> None:
        """Keep what the thread needs; `verify_schema` raises a ServiceError when nothing may be written."""
        super().__init__(max_pending)
        self.failed = False
        """Whether the last commit failed."""
        self._file = file
        self._db = file.open(busy_timeout)
        self._db.timed = self.commits = Commits(file)
        self._others = Others()
        self._busy_timeout = busy_timeout
        self._verify_schema = verify_schema

    def _let_go(self) -> None:
        self._db.close()
        self._file.close()

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

    def _commit_at_once(self, group: Sequence[Job], join: Callable[[], list[Job]]) -> bool:
        del join  # Few come meanwhile: the next group is soon begun.
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
            kept = UNKNOWN if self._db.committing and not is_locked(error) else NOTHING
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
        take(jobs, jobs[0].rule(self._db, [row for job in jobs for row in job.args]))

    def _run_one(self, job: Job) -> None:
        try:
            if job.is_row:
                take([job], job.rule(self._db, [*job.args]))
            else:
                job.result = job.rule(self._db, *job.args)
        except BaseException as error:  # noqa: BLE001 - see `Job.fail`.
            job.fail(error)
        # A full disk, a failed write, or a ROLLBACK by a trigger of another program undoes the whole transaction, not
        # just the statement. Each later statement would then be committed by itself.
        if not job.alone and not self._db.connection().in_transaction:
            raise job.error or pw.OperationalError("the transaction was undone")
        if isinstance(job.error, (pw.IntegrityError, sqlite3.IntegrityError)):
            job.error = self._db.violated or violation(self._db, job.error)
        elif isinstance(job.error, (pw.DatabaseError, sqlite3.Error)):
            if job.alone:
                raise job.error
            job.error = unavailable(job.error, NOTHING)
