"""Write many rows in slices, each a transaction, and give others their turn in between."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import peewee as pw

from service.errors import Busy, ServiceError, StorageUnavailable
from service.storage import backend_of

Row = TypeVar("Row")
Result = TypeVar("Result")

ALONE = 50
"""How many rows are written one by one after the transaction of a slice was undone, as one of them may be to blame."""
SHORT, LONG = (0.03, 0.03, 0.02), (0.1, 1.0, 0.11)
"""Seconds after which a slice begins no further row, of all slices from one pause to the next, and of a pause: where
others write, and where nobody has written for a while.

A connection of SQLite that waits for another one to commit is not woken, but looks 0, 1, 3, 8, 18, 33, 53, 78, 103,
128, 178 and 228 ms after it began to wait, and then every 100 ms. So a pause must be longer than the time between two
of these looks: then whoever began to wait since the last pause has its turn in this one. Where others write, they have
waited for a short while only, so a short pause is long enough.
"""
QUIET = 2.0
"""Seconds without a write of others after which pauses are rare."""


class Turns:
    """The slices of one import."""

    def __init__(self, db: pw.Database, *, alone: bool) -> None:
        """Begin; with `alone`, nobody else uses the database."""
        self._db, self._alone = db, alone
        self._others = backend_of(db).others_wrote(db)
        self._quiet_at = time.monotonic() + QUIET
        self._held = self._ended = 0.0
        """Seconds of all slices since the last pause, and when the last slice ended."""

    def write(
        self, rows: Sequence[Row], work: Callable[[Sequence[Row], float], Sequence[Result | ServiceError]]
    ) -> Sequence[Result | ServiceError]:
        """Write as many of the first rows as fit in a slice, but at least one, and give one result for each, in order.

        `work` takes the rows, and after which moment of the monotonic clock to begin no further one. Raises Busy and
        StorageUnavailable; nothing of the slice is kept then.
        """
        seconds = self._rest()
        began = time.monotonic()
        try:
            return self._write(rows, work, began + seconds)
        finally:
            self._ended = time.monotonic()
            self._held += self._ended - began

    def _write(
        self, rows: Sequence[Row], work: Callable[[Sequence[Row], float], Sequence[Result | ServiceError]], until: float
    ) -> Sequence[Result | ServiceError]:
        backend = backend_of(self._db)
        try:
            with backend.atomic(self._db):
                return work(rows, until)
        except Exception as error:
            # What `explain` does not know is raised again.
            refusal = backend.explain(self._db, error)
            if isinstance(refusal, (Busy, StorageUnavailable)):
                raise refusal from error
            if len(rows) == 1:
                return [refusal]
        return [result for row in rows[:ALONE] for result in self._write([row], work, until)]

    def _rest(self) -> float:
        """Make a pause if it is time for one, and give how many seconds the next slice may take."""
        if self._alone:
            return LONG[0]
        number = backend_of(self._db).others_wrote(self._db)
        if number != self._others:
            self._others, self._quiet_at = number, time.monotonic() + QUIET
        seconds, most, pause = SHORT if time.monotonic() < self._quiet_at else LONG
        gap = time.monotonic() - self._ended
        # Where other work has been a part of a pause, the rest of the pause comes the earlier.
        if self._held * pause + gap * most >= most * pause:
            time.sleep(max(0.0, pause - gap))
            self._held = 0
        return min(seconds, most - self._held)
