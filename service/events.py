"""List the events, which tell each change of an enrollment: they are a feed that clients follow."""

import msgspec
import peewee as pw

from service.errors import FeedRewound
from service.fields import MAX_ID, Change, row_id
from service.storage import backend_of, fetch

LIST_ALL = """
    SELECT id, type, at, student_id, course_id
    FROM enrollment_events
    WHERE id > ?
    ORDER BY id
    LIMIT ?"""
LIST_OF_COURSE = """
    SELECT id, type, at, student_id, course_id
    FROM enrollment_events
    WHERE course_id = ? AND id > ?
    ORDER BY id
    LIMIT ?"""
NEWEST = "SELECT coalesce(max(id), 0) FROM enrollment_events"


class EventRecord(msgspec.Struct, frozen=True):
    """One change of an enrollment; `at` is its time, as RFC 3339 in UTC."""

    id: int
    type: Change
    at: str
    student_id: int
    course_id: int


def list_events(
    db: pw.Database, after: int = 0, student_id: int | None = None, course_id: int | None = None, limit: int = 100
) -> list[EventRecord]:
    """Give at most `limit` events with ids above `after`, oldest first; of one student, of one course, or of all.

    Ids rise in the order of the commits, so a client that asks for the events after the last id that it has seen misses
    none. Raises FeedRewound if `after` is above every id in the database, as only after a backup was put back.
    """
    student, course = (None if each is None else row_id(each) for each in (student_id, course_id))
    since = min(after, MAX_ID)
    if student is not None:
        rows = backend_of(db).events_of_student(db, student, course, since, limit)
    elif course is not None:
        rows = fetch(db, LIST_OF_COURSE, course, since, limit)
    else:
        rows = fetch(db, LIST_ALL, since, limit)
    if not rows and after > 0:
        ((newest,),) = fetch(db, NEWEST)
        if after > newest:
            raise FeedRewound(newest)
    return [EventRecord(*row) for row in rows]
