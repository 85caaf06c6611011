"""What SQLite keeps beside the file: its -wal and -shm are missed when they go, and the -wal stays within bounds."""

import asyncio
import gc
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx2
import peewee as pw
import pytest
from conftest import ROOT, Server
from stores import held, names, open_store, wal

from service import Settings, connect, create_app
from service.errors import StorageUnavailable
from service.storage import fetch
from service.storage.sqlite.file import GRAIN
from service.storage.sqlite.store import Store
from service.students import StudentRecord, insert_student, list_students

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("in_time")]

BOUND = 2 * 8000 * 2048
"""Bytes that the -wal may have, when nobody reads an old state: twice the pages at which it is checkpointed."""


END = """
import asyncio, gc, pathlib, sys, time
from service.errors import StorageUnavailable
from service.storage.sqlite.store import Store
from service.students import insert_student, list_students

def use(path, other):
    store = Store(path, busy_timeout=5, max_pending_writes=1000)
    asyncio.run(store.write(insert_student, "Ada"))
    time.sleep(0.05)
    path.write_bytes(other.read_bytes())
    log = path.with_name(path.name + "-wal")
    log.unlink()
    log.write_bytes(b"another's")
    try:
        asyncio.run(store.read(list_students))
    except StorageUnavailable:
        store.close()

use(*map(pathlib.Path, sys.argv[1:]))
gc.collect()
"""


def beside(path: Path, *ends: str) -> list[Path]:
    """Give the paths of what SQLite keeps beside a file."""
    return [path.with_name(path.name + end) for end in ends]


def delete(*paths: Path) -> None:
    """Be a clean-up job."""
    for path in paths:
        path.unlink()


def replace(*paths: Path) -> None:
    """Put a copy in the place of each."""
    for path in paths:
        Path(shutil.copy(path, path.with_suffix(".copy"))).replace(path)


def add(client: httpx2.Client, name: str) -> httpx2.Response:
    """Add a student."""
    return client.post("/students", json={"name": name})


def journal_mode(path: Path) -> str:
    """Give the mode that a file is in."""
    with closing(sqlite3.connect(path)) as db:
        ((mode,),) = db.execute("PRAGMA journal_mode")
        return str(mode)


# What is gone


@pytest.mark.parametrize(
    ("lose", "ends", "stop"),
    [
        (delete, ("-wal",), "terminate"),
        (delete, ("-wal", "-shm"), "kill"),
        (delete, ("-wal", "-shm"), "terminate"),
        (delete, ("-shm",), "kill"),
        (replace, ("-wal",), "kill"),
        (replace, ("-shm",), "terminate"),
    ],
)
def test_nothing_is_written_into_nowhere(
    serve: Callable[[], Server], path: Path, lose: Callable[..., None], ends: tuple[str, ...], stop: str
) -> None:
    """Without its -wal or -shm a server refuses all, and says why; restarted it works, and has all it acknowledged."""
    server = serve()
    with httpx2.Client(base_url=server.url) as client:
        assert add(client, "before").status_code == 201
        lose(*beside(path, *ends))
        for answer in (client.get("/students"), add(client, "after"), client.get("/health/ready")):
            assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
            assert f"school.db{ends[0]} was " in answer.json()["detail"]
            assert "restart the service" in answer.json()["detail"]
    getattr(server.process, stop)()
    server.process.wait(10)
    with httpx2.Client(base_url=serve().url) as client:
        assert add(client, "again").status_code == 201
        assert [row["name"] for row in client.get("/students").json()] == ["before", "again"]
        assert client.get("/health/ready").status_code == 200


@pytest.mark.long
@pytest.mark.parametrize("link", [False, True])
def test_it_is_missed_however_long_the_folder_was_quiet(path: Path, tmp_path: Path, *, link: bool) -> None:
    """Neither that nothing else happens in the folder, nor a link to the file in another one, hides that it is gone."""
    if link:
        (tmp_path / "links").mkdir()
        path, linked = tmp_path / "links" / "link.db", path
        path.symlink_to(linked)
    with closing(open_store(path)) as store:
        asyncio.run(store.write(insert_student, "Ada"))
        time.sleep(GRAIN / 10**9 + 0.1)
        assert asyncio.run(store.read(list_students)) == [StudentRecord(1, "Ada")]
        log = wal(path.resolve())
        away = log.rename(log.with_name("away"))
        for attempt in (store.read(list_students), store.write(insert_student, "Ben"), store.check_ready()):
            with pytest.raises(StorageUnavailable, match=f"{log.name} was moved or deleted"):
                asyncio.run(attempt)
        away.rename(log)
        asyncio.run(store.write(insert_student, "Cy"))
        asyncio.run(store.check_ready())
    assert names(path) == ["Ada", "Cy"]


@pytest.mark.long
def test_to_look_costs_one_system_call(store: Store) -> None:
    """In a folder where nothing happens, a read looks at the folder alone, and not at each file."""
    looks: list[str] = []

    def count(_: object, event: str, function: Any) -> None:
        if event == "c_call" and function.__name__ in {"stat", "lstat", "fstat", "access", "open"}:
            looks.append(function.__name__)

    async def read_twice() -> None:
        await store.read(list_students)
        await asyncio.sleep(GRAIN / 10**9 + 0.1)
        await store.read(list_students)
        await asyncio.sleep(0)
        sys.setprofile(count)
        await store.read(list_students)
        sys.setprofile(None)

    asyncio.run(read_twice())
    assert looks == ["stat"]


def test_a_folder_that_is_gone_is_missed(path: Path, tmp_path: Path) -> None:
    """When the whole folder is moved nothing is read or written; when it is back all is there."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = path.rename(folder / path.name)
    with closing(open_store(path)) as store:
        asyncio.run(store.write(insert_student, "Ada"))
        away = folder.rename(tmp_path / "away")
        for attempt in (store.read(list_students), store.write(insert_student, "Ben")):
            with pytest.raises(StorageUnavailable, match="folder was moved or deleted"):
                asyncio.run(attempt)
        away.rename(folder)
        assert asyncio.run(store.read(list_students)) == [StudentRecord(1, "Ada")]


def test_a_log_that_goes_under_a_commit_is_noticed(store: Store, path: Path) -> None:
    """A write that SQLite commits to a -wal that is gone is never acknowledged."""

    def add_and_lose(db: pw.Database) -> None:
        insert_student(db, "Ada")
        delete(*beside(path, "-wal"))

    with pytest.raises(StorageUnavailable, match="Whether anything was kept is not known"):
        asyncio.run(store.write(add_and_lose))


@pytest.mark.parametrize("stop", ["kill", "terminate"])
@pytest.mark.parametrize("with_log", [False, True])
def test_a_backup_that_is_put_back_under_a_server_is_left_as_it_is(
    serve: Callable[[], Server], path: Path, tmp_path: Path, stop: str, *, with_log: bool
) -> None:
    """Who restores without stopping the server gets 503, and after the restart exactly what the backup has."""
    backup = tmp_path / "backup.db"
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(backup)) as copy:
        db.execute("INSERT INTO students (name) VALUES ('kept')")
        db.commit()
        db.backup(copy)
    held_open = sqlite3.connect(backup, isolation_level=None)
    held_open.execute("INSERT INTO students (name) VALUES ('in the -wal')")
    server = serve()
    with httpx2.Client(base_url=server.url) as client:
        for n in range(50):
            assert add(client, f"too late {n}" + "x" * 100).status_code == 201
        time.sleep(0.05)
        if with_log:
            for old, new in zip(beside(path, "", "-wal"), beside(backup, "", "-wal"), strict=True):
                Path(shutil.copy(new, tmp_path / "new")).replace(old)
        else:
            path.write_bytes(backup.read_bytes())
            delete(*beside(path, "-wal", "-shm"))
        assert add(client, "never").status_code == 503
        assert client.get("/students").status_code == 503
    getattr(server.process, stop)()
    server.process.wait(10)
    held_open.close()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert names(path) == (["kept", "in the -wal"] if with_log else ["kept"])


async def test_what_was_acknowledged_outlives_the_log(store: Store, path: Path, tmp_path: Path) -> None:
    """As soon as it is noticed that the -wal is gone, what it held is in the database itself."""
    await store.write(insert_student, "Ada")
    delete(*beside(path, "-wal", "-shm"))
    for _ in range(2):
        with pytest.raises(StorageUnavailable, match=r"school\.db-wal was moved or deleted"):
            await store.write(insert_student, "Ben")
    assert names(Path(shutil.copy(path, tmp_path / "copy.db"))) == ["Ada"]


@pytest.mark.parametrize("ends", [("-wal",), ("-wal", "-shm")])
def test_a_store_that_lets_go_of_a_file_that_was_put_back_does_nothing_to_it(
    path: Path, empty_database: Path, ends: tuple[str, ...]
) -> None:
    """Neither the content nor a -wal that is not the store's own is touched, even when it is used again."""
    store = open_store(path)
    asyncio.run(store.write(insert_student, "Ada"))
    time.sleep(0.05)
    path.write_bytes(empty_database.read_bytes())
    delete(*beside(path, *ends))
    wal(path).write_bytes(b"another's")
    for _ in range(2):
        with pytest.raises(StorageUnavailable, match=r"school\.db-wal was replaced"):
            asyncio.run(store.read(list_students))
        store.close()
    del store
    gc.collect()
    assert path.read_bytes() == empty_database.read_bytes()
    assert wal(path).read_bytes() == b"another's"


def test_a_program_that_ends_does_nothing_to_a_file_that_was_put_back(path: Path, empty_database: Path) -> None:
    """Nor is the connection closed when nobody holds the store any more, and the program ends."""
    command = [sys.executable, "-c", END, str(path), str(empty_database)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=20, capture_output=True)
    assert path.read_bytes() == empty_database.read_bytes()
    assert wal(path).read_bytes() == b"another's"


# No false alarm


STATEMENTS = [
    "INSERT INTO notes VALUES (hex(zeroblob(2000)))",
    "DELETE FROM notes",
    "SELECT count(*) FROM students",
    *(f"PRAGMA wal_checkpoint({how})" for how in ("PASSIVE", "FULL", "RESTART", "TRUNCATE")),
    "VACUUM",
    "VACUUM INTO '{}'",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA locking_mode = EXCLUSIVE",
]


def come_and_go(path: Path, dice: random.Random) -> None:
    """Be a host: open connections to the file, do anything with them, close them."""
    with closing(sqlite3.connect(path, timeout=0.1, isolation_level=None)) as db:
        for statement in dice.choices(STATEMENTS, k=dice.randrange(4)):
            with suppress(sqlite3.OperationalError):  # Locked, as it may be.
                db.execute(statement.format(path.with_name(f"copy{dice.random()}.db"))).fetchall()
    with closing(connect(path)) as db:
        insert_student(db, "host")


def be_another_program(path: Path, _: random.Random) -> None:
    """Open the file in another process, read and end."""
    with held(path, "PRAGMA busy_timeout = 10000", "BEGIN", "SELECT * FROM students"):
        pass


def use_a_store(path: Path, dice: random.Random) -> None:
    """Read and write through a store of its own, which is closed at times and then used again."""

    async def work() -> None:
        for _ in range(dice.randrange(1, 5)):
            await asyncio.gather(
                *(store.read(list_students) for _ in range(dice.randrange(3))),
                *(store.write(insert_student, "guest") for _ in range(dice.randrange(3))),
            )

    with closing(open_store(path, busy_timeout=10)) as store:
        for _ in range(dice.randrange(1, 10)):
            asyncio.run(work())
            if not dice.randrange(3):
                store.close()


@pytest.mark.long
def test_nothing_that_others_do_with_sqlite_is_an_alarm(path: Path) -> None:
    """Connections that come and go, checkpoints, VACUUM, backups, other stores, closing: all is read and written."""
    until = time.monotonic() + 2.5
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE notes (text)")

    def keep_on(what: Callable[[Path, random.Random], None], seed: int) -> None:
        dice = random.Random(seed)
        while time.monotonic() < until:
            what(path, dice)

    doers = (come_and_go, come_and_go, use_a_store, use_a_store, be_another_program)
    with ThreadPoolExecutor(len(doers)) as pool:
        for each in [pool.submit(keep_on, what, seed) for seed, what in enumerate(doers)]:
            each.result()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert {"host", "guest"} == {*names(path)}


async def test_a_store_that_is_closed_and_used_again_has_other_files_beside(store: Store, path: Path) -> None:
    """What SQLite deletes when the last connection is closed, and makes anew, is no alarm."""
    for _ in range(3):
        await store.write(insert_student, "Ada")
        store.close()
        assert not any(each.exists() for each in beside(path, "-wal", "-shm"))
    assert len(await store.read(list_students)) == 3


async def test_a_failed_write_does_not_let_go_of_the_file(store: Store, path: Path) -> None:
    """The writer that opens its connection again, with no other one at work, finds the same -wal."""

    def fill_up(db: pw.Database) -> None:
        db.execute_sql("PRAGMA max_page_count = 1")
        db.execute_sql("INSERT INTO students (name) VALUES (hex(zeroblob(100000)))")

    await store.write(insert_student, "Ada")
    before = wal(path).stat().st_ino
    with pytest.raises(StorageUnavailable, match="full"):
        await store.write(fill_up)
    await store.write(insert_student, "Ben")
    assert wal(path).stat().st_ino == before
    assert names(path) == ["Ada", "Ben"]


# The mode


def out_of_wal(path: Path) -> None:
    """Do to a file what some backups do."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)


def test_a_restored_copy_is_put_back_into_wal(path: Path) -> None:
    """An app, and a store at its first use, put a file that is in another mode back into WAL."""
    out_of_wal(path)
    create_app(Settings(database_url=str(path)))
    assert journal_mode(path) == "wal"
    out_of_wal(path)
    with closing(open_store(path)) as store:
        assert asyncio.run(store.read(list_students)) == []
        assert journal_mode(path) == "wal"


def test_a_file_that_cannot_be_put_back_now_is_put_back_later(path: Path) -> None:
    """While another process reads in the other mode the store works in it too, and a second later it is put back."""
    with closing(open_store(path)) as store:
        with held(path, "PRAGMA journal_mode = DELETE", "BEGIN", "SELECT * FROM students"):
            create_app(Settings(database_url=str(path)))
            assert asyncio.run(store.read(list_students)) == []
            assert asyncio.run(store.read(list_students)) == []
            assert journal_mode(path) == "delete"
        asyncio.run(store.write(insert_student, "Ada"))
        assert journal_mode(path) == "delete"
        time.sleep(1.1)
        assert asyncio.run(store.read(list_students)) == [StudentRecord(1, "Ada")]
        assert journal_mode(path) == "wal"


# The size


@pytest.fixture
def reader(path: Path) -> Iterator[sqlite3.Connection]:
    """Give a connection that reads an old state, as a backup does, until it is closed."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE notes (text)")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN")
        db.execute("SELECT * FROM students").fetchall()
        yield db


def write_much(db: pw.Database) -> None:
    """Write more than the -wal may have, in one transaction."""
    with db.atomic():
        for _ in range(2):
            db.execute_sql("INSERT INTO notes VALUES (zeroblob(20000000))")


@pytest.mark.long
async def test_the_log_is_cut_as_soon_as_the_reader_has_gone(
    store: Store, path: Path, reader: sqlite3.Connection
) -> None:
    """While somebody reads an old state the -wal may be large, and writes do not wait; then it is small by itself."""
    await store.write(write_much, alone=True)
    assert wal(path).stat().st_size > BOUND
    longest = 0.0
    for _ in range(250):
        began = time.monotonic()
        await store.write(insert_student, "Ada")
        longest = max(longest, time.monotonic() - began)
        await asyncio.sleep(0.01)
    assert longest < 1
    assert wal(path).stat().st_size > BOUND
    assert await store.write(fetch, "PRAGMA busy_timeout") == [(5000,)]
    reader.close()
    began = time.monotonic()
    while wal(path).stat().st_size > BOUND:
        assert time.monotonic() - began < 5
        await asyncio.sleep(0.05)
    assert len(names(path)) == 250


async def test_a_log_of_the_usual_size_is_left_alone(store: Store, path: Path) -> None:
    """Who looks after the -wal does not touch one that is not too large, and looks no more when nothing is written."""
    await store.write(insert_student, "Ada")
    before = wal(path).stat()
    await asyncio.sleep(1.3)
    assert wal(path).stat() == before
    assert before.st_size > 0


def test_a_host_cuts_the_log_too(path: Path, reader: sqlite3.Connection) -> None:
    """A connection for the plain functions keeps to the same bound, once the reader has gone and it writes again."""
    with closing(connect(path)) as db:
        write_much(db)
        reader.close()
        for _ in range(3):
            insert_student(db, "Ada")
        assert wal(path).stat().st_size <= BOUND


def test_the_bound_goes_with_the_page_size(tmp_path: Path, path: Path) -> None:
    """In a file with larger pages, as a host's may be, the -wal may have as many of them."""
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("PRAGMA page_size = 8192")
        db.execute(f"VACUUM INTO '{other}'")
    with closing(open_store(other)) as store:
        assert asyncio.run(store.write(fetch, "PRAGMA journal_size_limit")) == [(2 * 8000 * 8192,)]


@pytest.mark.long
async def test_who_looks_after_the_log_never_stands_in_the_way(
    store: Store, path: Path, reader: sqlite3.Connection
) -> None:
    """A file that is gone, or locked, when the writer looks after the -wal is nobody's error; it looks again later."""
    await store.write(write_much, alone=True)
    away = await asyncio.to_thread(path.rename, path.with_name("away.db"))
    await asyncio.sleep(1.2)
    await asyncio.to_thread(away.rename, path)
    reader.close()
    with held(path, "BEGIN IMMEDIATE"):
        await asyncio.sleep(1.2)
        assert wal(path).stat().st_size > BOUND
    await store.write(insert_student, "Ada")
    began = time.monotonic()
    while wal(path).stat().st_size > BOUND:
        assert time.monotonic() - began < 5
        await asyncio.sleep(0.05)
