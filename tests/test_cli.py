"""The command line: each command, what it takes from options and environment, and how the server starts and ends."""

import os
import pty
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from click.testing import CliRunner, Result
from conftest import ROOT, serving

from service import Settings, __version__
from service.__main__ import _open_to, cli
from service.errors import SetupError
from service.launch import main
from service.storage.sqlite.schema import rollback

ALL = sorted(path.stem for path in (ROOT / "migrations").glob("0*.py"))
VARIABLES = (
    "DATABASE_URL",
    "AUTH",
    "HOST",
    "PORT",
    "BUSY_TIMEOUT",
    "KEEP_ALIVE",
    "MAX_PENDING_WRITES",
    "ALLOWED_HOSTS",
    "PUBLIC_URL",
)


def run(*args: str, **environ: str) -> Result:
    """Run a command in this process, with no more in the environment than is given."""
    return CliRunner().invoke(cli, args, env={**dict.fromkeys(VARIABLES), **environ})


def free_port(host: str = "127.0.0.1") -> int:
    """Give a port that nobody listens on."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def run_server(
    url: str, *args: str, number: signal.Signals = signal.SIGINT, **environ: str
) -> tuple[Result, list[int]]:
    """Run `serve` in this process until it answers at the URL; give how it ended, and the answer's status."""
    over, answers = threading.Event(), list[int]()

    def interrupt() -> None:
        deadline = time.monotonic() + 30
        while not over.is_set() and not answers and time.monotonic() < deadline:
            try:
                answers.append(httpx2.get(url).status_code)
            except httpx2.TransportError:
                over.wait(0.02)
        if not over.is_set():
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    result = run("serve", *args, **environ)
    over.set()
    thread.join()
    return result, answers


@contextmanager
def started(
    *command: str, python: tuple[str, ...] = (sys.executable,), reads: int = subprocess.DEVNULL
) -> Iterator["subprocess.Popen[str]"]:
    """Run a command as a process of its own until the block ends; whatever is left of it is killed."""
    with subprocess.Popen(
        [*python, "-m", "service", *command],
        cwd=ROOT,
        text=True,
        stdin=reads,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: "subprocess.Popen[str]", *, error: bool = False) -> str:
    """Give the next line that a process prints, or the next one of its errors."""
    stream = process.stderr if error else process.stdout
    assert stream
    return stream.readline()


def wait_until_open(process: "subprocess.Popen[str]", path: Path) -> None:
    """Wait until a process has opened a file."""
    opened, deadline = Path(f"/proc/{process.pid}/fd"), time.monotonic() + 20
    found: set[Path] = set()
    while path not in found:
        assert time.monotonic() < deadline
        time.sleep(0.01)
        with suppress(FileNotFoundError):  # A descriptor may be closed while its turn comes.
            found = {file.resolve() for file in opened.iterdir()}


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells which files a process has open.")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ([], ["serve", "migrate", "rollback", "status", "check", "repair", "token", "--version"]),
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
                "ALLOWED_HOSTS",
                "PUBLIC_URL",
                "BUSY_TIMEOUT",
                "KEEP_ALIVE",
                "MAX_PENDING_WRITES",
            ],
        ),
        (["migrate"], []),
        (["rollback"], ["--yes"]),
        (["status"], []),
        (["check"], []),
        (["repair"], []),
        (["token", "create"], ["--name", "--scope", "admin", "--expires", "90d"]),
        (["token", "list"], ["--json"]),
        (["token", "rotate"], ["ID", "--grace", "24h"]),
        (["token", "revoke"], ["ID"]),
    ],
)
def test_help(command: list[str], said: list[str]) -> None:
    """Each command tells its options, the environment that it reads, and the defaults."""
    result = run(*command, "--help")
    assert result.exit_code == 0
    shared = ["--database-url", "DATABASE_URL", "sqlite:///enrollment.db"] if command else []
    for word in [*said, *shared]:
        assert word in result.output


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["-m", "service"], "python -m service"),
        (["-c", "import sys; sys.argv[0] = 'bin/enrollment'; from service.launch import main; main()"], "enrollment"),
    ],
    ids=["module", "script"],
)
def test_both_names(command: list[str], name: str) -> None:
    """As a module and as the console script it calls itself so, and tells its version and which commands there are."""
    for option, said in (("--help", f"Usage: {name} [OPTIONS] COMMAND"), ("--version", f"service {__version__}\n")):
        ended = subprocess.run([sys.executable, *command, option], cwd=ROOT, capture_output=True, text=True, check=True)
        assert said in ended.stdout


def test_the_script_takes_ctrl_c_over(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything else the program leaves Ctrl+C to the system."""
    monkeypatch.setattr(sys, "argv", ["enrollment", "--version"])
    monkeypatch.delitem(sys.modules, "service.__main__")
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit):
            main()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, handler)
    assert capsys.readouterr().out == f"enrollment-service {__version__}\n"


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
        ["terms", "0"],
        ["event_notes", "0"],
        ["api_tokens", "0"],
        ["api_sessions", "0"],
    ]
    assert len({len(line) for line in lines[3:]}) == 1, "The numbers are not in one column."
    for count, name in reversed([*enumerate(ALL)]):
        assert run("rollback", "--yes").output.splitlines()[-1] == f"rolled back {name}"
        assert run("status").output.splitlines()[1:3] == [
            f"version   {ALL[count - 1] if count else 'none'}",
            f"pending   {', '.join(ALL[count:])}",
        ]
    assert run("status").output.count("\n") == 3
    assert run("rollback", "--yes").output == (
        "Error: The database sqlite:///enrollment.db has no migration to roll back.\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["enrollment.db"]


def test_status_of_a_database_that_is_ahead(path: Path) -> None:
    """Migrations that this version does not know are shown as such."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO enrollment_migrations (name, migrated_at) VALUES ('999_future', '2030-01-01')")
    assert "unknown   999_future\n" in run("status", "--database-url", str(path)).output


@pytest.mark.parametrize("command", [["migrate"], ["status"], ["check"], ["repair"], ["rollback", "--yes"]])
def test_database_option_over_environment(tmp_path: Path, path: Path, command: list[str]) -> None:
    """DATABASE_URL says which database, unless an option says another; the other is not touched."""
    nowhere = tmp_path / "nowhere" / "x.db"
    assert run(*command, DATABASE_URL=f"sqlite:///{path}").exit_code == 0
    assert run(*command, "--database-url", str(path), DATABASE_URL=str(nowhere)).exit_code == 0
    refused = run(*command, "--database-url", str(nowhere), DATABASE_URL=str(path))
    assert (refused.exit_code, refused.output.count("\n")) == (1, 1)
    assert f"There is no folder {nowhere.parent} for the database x.db" in refused.output


@pytest.mark.parametrize("command", ["serve", "migrate", "status", "check", "repair", "rollback"])
@pytest.mark.parametrize(
    "url",
    [":memory:", "mysql://localhost/school", "sqlite:x.db", "sqlite3:x.db", "file:x.db", "~/x.db", " x.db\n"],
)
def test_bad_database_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, url: str) -> None:
    """What is no file's URL is refused in one line, and nothing is made."""
    monkeypatch.chdir(tmp_path)
    result = run(command, DATABASE_URL=url, PORT="0")
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert result.output.startswith("Error: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "environ", "said"),
    [
        ([], {"PORT": "abc"}, "PORT='abc' is not valid"),
        ([], {"PORT": "65536"}, "PORT='65536' is not valid"),
        ([], {"BUSY_TIMEOUT": "soon"}, "BUSY_TIMEOUT='soon' is not valid"),
        ([], {"KEEP_ALIVE": "-1"}, "KEEP_ALIVE='-1' is not valid"),
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
    open_to = "every program of this machine, without a token (AUTH=auto)"
    assert result.output == f"Serving {path} at {url} to {open_to} - try: curl {url}/students\n"


def test_a_host_program_hears_of_sigterm(path: Path) -> None:
    """A SIGTERM that ended the server is passed on to whoever was to handle it, and Ctrl+C is again what it was."""
    heard: list[int] = []
    url = f"http://127.0.0.1:{(port := free_port())}"
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
        _, answers = run_server(f"{url}/students", number=signal.SIGTERM, PORT=str(port), DATABASE_URL=str(path))
        assert (heard, answers) == ([signal.SIGTERM], [200])
        assert signal.getsignal(signal.SIGINT) is handlers[signal.SIGINT]
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


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
    assert f" at {url} to every program of this machine" in result.output
    assert f" - try: curl {url}/students\n" in result.output


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


@pytest.fixture
def school(path: Path) -> Path:
    """Put three students into the file, two of them in a course with two seats."""
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany("INSERT INTO students (name) VALUES (?)", [("Ada",), ("Grace",), ("Alan",)])
        db.execute("INSERT INTO courses (name, level, capacity, waitlist_capacity) VALUES ('Logic', '1', 2, NULL)")
        db.execute("INSERT INTO courses (name, level) VALUES ('Algebra', '1')")
        for student_id in (1, 2):
            db.execute(
                "INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (?, 1, ?)", (student_id, AT)
            )
    return path


AT = "2026-01-01T00:00:00.000Z"
GOES = {
    "001_students_and_courses": ["2 rows of courses", "3 rows of students"],
    "002_enrollments": ["2 rows of enrollments"],
    "003_seats_and_events": [
        "1 value of courses.capacity",
        "2 values of courses.enrolled",
        "1 value of courses.waitlist_capacity",
        "2 values of courses.waitlisted",
        "2 rows of enrollment_events",
    ],
    "004_lean_indexes": ["2 values of enrollment_events.filed"],
    "005_guards": ["1 value of courses.event_id"],
}
"""What goes with each migration that is rolled back."""


def test_rollback_says_what_goes(school: Path) -> None:
    """Before a migration is undone, each table and column that goes is listed, with its number of rows or values."""
    for name in reversed(ALL):
        first, *lines, last = run("rollback", "--yes", "--database-url", str(school)).output.splitlines()
        assert first == f"Rolling back {name} deletes" + (":" if lines else " no rows and no values.")
        assert [" ".join(line.split()) for line in lines] == GOES.get(name, lines)
        assert last == f"rolled back {name}"


def test_rollback_without_a_terminal(school: Path) -> None:
    """Where nobody can be asked, rolling back says what would go and how to go on, and changes no byte."""
    before = school.read_bytes()
    result = run("rollback", "--database-url", str(school), input="y\n")
    assert result.exit_code == 1
    assert f"Rolling back {ALL[-1]} deletes" in result.stdout
    assert result.stderr == "Error: Nothing was changed. To go on where there is no terminal, add --yes.\n"
    assert {file: file.read_bytes() for file in school.parent.iterdir()} == {school: before}


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Give a terminal: the end to type at, and the end that a program reads from."""
    ends = pty.openpty()
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.parametrize("answer", ["y", "n", "", "Ctrl+C"])
def test_rollback_asks(school: Path, terminal: tuple[int, int], answer: str) -> None:
    """On a terminal rolling back asks first, and nothing but yes makes it change a byte."""
    before = school.read_bytes()
    with started("rollback", "--database-url", str(school), reads=terminal[1]) as process:
        assert line_of(process).startswith(f"Rolling back {ALL[-1]} deletes")
        assert process.stderr
        assert process.stderr.read(len("Go on? [y/N]:")) == "Go on? [y/N]:"
        if answer == "Ctrl+C":
            process.send_signal(signal.SIGINT)
        else:
            os.write(terminal[0], f"{answer}\n".encode())
        said, errors = process.communicate(timeout=10)
    ended = {"y": (0, ""), "Ctrl+C": (-signal.SIGINT, "")}.get(answer, (1, "Aborted!\n"))
    assert (process.returncode, errors) == ended
    assert (f"rolled back {ALL[-1]}\n" in said) == (answer == "y")
    assert (school.read_bytes() == before) == (answer != "y")


def test_rollback_asks_in_this_process(
    school: Path, terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is asked goes to the errors, so that the output may go to a file."""
    os.write(terminal[0], b"yes\n")
    with open(terminal[1], closefd=False, encoding="utf-8") as reads:
        monkeypatch.setattr(sys, "stdin", reads)
        cli(["rollback", "--database-url", str(school)], standalone_mode=False)
    said = capsys.readouterr()
    assert said.out.endswith(f"rolled back {ALL[-1]}\n")
    assert said.err.rstrip() == "Go on? [y/N]:"


def test_rollback_under_a_server(school: Path) -> None:
    """While a server has the file open, even one that nobody has asked anything, rolling back is refused at once."""
    with serving("--database-url", str(school)) as server:
        began = time.monotonic()
        result = run("rollback", "--yes", "--database-url", str(school))
        assert time.monotonic() - began < 5
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
        assert "another program has it open, such as a server; stop that first." in result.stderr
        assert httpx2.get(f"{server.url}/health/ready").status_code == 200
    server.process.wait()
    assert run("rollback", "--yes", "--database-url", str(school)).exit_code == 0


@pytest.mark.parametrize("migrate", [[], ["--migrate"]], ids=["", "migrate"])
def test_port_in_use(tmp_path: Path, migrate: list[str]) -> None:
    """A port that is taken ends the server with a line that says how to choose another, before anything is made."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", *migrate, "--port", str(port), "--database-url", str(tmp_path / "school.db"))
    reason = f"The service cannot listen on port {port} of 127.0.0.1: address already in use."
    assert result.output == f"Error: {reason} Choose another port with --port or PORT.\n"
    assert result.exit_code == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "two..dots", "::2"])
def test_a_host_that_is_not_ours(tmp_path: Path, host: str) -> None:
    """An address of another machine, or a name that has none, is told in a line, before the schema changes."""
    result = run("serve", "--migrate", "--port", "0", "--host", host, "--database-url", str(tmp_path / "school.db"))
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert result.output.startswith(f"Error: The service cannot listen on port 0 of {host}: ")
    assert result.output.endswith(". Choose another address with --host or HOST.\n")
    assert not list(tmp_path.iterdir())


@needs_proc
def test_nobody_is_let_in_before_the_schema_is_right(tmp_path: Path) -> None:
    """While the migrations wait for another program the port is taken, but nobody can connect."""
    path, port = tmp_path / "school.db", free_port()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("CREATE TABLE rooms (name)")
        with started("serve", "--migrate", "--port", str(port), "--database-url", str(path)) as process:
            wait_until_open(process, path)
            with socket.socket() as taking, pytest.raises(OSError, match="in use"):
                taking.bind(("127.0.0.1", port))
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=5)
            other.execute("COMMIT")
            assert f":{port} " in line_of(process)
            assert httpx2.get(f"http://127.0.0.1:{port}/students").json() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_server_well(path: Path, number: signal.Signals) -> None:
    """Ctrl+C and SIGTERM end it, without another word and with the database closed, though a client is connected."""
    with started("serve", "--port", "0", "--database-url", str(path)) as process, httpx2.Client() as client:
        url = line_of(process).split()[-1]
        assert client.post(url, json={"name": "Ada"}).status_code == 201
        assert path.with_name(f"{path.name}-wal").exists()
        process.send_signal(number)
        assert process.communicate(timeout=10) == ("", "")
        # uvicorn ends by SIGTERM itself once all is done, as service managers expect of a clean stop.
        assert process.returncode == (0 if number == signal.SIGINT else -signal.SIGTERM)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


HALF = b"POST /students HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n"
WAITING = "Waiting up to 30 s for {} to end. Press Ctrl+C again to quit now.\n"


@contextmanager
def half_sent(url: str, count: int) -> Iterator[list[socket.socket]]:
    """Send the heads of so many requests, each on a connection of its own, until the block ends."""
    where = urlsplit(url)
    with ExitStack() as stack:
        connections = []
        for _ in range(count):
            connections.append(stack.enter_context(socket.create_connection((where.hostname, where.port), timeout=10)))
            connections[-1].sendall(HALF)
        assert httpx2.get(url).status_code == 200  # So the server has read what was sent before.
        yield connections


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_with_unfinished_requests(path: Path, number: signal.Signals) -> None:
    """The server says in one line for how many requests it waits, and each that ends then is answered."""
    with (
        started("serve", "--port", "0", "--database-url", str(path)) as process,
        half_sent(line_of(process).split()[-1], 2) as connections,
    ):
        process.send_signal(number)
        assert line_of(process, error=True) == WAITING.format("2 requests")
        process.send_signal(signal.SIGTERM)  # Once more changes nothing.
        for connection in connections:
            connection.sendall(b'{"name": "Ada"}')
            assert connection.recv(65536).startswith(b"HTTP/1.1 201 Created\r\n")
        assert process.communicate(timeout=10) == ("", "")
        assert process.returncode == -signal.SIGTERM
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_nobody_reads_what_the_server_says(path: Path) -> None:
    """Where the errors went to a pipe that Ctrl+C has ended as well, requests are finished all the same."""
    with (
        started("serve", "--port", "0", "--database-url", str(path)) as process,
        half_sent(line_of(process).split()[-1], 1) as (connection,),
    ):
        assert process.stderr
        process.stderr.close()
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        connection.sendall(b'{"name": "Ada"}')
        assert connection.recv(65536).startswith(b"HTTP/1.1 201 Created\r\n")
        assert process.wait(10) == 0


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_again_quits_at_once(path: Path, first: signal.Signals) -> None:
    """While the server waits for a request, Ctrl+C ends it as it ends any program, without a traceback."""
    with (
        started("serve", "--port", "0", "--database-url", str(path)) as process,
        half_sent(line_of(process).split()[-1], 1),
    ):
        process.send_signal(first)
        assert line_of(process, error=True) == WAITING.format("1 request")
        for _ in range(3):
            process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10) == ("", "")
        assert process.returncode == -signal.SIGINT


@pytest.mark.long
def test_a_client_that_reads_slowly_is_waited_for(path: Path) -> None:
    """An answer that its client has not taken yet counts as a request that has not ended."""
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany("INSERT INTO students (name) VALUES (?)", [("A" * 200,)] * 1000)
    with started("serve", "--port", "0", "--database-url", str(path)) as process, socket.socket() as slow:
        where = urlsplit(line_of(process).split()[-1])
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((where.hostname, where.port))
        slow.sendall(b"GET /students?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 30)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert line_of(process, error=True) == WAITING.format("1 request")
        while slow.recv(2**20):
            pass
        assert process.communicate(timeout=10) == ("", "")
        assert process.returncode == 0


@needs_proc
@pytest.mark.parametrize("command", [["migrate"], ["serve", "--migrate", "--port", "0"]])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_migration(tmp_path: Path, command: list[str], number: signal.Signals) -> None:
    """Ctrl+C and SIGTERM end what migrates, or waits to, at once and in silence, and the file is as it was."""
    path = tmp_path / "school.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE rooms (name)")
        other.execute("BEGIN IMMEDIATE")
        with started(*command, "--database-url", str(path)) as process:
            wait_until_open(process, path)
            for _ in range(2):
                process.send_signal(number)
            assert process.communicate(timeout=10) == ("", "")
            assert process.returncode == -number
        other.execute("ROLLBACK")
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("rooms",)]


@needs_proc
def test_a_migration_in_the_background(tmp_path: Path) -> None:
    """What a script starts with Ctrl+C ignored, as it does with a job in the background, goes on in spite of it."""
    path = tmp_path / "school.db"
    shell = ("sh", "-c", """trap '' INT; exec "$0" "$@" """, sys.executable)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE rooms (name)")
        other.execute("BEGIN IMMEDIATE")
        with started("migrate", "--database-url", str(path), python=shell) as process:
            wait_until_open(process, path)
            process.send_signal(signal.SIGINT)
            other.execute("ROLLBACK")
            assert process.communicate(timeout=10)[0].endswith("is up to date.\n")
            assert process.returncode == 0


def test_ctrl_c_while_it_starts(path: Path) -> None:
    """While the program still imports what it needs, Ctrl+C ends it at once and in silence."""
    python = (sys.executable, "-X", "importtime")
    with started("serve", "--port", "0", "--database-url", str(path), python=python) as process:
        while not (line := line_of(process, error=True)).endswith(" peewee\n"):
            assert line.startswith("import time:")
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=10)[1]
        assert [line for line in said.splitlines() if not line.startswith("import time:")] == []
        assert process.returncode == -signal.SIGINT


@pytest.mark.long
def test_idle_connections_are_kept_for_a_while(path: Path) -> None:
    """A connection without a request is closed after KEEP_ALIVE seconds, and no sooner."""
    with serving("--database-url", str(path), KEEP_ALIVE="1.5") as server:
        where = urlsplit(server.url)
        with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
            for _ in range(2):
                connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
                began = time.monotonic()
                time.sleep(0.5)
            assert connection.recv(65536) == b""
            assert 1.4 < time.monotonic() - began < 5


def test_who_may_come(path: Path) -> None:
    """Who needs no token is said at the start; where others may come, and nobody can have a token, nothing starts."""
    url = str(path)
    assert _open_to(Settings(database_url=url, auth="none")) == "everyone, without a token (AUTH=none)"
    assert "every program of this machine" in (_open_to(Settings(database_url=url)) or "")
    assert _open_to(Settings(database_url=url, auth="tokens")) is None
    with pytest.raises(SetupError, match=r"token create .* --name admin --scope admin"):
        _open_to(Settings(database_url=url, host="0.0.0.0"))  # noqa: S104
