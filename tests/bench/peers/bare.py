"""The limit: one ASGI function that says hello, and nothing between it and the server."""

from collections.abc import Awaitable, Callable
from typing import Any


async def app(scope: dict[str, Any], _: Callable[..., Awaitable[Any]], send: Callable[..., Awaitable[None]]) -> None:
    """Answer every request with the same bytes."""
    if scope["type"] != "http":
        return
    headers = [(b"content-type", b"application/json"), (b"content-length", b"17")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"hello":"world"}'})
