"""The README is held to the code: its examples are run, and it names all that there is."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import httpx2
import msgspec
import peewee as pw
import pytest
from bench import figures, load, report
from bench.figures import pick
from conftest import ROOT, Server

from service import Settings, courses, enrollments, students
from service.__main__ import cli
from service.api import MAX_ROWS, MAX_WHOLE, ROUTES
from service.errors import CourseFull, StudentNotFound
from service.fields import MAX_ID, MAX_NAME
from service.payloads import MAX_LIMIT
from service.problems import PROBLEMS
from service.server import GRACE
from service.wire import MAX_BODY, MAX_BULK_BODY

README = (ROOT / "README.md").read_text()
SHOWN = "127.0.0.1:8000"


def section(title: str) -> str:
    """Give what is under a heading, up to the next one."""
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def blocks(language: str, text: str) -> list[str]:
    """Give the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def table(title: str) -> list[list[str]]:
    """Give the cells of the table in a section, row by row, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("| ")]
    return [[cell.strip(" `") for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def settled(text: str) -> str:
    """Replace what differs from run to run: times, and the words that Python's version puts beside a status."""
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "TIME", text)
    return re.sub(r"^(HTTP/1.1 \d{3}) .*", r"\1", text).rstrip()


EXAMPLE = re.compile(r"^```sh\n(curl [^`]*?)\n```\n\n```http\n(HTTP(?:.*\n)*?)```", re.MULTILINE)
EXAMPLES: list[tuple[str, str]] = [(command, settled(answer)) for command, answer in EXAMPLE.findall(README)]


def paste(command: str) -> str:
    """Run a command in a shell; of the answer keep the lines that the README shows."""
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=True)
    head, _, body = done.stdout.partition("\n\n")
    left_out = ("date:", "content-type:", "content-length:")
    return settled("\n".join(line for line in head.splitlines() if not line.startswith(left_out)) + f"\n\n{body}")


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not on this machine")
def test_tour(serve: Callable[[], Server], path: Path) -> None:
    """Pasted in order on an empty database, every curl example gets the status, headers and body that are shown."""
    server = serve()
    address = server.url.removeprefix("http://")
    assert server.line.replace(address, SHOWN).replace(str(path), Settings().database_url) in section("Start")
    assert len(EXAMPLES) == README.count("```sh\ncurl ")
    assert [(command, paste(command.replace(SHOWN, address))) for command, _ in EXAMPLES] == EXAMPLES


def test_tour_shows_every_endpoint() -> None:
    """Each method of each route is in an example."""
    shown = set()
    for command, _ in EXAMPLES:
        asked = re.search(rf"{re.escape(SHOWN)}([^ '?]*)", command)
        method = re.search(r"-X (\w+)", command)
        assert asked
        route = next(route for route in ROUTES if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route), asked[1]))
        shown.add((route, method[1] if method else "POST" if re.search(" (-d|--json) ", command) else "GET"))
    assert shown >= {(route, method) for route, methods in ROUTES.items() for method in methods}


def test_routes() -> None:
    """The table of routes has every path with its methods, and no other."""
    assert {path: set(methods.split(", ")) for path, methods, _ in table("Routes")} == {
        path: set(methods) for path, methods in ROUTES.items()
    }


def test_problems() -> None:
    """The table of refusals has every code with its status, and no other; the rules of seats name some of them."""
    refusals = {code: int(status) for code, status, _ in table("Refusals")}
    assert refusals == {code: problem.status for code, problem in PROBLEMS.items()}
    assert {refusals[code] for code in re.findall(r"409 `(\w+)`", section("Seats and waitlists"))} == {409}


def test_settings() -> None:
    """The table of settings has every field with its variable and its default, and no other."""
    assert [row[:3] for row in table("Settings")] == [
        [field.name, field.name.upper(), str(field.default) or "empty"] for field in attrs.fields(Settings)
    ]


def test_numbers() -> None:
    """The numbers in the text are those of the code."""
    assert f"1 to {MAX_NAME} characters" in section("Routes")
    assert f"from 1 to {MAX_ID}" in section("Routes")
    assert f"1 to {MAX_LIMIT}" in section("Lists")
    assert f"{GRACE} seconds" in section("Promises")
    assert f"at most {MAX_ROWS:,} rows" in section("Seats and waitlists")
    assert f"at most {MAX_WHOLE:,} rows" in section("Seats and waitlists")
    for text in section("Refusals"), section("Limits"):
        assert re.findall(r"(\d+) MiB", text) == [str(MAX_BODY >> 20), str(MAX_BULK_BODY >> 20)]


def test_speed() -> None:
    """The figures are those of results.json, whose charts are there."""
    results = msgspec.json.decode((ROOT / "tests/bench/results.json").read_bytes())
    text = " ".join(section("Speed").split())
    machine, plan = results["machine"], results["plan"]
    kernel = ".".join(machine["kernel"].split(".")[:2])
    assert (
        f"Measured on {machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, Linux {kernel}, "
        f"Python {machine['python']}, by `{results['command']}`: medians of {plan['rounds']} rounds of "
        f"{plan['seconds']} s." in text
    )
    for part in report.markdown(results).split("\n\n"):
        assert part in section("Speed")
    bulk = pick(results, "bulk", "service")
    share = figures.ratio(bulk, pick(results, "bulk", "bare"))
    taken = figures.figure(bulk)
    assert taken
    assert share
    assert f"takes {figures.digits(taken.middle)} rows per second, {share.middle:.2g} times as many" in text
    for request, connections, key, words in (
        (load.GET, 1, "p50", "as long for a schedule"),
        (load.ROSTER, 1, "p50", "as long for a page of a roster"),
        (load.POST, 1, "p50", "as long for an enrollment"),
        (load.POST, 1, "rate", "as long on average"),
        (load.POST, 32, "rate", "as long at 32 connections"),
    ):
        grown = figures.growth_ratio(results, 10_000_000, key, request=request, connections=connections)
        assert grown
        assert f"{grown.middle:.1f} times {words}" in text
    assert all((ROOT / chart).is_file() for chart in re.findall(r"\((tests/.*?)\)", text))
    assert figures.errors(results) == {}


def test_commands() -> None:
    """The table of commands has every command, and the section every option."""
    assert {name for name, _ in table("Commands")} == set(cli.commands)
    options = {option for command in cli.commands.values() for each in command.params for option in each.opts}
    assert [option for option in options if f"`{option}`" not in section("Commands")] == []


def test_make_targets() -> None:
    """The list of make targets is the Makefile's own."""
    targets = re.findall(r"^(\w+):.*## (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^  make (\w+) +(.*)", section("Commands"), re.MULTILINE) == targets


def test_modules() -> None:
    """The table of modules has every module, and each imports only from those below it."""
    names = [Path(module).stem for module, _ in table("The code")]
    assert sorted(names) == sorted(path.stem for path in (ROOT / "service").glob("*.py") if path.stem != "__init__")
    for place, name in enumerate(names):
        source = (ROOT / "service" / f"{name}.py").read_text()
        imports = re.findall(r"^from service(?:\.(\w+) import| import (.*))", source, re.MULTILINE)
        assert {each for module, several in imports for each in [module, *several.split(", ")] if each} <= set(
            names[place + 1 :]
        ), name


@contextmanager
def hosting(*command: str, folder: Path) -> Iterator[httpx2.Client]:
    """Run a host program's server in a folder and give a client of it."""
    with subprocess.Popen(
        [sys.executable, "-m", *command, "--port", "0"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr
            said = ""
            while not (found := re.search(r"running on (http://\S+)", said)):
                line = process.stderr.readline()
                assert line, said
                said += line
            with httpx2.Client(base_url=found[1]) as client:
                yield client
        finally:
            process.kill()


def save(block: str, folder: Path) -> None:
    """Save a code block as the file that its first line names."""
    path = folder / block.splitlines()[0].removeprefix("# ")
    path.parent.mkdir(exist_ok=True)
    path.write_text(block)


def add_student(client: httpx2.Client, prefix: str = "") -> None:
    """Add Ada, the first student."""
    added = client.post(f"{prefix}/students", json={"name": "Ada"})
    assert (added.status_code, added.headers.get("location")) == (201, f"{prefix}/students/1")


@pytest.mark.parametrize(("module", "name"), [("starlette.applications", "Starlette"), ("fastapi", "FastAPI")])
def test_embedding_in_a_host_app(tmp_path: Path, module: str, name: str) -> None:
    """The code for Starlette serves the API under its prefix, and so it does with FastAPI in its place."""
    (block,) = blocks("python", section("Mounted in Starlette or FastAPI"))
    save(block.replace("starlette.applications", module).replace("Starlette", name), tmp_path)
    with hosting("uvicorn", "host:app", folder=tmp_path) as client:
        add_student(client, "/enrollment")


def test_embedding_the_rules(tmp_path: Path) -> None:
    """The code without HTTP prints what is shown."""
    (block,) = blocks("python", section("The rules, without HTTP"))
    (shown,) = blocks("text", section("The rules, without HTTP"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (settled(done.stdout), done.stderr) == (settled(shown), "")


def test_embedding_in_a_database_of_its_own(path: Path) -> None:
    """Opened as shown, a host's own database refuses what the service would."""
    assert '`SqliteDatabase("school.db", pragmas={"foreign_keys": 1})`' in section("The rules, without HTTP")
    with pw.SqliteDatabase(str(path), pragmas={"foreign_keys": 1}) as db:
        ada = students.insert_student(db, "Ada").id
        full = courses.insert_course(db, "Logic", "1", capacity=0).id
        for student_id, refusal in (ada, CourseFull), (ada + 1, StudentNotFound):
            with pytest.raises(refusal):
                enrollments.enroll(db, student_id, full)


def test_embedding_in_datasette(tmp_path: Path) -> None:
    """With the plugin and the two commands that are shown, Datasette and the API answer from one file."""
    (plugin,) = blocks("python", section("In Datasette"))
    save(plugin, tmp_path)
    migrate, datasette = "".join(blocks("sh", section("In Datasette"))).splitlines()
    migrate = migrate.replace("python", sys.executable, 1)
    subprocess.run(shlex.split(migrate), cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    with hosting(*shlex.split(datasette), folder=tmp_path) as client:
        add_student(client, "/enrollment")
        assert client.get("/school/students.json?_shape=array").json() == [{"id": 1, "name": "Ada"}]


def test_prefix(serve: Callable[..., Server]) -> None:
    """The prefix that nginx is shown to strip is the one that the unit is shown to put back."""
    unit = re.search(r"`Environment=(\w+)=(\S+)`", section("nginx"))
    nginx = re.search(r"location (/\w+)/ \{\n +proxy_pass (\S+);", section("nginx"))
    assert unit
    assert nginx
    assert nginx[2] == "http://enrollment/"
    assert f"upstream enrollment {{\n    server {SHOWN};" in section("nginx")
    with httpx2.Client(base_url=serve(**{unit[1]: unit[2]}).url) as client:
        added = client.post("/students", json={"name": "Ada"})
        assert added.headers["location"] == f"{nginx[1]}/students/1"


@pytest.mark.parametrize("tool", ["sqlite3", "python3"])
def test_backup_and_restore(serve: Callable[[], Server], path: Path, tool: str) -> None:
    """What is copied from the running service with a command that is shown comes back with the other commands."""
    if tool == "sqlite3" and not shutil.which(tool):
        pytest.skip("sqlite3 is not on this machine")
    here = {"/var/lib/enrollment/enrollment.db": path, "/var/backups/": f"{path.parent}/", "python3": sys.executable}
    commands = "".join(blocks("sh", section("Backups")))
    for there, ours in here.items():
        commands = commands.replace(there, str(ours))
    stop = "systemctl stop enrollment"
    before, after = (part.strip().splitlines() for part in commands.split(stop))
    (backup,) = (command for command in before if command.startswith(str(here.get(tool, tool))))

    server = serve()
    with httpx2.Client(base_url=server.url) as client:
        add_student(client)
        subprocess.run(["sh", "-c", backup], check=True)
        client.post("/students", json={"name": "Too late"})
    server.process.kill()
    server.process.wait()
    for command in after[:-1]:
        subprocess.run(["sh", "-c", command], check=True)
    assert httpx2.get(f"{serve().url}/students").json() == [{"id": 1, "name": "Ada"}]
