"""An import of a large school beside a live server: seconds, memory, and how long the server's readers wait.

Run it as `PYTHONPATH=tests .venv/bin/python -m bench.imports`; `--students 100000` has a million enrollments.
"""

import http.client
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory

import click

ROOT = Path(__file__).parent.parent.parent
COURSES = 2_000
EACH = 10
"""How many courses each student is in."""


def files(folder: Path, students: int, *, shuffle: bool) -> list[str]:
    """Write the files of a school."""
    chance = random.Random(7)
    pairs = [(student, course) for student in range(students) for course in chance.sample(range(COURSES), EACH)]
    if shuffle:
        chance.shuffle(pairs)
    rows: dict[str, Iterator[str]] = {
        "courses.csv": (f"C{n},Course {n},1\n" for n in range(COURSES)),
        "students.csv": (f"S{n},Given{n % 977},Family{n % 3511},s{n}@example.org\n" for n in range(students)),
        "enrollments.csv": (f"S{student},C{course},enroll\n" for student, course in pairs),
    }
    heads = ["external_id,name,level", "external_id,given_name,family_name,email"]
    heads.append("student_external_id,course_external_id,action")
    for (name, lines), head in zip(rows.items(), heads, strict=True):
        with (folder / name).open("w", encoding="utf-8") as file:
            file.write(f"{head}\n")
            file.writelines(lines)
    return [str(folder / name) for name in rows]


@contextmanager
def server(url: str) -> Iterator[int]:
    """Run the service, and give its port."""
    command = [sys.executable, "-m", "service", "serve", "--port", "0", "--database-url", url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            found = re.search(r"at http://[^:]+:(\d+)", process.stdout.readline())
            assert found
            yield int(found[1])
        finally:
            process.terminate()


def ask(port: int, over: threading.Event, waits: list[float], every: float, posts: Sequence[str]) -> None:
    """Send requests, one after the other, until it is over; note how long each took."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while not over.wait(every):
        began = time.perf_counter()
        if posts:
            connection.request("POST", "/students", json.dumps({"name": "Ada"}), {"content-type": "application/json"})
        else:
            connection.request("GET", "/courses?limit=10")
        answer = connection.getresponse()
        answer.read()
        waits.append(time.perf_counter() - began)
        if answer.status >= 300:
            raise click.ClickException(f"The server answered {answer.status}.")


def run(url: str, args: Sequence[str]) -> tuple[float, float, dict[str, object]]:
    """Run the command; give its seconds, its memory in MB (10⁶ bytes) at most, and the report."""
    command = [sys.executable, "-m", "service", "import", "--database-url", url, "--json", *args]
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout
        told = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"The import failed: {told.decode()[:500]}")
    seconds = time.perf_counter() - began
    click.echo(f"processor: {usage.ru_utime + usage.ru_stime:.1f} s")
    return seconds, usage.ru_maxrss * 1024 / 1e6, json.loads(told)


@click.command()
@click.option("--students", default=10_000, show_default=True)
@click.option("--shuffle", is_flag=True, help="Write the enrollments in no order.")
@click.option("--write", is_flag=True, help="Send a POST 20 times a second meanwhile.")
def main(students: int, *, shuffle: bool, write: bool) -> None:
    """Import a school of so many students, each in ten courses, twice, while a server answers."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        url = str(folder / "school.db")
        subprocess.run([sys.executable, "-m", "service", "migrate", "--database-url", url], cwd=ROOT, check=True)
        paths = files(folder, students, shuffle=shuffle)
        with server(url) as port:
            for what in ("on an empty file", "a second time"):
                over, gets, posts = threading.Event(), list[float](), list[float]()
                asking = [threading.Thread(target=ask, args=(port, over, gets, 0.01, ()))]
                if write:
                    asking.append(threading.Thread(target=ask, args=(port, over, posts, 0.05, ("POST",))))
                for thread in asking:
                    thread.start()
                try:
                    seconds, memory, report = run(url, paths)
                finally:
                    over.set()
                    for thread in asking:
                        thread.join()
                click.echo(f"{students * EACH:,} enrollments {what}: {seconds:.1f} s, {memory:.0f} MB")
                click.echo(f"totals: {report['totals']}")
                for method, waits in (("GET", gets), ("POST", posts)):
                    if waits:
                        p99 = quantiles(waits, n=100)[98] * 1e3
                        click.echo(f"{method}: p99 {p99:.1f} ms, most {max(waits) * 1e3:.1f} ms, of {len(waits):,}")


if __name__ == "__main__":
    main()
