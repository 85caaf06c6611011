"""A client that listens to the events: what it wants, how far it has come, and what waits for it."""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from starlette.types import Receive, Scope, Send

from service.errors import InvalidQuery, ServiceError
from service.events import EventRecord, follow_events
from service.fields import MAX_ID, integer
from service.http.answers import ok
from service.http.calls import Call
from service.storage import Store

PAGE = 200
"""The most events that are read, and sent, at once."""
MOST_WAITING = 2**18
"""The most bytes that wait for one client. All clients without a filter wait for the same bytes in memory."""
BEGINNING = b"retry: 1000\n\n"
"""What comes first. It lets a browser come back a second after a connection was lost."""
COMMENT = b":\n\n"

logger = logging.getLogger(__name__)

_EVENT_ID = integer(0, MAX_ID)


class Batch:
    """Events in the order of their ids, each with its bytes, which all batches that have the event share."""

    __slots__ = ("chunk", "data", "events", "first", "last", "parts")

    def __init__(self, events: Sequence[EventRecord], parts: Sequence[bytes] = ()) -> None:
        """Encode the events, unless that is done already."""
        self.events = events
        self.parts = parts or [b"id: %d\ndata: %b\n\n" % (event.id, ok(event).body) for event in events]
        self.first, self.last = (events[0].id, events[-1].id) if events else (0, 0)
        self.data = b"".join(self.parts)
        self.chunk = b"%x\r\n%b\r\n" % (len(self.data), self.data)

    def only(self, wanted: Callable[[EventRecord], bool]) -> "Batch":
        """Give the batch of the events that are wanted."""
        kept = [pair for pair in zip(self.events, self.parts, strict=True) if wanted(pair[0])]
        return Batch([event for event, _ in kept], [part for _, part in kept])


class Feed(Protocol):
    """What a client listens to."""

    store: Store
    turn: asyncio.Lock
    """Held by the one client behind that reads a page: others than the clients have their turn between two."""

    def join(self, listener: "Listener", found: Sequence[EventRecord], newest: int) -> None:
        """Let a client follow the feed from its newest event on, if the page that it has just read is its last one."""

    def fall_behind(self, listener: "Listener") -> None:
        """Let a client read pages of its own again."""


class Listener:
    """A client that listens: what it wants, how far it has come, and what waits for it."""

    feed: Feed
    scope: Scope
    _task: "asyncio.Task[Any] | None"

    def __init__(self, after: int, student_id: int | None, course_id: int | None) -> None:
        """Want the events after an id: those of a student or a course, or all where these are None."""
        self.seen = after
        """The id up to which the client was sent all that it wants."""
        self.is_level = self.is_cut_off = self._ended = self._is_late = self._is_sending = False
        self._student_id, self._course_id = student_id, course_id
        self._is_picky = (student_id, course_id) != (None, None)
        self._waiting: deque[Batch] = deque()
        self._bytes = 0
        self._sent_at = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._transport: Any = None
        """What chunks are written to while the client waits for events; the service's own server alone gives it."""

    def _wants(self, event: EventRecord) -> bool:
        return (
            event.id > self.seen
            and self._student_id in {None, event.student_id}
            and self._course_id in {None, event.course_id}
        )

    def offer(self, batch: Batch, now: float) -> None:
        """Let events wait for the client; where too much waits, forget it all, and let the client read pages."""
        if not self.is_level:
            return
        if self._is_picky or batch.first <= self.seen:
            batch = batch.only(self._wants)
            if not batch.events:
                return
        transport = self._transport
        if transport is not None and not (transport.is_closing() or transport.get_write_buffer_size()):
            transport.write(batch.chunk)
            self.seen, self._sent_at = batch.last, now
            return
        self._waiting.append(batch)
        self._bytes += len(batch.data)
        if self._bytes > MOST_WAITING:
            self._waiting.clear()
            self._bytes = 0
            self.feed.fall_behind(self)
        self._wake()

    def look(self, now: float, heartbeat: float, patience: float) -> None:
        """Cut off a client that reads nothing, and let one have a comment that has heard nothing for long."""
        if self._is_sending and now - self._sent_at > patience and self._task is not None:
            self.is_cut_off = True
            self._task.cancel()
        elif not self._is_sending and now - self._sent_at >= heartbeat:
            self._is_late = True
            self._wake()

    def end(self) -> None:
        """End the stream behind what is being sent."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        self._transport = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def run(self, scope: Scope, receive: Receive, send: Send, first: bytes) -> None:
        """Send events until the client is gone, or the stream is to end."""
        self.scope, self._task = scope, asyncio.current_task()
        chunk_transport = getattr(getattr(send, "__self__", None), "chunk_transport", lambda: None)
        loop = asyncio.get_running_loop()
        gone = loop.create_task(self._until_gone(receive))
        data = BEGINNING + first
        try:
            while not self._ended:
                if data:
                    self._sent_at, self._is_sending = loop.time(), True
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                    self._is_sending, data = False, b""
                elif self._waiting:
                    data = self._take()
                elif not self.is_level:
                    data = await self._read_page()
                elif self._is_late:
                    self._is_late, data = False, COMMENT
                else:
                    self._waiter = loop.create_future()
                    self._transport = chunk_transport()
                    await self._waiter
        except ServiceError as refusal:
            logger.info("A stream of events ended: %s", refusal.detail)
        finally:
            gone.cancel()

    def _take(self) -> bytes:
        batch = self._waiting.popleft()
        self._bytes -= len(batch.data)
        self.seen = batch.last
        return batch.data

    async def _read_page(self) -> bytes:
        async with self.feed.turn:
            asked = self.seen, self._student_id, self._course_id, PAGE
            found, newest = await self.feed.store.read(follow_events, *asked)
            self.feed.join(self, found, newest)
            await asyncio.sleep(0)
        return Batch(found).data

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.end()


class Group:
    """Clients that are level with the feed, and are sent the same at the same time."""

    def __init__(self) -> None:
        """Have no clients yet."""
        self.listeners: set[Listener] = set()
        self.events: list[EventRecord] = []
        """What they were not sent yet."""
        self._parts: list[bytes] = []

    def discard(self, listener: Listener) -> None:
        """Do without a client, if it is one of them."""
        self.listeners.discard(listener)
        if not self.listeners:
            self.take()

    def keep(self, page: Batch) -> None:
        """Keep events for the clients, if there are any."""
        if self.listeners:
            self.events += page.events
            self._parts += page.parts

    def take(self) -> Batch:
        """Give what was kept, and keep nothing."""
        batch, self.events, self._parts = Batch(self.events, self._parts), [], []
        return batch


def last_event_id(call: Call) -> int | None:
    """Give the id in the header Last-Event-ID, with which a client that had lost its connection comes back, or None.

    Raises InvalidQuery for another text than the service sends as an id: a stream from elsewhere than where the client
    had left off would have a gap, or would begin anew, and the client would not notice.
    """
    text = call.header(b"last-event-id").decode("latin-1")
    try:
        return _EVENT_ID.check(int(text) if re.fullmatch("[0-9]{1,19}", text) else text) if text else None
    except ValueError as error:
        raise InvalidQuery([("Last-Event-ID", str(error))]) from None
