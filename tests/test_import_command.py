"""The command `import`: what it takes and prints, how it ends, and that the service goes on beside it."""

import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from statistics import quantiles

import httpx2
import pytest
from click.testing import Result
from conftest import ROOT, Server
from school_files import canvas_set, messy, zipped
from test_cli import run
from test_seats import audit, run_script

from service import connect, import_commands
from service.events import list_events
from service.exchange.report import Progress
from service.students import list_students

STUDENTS = "external_id,name,email\n"
COURSES = "external_id,name,level,capacity\n"
ENROLLMENTS = "student_external_id,course_external_id,action\n"


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Write files of three students, of whom one has no email address, and of two courses."""
    texts = {
        "students.csv": STUDENTS + "S1,Ada,ada@example.org\nS2,Bo,\nS3,Cy,nope\n",
        "courses.csv": COURSES + "C1,Logic,1,1\nC2,Algebra,1,\n",
        "enrollments.csv": ENROLLMENTS + "S2,C1,enroll\nS1,C1,enroll\nS1,C2,\nS9,C2,\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, "utf-8")
    return [str(tmp_path / name) for name in texts]


def many(folder: Path, students: int, courses: int = 20) -> list[str]:
    """Write files in which each student is in three courses."""
    texts = {
        "students.csv": STUDENTS + "".join(f"S{n},Student {n},s{n}@example.org\n" for n in range(students)),
        "courses.csv": COURSES + "".join(f"C{n},Course {n},1,\n" for n in range(courses)),
        "enrollments.csv": ENROLLMENTS
        + "".join(f"S{n},C{(n + more) % courses},enroll\n" for n in range(students) for more in range(3)),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    return [str(folder / name) for name in texts]


def imported(path: Path, *args: str) -> Result:
    """Run the command in this process."""
    return run("import", "--database-url", str(path), *args)


def command(path: Path, *args: str) -> list[str]:
    """Give the command line of a process that imports."""
    return [sys.executable, "-m", "service", "import", "--database-url", str(path), *args]


def counts(path: Path) -> list[int]:
    """Count students, enrollments and events."""
    with closing(sqlite3.connect(path)) as db:
        tables = ("students", "enrollments", "enrollment_events")
        return [count for table in tables for (count,) in db.execute(f"SELECT count(*) FROM {table}")]


def test_what_is_printed(path: Path, files: list[str], tmp_path: Path) -> None:
    """The totals and the refused rows are printed, those are written to a file too, and the exit code says so."""
    done = imported(path, *files, "--report", str(tmp_path / "bad.csv"))
    assert done.exit_code == 3
    shown = done.stdout.splitlines()
    assert shown[0].split() == ["courses", "students", "enrollments"]
    assert ["refused", "0", "1", "2"] in [line.split() for line in shown]
    assert any(
        line.startswith("enrollments.csv  3     course_external_id   C1     The course C1 is full") for line in shown
    )
    assert {path.name for path in tmp_path.glob("bad*")} == {"bad-students.csv", "bad-enrollments.csv"}
    # What is mended is taken as it is.
    for place, old, new in ("bad-students.csv", "nope", "cy@example.org"), ("bad-enrollments.csv", "C1", "C2"):
        text = (tmp_path / place).read_text("utf-8")
        assert text.count(old) > 0
        (tmp_path / place).write_text(text.replace(f",{old},", f",{new},").replace("S9,", "S3,"), "utf-8")
    again = imported(path, *map(str, tmp_path.glob("bad-*.csv")))
    assert again.exit_code == 0
    assert counts(path)[:2] == [3, 3]
    audit(path)


def test_a_cell_that_cannot_be_read(path: Path, files: list[str], tmp_path: Path) -> None:
    """A row with a bad cell comes back with all of its cells, and nobody is dropped for it."""
    imported(path, *files)
    Path(files[2]).write_text(ENROLLMENTS + "S2,C1,joined\nS1,C1,\n", "utf-8")
    bad = tmp_path / "bad.csv"
    done = imported(path, files[2], "--missing", "drop", "--max-drops", "100", "--report", str(bad))
    assert done.exit_code == 3
    assert bad.read_text("utf-8-sig").splitlines()[1].startswith("S2,C1,joined,2,invalid_row,")
    assert counts(path)[1] == 2


def test_json(path: Path, files: list[str]) -> None:
    """With --json the report is one line; with --progress ndjson lines of progress are before it."""
    report = json.loads(imported(path, *files, "--json", "--dry-run").stdout)
    assert (report["type"], report["dry_run"], report["finished"]) == ("report", True, True)
    assert report["totals"]["students"]["created"] == 2
    assert [row["line"] for row in report["refused_rows"]] == [4, 3, 5]
    assert counts(path) == [0, 0, 0]
    *lines, last = map(json.loads, imported(path, *files, "--json", "--progress", "ndjson").stdout.splitlines())
    assert [line["type"] for line in lines] == ["progress"] * len(lines)
    assert [line["stage"] for line in lines] == ["reading", "courses", "students", "enrollments"]
    assert {**last, "seconds": 0, "dry_run": True} == {**report, "seconds": 0}


def test_a_report_as_json(path: Path, files: list[str], tmp_path: Path) -> None:
    """A report whose name ends in .json is what --json prints, and takes no file with refused rows along."""
    place = tmp_path / "report.json"
    shown = imported(path, *files, "--json", "--report", str(place))
    assert json.loads(place.read_bytes()) == json.loads(shown.stdout)
    assert [each.name for each in tmp_path.iterdir() if "report" in each.name] == ["report.json"]
    nowhere = imported(path, *files, "--report", "/nowhere/report.json")
    assert (nowhere.exit_code, "cannot be written to /nowhere/report.json: No such" in nowhere.stderr) == (1, True)
    place.unlink()
    place.mkdir()
    assert "--report" in imported(path, *files, "--report", str(place)).stderr


def test_options(path: Path, files: list[str]) -> None:
    """Each option reaches the import."""
    imported(path, *files)
    (_, courses, enrollments) = files
    Path(enrollments).write_text(ENROLLMENTS + "S1,C1,\n", "utf-8")
    assert imported(path, enrollments, "--missing", "drop").exit_code == 1
    assert imported(path, enrollments).exit_code == 3
    why = ("--actor", "office", "--reason", "autumn")
    assert imported(path, enrollments, courses, "--override", "--format", "csv", *why).exit_code == 0
    assert imported(path, enrollments, "--missing", "drop", "--max-drops", "50").exit_code == 0
    with closing(connect(path)) as db:
        assert [(event.type, event.actor, event.reason) for event in list_events(db)][-2:] == [
            ("enrolled", "office", "autumn"),
            ("dropped", None, None),
        ]
    refused = imported(path, enrollments, "--actor", "\x07")
    assert refused.exit_code == 2
    assert "'--actor'" in refused.stderr


@pytest.mark.parametrize(
    ("text", "args", "says"),
    [
        ("", [], "is empty"),
        ("shoe,size\n1,2\n", [], "lacks"),
        (STUDENTS + "S1,Ada,\n", ["--report", "/nowhere/bad.csv"], "/nowhere/bad.csv: No such file"),
    ],
)
def test_what_cannot_be_imported(path: Path, tmp_path: Path, text: str, args: list[str], says: str) -> None:
    """What cannot be imported at all is told in a sentence, with exit code 1."""
    (tmp_path / "students.csv").write_text(text, "utf-8")
    done = imported(path, str(tmp_path / "students.csv"), *args)
    assert done.exit_code == 1
    assert says in done.stderr
    assert "Traceback" not in done.output
    assert counts(path) == [0, 0, 0]


@pytest.mark.parametrize("report", ["students.csv", "./students.csv", "bad.csv"])
def test_a_report_in_the_place_of_a_file(path: Path, tmp_path: Path, report: str) -> None:
    """The refused rows never take the place of a file that is imported, under whatever name."""
    files = [tmp_path / "students.csv", tmp_path / "bad-students.csv"]
    for file in files:
        file.write_text(STUDENTS + "S1,Ada,\nS2,,\n", "utf-8")
    done = imported(path, *map(str, files), "--report", f"{tmp_path}/{report}")
    assert done.exit_code == 2
    assert "is to be imported, and would be written over" in done.stderr
    assert {file.read_text("utf-8") for file in files} == {STUDENTS + "S1,Ada,\nS2,,\n"}
    assert counts(path) == [0, 0, 0]


def test_no_limit_that_is_no_number(path: Path, files: list[str]) -> None:
    """What is no number at all is no limit of how many may be dropped."""
    done = imported(path, *files, "--missing", "drop", "--max-drops", "nan")
    assert (done.exit_code, counts(path)) == (2, [0, 0, 0])
    assert "'--max-drops': nan is no number" in done.stderr


def test_another_database(tmp_path: Path, files: list[str]) -> None:
    """Where there is no database, the command that makes one is named."""
    done = imported(tmp_path / "no.db", *files)
    assert done.exit_code == 1
    assert "migrate" in done.stderr


def test_the_bar(path: Path, tmp_path: Path) -> None:
    """On a terminal a bar shows how far the import is, and is erased at its end."""
    ours, theirs = pty.openpty()
    args = command(path, *many(tmp_path, 300))
    with subprocess.Popen(args, cwd=ROOT, stderr=theirs, stdout=subprocess.PIPE) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):
            while some := os.read(ours, 4096):
                shown += some
    os.close(ours)
    assert process.returncode == 0
    assert b"enrollments [" in shown
    assert b"of 900 rows" in shown
    assert shown.endswith(b"\r\x1b[K")
    half = Progress("students", 5, 10, 50, 2, 2.6)
    assert import_commands.bar(half) == f"students    [{'#' * 15}{'.' * 15}]  50 %  5 of 10 rows  2/s  3 s left"


SLOW = """
    CREATE TRIGGER slow AFTER INSERT ON students BEGIN
        SELECT count(*) FROM (
            WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20000) SELECT x FROM n);
    END;"""
"""Makes each student take some milliseconds."""


def begun(process: "subprocess.Popen[bytes]", path: Path) -> None:
    """Wait until some students are there."""
    while counts(path)[0] < 20:
        assert process.poll() is None
        time.sleep(0.01)


@pytest.mark.long
def test_ctrl_c(path: Path, tmp_path: Path) -> None:
    """Ctrl+C ends the import between two rows; the report tells what was done, and the same command goes on."""
    run_script(path, SLOW)
    files = many(tmp_path, 1_000)
    with subprocess.Popen(command(path, *files, "--json"), cwd=ROOT, stdout=subprocess.PIPE) as process:
        begun(process, path)
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    report = json.loads(told)
    assert report["problem"]["code"] == "interrupted"
    assert report["finished"] is False
    done = report["totals"]["students"]["created"]
    assert counts(path) == [done, 0, 0]
    assert 20 <= done < 1_000
    run_script(path, "DROP TRIGGER slow")
    again = json.loads(imported(path, *files, "--json").stdout)
    assert again["totals"]["students"]["unchanged"] == done
    assert counts(path) == [1_000, 3_000, 3_000]
    audit(path)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_dry_run_is_interrupted(path: Path, tmp_path: Path, number: signal.Signals) -> None:
    """A dry run that is told to end leaves no copy behind."""
    files, work = many(tmp_path, 1_000), tmp_path / "work"
    work.mkdir()
    run_script(path, SLOW)
    environ = {**os.environ, "TMPDIR": str(work)}
    args = command(path, *files, "--dry-run", "--progress", "ndjson")
    with subprocess.Popen(args, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        while '"students"' not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(number)
        told, _ = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert json.loads(told.splitlines()[-1])["problem"]["code"] == "interrupted"
    assert not [*work.iterdir()]
    assert counts(path) == [0, 0, 0]


def test_a_signal_in_this_process(path: Path, tmp_path: Path) -> None:
    """The report of an import that is interrupted says how to go on, and the bar is erased."""
    run_script(path, SLOW)
    over = threading.Event()

    def interrupt() -> None:
        while not over.is_set() and counts(path)[0] < 20:
            over.wait(0.01)
        if not over.is_set():
            signal.raise_signal(signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(interrupt)
        done = imported(path, *many(tmp_path, 1_000), "--progress", "bar")
        over.set()
        waiting.result()
    assert done.exit_code == 130
    assert done.stderr.endswith("\r")  # Click takes away what is for terminals alone.
    assert done.stdout.endswith("the same import again goes on from there.\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.long
def test_killed(path: Path, tmp_path: Path) -> None:
    """After a kill in the middle the file is sound, and the same command does the rest."""
    run_script(path, SLOW)
    files = many(tmp_path, 500)
    for _ in range(3):
        before = counts(path)[0]
        with subprocess.Popen(command(path, *files), cwd=ROOT, stdout=subprocess.DEVNULL) as process:
            while counts(path)[0] < before + 20:
                assert process.poll() is None
                time.sleep(0.01)
            process.kill()
        audit(path)
    run_script(path, "DROP TRIGGER slow")
    assert imported(path, *files).exit_code == 0
    assert counts(path) == [500, 1_500, 1_500]
    audit(path)


@pytest.mark.long
def test_beside_a_server(
    serve: Callable[..., Server], path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While an import runs, the service answers: no write waits long, and none is refused."""
    files = many(tmp_path, 2_000)
    url = serve().url
    waits: dict[str, list[float]] = {"GET": [], "POST": []}
    with httpx2.Client(base_url=url, timeout=30) as client:
        client.get("/courses")
        with subprocess.Popen(command(path, *files, "--json"), cwd=ROOT, stdout=subprocess.PIPE) as process:
            begun(process, path)
            while process.poll() is None:
                for method, where in (("POST", "/students"), ("GET", "/courses")):
                    began = time.perf_counter()
                    answer = client.request(method, where, json={"name": "Ada"} if method == "POST" else None)
                    waits[method].append(time.perf_counter() - began)
                    assert answer.is_success
            told, _ = process.communicate()
    assert json.loads(told)["totals"]["enrollments"]["enrolled"] == 6_000
    for method, times in waits.items():
        p99 = quantiles(times, n=100)[98]
        with capsys.disabled():
            print(f"\n{method} beside an import: p99 {p99:.3f} s of {len(times)}", end=" ")  # noqa: T201
        assert max(times) < 2
    audit(path)


def test_nothing_is_read_of_it_elsewhere() -> None:
    """The other commands load nothing of imports but what an answer over HTTP is, and its refusals."""
    code = "import sys, service.__main__; print(sorted(each for each in sys.modules if 'service.exchange' in each))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    answers = [f"service.exchange{module}" for module in ("", ".errors", ".parts", ".report")]
    assert done.stdout == f"{answers}\n"


@pytest.mark.long
def test_a_set_of_canvas(path: Path, tmp_path: Path) -> None:
    """A set of 14,000 enrollments with repeats goes in, each pair as its active row says; twice is as once."""
    tables = canvas_set()
    zipped(tmp_path / "canvas.zip", tables)
    report = json.loads(imported(path, str(tmp_path / "canvas.zip"), "--json").stdout)
    rows = tables["enrollments.csv"][1:]
    gone = {user[0] for user in tables["users.csv"] if user[-1] == "deleted"}
    active = {(user, section) for _, user, role, section, status, _ in rows if (role, status) == ("student", "active")}
    with closing(sqlite3.connect(path)) as db:
        found = db.execute(
            "SELECT students.external_id, courses.external_id FROM enrollments "
            "JOIN students ON students.id = student_id JOIN courses ON courses.id = course_id"
        ).fetchall()
    assert {*found} == {pair for pair in active if pair[0] not in gone}
    assert {row["code"] for row in report["refused_rows"]} == {"student_not_found"}
    before = counts(path)
    again = json.loads(imported(path, str(tmp_path / "canvas.zip"), "--json").stdout)
    assert counts(path) == before
    assert sum(again["totals"]["enrollments"][each] for each in ("enrolled", "waitlisted", "dropped")) == 0


def test_a_messy_spreadsheet(path: Path, tmp_path: Path) -> None:
    """A list as a spreadsheet saves it goes in, but for the total and the number that two rows have."""
    (tmp_path / "list.csv").write_bytes(messy())
    shown = imported(path, str(tmp_path / "list.csv"))
    assert shown.exit_code == 3
    assert "Windows-1252" in shown.stdout
    assert counts(path)[0] == 40
    report = json.loads(imported(path, str(tmp_path / "list.csv"), "--json").stdout)
    assert report["totals"]["students"]["unchanged"] == 40
    assert [row["code"] for row in report["refused_rows"]] == ["repeated", "invalid_row"]


@pytest.mark.long
def test_every_night(path: Path, tmp_path: Path) -> None:
    """The line of the page for a crontab does its work night after night, whatever the night before has refused."""
    (line,) = re.findall(
        r"^0 3 \* \* \* enrollment (.*)$", (ROOT / "service/docs/files.md").read_text("utf-8"), re.MULTILINE
    )
    folder, reports = tmp_path / "export", tmp_path / "reports"
    for each in (folder, reports):
        each.mkdir()
    for name, place in {
        "/var/lib/enrollment/enrollment.db": path,
        "/opt/enrollment/bin/python": sys.executable,
        "/srv/export": folder,
        "/var/lib/enrollment": reports,
    }.items():
        assert name in line
        line = line.replace(name, str(place))
    codes = []
    assert "-$(date +\\%F).csv" in line
    for night, email in enumerate(("nope", "nope", "ada@example.org", "")):
        texts = {"students": STUDENTS + f"S1,Ada,{email}\n", "courses": COURSES + "C1,Logic,1,\n"}
        texts["enrollments"] = ENROLLMENTS + "S1,C1,\n"
        for name, text in texts.items():
            (folder / f"{name}.csv").write_text(text, "utf-8")
        done = subprocess.run(
            ["sh", "-c", line.replace("$(date +\\%F)", str(night))],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
        codes.append(done.returncode)
    assert codes == [3, 3, 0, 0]
    kinds = ("0-students", "0-enrollments", "1-students", "1-enrollments", "2", "3")
    assert {each.name for each in reports.iterdir()} == {f"mend-{kind}.csv" for kind in kinds}
    assert counts(path)[:2] == [1, 1]


@pytest.mark.parametrize(
    ("kind", "text", "mended"),
    [
        ("students", "external_id,name\nS1,\n", "Ada"),
        ("terms", "external_id,name\nT1,\n", "Autumn"),
        ("courses", "external_id,name\nC1,Logic\n", "Logic,1"),
    ],
)
def test_refused_rows_tell_what_they_are(path: Path, tmp_path: Path, kind: str, text: str, mended: str) -> None:
    """The file of refused rows has a column that tells what they are, whatever its name."""
    (tmp_path / f"{kind}.csv").write_text(text, "utf-8")
    mend = tmp_path / "mend.csv"
    assert imported(path, str(tmp_path / f"{kind}.csv"), "--report", str(mend)).exit_code == 3
    head, row = mend.read_text("utf-8-sig").splitlines()
    mend.write_text(f"{head}\n{row.split(',')[0]},{mended},,,,\n".replace(",,,,,", ",,,,"), "utf-8")
    again = imported(path, str(mend), "--json", "--report", str(tmp_path / "more.csv"))
    report = json.loads(again.stdout)
    assert (again.exit_code, report["totals"][kind]["created"]) == (0, 1)
    # Where nothing was refused any more, the file says nothing.
    both = imported(path, str(mend), str(tmp_path / "more.csv"))
    assert (both.exit_code, "more.csv was left out." in both.stdout) == (0, True)


def test_who_is_missing_in_a_delta(path: Path, files: list[str], tmp_path: Path) -> None:
    """A delta has nobody who has stayed, so it lets nobody be dropped for being missing."""
    assert imported(path, *files).exit_code == 3
    delta = str(tmp_path / "delta.zip")
    export = ("--database-url", str(path), "--format", "oneroster", "--since", "0")
    assert run("export", delta, *export).exit_code == 0
    before = counts(path)
    done = imported(path, delta, "--missing", "drop", "--max-drops", "100")
    assert (done.exit_code, counts(path)) == (1, before)
    assert "have only what has changed" in done.stderr
    assert imported(path, delta).exit_code == 0


def test_a_night_without_changes(path: Path, tmp_path: Path) -> None:
    """A delta in which nothing has changed is imported as any other."""
    delta = str(tmp_path / "delta.zip")
    exported = run("export", delta, "--database-url", str(path), "--format", "oneroster", "--since", "0")
    assert (exported.exit_code, imported(path, delta).exit_code) == (0, 0)


def test_a_break_within_a_cell(path: Path, tmp_path: Path) -> None:
    """A name that a spreadsheet shows in two lines is one name; the row behind it is on the line where it begins."""
    text = '"External\nID",name,email\r\nS1,"Ada \r\n Byron",\r\nS2,Bo,nope\r\n'
    (tmp_path / "students.csv").write_text(text, "utf-8", newline="")
    report = json.loads(imported(path, str(tmp_path / "students.csv"), "--json").stdout)
    assert [(row["line"], row["column"]) for row in report["refused_rows"]] == [(5, "email")]
    with closing(connect(path)) as db:
        assert [student.name for student in list_students(db)] == ["Ada Byron"]


def test_an_unreadable_file_as_json(path: Path, tmp_path: Path) -> None:
    """A program that reads JSON lines is told of a file that cannot be read by a line too."""
    (tmp_path / "x.csv").write_bytes(b"\0")
    done = imported(path, str(tmp_path / "x.csv"), "--progress", "ndjson")
    assert (done.exit_code, json.loads(done.stdout)["problem"]["code"]) == (1, "unreadable_file")
