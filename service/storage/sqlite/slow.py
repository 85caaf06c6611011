"""Finds the statements that take long."""

import sqlite3
import time
from typing import Any

from service.storage.slow import log_slow


def connection_class(seconds: float) -> type[sqlite3.Connection]:
    """Give the class of connections that log the statements which take so many seconds, or more; with 0 none is logged.

    Where nothing is to be logged, that is the driver's own class: nothing is measured then.
    """
    if not seconds:
        return sqlite3.Connection

    class Cursor(sqlite3.Cursor):
        def execute(self, sql: str, parameters: Any = (), /) -> "Cursor":
            began = time.perf_counter()
            try:
                super().execute(sql, parameters)
            finally:
                self.sql, self.spent = sql, time.perf_counter() - began
                if self.spent >= seconds:
                    log_slow(sql, self.spent)
            return self

        def fetchall(self) -> list[Any]:
            began = time.perf_counter()
            try:
                return super().fetchall()
            finally:
                spent = self.spent + time.perf_counter() - began
                if self.spent < seconds <= spent:
                    log_slow(self.sql, spent)

    class Connection(sqlite3.Connection):
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

        def execute(self, sql: str, parameters: Any = (), /) -> Any:
            return self.cursor().execute(sql, parameters)  # The driver's own would not take the cursor from above.

    return Connection
