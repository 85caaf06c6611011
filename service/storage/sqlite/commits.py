"""Measures the commits and checkpoints of the writer thread."""

import time
from types import TracebackType

import peewee as pw

from service.storage import fetch
from service.storage.measured import SECONDS, Histogram, Measured
from service.storage.sqlite.file import File


class Commits:
    """The commits of one connection: each is a `with` block.

    In WAL mode only a checkpoint writes to the database file itself. So a commit that gives the file another time of
    its last change has done a checkpoint as well.
    """

    def __init__(self, file: File) -> None:
        """Have measured nothing yet."""
        self._file = file
        self._began, self._written = 0.0, 0
        self.seconds, self.checkpoints = Histogram(SECONDS), Histogram(SECONDS)

    def __enter__(self) -> None:
        """Begin to measure a commit."""
        self._written = self._file.written()
        self._began = time.perf_counter()

    def __exit__(self, error: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        """Count the commit, unless it failed."""
        seconds = time.perf_counter() - self._began
        if error is None:
            self.seconds.observe(seconds)
            if self._file.written() != self._written:
                self.checkpoints.observe(seconds)

    def truncate(self, db: pw.SqliteDatabase) -> None:
        """Do a checkpoint that truncates the -wal, unless another connection stands in the way: do not wait for it."""
        began, patience = time.perf_counter(), db.timeout
        db.timeout = 0
        try:
            ((busy, *_),) = fetch(db, "PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            db.timeout = patience
        if not busy:
            self.checkpoints.observe(time.perf_counter() - began)

    def measured(self, waiting: int, groups: Histogram) -> Measured:
        """Give all that was measured; `waiting` is how many writes wait, `groups` how large their groups were."""
        return Measured(waiting, self._file.log_size(), groups, self.seconds, self.checkpoints)
