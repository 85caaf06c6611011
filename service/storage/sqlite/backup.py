"""Copy a database, while it is served, to a file that is whole before it has its name."""

import os
import sqlite3
import stat
import time
from contextlib import closing, suppress
from pathlib import Path

import peewee as pw

from service.errors import SetupError
from service.storage import fetch
from service.storage.checks import Tick, silent
from service.storage.migrating import APPLIED
from service.storage.sqlite.check import PATIENCE

PAGES = 512
"""How many pages are copied between two calls of the `Tick`."""
SYNC = 2**22
"""Bytes that are written before they are synced. The disk then never has so much to write at once that the commits of
the service, which are synced too, wait long for it."""
UNFINISHED = ".unfinished-"
"""What is between the name of a file and the number of the process that has not finished to write it."""
BESIDE = ("-wal", "-shm", "-journal")
"""The ends of the names of files that SQLite keeps beside a database."""


def back_up(db: pw.SqliteDatabase, target: Path, tick: Tick = silent) -> int:
    """Copy a database to the file `target`, for its owner alone, and give how many bytes that file has.

    The copy is of one moment: all pages are read in one read transaction, so that a database to which others write is
    copied once, and not again from its start after each commit. Those others may write meanwhile; only the -wal grows,
    because SQLite does not copy to the database what the transaction does not see. The copy is written beside `target`,
    checked and synced, and takes its name then: a `target` that was there stays until that moment. `tick` is called now
    and then with what is at work. Raises SetupError if `target` may not be written, or if the copy is not sound.
    """
    path = target.resolve()  # A symbolic link stays, and the file that it leads to is replaced.
    try:
        _check_place(db, path)
        unfinished = _begin(path)
        try:
            _copy(db, unfinished, tick)
            _check(db, unfinished, tick)
            _check_beside(path)
            return _finish(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise SetupError(f"The backup {path} cannot be written: {reason}.{_old(path)}") from error


def _old(path: Path) -> str:
    return " The old one is as it was." if path.is_file() else ""


def _check_place(db: pw.SqliteDatabase, path: Path) -> None:
    """Raise SetupError, or OSError, if a backup must not have this path."""
    source = Path(fetch(db, "PRAGMA database_list")[0][2])  # The file's own path, symbolic links resolved.
    if path in {source, *(source.with_name(source.name + end) for end in BESIDE)}:
        raise SetupError(f"The file {path} is the database itself, or is kept beside it: name another one.")
    with suppress(FileNotFoundError):
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise SetupError(f"{path} is a folder: name a file in it, such as {path / source.name}.")
        if not stat.S_ISREG(found.st_mode):
            raise SetupError(f"{path} is no regular file: name one.")
        if os.path.samestat(found, source.stat()):
            raise SetupError(f"The file {path} is the database itself, under another name: name another one.")
    if not path.parent.is_dir():
        raise SetupError(f"There is no folder {path.parent} for the backup {path.name}.")
    _check_beside(path)


def _check_beside(path: Path) -> None:
    """Raise SetupError if SQLite would take a -wal, or a journal, of an older file at the path for the copy's."""
    for end in BESIDE:
        beside = path.with_name(path.name + end)
        if beside.exists():
            raise SetupError(
                f"{beside} is there: a program has the old backup open, or was killed while it had. Let it end, or "
                "delete the old backup with what is beside it."
            )


def _begin(path: Path) -> Path:
    """Make the empty file that is to become the copy; delete those that processes left behind when they were killed."""
    start = path.name + UNFINISHED
    for left in path.parent.iterdir():
        number = left.name.removeprefix(start)
        if left.name != number and number.isdecimal() and not _runs(int(number)):
            left.unlink(missing_ok=True)
    unfinished = path.with_name(f"{start}{os.getpid()}")
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    unfinished.chmod(0o600)  # The umask may have taken from the mode what the owner needs.
    return unfinished


def _runs(number: int) -> bool:
    """Tell whether another process has a number; this process writes no other copy to the same file."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # Another user's process; or no process could have such a number.
        return True
    return number != os.getpid()


def _copy(db: pw.SqliteDatabase, unfinished: Path, tick: Tick) -> None:
    """Copy all pages in the read transaction that is open, and sync what was written again and again."""
    started, synced = time.monotonic(), 0
    with unfinished.open("rb") as file, closing(sqlite3.connect(unfinished, isolation_level=None)) as copy:
        # A copy that is not finished is thrown away, so it needs no journal, and SQLite need not sync.
        copy.execute("PRAGMA journal_mode = OFF")
        copy.execute("PRAGMA synchronous = OFF")

        def progress(_: int, left: int, pages: int) -> None:
            nonlocal synced
            tick(f"copy {100 - 100 * left // pages} %", time.monotonic() - started)
            size = os.fstat(file.fileno()).st_size
            if size - synced >= SYNC:
                synced = size
                os.fsync(file.fileno())

        db.connection().backup(copy, pages=PAGES, progress=progress)


def _check(db: pw.SqliteDatabase, unfinished: Path, tick: Tick) -> None:
    """Raise SetupError unless a copy is sound, and has the schema's version that the transaction sees."""
    started = time.monotonic()
    # Without `immutable`, SQLite would make a -wal beside the copy. Nothing else has the copy open.
    with closing(sqlite3.connect(f"{unfinished.as_uri()}?mode=ro&immutable=1", uri=True)) as copy:
        copy.set_progress_handler(lambda: bool(tick("check", time.monotonic() - started)), PATIENCE)
        ((found,),) = copy.execute("PRAGMA quick_check(1)")
        if found != "ok" or copy.execute(APPLIED).fetchall() != fetch(db, APPLIED):
            raise sqlite3.DatabaseError(f"the copy is not sound ({found}); is the database? Run the command check")


def _finish(unfinished: Path, path: Path) -> int:
    """Sync a copy, give it its name, and sync that."""
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
        size = os.fstat(file.fileno()).st_size
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return size
