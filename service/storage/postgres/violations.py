"""Tell which rule refused a statement: a trigger or constraint of the service, or one of another program.

The triggers of the service raise the same words as in SQLite. Where a key or a reference is enough there is no trigger,
and the words for it are here.
"""

import re
from typing import Any

import peewee as pw

from service.errors import ConstraintViolated, ServiceError
from service.storage import Own
from service.storage.postgres.faults import cause_of, failure, is_failure

_TAKEN = "external_id_taken: another row of {} has this external_id"
WORDS = {
    "student_external_id": _TAKEN.format("students"),
    "course_external_id": _TAKEN.format("courses"),
    "term_external_id": _TAKEN.format("terms"),
    "enrollments_pkey": "already_enrolled: the student has a seat in the course, or waits for one",
    "enrollment_events_pkey": "events are never changed",
    "event_notes_pkey": "the note of an event is never changed",
}
"""What a unique index or a primary key of the service refuses, by its name."""
REFERENCES = {
    "enrollments_student_id_fkey": (
        "student_not_found: no student has this id",
        "student_has_enrollments: the student is enrolled or waits",
    ),
    "enrollments_course_id_fkey": (
        "course_not_found: no course has this id",
        "course_has_enrollments: students are enrolled or wait",
    ),
    "courses_term_id_fkey": ("term_not_found: no term has this id", "term_has_courses: the term has courses"),
}
"""What a foreign key of the service refuses: a row that refers to none, and that a row goes to which others refer."""
_FOREIGN_KEY = {"23503", "23001"}
"""The SQLSTATEs of broken references; since PostgreSQL 18, what RESTRICT refuses has the second one."""
_MISSING = re.compile(r'\) .*"(.+)"')
"""The table in the detail of a row that refers to none, in whatever language: Key (x)=(1) … table "students"."""


def violation(
    db: pw.Database, error: BaseException, own: Own = lambda: None, deleted: tuple[str, int] | None = None
) -> ServiceError:
    """Do what `Backend.violation` in `service.storage` says; PostgreSQL names the constraint and the table itself."""
    del db
    told = told_by(cause_of(error), deleted)
    if (refusal := own()) is not None and told.startswith(f"{refusal.code}: "):
        return refusal
    return ConstraintViolated(told.rstrip("."))


def told_by(error: Any, deleted: tuple[str, int] | None = None) -> str:
    """Give what an error of the driver says, in the words of the service where it is one of its own rules."""
    about = error.diag
    constraint = about.constraint_name or ""
    if constraint in REFERENCES:
        return REFERENCES[constraint][deleted is not None]
    if error.sqlstate in _FOREIGN_KEY and deleted and about.table_name:
        return f"rows of the table {about.table_name} refer to it"
    if error.sqlstate in _FOREIGN_KEY and (found := _MISSING.search(about.message_detail or "")):
        return f"a row of {about.table_name} would refer to a row of {found[1]} that is not there"
    return WORDS.get(constraint, about.message_primary or str(error))


def explain(db: pw.Database, error: Exception) -> ServiceError:
    """Do what `Backend.explain` in `service.storage` says."""
    if isinstance(error, ServiceError):
        return error
    if is_failure(error):
        return failure(error, "What was committed before stays.")
    if isinstance(error, pw.IntegrityError):
        return violation(db, error)
    raise error
