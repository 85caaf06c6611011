"""The store in this process, on real files: groups, locks, full disks, files that vanish, closing."""

import asyncio
import gc
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import peewee as pw
import pytest
from conftest import ROOT
from stores import as_one_group, fail_to_write, held, names, open_db, open_store, stalled, submit, wal

from service import courses, enrolling, enrollments, students
from service.errors import (
    AlreadyEnrolled,
    Busy,
    ConstraintViolated,
    CourseNotFound,
    StorageUnavailable,
    StudentNotFound,
)
from service.storage import fetch, migrating
from service.storage.patience import MOST_READS
from service.storage.sqlite import schema
from service.storage.sqlite.connections import open_database
from service.storage.sqlite.store import Store
from service.students import StudentRecord, insert_student, list_students

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("in_time")]


ORPHAN = "INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (9, 9, '')"

LEAVE = """
import asyncio, sys, time
from service.storage import migrating
from service.storage.sqlite import schema
from service.storage.sqlite.store import Store
from service.students import insert_student

async def main():
    asyncio.ensure_future(store.write(lambda db: time.sleep(0.3)))
    for n in range(500):
        asyncio.ensure_future(store.write(insert_student, str(n)))
    await asyncio.sleep(0)

store = Store(sys.argv[1], busy_timeout=5, max_pending_writes=1000)
asyncio.run(main())
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("A small disk can be mounted on Linux, by root.")
    try:
        yield disk
    finally:
        if subprocess.run(["umount", disk], check=False, capture_output=True).returncode:  # Somebody is still at it.
            subprocess.run(["umount", "-l", disk], check=True)


def ends_threads(before: set[threading.Thread]) -> bool:
    """Tell whether all threads but those before have ended within 5 s."""
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
    return set(threading.enumerate()) <= before


def insert_crowd(db: pw.Database) -> None:
    """Add 500 students with one statement, which takes many pages."""
    numbers = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 500)"
    fetch(db, f"{numbers} INSERT INTO students (name) SELECT 'Student ' || n FROM numbers")


def fill_up(db: pw.Database) -> None:
    """Outgrow the file's limit, in a table without triggers: SQLite then undoes the whole transaction."""
    db.execute_sql("PRAGMA max_page_count = 1")
    with db.atomic():
        db.execute_sql("INSERT INTO enrollment_migrations (name, migrated_at) VALUES (hex(zeroblob(100000)), '')")


def fill_up_and_hide_it(db: pw.Database) -> None:
    """Outgrow the file's limit, and return as if nothing were wrong."""
    with suppress(pw.OperationalError):
        fill_up(db)


def fail_at_commit(db: pw.Database, path: Path) -> None:
    """Insert a student, on a disk that fails when it comes to the commit."""
    with db.atomic():
        insert_student(db, "lost")
        fail_to_write(path)


def insert_half(db: pw.Database) -> None:
    """Fail between two statements of one rule."""
    with db.atomic():
        insert_student(db, "half")
        raise ValueError


# Groups


async def test_every_refusal_in_a_group_is_its_own(store: Store, path: Path) -> None:
    """Units that are refused, or that fail, undo themselves and nothing else of their group."""
    enroll = enrollments.enroll
    ada, course, *outcome, ben = await as_one_group(
        store,
        store.write(insert_student, "Ada"),
        store.write(courses.insert_course, "Chess", "A1"),
        store.write(enroll, 1, 1),
        store.write(enroll, 1, 1),
        store.write(enroll, 9, 9),
        store.write(enroll, 1, 9),
        store.write(insert_half),
        store.write(lambda db: db.execute_sql(ORPHAN)),
        store.write(insert_student, "Ben"),
    )
    assert [type(each) for each in outcome] == [
        enrolling.EnrollmentRecord,
        AlreadyEnrolled,
        StudentNotFound,
        CourseNotFound,
        ValueError,
        ConstraintViolated,
    ]
    assert (ada.id, course.id, ben.id) == (1, 1, 2)
    assert names(path) == ["Ada", "Ben"]


@pytest.mark.parametrize("error", [ZeroDivisionError, StopIteration, SystemExit, asyncio.CancelledError])
async def test_no_error_of_one_unit_reaches_another(store: Store, path: Path, error: type[BaseException]) -> None:
    """Whatever a unit raises, its own caller gets an error and every other caller a result."""

    def fail(_: pw.Database) -> None:
        raise error

    before, failed, after = await as_one_group(
        store, store.write(insert_student, "Ada"), store.write(fail), store.write(insert_student, "Ben")
    )
    assert isinstance(failed, Exception)
    assert (before, after) == (StudentRecord(1, "Ada"), StudentRecord(2, "Ben"))
    assert await asyncio.wait_for(store.write(insert_student, "Cy"), 5)
    assert names(path) == ["Ada", "Ben", "Cy"]


async def test_calls_that_are_run_together_have_an_outcome_each(
    store: Store, path: Path, request: pytest.FixtureRequest
) -> None:
    """One statement for many callers gives each of them what a statement of their own would."""
    other = Path(shutil.copy(path, path.with_name("other.db")))
    runs: list[int] = []

    def run(db: pw.Database, rows: Any) -> Any:
        runs.append(len(rows))
        return enrolling.enroll_each(db, rows)

    together = open_store(other)
    request.addfinalizer(together.close)

    async def enroll(at: Store, call: tuple[int, int]) -> Any:
        return await (at.write_row(run, call) if at is together else at.write(enrollments.enroll, *call))

    calls = [(1, 1), (1, 1), (9, 9), (1, 9), (2, 1), (3, 1), (3, 1), (4, 1), (1, 2)]
    outcomes, feeds = [], []
    for each in (store, together):
        for name in ("Ada", "Ben", "Cy", "Dan"):
            await each.write(insert_student, name)
        for name in ("Chess", "Go"):
            await each.write(courses.insert_course, name, "A1", 1, 2)
        writes = [outcome_of(enroll(each, call)) for call in calls]
        outcomes.append(await as_one_group(each, *writes[:5], outcome_of(each.write(insert_half)), *writes[5:]))
        feeds.append(await each.read(fetch, "SELECT id, type, student_id, course_id FROM enrollment_events"))
    assert runs == [5, 4]
    assert outcomes[0] == outcomes[1]
    assert len({str(one) for one in outcomes[0]}) == len(outcomes[0])
    assert feeds[0] == feeds[1]


async def outcome_of(write: Awaitable[Any]) -> tuple[Any, ...]:
    """Give what can be compared of an enrollment, or of what its caller hears instead."""
    try:
        enrollment = await write
    except Exception as error:  # noqa: BLE001 - whatever it is.
        return "raised", repr(error)
    place = enrollment.status, enrollment.position, enrollment.enrolled_at is None
    return enrollment.student_id, enrollment.course_id, *place


async def test_what_goes_wrong_together_is_undone_for_the_whole_group(
    path: Path, request: pytest.FixtureRequest
) -> None:
    """An error of a statement that serves many callers is nobody's own: nothing of the group is kept."""

    def fail(db: pw.Database, _: Sequence[str]) -> Sequence[str]:
        fill_up(db)
        return []

    store = open_store(path)
    request.addfinalizer(store.close)
    names_of_two = [store.write_row(fail, name) for name in ("Ada", "Ben")]
    outcome = await as_one_group(store, store.write(courses.insert_course, "Chess", "A1"), *names_of_two)
    assert [type(each) for each in outcome] == [StorageUnavailable] * 3
    assert all(each.detail.endswith("Nothing was kept.") for each in outcome)
    assert await store.write(courses.insert_course, "Go", "A1") == await store.read(courses.find_course, 1)


async def test_nobody_hears_of_a_write_before_its_commit(store: Store) -> None:
    """While a group runs its callers wait, and readers see nothing of it; then both see it all."""
    async with stalled(store, lambda db: insert_student(db, "Ada")):
        (waiting,) = await submit(store.write(insert_student, "Ben"))
        assert await store.read(list_students) == []
        assert not waiting.done()
    await waiting
    assert await store.read(list_students) == [StudentRecord(1, "Ada"), StudentRecord(2, "Ben")]


@pytest.mark.parametrize("undo", [fill_up, fill_up_and_hide_it, pw.Database.rollback])
async def test_a_transaction_that_is_undone_is_undone_for_its_whole_group(
    store: Store, path: Path, undo: Callable[[pw.Database], None]
) -> None:
    """When SQLite gives up a transaction nothing of it is kept, every caller knows, and the next one starts afresh."""
    outcome = await as_one_group(
        store, store.write(insert_student, "Ada"), store.write(undo), store.write(insert_student, "Ben")
    )
    assert [type(each) for each in outcome] == [StorageUnavailable] * 3
    assert {each.detail.rpartition(": ")[2] for each in outcome} == {outcome[0].detail.rpartition(": ")[2]}
    assert outcome[0].detail.endswith("Nothing was kept.")
    assert names(path) == []
    await store.write(insert_crowd)
    assert len(names(path)) == 500


async def test_a_full_disk_in_the_middle_of_a_group_is_a_refusal(store: Store, path: Path) -> None:
    """A statement that finds no room, and is undone alone, is no defect of the service to its caller."""
    await store.write(lambda db: fetch(db, "PRAGMA max_page_count = 1"))
    outcome = await as_one_group(store, store.write(insert_student, "Ada"), store.write(insert_crowd))
    assert isinstance(outcome[1], StorageUnavailable)
    assert names(path) == [each.name for each in outcome if isinstance(each, StudentRecord)]


async def test_a_failed_commit_leaves_the_outcome_open(store: Store, path: Path) -> None:
    """Every caller of the group hears that it is not known what was kept; the next commit works."""
    await store.write(insert_student, "Ida")
    outcome = await as_one_group(store, store.write(insert_student, "Ada"), store.write(fail_at_commit, path))
    assert [type(each) for each in outcome] == [StorageUnavailable] * 2
    assert {each.detail.partition(". ")[2] for each in outcome} == {"Whether anything was kept is not known."}
    await store.write(insert_student, "Ben")
    assert names(path) == ["Ida", "Ben"]


async def test_work_alone_is_a_transaction_of_its_own(path: Path, request: pytest.FixtureRequest) -> None:
    """It undoes no neighbour and is not kept half; what fails before its COMMIT is known to be kept not at all."""
    store = open_store(path, busy_timeout=0.1)
    request.addfinalizer(store.close)
    await store.write(courses.insert_course, "Algebra", "1")
    outcome = await as_one_group(
        store,
        store.write(insert_student, "Ada"),
        store.write(insert_half, alone=True),
        store.write(fill_up, alone=True),
        store.write(fail_at_commit, path, alone=True),
        store.write(enrollments.ensure_enrolled, 1, 1, alone=True),
        store.write(insert_student, "Ben"),
    )
    assert [type(each) for each in outcome] == [
        StudentRecord,
        ValueError,
        *[StorageUnavailable] * 2,
        tuple,
        StudentRecord,
    ]
    assert [each.detail.partition(". ")[2] for each in outcome[2:4]] == [
        "Nothing was kept.",
        "Whether anything was kept is not known.",
    ]
    with held(path, "BEGIN IMMEDIATE"), pytest.raises(Busy, match="Nothing was kept"):
        await store.write(enrollments.ensure_enrolled, 2, 1, alone=True)
    assert names(path) == ["Ada", "Ben"]


async def test_memory_is_for_what_writes(store: Store) -> None:
    """A writer caches what a bulk changes; a reader no more than SQLite does by itself."""
    assert await store.read(fetch, "PRAGMA cache_size") == [(-2_000,)]
    assert await store.write(fetch, "PRAGMA cache_size") == [(-16_000,)]


async def test_every_commit_is_synced(store: Store, path: Path) -> None:
    """Durable commits and enforced references are on from the start, and after a failure too."""
    pragmas = "SELECT synchronous, foreign_keys FROM pragma_synchronous, pragma_foreign_keys"
    assert await store.write(fetch, pragmas) == [(2, 1)]
    with pytest.raises(StorageUnavailable):
        await store.write(fail_at_commit, path)
    assert await store.write(fetch, pragmas) == [(2, 1)]


# Another process on the same file


async def test_a_write_waits_for_a_lock(store: Store, path: Path) -> None:
    """A write that finds the file locked is done as soon as the lock is gone."""
    with held(path, "BEGIN IMMEDIATE", "INSERT INTO students (name) VALUES ('never')"):
        (adding,) = await submit(store.write(insert_student, "Ada"))
        assert await store.read(list_students) == []
        await asyncio.sleep(0.1)
        assert not adding.done()
    assert await adding == StudentRecord(1, "Ada")


async def test_a_write_gives_up_on_a_lock(path: Path) -> None:
    """After the busy timeout a write is refused and not kept, and the next one works."""
    with closing(open_store(path, busy_timeout=0.3)) as store:
        with held(path, "BEGIN IMMEDIATE"):
            began = time.monotonic()
            with pytest.raises(Busy, match=r"Another process holds the database\. Nothing was kept"):
                await store.write(insert_student, "Ada")
            assert 0.3 <= time.monotonic() - began < 3
        await store.write(insert_student, "Ben")
        await store.check_ready()
    assert names(path) == ["Ben"]


async def test_a_commit_that_finds_a_reader_in_its_way_keeps_nothing(path: Path) -> None:
    """In a file that is out of WAL a reader can hold up the commit: busy, and surely not kept."""
    with held(path, "PRAGMA journal_mode = DELETE", "BEGIN", "SELECT * FROM students"):
        with closing(open_store(path, busy_timeout=0.1)) as store, pytest.raises(Busy, match="Nothing was kept"):
            await store.write(insert_student, "Ada")
        assert names(path) == []


@pytest.mark.parametrize("snapshot_per_turn", [False, True])
@pytest.mark.parametrize("mode", ["locking_mode = EXCLUSIVE", "journal_mode = DELETE"])
async def test_a_read_waits_for_a_lock_without_stopping_the_others(
    path: Path, mode: str, *, snapshot_per_turn: bool
) -> None:
    """A read of a file that another process has to itself waits in a thread; the event loop goes on."""
    insert = "INSERT INTO students (name) VALUES ('Ada')"
    store = open_store(path, snapshot_per_turn=snapshot_per_turn)
    with held(path, f"PRAGMA {mode}", insert, "BEGIN EXCLUSIVE"):
        began = time.monotonic()
        (reading,) = await submit(store.read(list_students))
        for _ in range(10):
            await asyncio.sleep(0.01)
            assert not reading.done()
        assert time.monotonic() - began < 3
    assert await reading == [StudentRecord(1, "Ada")]
    store.close()


async def test_a_read_gives_up_on_a_lock(path: Path) -> None:
    """After the busy timeout a read is refused, on a connection that has read before too, and the next one works."""
    with closing(open_store(path, busy_timeout=0.3)) as store:
        with held(path, "PRAGMA journal_mode = DELETE", "BEGIN", "SELECT * FROM students"):  # It is kept out of WAL.
            assert await store.read(list_students) == []
        await asyncio.sleep(0)  # A read lets go of the file at the end of the loop's turn.
        with held(path, "BEGIN EXCLUSIVE"):
            began = time.monotonic()
            with pytest.raises(Busy, match=r"Another process holds the database\. Nothing was read"):
                await store.read(list_students)
            assert 0.3 <= time.monotonic() - began < 3
        assert await store.read(list_students) == []


@pytest.mark.long
async def test_reads_wait_for_a_lock_together(path: Path, request: pytest.FixtureRequest) -> None:
    """However many reads find the file locked, each is refused after the busy timeout, counted from its arrival."""
    store = open_store(path, busy_timeout=1.5)  # Twice as long is what those would take that wait for a thread first.
    request.addfinalizer(store.close)
    with held(path, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE"):
        began = time.monotonic()
        refusals = await asyncio.gather(*(store.read(list_students) for _ in range(48)), return_exceptions=True)
        assert 1.5 <= time.monotonic() - began < 2.9
    assert {type(each) for each in refusals} == {Busy}
    assert {str(each) for each in refusals} <= {
        "Another process holds the database. Nothing was read.",
        "Other reads took all of 1.5 s. Nothing was read.",
    }
    assert await store.read(list_students) == []


async def test_one_read_too_many_is_refused_at_once(store: Store, path: Path) -> None:
    """As many reads as there is room for wait for a lock; the next one is refused, and those before it are served."""
    for _ in range(2):
        with held(path, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE"):
            waiting = await submit(*(store.read(list_students) for _ in range(MOST_READS)))
            with pytest.raises(Busy, match=f"{MOST_READS} reads are waiting already. Nothing was read"):
                await asyncio.wait_for(store.read(list_students), 1)
        assert await asyncio.gather(*waiting) == [[]] * MOST_READS
        store.close()  # The other process can have the file to itself again.


async def test_nothing_else_takes_the_threads_of_reads(store: Store, path: Path) -> None:
    """A read that needs a thread finds one, although the program's other work keeps all threads of asyncio's pool."""
    go_on = threading.Event()
    others = await submit(*(asyncio.to_thread(go_on.wait, 10) for _ in range(64)))
    with held(path, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE"):
        (reading,) = await submit(store.read(list_students))
    assert await asyncio.wait_for(reading, 3) == []
    go_on.set()
    await asyncio.gather(*others)


@pytest.mark.parametrize("snapshot_per_turn", [False, True])
async def test_a_long_read_is_run_again_beside_the_event_loop(
    path: Path, request: pytest.FixtureRequest, *, snapshot_per_turn: bool
) -> None:
    """A read of many steps is broken off, and has its result from a thread; a page of rows is read at once."""
    store = open_store(path, snapshot_per_turn=snapshot_per_turn)
    request.addfinalizer(store.close)
    runs: list[tuple[pw.Database, bool]] = []

    def count(db: pw.Database, most: int) -> Any:
        runs.append((db, threading.current_thread() is threading.main_thread()))
        numbers = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT ?)"
        return fetch(db, f"{numbers} SELECT count(*) FROM n", most)

    for most in (1_000, 1_000_000, 1_000):
        assert await store.read(count, most) == [(most,)]
    assert [beside for _, beside in runs] == [True, True, False, True]
    assert len({id(db) for db, in_turn in runs if in_turn}) == 1  # What was broken off did no harm to its connection.
    for _ in range(200):  # Together they take as many steps as a long one; each is judged by itself.
        await store.read(count, 1_000)
    assert {beside for _, beside in runs[4:]} == {True}


async def test_a_long_read_sees_one_state(store: Store, path: Path) -> None:
    """In a thread, too, the statements of a read share a snapshot, whatever is written between them."""

    def read(db: pw.Database) -> list[int]:
        seen = []
        for _ in range(2):
            seen.append(len(list_students(db)))
            fetch(
                db,
                "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 1000000) SELECT max(x) FROM n",
            )
            with closing(sqlite3.connect(path)) as other, other:
                other.execute("INSERT INTO students (name) VALUES ('Ada')")
        return seen

    assert await store.read(read) == [0, 0]
    assert len(await store.read(list_students)) == 2


# The disk and the file


def test_a_full_disk_costs_nothing_that_was_acknowledged(small_disk: Path, empty_database: Path) -> None:
    """On a full disk writes are refused and reads go on; with room again all works, with no restart."""
    path = Path(shutil.copy(empty_database, small_disk))
    filler = small_disk / "filler"
    kept: list[StudentRecord] = []

    async def write_on(store: Store) -> None:
        while True:
            kept.append(await store.write(insert_student, "B" * 200))

    async def touch_on(store: Store) -> None:
        for number in range(10_000):
            await store.write(lambda db, version: db.execute_sql(f"PRAGMA user_version = {version}"), number)

    with closing(open_store(path)) as store:
        kept.append(asyncio.run(store.write(insert_student, "Ada")))
        assert asyncio.run(store.read(list_students)) == kept
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        with pytest.raises(StorageUnavailable, match="full"):
            asyncio.run(write_on(store))
        with pytest.raises(StorageUnavailable, match="full"):  # There may still be room for the smallest write.
            asyncio.run(touch_on(store))
        with pytest.raises(StorageUnavailable, match="full"):
            asyncio.run(store.check_ready())
        assert asyncio.run(store.read(list_students)) == kept
        filler.unlink()
        asyncio.run(store.check_ready())
        kept.append(asyncio.run(store.write(insert_student, "Cy")))
    assert names(path) == [student.name for student in kept]


def test_a_file_that_vanishes_is_missed_until_it_is_back(store: Store, path: Path) -> None:
    """Without its file the store reads nothing, writes nothing and makes no new one; when it is back all is there."""
    asyncio.run(store.write(insert_student, "Ada"))
    away = path.rename(path.with_name("away.db"))
    refuses_everything(store, "No such file or directory")
    assert not path.exists()
    away.rename(path)
    assert asyncio.run(store.read(list_students)) == [StudentRecord(1, "Ada")]
    asyncio.run(store.write(insert_student, "Ben"))
    asyncio.run(store.check_ready())
    assert names(path) == ["Ada", "Ben"]


def test_a_file_that_vanishes_before_the_first_use_is_not_made_anew(store: Store, path: Path) -> None:
    """A store that has not opened its file yet refuses too, and leaves no empty file behind."""
    path.unlink()
    refuses_everything(store, "No such file or directory")
    assert not path.exists()


def test_a_file_that_vanishes_before_it_is_opened_is_an_error(tmp_path: Path) -> None:
    """Should a file vanish right after it was looked at, SQLite itself does not make an empty one."""
    with pytest.raises(pw.OperationalError, match="unable to open"):
        open_database(tmp_path / "gone.db").connect()
    assert not [*tmp_path.iterdir()]


async def test_a_file_that_vanishes_under_a_commit_is_noticed(store: Store, path: Path) -> None:
    """A write that SQLite commits to a file that is gone is never acknowledged."""
    with pytest.raises(StorageUnavailable, match="Whether anything was kept is not known"):
        await store.write(lambda _: path.unlink())


def test_another_file_at_the_path_is_never_touched(store: Store, path: Path, empty_database: Path) -> None:
    """A file that takes the place of the store's own is neither read nor written, whatever is asked or closed."""
    asyncio.run(store.write(insert_student, "Ada"))
    other = Path(shutil.copy(empty_database, path.with_name("other.db")))
    other.replace(path)
    for _ in range(2):
        refuses_everything(store, "replaced")
        store.close()
    assert path.read_bytes() == empty_database.read_bytes()


def refuses_everything(store: Store, why: str) -> None:
    """Check that reads, writes and the probe are refused, and say that nothing was done."""
    for attempt, done in (
        (store.write(insert_student, "nowhere"), "kept"),
        (store.read(list_students), "read"),
        (store.check_ready(), "kept"),
    ):
        with pytest.raises(StorageUnavailable, match=rf"{why}.*\. Nothing was {done}\."):
            asyncio.run(attempt)


def test_a_damaged_file_is_a_refusal(path: Path) -> None:
    """A damage that shows only after some rows is the storage's fault too, to readers and to writers."""
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany("INSERT INTO students (name) VALUES (?)", [("A" * 200,)] * 1000)
    sound = path.read_bytes()
    path.write_bytes(sound[: len(sound) // 2] + bytes(len(sound) // 2))
    with closing(open_store(path)) as store:
        assert len(asyncio.run(store.read(list_students))) == 100
        for run in (store.read, store.write):
            with pytest.raises(StorageUnavailable, match="malformed"):
                asyncio.run(run(list_students, None, None, 1000))


async def test_a_schema_that_is_rolled_back_under_the_store_is_a_refusal(store: Store, path: Path) -> None:
    """Reads of a table that is gone are refused as the storage's fault, and writes and the probe say what to run."""
    await store.write(insert_student, "Ada")
    while "enrollments" in schema.status(path)[1]:
        schema.rollback(path)
    with pytest.raises(StorageUnavailable, match="no such table"):
        await store.read(enrollments.list_roster, 1)
    with pytest.raises(StorageUnavailable, match=r"Nothing was kept\. .* is behind: .* Run: python -m service migrate"):
        await store.write(enrollments.enroll, 1, 1)
    with pytest.raises(StorageUnavailable, match="is behind"):
        await store.check_ready()
    assert names(path) == ["Ada"]


# Ready or not


async def test_a_ready_store_says_so_and_writes_nothing(store: Store, path: Path) -> None:
    """The probe of a sound store opens a transaction and leaves the file as it is."""
    with closing(sqlite3.connect(path)) as db:
        before = db.execute("PRAGMA data_version").fetchone()
        await store.check_ready()
        assert db.execute("PRAGMA data_version").fetchone() == before


async def test_a_store_that_waits_over_a_second_for_a_lock_is_not_ready(store: Store, path: Path) -> None:
    """The probe answers within about 1 s although a write would wait longer, and works once the lock is gone."""
    with held(path, "BEGIN IMMEDIATE"):
        began = time.monotonic()
        with pytest.raises(StorageUnavailable, match="No write transaction opened within 1 s"):
            await store.check_ready()
        assert 1 <= time.monotonic() - began < 3
    await store.check_ready()


async def test_a_store_that_may_not_wait_for_a_lock_is_not_ready(path: Path) -> None:
    """The probe is refused like any write when its lock is not to be had in time."""
    with closing(open_store(path, busy_timeout=0)) as store, held(path, "BEGIN IMMEDIATE"), pytest.raises(Busy):
        await store.check_ready()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("DELETE FROM {} WHERE name = '002_enrollments'", "is behind: 002_enrollments not applied. Run: .* migrate"),
        ("INSERT INTO {} (name, migrated_at) VALUES ('999_later', '')", "is ahead of .* 999_later"),
    ],
)
async def test_a_store_on_another_schema_is_not_ready(store: Store, path: Path, change: str, message: str) -> None:
    """The probe refuses a schema that is behind the code or ahead of it, and says what to run."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(change.format(migrating.HISTORY))
    with pytest.raises(StorageUnavailable, match=message):
        await store.check_ready()


async def test_a_store_is_ready_again_once_a_commit_works(store: Store, path: Path) -> None:
    """After a failed commit the probe itself proves that commits work again, and changes no value."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA user_version = 42")
    with pytest.raises(StorageUnavailable):
        await store.write(fail_at_commit, path)
    await store.check_ready()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (42,)
        before = db.execute("PRAGMA data_version").fetchone()
        await store.check_ready()
        assert db.execute("PRAGMA data_version").fetchone() == before


# The queue, the callers and the end


async def test_a_full_queue_refuses_at_once(path: Path) -> None:
    """One write more than may wait is refused without waiting; those before it are kept."""
    with closing(open_store(path, max_pending_writes=3)) as store:
        async with stalled(store):
            accepted = await submit(*(store.write(insert_student, name) for name in "abc"))
            for refused in (store.write(insert_student, "d"), store.check_ready()):
                with pytest.raises(Busy, match="3 writes are waiting already"):
                    await refused
            assert not any(each.done() for each in accepted)
        await asyncio.gather(*accepted)
        await store.write(insert_student, "e")
    assert names(path) == [*"abce"]


async def test_single_writes_pass_work_alone(store: Store) -> None:
    """A single write waits for one piece of work alone at most, however many are before it in the queue."""
    done: list[str] = []

    def note(_: pw.Database, what: str) -> None:
        done.append(what)

    async with stalled(store):
        alone = await submit(*(store.write(note, f"alone {n}", alone=True) for n in range(3)))
        single = await submit(*(store.write(note, f"single {n}") for n in range(2)))
    await asyncio.gather(*alone, *single)
    # The work that stalled was a group of single writes, so work alone has the next turn.
    assert done == ["alone 0", "single 0", "single 1", "alone 1", "alone 2"]


async def test_single_writes_that_never_end_leave_turns_to_work_alone(store: Store) -> None:
    """Where the next single write is there before the last one is done, work alone is done all the same."""
    loop, done = asyncio.get_running_loop(), list[int | None]()
    later: list[Future[None]] = []

    def single(_: pw.Database, n: int) -> None:
        done.append(n)
        if n < 9:
            later.append(asyncio.run_coroutine_threadsafe(store.write(single, n + 1), loop))
            time.sleep(0.05)  # Until the next one is in the queue.

    def alone(_: pw.Database) -> None:
        done.append(None)

    (first,) = await submit(store.write(single, 0))
    await asyncio.gather(first, *(store.write(alone, alone=True) for _ in range(3)))
    assert done.count(None) == 3
    assert len(done) < 10
    for each in later:  # The list grows meanwhile.
        await asyncio.wrap_future(each)
    assert len(done) == 13


async def test_a_full_queue_counts_work_alone(path: Path) -> None:
    """Work alone takes a place in the queue as any other write."""
    with closing(open_store(path, max_pending_writes=2)) as store:
        async with stalled(store):
            accepted = await submit(store.write(list_students, alone=True), store.write(list_students))
            await asyncio.sleep(0)  # They are handed over at the end of a turn.
            with pytest.raises(Busy, match="2 writes are waiting already"):
                await store.write(list_students)
        await asyncio.gather(*accepted)


async def test_close_finishes_what_was_accepted(store: Store, path: Path) -> None:
    """Writes that wait when the store is closed are kept and answered; then the file is let go."""
    await store.read(list_students)
    async with stalled(store):
        accepted = await submit(*(store.write(insert_student, str(n)) for n in range(100)))
        closings = await submit(*(asyncio.to_thread(store.close) for _ in range(3)))
        accepted += await submit(store.write(insert_student, "late"))
    await asyncio.gather(*closings)
    await asyncio.gather(*accepted)
    store.close()
    assert names(path) == [*map(str, range(100)), "late"]
    assert not wal(path).exists()


async def test_close_finishes_what_came_in_the_same_turn(store: Store, path: Path) -> None:
    """A write that was not even handed to the writer is finished all the same, and nothing opens the file again."""
    (accepted,) = await submit(store.write(insert_student, "Ada"))
    store.close()
    assert not wal(path).exists()
    assert await accepted == StudentRecord(1, "Ada")
    assert not wal(path).exists()


async def test_a_closed_store_opens_again(store: Store, path: Path) -> None:
    """Closing is for the moment: the next use opens the file again, as often as it comes to that."""
    store.close()
    for n in range(3):
        await store.write(insert_student, str(n))
        assert len(await store.read(list_students)) == n + 1
        store.close()
        assert not wal(path).exists()


async def test_close_in_the_midst_of_writes_loses_none(store: Store, path: Path) -> None:
    """Closing over and over while others write leaves no caller without an answer."""
    writes = []
    for n in range(100):
        writes += await submit(store.write(insert_student, str(n)))
        await asyncio.to_thread(store.close)
    await asyncio.wait_for(asyncio.gather(*writes), 5)
    assert names(path) == [*map(str, range(100))]


def test_event_loops_in_several_threads_share_a_store(store: Store, path: Path) -> None:
    """Each loop gets its own answers, whatever the others do."""

    async def work(thread: int) -> list[str]:
        made = await asyncio.gather(*(store.write(insert_student, f"{thread}/{n}") for n in range(100)))
        read = await asyncio.gather(*(store.read(students.find_student, student.id) for student in made))
        return [student.name for student in read]

    with ThreadPoolExecutor(4) as pool:
        answers = [*pool.map(lambda thread: asyncio.run(work(thread)), range(4))]
    assert answers == [[f"{thread}/{n}" for n in range(100)] for thread in range(4)]
    assert len(names(path)) == 400


async def test_a_caller_that_gives_up_disturbs_nobody(store: Store, path: Path) -> None:
    """A cancelled caller's neighbours get their answers, refused or not, and the store goes on."""
    async with stalled(store):
        ada, gone, failing, refused = await submit(
            store.write(insert_student, "Ada"),
            store.write(insert_student, "gone"),
            store.write(insert_half),
            store.write(students.find_student, 9),
        )
        gone.cancel()
        failing.cancel()
    assert await ada == StudentRecord(1, "Ada")
    with pytest.raises(StudentNotFound):
        await refused
    await store.write(insert_student, "Ben")
    assert set(names(path)) - {"gone"} == {"Ada", "Ben"}


def test_an_event_loop_that_ends_early_disturbs_nobody(store: Store, path: Path) -> None:
    """A write whose loop is closed before its commit is kept, and another loop's is answered."""

    async def leave() -> None:
        await submit(store.write(insert_student, "Ada"))

    with held(path, "BEGIN IMMEDIATE"):
        asyncio.run(leave())
    assert asyncio.run(store.write(insert_student, "Ben")).name == "Ben"
    assert names(path) == ["Ada", "Ben"]


async def test_a_thread_that_cannot_start_is_tried_again(store: Store, path: Path) -> None:
    """When the system has no thread to give, the write fails and the next one is not stuck behind it."""
    usual = threading.stack_size(2**46)
    try:
        with pytest.raises(RuntimeError):
            await store.write(insert_student, "Ada")
    finally:
        threading.stack_size(usual)
    await asyncio.wait_for(store.write(insert_student, "Ben"), 5)
    assert names(path) == ["Ben"]


@pytest.mark.parametrize("probed", [False, True])
def test_a_store_that_nobody_holds_lets_go(path: Path, *, probed: bool) -> None:
    """A store that is forgotten without being closed ends its thread and closes its file."""
    before = set(threading.enumerate())
    store = open_store(path)
    asyncio.run(store.read(list_students))
    asyncio.run(store.write(insert_student, "Ada"))
    if probed:
        asyncio.run(store.check_ready())
    del store
    assert ends_threads(before)
    assert not wal(path).exists()


def test_a_store_whose_last_holder_is_its_own_work_lets_go(path: Path) -> None:
    """A store that is forgotten while it works ends by itself, from its own thread."""
    before = set(threading.enumerate())

    async def leave() -> None:
        store = open_store(path)
        await submit(store.write(lambda db, _: insert_student(db, "Ada"), store))

    with held(path, "BEGIN IMMEDIATE"):
        asyncio.run(leave())
        gc.collect()
    assert ends_threads(before)
    assert names(path) == ["Ada"]
    assert not wal(path).exists()


def test_a_program_that_ends_waits_for_its_accepted_work_and_no_longer(path: Path) -> None:
    """A host program that never closes its store ends by itself, in silence, with every accepted write kept."""
    command = [sys.executable, "-c", LEAVE, str(path)]
    ended = subprocess.run(command, cwd=ROOT, check=True, timeout=20, capture_output=True, text=True)
    assert ended.stderr == ""
    assert names(path) == [*map(str, range(500))]


@pytest.mark.both
async def test_a_defect_of_the_writer(store: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong in the writer thread is told to those whose writes it was for, and the next ones are done."""
    with monkeypatch.context() as patch:
        patch.setattr(store._writer, "_commit_at_once", lambda *_: 1 // 0)  # noqa: SLF001
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(store.write(insert_student, "Ada"), 5)
    assert (await store.write(insert_student, "Bo")).name == "Bo"
    with closing(open_db(path)) as db:
        assert [student.name for student in list_students(db)] == ["Bo"]
