"""Connect to a database of PostgreSQL, with the settings that every connection of the service needs."""

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import peewee as pw
import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.types.numeric import Int8Dumper

from service.storage.postgres.faults import cause_of, is_refusal
from service.storage.postgres.pipeline import TURN, Connection
from service.storage.postgres.poolers import MARK
from service.storage.postgres.urls import parameters

__all__ = ["IDLE_SECONDS", "IDLE_SECONDS_OF_OTHERS", "TURN", "Database", "open_database"]

IDLE_SECONDS = 3
"""Seconds after which PostgreSQL ends the connection of a store that holds a transaction open and asks for nothing: the
turn of a process that was stopped is free again then."""
IDLE_SECONDS_OF_OTHERS = 60
"""The same for a connection that is no store's: an import, or a program that has the rules in its own transactions."""
NAME = "enrollment"
NAME_SCHOOL = f"SELECT set_config('application_name', concat_ws(' ', '{NAME}', current_schema()), FALSE)"
"""Names a connection after its school too, unless the URL names it: so `rollback` finds who has the school open."""
KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
"""Where the other machine is gone, a connection that waits for an answer ends after 11 seconds."""

_WRAPPED: AbstractContextManager[None] = vars(pw)["__exception_wrapper__"]
"""Raises the errors of the driver within a block as those of Peewee."""
OLDEST = 15
"""The oldest version of PostgreSQL that the service runs on."""
WRONG_ENCODING = "its encoding is {}, and not UTF8: make one by createdb --encoding=UTF8 --template=template0"
"""Why a database is refused that cannot have each letter, or takes its bytes for letters."""


class Database(pw.PostgresqlDatabase):
    """A Peewee database whose statements have ? for each value; it connects again where a connection was lost."""

    param = "?"
    packets = 0
    """How many packets of reads it has sent."""

    def __init__(self, given: Mapping[str, Any], *, thread_safe: bool, slow: float) -> None:
        """Keep the parameters of libpq that each connection has; statements of `slow` seconds or more are logged."""
        super().__init__(str(given.get("dbname", "")), prefer_psycopg3=True, thread_safe=thread_safe)
        self._given, self._slow = given, slow
        self._until, self._patience = math.inf, math.inf
        self.committed: Callable[[float], object] = abs
        """Is told how many seconds each commit took."""

    def _connect(self) -> Connection:
        adapters = AdaptersMap(psycopg.adapters)
        adapters.register_dumper(int, Int8Dumper)  # Else each size of a number would have a plan of its own.
        # A statement is prepared at its first run: most of them are run again and again.
        left = min(self._until - time.monotonic(), self._patience)
        given = dict(self._given)
        if left < math.inf:
            hosts = len(str(given.get("host", "")).split(","))
            given["connect_timeout"] = max(2, int(left / hosts))  # libpq gives each host two seconds at least.
        with ExitStack() as unless_good:
            connection = Connection.connect(**given, autocommit=True, prepare_threshold=0, context=adapters)
            unless_good.callback(connection.close)
            if (version := connection.pgconn.server_version) < OLDEST * 10_000:
                raise psycopg.NotSupportedError(f"it is PostgreSQL {version // 10_000}; at least {OLDEST} is needed")
            if (encoding := connection.info.parameter_status("server_encoding")) not in {"UTF8", None}:
                raise psycopg.NotSupportedError(WRONG_ENCODING.format(encoding))
            connection.until, connection.patience = self._until, self._patience
            if given["application_name"] == NAME:
                connection.execute(NAME_SCHOOL, prepare=False)
            connection.slow = self._slow
            unless_good.pop_all()
        return connection

    def connected(self) -> Connection:
        """Make a connection, in whatever thread; it is nobody's, until `adopt` is called or it is closed."""
        with _WRAPPED:
            return self._connect()

    def adopt(self, connection: Connection) -> None:
        """Have a connection that `connected` made as this thread's."""
        vars(self)["_state"].set_connection(connection)

    def release(self) -> Connection:
        """Give this thread's connection away."""
        state: Any = vars(self)["_state"]
        connection: Connection = state.conn
        state.reset()
        return connection

    def connection(self) -> Connection:
        """Give this thread's connection, which is a new one if there is none, or if the last one was lost."""
        state: Any = vars(self)["_state"]
        if state.closed or (state.conn.closed and not self.in_transaction()):
            state.reset()
            self.connect()
        connection: Connection = state.conn
        return connection

    def last_connection(self) -> Connection | None:
        """Give this thread's connection as it is, open or lost, or None if there never was one."""
        connection: Connection | None = vars(self)["_state"].conn
        return connection

    def is_connected(self) -> bool:
        """Tell whether this thread has a connection that was not lost, as far as is known."""
        connection = self.last_connection()
        return connection is not None and not connection.closed

    def forget(self) -> None:
        """Leave the connection to the parent of this process, which was forked: whatever is sent here goes nowhere."""
        connection = self.last_connection()
        if connection is not None and not connection.closed:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, connection.pgconn.socket)
            os.close(nowhere)

    def wait_until(self, until: float = math.inf, patience: float = math.inf) -> None:
        """Wait for answers until a moment of the monotonic clock, and for each for some seconds at most."""
        self._until, self._patience = until, patience
        if connection := self.last_connection():
            connection.until, connection.patience = until, patience

    def execute_sql(self, sql: str, params: Any = None) -> Any:
        """Run a statement. Whatever a rule of another program refuses is an IntegrityError.

        Peewee's `query_hooks` are told of it.
        """
        if not self.query_hooks:
            return self._run(sql, params)
        began = time.perf_counter()
        try:
            cursor = self._run(sql, params)
        except pw.DatabaseError as error:
            self._tell(pw.QueryEvent(sql, params, time.perf_counter() - began, error))
            raise
        self._tell(pw.QueryEvent(sql, params, time.perf_counter() - began, None))
        return cursor

    def _tell(self, event: pw.QueryEvent) -> None:
        for hook in self.query_hooks:
            hook(event)

    def _run(self, sql: str, params: Any) -> Any:
        try:
            with _WRAPPED:
                return self.connection().run(sql, params)
        except pw.DatabaseError as error:
            cause = cause_of(error)
            if is_refusal(cause):
                raise pw.IntegrityError(cause, *error.args) from cause
            raise

    def begin(self, kind: str | None = None, lock_timeout: int | None = None) -> None:
        """Begin a transaction: "IMMEDIATE" for one that writes, "READ" for one that reads from one snapshot.

        It waits for `lock_timeout` milliseconds for each lock, or else as long as the connection is set to.
        """
        self.connection().begin(kind, lock_timeout)

    def commit(self) -> None:
        """Commit the transaction; where its connection was lost, no other one may do it."""
        began = time.perf_counter()
        with _WRAPPED:
            vars(self)["_state"].conn.commit()
        self.committed(time.perf_counter() - began)

    def rollback(self) -> None:
        """Undo the transaction."""
        if connection := self.last_connection():
            with _WRAPPED:
                connection.rollback()


def open_database(  # noqa: PLR0913 - a connection has so many settings.
    url: str,
    *,
    busy_timeout: float = 5.0,
    statement_timeout: float = 0.0,
    idle_timeout: float = IDLE_SECONDS_OF_OTHERS,
    lock_timeout: float | None = None,
    thread_safe: bool = True,
    slow: float = 0.0,
) -> Database:
    """Make a Peewee database of a URL; it connects at its first use.

    `busy_timeout` is how many seconds to wait for a connection, and for another connection's lock unless
    `lock_timeout` is given; `statement_timeout` how many a statement may take in all, and `idle_timeout` how many a
    transaction may ask for nothing: 0 means any number. Statements that take `slow` seconds or more are logged. With
    `thread_safe` every thread has its own connection; without, there is one connection. Raises SetupError for a text
    that is no URL of PostgreSQL.
    """
    given = parameters(url)
    hosts = len(str(given.get("host", "")).split(","))
    settings = {
        "lock_timeout": max(1, round((busy_timeout if lock_timeout is None else lock_timeout) * 1000)),
        "statement_timeout": round(statement_timeout * 1000),
        "idle_in_transaction_session_timeout": round(idle_timeout * 1000),
        MARK: "yes",
    }
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    defaults = {
        "application_name": NAME,
        "connect_timeout": max(2, int(busy_timeout / hosts)),
        "target_session_attrs": "read-write",
        "tcp_user_timeout": max(1, round(busy_timeout * 1000)),
        **KEEPALIVES,
    }
    always = {"client_encoding": "UTF8", "options": f"{options} {given.get('options', '')}".strip()}
    return Database({**defaults, **given, **always}, thread_safe=thread_safe, slow=slow)
