"""Give a student a seat in a course past its rules: full or not, whoever waits, and whether the window is open or shut.

The course grows by the seat if it is full, so nobody else moves.
"""

import peewee as pw

from service.errors import AlreadyEnrolled, ConstraintViolated, CourseNotFound, ServiceError, StudentNotFound
from service.events import NOBODY, Why
from service.rows import exists
from service.storage import LEFT_OUT, Pair, backend_of, change, fetch_one

# An event_id of 0 asks for an override: triggers write the event and its note, and count.
ADD = "INSERT INTO enrollments (student_id, course_id, enrolled_at, event_id) VALUES (?, ?, ?, 0) RETURNING student_id"
STANDS = "SELECT waiting FROM enrollments WHERE student_id = ? AND course_id = ?"
PROMOTED = """
    INSERT INTO enrollment_events (type, at, student_id, course_id) VALUES ('promoted', ?, ?, ?)
    RETURNING id"""
NOTE = "INSERT INTO event_notes (event_id, actor, reason, override) VALUES (?, ?, ?, TRUE) RETURNING event_id"
SEAT = """
    UPDATE enrollments SET enrolled_at = ?, waiting = NULL
    WHERE student_id = ? AND course_id = ?
    RETURNING student_id"""
# A course in which somebody waits is full.
COUNT = """
    UPDATE courses
    SET capacity = capacity + 1, enrolled = enrolled + 1, waitlisted = waitlisted - 1, event_id = ?
    WHERE id = ?
    RETURNING id"""
NOTED = """
    UPDATE event_notes SET actor = ?, reason = ?
    WHERE event_id = (SELECT event_id FROM courses WHERE id = ?)
    RETURNING event_id"""


def override(db: pw.Database, pair: Pair, moment: str, why: Why) -> None:
    """Give a seat to the student of a pair, whose ids may be of no row; a student who waits leaves the line.

    `moment` is the time of the enrollment. Raises StudentNotFound, CourseNotFound, AlreadyEnrolled, ConstraintViolated.
    """
    student_id, course_id = pair

    def own() -> ServiceError | None:
        if not exists(db, "students", student_id):
            return StudentNotFound(student_id)
        return None if exists(db, "courses", course_id) else CourseNotFound(course_id)

    def changed(sql: str, *values: object) -> int:
        row = change(db, sql, *values, own=own)
        if row is None:
            raise ConstraintViolated(LEFT_OUT)
        return int(row[0])

    with backend_of(db).atomic(db):
        stands = fetch_one(db, STANDS, *pair)
        if stands == (None,):
            raise AlreadyEnrolled(*pair)
        if stands is None:
            changed(ADD, *pair, moment)
            if why is not NOBODY:
                changed(NOTED, why.actor, why.reason, course_id)
        else:
            event_id = changed(PROMOTED, moment, *pair)
            changed(NOTE, event_id, why.actor, why.reason)
            changed(SEAT, moment, *pair)
            changed(COUNT, event_id, course_id)
