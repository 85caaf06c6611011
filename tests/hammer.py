"""Hammer a school on PostgreSQL: `make hammer`, or `make hammer SECONDS=60`.

Two nodes serve 64 clients, other programs write with plain SQL at each level of isolation, and four clients follow the
events. Then every answer and every commit must be in the events, each once, and the events must fold to what is there.
"""

import asyncio
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress

import click
import httpx2
import postgresql
import psycopg
from conftest import serving
from invariants import Line, Seats, check, follow
from keepalive import Client

from service import migrate
from service.events import EventRecord

CLIENTS = 64
STUDENTS, COURSES = 60, 6
LEVELS = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
"""The isolation of the programs with plain SQL, of which there is one for each level."""
STALE = "40001"
"""What a program above READ COMMITTED is told whose snapshot was older than its turn: it begins again."""
REFUSED = {"23001", "23505", "23514"}
"""What a program is told whose statement a rule, a key or a limit of the service refuses."""
SETTLE_SECONDS = 20
"""How long those who follow the events may take to the last one, once nobody writes any more."""
PATIENCE = 20
"""Seconds that a write may wait for its turn. Where the machine does other things too, the programs hold the turn for
long between two statements, and no client is to be refused for that."""
PAUSE = 0.01
"""Seconds between two transactions of a program, or two looks of a client that asks for the events."""

ADD, DROP, CHANGE = "added", "dropped", "changed"
FEW = "generate_series(%(student)s::bigint, %(student)s + 5) AS n"
STATEMENTS = (
    (ADD, f"INSERT INTO enrollments (student_id, course_id) SELECT n, %(course)s FROM {FEW} ON CONFLICT DO NOTHING"),
    (ADD, f"INSERT INTO enrollments (student_id, course_id) SELECT n, 1 + n %% {COURSES} FROM {FEW}"),
    (
        ADD,
        f"""MERGE INTO enrollments USING {FEW} ON student_id = n AND course_id = %(course)s
        WHEN NOT MATCHED THEN INSERT (student_id, course_id) VALUES (n, %(course)s)""",
    ),
    (
        DROP,
        "DELETE FROM enrollments WHERE course_id = %(course)s AND student_id BETWEEN %(student)s AND 5 + %(student)s",
    ),
    (DROP, "DELETE FROM enrollments WHERE student_id = %(student)s"),
    (CHANGE, "UPDATE courses SET capacity = %(limit)s, waitlist_capacity = %(limit)s WHERE id IN (%(course)s, 1)"),
    (CHANGE, "UPDATE students SET name = 'Bo' WHERE id BETWEEN %(student)s AND 5 + %(student)s"),
)
"""What the programs do to the rows that they name, and how."""


class Broken(Exception):
    """Something that must hold does not."""


class Hammer:
    """All who write to a school and who follow its events, and what became of that."""

    def __init__(self, url: str, nodes: Sequence[str], seconds: float) -> None:
        """Have done nothing yet."""
        self._url, self._nodes, self._seconds = url, nodes, seconds
        self._until = 0.0
        self.answers: Counter[str] = Counter()
        self.programs: Counter[str] = Counter()
        self.acknowledged: Counter[str] = Counter()
        """How many enrollments the clients and the programs were told to have been added, and dropped."""
        self._followed: dict[str, list[EventRecord]] = {}
        self._slowest = 0.0
        self._newest: int | None = None
        """The id of the last event, once nobody writes any more."""

    async def run(self) -> None:
        """Write for the given seconds, and wait until all who follow the events have come to the last one."""
        self._until = time.monotonic() + self._seconds
        async with asyncio.TaskGroup() as followers:
            for node in self._nodes:
                for kind, follower in (("list", self._ask), ("stream", self._listen)):
                    events = self._followed[f"{kind} of {node}"] = []
                    followers.create_task(follower(node, events))
            async with asyncio.TaskGroup() as writers:
                for number in range(CLIENTS):
                    writers.create_task(self._send(self._nodes[number % len(self._nodes)]))
                for level in LEVELS:
                    writers.create_task(asyncio.to_thread(self._execute, level))
            with psycopg.connect(self._url) as connection:
                found = connection.execute("SELECT coalesce(max(id), 0) FROM enrollment_events").fetchone()
            assert found
            self._newest = found[0]
            self._until = time.monotonic() + SETTLE_SECONDS

    async def _send(self, node: str) -> None:
        """Be a client of the API: one request after the other."""
        async with _client(node) as client:
            while time.monotonic() < self._until:
                await self._send_one(client)
            self._slowest = max([self._slowest, *client.times])

    async def _send_one(self, client: Client) -> None:
        student, course = random.randint(1, STUDENTS), random.randint(1, COURSES)
        enrollment, rows = (
            f"/students/{student}/courses/{course}",
            [
                {"student_id": 1 + (student + n) % STUDENTS, "course_id": 1 + (course + n % 2) % COURSES}
                for n in range(random.randint(1, 12))
            ],
        )
        limits = {"capacity": random.randint(0, 40), "waitlist_capacity": random.randint(0, 40)}
        method, path, body = random.choice(
            [
                *[("PUT", enrollment, None), ("DELETE", enrollment, None)] * 8,
                # A bulk is a transaction of its own: with more of them, most clients would wait behind each other's.
                ("POST", f"/enrollments?{random.choice(('atomic=true', 'atomic=false', 'dry_run=true'))}", rows),
                ("PATCH", f"/courses/{course}", limits),
                ("GET", f"/students/{student}/courses", None),
                ("GET", f"/courses/{course}/students", None),
            ]
        )
        status, _, answer = await client.send(method, path, body)
        code = answer.get("code", "") if isinstance(answer, dict) else ""
        self.answers[f"{method} {status} {code}".rstrip()] += 1
        if status >= 500:
            raise Broken(f"{method} {path} was answered with {status}: {answer}")
        self._note(method, path, status, answer)

    def _note(self, method: str, path: str, status: int, answer: object) -> None:
        if (method, status) == ("PUT", 201):
            self.acknowledged[ADD] += 1
        elif (method, status) == ("DELETE", 204):
            self.acknowledged[DROP] += 1
        elif isinstance(answer, dict) and "dry_run" not in path:
            self.acknowledged[ADD] += sum(row["status"] == 201 for row in answer.get("results", ()))

    def _execute(self, level: str) -> None:
        """Be a program with plain SQL: transactions of some statements, a third of which are rolled back."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            while time.monotonic() < self._until:
                work = [
                    (*random.choice(STATEMENTS), {"student": random.randint(1, STUDENTS - 5), **_named()})
                    for _ in range(random.randint(1, 3))
                ]
                kept = random.random() > 1 / 3
                while (outcome := self._transact(connection, level, work, kept=kept)) == STALE:
                    self.programs[f"{level} {STALE}"] += 1
                    if level == LEVELS[0]:
                        raise Broken(f"A program at {level} was told {STALE}.")
                self.programs[f"{level} {outcome}"] += 1
                time.sleep(PAUSE)

    def _transact(
        self, connection: psycopg.Connection, level: str, work: Sequence[tuple[str, str, dict[str, int]]], *, kept: bool
    ) -> str:
        """Do a transaction, and give what came of it: an SQLSTATE if it failed."""
        done: Counter[str] = Counter()
        connection.execute(f"BEGIN ISOLATION LEVEL {level}".encode())
        try:
            for what, sql, values in work:
                done[what] += connection.execute(sql.encode(), values).rowcount
            connection.execute("COMMIT" if kept else "ROLLBACK")
        except psycopg.Error as error:
            connection.execute("ROLLBACK")
            if error.sqlstate not in {STALE, *REFUSED}:
                raise Broken(f"A program at {level} was told {error.sqlstate}: {error}") from error
            return error.sqlstate
        if kept:
            self.acknowledged.update(done)
        return "committed" if kept else "rolled back"

    def _ended(self, events: Sequence[EventRecord]) -> bool:
        """Tell whether who follows the events has come to the last one. Raises Broken if that takes too long."""
        if self._newest is None or (events[-1].id if events else 0) < self._newest:
            if self._newest is not None and time.monotonic() > self._until:
                raise Broken(f"The last event is {self._newest}, and {events[-1:]} came {SETTLE_SECONDS} s later.")
            return False
        return True

    async def _ask(self, node: str, events: list[EventRecord]) -> None:
        """Follow the events by asking for those after the last one."""
        async with _client(node) as client:
            while not self._ended(events):
                after = events[-1].id if events else 0
                status, _, answer = await client.send("GET", f"/events?after={after}&limit=1000")
                if status != 200:
                    raise Broken(f"/events was answered with {status}: {answer}")
                events += [EventRecord(**event) for event in answer]
                await asyncio.sleep(PAUSE)

    async def _listen(self, node: str, events: list[EventRecord]) -> None:
        """Follow the events as they are sent."""
        async with httpx2.AsyncClient(timeout=SETTLE_SECONDS) as client:
            while not self._ended(events):
                last = str(events[-1].id if events else 0)
                headers = {"accept": "text/event-stream", "last-event-id": last}
                async with client.stream("GET", f"{node}/events", headers=headers) as stream:
                    if stream.status_code != 200:
                        raise Broken(f"/events was answered with {stream.status_code}.")
                    await self._hear(stream, events)

    async def _hear(self, stream: httpx2.Response, events: list[EventRecord]) -> None:
        lines = stream.aiter_lines()
        while not self._ended(events):
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_SECONDS):
                    line = await anext(lines, None)
                    if line is None:
                        return
                    if line.startswith("data:"):
                        events.append(EventRecord(**json.loads(line[5:])))

    def prove(self) -> None:
        """Check what must hold now. Raises Broken, or AssertionError."""
        found = check(self._url)
        for follower, events in self._followed.items():
            ids = [event.id for event in events]
            if ids != [*range(1, len(ids) + 1)]:
                wrong = next(place for place, id in enumerate(ids, 1) if place != id)
                raise Broken(f"The {follower} did not get event {wrong} in its place.")
            if _folded(events) != {course: state for course, state in found.items() if state != ({}, [])}:
                raise Broken(f"The {follower} folds to another state than what is there.")
        told = Counter(event.type for event in events)
        counted = {ADD: told["enrolled"] + told["waitlisted"], DROP: told["dropped"]}
        if counted != {what: self.acknowledged[what] for what in counted}:
            raise Broken(f"The events tell {counted}, and {dict(self.acknowledged)} were acknowledged.")

    def summary(self) -> str:
        """Tell what was done and seen."""
        followed = Counter({follower: len(events) for follower, events in self._followed.items()})
        lines = [
            f"{self._seconds:g} seconds, {CLIENTS} clients of {len(self._nodes)} nodes, {len(LEVELS)} programs",
            f"{self._slowest:9.2f} seconds for the slowest answer",
        ]
        for title, counts in (
            ("answers", self.answers),
            ("transactions of programs", self.programs),
            ("rows, as was acknowledged", self.acknowledged),
            ("events that were followed", followed),
        ):
            lines += [f"{counts.total():9,} {title}", *(f"{n:13,} {what}" for what, n in sorted(counts.items()))]
        return "\n".join(lines)


@asynccontextmanager
async def _client(node: str) -> AsyncIterator[Client]:
    client = await Client.connect(node)
    try:
        yield client
    finally:
        client.writer.close()


def _named() -> dict[str, int]:
    return {"course": random.randint(1, COURSES), "limit": random.randint(0, 40)}


def _folded(events: Sequence[EventRecord]) -> dict[int, tuple[Seats, Line]]:
    folded = {event.course_id: (seats, line) for event, seats, line in follow(events)}
    return {course: state for course, state in folded.items() if state != ({}, [])}


def fill(url: str) -> None:
    """Make a school in which some courses have limits, and one has none."""
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO students (name) SELECT 'Ada' FROM generate_series(1, %s::int)", [STUDENTS])
        connection.execute(
            "INSERT INTO courses (name, level, capacity, waitlist_capacity)"
            " SELECT 'Logic', 'A1', nullif(n * 5, 30), n * 5 FROM generate_series(1, %s::int) AS n",
            [COURSES],
        )


@contextmanager
def school() -> Iterator[str]:
    """Give the URL of a new school."""
    with postgresql.server() as server, server.database() as url:
        migrate(url)
        yield url


def hammer(url: str, seconds: float) -> str:
    """Hammer an empty school for so many seconds, and tell what was done. Raises Broken if something does not hold."""
    fill(url)
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.001)  # A thread that has the school's turn must not wait for long to go on.
    with ExitStack() as stack:
        stack.callback(sys.setswitchinterval, usual)
        options = {"BUSY_TIMEOUT": str(PATIENCE)}
        nodes = [stack.enter_context(serving("--database-url", url, **options)).url for _ in range(2)]
        this = Hammer(url, nodes, seconds)
        try:
            asyncio.run(this.run())
            this.prove()
        except Exception as error:
            first = error
            while isinstance(first, ExceptionGroup):
                first = first.exceptions[0]
            raise Broken(f"{first or repr(first)}\n{this.summary()}") from error
    return this.summary()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", type=click.FloatRange(0), default=60, show_default=True, help="How long to write.")
def main(seconds: float) -> None:
    """Hammer a school on PostgreSQL, and check all that must hold; exits with 1 if something does not."""
    with school() as url:
        try:
            click.echo(f"All held.\n{hammer(url, seconds)}")
        except Broken as broken:
            click.echo(f"BROKEN: {broken}")
            sys.exit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Whatever ends this, its servers end, too.
    main()
