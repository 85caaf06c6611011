"""Read all rows of a school, and fill an empty one, for the command that moves a school to another database.

While a school is filled, the triggers that tell events rest, and there are neither indexes nor references: the rows are
what they are already, and to make an index of all rows is faster than to add row by row to it. All is made again in the
same transaction.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import peewee as pw
import psycopg

from service.errors import SetupError
from service.storage import fetch
from service.storage.checks import Tick
from service.storage.migrating import TABLES
from service.storage.postgres import drift
from service.storage.postgres.breaches import WORDS_OF_COURSE, given_in
from service.storage.postgres.check import run as check
from service.storage.postgres.check import watched
from service.storage.postgres.schema import writing

__all__ = ["check", "fill", "filling", "given", "go_on_behind", "rows", "writing"]

RESTING = ("courses", "enrollments", "enrollment_events", "event_notes")
"""The tables whose triggers rest, and that have no primary key meanwhile: COPY takes a third of the time without. The
triggers of the other tables check the rows, and make the words of the search."""
MEMORY = "SELECT set_config('maintenance_work_mem', '256MB', TRUE), set_config('work_mem', '64MB', TRUE)"
BATCH = 10_000
"""How many rows are fetched at once."""


def rows(db: pw.Database, table: str, columns: Sequence[str], key: int) -> Iterator[tuple[Any, ...]]:
    """Give the values of some columns of all rows, in the order of the first `key` columns, one after the other."""
    with db.connection().cursor(name="rows") as cursor:
        cursor.itersize = BATCH
        cursor.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {', '.join(columns[:key])}")
        yield from cursor


def given(db: pw.Database, table: str) -> int:
    """Give the highest id that was ever given in a table."""
    ((last,),) = fetch(db, f"SELECT {given_in(table)}")
    return int(last)


@contextmanager
def filling(db: pw.Database, tick: Tick) -> Iterator[None]:
    """Let a block fill the tables; at its end all is there that keeps the rules."""
    every = drift.expected().values()
    indexes = [each for each in every if each.kind == "index"]
    references = [each for each in every if each.sql.startswith("FOREIGN KEY")]
    keys = []
    fetch(db, MEMORY)
    for each in indexes:
        db.execute_sql(f"DROP INDEX {each.name}")
    for each in references:
        db.execute_sql(f"ALTER TABLE {each.table} DROP CONSTRAINT {each.name}")
    for each in every:
        if each.table in RESTING and each.sql.startswith("PRIMARY KEY"):
            with suppress(pw.DatabaseError), db.savepoint():  # A table of another program may refer to it.
                db.execute_sql(f"ALTER TABLE {each.table} DROP CONSTRAINT {each.name}")
                keys.append(each)
    for table in RESTING:
        db.execute_sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    yield
    with watched("indexes", tick):
        db.execute_sql(f"UPDATE courses SET words = {WORDS_OF_COURSE}")
        for each in indexes:
            db.execute_sql(each.sql)
        for each in keys + references:
            db.execute_sql(f"ALTER TABLE {each.table} ADD CONSTRAINT {each.name} {each.sql}")
        for table in RESTING:
            db.execute_sql(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        db.execute_sql(f"ANALYZE {', '.join(TABLES)}")


def fill(db: pw.Database, table: str, columns: Sequence[str], values: Iterable[Sequence[Any]]) -> None:
    """Put rows into a table. Raises SetupError for a value that PostgreSQL cannot have."""
    row: Sequence[Any] = ()
    try:
        with db.connection().cursor() as cursor, cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
            for row in values:
                copy.write_row(row)
    except psycopg.DataError as error:
        # What the server refuses, and not the driver, is of an earlier row: "COPY students, line 2, column name".
        where = error.diag.context or f"the row of {table} with {columns[0]} {row[0]}"
        message = f"Nothing was moved: {error.diag.message_primary or error}. It is in {where}."
        raise SetupError(message) from error


def go_on_behind(db: pw.Database, given: Mapping[str, int]) -> None:
    """Let the next id of each table be higher than the one that was given last."""
    for table, last in given.items():
        if last:
            fetch(db, f"SELECT setval('{table}_id_seq', ?)", last)
