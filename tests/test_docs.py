"""Every page is held to the code: its examples are run, its links lead somewhere, and its tables are whole."""

import ast
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx2
import msgspec
import peewee as pw
import pytest
from bench import figures, load, report
from bench.figures import pick
from conftest import ROOT, Server
from starlette.testclient import TestClient

from service import Settings, __version__, connect, courses, enrollments, events, registrar, students, terms
from service.__main__ import cli
from service.bulk import MAX_ROWS, MAX_WHOLE
from service.errors import CourseFull, StudentNotFound
from service.fields import MAX_EMAIL, MAX_ID, MAX_NAME
from service.http.api import API
from service.http.calls import MAX_BODY, MAX_BULK_BODY, MAX_BULK_FAULTS
from service.http.exposition import FAMILIES
from service.http.page import POLICY
from service.http.problems import PROBLEMS
from service.http.queries import MAX_LIMIT
from service.http.reading import MAX_FAULTS
from service.http.server import GRACE
from service.registrar import MOST_DROPPED
from service.storage.patience import MOST_READS, MOST_SCANS, SCAN_WAIT, SCANS
from service.token_commands import token
from service.tokens import SCOPES

SHOWN = "127.0.0.1:8000"
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LEFT_OUT = [
    *("date", "content-type", "content-length"),
    *("cache-control", "x-content-type-options", "cross-origin-resource-policy", "x-request-id", "etag"),
]
"""The headers that the pages do not show, in the order in which the pages say so."""
EXAMPLE = re.compile(r"^```sh\n(curl [^`]*?)\n```\n\n```http\n(HTTP(?:.*\n)*?)```", re.MULTILINE)


@attrs.frozen
class Page:
    """A page of the documentation."""

    path: Path
    text: str = attrs.field(init=False)

    @text.default
    def _read(self) -> str:
        return self.path.read_text()

    def __str__(self) -> str:
        """Name the page in the title of a test."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def prose(self) -> str:
        """What is outside of code blocks."""
        return FENCED.sub("", self.text)

    @property
    def anchors(self) -> set[str]:
        """The anchors that GitHub gives the headings."""
        headings = re.findall(r"^#+ (.*)", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}

    def section(self, title: str) -> str:
        """Give what is under a heading, up to the next one."""
        found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", self.text, re.MULTILINE | re.DOTALL)
        assert found, title
        return found[1]

    def words(self, title: str) -> str:
        """Give a section without its line ends, so that a phrase is found wherever its line is broken."""
        return " ".join(self.section(title).split())

    def table(self, title: str) -> list[list[str]]:
        """Give the cells of the table in a section, row by row, without its head."""
        lines = [line for line in self.section(title).splitlines() if line.startswith("| ")]
        return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines[2:]]

    @property
    def examples(self) -> list[tuple[str, str]]:
        """Each curl command, with the answer that is shown."""
        return [(command, settled(answer)) for command, answer in EXAMPLE.findall(self.text)]


README = Page(ROOT / "README.md")
API_PAGE, DESK, OFFICE, FILES, EMBEDDING, OPERATING, SCALING, SECURITY, SQL, CHANGES = (
    Page(ROOT / f"service/docs/{name}.md")
    for name in ("api", "desk", "office", "files", "embedding", "operating", "scaling", "security", "sql", "changes")
)
SPEED = Page(ROOT / "tests/bench/README.md")
CODE = Page(ROOT / ".github/CONTRIBUTING.md")
PAGES = [README, API_PAGE, DESK, OFFICE, FILES, EMBEDDING, OPERATING, SCALING, SECURITY, SQL, CHANGES, SPEED, CODE]


def blocks(language: str, text: str) -> list[str]:
    """Give the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def settled(text: str) -> str:
    """Replace what differs from run to run: times, hashes, tokens, and the words that Python puts beside a status."""
    text = re.sub(r"'sha256-[^']*'", "'sha256-…'", text)
    text = re.sub(r"^Done in [0-9.]+ s", "Done in SECONDS", text, flags=re.MULTILINE)
    text = re.sub(r'"seconds":[0-9.]+', '"seconds":SECONDS', text)
    text = re.sub(r"enr_\w{8}_\w{49}", "enr_…", text)
    text = re.sub(r'("id":"|/tokens/)\w{8}', r"\1ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "TIME", text)
    return re.sub(r"^(HTTP/1.1 \d{3}) .*", r"\1", text).rstrip()


def paste(command: str, answer: str) -> str:
    """Run a command in a shell; of what comes keep the lines that the pages show, and the tag if the answer has one."""
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=True)
    head, _, body = done.stdout.partition("\n\n")
    left_out = {*LEFT_OUT} - ({"etag"} if "\netag: " in answer else set())
    shown = [line for line in head.splitlines() if line.partition(":")[0] not in left_out]
    return settled("\n".join(shown) + f"\n\n{body}")


# All pages


def test_all_pages_are_read() -> None:
    """No page is left out of these tests, and the README leads to each."""
    there = {
        file
        for folder in (".", ".github", "migrations", "service", "tests")
        for file in (ROOT.glob("*.md") if folder == "." else (ROOT / folder).rglob("*.md"))
    }
    assert {page.path for page in PAGES} == there
    assert {ROOT / row[0].partition("](")[2].rstrip(")") for row in README.table("Pages")} == there - {README.path}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links(page: Page) -> None:
    """Each relative link leads to a file, and to a heading of that file where the link has an anchor."""
    links = re.findall(r"\]\((?!\w+:)([^)#]*)(?:#([^)]*))?\)", page.prose)
    assert links
    for file, anchor in links:
        target = (page.path.parent / file).resolve() if file else page.path
        assert target.is_file(), file
        assert not anchor or anchor in Page(target).anchors, f"{file}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_form(page: Page) -> None:
    """A page says first for whom it is; its lines of prose have at most 120 characters."""
    assert re.match(r"# .+\n\nThis page is for whoever [^.]+\.", page.text)
    assert [line for line in page.prose.splitlines() if len(line) > 120 and not line.startswith("|")] == []


def test_readme_is_short() -> None:
    """Whoever meets the project first has at most 210 lines to read."""
    assert len(README.text.splitlines()) <= 210


def test_newest_change() -> None:
    """The newest version of the changelog that is released is the code's."""
    newest, *_ = re.findall(r"^## (.*)(?<!, unreleased)$", CHANGES.text, re.MULTILINE)
    assert newest == __version__


# The API


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not on this machine")
@pytest.mark.parametrize("page", [README, API_PAGE], ids=str)
def test_examples(serve: Callable[[], Server], page: Page) -> None:
    """Pasted in order on an empty database, every curl example gets the status, headers and body that are shown."""
    address = serve().url.removeprefix("http://")
    shown = page.examples
    assert len(shown) >= 10
    assert [(command, paste(command.replace(SHOWN, address), answer)) for command, answer in shown] == shown


@pytest.mark.parametrize("page", [README, API_PAGE], ids=str)
def test_headers_that_are_left_out(page: Page) -> None:
    """Each page with examples says which headers its answers are shown without."""
    said = re.search(r"The answers are shown without the headers ([^.]*)\.", " ".join(page.text.split()))
    assert said
    assert re.findall(r"`([\w-]+)`", said[1]) == LEFT_OUT


def test_every_example_is_run() -> None:
    """No other page has requests, and each request that is shown has its answer."""
    assert [(page, page.text.count("curl -i")) for page in PAGES if "curl -i" in page.text] == [
        (README, len(README.examples)),
        (API_PAGE, len(API_PAGE.examples)),
    ]


def test_start(serve: Callable[[], Server], path: Path) -> None:
    """The README shows the line that the server begins with."""
    server = serve()
    line = server.line.replace(server.url.removeprefix("http://"), SHOWN).replace(str(path), Settings().database_url)
    assert line in blocks("text", README.section("Start"))


def test_examples_show_every_operation() -> None:
    """Each method of each route is in an example of the API's page."""
    shown = set()
    for command, _ in API_PAGE.examples:
        asked = re.search(rf"{re.escape(SHOWN)}([^ '?]*)", command)
        method = re.search(r"-X (\w+)", command)
        assert asked
        words = {route: re.sub(r"\{\w+\}", "[^/]+", route.replace("{external_id:path}", ".+")) for route in API}
        route = next(route for route in API if re.fullmatch(words[route], asked[1]))
        shown.add(
            (route, method[1] if method else "POST" if re.search(" (-d|--json|--data-binary) ", command) else "GET")
        )
    assert shown >= {(route, method) for route, methods in API.items() for method in methods}


def test_routes() -> None:
    """The table of routes has every path with its methods, and no other."""
    assert {path: set(methods.split(", ")) for path, methods, _ in API_PAGE.table("Routes")} == {
        path.replace(":path}", "}"): set(methods) for path, methods in API.items()
    }


def test_problems() -> None:
    """The table of refusals has every code with its status, and no other; the table of the rules names some of them."""
    refusals = {code: int(status) for code, status, _ in API_PAGE.table("Refusals")}
    assert refusals == {code: problem.status for code, problem in PROBLEMS.items()}
    assert {refusals[code] for code in re.findall(r"409 `(\w+)`", API_PAGE.section("The rules in one table"))} == {409}


SEAT = ['POST /students/1/courses {"course_id": 1}']
LINE = [*SEAT, 'POST /students/2/courses {"course_id": 1}']
SHUT = 'PATCH /courses/1 {"closes_at": "2025-09-12T16:00:00Z"}'
OTHER = 'POST /students/3/courses {"course_id": 2}'
ENROLL = 'POST /students/3/courses {"course_id": 1}'
OVERRIDE = 'POST /students/%d/courses {"course_id": 1, "override": true}'
SWAP = 'POST /students/%d/swap {"drop_course_id": %d, "enroll_course_id": %d}'
RULES: list[list[str]] = [
    [ENROLL],
    [*SEAT, ENROLL],
    [*LINE, ENROLL],
    [SHUT, ENROLL],
    [*LINE, SHUT, LINE[1]],
    [*LINE, SHUT, OVERRIDE % 3],
    [*LINE, SHUT, OVERRIDE % 2],
    [*LINE, SHUT, OVERRIDE % 1],
    [*LINE, SHUT, SWAP % (1, 1, 2)],
    [*SEAT, OTHER, SWAP % (3, 2, 1)],
    [*LINE, OTHER, SWAP % (3, 2, 1)],
    [SWAP % (1, 1, 2)],
    [*SEAT, OTHER, SWAP.replace("}", ', "or_wait": true}') % (3, 2, 1)],
    [*LINE, SHUT, "DELETE /students/1/courses/1"],
    [*LINE, SHUT, "DELETE /students/2/courses/1"],
    [*LINE, SHUT, "POST /students/1/withdraw"],
    [*LINE, SHUT, "POST /courses/1/cancel"],
    [*LINE, SHUT, "POST /students/1/erase"],
    [*LINE, SHUT, 'PATCH /courses/1 {"capacity": 2}'],
    ['PATCH /courses/1 {"capacity": 2}', *SEAT, SHUT, 'PATCH /courses/1 {"capacity": 1}'],
    [*LINE, SHUT, 'PATCH /courses/1 {"capacity": 0}'],
    [*LINE, SHUT, 'PATCH /courses/1 {"waitlist_capacity": 0}'],
    [*LINE, SHUT],
    [*LINE, SHUT, "DELETE /students/2"],
    [*SEAT, SHUT, "DELETE /students/2"],
    ['POST /terms {"name": "Fall"}', 'PATCH /courses/1 {"term_id": 1}', SHUT, "DELETE /terms/1"],
]
"""Requests for each row of the table of the rules: the last one is what is asked. Course 1 has one seat and one place
on its waitlist, and course 2 has no limit."""


@pytest.mark.parametrize("row", range(len(RULES)))
def test_the_rules_in_one_table(client: TestClient, row: int) -> None:
    """What each row of the table asks gets the answer of the row, and leads to its events."""

    def ask(request: str) -> Any:
        method, path, *body = request.split(" ", 2)
        return client.request(method, path, json=msgspec.json.decode(body[0]) if body else None)

    rules = API_PAGE.table("The rules in one table")
    assert len(rules) == len(RULES)
    for name in "Ada", "Grace", "Alan":
        ask(f'POST /students {{"name": "{name}"}}')
    ask('POST /courses {"name": "Logic", "level": "1", "capacity": 1, "waitlist_capacity": 1}')
    ask('POST /courses {"name": "Algebra", "level": "1"}')
    *before, asked = RULES[row]
    assert [answer.status_code for request in before if (answer := ask(request)).is_error] == []
    known = {event["id"] for event in ask("GET /events").json()}
    answer = ask(asked)
    _, _, shown, _, _, happens = rules[row]
    assert str(answer.status_code) in re.findall(r"\b\d{3}\b", shown), answer.text
    if answer.is_error and "`" in shown:
        assert answer.json()["code"] in re.findall(r"`(\w+)", shown)
    for word in re.findall("201, `(enrolled|waitlisted)", shown):
        assert answer.json()["status"] == word
    events = [event for event in ask("GET /events").json() if event["id"] not in known]
    assert {event["type"] for event in events} == set(re.findall("enrolled|waitlisted|promoted|dropped", happens))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_codes(page: Page) -> None:
    """Wherever a page names a status and a code, or an environment variable, there is such a one."""
    for status, code in re.findall(r"\b(\d{3}) `(\w+)`", page.prose):
        assert code in {"enrolled", "waitlisted"} or PROBLEMS[code].status == int(status), code
    variables = {field.name.upper() for field in attrs.fields(Settings)} | {"CURRENT_TIMESTAMP"}
    assert set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", page.prose)) <= variables


def test_numbers() -> None:
    """The numbers in the text are those of the code."""
    conventions = API_PAGE.words("Conventions")
    assert f"1 to {MAX_NAME} characters" in conventions
    assert f"from 1 to {MAX_ID}" in conventions
    assert re.findall(r"(\d+) MiB", conventions) == [str(MAX_BODY >> 20), str(MAX_BULK_BODY >> 20)]
    assert f"1 to {MAX_LIMIT}" in API_PAGE.words("Lists")
    assert f"at most {MAX_ROWS:,} rows" in API_PAGE.words("Bulk")
    assert f"at most {MAX_WHOLE:,} rows" in API_PAGE.words("Bulk")
    assert f"at most {MAX_BULK_FAULTS:,} faults" in API_PAGE.words("Bulk")
    assert f"at most {MAX_FAULTS};" in API_PAGE.words("Refusals")
    assert f"at most {MAX_EMAIL} characters" in API_PAGE.words("Names and email")
    assert f"up to {MAX_NAME} characters" in API_PAGE.words("What an office does")
    assert f"a text of 1 to {MAX_NAME} characters" in EMBEDDING.words("Who writes")
    assert f"ore than {MOST_DROPPED:,} enrollments" in API_PAGE.words("The rules in one table")
    assert f"ore than {MOST_DROPPED:,} enrollments" in API_PAGE.words("What an office does")
    assert f"at most {MAX_ROWS:,} rows" in OFFICE.words("Enrollments")
    assert f"`split -l {MAX_ROWS}`" in OFFICE.words("Enrollments")
    assert f"at most {MOST_READS} may wait at once" in OPERATING.words("Limits")
    assert f"{GRACE} seconds" in OPERATING.words("Promises")


def test_the_policy_of_the_page() -> None:
    """The page about security names each part of the policy that the page of the API has, and no other."""
    named = set(re.findall(r"`([a-z]+-[a-z]+)(?: ('\w+'))?`", SECURITY.section("What an answer carries")))
    parts = [part.partition(" ") for part in POLICY.split("; ")]
    assert named == {(name, "" if "sha256" in value else value) for name, _, value in parts}


def test_limits() -> None:
    """The limits on the page about security are those of the code, and each setting's is its default."""
    limits = {what: (limit.partition(";")[0], setting) for what, limit, setting in SECURITY.table("Limits")}
    assert limits["body of a request"][0] == f"{MAX_BODY >> 20} MiB, or {MAX_BULK_BODY >> 20} MiB for a bulk"
    assert limits["rows of a bulk"][0].startswith(f"{MAX_ROWS:,}, or {MAX_WHOLE:,} with")
    assert limits["rows of a page"][0] == f"{MAX_LIMIT:,}"
    defaults = {field.name.upper(): field.default for field in attrs.fields(Settings)}
    for limit, setting in limits.values():
        if setting:
            default: Any = defaults[setting]
            written = f"{default >> 20} MiB" if setting == "MAX_HELD_BYTES" else f"{default:,g}"
            assert re.match(rf"{re.escape(written)}\b", limit), setting


def test_scopes() -> None:
    """The table of scopes has every scope, and no other."""
    assert [scope for scope, _ in SECURITY.table("Tokens")] == [*SCOPES]


# An office's morning

COMMANDS = re.compile(r"^```sh\n(.*?)^```(?:\n\n^```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL)
BETWEEN = "\036"


def type_in(commands: list[str], folder: Path) -> list[str]:
    """Type commands into one shell, and give what each of them prints."""
    script = "".join(f"{each}printf '{BETWEEN}'\n" for each in commands).replace("python3", sys.executable)
    done = subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return [settled(each) for each in done.stdout.split(BETWEEN)[:-1]]


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not on this machine")
def test_an_offices_morning(serve: Callable[[], Server], tmp_path: Path) -> None:
    """The commands print what is shown; given again, they change nothing, and are refused as the table says."""
    url = serve().url
    found = COMMANDS.findall(OFFICE.text)
    commands = [command.replace(SHOWN, url.removeprefix("http://")) for command, _ in found]
    assert len(commands) == 10
    assert type_in(commands, tmp_path) == [settled(shown) for _, shown in found]

    def kept() -> list[Any]:
        with httpx2.Client(base_url=url) as client:
            return [client.get(f"/{path}").json() for path in ("students", "courses", "events", "courses/1/waitlist")]

    before = kept()
    again = "".join(type_in(commands[1:], tmp_path))
    assert kept() == before
    answers = " ".join(answer for _, answer in OFFICE.table("All of it again"))
    refused = re.findall(r'"status":(\d+)[^{}]*"code":"(\w+)"', again)
    assert {*refused} == set(re.findall(r"(\d+) `(\w+)", answers))
    assert {*re.findall(r"\} (\d+)$", again, re.MULTILINE)} == {"200", "409"}
    assert type_in(commands[-1:], tmp_path) == ["[]"]


# Files


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not on this machine")
def test_files(
    serve: Callable[[], Server], db: pw.Database, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands print what is shown, of the school that the page speaks of."""
    terms.insert_term(db, "Autumn", external_id="2026A", starts_on="2026-09-01", ends_on="2026-12-18")
    courses.insert_course(db, "Logic", "beginner", 1, 2, external_id="LOGIC/A", term_id=1)
    for name, external_id in (("Ada Lovelace", "20001"), ("Grace Hopper", "20002"), ("Alan Turing", "20003")):
        students.insert_student(db, name, external_id=external_id)
    students.update_student(db, 1, {"email": "ada@example.org"})
    for student_id in (2, 3, 1):
        enrollments.enroll(db, student_id, 1)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("DATABASE_URL", str(path))
    url = serve().url.removeprefix("http://")
    found = [
        (re.sub("^python ", f"{sys.executable} ", command.replace(SHOWN, url), flags=re.MULTILINE), shown)
        for command, shown in COMMANDS.findall(FILES.text)
    ]
    found, taken = found[:5], found[5:]
    assert len(taken) == 3
    (tmp_path / "out").mkdir()
    folder = tmp_path / "out"
    assert type_in([command for command, _ in found[:-1]], folder) == [settled(shown) for _, shown in found[:-1]]
    enrollments.drop(db, 2, 1)
    assert type_in([found[-1][0]], folder) == [settled(found[-1][1])]
    assert type_in([command for command, _ in taken], folder) == [settled(shown) for _, shown in taken]


def test_numbers_of_files() -> None:
    """The numbers on the page about files are those of the code."""
    words = FILES.words("Export")
    assert f"for up to {SCAN_WAIT:g} seconds" in words
    assert f"{MOST_SCANS - SCANS} more requests may wait" in words
    assert SCANS == 2
    assert [row[0] for row in FILES.table("OneRoster")][1:3] == ["a term with both days", "a course"]


# Operating


def test_settings() -> None:
    """The table of settings has every field with its variable and its default, and no other."""
    assert [row[:3] for row in OPERATING.table("Settings")] == [
        [field.name, field.name.upper(), str(field.default) or "empty"] for field in attrs.fields(Settings)
    ]


def test_metrics() -> None:
    """The table of metrics has each with its type and what it tells, and no other."""
    assert [tuple(row) for row in OPERATING.table("Metrics")] == [
        (name, kind, says) for name, (kind, says) in FAMILIES.items()
    ]


def test_commands() -> None:
    """The table of commands has every command, and the section every option."""
    assert {name for name, _ in OPERATING.table("Commands")} == set(cli.commands)
    commands = [*cli.commands.values(), *token.commands.values()]
    options = {each for command in (cli, *commands) for option in command.params for each in option.opts}
    options -= {"token_id", "file", "files", "path", "source", "target"}
    assert [option for option in options if not re.search(rf"`[^`]*{option}`", OPERATING.section("Commands"))] == []


# The code


def test_make_targets() -> None:
    """The list of make targets is the Makefile's own."""
    targets = re.findall(r"^(\w+):.*## (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^  make (\w+) +(.*)", CODE.section("Make"), re.MULTILINE) == targets


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_make_commands(page: Page) -> None:
    """Wherever a page says to run make, the Makefile has that target."""
    targets = re.findall(r"^(\w+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:`|^|  )make (\w+)", page.text, re.MULTILINE)) <= set(targets)


def file_of(module: str) -> Path | None:
    """Give the file of a module of the service, if there is such a module."""
    place = ROOT / module.replace(".", "/")
    files = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in files if module.partition(".")[0] == "service" and file.is_file()), None)


def imports(path: Path) -> set[Path]:
    """Give the modules of the service that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {file_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ""
            found |= {file_of(f"{package}.{alias.name}") or file_of(package) for alias in node.names}
    return {file for file in found if file}


def test_modules() -> None:
    """The table of modules has every module but packages that are empty, and each imports only from those below it."""
    modules = [ROOT / module for module, _ in CODE.table("Modules")]
    empty = {path for path in (ROOT / "service").rglob("__init__.py") if len(ast.parse(path.read_text()).body) == 1}
    assert sorted(modules) == sorted({*(ROOT / "service").rglob("*.py")} - empty)
    for place, module in enumerate(modules):
        assert imports(module) <= {*modules[place + 1 :]}, module


def test_paths() -> None:
    """Each path in the page about the code is there."""
    named = re.findall(r"`((?:\.ci|service|tests|migrations)/[\w/.]*)`", CODE.prose)
    assert len(named) > 40
    assert [path for path in named if not (ROOT / path).exists()] == []


# Speed


def test_speed() -> None:
    """The figures are those of results.json, whose charts are there."""
    results = msgspec.json.decode((ROOT / "tests/bench/results.json").read_bytes())
    text = " ".join(SPEED.text.split())
    machine, plan = results["machine"], results["plan"]
    kernel = ".".join(machine["kernel"].split(".")[:2])
    assert (
        f"Measured on {machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, Linux {kernel}, "
        f"Python {machine['python']}, by `{results['command']}`: medians of {plan['rounds']} rounds of "
        f"{plan['seconds']} s." in text
    )
    for part in report.markdown(results).split("\n\n"):
        assert part in SPEED.text
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
    charts = {path for path in (ROOT / "tests/bench/charts").iterdir() if path.suffix == ".svg"}
    assert {SPEED.path.parent / chart for chart in re.findall(r"!\[.*?\]\((.*?)\)", text)} == charts
    assert figures.errors(results) == {}


# Embedding


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


@pytest.mark.long
@pytest.mark.parametrize(("module", "name"), [("starlette.applications", "Starlette"), ("fastapi", "FastAPI")])
def test_embedding_in_a_host_app(tmp_path: Path, module: str, name: str) -> None:
    """The code for Starlette serves the API under its prefix, and so it does with FastAPI in its place."""
    (block,) = blocks("python", EMBEDDING.section("Mounted in Starlette or FastAPI"))
    save(block.replace("starlette.applications", module).replace("Starlette", name), tmp_path)
    with hosting("uvicorn", "host:app", folder=tmp_path) as client:
        add_student(client, "/enrollment")


@pytest.mark.long
def test_embedding_who_writes(tmp_path: Path) -> None:
    """The actor whom the middleware that is shown names is in the events."""
    (block,) = blocks("python", EMBEDDING.section("Who writes"))
    save(block, tmp_path)
    with hosting("uvicorn", "host:app", folder=tmp_path) as client:
        add_student(client, "/enrollment")
        client.post("/enrollment/courses", json={"name": "Logic", "level": "1"})
        client.put("/enrollment/students/1/courses/1", headers={"x-remote-user": "office-7"})
        client.delete("/enrollment/students/1/courses/1?reason=Moved")
        told = [(event["actor"], event["reason"]) for event in client.get("/enrollment/events").json()]
        assert told == [("office-7", None), (None, "Moved")]


def test_embedding_who_may_come_in(tmp_path: Path) -> None:
    """The function that is shown lets in the accounts that it knows, for what it says."""
    (block,) = blocks("python", EMBEDDING.section("Who may come in"))
    save(block, tmp_path)
    with hosting("uvicorn", "host:app", folder=tmp_path) as client:
        for account, status in (("nobody", 401), ("desk-2", 403), ("office-7", 201)):
            headers = {"x-remote-user": account}
            assert client.post("/enrollment/students", json={"name": "Ada"}, headers=headers).status_code == status


@pytest.mark.long
def test_the_first_token(serve: Callable[..., Server], path: Path) -> None:
    """Pasted while the server runs, what is shown makes a token, with which the server answers."""
    shown = [block for block in blocks("sh", SECURITY.section("Tokens")) if "curl" in block]
    server = serve(AUTH="tokens")
    script = "".join(shown).replace("python -m", f"{sys.executable} -m").replace(SHOWN, server.url)
    environ = {**os.environ, "DATABASE_URL": str(path)}
    done = subprocess.run(
        ["sh", "-c", script], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]"
    assert httpx2.get(f"{server.url}/students").status_code == 401
    assert {row[0] for row in SECURITY.table("Who needs a token")} == {"auto", "tokens", "none"}


def test_the_unit_asks_for_tokens() -> None:
    """Behind a proxy the service cannot tell who is of this machine: the unit that is shown asks for a token."""
    (unit,) = blocks("ini", OPERATING.section("systemd"))
    assert "\nEnvironment=AUTH=tokens\n" in unit


@pytest.mark.long
def test_embedding_in_the_readme(tmp_path: Path) -> None:
    """The program in the README serves the student whom it has added without HTTP."""
    (block,) = blocks("python", README.section("Inside a Python program"))
    save(block, tmp_path)
    (url,) = re.findall(r"`(/\S+)`", README.section("Inside a Python program"))
    with hosting("uvicorn", "host:app", folder=tmp_path) as client:
        assert client.get(url).json()["name"] == "Ada Lovelace"


def test_public_names() -> None:
    """The names that are said to be public can be imported."""
    names, *_ = blocks("python", EMBEDDING.text)
    assert len(names.splitlines()) == 3
    subprocess.run([sys.executable, "-W", "error", "-c", names], cwd=ROOT, check=True)


@pytest.mark.parametrize("section", ["The rules without HTTP", "What an office does"])
def test_embedding_the_rules(tmp_path: Path, section: str) -> None:
    """The code without HTTP prints what is shown."""
    (block,) = blocks("python", EMBEDDING.section(section))
    (shown,) = blocks("text", EMBEDDING.section(section))
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
    assert '`SqliteDatabase("school.db", pragmas={"foreign_keys": 1})`' in EMBEDDING.section("The rules without HTTP")
    with pw.SqliteDatabase(str(path), pragmas={"foreign_keys": 1}) as db:
        ada = students.insert_student(db, "Ada").id
        full = courses.insert_course(db, "Logic", "1", capacity=0).id
        for student_id, refusal in (ada, CourseFull), (ada + 1, StudentNotFound):
            with pytest.raises(refusal):
                enrollments.enroll(db, student_id, full)


@pytest.mark.long
def test_embedding_in_datasette(tmp_path: Path) -> None:
    """With the plugin and the two commands that are shown, Datasette and the API answer from one file."""
    (plugin,) = blocks("python", EMBEDDING.section("In Datasette"))
    save(plugin, tmp_path)
    migrate, datasette = "".join(blocks("sh", EMBEDDING.section("In Datasette"))).splitlines()
    migrate = migrate.replace("python", sys.executable, 1)
    subprocess.run(shlex.split(migrate), cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    with hosting(*shlex.split(datasette), folder=tmp_path) as client:
        add_student(client, "/enrollment")
        (row,) = client.get("/school/students.json?_shape=array").json()
        assert (row["id"], row["name"]) == (1, "Ada")


# Plain SQL


def test_sql(path: Path) -> None:
    """The statements that are shown do on a plain connection what is said, and the database's own events tell it."""
    with closing(connect(path)) as db:
        ada = students.insert_student(db, "Ada").id
        grace = students.insert_student(db, "Grace").id
        courses.insert_course(db, "Algebra", "1")
        logic = courses.insert_course(db, "Logic", "1", capacity=1, waitlist_capacity=1).id
        alan = students.insert_student(db, "Alan").id
        insert, delete, past_the_rules, upsert, note, blank = blocks("sql", SQL.text)
        with closing(sqlite3.connect(path, isolation_level=None)) as plain:
            plain.execute(insert)
            enrollments.enroll(db, grace, logic)
            plain.execute(delete)
            plain.execute(past_the_rules)
            plain.executescript(note)
            told = [(event.type, event.student_id, event.reason) for event in events.list_events(db)]
            assert told == [
                *(("enrolled", ada, None), ("waitlisted", grace, None)),
                *(("dropped", ada, "Moved here"), ("promoted", grace, None), ("enrolled", alan, None)),
            ]
            assert courses.find_course(db, logic).capacity == 2
            plain.execute(blank)
            assert {event.reason for event in events.list_events(db)} == {None}
            for _ in range(2):
                plain.executescript(upsert)
            with pytest.raises(sqlite3.IntegrityError, match="external_id_taken"):
                plain.execute("INSERT OR REPLACE INTO students (name, external_id) VALUES ('Ada', '20001')")
        assert [each.name for each in students.list_students(db, external_id="20001")] == ["Ada Lovelace"]


def test_sql_names_every_table(db: pw.SqliteDatabase) -> None:
    """The table of what other programs may do has every table of the service."""
    named = re.findall(r"^\| `(\w+)` \|", SQL.text, re.MULTILINE)
    assert {*named, "enrollment_migrations", "sqlite_sequence"} == set(db.get_tables())


# Deploying


def test_prefix(serve: Callable[..., Server]) -> None:
    """The prefix that nginx is shown to strip is the one that the unit is shown to put back."""
    unit = re.search(r"`Environment=(ROOT_PATH)=(\S+)`", OPERATING.section("nginx"))
    nginx = re.search(r"location (/\w+)/ \{\n +proxy_pass (\S+);", OPERATING.section("nginx"))
    assert unit
    assert nginx
    assert nginx[2] == "http://enrollment/"
    assert f"upstream enrollment {{\n    server {SHOWN};" in OPERATING.section("nginx")
    with httpx2.Client(base_url=serve(**{unit[1]: unit[2]}).url) as client:
        added = client.post("/students", json={"name": "Ada"})
        assert added.headers["location"] == f"{nginx[1]}/students/1"


def test_the_name_behind_nginx(serve: Callable[..., Server]) -> None:
    """What the unit is shown to add lets the service answer to the name that nginx is shown to hand on."""
    shown = OPERATING.section("nginx")
    name = re.search(r"server_name (\S+);", shown)
    added = dict(re.findall(r"`Environment=(ALLOWED_HOSTS|PUBLIC_URL)=(\S+)`", shown))
    assert name
    assert "proxy_set_header Host $host;" in shown
    by_name, by_url = serve(ALLOWED_HOSTS=added["ALLOWED_HOSTS"]), serve(PUBLIC_URL=added["PUBLIC_URL"])
    for server, host in (by_name, name[1]), (by_url, "127.0.0.1"):
        headers = {"host": host, "origin": f"https://{name[1]}"}
        assert httpx2.post(f"{server.url}/students", json={"name": "Ada"}, headers=headers).status_code == 201


@pytest.mark.long
def test_backup_and_restore(serve: Callable[[], Server], path: Path) -> None:
    """What is copied from the running service with the commands that are shown comes back with the other commands."""
    section = OPERATING.section("Backups and restore")
    for there, ours in {
        "/var/lib/enrollment/enrollment.db": path,
        "/var/backups": path.parent,
        "/opt/enrollment/bin/python": sys.executable,
    }.items():
        section = section.replace(there, str(ours))
    backup, daily, restore = blocks("sh", section)

    server = serve()
    with httpx2.Client(base_url=server.url) as client:
        for command, name in (backup, "Ada"), (daily, "Grace"):
            client.post("/students", json={"name": name})
            subprocess.run(["sh", "-ec", command], cwd=ROOT, check=True)
        client.post("/students", json={"name": "Too late"})
    server.process.kill()
    server.process.wait()
    stop, *commands, start = restore.strip().splitlines()
    assert (stop, start) == ("systemctl stop enrollment", "systemctl start enrollment")
    for command in commands:
        subprocess.run(["sh", "-c", command], check=True)
    assert [each["name"] for each in httpx2.get(f"{serve().url}/students").json()] == ["Ada", "Grace"]


@pytest.mark.long
def test_the_daily_backup_tells_what_is_wrong(path: Path, tmp_path: Path) -> None:
    """The file that is shown for cron fails, and prints why, where the copy does not stand the test."""
    _, daily, _ = blocks("sh", OPERATING.section("Backups and restore"))
    with closing(sqlite3.connect(path)) as plain:
        plain.execute("DROP TRIGGER enrollment_added")
    for there, ours in (("/var/lib/enrollment/enrollment.db", path), ("/var/backups", tmp_path)):
        daily = daily.replace(there, str(ours))
    daily = daily.replace("/opt/enrollment/bin/python", sys.executable)
    done = subprocess.run(["sh", "-ec", daily], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, "enrollment_added" in done.stdout) == (1, True)
    assert done.stderr.startswith("Error: The database is not sound.")


@pytest.mark.skipif(not shutil.which("sqlite3"), reason="sqlite3 is not on this machine")
def test_erased_for_good(path: Path) -> None:
    """After an erasure and the command that is shown, neither the name nor the reason is anywhere in the files."""
    (command,) = blocks("sh", SECURITY.section("Erased students"))
    with closing(connect(path)) as db:
        ada = students.insert_student(db, "Ada Lovelace").id
        logic = courses.insert_course(db, "Logic", "1").id
        enrollments.enroll(db, ada, logic, reason="Allergic to algebra")
        registrar.erase_student(db, ada)
    subprocess.run(["sh", "-c", command.replace("/var/lib/enrollment/enrollment.db", str(path))], check=True)
    left = b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    assert b"Lovelace" not in left
    assert b"Allergic" not in left
    assert b"Logic" in left
