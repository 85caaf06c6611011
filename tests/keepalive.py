"""An HTTP client as small as a load needs: a whole one takes longer over a request than the server does."""

import asyncio
import json
import time
from typing import Any, Self
from urllib.parse import urlsplit

Answer = tuple[int, dict[str, str], Any]
"""Status, headers, and the body's JSON."""


class Client:
    """One keep-alive connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Keep the time that each request took, in seconds."""
        self.reader, self.writer = reader, writer
        self.times: list[float] = []

    @classmethod
    async def connect(cls, url: str) -> Self:
        """Connect to the server."""
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    async def send(self, method: str, path: str, payload: object = None) -> Answer:
        """Send one request and give its answer's status, headers and JSON."""
        started = time.perf_counter()
        body = b"" if payload is None else json.dumps(payload).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        self.writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        headers = dict(line.split(": ", 1) for line in lines)
        text = await self.reader.readexactly(int(headers.get("content-length", 0)))
        self.times.append(time.perf_counter() - started)
        return int(first.split()[1]), headers, json.loads(text) if text else None
