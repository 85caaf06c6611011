"""The reads of a store on PostgreSQL: they are run on the event loop, and many go in one packet."""

import asyncio
import gc
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from typing import Any

import peewee as pw
import psycopg
import pytest
from stores import open_store
from test_postgresql import add, are_open, number, timed

from service.errors import StorageUnavailable
from service.storage import fetch
from service.storage.groups import Job
from service.storage.postgres import packets, readers
from service.storage.postgres.connections import open_database
from service.storage.postgres.packets import Packets
from service.storage.postgres.pipeline import Connection

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("in_time")]


def sleep(seconds: float) -> Callable[[pw.Database], Any]:
    """Make a rule that takes long."""
    return lambda db: fetch(db, "SELECT pg_sleep(?)", seconds)


def process(db: pw.Database) -> int:
    """Be a rule that gives the number of the process of PostgreSQL that a read has asked."""
    ((found,),) = fetch(db, "SELECT pg_backend_pid()")
    return int(found)


@pytest.mark.long
async def test_reads_of_a_turn(school: str) -> None:
    """Of many reads at once, one that fails costs the others nothing, nor does a long one."""
    with closing(open_store(school)) as store:
        slow = asyncio.create_task(store.read(sleep(2)))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        rules = [number, lambda db: fetch(db, "SELECT 1 / 0"), lambda _: 1 // 0] * 20
        outcome = await asyncio.gather(*(store.read(rule) for rule in rules), return_exceptions=True)
        assert time.monotonic() - began < 1.5
        assert [type(each) for each in outcome] == [int, StorageUnavailable, ZeroDivisionError] * 20
        assert await slow
        outcome = await asyncio.gather(*(store.read(rule) for rule in [number, add, number]), return_exceptions=True)
        assert (outcome[0], outcome[2]) == (0, 0)
        assert "read-only" in str(outcome[1])
        assert await store.scan(number) == 0
        with pytest.raises(StorageUnavailable, match="division by zero"):
            await store.scan(lambda db: fetch(db, "SELECT 1 / 0"))


async def test_what_waits_goes_by_another_connection_where_all_take_long(school: str) -> None:
    """Two packets are under way at once, and where they take long another two; what comes then waits for one."""
    with closing(open_store(school)) as store:
        long = []
        for _ in range(readers.MOST):
            long.append(asyncio.create_task(store.read(sleep(0.6))))
            await asyncio.sleep(0.1)
        assert not any(each.done() for each in long)
        last = asyncio.create_task(store.read(number))
        await asyncio.wait([*long, last], return_when=asyncio.FIRST_COMPLETED)
        assert not last.done()
        assert await last == 0
        assert not long[-1].done()
        await asyncio.gather(*long)
        assert are_open(school, readers.MOST)
        processes = {await store.read(process) for _ in range(20)}
        assert len(processes) <= readers.MOST


def test_what_is_asked_together_is_one_packet(school: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that read at the same time send what they ask in one packet, and each has its own rows."""
    sent, send = list[Any](), Packets.send

    def counting(self: Packets, asked: Any) -> Any:
        sent.append(asked)
        return send(self, asked)

    monkeypatch.setattr(Packets, "send", counting)
    found: dict[int, list[Any]] = {}

    def ask(count: int) -> None:
        found[count] = [fetch(db, "SELECT ?", count)[0][0] for _ in range(count)]

    with closing(open_database(school, thread_safe=False)) as db:
        connection = db.connection()
        db.begin("READ")
        connection.wait(connection.run_together([partial(ask, count) for count in range(4)]))
        assert found == {count: [count] * count for count in range(4)}
        assert [len(asked) for asked in sent if asked] == [3, 2, 1]
        calls: list[Callable[[], object]] = [partial(ask, 9), lambda: fetch(db, "SELECT * FROM nothing")]
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.wait(connection.run_together(calls))
        db.rollback()
        assert 9 not in found


@pytest.mark.parametrize("most", [packets.MOST_PREPARED, 1])
def test_values_of_all_kinds(school: str, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """A statement is prepared for the types of its values, up to a number of statements; all give their rows."""
    monkeypatch.setattr(packets, "MOST_PREPARED", most)
    rows: list[Any] = []

    def ask() -> None:
        rows.append(fetch(db, "SELECT ?::text, ?, '?', '%s', 7 % 4", None, 2**40))
        rows.append(fetch(db, "SELECT '%s', 7 % 4"))
        rows.append(fetch(db, "SELECT length(?)", "\N{LATIN SMALL LETTER E WITH ACUTE}'%s"))
        rows.append(fetch(db, "SELECT 1 WHERE FALSE"))
        rows.append(fetch(db, "SAVEPOINT kept"))

    with closing(open_database(school, thread_safe=False)) as db:
        connection = db.connection()
        for _ in range(2):
            db.begin("READ")
            connection.wait(connection.run_together([ask, ask]))
        prepared = fetch(db, "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'read_%'")
        # To forget them is the last of a packet: PgBouncer would take the next ones for forgotten too.
        assert prepared[0][0] == (0 if most == 1 else 5)
    assert (
        rows
        == [
            *[[(None, 2**40, "?", "%s", 3)]] * 2,
            *[[("%s", 3)]] * 2,
            *[[(4,)]] * 2,
            *[[]] * 4,
        ]
        * 2
    )


async def test_a_value_that_cannot_be_sent(school: str) -> None:
    """It is the fault of its own read, and the others of the packet have their rows."""
    with closing(open_store(school)) as store:
        await store.read(number)
        for text in ("a\0b", "\ud800"):
            rules = [number, lambda db, text=text: fetch(db, "SELECT ?", text), process]
            outcome = await asyncio.gather(*(store.read(rule) for rule in rules), return_exceptions=True)
            assert isinstance(outcome[1], (StorageUnavailable, UnicodeEncodeError))
            assert outcome[0] == 0
            assert await store.read(process) == outcome[2]


@pytest.mark.long
async def test_a_column_gets_another_type(school: str) -> None:
    """Reads that were prepared before are prepared anew."""
    ask: Callable[[pw.Database], Any] = lambda db: fetch(db, "SELECT name FROM things")  # noqa: E731
    with closing(open_store(school)) as store, psycopg.connect(school, autocommit=True) as other:
        other.execute("CREATE TABLE things (name varchar(9))")
        other.execute("INSERT INTO things VALUES ('1')")
        try:
            for kind, found in (("integer", "1"), ("text", 1), ("varchar(5)", "1")):
                assert await asyncio.gather(*(store.read(ask) for _ in range(3))) == [[(found,)]] * 3
                other.execute(f"ALTER TABLE things ALTER name TYPE {kind} USING name::{kind}")
        finally:
            other.execute("DROP TABLE things")


async def test_packets_that_follow_each_other(school: str, caplog: pytest.LogCaptureFixture) -> None:
    """A connection ends its snapshot once, some time after its last packet."""
    ended = 0
    with closing(open_store(school)) as store:
        end = Connection.end_snapshot

        def counting(self: Connection) -> Any:
            nonlocal ended
            ended += 1
            return end(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Connection, "end_snapshot", counting)
            for _ in range(5):
                await store.read(number)
            await asyncio.sleep(20 * readers.LINGER)
    assert ended == 1
    assert not caplog.records


async def test_who_came_later_has_the_rest_of_its_time(school: str) -> None:
    """Where the time of one read of a packet is over, the others are run again."""
    with closing(open_store(school, busy_timeout=1)) as store:
        await store.read(number)
        first = Job(sleep(0.7), (), until=time.monotonic() + 0.4)
        second = Job(number, (), until=time.monotonic() + 3)
        found = await asyncio.gather(*map(store._readers.ask, (first, second)), return_exceptions=True)  # noqa: SLF001
        assert isinstance(found[0], StorageUnavailable)
        assert found[1] == 0


async def test_a_snapshot_for_each_read(school: str) -> None:
    """All that one read asks is of one state, whatever is committed between its statements; the next has that."""
    with closing(open_store(school)) as store:

        def twice(db: pw.Database) -> tuple[int, int]:
            before = number(db)
            with psycopg.connect(school, autocommit=True) as other:
                other.execute("INSERT INTO students (name) VALUES ('Ada')")
            return before, number(db)

        assert await store.read(twice) == (0, 0)
        assert await store.read(number) == 1


async def test_a_snapshot_is_let_go(school: str) -> None:
    """A connection that is not used holds no transaction open: a migration would wait for it."""
    with closing(open_store(school)) as store, psycopg.connect(school, autocommit=True) as other:
        await store.read(number)
        open_ones = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        async with asyncio.timeout(5):
            while other.execute(open_ones).fetchall() != [(0,)]:  # noqa: ASYNC110
                await asyncio.sleep(readers.LINGER)


@pytest.mark.parametrize("linger", [0, 60])
async def test_a_connection_that_is_lost_while_it_is_idle(
    school: str, monkeypatch: pytest.MonkeyPatch, linger: float
) -> None:
    """Reads that find a connection lost, with its snapshot or when that is let go, are run on another one."""
    monkeypatch.setattr(readers, "LINGER", linger)
    end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid = %s"
    with closing(open_store(school)) as store, psycopg.connect(school, autocommit=True) as other:
        for pause in (0, 0.01, 0.1):
            before = await store.read(process)
            assert other.execute(end, [before]).fetchall() == [(True,)]
            await asyncio.sleep(pause)
            found = await asyncio.gather(*(store.read(process) for _ in range(3)))
            assert before not in found


async def test_a_connection_that_is_lost_under_way(school: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads whose connection is lost while PostgreSQL runs them are run once more, but not for ever."""
    monkeypatch.setattr(readers, "LINGER", 60)
    find = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
    with closing(open_store(school)) as store, psycopg.connect(school, autocommit=True) as other:

        def end(process_number: int) -> None:
            assert other.execute("SELECT pg_terminate_backend(%s, 5000)", [process_number]).fetchall() == [(True,)]

        async def asleep() -> int:
            while not (found := other.execute(find).fetchall()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            return int(found[0][0])

        await store.read(number)
        for last in (False, True):
            reading = [asyncio.ensure_future(store.read(rule)) for rule in (sleep(1), number)]
            first = await asleep()
            await asyncio.to_thread(end, first)
            if last:
                while (again := await asleep()) == first:
                    pass
                await asyncio.to_thread(end, again)
                for seconds, refusal in await asyncio.gather(*map(timed, reading)):
                    assert isinstance(refusal, StorageUnavailable)
                    assert seconds < 1
            else:
                assert (await asyncio.gather(*reading))[1] == 0
        assert await store.read(number) == 0


async def test_reads_end_in_their_own_thread(school: str) -> None:
    """A read that is broken off ends at once, and not when another thread frees the error, as one that logs may do."""
    ended: list[str] = []

    def broken_off(db: pw.Database) -> None:
        try:
            fetch(db, "SELECT set_config('statement_timeout', '0', TRUE)")  # Nor does the server break it off.
            fetch(db, "SELECT pg_sleep(10)")
        finally:
            ended.append(threading.current_thread().name)

    class Keeps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record.exc_info)

    kept: list[object] = []
    log, handler = logging.getLogger("service.storage.postgres.faults"), Keeps()
    log.addHandler(handler)
    try:
        with closing(open_store(school, busy_timeout=1)) as store:
            with pytest.raises(StorageUnavailable):
                await store.read(broken_off)
            await asyncio.to_thread(kept.clear)
    finally:
        log.removeHandler(handler)
    assert ended == [threading.current_thread().name]


async def test_no_thread_can_be_started(school: str) -> None:
    """A read that gets no connection for that is told so, and does not wait."""
    with closing(open_store(school)) as store:
        store._readers._threads.shutdown()  # noqa: SLF001
        with pytest.raises(RuntimeError, match="shutdown"):
            await store.read(number)


async def test_reads_under_way_when_the_store_is_closed(school: str) -> None:
    """They still get their rows, and then their connection is closed too."""
    store = open_store(school)
    await store.read(number)
    reading = asyncio.create_task(store.read(sleep(0.2)))
    await asyncio.sleep(0.1)
    waiting = asyncio.ensure_future(store.read(number))
    await asyncio.sleep(0)
    store.close()
    assert await reading
    assert await waiting == 0
    assert await asyncio.to_thread(are_open, school, 0)
    assert await store.read(number) == 0
    store.close()
    assert await asyncio.to_thread(are_open, school, 0)


def test_an_event_loop_that_ends(school: str) -> None:
    """With it end its reads and their connections; the next event loop has others."""

    async def leave() -> None:
        asyncio.ensure_future(store.read(sleep(1)))  # noqa: RUF006
        await asyncio.sleep(0.1)

    with closing(open_store(school)) as store:
        asyncio.run(leave())
        assert are_open(school, 0)
        assert asyncio.run(store.read(number)) == 0
        assert are_open(school, 1)


def test_a_fork_beside_reads(school: str) -> None:
    """What a child does, and its end, take nothing from the reads of its parent, idle connections or others."""

    async def parent() -> None:
        await store.read(number)
        reading = asyncio.create_task(store.read(sleep(0.5)))
        await asyncio.sleep(0.1)
        before = await store.read(process)
        child = os.fork()
        if not child:
            os._exit(in_child())
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0  # noqa: ASYNC222
        assert await store.read(process) == before
        assert await reading

    def in_child() -> int:
        with suppress(BaseException):
            asyncio._set_running_loop(None)  # noqa: SLF001 - as multiprocessing does by a new interpreter's state.
            assert asyncio.run(store.read(number)) == 0
            store.close()
            gc.collect()
            return 0
        return 1

    with closing(open_store(school)) as store:
        asyncio.run(parent())


def test_a_connection_of_the_parent(school: str) -> None:
    """What a child sends on it goes nowhere, not even the word that it is closed."""
    with closing(open_store(school)) as store, psycopg.connect(school, autocommit=True) as other:

        async def work() -> int:
            found: int = await store.read(process)
            return found

        parent = asyncio.run(work())
        (db,) = store._readers._all  # noqa: SLF001
        socket_of_parent = os.dup(db.connection().pgconn.socket)  # The parent has it all the time.
        store.pause()
        store.resume(forked=True)
        with pytest.raises(psycopg.OperationalError):
            db.connection().execute("SELECT 1")
        db.close()
        assert asyncio.run(work()) != parent
        assert other.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [parent]).fetchall() == [(1,)]
        os.close(socket_of_parent)


def test_a_connection_that_never_was(school: str) -> None:
    """There is nothing to undo or to forget."""
    with closing(open_database(school, thread_safe=False)) as db:
        db.rollback()
        db.forget()
        assert db.last_connection() is None


def test_two_threads_want_a_connection(school: str) -> None:
    """One of them has it, and the other closes nothing."""
    with closing(open_store(school)) as store:
        asyncio.run(store.read(number))
        (db,) = store._readers._all  # noqa: SLF001
        assert [store._readers._is_taken(db) for _ in range(2)] == [True, False]  # noqa: SLF001
        db.close()


async def test_no_time_is_left_for_a_connection() -> None:
    """A server that takes connections and says nothing costs a read no more than its time."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        with closing(open_store(f"postgresql://a@{host}:{port}/b", busy_timeout=1)) as store:
            for seconds, refusal in await asyncio.gather(*(timed(store.read(number)) for _ in range(3))):
                assert isinstance(refusal, StorageUnavailable)
                assert seconds < 1.5
