"""What holds for every database file between any two commits: what `python -m service check` proves, and more.

The API's lists are what the feed folds to, and a seat that is freed is taken at once.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import peewee as pw

from service import connect
from service.courses import find_course
from service.enrollments import list_roster, list_schedule, list_waitlist
from service.events import EventRecord, list_events
from service.storage import fetch
from service.storage.kinds import is_postgresql, schema_of

Seats = dict[int, str]
"""Who has a seat in one course: student to enrolled_at."""
Line = list[int]
"""Who waits for a seat in it, head first."""

ALL = 2**63 - 1
SOME = 250
"""Of how many students, or courses, the lists are read one by one; of more, as many are read, spread over all."""


def spread(found: dict[int, Any]) -> dict[int, Any]:
    """Give at most `SOME` of those that were found, the last one among them."""
    return dict([*found.items()][:: -max(1, -(-len(found) // SOME))])


def feed(db: pw.Database) -> Iterator[EventRecord]:
    """Give all events as a consumer gets them: page by page, each after the last id seen."""
    last = 0
    while page := list_events(db, last, limit=1000):
        assert all(before.id < event.id for before, event in pairwise(page))
        yield from page
        last = page[-1].id


def follow(events: Iterable[EventRecord]) -> Iterator[tuple[EventRecord, Seats, Line]]:
    """Fold the feed: give each event with its course's seats and line as the event leaves them.

    A seat that is freed while somebody waits is taken by the next event.
    """
    courses: dict[int, tuple[Seats, Line]] = {}
    freed = None
    for event in events:
        seats, line = courses.setdefault(event.course_id, ({}, []))
        assert freed in (None, (event.course_id, event.type)), "A seat was empty while someone waited."
        freed = None
        match event.type:
            case "enrolled":
                seats[event.student_id] = event.at
            case "waitlisted":
                line.append(event.student_id)
            case "promoted":
                line.remove(event.student_id)
                seats[event.student_id] = event.at
            case "dropped" if event.student_id in line:
                line.remove(event.student_id)
            case "dropped":
                del seats[event.student_id]
                freed = (event.course_id, "promoted") if line else None
        yield event, seats, line


def check_feeds(db: pw.Database, events: Sequence[EventRecord]) -> None:
    """Assert that the feed of each student, and of each course, is what the feed of all says of it."""
    students, courses = defaultdict(list), defaultdict(list)
    for event in events:
        students[event.student_id].append(event)
        courses[event.course_id].append(event)
    for student_id, theirs in spread(students).items():
        assert list_events(db, student_id=student_id, limit=ALL) == theirs
    for course_id, its in spread(courses).items():
        assert list_events(db, course_id=course_id, limit=ALL) == its


def check(path: Path | str) -> dict[int, tuple[Seats, Line]]:
    """Assert all that holds for the file, and give each course's seats and line.

    It reads one snapshot, so others may write meanwhile.
    """
    with closing(connect(path)) as db, db.atomic(*["READ"] * is_postgresql(path)):
        results = schema_of(path).run(db)
        assert [f"{result.invariant.name}: {result}" for result in results if result.broken or result.over] == []
        events = [*feed(db)]
        check_feeds(db, events)
        folded = {event.course_id: (seats, line) for event, seats, line in follow(events)}
        found = {course_id: folded.get(course_id, ({}, [])) for (course_id,) in fetch(db, "SELECT id FROM courses")}
        schedules: dict[int, list[tuple[int, str | None, str, int | None]]] = {}
        for course_id, (seats, line) in sorted(found.items()):
            check_course(db, course_id, seats, line)
            for student_id, at in seats.items():
                schedules.setdefault(student_id, []).append((course_id, at, "enrolled", None))
            for position, student_id in enumerate(line, 1):
                schedules.setdefault(student_id, []).append((course_id, None, "waitlisted", position))
        for student_id, schedule in spread(schedules).items():
            rows = list_schedule(db, student_id, limit=ALL)
            assert [(row.id, row.enrolled_at, row.status, row.position) for row in rows] == schedule
        return found


def check_course(db: pw.Database, course_id: int, seats: Seats, line: Line) -> None:
    """Assert that a course, its roster and its waitlist are shown as its events fold."""
    course = find_course(db, course_id)
    assert (course.enrolled, course.waitlisted) == (len(seats), len(line))
    seats_left, places_left = (
        (inf if limit is None else limit) - len(taken)
        for limit, taken in ((course.capacity, seats), (course.waitlist_capacity, line))
    )
    assert course.seats_left == (None if course.capacity is None else seats_left)
    assert course.availability == ("open" if seats_left else "waitlist" if places_left else "full")
    roster = list_roster(db, course_id, limit=ALL)
    assert [(row.id, row.enrolled_at, row.status, row.position) for row in roster] == [
        (student_id, at, "enrolled", None) for student_id, at in sorted(seats.items())
    ]
    waitlist = [row for _, row in list_waitlist(db, course_id, limit=ALL)]
    assert [(row.id, row.enrolled_at, row.status, row.position) for row in waitlist] == [
        (student_id, None, "waitlisted", position) for position, student_id in enumerate(line, 1)
    ]
