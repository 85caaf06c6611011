"""Keep what goes wrong many times a second from filling the log."""

import logging
import threading
import time

SECONDS = 1.0
"""How long no other line of the same kind follows a line."""


class OneASecond(logging.Filter):
    """Lets one line of each kind into the log within a second; the next one says how many were left out meanwhile.

    Lines are of one kind if they have the same words and the same type of error. Give the filter to a logger that has
    few different lines, because the filter remembers each kind.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[object, tuple[float, int]] = {}
        """Of each kind: when the next line may follow, by the monotonic clock, and how many were left out."""
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a line goes into the log, and add to the line how many did not."""
        message, now = record.getMessage(), time.monotonic()
        kind = message, record.exc_info and record.exc_info[0]
        with self._lock:
            until, left_out = self._kinds.get(kind, (now, 0))
            if now < until:
                self._kinds[kind] = until, left_out + 1
                return False
            self._kinds[kind] = now + SECONDS, 0
        if left_out:
            record.msg, record.args = f"{message} (And {left_out:,} more since the last such line.)", ()
        return True
