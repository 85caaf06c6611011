"""Read the rows of parts, some of them ahead while others have their turn at the database."""

from collections.abc import Iterator, Sequence
from itertools import islice

from service.exchange.parts import Part, Refused, Row, Skipped

Item = Row | Skipped | Refused
Read = tuple[Part, Item]

STEP = 50
"""How many rows are read ahead at a time: they take less than a millisecond."""


class Ahead:
    """The rows of several parts, one after the other."""

    def __init__(self, parts: Sequence[Part], most: int) -> None:
        """Begin; at most `most` rows are read ahead."""
        self._rows: Iterator[Read] = ((part, item) for part in parts for item in part.rows())
        self._most = most
        self._waiting: list[Read] = []

    def more(self) -> bool:
        """Read a few rows ahead; give False where there is none, or enough of them wait already."""
        if len(self._waiting) >= self._most:
            return False
        some = [*islice(self._rows, STEP)]
        self._waiting += some
        return bool(some)

    def take(self) -> list[Read]:
        """Give the next rows, `most` of them unless they come to their end; the last list is empty."""
        taken, self._waiting = self._waiting, []
        taken += islice(self._rows, max(0, self._most - len(taken)))
        return taken
