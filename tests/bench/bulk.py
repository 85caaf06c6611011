"""Bulk: rows per second over HTTP, against executemany on a bare sqlite3 connection."""

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


def take(pairs: Iterator[Pair]) -> list[Pair]:
    """Give as many as one bulk has."""
    return list(islice(pairs, ROWS))


def post(server: Server, pairs: list[Pair]) -> float:
    """Enroll ROWS pairs in one request; give rows per second."""
    body = json.dumps([{"student_id": student, "course_id": course} for student, course in pairs])

    def send() -> None:
        status, answer = server.ask("POST", "/enrollments", body)
        if status != 200 or f'"enrolled":{ROWS}'.encode() not in answer[-100:]:
            raise click.ClickException(f"The bulk was not enrolled: {status} {answer[-100:]!r}")

    return _rate(send)


def insert(db: sqlite3.Connection, pairs: list[Pair]) -> float:
    """Insert ROWS pairs with executemany and commit; give rows per second."""
    rows = [(*pair, ENROLLED_AT) for pair in pairs]

    def run() -> None:
        with db:
            db.executemany(ENROLLMENTS, rows)

    return _rate(run)


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


def _rate(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return ROWS / (time.perf_counter() - started)
