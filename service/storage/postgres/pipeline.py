"""One connection to PostgreSQL: what is sent together, what is undone alone, and how long it waits for an answer."""

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeVar

import psycopg
from greenlet import getcurrent, greenlet
from psycopg import errors
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus

from service.storage.slow import log_slow

T = TypeVar("T")

TURN = "SELECT pg_advisory_xact_lock(1701711, hashtext(current_schema()))"
"""Takes the turn of a school, which is a schema: until its transaction ends, no other transaction changes anything of
the school that the rules count. So PostgreSQL writes as SQLite does, one transaction after the other."""
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
_Statement = tuple[psycopg.Cursor[Any], str, Any]
"""The cursor that runs a statement, the statement, and its values."""


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
    """Whether the last transaction's COMMIT began. If that fails, nobody can tell whether the transaction was kept."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Have nothing to send yet."""
        super().__init__(*args, **kwargs)
        self.ahead: list[str] = []
        """The statements that are sent with the next one."""
        self._asking: greenlet | None = None
        """What runs the calls of `run_together`, while it does."""
        self._asked: list[_Statement] = []
        """The statements of those calls that are to be sent."""
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
                raise errors.ConnectionTimeout("the server did not answer in time") from None
            raise

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

    def run(self, sql: str, params: Any = None) -> psycopg.Cursor[Any]:
        """Run a statement, with what is to be sent before it, and log it where it takes `slow` seconds or more."""
        if not self.slow:
            return self._run(sql, params)
        began = time.perf_counter()
        try:
            return self._run(sql, params)
        finally:
            if (seconds := time.perf_counter() - began) >= self.slow:
                log_slow(sql, seconds)

    def _run(self, sql: str, params: Any) -> psycopg.Cursor[Any]:
        """Run a statement.

        Within a transaction, a statement that writes is undone alone if it fails, as SQLite does it: else PostgreSQL
        would refuse whatever comes after it, and a rule could not ask why it was refused.
        """
        placed, writes, later = translated(sql)
        cursor = self.cursor()
        if self._asking is not None:
            if writes or later:
                raise psycopg.NotSupportedError("a rule that reads together with others only reads")
            self._asked.append((cursor, placed if params else sql, params or None))
            self._asking.switch()
            return cursor
        if later:
            self.ahead.append(sql)
            return cursor
        guarded = writes and (bool(self.ahead) or self.pgconn.transaction_status == TransactionStatus.INTRANS)
        try:
            if self.ahead or guarded:
                self._run_behind(cursor, placed if params else sql, params or None, guarded=guarded)
            else:
                cursor.execute(placed if params else sql, params or None)
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

    def _run_behind(self, cursor: psycopg.Cursor[Any], sql: str, params: Any, *, guarded: bool) -> None:
        statement = cursor, sql, params
        if guarded:
            savepoint, release = ((self.cursor(), f"{verb}SAVEPOINT statement", None) for verb in ("", "RELEASE "))
            self._send([savepoint, statement, release])
        else:
            self._send([statement])

    def _send(self, statements: Sequence[_Statement]) -> None:
        """Send statements in one packet, behind those that are to be sent with the next one."""
        ahead, self.ahead = self.ahead, []
        self._pipeline = _Together(self)
        try:
            with self._pipeline:
                for each in ahead:
                    self.cursor().execute(each)
                for cursor, sql, params in statements:
                    cursor.execute(sql, params)
        finally:
            self._pipeline = None

    def run_together(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Run calls that read until all have ended; what they ask of PostgreSQL at the same time is one packet.

        Each call runs in a greenlet until it runs a statement, then the next call does, and when all of them wait,
        their statements are sent. A call sees nothing of that: `run` gives it the rows as ever. Gives what the calls
        gave. Raises the error of the first statement that fails, and that of a call; what has not ended by then goes no
        further.
        """
        self._asking = getcurrent()
        given: dict[int, T] = {}
        waiting = [(number, greenlet(call)) for number, call in enumerate(calls)]
        try:
            while waiting:
                for number, each in waiting:
                    given[number] = each.switch()
                waiting = [(number, each) for number, each in waiting if not each.dead]
                asked, self._asked = self._asked, []
                if asked:
                    self._send(asked)
        finally:
            self._asking, self._asked = None, []
            for _, each in waiting:
                each.throw()
        return [given[number] for number in range(len(calls))]

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
        if told != "COMMIT":
            self.committing = False
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
