"""Other programs that write to the file: where SQLite is too old for that, the log has a warning."""

import logging
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import peewee as pw
import pytest
from conftest import serving

from service.storage.sqlite.others import Others, Version, may_damage
from service.students import insert_student

ADD = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as db:
    db.execute("INSERT INTO students (name) VALUES ('Grace')")
"""
WARNING = "The service does not write alone"


def write_elsewhere(path: Path) -> None:
    """Let another process write to the file."""
    subprocess.run([sys.executable, "-c", ADD, str(path)], check=True)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((3, 7, 0), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 0), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
    ],
)
def test_versions(version: Version, expected: bool) -> None:
    """The bug is in every version before those in which it was mended, on each branch."""
    assert may_damage(version) is expected


def test_a_writer_elsewhere_is_noticed_once(
    db: pw.SqliteDatabase, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither what the connection writes itself nor a new connection is another's write, and one warning is enough."""
    others = Others((3, 51, 2))
    for _ in range(3):
        insert_student(db, "Ada")
        others.look(db)
    db.close()
    write_elsewhere(path)
    others.look(db)
    assert caplog.text == ""
    for _ in range(2):
        write_elsewhere(path)
        others.look(db)
    (line,) = caplog.messages
    assert line.startswith(WARNING)
    assert "SQLite 3.51.2 may damage the database" in line


def test_a_new_sqlite_bears_it(db: pw.SqliteDatabase, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the bug is mended nothing is said, and nothing is looked at."""
    caplog.set_level(logging.DEBUG, "service")
    others = Others((3, 51, 3))
    for _ in range(3):
        others.look(db)
        write_elsewhere(path)
    assert caplog.text == ""


@pytest.mark.long
def test_the_server_warns(path: Path, tmp_path: Path) -> None:
    """A server that writes alone says nothing; once another process writes it warns, where this SQLite is too old."""
    log = tmp_path / "log"
    into_log = ["sh", "-c", 'exec "$@" 2>"$0"', str(log)]

    def add() -> None:
        assert httpx2.post(f"{server.url}/students", json={"name": "Ada"}).status_code == 201
        time.sleep(1.2)

    with serving("--database-url", str(path), through=into_log) as server:
        add()
        add()
        assert log.read_text() == ""
        for _ in range(2):
            write_elsewhere(path)
            add()
        assert log.read_text().count(WARNING) == may_damage(sqlite3.sqlite_version_info)
