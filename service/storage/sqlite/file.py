"""Watch over the database file on the disk: that nobody moves or replaces it, and that it may be written.

In WAL mode SQLite keeps two files beside the database file. New pages go to the one named -wal first, and a checkpoint
copies them to the database file later; the one named -shm is an index of the -wal.
"""

import errno
import os
import shlex
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import peewee as pw

from service.errors import SetupError
from service.storage import fetch
from service.storage.sqlite.connections import Database, enter_wal, open_database

GRAIN = 3 * 10**9
"""Nanoseconds after a change of a folder until its next change is sure to give it another change time (ctime): some
file systems count time in steps of 2 s."""
AGAIN = 1.0
"""Seconds from one try to hold the file to the next one, where another process stood in the way."""

Identity = tuple[int, int] | None
"""The device and the inode of a file, or None where there is no file."""


class File:
    """A database file that must stay where it is, together with its -wal and its -shm.

    SQLite goes on writing to a file that was moved, deleted or replaced, and what it writes there is lost.

    An object of this class has a connection that holds the file from its first use until `close`. While one connection
    is open, SQLite neither makes nor deletes the -wal or the -shm, whatever other connections come and go. So if one of
    the two files changes then, something other than SQLite did it.
    """

    def __init__(self, path: Path, factory: type[sqlite3.Connection] = sqlite3.Connection) -> None:
        """Remember which file is at the path, so that another file put there later is refused. Raises OSError.

        The connections to the file are made by `factory`.
        """
        self._path, self._factory = path, factory
        self._folder = os.fspath(path.parent)
        found = path.stat()
        self._own: Mapping[str, Identity] = {os.fspath(path): (found.st_dev, found.st_ino)}
        """The path of the database file, with the file that must be there."""
        self._beside: Mapping[str, Identity] = {}
        """The paths of the -wal and the -shm, with the files that must be there while the file is held."""
        self._unchanged: tuple[int, int, int] | None = None
        """The folder's device, inode and change time at the last close look; None to look closely again."""
        self._holder: Database | None = None
        """The connection that holds the file."""
        self._log = -1
        """A file descriptor of the -wal, while the file is held."""
        self._try_at = 0.0
        """The earliest time, by the monotonic clock, at which to try to hold the file again."""
        self._lock = threading.Lock()

    def open(self, busy_timeout: float, **pragmas: Any) -> Database:
        """Make a connection that one thread at a time may use; `busy_timeout` is in seconds."""
        return open_database(self._path, busy_timeout=busy_timeout, thread_safe=False, factory=self._factory, **pragmas)

    def verify(self) -> None:
        """Raise OSError unless the database file, its -wal and its -shm are still the files that were opened.

        When a file comes or goes, its folder's change time changes. So one look at the folder replaces a look at each
        of the three files, which would take 4 % of the time of a GET that comes alone.
        """
        try:
            folder = os.stat(self._folder)  # noqa: PTH116 - on the path of every request, and Path.stat is slower.
        except FileNotFoundError:
            raise _gone(self._folder) from None
        seen = folder.st_dev, folder.st_ino, folder.st_ctime_ns
        if seen != self._unchanged or self._holder is None:
            self._look_closer()
            settled = time.time_ns() - folder.st_ctime_ns > GRAIN
            # If the path is a symbolic link, the file is in another folder, whose change time is not looked at here.
            self._unchanged = seen if settled and not self._path.is_symlink() else None

    def _look_closer(self) -> None:
        _compare(self._own)
        if self._holder is None:
            self._hold()
        try:
            _compare(self._beside)
        except OSError:
            with self._lock:
                # If another thread let go of the file just now, SQLite deleted the -wal and the -shm, and `_beside` is
                # empty. With the lock, no thread is in the midst of that.
                _compare(self._beside)

    def _hold(self) -> None:
        """Open the connection that holds the file, if that is possible now.

        Where it is not possible, nothing is raised: the caller goes on to use a connection of its own, which meets the
        same obstacle and raises the error.
        """
        with self._lock:
            if self._holder is not None or time.monotonic() < self._try_at:
                return
            self._try_at = time.monotonic() + AGAIN
            holder = self.open(0)
            try:
                enter_wal(holder)
                fetch(holder, "SELECT 1 FROM sqlite_master LIMIT 1")  # The first read makes the -wal and the -shm.
                name = fetch(holder, "PRAGMA database_list")[0][2]  # The file's own path, symbolic links resolved.
                self._beside = _look_at([name + "-wal", name + "-shm"])
                self._log = os.open(name + "-wal", os.O_RDONLY)
                self._holder = holder
            except (pw.DatabaseError, OSError):  # Another connection has a lock, or the file is not in WAL mode.
                self._beside = {}
                holder.close()

    def written(self) -> int:
        """Give when the database file itself was written last, in nanoseconds; 0 where it cannot be told."""
        try:
            return os.stat(self._path).st_mtime_ns  # noqa: PTH116 - Path.stat is slower, as in `verify`.
        except OSError:
            return 0

    def log_size(self) -> int:
        """Give the size of the -wal in bytes; 0 if the file is not held."""
        with self._lock:
            return 0 if self._holder is None else os.fstat(self._log).st_size

    def rescue(self) -> None:
        """Copy the content of a -wal that was deleted or replaced to the database file.

        The connection that holds the file still has that -wal open, with writes that clients were told are kept.
        Nothing is copied if the database file was written after that -wal: a backup may have been put back into it, and
        the pages of the -wal belong to the state before.
        """
        with self._lock, suppress(OSError, pw.DatabaseError):
            if self._holder is not None and self._beside != _look_at(self._beside) and not self._was_written_later():
                _compare(self._own)
                fetch(self._holder, "PRAGMA wal_checkpoint")

    def _was_written_later(self) -> bool:
        return os.stat(self._path).st_ctime_ns > os.fstat(self._log).st_mtime_ns  # noqa: PTH116

    def _may_be_anothers(self) -> bool:
        """Tell whether someone may have put a backup back, which the old -wal must not be copied to.

        A backup may have brought a -wal of its own, or may have been written over the content of the database file.
        """
        try:
            found = _look_at(self._beside)
            if any(found[name] not in {None, identity} for name, identity in self._beside.items()):
                return True
            return None in found.values() and self._own == _look_at(self._own) and self._was_written_later()
        except OSError:  # Where the files cannot even be looked at, leave them untouched.
            return True

    def close(self) -> None:
        """Close the connection that holds the file; the next `verify` opens it again."""
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        self._try_at = 0.0
        if self._holder is None:
            return
        if self._may_be_anothers():
            # When the last connection closes, SQLite copies the old -wal to the database, and deletes whatever file is
            # at the path of the -wal: the backup would be spoilt. So the holding connection is never closed. The extra
            # reference keeps Python from closing it when the program ends.
            import ctypes  # noqa: PLC0415 - ctypes takes long to import, and is hardly ever needed.

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._holder.connection()))
            return
        os.close(self._log)
        self._holder.close()
        self._holder, self._beside = None, {}

    def pause(self) -> None:
        """Let go of the file, and make every thread that wants to hold it wait until `resume`."""
        self._lock.acquire()
        self._let_go()

    def resume(self) -> None:
        """Let the threads that wait since `pause` hold the file again."""
        self._lock.release()


def check_writable(path: Path) -> None:
    """Raise SetupError, which says how to mend it, if a database file is there and may not be written.

    The operating system lets a superuser write even a file that gives nobody the permission to write. Such a file is
    meant to be read only, so it is refused to a superuser as well.
    """
    try:
        mode = path.stat().st_mode
    except OSError:  # Where the file is missing or out of reach, opening it later raises an error that says so.
        return
    file = path.resolve()
    if not mode & 0o222:
        raise SetupError(f"The database {path} is read-only. Run: chmod u+w {shlex.quote(os.fspath(path))}")
    if not _may_write(file):
        raise SetupError(f"The database {path} may not be written by the user that runs the service: give it to them.")
    beside = [file.with_name(file.name + end) for end in ("-wal", "-shm")]
    if not all(_may_write(each) if each.exists() else _may_write(file.parent) for each in beside):
        raise SetupError(
            f"SQLite keeps {' and '.join(each.name for each in beside)} beside the database {path}, and may not write "
            f"them: let the user that runs the service write in {file.parent}."
        )


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _look(path: str) -> Identity:
    try:
        found = os.stat(path)  # noqa: PTH116 - Path.stat is slower, as in `verify`.
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _look_at(files: Iterable[str]) -> Mapping[str, Identity]:
    return {name: _look(name) for name in files}


def _compare(files: Mapping[str, Identity]) -> None:
    """Raise OSError unless each path still has the file of that identity."""
    for name, identity in files.items():
        found = _look(name)
        if found is None:
            raise _gone(name)
        if found != identity:
            raise OSError(errno.ESTALE, f"{Path(name).name} was replaced while the service ran; restart the service")


def _gone(name: str) -> OSError:
    what = f"{Path(name).name} was moved or deleted while the service ran; restart the service"
    return OSError(errno.ENOENT, f"{os.strerror(errno.ENOENT)}: {what}")
