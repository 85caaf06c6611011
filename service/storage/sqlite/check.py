"""Check the invariants of a database, for the command `python -m service check`, for `repair` and for the tests."""

import sqlite3
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, nullcontext

import peewee as pw

from service.storage.checks import Names, Result, Tick, silent
from service.storage.sqlite.invariants import INVARIANTS

PATIENCE = 2_000_000
"""How many instructions SQLite runs between two calls of a `Tick`."""


def run(db: pw.Database, tick: Tick = silent, but: Container[str] = ()) -> Iterator[Result]:
    """Check every invariant, `but` some by their names, and give one result after the other.

    All are checked in one snapshot of the database, so that other connections may write meanwhile.
    """
    with nullcontext() if db.in_transaction() else db.atomic():
        for invariant in (each for each in INVARIANTS if each.name not in but):
            broken, over = Names(), Names()
            with watched(db, invariant.name, tick) as elapsed:
                try:
                    for name, *is_over in invariant.find(db):
                        (over if any(is_over) else broken).add(name)
                except (pw.DatabaseError, sqlite3.DatabaseError) as error:
                    broken.add(f"it cannot be told ({error})")
                seconds = elapsed()
            yield Result(invariant, broken, over, seconds)


@contextmanager
def watched(db: pw.Database, what: str, tick: Tick) -> Iterator[Callable[[], float]]:
    """Call `tick` while SQLite works within the block; give a function that tells the seconds since its start."""
    started = time.monotonic()

    def elapsed() -> float:
        return time.monotonic() - started

    tick(what, 0)
    connection = db.connection()
    connection.set_progress_handler(lambda: tick(what, elapsed()), PATIENCE)
    try:
        yield elapsed
    finally:
        connection.set_progress_handler(None, PATIENCE)
