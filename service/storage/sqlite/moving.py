"""Read all rows of a file, and fill an empty one, for the command that moves a school to another database.

While a file is filled, its triggers and indexes are not there: the rows are what they are already. They are made again
in the same transaction.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import peewee as pw

from service.errors import SetupError
from service.storage.checks import Tick
from service.storage.sqlite import drift
from service.storage.sqlite.check import run as check
from service.storage.sqlite.check import watched
from service.storage.sqlite.repair import give_no_id_again, last_id
from service.storage.sqlite.schema import writing
from service.storage.sqlite.words import fill as fill_words

__all__ = ["check", "fill", "filling", "given", "go_on_behind", "rows", "writing"]

FOR_MUCH = ("PRAGMA cache_size = -262144", "PRAGMA threads = 2")
"""What a connection has that makes and checks indexes of all rows: 256 MiB of pages, and two threads more that sort."""


def rows(db: pw.Database, table: str, columns: Sequence[str], key: int) -> Iterator[tuple[Any, ...]]:
    """Give the values of some columns of all rows, in the order of the first `key` columns, one after the other.

    Raises SetupError for a text that is not UTF-8.
    """
    order, row = ", ".join(columns[:key]), ("none",)
    try:
        for row in db.execute_sql(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order}"):
            yield row
    except sqlite3.OperationalError as error:
        message = f"Nothing was moved: the row of {table} behind {columns[0]} {row[0]} cannot be read: {error}."
        raise SetupError(message) from error


def given(db: pw.Database, table: str) -> int:
    """Give the highest id that was ever given in a table."""
    return last_id(db, table)


@contextmanager
def filling(db: pw.Database, tick: Tick) -> Iterator[None]:
    """Let a block fill the tables; at its end all is there that keeps the rules."""
    for setting in FOR_MUCH:
        db.execute_sql(setting)
    resting = [each for each in drift.expected().values() if each.type in {"index", "trigger"}]
    for each in resting:
        db.execute_sql(f"DROP {each.type.upper()} {each.name}")
    yield
    with watched(db, "indexes", tick):
        fill_words(db)
        for each in resting:
            db.execute_sql(each.sql)


def fill(db: pw.Database, table: str, columns: Sequence[str], values: Iterable[Sequence[Any]]) -> None:
    """Put rows into a table."""
    places = ", ".join("?" for _ in columns)
    db.connection().executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", values)


def go_on_behind(db: pw.Database, given: Mapping[str, int]) -> None:
    """Let the next id of each table be higher than the one that was given last."""
    for table, last in given.items():
        give_no_id_again(db, table, last)
