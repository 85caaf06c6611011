"""A real registration office's years: OULAD's courses, students, registrations and withdrawals, over HTTP."""

import asyncio
import csv
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from answers import SHOWN
from conftest import ROOT, Server
from keepalive import Client

T = TypeVar("T")

CLIENTS = 32
OULAD = Path(os.environ.get("OULAD_DIR") or ROOT.parent / "shared/data/oulad")


def show(line: str, *, passing: bool = False) -> None:
    """Print a line; on a terminal one that is passing is overwritten by the next."""
    terminal = sys.stdout.isatty()
    print(f"{line:<76}" if terminal else line, end="\r" if terminal and passing else "\n", flush=True)  # noqa: T201


async def phase(
    name: str, clients: Sequence[Client], work: Callable[[Client, T], Awaitable[None]], items: Sequence[T]
) -> None:
    """Hand out the items in order, each to the first client that is free, and print how fast it went."""
    waiting, every = enumerate(items), 0.1 if sys.stdout.isatty() else 5.0
    started = shown = time.perf_counter()

    async def take(client: Client) -> None:
        nonlocal shown
        for number, item in waiting:
            await work(client, item)
            if time.perf_counter() > shown + every:
                shown = time.perf_counter()
                show(f"  {name}: {number:,} of {len(items):,}", passing=True)

    async with asyncio.TaskGroup() as group:
        for client in clients:
            client.times.clear()
            group.create_task(take(client))
    seconds = time.perf_counter() - started
    times = sorted(duration for client in clients for duration in client.times)
    p99 = times[len(times) * 99 // 100] * 1000
    show(f"  {name}: {len(times):,} requests in {seconds:.1f} s, {len(times) / seconds:,.0f}/s, p99 {p99:.1f} ms")


def by_day(rows: Iterable[dict[str, str]], column: str) -> list[dict[str, str]]:
    """Sort by a column of days; the 45 rows that have no day of registration come last."""
    return sorted(rows, key=lambda row: (not row[column], int(row[column] or 0)))


async def replay(url: str, courses: list[dict[str, str]], registrations: list[dict[str, str]]) -> tuple[int, int, int]:
    """Replay the office's work, compare every roster, and count the courses, the students and the rosters' rows."""
    clients = [await Client.connect(url) for _ in range(CLIENTS)]
    course_ids: dict[str, int] = {}
    student_ids: dict[str, int] = {}
    rosters: dict[int, dict[int, dict[str, Any]]] = {}
    compared = 0

    def course_name(row: dict[str, str]) -> str:
        return f"{row['code_module']} {row['code_presentation']}"

    async def add_course(client: Client, row: dict[str, str]) -> None:
        name = course_name(row)
        status, _, course = await client.send("POST", "/courses", {"name": name, "level": row["code_module"]})
        assert (status, course["name"]) == (201, name)
        course_ids[name] = course["id"]
        rosters[course["id"]] = {}

    async def add_student(client: Client, name: str) -> None:
        status, _, student = await client.send("POST", "/students", {"name": name})
        assert (status, student["name"]) == (201, name)
        student_ids[name] = student["id"]

    async def enroll(client: Client, row: dict[str, str]) -> None:
        name = row["id_student"]
        ids = {"student_id": student_ids[name], "course_id": course_ids[course_name(row)]}
        path = f"/students/{ids['student_id']}/courses"
        status, _, answer = await client.send("POST", path, {"course_id": ids["course_id"]})
        assert (status, answer) == (201, answer | ids)
        seat = {"enrolled_at": answer["enrolled_at"], "status": "enrolled", "position": None}
        rosters[ids["course_id"]][ids["student_id"]] = {"id": ids["student_id"], "name": name, **SHOWN, **seat}

    async def withdraw(client: Client, row: dict[str, str]) -> None:
        student_id, course_id = student_ids[row["id_student"]], course_ids[course_name(row)]
        status, _, _ = await client.send("DELETE", f"/students/{student_id}/courses/{course_id}")
        assert status == 204
        del rosters[course_id][student_id]

    async def compare(client: Client, course_id: int) -> None:
        nonlocal compared
        expected = [row for _, row in sorted(rosters[course_id].items())]
        path = f"/courses/{course_id}/students"
        while path:
            status, headers, page = await client.send("GET", path)
            assert (status, page) == (200, expected[:100])
            del expected[:100]
            compared += len(page)
            path = headers["link"].removeprefix("<").removesuffix('>; rel="next"') if expected else ""
        assert "link" not in headers

    await phase("courses", clients, add_course, courses)
    await phase("students", clients, add_student, list(dict.fromkeys(row["id_student"] for row in registrations)))
    await phase("enrollments", clients, enroll, by_day(registrations, "date_registration"))
    withdrawn = [row for row in registrations if row["date_unregistration"]]
    await phase("withdrawals", clients, withdraw, by_day(withdrawn, "date_unregistration"))
    await phase("rosters", clients, compare, list(rosters))
    for client in clients:
        client.writer.close()
        await client.writer.wait_closed()
    return len(course_ids), len(student_ids), compared


@pytest.mark.long
@pytest.mark.skipif(not OULAD.is_dir(), reason=f"OULAD is not at {OULAD}: put it there, or set OULAD_DIR")
def test_oulad(serve: Callable[..., Server], capsys: pytest.CaptureFixture[str]) -> None:
    """The whole of OULAD, replayed by 32 clients at once, leaves every roster as the file has it."""
    tables = [
        list(csv.DictReader((OULAD / name).read_text(encoding="utf-8").splitlines()))
        for name in ("courses.csv", "studentRegistration.csv")
    ]
    with capsys.disabled():
        show(f"\nOULAD, {CLIENTS} clients")
        counts = asyncio.run(asyncio.wait_for(replay(serve().url, *tables), timeout=180))
    assert counts == (22, 28_785, 32_593 - 10_072)
