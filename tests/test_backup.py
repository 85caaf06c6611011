"""The command `backup`: the copy is whole, of one moment, and its owner's alone; an old copy is never half lost."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx2
import pytest
from click.testing import Result
from conftest import ROOT, Server
from stores import held, names, wal
from test_cli import run

from service import connect, students
from service.errors import SetupError
from service.storage.sqlite import schema
from service.storage.sqlite.backup import SYNC, UNFINISHED

STOP = """
import sys
from pathlib import Path
from service.storage.sqlite import schema

def tick(what, _):
    print(what, flush=True)
    sys.stdin.read()

schema.back_up(sys.argv[1], Path(sys.argv[2]), tick)
"""
"""A backup that stops at its first tick, in the midst of the copy."""


@pytest.fixture
def large(path: Path) -> Path:
    """Give the file with Ada, and with so much in a host's table that it is copied in many steps."""
    with closing(sqlite3.connect(path)) as plain:
        plain.execute("CREATE TABLE host (value)")
        plain.execute("INSERT INTO host VALUES (zeroblob(?))", (2 * SYNC,))
        plain.commit()
    with connect(path) as db:
        students.insert_student(db, "Ada")
    return path


def back_up(path: Path, target: object) -> Result:
    """Run the command."""
    return run("backup", str(target), "--database-url", str(path))


def beside(target: Path) -> list[str]:
    """Give the names of the files whose names begin as that of the copy, but for the copy's own."""
    return sorted(each.name for each in target.parent.glob(f"{target.name}?*"))


def test_a_backup_of_what_is_served(serve: Callable[[], Server], path: Path, tmp_path: Path) -> None:
    """A copy has what the server has answered, is sound, and is its owner's alone; nothing is left beside it."""
    target = tmp_path / "copy.db"
    target.write_text("an older one")
    target.chmod(0o644)
    url = serve().url
    httpx2.post(f"{url}/students", json={"name": "Ada"})
    usual = os.umask(0o777)
    try:
        result = back_up(path, target)
    finally:
        os.umask(usual)
    assert (result.exit_code, result.output) == (
        0,
        f"{target} is a copy of {path}, of {target.stat().st_size:,} bytes.\n",
    )
    assert httpx2.post(f"{url}/students", json={"name": "Too late"}).status_code == 201
    assert target.stat().st_mode & 0o777 == 0o600
    assert beside(target) == []
    assert run("check", "--database-url", str(target)).exit_code == 0
    assert names(target) == ["Ada"]


@pytest.mark.usefixtures("in_time")
def test_a_backup_ends_although_others_write(large: Path, tmp_path: Path) -> None:
    """The copy is of the moment at which it began, and does not begin anew with each commit of another connection."""
    target, ticks = tmp_path / "copy.db", list[str]()
    with closing(connect(large)) as writer:

        def tick(what: str, _: float) -> None:
            ticks.append(what)
            students.insert_student(writer, "Too late")

        assert schema.back_up(large, target, tick) == target.stat().st_size > 2 * SYNC
    assert len(ticks) > 4
    shares = [int(share) for share in re.findall(r"copy (\d+) %", " ".join(ticks))]
    assert shares == sorted(shares)
    assert shares[0] < 50 < shares[-1] == 100
    assert names(target) == ["Ada"]
    assert len(names(large)) == 1 + len(ticks)


def test_a_writer_does_not_hold_a_backup_up(path: Path, tmp_path: Path) -> None:
    """A copy is made while another connection is within a transaction, of what was committed before."""
    with held(path, "BEGIN IMMEDIATE", "INSERT INTO students (name) VALUES ('Not yet')"):
        assert back_up(path, tmp_path / "copy.db").exit_code == 0
    assert names(tmp_path / "copy.db") == []


def test_a_backup_before_an_upgrade(path: Path, tmp_path: Path) -> None:
    """A file of an earlier version of the schema is copied as it is; a file of no version is refused."""
    schema.rollback(path)
    assert back_up(path, tmp_path / "copy.db").exit_code == 0
    assert "pending   008" in run("status", "--database-url", str(tmp_path / "copy.db")).output
    sqlite3.connect(tmp_path / "other.db").close()
    result = back_up(tmp_path / "other.db", tmp_path / "copy.db")
    assert (result.exit_code, "has nothing of the service" in result.output) == (1, True)
    assert "There is no database at" in back_up(tmp_path / "nothing.db", tmp_path / "copy.db").output


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("school.db", "is the database itself"),
        ("link.db", "is the database itself"),
        ("hard.db", "is the database itself, under another name"),
        ("school.db-wal", "is kept beside it"),
        ("folder", "is a folder: name a file in it, such as"),
        ("pipe", "is no regular file"),
        ("nowhere/copy.db", "There is no folder"),
        ("used.db", "used.db-wal is there"),
        ("school.db/copy.db", "cannot be written: Not a directory"),
    ],
)
def test_a_place_that_a_backup_cannot_have(path: Path, tmp_path: Path, name: str, said: str) -> None:
    """Where a copy would harm a file, or cannot be, that is said with exit code 1, and nothing is changed."""
    (tmp_path / "link.db").symlink_to(path)
    (tmp_path / "hard.db").hardlink_to(path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "used.db-wal").touch()
    before, content = sorted(tmp_path.iterdir()), path.read_bytes()
    result = back_up(path, tmp_path / name)
    assert (result.exit_code, said in result.output) == (1, True), result.output
    assert (sorted(tmp_path.iterdir()), path.read_bytes()) == (before, content)


def test_a_backup_through_a_symbolic_link(path: Path, tmp_path: Path) -> None:
    """Where the name is a link, the link stays, and what it leads to is replaced."""
    (tmp_path / "latest.db").symlink_to(tmp_path / "monday.db")
    assert back_up(path, tmp_path / "latest.db").exit_code == 0
    assert (tmp_path / "latest.db").is_symlink()
    assert names(tmp_path / "monday.db") == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_backup_that_is_killed(large: Path, tmp_path: Path, number: signal.Signals) -> None:
    """The old copy is untouched; what was written is named as unfinished, and the next backup deletes it."""
    target = tmp_path / "copy.db"
    target.write_text("an older one")
    command = [sys.executable, "-c", STOP, str(large), str(target)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("copy ")
        unfinished = tmp_path / f"{target.name}{UNFINISHED}{process.pid}"
        assert unfinished.stat().st_mode & 0o777 == 0o600
        # One that is under way stays, and so does what only has a similar name.
        others = {unfinished, tmp_path / f"{target.name}{UNFINISHED}1", tmp_path / f"{target.name}{UNFINISHED}x"}
        for each in others - {unfinished}:
            each.touch()
        huge = tmp_path / f"{target.name}{UNFINISHED}{2**70}"
        own = tmp_path / f"{target.name}{UNFINISHED}{os.getpid()}"
        for each in (huge, own):
            each.touch()
        assert back_up(large, tmp_path / target.name).exit_code == 0
        assert beside(target) == sorted(each.name for each in {*others, huge})
        target.write_text("an older one")
        process.send_signal(number)
    assert target.read_text() == "an older one"
    assert wal(large).exists() == (number == signal.SIGKILL)
    assert back_up(large, target).exit_code == 0
    assert not unfinished.exists()
    assert names(target) == ["Ada"]


def test_a_backup_on_a_full_disk(large: Path, tmp_path: Path) -> None:
    """Where the copy does not fit, the old one stays, what was written goes, and the reason is said."""
    target = tmp_path / "copy.db"
    target.write_text("an older one")
    command = f"ulimit -f {SYNC // 1024}; exec {sys.executable} -m service backup {target} --database-url {large}"
    done = subprocess.run(
        [shutil.which("bash") or "sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: The backup {target} cannot be written: ")
    assert done.stderr.endswith(" The old one is as it was.\n")
    assert target.read_text() == "an older one"
    assert beside(target) == []


def test_a_backup_of_what_is_not_sound(path: Path, tmp_path: Path) -> None:
    """A copy that SQLite does not find sound is not kept, and the old one stays."""
    target = tmp_path / "copy.db"
    assert back_up(path, target).exit_code == 0
    good = target.read_bytes()
    with path.open("r+b") as file:
        file.seek(3 * schema.PAGE_SIZE)
        file.write(b"\xff" * schema.PAGE_SIZE)
    result = back_up(path, target)
    assert (result.exit_code, "is not sound" in result.output or "malformed" in result.output) == (1, True)
    assert target.read_bytes() == good
    assert beside(target) == []


def test_an_old_backup_that_is_opened_meanwhile(large: Path, tmp_path: Path) -> None:
    """A copy does not take its name where SQLite would then read another one's -wal beside it."""
    target = tmp_path / "copy.db"
    with pytest.raises(SetupError, match=r"copy\.db-wal is there"):
        schema.back_up(large, target, lambda *_: wal(target).touch())
    assert not target.exists()
