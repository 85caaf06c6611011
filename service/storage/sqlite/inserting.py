"""Enroll many pairs of a student and a course with one INSERT statement, and find the outcome of each pair.

The service's own triggers on the table enrollments write an event for each enrollment into the table enrollment_events.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import chain

import peewee as pw

from service.errors import ConstraintViolated, CourseFull, EnrollmentNotOpen
from service.storage import LEFT_OUT, Outcome, Pair, fetch
from service.storage.sqlite.violations import may_leave_half, violation

# The last value is the id that the enrollment's event is going to have, which is also the place in line of a student
# who must wait. If a trigger of another program writes an event first, the id is wrong, and the service's own triggers
# correct the row.
ENROLL = """
    INSERT INTO enrollments (student_id, course_id, enrolled_at, waiting, event_id)
    VALUES (?, ?,
        (SELECT CASE WHEN enrolled >= capacity THEN NULL ELSE ? END FROM courses WHERE id = ?),
        (SELECT CASE WHEN enrolled >= capacity THEN ? END FROM courses WHERE id = ?),
        ?)"""
# A seat for each of some pairs, with the ids that the events are going to have. Pairs in JSON would take a sixth more.
SEATS = """
    INSERT INTO enrollments (student_id, course_id, enrolled_at, event_id)
    SELECT column1, column2, ?, ? + column3
    FROM (VALUES {})"""
TOGETHER = 250
"""How many pairs get seats by one statement, which takes 4 ms, and half as long as a statement for each pair."""
ROWS_CHANGED = 3
"""How many rows one enrollment changes: its own, its course's counts, and its event. If SQLite counts another number, a
trigger of another program has changed rows too."""
WHY_REFUSED = """
    WITH pair (student, course) AS (VALUES (?, ?))
    SELECT CASE
        WHEN NOT EXISTS (SELECT 1 FROM students WHERE id = student) THEN 'student_not_found'
        WHEN NOT EXISTS (SELECT 1 FROM courses WHERE id = course) THEN 'course_not_found'
        WHEN EXISTS (SELECT 1 FROM enrollments WHERE student_id = student AND course_id = course)
        THEN (SELECT CASE WHEN waiting IS NULL THEN 'already_enrolled' ELSE 'already_waitlisted' END
              FROM enrollments WHERE student_id = student AND course_id = course)
        ELSE (SELECT CASE WHEN opens_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?) THEN 'enrollment_not_open'
                          WHEN closes_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?) THEN 'enrollment_closed'
                          WHEN enrolled >= capacity AND waitlisted >= waitlist_capacity THEN 'course_full' END
              FROM courses WHERE id = course) END
    FROM pair"""
JUST_NOW = "-1 seconds"
"""The window of enrolling may open between the statement that was refused for that and WHY_REFUSED; and it may close
in between, where the statement was refused because the course is full."""
LAST_EVENT = "SELECT coalesce(max(id), 0) FROM enrollment_events"
EVENTS_SINCE = "SELECT id, student_id, course_id, type, at FROM enrollment_events WHERE id > ? ORDER BY id LIMIT ?"
LAST_POSITION = "SELECT waitlisted FROM courses WHERE id = ?"
FIND = "SELECT enrolled_at, waiting, 0 FROM enrollments WHERE student_id = ? AND course_id = ?"
COUNT_IN_LINE = "SELECT count(*) FROM enrollments WHERE course_id = ? AND waiting <= ?"

Event = tuple[int, int, int, str, str]
"""(id, student_id, course_id, type, at)"""


def insert_each(db: pw.Database, pairs: Sequence[Pair], moment: str, until: float) -> Sequence[Outcome]:
    """Do what `Backend.insert_each` in `service.storage` says.

    Many pairs get seats at once, as long as nothing else is to be said of any.
    """
    outcomes: list[Outcome] = []
    seat: Outcome = ("enrolled", moment, None)
    last = seat
    while len(outcomes) < len(pairs) and (not outcomes or time.monotonic() <= until):
        some = pairs[len(outcomes) : len(outcomes) + TOGETHER]
        # Where the last pair has no seat, most likely the next one will have none either.
        if len(some) == TOGETHER and last == seat and _seat(db, some, moment):
            outcomes += [seat] * len(some)
        else:
            found = _one_by_one(db, some, moment, until)
            outcomes += found
            last = found[-1]
            if len(found) < len(some):
                break
    return outcomes


def _seat(db: pw.Database, pairs: Sequence[Pair], moment: str) -> bool:
    """Give every pair a seat with one statement, or leave all as it was; tell which of both.

    Raises ConstraintViolated where a trigger of another program undid the caller's transaction.
    """
    ((newest,),) = fetch(db, LAST_EVENT)
    connection = db.connection()
    connection.execute("SAVEPOINT seats")
    before, done = connection.total_changes, False
    try:
        sql = SEATS.format(", ".join(f"(?, ?, {at})" for at in range(len(pairs))))
        connection.execute(sql, (moment, newest + 1, *chain.from_iterable(pairs)))
    except connection.IntegrityError as error:
        # If SQLite undid the whole transaction, each later statement would be committed by itself.
        if not connection.in_transaction:
            raise violation(db, error) from error
    else:
        if connection.total_changes - before == len(pairs) * ROWS_CHANGED:
            told = fetch(db, EVENTS_SINCE, newest, len(pairs))
            done = told == [(at, *pair, "enrolled", moment) for at, pair in enumerate(pairs, newest + 1)]
    if not done:
        connection.execute("ROLLBACK TO seats")
    connection.execute("RELEASE seats")
    return done


def _one_by_one(db: pw.Database, pairs: Sequence[Pair], moment: str, until: float) -> Sequence[Outcome]:
    """Enroll each pair with a statement of its own.

    One `executemany`, which takes the pairs one by one from a generator, gives 1.3 times as many enrollments a second
    as one `execute` for each pair: `make compare COMPARE="--figure post"`, at 32 connections.
    """
    work = _Inserting(db, pairs, moment, until)
    connection, values = db.connection(), work.values()
    while True:
        try:
            connection.executemany(ENROLL, values)
            break
        except connection.IntegrityError as error:
            # If SQLite undid the whole transaction, each later statement would be committed by itself. If a trigger of
            # another program refused with FAIL, half of an enrollment may be left. In both cases nothing may be kept.
            if not connection.in_transaction or (not work.refuse(error) and may_leave_half(db)):
                raise violation(db, error) from error
    return work.outcomes()


class _Inserting:
    """The pairs for which ENROLL is run, and the outcome of each.

    Where an enrollment changes ROWS_CHANGED rows, no trigger of another program has changed any. The outcome of such an
    enrollment is read from its event, later, with one SELECT for many of them. Any other enrollment is read from its
    row as soon as its statement has ended, because a later statement may change the row again.
    """

    def __init__(self, db: pw.Database, pairs: Sequence[Pair], moment: str, until: float) -> None:
        self._db, self._pairs, self._moment, self._until = db, pairs, moment, until
        self._connection = db.connection()
        self._outcomes: list[Outcome | None] = []
        self._unread: dict[int, Pair] = {}
        """The pairs whose outcomes are still to be read from their events, each by its index in `_outcomes`."""
        self._running = False
        """Whether the statement of the last pair in `_unread` has begun, and has not been looked at yet."""
        self._changes = 0
        """How many rows the connection had changed when that statement began."""
        self._expect_events()

    def _expect_events(self) -> None:
        ((self._read_to,),) = fetch(self._db, LAST_EVENT)
        self._event_id = self._read_to + 1

    def values(self) -> Iterator[tuple[int | str, ...]]:
        connection, moment, outcomes = self._connection, self._moment, self._outcomes
        for pair in self._pairs:
            self._end_statement()
            if outcomes and time.monotonic() > self._until:
                return
            self._unread[len(outcomes)] = pair
            outcomes.append(None)
            self._running = True
            self._changes = connection.total_changes
            course_id, event_id = pair[1], self._event_id
            yield (*pair, moment, course_id, event_id, course_id, event_id)

    def refuse(self, error: Exception) -> bool:
        """Note why the pair whose statement failed is refused; tell whether a rule of the service itself refused it.

        The message of the error must begin with the code that WHY_REFUSED finds for this very pair. The message alone
        proves nothing: a trigger of another program may have run into the same rule with other rows.
        """
        self._running = False
        _, (student_id, course_id) = self._unread.popitem()
        told = str(error)
        opens, closes = (
            JUST_NOW if told.startswith(kind.code) else "0 seconds" for kind in (EnrollmentNotOpen, CourseFull)
        )
        ((code,),) = fetch(self._db, WHY_REFUSED, student_id, course_id, opens, closes)
        own = code is not None and told.startswith(f"{code}: ")
        self._outcomes[-1] = (code, None, None) if own else violation(self._db, error)
        return own

    def _end_statement(self) -> None:
        """Count the rows that the statement of the last pair changed, and read its outcome now if they are unusual."""
        if not self._running:
            return
        self._running = False
        if self._connection.total_changes - self._changes == ROWS_CHANGED:
            self._event_id += 1
            return
        _, pair = self._unread.popitem()
        self._read(exact=True)
        self._outcomes[-1] = _as_it_is(self._db, pair)
        self._expect_events()

    def outcomes(self) -> list[Outcome]:
        self._end_statement()
        self._read(exact=False)
        return [outcome for outcome in self._outcomes if outcome is not None]

    def _read(self, *, exact: bool) -> None:
        """Set the outcomes of all pairs in `_unread`.

        With `exact` they are read from the table enrollments: a trigger of another program may have changed those rows
        after their events were written.
        """
        pairs = self._unread
        if not pairs:
            return
        events = fetch(self._db, EVENTS_SINCE, self._read_to, len(pairs))
        if exact or [event[1:3] for event in events] != [*pairs.values()]:
            found = [_as_it_is(self._db, pair, events) for pair in pairs.values()]
        else:
            found = _as_told(self._db, events)
        for at, outcome in zip(pairs, found, strict=True):
            self._outcomes[at] = outcome
        pairs.clear()


def _as_told(db: pw.Database, events: Sequence[Event]) -> list[Outcome]:
    """Read the outcomes from the events alone; they must be the newest events that there are."""
    last: dict[int, int] = {}
    found: list[Outcome] = []
    for _, _, course_id, status, at in reversed(events):
        if status == "enrolled":
            found.append((status, at, None))
        else:
            if course_id not in last:
                ((last[course_id],),) = fetch(db, LAST_POSITION, course_id)
            found.append((status, None, last[course_id]))
            last[course_id] -= 1
    return found[::-1]


def _as_it_is(db: pw.Database, pair: Pair, events: Sequence[Event] = ()) -> Outcome:
    """Read an outcome from the pair's row or, where a later statement has dropped the row, from the pair's event."""
    rows = fetch(db, FIND, *pair) or [
        (at, None, 0) if status == "enrolled" else (None, event_id, 1)
        for event_id, *whose, status, at in events
        if whose == [*pair]
    ]
    if not rows:
        return ConstraintViolated(LEFT_OUT)
    enrolled_at, place, dropped = rows[0]
    if place is None:
        return "enrolled", enrolled_at, None
    ((in_line,),) = fetch(db, COUNT_IN_LINE, pair[1], place)
    return "waitlisted", None, in_line + dropped
