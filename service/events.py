"""List the events, which tell each change of an enrollment: they are a feed that clients follow.

Beside an event stands its note, which says who made it, and why; most events have none.
"""

from collections.abc import Mapping

import attrs
import msgspec
import peewee as pw

from service.errors import FeedRewound
from service.fields import MAX_ID, NAME_OR_NULL, Change, checked, row_id
from service.storage import Pair, backend_of, change, fetch

COLUMNS = "id, type, at, student_id, course_id, actor, reason"
EVENTS = "enrollment_events LEFT JOIN event_notes ON event_notes.event_id = enrollment_events.id"
LIST_ALL = f"""
    SELECT {COLUMNS}
    FROM {EVENTS}
    WHERE id > ?
    ORDER BY id
    LIMIT ?"""
# PostgreSQL must not know which course it is: for one that has most of all events it would read those of all others,
# in the order of their ids, until a page is full.
LIST_OF_COURSE = f"""
    SELECT {COLUMNS}
    FROM {EVENTS}
    WHERE course_id = (SELECT ?) AND id > ?
    ORDER BY id
    LIMIT ?"""
NEWEST = "SELECT coalesce(max(id), 0) FROM enrollment_events"
ADDED = "SELECT student_id, course_id, id FROM enrollment_events WHERE id > ? AND type <> 'promoted' ORDER BY id"
ADD_NOTES = "INSERT INTO event_notes (event_id, actor, reason) VALUES {}"
MAX_NOTES = 500
"""The most notes that one statement adds."""


class EventRecord(msgspec.Struct, frozen=True):
    """One change of an enrollment; `at` is its time, as RFC 3339 in UTC.

    `actor` says who made it, and `reason` why, where that is known. A promotion from the waitlist makes itself.
    """

    id: int
    type: Change
    at: str
    student_id: int
    course_id: int
    actor: str | None = None
    reason: str | None = None


@attrs.frozen
class Why:
    """Who writes, and why, where that is known."""

    actor: str | None = None
    reason: str | None = None


NOBODY = Why()
"""Nothing is known of who writes, and why."""


def why(actor: str | None, reason: str | None) -> Why:
    """Give who writes and why, in the form that is stored; NOBODY where neither is known. Raises InvalidPayload."""
    if actor is None and reason is None:
        return NOBODY
    return Why(**checked({"actor": NAME_OR_NULL, "reason": NAME_OR_NULL}, {"actor": actor, "reason": reason}))


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
    if not rows and after > 0 and after > (newest := newest_event(db)):
        raise FeedRewound(newest)
    return [EventRecord(*row) for row in rows]


def follow_events(
    db: pw.Database, after: int, student_id: int | None, course_id: int | None, limit: int
) -> tuple[list[EventRecord], int]:
    """Give what `list_events` gives, and the id of the newest event of all; in a transaction they are of one state."""
    return list_events(db, after, student_id, course_id, limit), newest_event(db)


def newest_event(db: pw.Database) -> int:
    """Give the id of the newest event, or 0 where there is none."""
    ((newest,),) = fetch(db, NEWEST)
    return int(newest)


def note(db: pw.Database, since: int, whys: Mapping[Pair, Why]) -> None:
    """Note with each pair's last event above the id `since` who made it, and why. Raises ConstraintViolated."""
    events = {(student_id, course_id): event_id for student_id, course_id, event_id in fetch(db, ADDED, since)}
    notes = [(events[pair], each.actor, each.reason) for pair, each in whys.items() if pair in events]
    for at in range(0, len(notes), MAX_NOTES):
        some = notes[at : at + MAX_NOTES]
        change(db, ADD_NOTES.format(", ".join(["(?, ?, ?)"] * len(some))), *(value for row in some for value in row))
