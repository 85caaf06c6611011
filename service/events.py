"""Events: the history of enrollments, as a feed to follow."""

import msgspec
import peewee as pw

from service.database import fetch_all
from service.errors import FeedRewound
from service.fields import MAX_ID, Change, row_id

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
# Those that are filed, and those that the student's enrollments lead to; of one course or of all. Whose each is
# is looked at once more: where a host's own trigger wrote an event in between, an enrollment names another's.
LIST_OF_STUDENT = """
    SELECT id, type, at, student_id, course_id
    FROM enrollment_events
    WHERE id IN (
        SELECT id FROM (
            SELECT id FROM enrollment_events
            WHERE student_id = ? AND course_id = coalesce(?, course_id) AND id > ? AND filed
            ORDER BY id
            LIMIT ?)
        UNION ALL
        SELECT event_id FROM enrollments
        WHERE student_id = ? AND course_id = coalesce(?, course_id) AND event_id > ?)
      AND student_id = ? AND course_id = coalesce(?, course_id)
    ORDER BY id
    LIMIT ?"""

NEWEST = "SELECT coalesce(max(id), 0) FROM enrollment_events"


class Event(msgspec.Struct, frozen=True):
    """What happened; `at` is RFC 3339, UTC."""

    id: int
    type: Change
    at: str
    student_id: int
    course_id: int


def list_events(
    db: pw.Database, after: int = 0, student_id: int | None = None, course_id: int | None = None, limit: int = 100
) -> list[Event]:
    """Give the events with ids above `after`, oldest first; of one student, of one course, or of all.

    Ids rise in the order of the commits, so who keeps the last id seen misses nothing. Raises FeedRewound
    if `after` is above every id there is, as only after a restore from a backup.
    """
    student, course = (None if each is None else row_id(each) for each in (student_id, course_id))
    since = min(after, MAX_ID)
    if student is not None:
        whose = (student, course)
        rows = fetch_all(db, LIST_OF_STUDENT, *whose, since, limit, *whose, since, *whose, limit)
    elif course is not None:
        rows = fetch_all(db, LIST_OF_COURSE, course, since, limit)
    else:
        rows = fetch_all(db, LIST_ALL, since, limit)
    if not rows and after > 0:
        ((newest,),) = fetch_all(db, NEWEST)
        if after > newest:
            raise FeedRewound(newest)
    return [Event(*row) for row in rows]
