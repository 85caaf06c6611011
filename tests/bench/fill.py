"""Fill a new database of the service with copies of the campus: python -m bench.fill FILE COPIES < campus.json.

It runs as a process of its own, in which `service` is that of the tree that will be measured. Everything goes in by
the rules that its callers obey, so that whatever the schema is, the file is as use would have left it.
"""

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

import service
from bench.campus import Campus, Pair
from bench.systems import COURSES, STUDENTS
from service import bulk

ROWS = 100_000
"""Enrollments in one transaction."""


def main(path: Path, copies: int, campus: Campus) -> None:
    """Migrate the file, fill it, and count what is there.

    Every third enrollment comes after all others, in between them. Those fill every page, as a file that grew never
    has them: the late ones then split each in two that are three quarters full.
    """
    service.migrate(path)
    db = service.connect(path)
    db.execute_sql("PRAGMA synchronous = OFF")
    with db.atomic("IMMEDIATE"):
        db.connection().executemany(STUDENTS, enumerate(campus.students * copies, 1))
        courses = enumerate(campus.courses * copies, 1)
        db.connection().executemany(COURSES, ((at, *course) for at, course in courses))
    for late in (False, True):
        pairs = _pairs(campus, copies, late=late)
        while rows := list(islice(pairs, ROWS)):
            bulk.enroll_all(db, rows)
    (kept,) = db.execute_sql("SELECT count(*) FROM enrollments").fetchone()
    (counted,) = db.execute_sql("SELECT sum(enrolled) FROM courses").fetchone()
    db.close()
    if not kept == counted == copies * len(campus.enrollments):
        sys.exit(f"{copies * len(campus.enrollments)} were to be enrolled; {kept} are, and {counted} are counted.")


def _pairs(campus: Campus, copies: int, *, late: bool) -> Iterator[Pair]:
    moved = (campus.moved(pair, copy) for copy in range(copies) for pair in campus.enrollments)
    return (pair for pair in moved if (sum(pair) % 3 == 0) == late)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), msgspec.json.decode(sys.stdin.buffer.read(), type=Campus))
