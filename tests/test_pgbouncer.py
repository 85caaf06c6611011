"""A pooler in front of PostgreSQL: PgBouncer in transaction mode serves a school whole, or is refused with a reason."""

import asyncio
import os
import pwd
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import peewee as pw
import pytest
from postgresql import Server
from stores import open_store

from service import connect, migrate
from service.courses import insert_course
from service.enrollments import enroll
from service.errors import ExternalIdTaken, SetupError
from service.storage import fetch
from service.storage.postgres import poolers, schema
from service.storage.postgres.connections import Database, open_database
from service.storage.postgres.packets import MOST_PREPARED
from service.students import insert_student
from service.terms import insert_term

PROGRAM = os.environ.get("TEST_PGBOUNCER") or shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
TIMEOUTS = ("lock_timeout = '5s'", "statement_timeout = '60s'", "idle_in_transaction_session_timeout = '3s'")


@pytest.fixture
def role(server: Server) -> Iterator[str]:
    """Make a role, which is the owner of a database of its own name."""
    name = f"pooled_{os.getpid()}"
    server.execute(f"CREATE ROLE {name} LOGIN")
    server.execute(f"CREATE DATABASE {name} OWNER {name}")
    yield name
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    server.execute(f"DROP ROLE {name}")


@pytest.fixture
def direct(server: Server, role: str) -> str:
    """Give the URL of that database, migrated."""
    url = f"postgresql://{role}@{urlsplit(server.url).netloc.partition('@')[2]}/{role}"
    migrate(url)
    return url


def pooled(url: str) -> Database:
    """Connect as through a pooler that loses the settings and keeps prepared statements."""
    db = open_database(url)
    given: Any = vars(db)["_given"]
    given.pop("options")
    db.connection().prepare_threshold = None
    return db


def refused(db: pw.Database, url: str, *, through: bool = True) -> str:
    """Give what is said of a pooler, or nothing."""
    try:
        poolers.check(db, url, through=through)
    except SetupError as error:
        return str(error)
    return ""


def test_what_is_lost(server: Server, role: str, direct: str) -> None:
    """A pooler that loses the settings is refused, until the role has them, and then for all but the long works."""
    with closing(pooled(direct)) as db:
        for at, setting in enumerate(TIMEOUTS):
            needed = "; ".join(f"ALTER ROLE {role} SET {each}" for each in TIMEOUTS[at:])
            assert refused(db, direct).endswith(f": {needed}.")
            server.execute(f"ALTER ROLE {role} SET {setting}")
            db.close()
            db.connection().prepare_threshold = None
        assert not refused(db, direct)
        assert "to PostgreSQL itself" in refused(db, direct, through=False)
        assert "SET search_path" in refused(db, f"{direct}?options=-csearch_path%3Dnorth")
        db.connection().prepare_threshold = 0
        assert "max_prepared_statements" in refused(db, direct)


@contextmanager
def pgbouncer(url: str, **settings: str | int) -> Iterator[str]:
    """Run PgBouncer in transaction mode, with two connections to PostgreSQL, and give the URL that goes through it."""
    parts = urlsplit(url)
    user, _, place = parts.netloc.partition("@")
    with TemporaryDirectory(prefix="pgbouncer-") as name:
        folder, file = Path(name), Path(name) / "pgbouncer.ini"
        values = {"pool_mode": "transaction", "auth_type": "any", "default_pool_size": 2, "listen_addr": ""}
        values |= {"unix_socket_dir": name, "logfile": folder / "log", **settings}
        lines = [f"{key} = {value}" for key, value in values.items()]
        file.write_text(f"[databases]\n* = host={unquote(place)} user={user}\n[pgbouncer]\n" + "\n".join(lines))
        options: dict[str, Any] = {}
        if os.getuid() == 0:  # Like PostgreSQL, PgBouncer does not run as root.
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            options = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        with subprocess.Popen([str(PROGRAM), "--quiet", str(file)], **options) as process:
            try:
                await_socket(folder / ".s.PGSQL.6432", process)
                yield f"postgresql://{user}@{quote(name, safe='')}:6432{parts.path}"
            finally:
                process.terminate()


def await_socket(path: Path, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a program takes connections."""
    while process.poll() is None:
        with suppress(OSError), closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(str(path))
            return
        time.sleep(0.005)
    pytest.fail("PgBouncer did not start.")


@pytest.mark.skipif(not PROGRAM, reason="There is no PgBouncer: apt-get install pgbouncer")
def test_through_pgbouncer(server: Server, role: str, direct: str, caplog: pytest.LogCaptureFixture) -> None:
    """PgBouncer is refused as it comes; from 1.22 on, a store works through it, on whatever connection it gets."""
    version = subprocess.run([str(PROGRAM), "--version"], capture_output=True, text=True, check=True).stdout
    with pgbouncer(direct) as url, pytest.raises(SetupError, match="ignore_startup_parameters = options"):
        connect(url)
    for setting in TIMEOUTS:
        server.execute(f"ALTER ROLE {role} SET {setting}")
    keeps = [int(number) for number in re.findall(r"\d+", version)[:2]] >= [1, 22]
    settings: dict[str, str | int] = {"max_prepared_statements": 20} if keeps else {}
    with pgbouncer(direct, ignore_startup_parameters="options", **settings) as url:
        if not keeps:
            for _ in range(2):  # The second one gets a connection on which the first one has prepared its statements.
                with pytest.raises(SetupError, match="max_prepared_statements"):
                    connect(url)
            return
        with pytest.raises(SetupError, match="to PostgreSQL itself"):
            migrate(url)
        asyncio.run(work(url, caplog))
    assert not [result for result in schema.prove(direct) if result.broken]


async def work(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Enroll through two nodes at once, while others read."""
    one, other = open_store(url), open_store(url)
    await one.write(insert_course, "Logic", "1", 5, 100)
    await one.write(partial(insert_term, name="Autumn", external_id="T1"))
    with pytest.raises(ExternalIdTaken):  # psycopg forgets all that it has prepared, by DEALLOCATE ALL.
        await one.write(partial(insert_term, name="Spring", external_id="T1"))
    added = (store.write(insert_student, f"Ada {n}") for n in range(10) for store in (one, other))
    students = [student.id for student in await asyncio.gather(*added)]
    done = (store.write(enroll, each, 1) for each, store in zip(students, [one, other] * 10, strict=True))
    enrolled = await asyncio.gather(*done)
    assert len(enrolled) == 20
    # More statements than either side keeps prepared; who forgets them all costs the other nothing.
    for n in range(2 * MOST_PREPARED):
        read = (store.read(fetch, f"SELECT {each} FROM students") for each in (n, n % 7) for store in (one, other))
        assert [len(found) for found in await asyncio.gather(*read)] == [20] * 4
    assert not caplog.records
    assert await other.read(fetch, "SELECT enrolled, waitlisted FROM courses") == [(5, 15)]
    await one.check_ready()
    one.close()
    other.close()
