"""Run rules on a database of PostgreSQL for async callers: reads in packets, writes in groups.

Whatever PostgreSQL is asked takes a way to another process, so what callers ask at the same time is asked together. The
reads of one turn of the event loop are run there, and go to PostgreSQL in one packet; nothing waits for the answer but
they. The writes of all callers go to the writer thread, which commits once for all that wait. Where PostgreSQL is gone,
stands still, or is restarted, a caller is told so in time, and the next caller gets a new connection.
"""

import asyncio
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar, TypeVarTuple

import peewee as pw

from service.errors import ServiceError, SetupError, StorageUnavailable
from service.storage import fetch
from service.storage.event_loop import running_loop
from service.storage.fork import pause_at_forks
from service.storage.groups import NOTHING, Job, check_ready
from service.storage.measured import SECONDS, Histogram, Measured
from service.storage.patience import scans
from service.storage.postgres import schema
from service.storage.postgres.connections import IDLE_SECONDS, IDLE_SECONDS_OF_OTHERS, Database, open_database
from service.storage.postgres.faults import ERRORS, unavailable
from service.storage.postgres.readers import Readers
from service.storage.postgres.writer import NEARLY, Writer

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Row = TypeVar("Row")

LEAST_SECONDS = 1.0
"""Seconds that PostgreSQL has for an answer at least, however short the setting `busy_timeout` is."""
SCAN_SECONDS = 60.0
"""Seconds that PostgreSQL has for each statement of a read that reads much."""
VERIFY_AGAIN = 1.0
"""Seconds from one look at the schema, before a write, to the next: it takes 5 ms."""
NEWEST_EVENT = "SELECT coalesce(max(id), 0) FROM enrollment_events"


class Store:
    """The rules' access to one school on PostgreSQL; several event loops and threads may share a store.

    The store connects at its first use, and again at the first use after `close` or after a fork.
    """

    def __init__(
        self,
        url: str,
        *,
        busy_timeout: float,
        max_pending_writes: int,
        snapshot_per_turn: bool = False,  # noqa: ARG002 - the argument of every store.
        slow_ms: float = 0,
    ) -> None:
        """Keep the URL; nothing is connected yet.

        `busy_timeout` is how many seconds a write waits for its turn, and any caller for an answer of PostgreSQL. All
        reads of one turn (iteration) of the event loop share a snapshot, which is taken behind them, so that is right
        with and without `snapshot_per_turn`. Statements that take `slow_ms` milliseconds or more are logged, unless it
        is 0. Raises SetupError for a text that is no URL of PostgreSQL.
        """
        self._url, self._slow = url, slow_ms / 1000
        self._seconds = max(busy_timeout, LEAST_SECONDS)
        lock_seconds = min(busy_timeout, self._seconds - NEARLY)
        self._scans = scans()
        self._readers = Readers(_opener(url, self._seconds, lock_seconds, self._slow), self._seconds)
        self._writer = Writer(
            _opener(url, self._seconds, lock_seconds, self._slow)(),
            self._seconds,
            lock_seconds,
            max_pending_writes,
            _verifier(url),
        )
        # Writes that were accepted are still done when the program ends, or when nothing refers to the store any more.
        weakref.finalize(self, _close, self._writer, self._readers)
        pause_at_forks(self)

    def open(self) -> None:
        """Do nothing: PostgreSQL holds the database."""

    async def read(self, rule: Callable[[pw.Database, *Ts], T], *args: *Ts) -> T:
        """Do what `Store.read` in `service.storage` says."""
        told = _told(rule) if self._slow else rule
        result: T = await self._readers.ask(Job(told, args, until=time.monotonic() + self._seconds))
        return result

    async def scan(self, rule: Callable[[pw.Database, *Ts], T], *args: *Ts) -> T:
        """Do what `Store.scan` in `service.storage` says."""
        running_loop()
        told = _told(rule) if self._slow else rule
        return await self._scans.run(lambda _: self._scan(told, *args))

    def _scan(self, rule: Callable[..., T], *args: Any) -> T:
        db = open_database(
            self._url,
            busy_timeout=self._seconds,
            statement_timeout=SCAN_SECONDS,
            idle_timeout=IDLE_SECONDS_OF_OTHERS,
            thread_safe=False,
            slow=self._slow,
        )
        try:
            db.wait_until(patience=self._seconds)  # A server that hangs shows that here.
            db.connect()
            db.wait_until(patience=SCAN_SECONDS)
            with db.atomic("READ"):
                return rule(db, *args)
        except ERRORS as error:
            raise unavailable(error, "Nothing was read.") from error
        finally:
            db.close()

    async def write(self, rule: Callable[[pw.Database, *Ts], T], *args: *Ts, alone: bool = False) -> T:
        """Do what `Store.write` in `service.storage` says.

        The rule must be atomic in itself: when it raises an error, that error goes to its caller alone, and the other
        rules of its group are committed. A rule may be run a second time, after all that its first run did was undone.
        """
        told = _told(rule) if self._slow else rule
        result: T = await self._writer.ask(Job(told, args, alone=alone, until=time.monotonic() + self._seconds))
        return result

    async def write_row(self, rule: Callable[[pw.Database, Sequence[Row]], Sequence[T | ServiceError]], row: Row) -> T:
        """Do what `Store.write_row` in `service.storage` says.

        Where rows for the same rule follow each other in a group, the writer thread calls the rule once for all.
        """
        result: T = await self._writer.ask(Job(rule, (row,), is_row=True, until=time.monotonic() + self._seconds))
        return result

    async def changed(self, since: object = None) -> object:
        """Do what `Store.changed` in `service.storage` says; each commit that matters to who waits has an event."""
        from service.storage.news import wait  # noqa: PLC0415 - only who follows the events pays for it.

        return await wait(self.read, _state, self._writer.told, since)

    async def check_ready(self) -> None:
        """Do what `Store.check_ready` in `service.storage` says."""
        running_loop()
        await check_ready(self.write, self._probe)

    def _probe(self, db: pw.Database) -> None:
        ((read_only,),) = fetch(db, "SELECT current_setting('transaction_read_only')")
        if read_only == "on":
            raise StorageUnavailable("The database is read-only: it is a standby, or was made to refuse writes.")
        _check(db, self._url)
        if self._writer.failed:
            # After a commit that failed, only a commit that writes can tell whether commits work again.
            fetch(db, "SELECT pg_current_xact_id()::text")

    def measured(self) -> Measured:
        """Do what `Store.measured` in `service.storage` says."""
        return Measured(self._writer.waiting, 0, self._writer.sizes, self._writer.commits, Histogram(SECONDS))

    def end_turn(self) -> None:
        """Do what `Store.end_turn` says; where no event loop runs in this thread, nothing is done."""
        with suppress(RuntimeError):
            loop = asyncio.get_running_loop()
            self._readers.end_turn(loop)
            self._writer.end_turn(loop)

    def close(self) -> None:
        """Do what `Store.close` says."""
        self.end_turn()
        _close(self._writer, self._readers)

    def pause(self) -> None:
        """Finish the writes that were accepted, close their connection, and make writes wait until `resume`."""
        self.end_turn()
        self._writer.pause()

    def resume(self, *, forked: bool = False) -> None:
        """Let writes go on; the next one connects again.

        With `forked`, in a child process, what waits is forgotten, and so are the connections that read: they are the
        parent's.
        """
        if forked:
            self._readers.forget()
            self._writer.forget()
            self._scans.forget()
        self._writer.resume()


def _told(rule: Callable[..., T]) -> Callable[..., T]:
    """Let the log tell, in whatever thread a rule runs, of which request its slow statements are."""
    return partial(copy_context().run, rule)


def _opener(url: str, seconds: float, lock_seconds: float, slow: float) -> Callable[[], Database]:
    return lambda: open_database(
        url,
        busy_timeout=seconds,
        lock_timeout=lock_seconds,
        statement_timeout=seconds,
        idle_timeout=IDLE_SECONDS,
        thread_safe=False,
        slow=slow,
    )


def _state(db: pw.Database) -> object:
    return fetch(db, NEWEST_EVENT)


def _check(db: pw.Database, url: str) -> None:
    try:
        schema.check(db, url)
    except SetupError as error:
        raise StorageUnavailable(str(error)) from error


def _verifier(url: str) -> Callable[[Database], None]:
    """Make the function that looks, once in a while before a write, whether the schema is still that of the code."""
    look_at = 0.0

    def verify(db: Database) -> None:
        nonlocal look_at
        if time.monotonic() >= look_at:
            try:
                _check(db, url)
            except StorageUnavailable as error:
                raise StorageUnavailable(f"{NOTHING} {error.detail}") from error
            look_at = time.monotonic() + VERIFY_AGAIN

    return verify


def _close(writer: Writer, readers: Readers) -> None:
    writer.close()
    readers.close()
