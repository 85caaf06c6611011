"""Send the events to clients as they are committed: server-sent events (WHATWG HTML, section 9.2).

One task for each event loop reads the new events, once for all clients that are level with it, and encodes each event
once. The clients are in a few groups that have their turns one after the other, so that an event does not wait until
the one before it was sent to everybody. A client that is behind reads pages of its own, as one of the list does, until
it is level. A client that takes its events too slowly falls behind, and what waits for it is forgotten. So no client
makes the service hold more than MOST_WAITING bytes for it, and none misses an event or gets one twice.
"""

import asyncio
import logging
import resource
import signal
from collections.abc import Sequence
from itertools import cycle
from typing import Any

from starlette.types import Receive, Scope, Send

from service.errors import Busy, ServiceError
from service.events import EventRecord, follow_events, list_events
from service.http.answers import Stream, start
from service.http.calls import Call
from service.http.guard import Guard
from service.http.listener import PAGE, Batch, Group, Listener, last_event_id
from service.http.queries import EventQuery
from service.settings import Settings
from service.storage import Store
from service.storage.event_loop import running_loop

HEARTBEAT = 15.0
"""Seconds without an event after which a client is sent a comment, so that no proxy takes the connection for dead."""
GATHER_SECONDS = 0.02
"""Seconds from one turn of a group of clients to its next one while events come: they are sent in one piece."""
GROUPS = 4
"""How many groups have their turns one after the other. With one, a thousand clients take so long that what came when a
round had begun would wait for most of that round and then for most of the next one."""
TICK = 0.5
"""Seconds between two looks at the clock, at the rights of the clients, and at whether the server stops."""
AGAIN = 1.0
"""Seconds after which the events are read again, where another program held the database."""
TURN = 50
"""How many clients are sent to in one turn of the event loop: other requests wait no longer than that. So many are one
group, too: only more of them are divided."""
RIGHT = "read"
"""The right that a client must have for as long as it listens."""
HEADERS = ((b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no"))
"""With the second one, nginx sends on each part as it comes."""

logger = logging.getLogger(__name__)


class Feeds:
    """The feeds of one application: one for each event loop on which somebody listens, and none elsewhere."""

    def __init__(self, store: Store, guard: Guard | None, settings: Settings) -> None:
        """Have none yet. At most half of all connections may listen, so that requests find a place at any time."""
        self.store, self.guard, self.settings = store, guard, settings
        self.heartbeat = HEARTBEAT
        self.open: dict[asyncio.AbstractEventLoop, Feed] = {}
        self.most = max(1, _connections(settings) // 2)

    async def listen(self, call: Call, query: EventQuery) -> "EventStream":
        """Answer with the events after the one that the client names. Raises InvalidQuery, FeedRewound, Busy."""
        given = last_event_id(call)
        asked = query.after if given is None else given, query.student_id, query.course_id
        found, newest = await self.store.read(follow_events, *asked, PAGE)
        if sum(len(feed.listeners) for feed in self.open.values()) >= self.most:
            raise Busy(f"{self.most} clients listen to the events already.")
        return EventStream(200, b"", HEADERS, self, Listener(*asked), found, newest)

    def of_loop(self) -> "Feed":
        """Give the feed of the running event loop."""
        loop = running_loop()
        return self.open.get(loop) or Feed(self, loop)

    def close(self) -> None:
        """End the streams of the running event loop."""
        if self.open:
            self.of_loop().end()


class Feed:
    """The clients that listen on one event loop, and the tasks that run while there are any."""

    _watch: asyncio.Task[object]
    """What waits for a commit behind those whose events were read."""

    def __init__(self, feeds: Feeds, loop: asyncio.AbstractEventLoop) -> None:
        """Have no clients yet."""
        self.feeds, self.store, self.loop = feeds, feeds.store, loop
        self.listeners: set[Listener] = set()
        self.turn = asyncio.Lock()
        """Held by the one client behind that reads a page: others than the clients have their turn between two."""
        self._groups = [Group() for _ in range(GROUPS)]
        """Those that have all events up to `_newest`, or wait for them."""
        self._newest = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def add(self, listener: "Listener") -> None:
        """Count a client that listens."""
        if not self.listeners:
            self.feeds.open[self.loop] = self
            self._tasks["tend"] = self.loop.create_task(self._tend())
        self.listeners.add(listener)
        listener.feed = self

    def remove(self, listener: "Listener") -> None:
        """Count a client no more; the last one ends the tasks."""
        self.fall_behind(listener)
        self.listeners.discard(listener)
        if not self.listeners:
            self.feeds.open.pop(self.loop, None)
            self._tasks.pop("tend").cancel()

    def join(self, listener: "Listener", found: Sequence[EventRecord], newest: int) -> None:
        """Let a client follow the feed from its newest event on, if the page that it has just read is its last one.

        `newest` is the id of the newest event when the page was read. If the feed has come further since, or the page
        is full, the client has to read another one.
        """
        if found:
            listener.seen = found[-1].id
        is_first = "read" not in self._tasks
        if len(found) == PAGE or (newest < self._newest and not is_first):
            return
        if is_first:
            self._newest = newest
            self._tasks["read"] = self.loop.create_task(self._read())
        min(self._groups, key=lambda group: max(TURN, len(group.listeners) + 1)).listeners.add(listener)
        listener.seen, listener.is_level = max(listener.seen, newest), True

    def fall_behind(self, listener: "Listener") -> None:
        """Let a client read pages of its own again."""
        listener.is_level = False
        for group in self._groups:
            group.discard(listener)
        if "read" in self._tasks and not any(group.listeners for group in self._groups):
            self._tasks.pop("read").cancel()

    def end(self) -> None:
        """End all streams."""
        for listener in self.listeners:
            self.fall_behind(listener)
            listener.end()

    async def _read(self) -> None:
        """Read the events behind the newest one whenever something was committed, and offer them to all who are level.

        Where the database cannot be read, all streams end: when the clients come back, they are told why.
        """
        self._watch, turns = self._watching(None), cycle(self._groups)
        try:
            while True:
                group = next(turns)
                is_idle = not any(each.events for each in self._groups)
                if is_idle or group.listeners:
                    await self._look(wait=is_idle)
                if group.events:
                    await self._send(group)
        except ServiceError as refusal:
            logger.warning("The streams of events ended: %s", refusal.detail)
        except Exception:
            logger.exception("The feed of the events failed.")
        finally:
            self._watch.cancel()
        self.end()

    def _watching(self, state: object) -> asyncio.Task[object]:
        return self.loop.create_task(self.store.changed(state))

    async def _changed_later(self) -> object:
        await asyncio.sleep(AGAIN)
        return await self.store.changed()

    def _room(self) -> int:
        """Give how many events may be read, so that no group keeps more than a page."""
        return PAGE - max(len(group.events) for group in self._groups)

    async def _look(self, *, wait: bool) -> None:
        """Read the events that there is room for, if something was committed, or `wait` for that."""
        if wait:
            await asyncio.wait([self._watch])
        most = self._room()
        if not most or not self._watch.done():
            return
        try:
            state = self._watch.result()
            found = await self.store.read(list_events, self._newest, None, None, most)
        except Busy:  # The other groups are sent what is kept for them meanwhile.
            self._watch = self.loop.create_task(self._changed_later())
            return
        if len(found) < most:
            self._watch = self._watching(state)
        if found:
            self._newest, page = found[-1].id, Batch(found)
            for group in self._groups:
                group.keep(page)
        else:  # What was committed had no events, as what comes next may have none.
            await asyncio.sleep(GATHER_SECONDS if wait else 0)

    async def _send(self, group: Group) -> None:
        """Offer the clients of a group what is kept for them, and wait for the next group's turn."""
        began, batch = self.loop.time(), group.take()
        for at, listener in enumerate([*group.listeners], 1):
            listener.offer(batch, began)
            if not at % TURN:
                await asyncio.sleep(0)
        if len(batch.events) < PAGE:
            began += GATHER_SECONDS / max(1, sum(bool(each.listeners) for each in self._groups))
        await asyncio.sleep(began - self.loop.time())

    async def _tend(self) -> None:
        """See to what comes with time: comments, clients that do not read, rights that are gone, the server's end."""
        guard, asked = self.feeds.guard, self.loop.time()
        while True:
            await asyncio.sleep(TICK)
            now = self.loop.time()
            if _server_stops():
                self.end()
            for listener in self.listeners:
                listener.look(now, self.feeds.heartbeat, self.feeds.settings.answer_timeout)
            if guard is not None and now - asked >= guard.again:
                asked = now
                await self._ask(guard)

    async def _ask(self, guard: Guard) -> None:
        """End the streams of those who may not listen any more; one question is enough for all with the same token."""
        same: dict[object, list[Listener]] = {}
        for listener in self.listeners:
            same.setdefault(guard.key(listener.scope), []).append(listener)
        answers = await asyncio.gather(*(_admits(guard, listeners[0].scope) for listeners in same.values()))
        for listeners, admitted in zip(same.values(), answers, strict=True):
            for listener in [] if admitted else listeners:
                listener.end()


class EventStream(Stream, frozen=True):
    """The answer with the events to one client: first those that are found, then those that come."""

    feeds: Any = None
    listener: Any = None
    found: Sequence[EventRecord] = ()
    newest: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, to a HEAD request without the events."""
        listener: Listener = self.listener
        await send(start(self, scope))
        if scope["method"] != "HEAD":
            feed: Feed = self.feeds.of_loop()
            feed.add(listener)
            feed.join(listener, self.found, self.newest)
            try:
                await listener.run(scope, receive, send, Batch(self.found).data)
            except OSError:
                return  # As some servers tell that the client is gone.
            except asyncio.CancelledError:
                if not listener.is_cut_off:
                    raise
                return  # Without an end: the client has to see that there may be more.
            finally:
                feed.remove(listener)
        await send({"type": "http.response.body", "body": b""})


def _connections(settings: Settings) -> int:
    """Give how many connections the server may have: each is a file descriptor, of which the process has so many."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return settings.max_connections if most == resource.RLIM_INFINITY else min(settings.max_connections, most)


async def _admits(guard: Guard, scope: Scope) -> bool:
    """Tell whether a client may still listen; where that cannot be found out, it may not."""
    try:
        await guard.admit(scope, RIGHT)
    except ServiceError:
        return False
    except Exception:
        logger.exception("Whether a client may go on listening could not be found out.")
        return False
    return True


def _server_stops() -> bool:
    """Tell whether a uvicorn that runs this program was told to stop.

    It waits until all answers have ended, and only then tells the application. Its handler of SIGTERM is a method of
    the server, as long as the server runs.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return bool(getattr(server, "should_exit", False))
