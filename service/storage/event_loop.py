"""Find the event loop that a caller runs on, and do long work there in pieces, so that other requests are served."""

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import TypeVar
from weakref import WeakKeyDictionary

from service.errors import AsyncioOnly

T = TypeVar("T")

PIECE_SECONDS = 0.002
"""Seconds after which a piece of long work ends and the event loop serves other requests; and where other callers wait
for their turn, seconds from there to the next piece: in that pause the writer thread runs, which would otherwise come
to one row of a bulk for each piece."""

logger = logging.getLogger(__name__)

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
"""The lock of each event loop that the callers of `in_pieces` take in turn."""
_callers: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()
"""How many callers of `in_pieces` each event loop has."""


def running_loop() -> asyncio.AbstractEventLoop:
    """Give the event loop that runs in this thread. Raises AsyncioOnly on another event loop than asyncio's."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        error = AsyncioOnly()
    logger.error(error.detail)
    raise error


async def in_pieces(items: Iterable[T]) -> list[T]:
    """Take all items of an iterable that takes long to make them, and let the event loop go on after each piece.

    Long work in another thread would hold up the event loop more, because only one thread at a time runs Python. The
    callers of one event loop take turns, so that however many there are, other requests wait for one piece at most,
    and what a caller needs only while it works is in memory only once. Raises what the iterable raises, and AsyncioOnly
    on another event loop than asyncio's.
    """
    loop = running_loop()
    taken: list[T] = []
    _callers[loop] = _callers.get(loop, 0) + 1
    try:
        async with _turns.setdefault(loop, asyncio.Lock()):
            until = time.monotonic() + PIECE_SECONDS
            for item in items:
                taken.append(item)
                if time.monotonic() > until:
                    await asyncio.sleep(PIECE_SECONDS if _callers[loop] > 1 else 0)
                    until = time.monotonic() + PIECE_SECONDS
    finally:
        _callers[loop] -= 1
    return taken
