"""Servers that start fast: each is a fork of a process that has imported the service already.

Nearly all that a start takes goes into imports. As a program, `python tests/forks.py`, it imports the service, and then
forks whenever it is told to, until the tests end. A fork has its command line, its environment and its output from
the tests, and runs what `python -m service` runs. test_cli.py and test_package.py start servers as people do.
"""

import atexit
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from select import select

ROOT = Path(__file__).parent.parent
MOST = 2**17
"""The bytes of a command line and an environment, at most."""
WORD = 8


class Fork:
    """A `python -m service` that runs, with what the tests need of `subprocess.Popen`."""

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start it."""
        ours, out = os.pipe()
        self._told, tells = os.pipe()
        socket.send_fds(_parent(), [json.dumps([arguments, dict(environ)]).encode()], [out, tells, 2])
        os.close(out)
        os.close(tells)
        self.stdout = os.fdopen(ours, encoding="utf-8")
        self.pid = int.from_bytes(os.read(self._told, WORD))
        assert self.pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Give how it has ended, as `subprocess` puts it, or None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, and give how. Raises TimeoutExpired if that takes longer than some seconds."""
        if (code := self._ended(timeout)) is None:
            raise subprocess.TimeoutExpired("service", timeout or 0)
        return code

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select([self._told], [], [], timeout)[0]:
            self.returncode = os.waitstatus_to_exitcode(int.from_bytes(os.read(self._told, WORD)))
            os.close(self._told)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Tell it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Kill what is left of it."""
        self.kill()
        self.wait()
        self.stdout.close()


@cache
def _parent() -> socket.socket:
    """Start the process that forks, which ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, __file__, str(theirs.fileno())]
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
        )
    owner = os.getpid()

    def end() -> None:
        ours.close()
        if os.getpid() == owner:
            process.wait()

    atexit.register(end)
    return ours


def fork(orders: socket.socket) -> None:
    """Fork each time that a command line comes, and come back in the fork; kill all forks once the tests have ended."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(orders, MOST, 3)
        if not message:
            os.killpg(0, signal.SIGKILL)
        out, tells, errors = descriptors
        if os.fork():
            for descriptor in descriptors:
                os.close(descriptor)
            _reap()
        elif child := os.fork():
            os.close(out)
            os.write(tells, child.to_bytes(WORD))
            os.write(tells, os.waitpid(child, 0)[1].to_bytes(WORD))
            os._exit(0)
        else:
            os.dup2(out, 1)
            os.dup2(errors, 2)
            for descriptor in descriptors:
                os.close(descriptor)
            sys.argv[1:], environ = json.loads(message)
            os.environ.clear()
            os.environ.update(environ)
            time.tzset()
            return


def _reap() -> None:
    """Let those go that have told how a fork has ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    kinds = ["sqlite", *(["postgres"] if find_spec("psycopg") and find_spec("greenlet") else [])]
    for name in ("app", "http.server", "http.logs", *(f"storage.{kind}.opening" for kind in kinds)):
        import_module(f"service.{name}")
    with socket.socket(fileno=int(sys.argv[1])) as orders:
        fork(orders)
    runpy.run_module("service", run_name="__main__", alter_sys=True)
