"""A registration rush: many clients, several processes on one file, far more students than seats."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peewee as pw
import pytest
from conftest import Server
from invariants import check, feed
from keepalive import Client

from service.courses import find_course, insert_course
from service.storage import fetch

CLIENTS = 64
STUDENTS = 40
"""Each client speaks for so many students, and for these alone."""
COURSES = [(150, 40), (100, None), (80, 0), (0, 30), (None, 0)]
"""Seats and places in line of each course; its id is its place here, from 1."""
STEPS = 90

Told = dict[tuple[int, int], list[tuple[str, str | None]]]
"""What the answers told of each student and course, in order: type of event and, of a seat, since when."""


class Office:
    """One client: it asks at random, keeps what it was told, and holds each answer against that."""

    def __init__(self, number: int, client: Client, told: Told) -> None:
        """Take the students of this number."""
        self.random = random.Random(number)
        self.students = range(number * STUDENTS + 1, (number + 1) * STUDENTS + 1)
        self.client, self.told = client, told
        self.full: set[int] = set()

    async def send(self, method: str, path: str, payload: object = None) -> tuple[int, Any]:
        """Send a request, and again as long as the service says that it is busy."""
        while True:
            status, headers, body = await self.client.send(method, path, payload)
            if status != 503:
                return status, body
            assert body["code"] == "busy"
            await asyncio.sleep(int(headers["retry-after"]) / 20)

    def note(self, pair: tuple[int, int], status: int, body: Any) -> None:
        """Keep the answer to an enrollment, which must fit the ones before."""
        known = self.told[pair]
        holds = bool(known) and known[-1][0] != "dropped"
        if status == 201:
            assert not holds
            assert (body["student_id"], body["course_id"]) == pair
            known.append((body["status"], body["enrolled_at"]))
        elif status == 200:
            assert holds
        else:
            assert status == 409
            assert holds == (body["code"] in ("already_enrolled", "already_waitlisted"))
            if not holds:
                assert body["code"] == "course_full"
                self.full.add(pair[1])

    async def step(self) -> None:
        """Ask for one thing."""
        student, course = self.random.choice(self.students), self.random.randint(1, len(COURSES))
        url = f"/students/{student}/courses"
        match self.random.choices(("post", "put", "delete", "bulk", "patch"), (40, 15, 35, 4, 1))[0]:
            case "post":
                self.note((student, course), *await self.send("POST", url, {"course_id": course}))
            case "put":
                self.note((student, course), *await self.send("PUT", f"{url}/{course}"))
            case "delete":
                known = self.told[student, course]
                status, _ = await self.send("DELETE", f"{url}/{course}")
                assert status == (204 if known and known[-1][0] != "dropped" else 404)
                if status == 204:
                    known.append(("dropped", None))
            case "bulk":
                rows = [{"student_id": each, "course_id": course} for each in self.random.sample(self.students, 8)]
                status, body = await self.send("POST", "/enrollments", rows)
                assert status == 200
                for row, result in zip(rows, body["results"], strict=True):
                    pair = (row["student_id"], row["course_id"])
                    self.note(pair, result["status"], result.get("enrollment") or result["problem"])
            case "patch":
                await self.send("PATCH", f"/courses/{course}", {"capacity": self.random.randint(50, 200)})


async def rush(urls: list[str], told: Told) -> set[int]:
    """Let all clients ask at once, spread over the servers; give the courses that somebody was told were full."""
    clients = [await Client.connect(urls[number % len(urls)]) for number in range(CLIENTS)]
    offices = [Office(number, client, told) for number, client in enumerate(clients)]

    async def work(office: Office) -> None:
        for _ in range(STEPS):
            await office.step()

    async with asyncio.TaskGroup() as group:
        for office in offices:
            group.create_task(work(office))
    for client in clients:
        client.writer.close()
        await client.writer.wait_closed()
    return set().union(*(office.full for office in offices))


@pytest.mark.long
def test_a_rush_oversells_nothing_and_every_answer_was_true(
    path: Path, db: pw.SqliteDatabase, serve: Callable[..., Server]
) -> None:
    """After 64 clients rushed three processes on one file, every limit holds and the feed tells what each was told."""
    with db.atomic():
        for seats, places in COURSES:
            insert_course(db, "Course", "1", seats, places)
        db.connection().executemany("INSERT INTO students (name) VALUES (?)", [("Student",)] * CLIENTS * STUDENTS)
    told: Told = defaultdict(list)
    full = asyncio.run(asyncio.wait_for(rush([serve().url for _ in range(3)], told), timeout=60))
    check(path)

    happened: Told = defaultdict(list)
    for event in feed(db):
        if event.type != "promoted":
            pair = (event.student_id, event.course_id)
            happened[pair].append((event.type, event.at if event.type == "enrolled" else None))
    assert happened == {pair: answers for pair, answers in told.items() if answers}

    assert full, "Nothing was ever full: this was no rush."
    assert all(find_course(db, course).waitlist_capacity is not None for course in full)
    ((promoted,),) = fetch(db, "SELECT count(*) FROM enrollment_events WHERE type = 'promoted'")
    assert promoted, "Nobody was ever promoted: this was no rush."
