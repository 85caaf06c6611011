"""A rush on a registrar's office: many clients override, swap and withdraw on few courses at once."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import peewee as pw
from conftest import Server
from invariants import check, feed
from keepalive import Client

from service.courses import find_course, insert_course
from service.enrollments import list_schedule
from service.storage import fetch

CLIENTS, STUDENTS, STEPS = 32, 3, 60
"""Each client speaks for three students, and for these alone."""
COURSES = [(20, 8), (12, 0), (1, None), (25, 3)]
"""Seats and places in line of each course; its id is its place here, from 1."""


class Office:
    """One client: it asks at random, keeps what it was told, and holds each answer against that."""

    def __init__(self, number: int, client: Client) -> None:
        """Take the students of this number, who are in no course yet."""
        self.random = random.Random(number)
        self.client = client
        self.courses: dict[int, set[int]] = {number * STUDENTS + at: set() for at in range(1, STUDENTS + 1)}
        self.told: Counter[str] = Counter()

    async def send(self, method: str, path: str, payload: object = None) -> tuple[int, Any]:
        """Send a request, and again as long as the service says that it is busy."""
        while True:
            status, headers, body = await self.client.send(method, path, payload)
            if status != 503:
                return status, body
            await asyncio.sleep(int(headers["retry-after"]) / 20)

    async def step(self) -> None:
        """Ask for one thing."""
        student, course = self.random.choice([*self.courses]), self.random.randint(1, len(COURSES))
        kinds, weights = ("enroll", "override", "swap", "drop", "withdraw"), (35, 6, 30, 27, 2)
        kind = self.random.choices(kinds, weights)[0]
        mine, url = self.courses[student], f"/students/{student}"
        match kind:
            case "enroll" | "override":
                payload = {"course_id": course, "override": kind == "override", "reason": kind}
                status, body = await self.send("POST", f"{url}/courses", payload)
                self.enrolled(kind, student, course, status, body)
            case "swap":
                here, or_wait = self.random.choice([*mine, 1]), self.random.random() < 0.5
                payload = {"drop_course_id": here, "enroll_course_id": course, "or_wait": or_wait}
                self.swapped(student, here, course, *await self.send("POST", f"{url}/swap", payload))
            case "drop":
                course = self.random.choice([*mine, course])
                status, _ = await self.send("DELETE", f"{url}/courses/{course}")
                assert status == (204 if course in mine else 404)
                mine.discard(course)
            case "withdraw":
                assert await self.send("POST", f"{url}/withdraw") == (200, {"dropped": len(mine)})
                mine.clear()

    def enrolled(self, kind: str, student: int, course: int, status: int, body: Any) -> None:
        """Hold the answer to an enrollment against what was told before."""
        mine = self.courses[student]
        if status == 201:
            # A student in line may be overridden, and a seat may have come by itself meanwhile.
            assert course not in mine or kind == "override"
            assert kind == "enroll" or body["status"] == "enrolled"
            mine.add(course)
            self.told[kind] += 1
        elif course in mine:
            assert (status, body["code"][:7]) == (409, "already")
        else:
            assert (kind, status, body["code"]) == ("enroll", 409, "course_full")
            self.told["full"] += 1

    def swapped(self, student: int, here: int, there: int, status: int, body: Any) -> None:
        """Hold the answer to a swap against what was told before."""
        mine = self.courses[student]
        if status == 200:
            assert here in mine
            assert there not in mine
            assert body["dropped"] == (body["enrollment"]["status"] == "enrolled")
            mine.add(there)
            if body["dropped"]:
                mine.remove(here)
                self.told["swap"] += 1
        elif here == there:
            assert status == 422
        elif here not in mine:
            assert (status, body["code"]) == (404, "enrollment_not_found")
        else:
            assert status == 409
            assert (body["code"] == "course_full") == (there not in mine)


async def rush(urls: list[str]) -> list[Office]:
    """Let all clients ask at once, spread over the servers."""
    offices = [Office(number, await Client.connect(urls[number % len(urls)])) for number in range(CLIENTS)]

    async def work(office: Office) -> None:
        for _ in range(STEPS):
            await office.step()
        office.client.writer.close()
        await office.client.writer.wait_closed()

    async with asyncio.TaskGroup() as group:
        for office in offices:
            group.create_task(work(office))
    return offices


def test_a_rush_on_the_office(path: Path, db: pw.SqliteDatabase, serve: Callable[..., Server]) -> None:
    """No course is oversold, each answer was true, and capacities grew by the overrides that needed it, and no more."""
    for limits in COURSES:
        insert_course(db, "Course", "1", *limits)
    db.connection().executemany("INSERT INTO students (name) VALUES (?)", [("Student",)] * CLIENTS * STUDENTS)
    offices = asyncio.run(asyncio.wait_for(rush([serve().url for _ in range(2)]), timeout=60))
    check(path)

    told = sum((office.told for office in offices), Counter[str]())
    assert min(told[kind] for kind in ("enroll", "override", "swap", "full")) > 10, f"This was no rush: {told}"
    for office in offices:
        for student, mine in office.courses.items():
            assert {row.id for row in list_schedule(db, student)} == mine

    overrides = {event_id for (event_id,) in fetch(db, "SELECT event_id FROM event_notes WHERE override")}
    assert len(overrides) == told["override"]
    capacity = {at: seats for at, (seats, _) in enumerate(COURSES, 1)}
    seated: dict[int, set[int]] = {at: set() for at in capacity}
    events = [*feed(db)]
    for event in events:
        seats = seated[event.course_id]
        if event.id in overrides:
            assert event.reason == "override"
            capacity[event.course_id] += len(seats) >= capacity[event.course_id]
        if event.type in {"enrolled", "promoted"}:
            seats.add(event.student_id)
        elif event.type == "dropped":
            seats.discard(event.student_id)
        assert len(seats) <= capacity[event.course_id]
    assert {at: find_course(db, at).capacity for at in capacity} == capacity
    # Both halves of a swap are told together: no other write came between the two.
    halves = [(one.type, two.type) for one, two in pairwise(events) if one.student_id == two.student_id]
    assert halves.count(("enrolled", "dropped")) >= told["swap"]
