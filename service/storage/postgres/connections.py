"""Connect to a database of PostgreSQL, with the settings that every connection of the service needs."""

import math
import re
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from functools import lru_cache
from typing import Any

import peewee as pw
import psycopg
from psycopg import errors
from psycopg.adapt import AdaptersMap
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8Dumper

from service.storage.postgres.urls import parameters

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

IDLE_SECONDS = 3
"""Seconds after which PostgreSQL ends the connection of a store that holds a transaction open and asks for nothing: the
turn of a process that was stopped is free again then."""
IDLE_SECONDS_OF_OTHERS = 60
"""The same for a connection that is no store's: an import, or a program that has the rules in its own transactions."""
KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
"""Where the other machine is gone, a connection that waits for an answer ends after 11 seconds."""

_WRAPPED: AbstractContextManager[None] = vars(pw)["__exception_wrapper__"]
"""Raises the errors of the driver within a block as those of Peewee."""
_PARTS = re.compile(r"""'[^']*'|"[^"]*"|--[^\n]*|%|\?""")
_WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE)\b|\s*WITH\b.*\b(INSERT INTO|UPDATE|DELETE FROM)\b", re.DOTALL)
_LATER = re.compile(r"SAVEPOINT|RELEASE SAVEPOINT")


OLDEST = 15
"""The oldest version of PostgreSQL that the service runs on."""


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


class Connection(psycopg.Connection[Any]):
    """A connection that sends what has no result of interest along with the next statement, and waits until a deadline.

    BEGIN, the turn, and the statements of savepoints cost no round trip so: psycopg's pipeline mode has them.
    """

    until = math.inf
    """When to stop waiting for an answer of the server, in seconds of the monotonic clock; the connection is closed
    then. A server that is stopped, or a machine that is gone, answers nothing."""
    committing = False
    """Whether the last transaction's COMMIT began. If that fails, nobody can tell whether the transaction was kept."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Have nothing to send yet."""
        super().__init__(*args, **kwargs)
        self.ahead: list[str] = []
        """The statements that are sent with the next one."""
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
        if self.until < math.inf:
            kwargs["timeout"] = max(0.0, self.until - time.monotonic())
        try:
            return super().wait(gen, *args, **kwargs)
        except psycopg.OperationalError:
            if not self.closed and time.monotonic() >= self.until:
                self.close()
                raise errors.ConnectionTimeout("the server did not answer in time") from None
            raise

    def begin(self, kind: str | None) -> None:
        """Begin a transaction of a kind in `BEGIN`, with the next statement."""
        self.committing, self._undone_by = False, None
        self.ahead += BEGIN[kind]

    def run(self, sql: str, params: Any = None) -> psycopg.Cursor[Any]:
        """Run a statement, with what is to be sent before it.

        Within a transaction, a statement that writes is undone alone if it fails, as SQLite does it: else PostgreSQL
        would refuse whatever comes after it, and a rule could not ask why it was refused.
        """
        placed, writes, later = translated(sql)
        cursor = self.cursor()
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
        ahead, self.ahead = self.ahead, []
        with self.pipeline():
            for each in ahead:
                self.cursor().execute(each)
            if guarded:
                self.cursor().execute("SAVEPOINT statement")
            cursor.execute(sql, params)
            if guarded:
                self.cursor().execute("RELEASE SAVEPOINT statement")

    def commit(self) -> None:
        """Commit the transaction.

        Raises Unsure where a standby may not have it, and the error that undid the transaction if there was one:
        PostgreSQL calls it no error to commit a transaction that it has undone.
        """
        if self._begun_only():
            return
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


class Database(pw.PostgresqlDatabase):
    """A Peewee database whose statements have ? for each value; it connects again where a connection was lost."""

    param = "?"

    def __init__(self, given: Mapping[str, Any], *, thread_safe: bool) -> None:
        """Keep the parameters of libpq that each connection has."""
        super().__init__(str(given.get("dbname", "")), prefer_psycopg3=True, thread_safe=thread_safe)
        self._given = given

    def _connect(self) -> Connection:
        adapters = AdaptersMap(psycopg.adapters)
        adapters.register_dumper(int, Int8Dumper)  # Else each size of a number would have a plan of its own.
        # A statement is prepared at its first run: most of them are run again and again.
        connection = Connection.connect(**self._given, autocommit=True, prepare_threshold=0, context=adapters)
        if (version := connection.pgconn.server_version) < OLDEST * 10_000:
            connection.close()
            raise psycopg.NotSupportedError(f"it is PostgreSQL {version // 10_000}; at least {OLDEST} is needed")
        return connection

    def connection(self) -> Connection:
        """Give this thread's connection, which is a new one if there is none, or if the last one was lost."""
        state: Any = vars(self)["_state"]
        if state.closed or (state.conn.closed and not self.in_transaction()):
            state.reset()
            self.connect()
        connection: Connection = state.conn
        return connection

    def execute_sql(self, sql: str, params: Any = None) -> psycopg.Cursor[Any]:
        """Run a statement."""
        with _WRAPPED:
            return self.connection().run(sql, params)

    def begin(self, kind: str | None = None) -> None:
        """Begin a transaction: "IMMEDIATE" for one that writes, "READ" for one that reads from one snapshot."""
        self.connection().begin(kind)

    def commit(self) -> None:
        """Commit the transaction."""
        with _WRAPPED:
            self.connection().commit()

    def rollback(self) -> None:
        """Undo the transaction."""
        with _WRAPPED:
            self.connection().rollback()


def open_database(
    url: str,
    *,
    busy_timeout: float = 5.0,
    statement_timeout: float = 0.0,
    idle_timeout: float = IDLE_SECONDS_OF_OTHERS,
    thread_safe: bool = True,
) -> Database:
    """Make a Peewee database of a URL; it connects at its first use.

    `busy_timeout` is how many seconds a statement waits for another connection's lock, and for a connection;
    `statement_timeout` how many it may take in all, and `idle_timeout` how many a transaction may ask for nothing: 0
    means any number. With `thread_safe` every thread has its own connection; without, there is one connection. Raises
    SetupError for a text that is no URL of PostgreSQL.
    """
    given = parameters(url)
    hosts = len(str(given.get("host", "")).split(","))
    settings = {
        "lock_timeout": max(1, round(busy_timeout * 1000)),
        "statement_timeout": round(statement_timeout * 1000),
        "idle_in_transaction_session_timeout": round(idle_timeout * 1000),
    }
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    defaults = {
        "application_name": "enrollment",
        "connect_timeout": max(2, int(busy_timeout / hosts)),
        "target_session_attrs": "read-write",
        "tcp_user_timeout": max(1, round(busy_timeout * 1000)),
        **KEEPALIVES,
    }
    always = {"client_encoding": "UTF8", "options": f"{options} {given.get('options', '')}".strip()}
    return Database({**defaults, **given, **always}, thread_safe=thread_safe)
