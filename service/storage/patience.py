"""Run the reads that the event loop must not wait for: each in a thread, with a deadline, and not too many at once."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import TypeVar

from service.errors import Busy

T = TypeVar("T")

THREADS = 4
"""How many reads run in threads at once. The database runs them beside each other, and a thread that waits for a lock
of another program is not there for the next read."""
MOST_READS = 100
"""How many reads may run in threads or wait for one; the next read is refused at once."""
SCANS, MOST_SCANS = 2, 10
"""How many reads of a whole table run at once, and how many may run or wait. Each keeps old states of the
database from being forgotten, so there are few."""
SCAN_WAIT = 30.0
"""Seconds that such a read waits for its turn."""
_NOTHING = "Nothing was read."


class Patience:
    """The threads of one store, which start with the first read that needs one.

    The threads are the store's own, so that nothing else in the program can take them all.
    """

    def __init__(self, seconds: float, *, threads: int = THREADS, most: int = MOST_READS) -> None:
        """Remember how long a read may wait, from its arrival on, for a thread and for other programs' locks.

        `threads` run at once, and at most `most` reads run or wait.
        """
        self._seconds, self._most, self._size = seconds, most, threads
        self.forget()

    def forget(self) -> None:
        """Start anew without the threads, which are not there in the child process after a fork."""
        self._threads = ThreadPoolExecutor(self._size, "enrollment-reader")
        self._room = BoundedSemaphore(self._most)

    async def run(self, read: Callable[[float], T]) -> T:
        """Run a read, which takes how many seconds it may still wait for a lock.

        Raises Busy where there are too many reads already, or where no thread was free in time.
        """
        if not self._room.acquire(blocking=False):
            raise Busy(f"{self._most} reads are waiting already. {_NOTHING}")
        deadline, room = time.monotonic() + self._seconds, self._room

        def within_time() -> T:
            left = deadline - time.monotonic()
            if left < 0:
                raise Busy(f"Other reads took all of {self._seconds:g} s. {_NOTHING}")
            return read(left)

        try:
            return await asyncio.wrap_future(self._threads.submit(within_time))
        finally:
            room.release()


def scans() -> Patience:
    """Make the threads of a store for reads of whole tables."""
    return Patience(SCAN_WAIT, threads=SCANS, most=MOST_SCANS)
