"""Find the event loop that a caller runs on, and run long work in a thread beside it."""

import asyncio
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from service.errors import AsyncioOnly

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)


def running_loop() -> asyncio.AbstractEventLoop:
    """Give the event loop that runs in this thread. Raises AsyncioOnly on another event loop than asyncio's."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        error = AsyncioOnly()
    logger.error(error.detail)
    raise error


async def in_thread(work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """Run a function that takes long in another thread, so that the event loop serves other requests meanwhile.

    Raises what the function raises, and AsyncioOnly on another event loop than asyncio's.
    """
    running_loop()
    return await asyncio.to_thread(work, *args, **named)
