"""The database file on the disk: that it stays where it is, with what SQLite keeps beside it, and may be written."""

import errno
import os
import shlex
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import peewee as pw

from service.database import Database, enter_wal, fetch_all, open_database
from service.errors import SetupError

GRAIN = 3 * 10**9
"""Nanoseconds after which a folder's next change is sure to change its time: some file systems count by 2 s."""
AGAIN = 1.0
"""Seconds after which it is tried again to hold the file, where another process stood in the way."""

Identity = tuple[int, int] | None


class File:
    """A database file that must stay where it is, and its -wal and -shm too: SQLite goes on writing to what is gone.

    A connection of its own holds the file from its first use until `close`. While there is one SQLite neither makes
    nor deletes anything beside the file, whatever other connections come and go: so what changes there is amiss.
    """

    def __init__(self, path: Path) -> None:
        """Remember which file it is: another one at the same path will be refused."""
        self._path = path
        self._folder = os.fspath(path.parent)
        found = path.stat()
        self._own: Mapping[str, Identity] = {os.fspath(path): (found.st_dev, found.st_ino)}
        self._beside: Mapping[str, Identity] = {}
        self._unchanged: tuple[int, int, int] | None = None
        self._holder: Database | None = None
        self._log = -1
        self._try_at = 0.0
        self._lock = threading.Lock()

    def open(self, busy_timeout: float, **pragmas: Any) -> Database:
        """Make a connection for one thread at a time."""
        return open_database(self._path, busy_timeout=busy_timeout, thread_safe=False, **pragmas)

    def verify(self) -> None:
        """Raise OSError unless the file that was opened, and what SQLite keeps beside it, are still where they were.

        A file comes or goes only with a change of its folder's time. So one look at the folder stands for one at each
        of the three files, which would be 4 % of a GET that comes alone.
        """
        try:
            folder = os.stat(self._folder)  # noqa: PTH116 - on the path of every request, and Path.stat is slower.
        except FileNotFoundError:
            raise _gone(self._folder) from None
        seen = folder.st_dev, folder.st_ino, folder.st_ctime_ns
        if seen != self._unchanged or self._holder is None:
            self._look_closer()
            settled = time.time_ns() - folder.st_ctime_ns > GRAIN
            # What a link leads to is in another folder.
            self._unchanged = seen if settled and not self._path.is_symlink() else None

    def _look_closer(self) -> None:
        _compare(self._own)
        if self._holder is None:
            self._hold()
        try:
            _compare(self._beside)
        except OSError:
            with self._lock:
                _compare(self._beside)  # Unless it was another thread that let go of the file.

    def _hold(self) -> None:
        """Hold the file, if it can be held; what stands in the way, whoever goes on finds out from a connection."""
        with self._lock:
            if self._holder is not None or time.monotonic() < self._try_at:
                return
            self._try_at = time.monotonic() + AGAIN
            holder = self.open(0)
            try:
                enter_wal(holder)
                fetch_all(holder, "SELECT 1 FROM sqlite_master LIMIT 1")  # The first read makes what is not there yet.
                name = fetch_all(holder, "PRAGMA database_list")[0][2]  # No link, wherever the path leads.
                self._beside = _look_at([name + "-wal", name + "-shm"])
                self._log = os.open(name + "-wal", os.O_RDONLY)
                self._holder = holder
            except (pw.DatabaseError, OSError):  # Locked, or not in WAL mode.
                self._beside = {}
                holder.close()

    def log_size(self) -> int:
        """Give the size of the -wal in bytes; 0 if the file is not held."""
        with self._lock:
            return 0 if self._holder is None else os.fstat(self._log).st_size

    def rescue(self) -> None:
        """Copy what a -wal that is gone holds to the database, for it was acknowledged.

        Unless the database was written after it: it may have been put back from a backup, and is another one then.
        """
        with self._lock, suppress(OSError, pw.DatabaseError):
            if self._holder is not None and self._beside != _look_at(self._beside) and not self._was_written_later():
                _compare(self._own)
                fetch_all(self._holder, "PRAGMA wal_checkpoint")

    def _was_written_later(self) -> bool:
        return os.stat(self._path).st_ctime_ns > os.fstat(self._log).st_mtime_ns  # noqa: PTH116

    def _may_be_anothers(self) -> bool:
        """Tell whether a backup may have been put back, with a -wal of its own or in place of the old content."""
        try:
            found = _look_at(self._beside)
            if any(found[name] not in {None, identity} for name, identity in self._beside.items()):
                return True
            return None in found.values() and self._own == _look_at(self._own) and self._was_written_later()
        except OSError:  # Who may not even look does not touch it either.
            return True

    def close(self) -> None:
        """Let go of the file, until it is used again."""
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        self._try_at = 0.0
        if self._holder is None:
            return
        if self._may_be_anothers():
            # SQLite's last connection copies the -wal to the database, and deletes whatever is at its path. So this
            # one is never closed, not even when the program ends.
            import ctypes  # noqa: PLC0415 - it takes long to import, and is hardly ever needed.

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._holder.connection()))
            return
        os.close(self._log)
        self._holder.close()
        self._holder, self._beside = None, {}

    def pause(self) -> None:
        """Let go of the file, and keep whoever wants it from going on, until `resume`."""
        self._lock.acquire()
        self._let_go()

    def resume(self) -> None:
        """Let the file be used again."""
        self._lock.release()


def check_writable(path: Path) -> None:
    """Raise SetupError, which says how to mend it, if a database file is there and may not be written.

    A superuser may write what nobody may: for one, too, a file without any permission to write is meant to be read.
    """
    try:
        mode = path.stat().st_mode
    except OSError:  # What is not there, or cannot be reached, is told where it is opened.
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
        found = os.stat(path)  # noqa: PTH116 - as in `verify`.
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _look_at(files: Iterable[str]) -> Mapping[str, Identity]:
    return {name: _look(name) for name in files}


def _compare(files: Mapping[str, Identity]) -> None:
    """Raise OSError unless each file is still what it was."""
    for name, identity in files.items():
        found = _look(name)
        if found is None:
            raise _gone(name)
        if found != identity:
            raise OSError(errno.ESTALE, f"{Path(name).name} was replaced while the service ran; restart the service")


def _gone(name: str) -> OSError:
    what = f"{Path(name).name} was moved or deleted while the service ran; restart the service"
    return OSError(errno.ENOENT, f"{os.strerror(errno.ENOENT)}: {what}")
