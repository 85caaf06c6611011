"""Events: the history of enrollments, as a feed to follow."""

import msgspec
import peewee as pw

from service import models


class Event(msgspec.Struct, frozen=True):
    """What happened: `type` is enrolled, waitlisted, promoted or dropped; `at` is RFC 3339, UTC."""

    id: int
    type: str
    at: str
    student_id: int
    course_id: int


def list_events(
    db: pw.Database, after: int = 0, student_id: int | None = None, course_id: int | None = None, limit: int = 100
) -> list[Event]:
    """Give the events with ids above `after`, oldest first; of one student, of one course, or of all.

    Ids rise in the order of the commits, so who keeps the last id seen misses nothing.
    """
    query = models.Event.select().where(models.Event.id > after)
    if student_id is not None:
        query = query.where(models.Event.student_id == student_id)
    if course_id is not None:
        # With both, the student's index is the one to take, as a student's events are few: + 0 hides the other.
        column = models.Event.course_id if student_id is None else models.Event.course_id + 0
        query = query.where(column == course_id)
    return [Event(*row) for row in query.order_by(models.Event.id).limit(limit).tuples().execute(db)]
