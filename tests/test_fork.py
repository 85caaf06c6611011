"""A program that forks, as gunicorn's preload and multiprocessing do, with a store in use: both processes go on."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from stores import held, names, open_store, submit, wal
from test_work import ask

from service import Settings, create_app
from service.storage import fetch
from service.storage.sqlite.store import Store
from service.students import StudentRecord, insert_student, list_students

pytestmark = [pytest.mark.usefixtures("in_time"), pytest.mark.skipif(not hasattr(os, "fork"), reason="It cannot fork.")]

END = """
import asyncio, os, sys
from service.storage.sqlite.store import Store
from service.students import insert_student

async def leave(*names):
    for name in names:
        asyncio.ensure_future(store.write(insert_student, name))
    await asyncio.sleep(0)

store = Store(sys.argv[1], busy_timeout=5, max_pending_writes=1000)
asyncio.run(store.write(insert_student, "parent"))
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    asyncio.run(leave("child", "accepted"))
"""
"""Parent and child end as any program does."""


def fork(work: Callable[[], object]) -> int:
    """Have a child do some work, and give its process id."""
    with warnings.catch_warnings():  # Python 3.12 warns where there are other threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return child
    try:
        signal.alarm(10)  # What hangs in the child fails there, too.
        work()
    except BaseException:  # noqa: BLE001 - nothing may get back into the tests.
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended_well(child: int) -> bool:
    """Wait for a child, and tell whether its work was done."""
    return os.waitpid(child, 0)[1] == 0


def write(store: Store, *written: str) -> list[StudentRecord]:
    """Add students, one after the other."""
    return [asyncio.run(store.write(insert_student, name)) for name in written]


def read(store: Store) -> list[str]:
    """Give the students' names."""
    return [student.name for student in asyncio.run(store.read(list_students))]


def locks(path: Path) -> int:
    """Count the locks that this process has on a file."""
    inode = path.stat().st_ino
    return sum(
        line.split()[4] == str(os.getpid()) and line.split()[5].endswith(f":{inode}")
        for line in Path("/proc/locks").read_text().splitlines()
    )


def test_parent_and_child_go_on(store: Store, path: Path) -> None:
    """After writes and reads a child writes and reads, and so does its own child; the parent does not notice."""
    assert read(store) == []
    write(store, "parent")

    def grandchild() -> None:
        assert read(store) == ["parent", "child"]
        write(store, "grandchild")

    def child() -> None:
        assert read(store) == ["parent"]
        write(store, "child")
        assert ended_well(fork(grandchild))
        write(store, "child again")

    assert ended_well(fork(child))
    write(store, "parent again")
    assert read(store) == names(path) == ["parent", "child", "grandchild", "child again", "parent again"]
    asyncio.run(store.check_ready())
    store.close()
    assert not wal(path).exists()


def test_a_write_in_flight_is_the_parents(store: Store, path: Path) -> None:
    """What is written, and what waits behind it, is done once, by the parent; the child's own writes are kept too."""
    started = threading.Event()

    def slowly(_: object) -> None:
        started.set()
        time.sleep(0.3)

    async def write_on() -> None:
        slow = await submit(store.write(slowly))
        await asyncio.to_thread(started.wait)
        await asyncio.gather(*slow, *(store.write(insert_student, "parent") for _ in range(20)))

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(asyncio.run, write_on())
        started.wait()
        child = fork(lambda: write(store, *["child"] * 20))
        writing.result()
    assert ended_well(child)
    assert sorted(names(path)) == ["child"] * 20 + ["parent"] * 20


def test_forks_in_the_midst_of_it_lose_nothing(store: Store, path: Path) -> None:
    """However many fork while several threads read and write, every process has all that it was told."""
    stop = threading.Event()
    told: list[str] = []

    async def use(thread: int) -> None:
        while not stop.is_set():
            made = await asyncio.gather(*(store.write(insert_student, f"thread {thread}") for _ in range(3)))
            told.extend(student.name for student in made)
            await asyncio.gather(*(store.read(list_students) for _ in range(3)))

    with ThreadPoolExecutor(3) as pool:
        using = [pool.submit(asyncio.run, use(thread)) for thread in range(3)]
        children = []
        for n in range(10):
            children.append(fork(lambda n=n: write(store, f"child {n}")))  # type: ignore[misc]
            time.sleep(0.02)
        assert all(map(ended_well, children))
        stop.set()
        for each in using:
            each.result()
    assert sorted(names(path)) == sorted([*told, *(f"child {n}" for n in range(10))])


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux lists the locks.")
def test_a_child_has_locks_of_its_own(store: Store, path: Path) -> None:
    """When the parent is done with the file and the child is not, the child's -wal stays where it is."""
    write(store, "parent")
    assert locks(path) > 0
    reader, writer = os.pipe()

    def child() -> None:
        write(store, "child")
        assert locks(path) > 0
        os.read(reader, 1)
        assert wal(path).exists()
        write(store, "child again")

    process = fork(child)
    while names(path) != ["parent", "child"]:
        time.sleep(0.01)
    store.close()
    os.write(writer, b"!")
    assert ended_well(process)
    for end in (reader, writer):
        os.close(end)
    assert names(path) == ["parent", "child", "child again"]


def test_a_fork_in_the_turn_of_a_write_does_it_once(store: Store, path: Path) -> None:
    """A write that its event loop has not even handed over is the parent's."""

    async def write_and_fork() -> int:
        (writing,) = await submit(store.write(insert_student, "parent"))
        process = fork(lambda: write(store, "child"))
        await writing
        return process

    assert ended_well(asyncio.run(write_and_fork()))
    assert names(path) == ["parent", "child"]


def test_a_fork_in_the_turn_of_a_read_does_not_wait_for_its_end(path: Path) -> None:
    """A snapshot that the forking event loop shares in its turn is let go of, and taken anew."""

    async def read_and_fork(store: Store) -> None:
        assert await store.read(list_students) == []
        began = time.monotonic()
        process = fork(lambda: write(store, "child"))
        assert time.monotonic() - began < 2
        assert ended_well(process)
        assert await store.read(list_students) == [StudentRecord(1, "child")]

    with closing(open_store(path, snapshot_per_turn=True)) as store:
        asyncio.run(read_and_fork(store))


@pytest.mark.parametrize("use", [read, write])
def test_a_store_that_pauses_keeps_everybody_waiting(store: Store, use: Callable[..., list[Any]]) -> None:
    """From when a fork waits for those who are at it, nobody in another thread opens the file until it is over."""

    def use_later() -> int:
        time.sleep(0.3)
        return len(use(store, *["Ada"] * (use is write)))

    with ThreadPoolExecutor(2) as pool:
        pool.submit(asyncio.run, store.read(lambda _: time.sleep(0.5)))
        using = pool.submit(use_later)
        time.sleep(0.1)
        store.pause()
        time.sleep(0.1)
        assert not using.done()
        store.resume()
        assert using.result() == (use is write)


def test_an_event_loop_that_goes_on_in_the_child_repeats_nothing(store: Store, path: Path) -> None:
    """What a loop that was not running at the fork was about to write is written once."""
    with closing(asyncio.new_event_loop()) as loop:
        writing = loop.create_task(store.write(insert_student, "parent"))
        loop.call_soon(loop.stop)
        loop.run_forever()  # It ends in the turn that would hand the write over.

        def child() -> None:
            loop.run_until_complete(asyncio.sleep(0.05))

        assert ended_well(fork(child))
        loop.run_until_complete(writing)
    assert names(path) == ["parent"]


def test_a_fork_waits_for_a_reader_in_another_thread(path: Path) -> None:
    """A read that waits for another process's lock has its answer before the fork, and parent and child are sound."""
    with closing(open_store(path)) as store, ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        write(store, "parent")
        store.close()
        stack.enter_context(held(path, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE"))
        reading = pool.submit(read, store)
        time.sleep(0.2)
        began = time.monotonic()
        threading.Timer(0.3, stack.close).start()
        child = fork(lambda: write(store, "child"))
        assert time.monotonic() - began > 0.3
        assert reading.result() == ["parent"]
        assert ended_well(child)
    assert names(path) == ["parent", "child"]


@pytest.mark.long
def test_a_child_has_threads_of_its_own_for_reads(store: Store) -> None:
    """A read that is too long for the event loop finds a thread in the child, as it does in the parent."""
    numbers = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 1000000) SELECT count(*) FROM n"

    def read_long() -> None:
        assert asyncio.run(store.read(fetch, numbers)) == [(1_000_000,)]

    read_long()
    assert ended_well(fork(read_long))
    read_long()


def test_work_that_forks_does_not_wait_for_itself(store: Store, path: Path) -> None:
    """A unit of work that starts a process, as subprocess does with `preexec_fn`, is not held up."""

    def run(_: object) -> int:
        return subprocess.run(["true"], check=True, preexec_fn=lambda: None).returncode

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert asyncio.run(store.write(run)) == 0
    write(store, "Ada")
    assert names(path) == ["Ada"]


def test_parent_and_child_end_as_any_program(path: Path) -> None:
    """Both end in silence, and what each of them had accepted is kept."""
    command = [sys.executable, "-W", "error", "-c", END, str(path)]
    ended = subprocess.run(command, cwd=ROOT, check=True, timeout=20, capture_output=True, text=True)
    assert ended.stderr == ""
    assert names(path) == ["parent", "child", "accepted"]
    assert not wal(path).exists()


def test_an_app_that_is_preloaded_serves_in_each_worker(path: Path) -> None:
    """As gunicorn does: one request to warm the app up, then workers that each serve it."""
    app = create_app(Settings(database_url=str(path)))
    body = b'{"name": "Ada"}'
    assert asyncio.run(ask(app, "POST", "/students", body)) == 201

    def work() -> None:
        for _ in range(5):
            assert asyncio.run(ask(app, "POST", "/students", body)) == 201
            assert asyncio.run(ask(app, "GET", "/students", b"")) == 200
        assert asyncio.run(ask(app, "GET", "/health/ready", b"")) == 200

    assert all(map(ended_well, [fork(work) for _ in range(3)]))
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM students").fetchone() == (16,)
