"""Writes in groups: jobs wait in a queue for a thread that takes all of them at once, and commits once for all.

The writer of each kind of database says how a group is committed. One sync to the disk serves a group.
"""

import asyncio
import math
import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import attrs

from service.errors import Busy, ServiceError, StorageUnavailable
from service.storage.event_loop import running_loop
from service.storage.measured import SIZES, Histogram

LOOK_AGAIN = 1.0
"""Seconds from a write until the writer thread looks around, and from one look to the next while there is reason to."""

READY_TIMEOUT = 1.0
"""Seconds within which a write transaction must open for a store to count as ready."""
NOTHING = "Nothing was kept."
UNKNOWN = "Whether anything was kept is not known."


@attrs.define(eq=False)
class Job:
    """A rule to run, the future and event loop of the caller that waits, and the rule's result or error."""

    rule: Callable[..., Any]
    args: tuple[Any, ...]
    alone: bool = False
    """Whether the rule is a group by itself, and is called outside any transaction because it opens its own."""
    is_row: bool = False
    """Whether the rule takes a list of rows; `args` is one row then."""
    until: float = math.inf
    """When the caller will have waited long enough, in seconds of the monotonic clock, where the store minds it."""
    loop: asyncio.AbstractEventLoop = attrs.field(init=False)
    future: "asyncio.Future[Any]" = attrs.field(init=False)
    result: Any = None
    error: Exception | None = None
    told: bool = False
    """Whether the caller has its answer, or is about to get it."""

    def fail(self, error: BaseException) -> None:
        """Keep what the rule raised for its caller: it must not end the writer thread."""
        self.error = RuntimeError(f"The rule raised {error!r}.")
        if isinstance(error, Exception) and not isinstance(error, StopIteration):  # A future takes no others.
            self.error = error


class Groups(ABC):
    """A writer thread and its queue; the thread starts with the first job and ends with `close`."""

    def __init__(self, max_pending: int) -> None:
        """Have no job yet; `max_pending` may wait."""
        self.told: set[Callable[[], object]] = set()
        """What the thread calls behind each group: those wait for a commit."""
        self.sizes = Histogram(SIZES)
        """How many writes a commit was for."""
        self._max_pending = max_pending
        self._asked: dict[asyncio.AbstractEventLoop, list[Job]] = {}
        """The jobs of the current turn of each event loop."""
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

    @abstractmethod
    def _commit_at_once(self, group: Sequence[Job], join: Callable[[], list[Job]]) -> bool:
        """Run a group in one transaction, and set each job's result or error; give False if one job undid it.

        `join` gives the jobs that came meanwhile, which are of the group from then on.
        """

    @abstractmethod
    def _look_around(self) -> None:
        """Do what is to be done `LOOK_AGAIN` after a write, and set `_look_at` to when it is to be done next."""

    @abstractmethod
    def _let_go(self) -> None:
        """Close what the thread has open, which ends."""

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._pending) + len(self._alone)

    def ask(self, job: Job) -> "asyncio.Future[Any]":
        """Keep a job until the end of this turn of the running event loop, and give the future of its result.

        The jobs of one turn are queued together. That gives an eighth more requests a second where one request in ten
        writes.
        """
        job.loop = loop = running_loop()
        job.future = loop.create_future()
        if loop in self._asked:
            self._asked[loop].append(job)
        else:
            self._asked[loop] = [job]
            loop.call_soon(self.end_turn, loop)
        return job.future

    def end_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Queue the jobs of the current turn of an event loop."""
        if loop in self._asked:
            settle(self.submit(self._asked.pop(loop)))

    def forget(self) -> None:
        """Forget the jobs of the current turns: in a child process, they are the parent's."""
        self._asked.clear()

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
            job.error = failure or Busy(f"{self._max_pending} writes are waiting already. {NOTHING}")
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

    def _serve(self, group: list[Job]) -> None:
        try:
            self._commit(group)
        except Exception as error:  # noqa: BLE001 - a defect: if the thread ended, all later callers would wait for ever.
            self._let_go()
            for job in group:
                job.fail(error)
        self.sizes.observe(len(group))
        self._look_at = min(self._look_at, time.monotonic() + LOOK_AGAIN)
        self._tell(group)
        for tell in self.told.copy():
            tell()

    def _tell(self, jobs: Sequence[Job]) -> None:
        """Give callers the results of their jobs; who was told already is not told again."""
        by_loop = defaultdict(list)
        for job in jobs:
            job.told = True
            by_loop[job.loop].append(job)
        for loop, its in by_loop.items():
            with suppress(RuntimeError):  # The event loop is closed, so no caller waits on it.
                loop.call_soon_threadsafe(settle, its)

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
                self._let_go()
                self._thread, self._closing = None, False
                return None
        return group

    def _commit(self, group: list[Job]) -> None:
        """Commit a group in one transaction or, where a constraint or a rule undid it, job by job.

        Only one job is to blame for that, and the others are to be kept.
        """
        if not self._commit_at_once(group, partial(self._join, group)) and len(group) > 1:
            for job in group:
                if not job.told:
                    job.result = job.error = None  # These are of the first run, which was undone.
                    self._commit_at_once([job], list)

    def _take_late(self, late: float) -> list[Job]:
        """Take those jobs out of the queue whose time is over at a moment of the monotonic clock."""
        with self._changed:
            waiting = [*self._pending, *self._alone]
            self._pending = [job for job in self._pending if job.until > late]
            self._alone = deque(job for job in self._alone if job.until > late)
        return [job for job in waiting if job.until <= late]

    def _join(self, group: list[Job]) -> list[Job]:
        with self._changed:
            more, self._pending = self._pending, []
        group += more
        return more


def take(jobs: Sequence[Job], results: Sequence[Any]) -> None:
    """Set the result or the refusal of each of the jobs whose rows one call of their rule was for."""
    for job, result in zip(jobs, results, strict=True):
        if isinstance(result, ServiceError):
            job.error = result
        else:
            job.result = result


def settle(jobs: Sequence[Job]) -> None:
    """Set the result or the error of each job's future; call this on the callers' event loop."""
    for job in jobs:
        if job.future.done():  # The caller gave up waiting.
            continue
        if job.error is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(job.error)


async def check_ready(write: Callable[[Callable[..., None]], Awaitable[None]], probe: Callable[..., None]) -> None:
    """Run a rule by the method `write` of a store. Raises StorageUnavailable where that takes more than READY_TIMEOUT.

    Raises what the rule raises.
    """
    try:
        async with asyncio.timeout(READY_TIMEOUT):
            await write(probe)
    except TimeoutError as error:
        raise StorageUnavailable(f"No write transaction opened within {READY_TIMEOUT:g} s.") from error
