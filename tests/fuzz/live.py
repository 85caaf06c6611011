"""The server under fire: a process on a database of its own, what it uses, and how it ends."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs

from fuzz.checks import Broken
from fuzz.values import COURSES, STUDENTS
from service import connect
from service.courses import insert_course
from service.enrollments import enroll
from service.students import insert_student

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "HEAD_TIMEOUT": "1",
    "BODY_TIMEOUT": "1",
    "ANSWER_TIMEOUT": "2",
    "KEEP_ALIVE": "1",
    "MAX_PENDING_WRITES": "8",
    "MAX_HELD_BYTES": str(2**23),
}
"""Deadlines and limits so low that the cases meet them."""
STOP_SECONDS = 6
"""How long the server may take to end after SIGTERM, with clients that are connected and do not go on."""
CLOSE_SECONDS = 15
"""How long the server may take to close its connections after the last client has gone."""
BUSY = " WARNING A request was refused with 503 busy: "
"""What the one kind of line has that the log may have: so few writes may wait that some are refused."""


@attrs.frozen
class Live:
    """A server that runs, and where."""

    process: "subprocess.Popen[str]"
    address: tuple[str, int]
    path: Path
    log: Path

    @property
    def memory(self) -> float:
        """The MiB that are resident now."""
        return self._status("VmRSS")

    @property
    def peak(self) -> float:
        """The most MiB that have ever been resident."""
        return self._status("VmHWM")

    def _status(self, name: str) -> float:
        found = re.search(rf"{name}:\s+(\d+) kB", self._proc("status").read_text())
        return int(found[1]) / 1024 if found else 0

    @property
    def files(self) -> int:
        """How many files and sockets are open, besides the database itself.

        SQLite keeps the database open for the next connection when one is closed while another one has a lock on it.
        """
        return len([each for each in self._proc("fd").iterdir() if os.path.realpath(each) != str(self.path)])

    def _proc(self, name: str) -> Path:
        return Path(f"/proc/{self.process.pid}/{name}")

    def check(self) -> None:
        """Check that the server runs and has nothing to complain of. Raises Broken."""
        if self.process.poll() is not None:
            raise Broken(f"The server ended with {self.process.returncode}.")
        if any(BUSY not in line for line in self.log.read_text().splitlines()):
            raise Broken("The server's log has a line.")

    def check_closed(self, before: int) -> None:
        """Check that no more files are open than before, once those who were connected are gone. Raises Broken."""
        until = time.monotonic() + CLOSE_SECONDS
        while self.files > before:
            if time.monotonic() > until:
                raise Broken(f"{self.files} files are open, and at the start it were {before}.")
            time.sleep(0.1)

    def check_end(self) -> None:
        """Check that SIGTERM ends the server in time, and that its file is sound. Raises Broken."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as late:
            raise Broken(f"The server does not end within {STOP_SECONDS} s.") from late
        if code != -signal.SIGTERM:  # uvicorn ends by the signal itself once all is done.
            raise Broken(f"The server ended with {code}.")
        if "Traceback" in self.log.read_text():
            raise Broken("The server's log has a traceback.")
        command = [sys.executable, "-m", "service", "check", "--database-url", str(self.path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Broken(f"The database is not sound:\n{done.stdout}{done.stderr}")


def fill(path: Path) -> None:
    """Make a school in which some courses are open, some have a waitlist, and some are full."""
    with closing(connect(path)) as db, db.atomic():
        for number in range(COURSES):
            insert_course(db, f"Course {number}", "A1", (None, 0, 1, 5, 30)[number % 5], (0, 1, 5)[number % 3])
        for number in range(STUDENTS):
            insert_student(db, f"Student {number}")
        for number in range(0, COURSES, 5):
            for student in range(1, 100):
                enroll(db, student, number + 1)


@contextmanager
def serving(settings: Mapping[str, str] = SETTINGS) -> Iterator[Live]:
    """Run a server on a database in a temporary folder until the block ends; whatever is left of it is killed."""
    with TemporaryDirectory() as folder:
        path, log = Path(folder, "school.db"), Path(folder, "log")
        command = [sys.executable, "-m", "service", "serve", "--migrate", "--port", "0", "--database-url", str(path)]
        with (
            log.open("w") as stderr,
            subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **settings},
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,  # Ctrl+C on a terminal is for the fuzz alone.
            ) as process,
        ):
            try:
                assert process.stdout
                found = re.search(r"at http://(\S+):(\d+)", process.stdout.readline())
                if not found:
                    raise Broken(f"The server did not start:\n{log.read_text()}")
                fill(path)
                yield Live(process, (found[1], int(found[2])), path, log)
            finally:
                process.kill()
