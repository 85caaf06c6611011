"""The database of PostgreSQL: its URL, its connections, its store, and what callers are told when it fails."""

import asyncio
import gc
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import peewee as pw
import postgresql
import psycopg
import pytest
from stores import as_one_group, open_store, stalled

from service import Settings, connect, create_app
from service.errors import Busy, ConstraintViolated, SetupError, StorageUnavailable, StudentNotFound
from service.storage import fetch
from service.storage.groups import Job
from service.storage.postgres import connections, readers, writer
from service.storage.postgres import store as store_module
from service.storage.postgres.connections import TURN, open_database
from service.storage.postgres.urls import parameters, without_password

pytestmark = pytest.mark.anyio
ADD = "INSERT INTO students (name) VALUES (?) RETURNING id"
NUMBER = "SELECT count(*) FROM students"
CONNECTIONS = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'enrollment%'
"""


def add(db: pw.Database, name: str = "Ada") -> int:
    """Be a rule that writes a row."""
    ((row_id,),) = fetch(db, ADD, name)
    return int(row_id)


def number(db: pw.Database) -> int:
    """Be a rule that reads."""
    ((found,),) = fetch(db, NUMBER)
    return int(found)


@pytest.fixture
def own_server() -> Iterator[postgresql.Server]:
    """Run a PostgreSQL that a test may stop and kill."""
    with postgresql.running() as server:
        yield server


@pytest.fixture
def own(own_server: postgresql.Server, empty_school: str) -> str:  # noqa: ARG001
    """Give the URL of a migrated database of that server."""
    from service import migrate  # noqa: PLC0415

    migrate(own_server.url)
    return own_server.url


def processes_of(server: postgresql.Server) -> list[int]:
    """Give the numbers of all processes of a server, the one that starts the others first."""
    children = subprocess.run(["pgrep", "-P", str(server.pid)], capture_output=True, text=True, check=True).stdout
    return [server.pid, *map(int, children.split())]


@contextmanager
def stopped(server: postgresql.Server) -> Iterator[None]:
    """Let the processes of a server stand still, as on a machine that hangs: it takes connections, and says nothing."""
    processes = processes_of(server)
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


@contextmanager
def killed(server: postgresql.Server) -> Iterator[Callable[[], object]]:
    """Kill a server with no warning, and give a function that starts it again on the same data."""
    process = Path("/proc", str(server.pid))
    command, owner, folder = (process / "cmdline").read_bytes(), process.stat(), (process / "cwd").readlink()
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        own: Any = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if not os.getuid() else {}
        with suppress(psycopg.Error), psycopg.connect(server.url):
            return
        if not started or started[-1].poll() is not None:  # Until the last process is gone, no new one starts.
            started.append(
                subprocess.Popen(
                    command.split(b"\0")[:-1],
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    **own,
                )
            )

    for number in processes_of(server):
        os.kill(number, signal.SIGKILL)
    # Nobody has waited for the dead process yet, so that PostgreSQL would take it for a living one.
    for lock in (server.data / "postmaster.pid", *server.data.parent.glob(".s.PGSQL.*.lock")):
        lock.unlink()
    try:
        yield start
    finally:
        for each in started:
            each.send_signal(signal.SIGQUIT)
            each.wait()


async def timed(answer: Any) -> tuple[float, Any]:
    """Give for how many seconds a caller waited, and the result or error."""
    began = time.monotonic()
    try:
        result = await answer
    except Exception as error:  # noqa: BLE001
        result = error
    return time.monotonic() - began, result


def are_open(url: str, expected: int) -> bool:
    """Tell whether a database soon has so many connections of the service."""
    with psycopg.connect(url, autocommit=True) as connection:
        until = time.monotonic() + 5
        while time.monotonic() < until:
            ((count,),) = connection.execute(CONNECTIONS)
            if count == expected:
                return True
            time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ada:s%40crt@db.example.org:5433/school", "postgresql://ada@db.example.org:5433/school"),
        (
            "postgres://a,b:1,[::1]:2/school?sslmode=verify-full",
            "postgresql://a,b:1,[::1]:2/school?sslmode=verify-full",
        ),
        ("postgresql://a,b/x?port=8&hostaddr=::1,::2", "postgresql://a:8,b:8/x?hostaddr=%3A%3A1%2C%3A%3A2"),
        ("postgresql:///school?password=secret&sslpassword=secret&host=%2Frun", "postgresql://%2Frun/school"),
        ("postgresql://h/d?options=-csearch_path%3Dnorth", "postgresql://h/d?options=-csearch_path%3Dnorth"),
        ("postgresql://ada:s/crt@h/d", "postgresql://..."),
        ("postgresql+psycopg://ada:scrt@h/d", "postgresql://..."),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    """What is shown leads libpq to the same database, and has no password in it; nor has the refusal of a wrong URL."""
    assert without_password(url) == shown
    if shown == "postgresql://...":
        with pytest.raises(SetupError, match="postgresql://") as refusal:
            parameters(url)
        assert "crt" not in str(refusal.value)
    else:
        known = parameters(url)
        secret = {"password", "sslpassword", "port"}
        assert {name: known[name] for name in known.keys() - secret} == {
            name: value for name, value in parameters(shown).items() if name != "port"
        }


@pytest.mark.parametrize("package", ["psycopg", "greenlet"])
def test_without_the_extra(tmp_path: Path, package: str) -> None:
    """Without a package of the extra, a URL of PostgreSQL is refused with the line that installs it; a file works."""
    program = f"""
import sys
sys.modules[{package!r}] = None
from service import connect, migrate
migrate({str(tmp_path / "school.db")!r})
connect({str(tmp_path / "school.db")!r}).close()
assert not [name for name in sys.modules if name.startswith("service.storage.postgres")]
connect("postgresql://ada:secret@localhost/school")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.stderr.splitlines()[-1] == (
        "service.errors.SetupError: To use PostgreSQL, the service needs psycopg and greenlet. "
        "Run: pip install '.[postgresql]'"
    )
    assert "secret" not in ended.stderr.splitlines()[-1]


def test_what_is_refused_before_anything_is_asked(school: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter that libpq does not know, a PostgreSQL that is too old, and no driver each have their sentence."""
    with pytest.raises(SetupError, match="each parameter"):
        parameters("postgresql://h/d?colour=red")
    with monkeypatch.context() as patch:
        patch.setattr(connections, "OLDEST", 99)
        with pytest.raises(SetupError, match="at least 99 is needed"):
            connect(school)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SetupError, match=r"pip install '\.\[postgresql\]'"):
        connect(school)


def test_a_statement_that_fails_is_undone_alone(school: str) -> None:
    """In a transaction a rule may ask on after an error, and what came before the error is kept."""
    with closing(connect(school)) as db:
        with db.atomic("IMMEDIATE"):
            first = add(db)
            with pytest.raises(pw.IntegrityError):
                fetch(db, "INSERT INTO students (id, name) VALUES (?, ?)", first, "Bo")
            with pytest.raises(pw.IntegrityError), db.atomic():  # noqa: PT012 - the end of the block is what is tested.
                add(db, "Cy")
                fetch(db, "INSERT INTO students (id, name) VALUES (?, ?)", first, "Bo")
            assert number(db) == 1
        assert number(db) == 1


def test_a_savepoint_is_undone_behind_what_is_sent_with_that(school: str) -> None:
    """Statements that were prepared, before that and after it, are run again as ever."""
    with closing(open_database(school)) as db:
        for count in range(3):
            with db.atomic("IMMEDIATE"):
                assert number(db) == count
                with suppress(ZeroDivisionError), db.atomic():
                    with db.atomic():
                        add(db)
                    raise ZeroDivisionError  # To let go of the savepoint within is sent together with the undoing.
            with db.atomic("IMMEDIATE"):
                add(db)
        assert number(db) == 3


def test_a_transaction_that_was_undone_is_not_committed(school: str) -> None:
    """PostgreSQL takes a COMMIT of an undone transaction for success; here it raises the error that undid it."""
    with closing(connect(school)) as db:
        with pytest.raises(pw.ProgrammingError, match="nothing_there"), db.atomic("IMMEDIATE"):  # noqa: PT012
            add(db)
            with suppress(pw.ProgrammingError):
                fetch(db, "SELECT nothing_there")
        with pytest.raises(pw.DatabaseError), db.atomic("IMMEDIATE"), db.atomic():
            fetch(db, "SELECT pg_terminate_backend(pg_backend_pid())")
        assert number(db) == 0


def test_values_and_signs(school: str) -> None:
    """A ? is a value outside of quotes alone, and a % is itself."""
    with closing(connect(school)) as db:
        sql = """SELECT '?%', "?%", ?::text, ? % 3 FROM (SELECT 1 AS "?%") AS t -- ? %"""
        assert fetch(db, sql, "%s ?", 2**40) == [("?%", 1, "%s ?", 2**40 % 3)]
        assert db.table_exists("students")  # Peewee's own statements have %s.
        with db.atomic("IMMEDIATE"):
            pass
        with pytest.raises(pw.OperationalError, match="session is read-only"):
            fetch(open_database(f"{school}?options=-cdefault_transaction_read_only%3Don"), "SELECT 1")


def test_the_turn(school: str) -> None:
    """A transaction that writes waits for the turn of its school, whoever has it, and sees what was committed then."""
    with closing(connect(school)) as one, closing(connect(school, busy_timeout=0.2)) as other:
        with one.atomic("IMMEDIATE"):
            add(one)
            with pytest.raises(pw.OperationalError, match="lock timeout"), other.atomic("IMMEDIATE"), other.atomic():
                add(other)
        with other.atomic("IMMEDIATE"):
            assert number(other) == 1


@pytest.mark.parametrize(("query", "name"), [("", "enrollment public"), ("?application_name=bursar", "bursar")])
def test_a_connection_has_a_name(school: str, query: str, name: str) -> None:
    """Whoever looks at the connections of PostgreSQL sees which school one is for, or the name that the URL gives."""
    with closing(connect(f"{school}{query}")) as db:
        assert fetch(db, "SELECT current_setting('application_name')") == [(name,)]


def test_hooks_are_told_of_each_statement(school: str) -> None:
    """Peewee's hooks are told of a statement that is answered, and of one that fails with its error."""
    told: list[pw.QueryEvent] = []
    with closing(connect(school)) as db:
        db.query_hooks.append(told.append)
        assert number(db) == 0
        with pytest.raises(pw.IntegrityError) as refused:
            fetch(db, "INSERT INTO students (name) VALUES (?)", None)
    assert [(event.sql.split()[0], event.params, event.exception) for event in told] == [
        ("SELECT", (), None),
        ("INSERT", (None,), refused.value),
    ]
    assert all(event.duration > 0 for event in told)


@pytest.mark.long
def test_it_connects_again(own: str, own_server: postgresql.Server) -> None:
    """A connection that was lost is replaced, outside of a transaction."""
    with closing(connect(own)) as db:
        own_server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'enrollment%'"
        )
        with pytest.raises(pw.DatabaseError):
            number(db)
        assert number(db) == 0
        with pytest.raises(pw.DatabaseError, match="lost before"), db.atomic("IMMEDIATE"):  # noqa: PT012
            add(db)
            with suppress(pw.DatabaseError):
                fetch(db, "SELECT pg_terminate_backend(pg_backend_pid())")
        assert number(db) == 0


async def test_each_job_of_a_group_has_its_own_outcome(school: str) -> None:
    """An error of one rule undoes none of the others, whatever error it is."""
    with closing(open_store(school)) as store:
        first = await store.write(add)
        outcome = await as_one_group(
            store,
            store.write(add, "Bo"),
            store.write(lambda db: fetch(db, "INSERT INTO students (id, name) VALUES (?, ?)", first, "Cy")),
            store.write(lambda db: fetch(db, "SELECT nothing_there")),
            store.write(lambda _: 1 // 0),
            store.write(lambda _: next(iter(()))),
            store.write(add, "Ed"),
        )
        assert [type(each) for each in outcome] == [
            int,
            ConstraintViolated,
            StorageUnavailable,
            ZeroDivisionError,
            RuntimeError,
            int,
        ]
        assert await store.read(number) == 3
        assert store.measured().groups.counts[0] >= 1


HOST = """
CREATE FUNCTION host() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'fees unpaid'; END $$;
CREATE TABLE fees (student_id bigint REFERENCES students DEFERRABLE INITIALLY DEFERRED)"""


async def test_rules_of_another_program(school: str) -> None:
    """What another program refuses within a statement, or at the COMMIT, is the refusal of that caller alone."""

    def swallow(db: pw.Database) -> None:
        with suppress(pw.DatabaseError):
            fetch(db, "SELECT 1 / 0")
        raise StudentNotFound(1)

    def swallow_all(db: pw.Database) -> None:
        with suppress(pw.DatabaseError):
            fetch(db, "SELECT 1 / 0")

    with closing(open_store(school)) as store, closing(connect(school)) as other:
        for statement in HOST.split(";\n"):
            other.execute_sql(statement)
        outcome = await as_one_group(
            store,
            store.write(add, "Bo"),
            store.write(lambda db: fetch(db, "SELECT host()")),
            store.write(lambda db: fetch(db, "INSERT INTO fees VALUES (99) RETURNING student_id")),
            store.write(swallow),
            store.write(add, "Cy"),
        )
        kinds = [int, ConstraintViolated, ConstraintViolated, StudentNotFound, int]
        assert [type(each) for each in outcome] == kinds
        assert "fees unpaid" in outcome[1].detail
        outcome = await as_one_group(store, store.write(add, "Di"), store.write(swallow_all), store.write(add, "Ed"))
        assert [type(each) for each in outcome] == [int, StorageUnavailable, int]
        assert "the transaction was undone. Nothing was kept." in outcome[1].detail
        assert await store.read(number) == 4
        alone = store.write(lambda db: fetch(db, "SELECT nothing_there"), alone=True)
        with pytest.raises(StorageUnavailable, match=r"does not exist\. Nothing was kept"):
            await alone


@pytest.mark.long
async def test_the_time_of_each_job(school: str) -> None:
    """A job that has waited too long is refused without being begun, and whoever came later has its own time."""

    def slow(db: pw.Database) -> None:
        add(db)
        time.sleep(1.1)

    with closing(open_store(school, busy_timeout=1)) as store, closing(connect(school)) as other:
        await store.write(add)
        busy = asyncio.create_task(store.write(lambda _: time.sleep(0.5), alone=True))
        await asyncio.sleep(0.05)
        with other.atomic():
            fetch(other, TURN)
            early = asyncio.create_task(timed(store.write(add)))
            await asyncio.sleep(0.4)
            late = asyncio.create_task(timed(store.write(add)))
            _, refusal = await early
            assert isinstance(refusal, Busy)
        seconds, result = await late
        await busy
        assert isinstance(result, int), result
        assert seconds < 1.3
        busy = asyncio.create_task(store.write(lambda _: time.sleep(1.1), alone=True))
        await asyncio.sleep(0.05)
        with pytest.raises(Busy, match="Other writes took all of 1 s"):
            await store.write(add)
        await busy
        with pytest.raises(StorageUnavailable, match="Nothing was kept"):
            await store.write(slow)
        assert await store.read(number) == 2


@pytest.mark.parametrize("verify_again", [0, 60])
async def test_a_connection_that_is_lost_before_a_bulk(
    school: str, monkeypatch: pytest.MonkeyPatch, verify_again: float
) -> None:
    """What writes in transactions of its own is done if it had not begun, or told that nothing was kept of it."""
    monkeypatch.setattr(store_module, "VERIFY_AGAIN", verify_again)
    with closing(open_store(school)) as store, psycopg.connect(school, autocommit=True) as other:
        process = await store.write(lambda db: fetch(db, "SELECT pg_backend_pid()"))
        assert other.execute("SELECT pg_terminate_backend(%s, 5000)", process[0]).fetchall() == [(True,)]
        if verify_again:
            with pytest.raises(StorageUnavailable, match="Nothing was kept"):
                await store.write(add, alone=True)
        assert await store.write(add, alone=True) == 1


async def test_who_was_told_is_not_run_again(school: str) -> None:
    """A write that was told that nothing was kept is not kept later, when a rule undoes the rest of its group."""

    def fail(db: pw.Database) -> None:
        fetch(db, "INSERT INTO fees VALUES (99) RETURNING student_id")

    with closing(open_store(school)) as store, closing(connect(school)) as other:
        for statement in HOST.split(";\n"):
            other.execute_sql(statement)
        await store.write(add)
        with other.atomic():
            fetch(other, TURN)
            now = time.monotonic()
            jobs = [Job(add, (), until=now + 1), Job(fail, (), until=now + 5), Job(add, ("Bo",), until=now + 5)]
            early, *late = [store._writer.ask(job) for job in jobs]  # noqa: SLF001
            with pytest.raises(Busy, match="Nothing was kept"):
                await early
            assert time.monotonic() < now + 1
        kept = await asyncio.gather(*late, return_exceptions=True)
        assert [type(each) for each in kept] == [ConstraintViolated, int]
        assert await store.read(number) == 2


async def test_a_schema_that_was_changed(school: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where the schema is no longer the code's, nothing is written, and the store is not ready; slow SQL is logged."""
    with closing(open_store(school, slow_ms=50)) as store, closing(connect(school)) as other:
        await store.read(lambda db: fetch(db, "SELECT pg_sleep(0.1)"))
        assert [record.message for record in caplog.records] == ["A statement was slow."]
        other.execute_sql("ALTER TABLE students DISABLE TRIGGER ALL")
        for ask in (store.write(add), store.check_ready()):
            with pytest.raises(StorageUnavailable, match="not as its migrations made it"):
                await ask
        together = asyncio.gather(store.write(add), store.write(add), return_exceptions=True)
        for refusal in await asyncio.wait_for(together, 5):
            assert "not as its migrations made it" in str(refusal)


async def test_too_many_writes(school: str) -> None:
    """A write for which there is no room is refused at once."""
    with closing(open_store(school, max_pending_writes=1)) as store:
        async with stalled(store):
            waiting = asyncio.create_task(store.write(add))
            await asyncio.sleep(0)
            with pytest.raises(Busy, match="1 writes are waiting"):
                await store.write(add)
        assert await waiting == 1


async def test_news(school: str) -> None:
    """Who waits is told of an event of another program within the time between two looks, and of its own at once."""
    with closing(open_store(school)) as store, closing(connect(school)) as other:
        state = await store.changed()
        waiting = asyncio.create_task(store.changed(state))
        await asyncio.sleep(0.05)
        other.execute_sql("INSERT INTO students (name) VALUES ('Ada')")
        other.execute_sql("INSERT INTO courses (name, level) VALUES ('Algebra', '1')")
        other.execute_sql("INSERT INTO enrollments (student_id, course_id) VALUES (1, 1)")
        assert await asyncio.wait_for(waiting, 1) != state


async def test_the_turn_is_held_by_another(school: str) -> None:
    """A write that gets no turn in time is refused, and what waits behind it has its own time."""
    with closing(open_store(school, busy_timeout=1)) as store, closing(connect(school)) as other:
        await store.write(add)
        with other.atomic():
            fetch(other, TURN)
            first = asyncio.create_task(timed(store.write(add)))
            await asyncio.sleep(0.4)
            second = asyncio.create_task(timed(store.write(add)))
            (seconds, refusal), (later, other_refusal) = await first, await second
        assert isinstance(refusal, Busy)
        assert "Nothing was kept." in refusal.detail
        assert isinstance(other_refusal, Busy)
        assert 0.5 < seconds < 1.2
        assert 0.5 < later < 1.2
        assert await store.write(add) > 1


@pytest.mark.parametrize("fails", [False, True])
async def test_who_comes_while_another_has_the_turn(school: str, *, fails: bool) -> None:
    """What comes while a write waits for the turn shares the turn, and each has its own outcome."""
    waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with closing(open_store(school)) as store, closing(connect(school)) as other:
        with other.atomic():
            fetch(other, TURN)
            first = asyncio.create_task(store.write(add, "Ada"))
            while fetch(other, waits) == [(0,)]:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            later = [asyncio.create_task(store.write(add, name)) for name in ("Bo", "Cy")]
            sql = "SELECT nothing_there" if fails else "SELECT 4"
            later.append(asyncio.create_task(store.write(lambda db: fetch(db, sql)[0][0])))
            while store.measured().waiting < len(later):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        *added, last = await asyncio.gather(first, *later, return_exceptions=True)
        assert len({*added}) == await store.read(number) == 3
        assert isinstance(last, StorageUnavailable) if fails else last == 4
        groups = store.measured().groups
        assert (sum(groups.counts), groups.sum) == (1, 4)


@pytest.mark.long
async def test_a_node_that_stands_still_with_the_turn(school: str) -> None:
    """The turn of a process that was stopped is free again after three seconds."""
    program = """
import sys
from service.storage import fetch
from service.storage.postgres.connections import IDLE_SECONDS, TURN, open_database
db = open_database(sys.argv[1], idle_timeout=IDLE_SECONDS)
with db.atomic("IMMEDIATE"):
    fetch(db, TURN)
    print("held", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", program, school]
    with (
        subprocess.Popen(  # noqa: ASYNC220 - the test waits for it.
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process,
        closing(open_store(school)) as store,
    ):
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        os.kill(process.pid, signal.SIGSTOP)
        seconds, result = await timed(store.write(add))
        process.kill()
        assert result == 1
        assert seconds < 3.5


@pytest.mark.long
async def test_a_server_that_hangs(own: str, own_server: postgresql.Server) -> None:
    """Reads and writes are refused in time with the truth, and go on as soon as the server does."""
    with closing(open_store(own, busy_timeout=1)) as store:
        await store.write(add)
        await store.read(number)
        with stopped(own_server):
            answers = [store.read(number), store.read(number), store.write(add), store.write(add), store.check_ready()]
            for seconds, result in await asyncio.gather(*map(timed, answers)):
                assert isinstance(result, (Busy, StorageUnavailable)), result
                assert seconds < 1.6
                assert re.search("Nothing was (read|kept)|within 1 s", result.detail)
            seconds, result = await timed(store.scan(number))
            assert isinstance(result, StorageUnavailable), result
            assert seconds < 2.6  # libpq waits for two seconds at least.
        await asyncio.sleep(0.1)
        assert await store.write(add) > 1
        assert await store.read(number) == 2
        await store.check_ready()


@pytest.mark.long
@pytest.mark.parametrize("together", [1, readers.TOGETHER])
async def test_who_asks_while_a_server_hangs(
    own: str, own_server: postgresql.Server, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """Each caller has an answer within its own time, whatever the others wait for before it."""
    monkeypatch.setattr(readers, "TOGETHER", together)
    with closing(open_store(own, busy_timeout=1)) as store:
        await store.write(add)
        await store.read(number)
        asked: list[asyncio.Task[Any]] = []
        with stopped(own_server):
            for _ in range(25):
                answers = (store.read(number), store.write(add), store.write(add, alone=True))
                asked += [asyncio.create_task(timed(answer)) for answer in answers]
                await asyncio.sleep(0.1)
            found = await asyncio.gather(*asked)
        for seconds, refusal in found:
            assert isinstance(refusal, (Busy, StorageUnavailable))
            assert re.search("Nothing was (read|kept)", refusal.detail)
            assert seconds < 1.4
        assert await store.write(add) > 1


@pytest.mark.long
def test_a_connection_that_comes_too_late(own: str, own_server: postgresql.Server) -> None:
    """Those who come later have it where the time of its own read or write is over, or an event loop has ended."""

    async def leave() -> None:
        asyncio.ensure_future(store.read(number))  # noqa: RUF006
        await asyncio.sleep(0.1)

    async def refused(*asked: Any) -> None:
        for _, refusal in await asyncio.gather(*map(timed, asked)):
            assert isinstance(refusal, StorageUnavailable)

    with closing(open_store(own, busy_timeout=1)) as store:
        with stopped(own_server):
            asyncio.run(refused(store.read(number), store.write(add)))
            asyncio.run(leave())
        store._readers._threads.shutdown()  # noqa: SLF001 - it waits until both are connected, and makes no other.
        assert are_open(own, 3)
        assert asyncio.run(store.read(number)) == 0
        assert asyncio.run(store.write(add)) == 1
        assert are_open(own, 3)
        store.close()
        assert are_open(own, 0)
        with stopped(own_server):
            asyncio.run(refused(store.write(add)))
            store.close()
        assert are_open(own, 0)


@pytest.mark.long
async def test_a_host_that_says_nothing(school: str) -> None:
    """A connection takes longer than anybody waits where the first host of the URL is gone: it is there in the end."""
    parts = urlsplit(school)
    user, _, place = parts.netloc.rpartition("@")
    with socket.create_server(("127.0.0.1", 0)) as dead:
        url = f"postgresql://{user}@127.0.0.1:{dead.getsockname()[1]},{place}{parts.path}"
        with closing(open_store(url, busy_timeout=1)) as store:
            asks: list[Callable[[], Any]] = [lambda: store.read(number), lambda: store.write(add)]
            for ask in asks:
                began = time.monotonic()
                while isinstance((await timed(ask()))[1], StorageUnavailable):
                    assert time.monotonic() < began + 6
            store.close()
            now = time.monotonic()
            jobs = [
                Job(number, (), until=now + seconds) for seconds in (0.5, 2.5, 9)
            ]  # The first connection takes 2 s.
            *_, last = await asyncio.gather(*map(store._readers.ask, jobs), return_exceptions=True)  # noqa: SLF001
            assert last == 1


async def test_no_thread_for_a_connection(school: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no further thread can be started, as at the end of the program, writes are done all the same."""

    class Unable(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(writer, "Thread", Unable)
    with closing(open_store(school)) as store:
        assert await store.write(add) == 1


@pytest.mark.long
async def test_a_server_that_is_restarted(own: str, own_server: postgresql.Server) -> None:
    """Where the connections were lost between two calls, nobody notices it, however little a caller may wait."""
    with closing(open_store(own, busy_timeout=0)) as store:
        await store.write(add)
        await store.read(number)
        own_server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'enrollment%'"
        )
        assert await store.write(add) == 2
        assert await store.read(number) == 2


async def test_a_server_that_is_killed(own: str, own_server: postgresql.Server) -> None:
    """While PostgreSQL is down callers are told at once; when it is back, the store goes on, with all that was kept."""
    with closing(open_store(own)) as store:
        kept = [await store.write(add), await store.write(add)]
        with killed(own_server) as start:
            for answer in (store.write(add), store.read(number), store.check_ready()):
                seconds, refusal = await timed(answer)
                assert isinstance(refusal, StorageUnavailable)
                assert seconds < 2
            async with asyncio.timeout(10):
                while isinstance((await timed(store.check_ready()))[1], Exception):
                    start()
                    await asyncio.sleep(0.1)
            assert await store.read(number) == len(kept)
            assert await store.write(add) > kept[-1]


@pytest.mark.long
async def test_a_commit_whose_outcome_is_unknown(own: str, own_server: postgresql.Server) -> None:
    """A wait for the standby that is broken off is a success to PostgreSQL; the caller is told that nobody knows."""
    with closing(open_store(own, busy_timeout=1)) as store:
        with own_server.waiting_for_a_standby():
            _, refusal = await timed(store.write(add))
            assert isinstance(refusal, StorageUnavailable)
            assert "Whether anything was kept is not known." in refusal.detail
            with pytest.raises((Busy, StorageUnavailable)):
                await store.check_ready()  # The transaction whose outcome is unknown still has the turn.
        async with asyncio.timeout(10):
            while isinstance((await timed(store.check_ready()))[1], Exception):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert await store.read(number) >= 1


@pytest.mark.long
async def test_a_cancelled_wait_for_the_standby(own: str, own_server: postgresql.Server) -> None:
    """An operator who cancels the wait makes PostgreSQL say success, with a warning: the caller hears that."""
    cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    with own_server.waiting_for_a_standby(), closing(open_store(own)) as store:
        writing = asyncio.create_task(timed(store.write(add)))
        for _ in range(20):
            await asyncio.sleep(0.1)
            own_server.execute(cancel)
            if writing.done():
                break
        _, refusal = await writing
        assert isinstance(refusal, StorageUnavailable)
        assert "not known" in refusal.detail


async def test_a_server_that_takes_no_writes(school: str, server: postgresql.Server) -> None:
    """A database that was made read-only is not ready, and says so; as soon as it takes writes again, it does."""
    name = school.rpartition("/")[2].partition("?")[0]
    with closing(open_store(f"{school}?target_session_attrs=any")) as store:
        server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        for ask in (store.check_ready(), store.write(add)):
            with pytest.raises(StorageUnavailable, match="read-only"):
                await ask
        server.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        store.close()
        assert await store.write(add) == 1


def test_forks(school: str) -> None:
    """A child process uses no connection of its parent, and neither notices the other."""
    with closing(open_store(school)) as store:

        async def work(name: str) -> int:
            await store.write(add, name)
            found: int = await store.read(number)
            return found

        assert asyncio.run(work("Ada")) == 1
        child = os.fork()
        if not child:
            os._exit(0 if asyncio.run(work("Bo")) == 2 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert asyncio.run(work("Cy")) == 3


def test_an_app_is_let_go(school: str) -> None:
    """The thread and the connections of an application end as soon as nothing refers to it."""
    app: Any = create_app(Settings(database_url=school), migrate=True)
    store = app.parts[0]

    async def work(store: Any) -> None:
        await store.write(add)
        await store.read(number)

    asyncio.run(work(store))
    assert "enrollment-writer" in {thread.name for thread in threading.enumerate()}
    assert are_open(school, 2)
    del app, store
    gc.collect()
    assert "enrollment-writer" not in {thread.name for thread in threading.enumerate()}
    assert are_open(school, 0)
