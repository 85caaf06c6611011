"""Read the rows of parts; a thread reads the next ones while the last ones are at work."""

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from service.exchange.parts import Part, Refused, Row, Skipped

Item = Row | Skipped | Refused
Read = tuple[Part, Item]


def ahead(parts: Sequence[Part], most: int) -> Generator[list[Read], None, None]:
    """Give the rows of several parts, one after the other, `most` of them at a time.

    Reading is Python's work, and writing is that of the database, so with two cores both go on at the same time. The
    thread reads `most` rows ahead at most. Raises what reading the parts raises.
    """
    rows = ((part, item) for part in parts for item in part.rows())

    def some() -> list[Read]:
        return [*islice(rows, most)]

    with ThreadPoolExecutor(1, "enrollment-reader") as thread:
        coming = thread.submit(some)
        while read := coming.result():
            coming = thread.submit(some)
            yield read
