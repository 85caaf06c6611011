"""Growth: the service on one campus, and on files that hold many copies of it, ids moved on."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from bench.campus import ENROLLED_AT, Campus
from bench.systems import SYSTEMS

SIZES = {32_000: 1, 1_000_000: 31, 10_000_000: 307}
"""Enrollments, about, to the copies of the campus that have them."""

LATER = "SELECT type, name, sql FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL"
FILL = """
    WITH RECURSIVE copy (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM copy WHERE n + 1 < :copies)
    INSERT INTO students (id, name)
    SELECT n * :students + id, name FROM copy CROSS JOIN base_students ORDER BY n, id;

    WITH RECURSIVE copy (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM copy WHERE n + 1 < :copies)
    INSERT INTO courses (id, name, level)
    SELECT n * :courses + id, name, level FROM copy CROSS JOIN base_courses ORDER BY n, id"""
ENROLL = """
    WITH RECURSIVE copy (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM copy WHERE n + 1 < :copies)
    INSERT INTO enrollment_events (type, at, student_id, course_id, filed)
    SELECT 'enrolled', :at, n * :students + student_id AS student, n * :courses + course_id AS course, 0
    FROM copy CROSS JOIN base_enrollments
    WHERE ((student + course) % 3 = 0) = :late ORDER BY n, student_id, course_id;

    INSERT INTO enrollments (student_id, course_id, enrolled_at, event_id)
    SELECT student_id, course_id, at, id
    FROM enrollment_events WHERE ((student_id + course_id) % 3 = 0) = :late ORDER BY student_id, course_id"""
"""What the triggers would have written for each row, all at once; `late` is for every third, between the others."""
COUNT = "UPDATE courses SET enrolled = (SELECT count(*) FROM enrollments WHERE course_id = courses.id)"


def build(folder: Path, campus: Campus, copies: int) -> None:
    """Make the service's database with so many copies of the campus, as it would have grown, but fast.

    Triggers come last, and indexes when two of three enrollments are there. Those fill every page, as a file that
    grew never has them: the others then split each in two that are three quarters full.
    """
    ours = SYSTEMS["ours"]
    ours.create(folder)
    with closing(sqlite3.connect(folder / ours.database, isolation_level=None)) as db:
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -500000", "temp_store = MEMORY"):
            db.execute(f"PRAGMA {pragma}")
        later = db.execute(LATER).fetchall()
        for kind, name, _ in later:
            db.execute(f"DROP {kind} {name}")
        db.execute("CREATE TEMP TABLE base_students (id INTEGER PRIMARY KEY, name)")
        db.execute("CREATE TEMP TABLE base_courses (id INTEGER PRIMARY KEY, name, level)")
        db.execute("CREATE TEMP TABLE base_enrollments (student_id, course_id)")
        db.execute("BEGIN")
        db.executemany("INSERT INTO base_students VALUES (?, ?)", enumerate(campus.students, 1))
        db.executemany(
            "INSERT INTO base_courses VALUES (?, ?, ?)", ((n, *row) for n, row in enumerate(campus.courses, 1))
        )
        db.executemany("INSERT INTO base_enrollments VALUES (?, ?)", campus.enrollments)
        numbers = {"copies": copies, "students": len(campus.students), "courses": len(campus.courses)}

        def fill(script: str, **more: int) -> None:
            for statement in script.split(";"):
                db.execute(statement, {**numbers, "at": ENROLLED_AT, **more})

        fill(FILL)
        fill(ENROLL, late=0)
        for kind, _, sql in later:
            if kind == "index":
                db.execute(sql)
        fill(ENROLL, late=1)
        db.execute(COUNT)
        for kind, _, sql in later:
            if kind == "trigger":
                db.execute(sql)
        db.execute("COMMIT")
        db.execute("PRAGMA journal_mode = WAL")
    os.sync()
