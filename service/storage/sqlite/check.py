"""Check the invariants of a database, for the command `python -m service check`, for `repair` and for the tests."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import attrs
import peewee as pw

from service.storage.sqlite.invariants import INVARIANTS, Invariant

FEW = 5
"""How many of the rows that break an invariant are named; all are counted."""
PATIENCE = 2_000_000
"""How many instructions SQLite runs between two calls of a `Tick`."""

Tick = Callable[[str, float], object]
"""Is called again and again during long work, with the name of the work and the seconds since it began, to show that
the program is alive."""


@attrs.define
class Names:
    """The first FEW names of a list, and how many there are in all."""

    count: int = 0
    first: list[str] = attrs.Factory(list)

    def add(self, name: str) -> None:
        """Count one more name, and keep it if it is one of the first."""
        self.count += 1
        if self.count <= FEW:
            self.first.append(name)

    def __len__(self) -> int:
        return self.count

    def __str__(self) -> str:
        return "; ".join(self.first) + (f" and {self.count - FEW:,} more" if self.count > FEW else "")


@attrs.frozen
class Result:
    """The names of what breaks an invariant now, and of what broke it once.

    What is `over` stays in the feed (the table enrollment_events) for ever, as events are never changed.
    """

    invariant: Invariant
    broken: Names
    over: Names
    seconds: float

    def __str__(self) -> str:
        if self.broken:
            return f"{self.broken}: {self.invariant.says}. {self.invariant.mend}".strip()
        return f"ok now, but not once: {self.over}: {self.invariant.says}." if self.over else "ok"


def silent(_: str, __: float) -> None:
    """Be a `Tick` that does nothing."""


def run(db: pw.Database, tick: Tick = silent) -> Iterator[Result]:
    """Check every invariant, and give one result after the other.

    All are checked in one snapshot of the database, so that other connections may write meanwhile.
    """
    with nullcontext() if db.in_transaction() else db.atomic():
        for invariant in INVARIANTS:
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
