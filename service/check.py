"""Proves the invariants of a database: what `python -m service check` prints, and what the tests ask."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import attrs
import peewee as pw

from service.invariants import INVARIANTS, Invariant

FEW = 5
"""How many of those that break an invariant are named; all are counted."""
PATIENCE = 2_000_000
"""Instructions that SQLite runs between two signs of life."""

Tick = Callable[[str, float], object]
"""Hears what is at work, and for how many seconds already."""


@attrs.define
class Names:
    """The first few of those that were named, and how many there are."""

    count: int = 0
    first: list[str] = attrs.Factory(list)

    def add(self, name: str) -> None:
        """Count one more."""
        self.count += 1
        if self.count <= FEW:
            self.first.append(name)

    def __len__(self) -> int:
        return self.count

    def __str__(self) -> str:
        return "; ".join(self.first) + (f" and {self.count - FEW:,} more" if self.count > FEW else "")


@attrs.frozen
class Result:
    """What breaks an invariant now, and what once did: it is over, and stays in the feed."""

    invariant: Invariant
    broken: Names
    over: Names
    seconds: float

    def __str__(self) -> str:
        if self.broken:
            return f"{self.broken}: {self.invariant.says}. {self.invariant.mend}".strip()
        return f"ok now, but not once: {self.over}: {self.invariant.says}." if self.over else "ok"


def silent(_: str, __: float) -> None:
    """Tell nobody."""


def run(db: pw.Database, tick: Tick = silent) -> Iterator[Result]:
    """Prove every invariant in one snapshot, so that others may write meanwhile."""
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
    """Tick while the database is at work; give what tells for how many seconds it has been."""
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
