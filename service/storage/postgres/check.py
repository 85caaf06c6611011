"""Check the invariants of a school on PostgreSQL, for the command `python -m service check`, `repair` and the tests."""

import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, nullcontext
from threading import Event, Thread

import peewee as pw

from service.storage.checks import Names, Result, Tick, silent
from service.storage.postgres.invariants import INVARIANTS

SECONDS = 0.2
"""Seconds between two calls of a `Tick`."""


def run(db: pw.Database, tick: Tick = silent, but: Container[str] = ()) -> Iterator[Result]:
    """Check every invariant, `but` some by their names, and give one result after the other.

    All are checked in one snapshot of the database, so that other connections may write meanwhile.
    """
    with nullcontext() if db.in_transaction() else db.atomic("READ"):
        for invariant in (each for each in INVARIANTS if each.name not in but):
            broken, over = Names(), Names()
            with watched(invariant.name, tick) as elapsed:
                try:
                    with db.savepoint():  # Else a statement that fails would be the last one of the transaction.
                        for name, *is_over in invariant.find(db):
                            (over if any(is_over) else broken).add(name)
                except pw.DatabaseError as error:
                    broken.add(f"it cannot be told ({str(error).strip()})")
                seconds = elapsed()
            yield Result(invariant, broken, over, seconds)


@contextmanager
def watched(what: str, tick: Tick) -> Iterator[Callable[[], float]]:
    """Call `tick`, from a thread, until the block ends; give a function that tells the seconds since its start."""
    started = time.monotonic()

    def elapsed() -> float:
        return time.monotonic() - started

    def beat() -> None:
        while not ended.wait(SECONDS):
            tick(what, elapsed())

    ended, thread = Event(), Thread(target=beat, daemon=True)
    tick(what, 0)
    thread.start()
    try:
        yield elapsed
    finally:
        ended.set()
        thread.join()
