"""A refusal leaves nothing behind that Python's garbage collector has to find."""

import gc
import sqlite3
from collections.abc import Callable
from contextlib import suppress

import peewee as pw
import pytest
from answers import open_school

from service import courses, enrollments, registrar, students
from service.errors import ServiceError

REFUSED: dict[str, Callable[[pw.Database], object]] = {
    "POST": lambda db: enrollments.enroll(db, 3, 1),
    "DELETE": lambda db: students.delete_student(db, 1),
    "PATCH": lambda db: courses.update_course(db, 1, {"capacity": 0}),
    "external id": lambda db: courses.insert_course(db, "Music", "A1", external_id="M"),
    "override": lambda db: enrollments.enroll(db, 9, 1, override=True),
    "swap": lambda db: registrar.swap(db, 1, 1, 9),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_a_refusal_leaves_no_statement_behind(db: pw.SqliteDatabase, call: Callable[[pw.Database], object]) -> None:
    """A statement that was refused is gone at once: a thread that collects it later waits for its connection."""
    open_school(db)
    courses.update_course(db, 1, {"external_id": "M"})
    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(each, sqlite3.Cursor) for each in gc.get_objects())
        with suppress(ServiceError):
            pytest.fail(f"It gave {call(db)}.")
        assert sum(isinstance(each, sqlite3.Cursor) for each in gc.get_objects()) == before
    finally:
        gc.enable()
