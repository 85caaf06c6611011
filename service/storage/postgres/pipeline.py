"""One connection to PostgreSQL: what is sent together, what is undone alone, and how long it waits for an answer."""

import asyncio
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeVar

import psycopg
from psycopg import errors, waiting
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus

from service.storage.postgres.packets import Packets, Rows, numbered
from service.storage.slow import log_slow

T = TypeVar("T")

TURN = "SELECT pg_advisory_xact_lock(1701711, hashtext(current_schema()))"
"""Takes the turn of a school, which is a schema: until its transaction ends, no other transaction changes anything of
the school that the rules count. So PostgreSQL writes as SQLite does, one transaction after the other."""
TAKES_TURN = " FROM enroll_many("
"""What is in a statement that takes the turn itself, before all else."""
BEGIN: Mapping[str | None, tuple[str, ...]] = {
    None: ("BEGIN",),
    "IMMEDIATE": ("BEGIN ISOLATION LEVEL READ COMMITTED", TURN),
    "READ": ("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",),
}
"""What begins a transaction: of any kind; one that writes, and sees all that was committed before its turn; one that
reads from one snapshot."""

_PARTS = re.compile(r"""'[^']*'|"[^"]*"|--[^\n]*|%|\?""")
_WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE)\b|\s*WITH\b.*\b(INSERT INTO|UPDATE|DELETE FROM)\b", re.DOTALL)
_LATER = re.compile(r"SAVEPOINT|RELEASE SAVEPOINT")

FEW = 100
"""The most values of a statement that is prepared, if it reads. PostgreSQL keeps the plan of a prepared one: with that
of a table that was small it goes on to compare hundreds of external ids with each row, for a minute or longer."""
INTERVAL = 1.0
"""Seconds after which psycopg looks around while it waits."""
LATE = "the server did not answer in time"
"""The text of the error for an answer that did not come before the deadline."""


class Unsure(psycopg.OperationalError):
    """A COMMIT whose wait for a standby was broken off: it is kept here, and nobody knows whether it is kept there."""


@lru_cache(maxsize=1000)
def translated(sql: str) -> tuple[str, bool, bool]:
    """Give a statement with %s for each ?, as psycopg wants it; whether it writes; and whether it can be sent later.

    A statement of Peewee's own, which has %s already, stays as it is.
    """
    placed = _PARTS.sub(lambda part: "%s" if part[0] == "?" else part[0].replace("%", "%%"), sql)
    writes, later = _WRITES.match(sql) is not None, _LATER.match(sql) is not None
    return placed if "%s" in placed.replace("%%", "") else sql, writes, later


class _Together(psycopg.Pipeline):
    """Sends all statements of a block in one packet, with one Sync behind them.

    psycopg's own pipeline sends each statement as it comes, and a Flush behind the Sync. That Flush makes PostgreSQL
    forget to end a transaction that is idle for too long: https://www.postgresql.org/docs/current/protocol-flow.html
    """

    def _communicate_gen(self) -> PQGen[None]:
        """Send nothing before the end of the block."""
        yield from ()

    def _exit_gen(self) -> PQGen[None]:
        self._enqueue_sync()
        commands = [*self.command_queue]

        def send_all() -> None:
            for send in commands:
                send()

        self.command_queue.clear()
        self.command_queue.append(send_all)
        failure = None
        for results in (super()._communicate_gen(), self._fetch_gen(flush=False)):
            try:
                yield from results
            except psycopg.Error as error:  # Whatever comes behind the first error, PostgreSQL has passed over.
                failure = failure or error
        if failure is not None:
            raise failure


class Connection(psycopg.Connection[Any]):
    """A connection that sends what has no result of interest along with the next statement, and waits until a deadline.

    BEGIN, the turn, and the statements of savepoints cost no round trip so: psycopg's pipeline mode has them.
    """

    until = math.inf
    """When to stop waiting for an answer of the server, in seconds of the monotonic clock; the connection is closed
    then. A server that is stopped, or a machine that is gone, answers nothing."""
    patience = math.inf
    """For how many seconds to wait for each answer at most."""
    slow = 0.0
    """From how many seconds on a statement is logged; 0 for never."""
    committing = False
    """Whether a COMMIT began, and has not succeeded. If it fails, nobody can tell whether the transaction was kept."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Have nothing to send yet."""
        super().__init__(*args, **kwargs)
        self.ahead: list[str] = []
        """The statements that are sent with the next one."""
        self.ask: Callable[[bytes, Sequence[Any]], Rows] | None = None
        """What runs the statements of the calls of `run_together`, while such a call runs."""
        self._packets: Packets | None = None
        self._undone_by: psycopg.Error | None = None
        """The error for which PostgreSQL refuses whatever else comes in this transaction."""
        self._unsure = False
        self.add_notice_handler(self._heed)

    def _heed(self, told: errors.Diagnostic) -> None:
        """Note that PostgreSQL gave up waiting for a standby: it calls such a COMMIT a success, and only warns.

        https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION-HA
        """
        self._unsure |= self.committing and told.severity_nonlocalized == "WARNING"

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Wait for an answer of the server, until the deadline. Raises OperationalError there."""
        now = time.monotonic()
        until = min(self.until, now + self.patience)
        if until < math.inf:
            kwargs["timeout"] = max(0.0, until - now)
        try:
            return super().wait(gen, *args, **kwargs)
        except psycopg.OperationalError as error:
            if error.sqlstate is None and not self.closed and time.monotonic() >= until:
                self.close()
                raise errors.ConnectionTimeout(LATE) from None
            raise

    async def wait_on_loop(self, gen: PQGen[T]) -> T:
        """Do what `wait` does, on an event loop; the connection is closed if the caller is cancelled."""
        now = time.monotonic()
        until = min(self.until, now + self.patience)
        timeout = None if until == math.inf else max(0.0, until - now)
        try:
            return await waiting.wait_async(gen, self.pgconn.socket, interval=INTERVAL, timeout=timeout)
        except (errors._WaitTimeout, asyncio.CancelledError) as error:  # noqa: SLF001 - psycopg's own have it from there.
            self.close()
            if isinstance(error, asyncio.CancelledError):
                raise
            raise errors.ConnectionTimeout(LATE) from None
        finally:
            gen.close()  # What runs in it can only be ended by this thread, and not by the one that collects garbage.

    def begin(self, kind: str | None, lock_timeout: int | None) -> None:
        """Begin a transaction of a kind in `BEGIN`, with the next statement; it waits so many ms for a lock.

        A transaction that is still open, and has only read, ends before.
        """
        self.committing, self._undone_by = False, None
        begin, *turn = BEGIN[kind]
        end = [] if self.pgconn.transaction_status == TransactionStatus.IDLE else ["COMMIT"]
        self.ahead = [
            *end,
            begin,
            *([] if lock_timeout is None else [f"SET LOCAL lock_timeout = {lock_timeout}"]),
            *turn,
        ]

    @property
    def is_undone(self) -> bool:
        """Whether PostgreSQL has undone the transaction, and refuses whatever else comes in it."""
        return self.pgconn.transaction_status in {TransactionStatus.INERROR, TransactionStatus.UNKNOWN}

    def run(self, sql: str, params: Any = None) -> Any:
        """Run a statement, with what is to be sent before it, and log it where it takes `slow` seconds or more."""
        if not self.slow:
            return self._run(sql, params)
        began = time.perf_counter()
        try:
            return self._run(sql, params)
        finally:
            if (seconds := time.perf_counter() - began) >= self.slow:
                log_slow(sql, seconds)

    def _run(self, sql: str, params: Any) -> Any:
        """Run a statement, and give its cursor, or all its rows where they are at hand.

        Within a transaction, a statement that writes is undone alone if it fails, as SQLite does it: else PostgreSQL
        would refuse whatever comes after it, and a rule could not ask why it was refused.
        """
        placed, writes, later = translated(sql)
        if self.ask is not None:
            return self.ask(numbered(placed) if params else sql.encode(), params or ())
        cursor = self.cursor()
        if later:
            self.ahead.append(sql)
            return cursor
        prepare = False if params and len(params) > FEW and not writes else None
        guarded = writes and (bool(self.ahead) or self.pgconn.transaction_status == TransactionStatus.INTRANS)
        try:
            if self.ahead or guarded:
                self._run_behind(cursor, placed if params else sql, params or None, prepare, guarded=guarded)
            else:
                cursor.execute(placed if params else sql, params or None, prepare=prepare)
        except errors.InvalidSavepointSpecification as error:
            raise self._undone_by or error from None  # The transaction ended before the savepoint was made.
        except psycopg.Error as error:
            if guarded and self.pgconn.transaction_status == TransactionStatus.INERROR:
                with suppress(psycopg.Error):
                    super().execute("ROLLBACK TO SAVEPOINT statement")
            if self._undone_by is None and self.pgconn.transaction_status != TransactionStatus.INTRANS:
                self._undone_by = error
            raise
        return cursor

    def _run_behind(
        self, cursor: psycopg.Cursor[Any], sql: str, params: Any, prepare: bool | None, *, guarded: bool
    ) -> None:
        if TAKES_TURN in sql and self.ahead[-1:] == [TURN]:
            self.ahead.pop()
        ahead, self.ahead = self.ahead, []
        self._pipeline = _Together(self)
        try:
            with self._pipeline:
                for each in ahead:
                    self.wait(self._exec_command(each))  # Without a cursor, which takes ten times as long.
                if guarded:
                    self.cursor().execute("SAVEPOINT statement")
                cursor.execute(sql, params, prepare=prepare)
                if guarded:
                    self.cursor().execute("RELEASE SAVEPOINT statement")
        finally:
            self._pipeline = None
        # For a ROLLBACK TO or a DROP psycopg forgets all that it has prepared. By itself it has PostgreSQL do so behind
        # the next statement, which it has prepared by then, and would miss.
        self.wait(self._prepared.maintain_gen(self))

    def run_together(self, calls: Iterable[Callable[[], object]]) -> PQGen[None]:
        """Run calls that read, in the transaction that was begun; what they ask at the same time goes in one packet.

        A call sees nothing of that: `run` gives it the rows as ever. Gives a generator, which `wait` or `wait_on_loop`
        runs. Raises the error of the first statement that fails, and that of a call; what has not ended by then goes no
        further.
        """
        return self._packets_of().run(calls)

    def end_snapshot(self) -> PQGen[None]:
        """End the transaction, which has only read; a generator as that of `run_together`."""
        self.ahead = ["COMMIT"]
        return self._packets_of().send([])

    def _packets_of(self) -> Packets:
        if self._packets is None:
            self._packets = Packets(self)
        return self._packets

    def commit(self) -> None:
        """Commit the transaction.

        Raises Unsure where a standby may not have it, and the error that undid the transaction if there was one:
        PostgreSQL calls it no error to commit a transaction that it has undone.
        """
        if self._begun_only():
            return
        if self.closed:
            raise psycopg.OperationalError("the connection was lost before the transaction was committed")
        if time.monotonic() >= self.until:
            self.close()
            raise errors.ConnectionTimeout("the server took all of the time before the transaction was committed")
        self.committing, self._unsure = True, False
        told = self.run("COMMIT").statusmessage
        if self._unsure:
            raise Unsure("the wait for the synchronous standby was broken off")
        self.committing = False
        if told != "COMMIT":
            raise self._undone_by or errors.InFailedSqlTransaction("the transaction was undone")

    def rollback(self) -> None:
        """Undo the transaction; where the connection is lost, PostgreSQL has undone it or is going to."""
        if not self._begun_only() and not self.closed:
            self.ahead.clear()
            super().rollback()

    def _begun_only(self) -> bool:
        """Tell whether the transaction was not even sent yet, and forget it then."""
        if self.pgconn.transaction_status != TransactionStatus.IDLE:
            return False
        self.ahead.clear()
        return True
