"""Many rows at once: a bulk over HTTP, against executemany on a bare sqlite3 connection, and a PATCH that promotes."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import click

from bench.campus import ENROLLED_AT, Campus, Pair
from bench.processes import Server
from bench.systems import ENROLLMENTS, OURS

ROWS = 10_000
"""In one request, which is as many as it may have, and in one transaction of executemany."""
WHOLE = 2_000
"""In one request that is one transaction, which is as many as it may have."""
PROMOTED = 2_000
"""Who waits for seats that one PATCH brings."""


def take(pairs: Iterator[Pair]) -> list[Pair]:
    """Give as many as one bulk has."""
    return list(islice(pairs, ROWS))


def post(server: Server, pairs: list[Pair]) -> float:
    """Enroll pairs in one request; give rows per second."""
    return _post(server, pairs, "enrolled")


def post_whole(server: Server, pairs: list[Pair], how: str) -> float:
    """Enroll pairs in one request that is one transaction, `atomic` or `dry_run`; give rows per second."""
    return _post(server, pairs, "enrolled", f"?{how}=true")


def promote(server: Server) -> float:
    """Let students wait for a course, and give all of them a seat in one request; give promotions per second."""
    course = '{"name": "Seats", "level": "1", "capacity": 0, "waitlist_capacity": null}'
    number = json.loads(_ask(server, "POST", "/courses", course, '"capacity":0'))["id"]
    _post(server, [(student, number) for student in range(1, PROMOTED + 1)], "waitlisted")
    seats = f'"enrolled":{PROMOTED},'
    return _rate(PROMOTED, lambda: _ask(server, "PATCH", f"/courses/{number}", '{"capacity": null}', seats))


def _post(server: Server, pairs: list[Pair], total: str, query: str = "") -> float:
    body = json.dumps([{"student_id": student, "course_id": course} for student, course in pairs])
    return _rate(len(pairs), lambda: _ask(server, "POST", f"/enrollments{query}", body, f'"{total}":{len(pairs)}'))


def _ask(server: Server, method: str, path: str, body: str, sign: str) -> bytes:
    """Send one request, and raise ClickException unless the end of its answer has a sign that it did its work."""
    status, answer = server.ask(method, path, body)
    if status not in (200, 201) or sign.encode() not in answer[-200:]:
        raise click.ClickException(f"{method} {path} did not do its work: {status} {answer[-200:]!r}")
    return answer


def insert(db: sqlite3.Connection, pairs: list[Pair]) -> float:
    """Insert ROWS pairs with executemany and commit; give rows per second."""
    rows = [(*pair, ENROLLED_AT) for pair in pairs]

    def run() -> None:
        with db:
            db.executemany(ENROLLMENTS, rows)

    return _rate(len(pairs), run)


def bare(path: Path, campus: Campus) -> sqlite3.Connection:
    """Make the campus anew in the same tables with the same keys and indexes: no counts, no events, no triggers."""
    db = connect(path)
    db.executescript("""
        PRAGMA journal_mode = WAL;
        CREATE TABLE students (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
        CREATE TABLE courses (id INTEGER PRIMARY KEY, name TEXT NOT NULL, level TEXT NOT NULL);
        CREATE TABLE enrollments (
            student_id INTEGER NOT NULL REFERENCES students (id),
            course_id INTEGER NOT NULL REFERENCES courses (id),
            enrolled_at TEXT NOT NULL,
            PRIMARY KEY (student_id, course_id)
        ) WITHOUT ROWID;
        CREATE INDEX roster ON enrollments (course_id, student_id);""")
    OURS.fill(db, campus)
    db.commit()
    return db


def connect(path: Path) -> sqlite3.Connection:
    """Connect as the service does."""
    db = sqlite3.connect(path)
    db.executescript("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON")
    return db


def _rate(rows: int, work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return rows / (time.perf_counter() - started)
