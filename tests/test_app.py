"""The application as Starlette sees it: what a host may add to it, and what it is not made for."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from service import Settings, create_app


class Stamp:
    """A middleware that marks every answer."""

    def __init__(self, app: ASGIApp) -> None:
        """Keep what it wraps."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add a header."""

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"stamp", b"yes")]
            await send(message)

        await self.app(scope, receive, stamped)


def test_a_host_may_add_a_middleware(path: Path) -> None:
    """A middleware that a host adds sees every answer, refusals too."""
    app = create_app(Settings(database_url=str(path)))
    app.add_middleware(Stamp)
    with TestClient(app) as client:
        for url, status in ("/students", 200), ("/students/1", 404), ("/nowhere", 404):
            answer = client.get(url)
            assert (answer.status_code, answer.headers["stamp"]) == (status, "yes")


@pytest.mark.parametrize("url", ["/students", "/nowhere"])
def test_a_websocket_is_closed(client: TestClient, url: str) -> None:
    """Nothing here speaks WebSocket: a connection is refused."""
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(url):
        pass
