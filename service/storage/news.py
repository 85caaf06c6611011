"""Wait for the next commit: the writer thread tells of its own, and those of others are looked for."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from service.storage.event_loop import running_loop

LOOK_SECONDS = 0.1
"""Seconds between two looks for the commits of other connections, which take 0.3 % of a core while somebody waits."""

Tell = Callable[[], object]


async def wait(
    read: Callable[..., Coroutine[Any, Any, object]],
    state: Callable[[Any], object],
    told: set[Tell],
    since: object,
) -> object:
    """Give the state once it is not `since`; `read` runs the rule `state`, which gives what a commit changes.

    The writer thread calls what is in `told`.
    """
    loop, woken = running_loop(), asyncio.Event()

    def tell() -> None:
        with suppress(RuntimeError):  # The event loop is closed, so nobody waits on it.
            loop.call_soon_threadsafe(woken.set)

    told.add(tell)
    try:
        while (found := await read(state)) == since:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await woken.wait()
            woken.clear()
        return found
    finally:
        told.discard(tell)
