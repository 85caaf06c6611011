"""Processes: a server on one core, its load on the other, and none of them left behind."""

import http.client
import os
import platform
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import click

SERVER_CORE, LOAD_CORE = 0, 1
HOST = "127.0.0.1"
START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0
IDLE_TIMEOUT = 5.0
RUN_TIMEOUT = 1800.0
NEEDED = {
    "wrk": "apt-get install wrk",
    "taskset": "apt-get install util-linux",
    "setpriv": "apt-get install util-linux",
}


class Server:
    """A server that has answered."""

    started_in = 0.0
    """Seconds to its first answer."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, folder: Path) -> None:
        """Keep where it works."""
        self.process, self.port, self.folder = process, port, folder
        self.url = f"http://{HOST}:{port}"

    def memory(self) -> float:
        """Give its resident memory in MB (10⁶ bytes)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6

    def wait_until_idle(self) -> None:
        """Let it finish what a load before this left behind, within IDLE_TIMEOUT seconds."""
        deadline = time.perf_counter() + IDLE_TIMEOUT
        before = -1.0
        while self.processor_time() - before > 0.01 and time.perf_counter() < deadline:
            before = self.processor_time()
            time.sleep(0.1)

    def processor_time(self) -> float:
        """Give the seconds for which it has had a processor, all its threads together."""
        return time.clock_gettime(~self.process.pid << 3 | 2)  # As clock_getcpuclockid makes it of a process's number.

    def ask(
        self, method: str, path: str, body: str | None = None, headers: Mapping[str, str] = MappingProxyType({})
    ) -> tuple[int, bytes]:
        """Send one request; give its status and body."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        try:
            connection.request(method, path, body, {"content-type": "application/json", **headers} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def take_machine() -> None:
    """Raise ClickException, with how to mend it, unless the tools and two cores are here; end cleanly when told to."""
    for tool, cure in NEEDED.items():
        if shutil.which(tool) is None:
            raise click.ClickException(f"The benchmark needs {tool}: {cure}")
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise click.ClickException("The benchmark needs two cores: 0 for the server, 1 for the load.")
    # All that this process itself does stays off the server's core.
    os.sched_setaffinity(0, {LOAD_CORE})
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop_here)


def _stop_here(number: int, _: object) -> NoReturn:
    sys.exit(f"Stopped by {signal.Signals(number).name}.")


def machine() -> dict[str, Any]:
    """Tell what the figures are measured on."""
    processors = Path("/proc/cpuinfo").read_text()
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "processor": processors.partition("model name\t: ")[2].partition("\n")[0],
        "cores": processors.count("processor\t:"),
        "memory_gb": round(int(memory) / 1e6),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def others() -> float:
    """Give the seconds for which programs other than this one, and what it started and ended, have had a processor."""
    user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def pinned(core: int, command: list[str]) -> list[str]:
    """Make a command run on one core, and die when this process does, however it ends."""
    return ["setpriv", "--pdeathsig", "KILL", "taskset", "--cpu-list", str(core), *command]


def run(command: list[str], folder: Path, *, given: bytes = b"", **environ: str) -> bytes:
    """Run a command in a folder, off the server's core, and give what it prints.

    Raises ClickException, with what it said, if it fails.
    """
    done = subprocess.run(
        pinned(LOAD_CORE, command),
        cwd=folder,
        env={**os.environ, **environ},
        input=given,
        capture_output=True,
        timeout=RUN_TIMEOUT,
        check=False,
    )
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace")[-2000:]
        raise click.ClickException(f"{' '.join(command)} failed:\n{said}")
    return done.stdout


@contextmanager
def serving(command: list[str], path: str, folder: Path, environ: Mapping[str, str]) -> Iterator[Server]:
    """Run a server in a folder, on the port that its command or environment names as PORT, until the block ends."""
    port = _free_port()
    words = [word.replace("PORT", str(port)) for word in command]
    with (folder / "server.log").open("wb") as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            pinned(SERVER_CORE, words),
            cwd=folder,
            env={**os.environ, **environ, "PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            server = Server(process, port, folder)
            _first_answer(server, path)
            server.started_in = time.perf_counter() - started
            yield server
        finally:
            _stop(process)


def _first_answer(server: Server, path: str) -> None:
    deadline = time.perf_counter() + START_TIMEOUT
    while time.perf_counter() < deadline and server.process.poll() is None:
        try:
            server.ask("GET", path)
        except (OSError, http.client.HTTPException):
            time.sleep(0.002)
        else:
            return
    log = (server.folder / "server.log").read_text(errors="replace")[-2000:]
    raise click.ClickException(f"A server does not answer GET {path}; its log says:\n{log}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port
