"""What a store has measured since it was made, as numbers and histograms."""

from bisect import bisect_left
from collections.abc import Sequence

import attrs

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of the buckets of durations, in seconds: from a read of a few rows to a disk that hangs."""
SIZES = tuple(float(2**power) for power in range(11))
"""The upper bounds of the buckets of numbers of writes."""


class Histogram:
    """How many values fell into each bucket, and their sum; one thread counts, and others may look."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Have seen no value. `bounds` are the upper bounds of the buckets; one more bucket takes what is larger."""
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


@attrs.frozen
class Measured:
    """What a store tells of itself."""

    waiting: int
    """How many writes wait for the writer thread."""
    log_bytes: int
    """The size of the file that commits go to first: of SQLite the -wal."""
    groups: Histogram
    """How many writes a commit was for."""
    commits: Histogram
    """Seconds that commits took, with the sync to the disk."""
    checkpoints: Histogram
    """Seconds of those commits, and of other work, that copied the log to the database as well."""
