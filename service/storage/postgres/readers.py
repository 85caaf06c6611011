"""Run reads in a few threads, each with a connection; the reads of one turn are shared among the threads."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice

from greenlet import GreenletExit

from service.errors import StorageUnavailable
from service.storage.groups import Job, settle
from service.storage.postgres.connections import Database
from service.storage.postgres.faults import ERRORS, unavailable

TOGETHER = 50
"""How many reads are sent at once, at most."""
THREADS = 4
"""How many reads run at once."""
LONG = 0.05
"""Seconds from which on a read is long, so that another thread goes on with those behind it. Where reads are short, one
thread does them all: Python runs one thread at a time, and with four of them a read costs twice the processor time."""
_NOTHING = "Nothing was read."


class Batch:
    """The reads of one turn of an event loop.

    Each thread takes one after the other, all from a snapshot of its own that is taken after they were asked for, so
    that it has each write that was acknowledged before.
    """

    __slots__ = ("_left", "_seconds", "_timer", "_wake", "all", "jobs", "loop", "until")

    def __init__(
        self, jobs: Sequence[Job], loop: asyncio.AbstractEventLoop, seconds: float, wake: Callable[[], None]
    ) -> None:
        """Have the reads, which get an error on the event loop after so many seconds, whatever the threads wait for.

        While reads are left, `wake` is called now and then, so that another thread begins where that is of use.
        """
        self.all, self.jobs, self.loop = jobs, deque(jobs), loop
        self.until = time.monotonic() + seconds
        self._left = len(jobs)
        self._seconds, self._wake = seconds, wake
        self._timer = loop.call_later(LONG, self._look)

    def _look(self) -> None:
        if (left := self.until - time.monotonic()) > 0:
            if self.jobs:
                self._wake()
            self._timer = self.loop.call_later(min(LONG, left), self._look)
            return
        self.jobs.clear()
        for job in self.all:
            job.error = StorageUnavailable(f"The database did not answer within {self._seconds:g} s. {_NOTHING}")
        settle(self.all)

    def take(self) -> Job | None:
        """Take a read, or give None if others have taken them all."""
        with suppress(IndexError):
            return self.jobs.popleft()
        return None

    def tell(self, jobs: Sequence[Job]) -> None:
        """Give callers their results, from any thread."""
        with suppress(RuntimeError):  # The event loop is closed, so no caller waits on it.
            self.loop.call_soon_threadsafe(self._settle, jobs)

    def _settle(self, jobs: Sequence[Job]) -> None:
        settle(jobs)
        self._left -= len(jobs)
        if not self._left:
            self._timer.cancel()


class Readers:
    """The threads, which start when they are needed and end with `close`."""

    def __init__(self, open_database: Callable[[], Database]) -> None:
        """Keep what opens a thread's connection; no thread runs yet."""
        self._open = open_database
        self._batches: deque[Batch] = deque()
        self._changed = threading.Condition()
        self._threads: set[threading.Thread] = set()
        self._at_work: dict[threading.Thread, float] = {}
        """The threads that have something to do, each with the moment when it began its last read."""
        self._closing = False

    def submit(self, jobs: Sequence[Job], loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """Let threads run reads, which were asked for on an event loop and have so many seconds.

        Raises RuntimeError where no thread can be started.
        """
        batch = Batch(jobs, loop, seconds, self._wake)
        with self._changed:
            self._batches.append(batch)
        self._wake()

    def _wake(self) -> None:
        """Let one more thread begin, unless one is at work that will soon come to what waits."""
        now = time.monotonic()
        with self._changed:
            if any(now - began < LONG for began in self._at_work.values()):
                return
            if len(self._at_work) == len(self._threads) < THREADS:
                thread = threading.Thread(target=self._serve, name="enrollment-reader", daemon=True)
                thread.start()
                self._threads.add(thread)
                self._at_work[thread] = now
            self._changed.notify()

    def close(self) -> None:
        """Finish the reads that wait, then end the threads and close their connections; the next read starts them."""
        with self._changed:
            threads = self._threads - {threading.current_thread()}
            self._closing = True
            self._changed.notify_all()
        for thread in threads:
            thread.join()
        self._closing = False

    def _serve(self) -> None:
        db = self._open()
        while True:
            batch = self._next(wait=False)
            if batch is None:
                with suppress(*ERRORS):  # The connection may be lost, and nothing is with it.
                    db.end()
                batch = self._next(wait=True)
            if batch is None:
                break
            self._read(db, batch)
            del batch
        db.close()

    def _next(self, *, wait: bool) -> Batch | None:
        """Give a batch of which reads are left, or None: if there is none or, with `wait`, if the thread is to end."""
        with self._changed:
            while True:
                while self._batches and not self._batches[0].jobs:
                    self._batches.popleft()
                if self._batches:
                    self._at_work[threading.current_thread()] = time.monotonic()
                    return self._batches[0]
                if not wait:
                    return None
                if self._closing:
                    self._threads.discard(threading.current_thread())
                    self._at_work.pop(threading.current_thread(), None)
                    return None
                self._at_work.pop(threading.current_thread(), None)
                self._changed.wait()

    def _read(self, db: Database, batch: Batch) -> None:
        """Run what is left of a batch, from a new snapshot.

        The snapshot before is let go of in the same packet, or by `_serve` where no other batch waits: a round trip for
        each would take a third of the time.
        """
        done: list[Job] = []
        was_connected = db.is_connected()
        try:
            db.wait_until(batch.until)
            db.begin("READ")
            if len(batch.jobs) > 1 and not db.connection().slow:
                done += self._run_together(db, batch)
            self._run(db, batch, done)
        except ERRORS as error:
            if not db.is_connected() and was_connected and done:
                # PostgreSQL was restarted since the last read: the read that found it out is run again.
                self._put_back(batch, done.pop())
            elif done:
                done[-1].error = unavailable(error, _NOTHING)
            else:  # There is no connection to be had.
                answer = unavailable(error, _NOTHING)
                while job := batch.take():
                    done.append(job)
                    job.error = answer
            with suppress(*ERRORS):
                db.rollback()
        if done:
            batch.tell(done)

    def _run_together(self, db: Database, batch: Batch) -> Sequence[Job]:
        """Run many reads of a batch at once, and give them.

        Where one fails, PostgreSQL answers none. None is given then, and each is to run by itself.
        """
        jobs = [*islice(iter(batch.take, None), TOGETHER)]
        try:
            return db.connection().run_together([partial(_answer, db, job) for job in jobs])
        except ERRORS:
            batch.jobs.extendleft(reversed(jobs))
            db.rollback()
            db.begin("READ")
            return []

    def _run(self, db: Database, batch: Batch, done: list[Job]) -> None:
        """Run what is left of a batch, and note each read before it is begun."""
        while job := batch.take():
            done.append(job)
            self._at_work[threading.current_thread()] = time.monotonic()
            _answer(db, job)

    def _put_back(self, batch: Batch, job: Job) -> None:
        with self._changed:
            batch.jobs.appendleft(job)
            self._batches.appendleft(batch)


def _answer(db: Database, job: Job) -> Job:
    """Run a read, and give it. Raises the errors of the database."""
    job.error = None  # This may be of a run beside one that failed.
    try:
        job.result = job.rule(db, *job.args)
    except (*ERRORS, GreenletExit):
        raise
    except BaseException as error:  # noqa: BLE001 - see `Job.fail`.
        job.fail(error)
    return job
