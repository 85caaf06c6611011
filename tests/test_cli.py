"""The command line: each command, what it takes from options and environment, and how the server starts and ends."""

import os
import runpy
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner, Result
from conftest import ROOT, serving

from service.__main__ import cli
from service.schema import rollback

ALL = sorted(path.stem for path in (ROOT / "migrations").glob("0*.py"))
VARIABLES = ("DATABASE_URL", "HOST", "PORT", "BUSY_TIMEOUT", "MAX_PENDING_WRITES")


def run(*args: str, **environ: str) -> Result:
    """Run a command in this process, with no more in the environment than is given."""
    return CliRunner().invoke(cli, args, env={**dict.fromkeys(VARIABLES), **environ})


def free_port(host: str = "127.0.0.1") -> int:
    """Give a port that nobody listens on."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def run_server(url: str, *args: str, **environ: str) -> tuple[Result, list[int]]:
    """Run `serve` in this process until it answers at the URL; give how it ended, and the answer's status."""
    over, answers = threading.Event(), list[int]()

    def interrupt() -> None:
        deadline = time.monotonic() + 10
        while not over.is_set() and not answers and time.monotonic() < deadline:
            try:
                answers.append(httpx2.get(url).status_code)
            except httpx2.TransportError:
                over.wait(0.02)
        if not over.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    result = run("serve", *args, **environ)
    over.set()
    thread.join()
    return result, answers


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ([], ["serve", "migrate", "rollback", "status", "check", "repair"]),
        (
            ["serve"],
            [
                "--host",
                "HOST",
                "127.0.0.1",
                "--port",
                "PORT",
                "8000",
                "--migrate",
                "BUSY_TIMEOUT",
                "MAX_PENDING_WRITES",
            ],
        ),
        (["migrate"], []),
        (["rollback"], []),
        (["status"], []),
        (["check"], []),
        (["repair"], []),
    ],
)
def test_help(command: list[str], said: list[str]) -> None:
    """Each command tells its options, the environment that it reads, and the defaults."""
    result = run(*command, "--help")
    assert result.exit_code == 0
    shared = ["--database-url", "DATABASE_URL", "sqlite:///enrollment.db"] if command else []
    for word in [*said, *shared]:
        assert word in result.output


def test_run_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As `python -m service` it calls itself so, and without a command it shows which there are."""
    monkeypatch.setattr(sys, "argv", ["service"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "service" / "__main__.py"), run_name="__main__")
    assert "Usage: python -m service [OPTIONS] COMMAND" in "".join(capsys.readouterr())


def test_a_database_from_first_to_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without options the commands keep enrollment.db in the working directory, and say what they did."""
    monkeypatch.chdir(tmp_path)
    missing = run("status")
    assert missing.exit_code == 1
    assert "There is no database" in missing.output
    applied = [f"applied {name}" for name in ALL]
    assert run("migrate").output.splitlines() == [*applied, "sqlite:///enrollment.db is up to date."]
    assert run("migrate").output == "sqlite:///enrollment.db is up to date.\n"
    with closing(sqlite3.connect("enrollment.db")) as connection, connection:
        connection.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION SELECT i + 1 FROM n WHERE i < 1234)"
            "INSERT INTO students (name) SELECT 'x' FROM n"
        )
    lines = run("status").output.splitlines()
    assert [line.split() for line in lines] == [
        ["database", "sqlite:///enrollment.db"],
        ["version", ALL[-1]],
        ["pending", "none"],
        ["students", "1,234"],
        ["courses", "0"],
        ["enrollments", "0"],
        ["enrollment_events", "0"],
    ]
    assert len({len(line) for line in lines[3:]}) == 1, "The numbers are not in one column."
    for count, name in reversed([*enumerate(ALL)]):
        assert run("rollback").output == f"rolled back {name}\n"
        assert run("status").output.splitlines()[1:3] == [
            f"version   {ALL[count - 1] if count else 'none'}",
            f"pending   {', '.join(ALL[count:])}",
        ]
    assert run("status").output.count("\n") == 3
    assert (run("rollback").exit_code, [path.name for path in tmp_path.iterdir()]) == (1, ["enrollment.db"])


def test_status_of_a_database_that_is_ahead(path: Path) -> None:
    """Migrations that this version does not know are shown as such."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO enrollment_migrations (name, migrated_at) VALUES ('999_future', '2030-01-01')")
    assert "unknown   999_future\n" in run("status", "--database-url", str(path)).output


@pytest.mark.parametrize("command", ["migrate", "status", "check", "repair", "rollback"])
def test_database_option_over_environment(tmp_path: Path, path: Path, command: str) -> None:
    """DATABASE_URL says which database, unless an option says another; the other is not touched."""
    nowhere = tmp_path / "nowhere" / "x.db"
    assert run(command, DATABASE_URL=f"sqlite:///{path}").exit_code == 0
    assert run(command, "--database-url", str(path), DATABASE_URL=str(nowhere)).exit_code == 0
    refused = run(command, "--database-url", str(nowhere), DATABASE_URL=str(path))
    assert (refused.exit_code, refused.output.count("\n")) == (1, 1)
    assert str(nowhere) in refused.output


@pytest.mark.parametrize("command", ["serve", "migrate", "status", "check", "repair", "rollback"])
@pytest.mark.parametrize("url", [":memory:", "postgresql://localhost/school", "sqlite://host/x.db", "sqlite://["])
def test_bad_database_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, url: str) -> None:
    """What is no file's URL is refused in one line, and nothing is made."""
    monkeypatch.chdir(tmp_path)
    result = run(command, DATABASE_URL=url)
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert result.output.startswith("Error: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "environ", "said"),
    [
        ([], {"PORT": "abc"}, "PORT='abc' is not valid"),
        ([], {"PORT": "65536"}, "PORT='65536' is not valid"),
        ([], {"BUSY_TIMEOUT": "soon"}, "BUSY_TIMEOUT='soon' is not valid"),
        ([], {"MAX_PENDING_WRITES": "0"}, "MAX_PENDING_WRITES='0' is not valid"),
        (["--port", "abc"], {}, "Invalid value for '--port'"),
        (["--port", "-1"], {}, "Invalid value for '--port'"),
        (["--colour", "red"], {}, "No such option"),
    ],
)
def test_bad_value(tmp_path: Path, options: list[str], environ: dict[str, str], said: str) -> None:
    """A value that does not fit is a usage error, which names the option or the variable."""
    # There is no database: a value that was taken would end it as well, with 1.
    result = run("serve", "--database-url", str(tmp_path / "none.db"), *options, **environ)
    assert result.exit_code == 2
    assert said in result.output


def test_serve_from_the_environment(path: Path) -> None:
    """HOST and PORT say where to listen; the one line says where, what is served, and what to try."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    result, answers = run_server(f"{url}/students", HOST="127.0.0.1", PORT=str(port), DATABASE_URL=str(path))
    assert (result.exit_code, answers) == (0, [200])
    assert result.output == f"Serving {path} at {url} - try: curl {url}/students\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_serve_options_over_environment(path: Path, host: str) -> None:
    """Options win over the environment; the URL that is printed works for IPv6 too."""
    try:
        port = free_port(host)
    except OSError:
        pytest.skip(f"This machine has no {host}.")
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    options = ("--host", host, "--port", str(port), "--database-url", str(path))
    result, answers = run_server(f"{url}/courses", *options, HOST="192.0.2.1", PORT="1", DATABASE_URL="/no/where.db")
    assert (result.exit_code, answers) == (0, [200])
    assert f" at {url} - try: curl {url}/students\n" in result.output


def test_an_empty_host_is_not_every_host(path: Path) -> None:
    """An empty option, as from a script's unset variable, does not open the service to the network."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    options = ("--host", "", "--port", str(port), "--database-url", str(path))
    result, _ = run_server(f"{url}/students", *options)
    assert "0.0.0.0" not in result.output  # noqa: S104
    assert "[::]" not in result.output


def test_serve_migrates_first(tmp_path: Path, path: Path) -> None:
    """With --migrate a database that is missing is made, and one that is behind is brought up to date."""
    rollback(path)
    for database in (tmp_path / "new.db", path):
        with serving("--migrate", "--database-url", str(database)) as server:
            assert httpx2.get(f"{server.url}/students").json() == []


def test_port_in_use(path: Path) -> None:
    """A port that is taken, or a host that is not ours, ends the server with a line that says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("serve", "--port", port, "--database-url", str(path))
    assert (result.exit_code != 0, result.stdout) == (True, "")
    assert "address already in use" in result.stderr
    assert port in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_server_well(path: Path, number: signal.Signals) -> None:
    """Ctrl+C and SIGTERM end it, without another word and with the database closed, though a client is connected."""
    command = [sys.executable, "-m", "service", "serve", "--port", "0", "--database-url", str(path)]
    with (
        subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process,
        httpx2.Client() as client,
    ):
        try:
            assert process.stdout
            url = process.stdout.readline().split()[-1]
            assert client.post(url, json={"name": "Ada"}).status_code == 201
            assert path.with_name(f"{path.name}-wal").exists()
            process.send_signal(number)
            # uvicorn ends by SIGTERM itself once all is done, as service managers expect of a clean stop.
            assert process.wait(10) == (0 if number == signal.SIGINT else -signal.SIGTERM)
            assert process.stdout.read() == ""
        finally:
            process.kill()
    assert [each.name for each in path.parent.iterdir()] == [path.name]
