"""Logs the statements that take long: their text, which has no values in it, and for how long they ran."""

import logging
import sqlite3
import time
from typing import Any

LONGEST = 1000
"""The characters of a statement that are logged; that of a bulk has many times as many."""

logger = logging.getLogger(__name__)


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
                    _log(sql, self.spent)
            return self

        def fetchall(self) -> list[Any]:
            began = time.perf_counter()
            try:
                return super().fetchall()
            finally:
                spent = self.spent + time.perf_counter() - began
                if self.spent < seconds <= spent:
                    _log(self.sql, spent)

    class Connection(sqlite3.Connection):
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

        def execute(self, sql: str, parameters: Any = (), /) -> Any:
            return self.cursor().execute(sql, parameters)  # The driver's own would not take the cursor from above.

    return Connection


def _log(sql: str, seconds: float) -> None:
    told = {"ms": round(seconds * 1000, 1), "sql": " ".join(sql.split())[:LONGEST]}
    logger.warning("A statement was slow.", extra={"told": told})
