"""Run reads on the event loop: those that are asked for at the same time go to PostgreSQL in one packet."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from greenlet import GreenletExit
from psycopg.errors import ConnectionTimeout

from service.storage.event_loop import running_loop
from service.storage.groups import Job, settle
from service.storage.postgres.connections import Database
from service.storage.postgres.faults import ERRORS, cause_of, unavailable
from service.storage.postgres.pipeline import LATE

if TYPE_CHECKING:
    from concurrent.futures import Future

    from service.storage.postgres.pipeline import Connection

TOGETHER = 50
"""How many reads a packet has at most; what waits behind it is for the next one."""
AT_ONCE = 2
"""How many packets of an event loop are under way: one is made, or taken apart, while PostgreSQL answers the other."""
MOST = 4
"""How many there are where all of them take long."""
LONG = 0.05
"""Seconds from which on a packet takes long, so that what waits is sent on another connection."""
STALE = "0A000"
"""The SQLSTATE, feature_not_supported, of a statement that was prepared before a column got another type."""
LINGER = 0.005
"""Seconds that a connection keeps its last snapshot while no read follows. To let go of each would cost a packet."""


class Readers:
    """The connections for the reads of a store, whose event loops and threads share them."""

    def __init__(self, open_database: Callable[[], Database], seconds: float) -> None:
        """Have no connection yet; `open_database` makes one. Each read gets an answer in so many seconds, or an error.

        Where slow statements are logged, a packet has one read, so that the time of a statement is its own.
        """
        self._open, self._seconds = open_database, seconds
        self._idle: deque[Database] = deque()
        self._all: WeakSet[Database] = WeakSet()
        self._loops: dict[asyncio.AbstractEventLoop, _Reads] = {}
        self._threads = ThreadPoolExecutor(MOST, "enrollment-connecting")
        """What connects: libpq may wait for the names of hosts."""
        self.closed = 0
        """How often the connections were closed. One that is in use meanwhile is closed when its packet is back."""

    def ask(self, job: Job) -> "asyncio.Future[Any]":
        """Keep a read until the end of this turn of the running event loop, and give the future of its result."""
        job.loop = running_loop()
        job.future = job.loop.create_future()
        reads = self._loops.get(job.loop)
        if reads is None:
            for loop in [each for each in [*self._loops] if each.is_closed()]:
                self._loops.pop(loop, None)
            reads = self._loops[job.loop] = _Reads(job.loop, self)
        reads.add(job)
        return job.future

    def end_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin the reads that were asked for on an event loop in its present turn."""
        if reads := self._loops.get(loop):
            reads.begin()

    def close(self) -> None:
        """Close every connection; the next read opens one again."""
        self.closed += 1
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def forget(self) -> None:
        """Leave all connections to the parent of this process, which was forked."""
        for db in self._all:
            db.forget()
        self.closed += 1
        self._idle.clear()
        self._loops.clear()
        self._threads = ThreadPoolExecutor(MOST, "enrollment-connecting")

    async def read(self, jobs: Sequence[Job], closed: int) -> tuple[Database, int]:
        """Run reads in a packet, and give their callers what came of them.

        `closed` is how often the connections were closed when the packet was begun. Gives the connection, with the
        number of its packets.
        """
        db = self._take()
        db.packets += 1
        number = db.packets
        try:
            await self._run(db, jobs)
        except asyncio.CancelledError:  # The event loop ends.
            db.close()
            for job in jobs:
                job.future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - a thread that cannot be started, or a fault here: nobody may wait on.
            db.close()
            for job in jobs:
                job.fail(error)
            settle(jobs)
        self._give_back(db, closed)
        return db, number

    def _take(self) -> Database:
        try:
            return self._idle.pop()
        except IndexError:
            db = self._open()
            self._all.add(db)
            return db

    async def _run(self, db: Database, jobs: Sequence[Job]) -> None:
        was_connected = db.is_connected() or self._takes_idle(db)
        try:
            await self._run_together(db, jobs)
            settle(jobs)
        except ERRORS as error:
            is_stale = getattr(cause_of(error), "sqlstate", None) == STALE
            is_lost = not db.is_connected() and not isinstance(error, ConnectionTimeout)
            if was_connected and (
                is_stale or is_lost
            ):  # A migration was run or PostgreSQL restarted since it was used.
                db.close()
                await self._run(db, jobs)
            elif db.is_connected() and len(jobs) > 1:
                await self._run_each(db, jobs)
            else:
                await self._refuse(db, jobs, error)

    def _takes_idle(self, db: Database) -> bool:
        """Let one have the connection of another that is idle, if there is any."""
        try:
            db.adopt(self._idle.pop().release())
        except IndexError:
            return False
        return True

    async def _run_each(self, db: Database, jobs: Sequence[Job]) -> None:
        """Run reads of which one has failed, so that PostgreSQL has answered none: each is to have its own outcome."""
        for job in jobs:
            await self._run(db, [job])

    async def _refuse(self, db: Database, jobs: Sequence[Job], error: Exception) -> None:
        """Refuse reads for an error; where the time of some was over, the others have the rest of theirs."""
        late = time.monotonic() + LONG if isinstance(error, ConnectionTimeout) else math.inf
        answer = unavailable(error, "Nothing was read.")
        over = [job for job in jobs if job.until <= late]
        for job in over:
            job.error = answer
        settle(over)
        if left := [job for job in jobs if job.until > late]:
            await self._run(db, left)

    async def _run_together(self, db: Database, jobs: Sequence[Job]) -> None:
        """Run reads from a new snapshot. Raises the errors of the database, for any of the reads."""
        until = min(job.until for job in jobs)
        db.wait_until(until)
        if not db.is_connected():
            await self._connect(db, until)
        db.begin("READ")
        connection = db.connection()
        calls = [partial(_answer, db, job) for job in jobs]
        for some in [[call] for call in calls] if connection.slow else [calls]:
            await connection.wait_on_loop(connection.run_together(some))

    async def _connect(self, db: Database, until: float) -> None:
        """Connect in a thread. Raises the errors of the database.

        Where the time of the reads is over, the thread goes on, and the next reads have the connection: it may take
        longer than the oldest read has, which would else be so for ever.
        """
        db.wait_until(patience=self._seconds)
        connecting = self._threads.submit(db.connected)
        try:
            connection = await asyncio.wait_for(asyncio.wrap_future(connecting), max(0.0, until - time.monotonic()))
        except (TimeoutError, asyncio.CancelledError) as error:
            connecting.add_done_callback(partial(self._keep, self.closed))
            if isinstance(error, TimeoutError):
                raise ConnectionTimeout(LATE) from None
            raise
        db.adopt(connection)
        db.wait_until(until)

    def _keep(self, closed: int, connecting: "Future[Connection]") -> None:
        """Keep a connection for the next reads, if there came to be one."""
        if not connecting.cancelled() and connecting.exception() is None:
            db = self._open()
            db.adopt(connecting.result())
            self._all.add(db)
            self._give_back(db, closed if len(self._idle) < MOST else -1)

    def _give_back(self, db: Database, closed: int) -> None:
        self._idle.append(db)
        # Only now is it too late for `close` to be overlooked, in whatever thread that is called.
        if (closed != self.closed or not db.is_connected()) and self._is_taken(db):
            db.close()

    def _is_taken(self, db: Database) -> bool:
        """Take a connection that is idle, unless another thread has taken it or closed it meanwhile."""
        try:
            self._idle.remove(db)
        except ValueError:
            return False
        return True

    async def let_go(self, db: Database, closed: int, number: int) -> None:
        """End the transaction of a connection's packet of that number, unless another packet soon follows."""
        await asyncio.sleep(LINGER)
        if db.packets == number and self._is_taken(db):
            db.wait_until(time.monotonic() + self._seconds)
            with suppress(*ERRORS):  # The connection is lost, and nothing is with it.
                await db.connection().wait_on_loop(db.connection().end_snapshot())
            self._give_back(db, closed)


class _Reads:
    """The reads of one event loop: those that wait, and the packets that are under way."""

    def __init__(self, loop: asyncio.AbstractEventLoop, readers: Readers) -> None:
        self._loop, self._readers = loop, readers
        self._waiting: deque[Job] = deque()
        self._under_way: dict[asyncio.Task[None], float] = {}
        """The task of each packet, with the moment when the packet was begun."""
        self._timer: asyncio.TimerHandle | None = None

    def add(self, job: Job) -> None:
        """Let a read wait for the next packet, which is begun behind the present turn of the loop if it may be."""
        if not self._waiting:
            self._loop.call_soon(self.begin)
        self._waiting.append(job)

    def begin(self) -> None:
        """Begin the packets that may be under way now."""
        while self._waiting and self._has_room():
            jobs = [self._waiting.popleft() for _ in range(min(TOGETHER, len(self._waiting)))]
            task = self._loop.create_task(self._serve(jobs, self._readers.closed))
            self._under_way[task] = time.monotonic()
            task.add_done_callback(self._forget)
        if self._waiting and self._timer is None:
            self._timer = self._loop.call_later(LONG, self._look)

    def _has_room(self) -> bool:
        began = self._under_way.values()
        return len(began) < AT_ONCE or (len(began) < MOST and time.monotonic() - max(began) >= LONG)

    def _look(self) -> None:
        self._timer = None
        self.begin()

    async def _serve(self, jobs: Sequence[Job], closed: int) -> None:
        db, number = await self._readers.read(jobs, closed)
        self._forget(asyncio.current_task(self._loop))
        await self._readers.let_go(db, closed, number)

    def _forget(self, task: "asyncio.Task[None] | None") -> None:
        """Count a packet as under way no more."""
        if task in self._under_way:
            del self._under_way[task]
            self.begin()


def _answer(db: Database, job: Job) -> None:
    """Run a read. Raises the errors of the database."""
    job.error = None  # This may be of a run beside one that failed.
    try:
        job.result = job.rule(db, *job.args)
    except (*ERRORS, GreenletExit):
        raise
    except BaseException as error:  # noqa: BLE001 - see `Job.fail`.
        job.fail(error)
