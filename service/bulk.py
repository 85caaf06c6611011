"""Bulk enrolling: many rows, each judged as the single call would judge it."""

import math
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import peewee as pw

from service.database import fetch_all
from service.enrollments import ENROLL, LAST_POSITION, Enrollment, enroll_params, refusal, timestamp
from service.errors import BulkRefused, ServiceError

Row = tuple[int, int] | ServiceError
"""(student_id, course_id), or the refusal of a row that is no such pair."""
Result = Enrollment | ServiceError

SLICE_SECONDS = 0.03
"""How long one unit of work goes on; what it has not reached is for the next one."""

LAST_EVENT = "SELECT coalesce(max(id), 0) FROM enrollment_events"
EVENTS_SINCE = "SELECT student_id, course_id, type, at FROM enrollment_events WHERE id > ? ORDER BY id DESC"


def enroll_many(db: pw.Database, rows: Sequence[Row], seconds: float = SLICE_SECONDS) -> list[Result]:
    """Enroll the first rows, as many as fit in the time and at least one; one result a row, in order."""
    with db.atomic("IMMEDIATE"):
        return _enroll(db, rows, seconds)


def enroll_all(db: pw.Database, rows: Sequence[Row], atomic: bool = False, dry_run: bool = False) -> list[Result]:
    """Enroll all rows in one transaction; with `dry_run` nothing is kept, and the answer is the same.

    Raises BulkRefused if `atomic` and any row is refused; nothing is kept then.
    """
    with db.atomic("IMMEDIATE") as undo:
        results = _enroll(db, rows, math.inf)
        refusals = {at: result for at, result in enumerate(results) if isinstance(result, ServiceError)}
        if atomic and refusals:
            raise BulkRefused(refusals, len(rows))
        if dry_run:
            undo.rollback()
    return results


def enroll_together(db: pw.Database, rows: Sequence[tuple[int, int]]) -> list[Result]:
    """Enroll for several callers of `enroll` within one transaction, which is the caller's; give each its result.

    One statement for all gives 1.05 to 1.1 times as many enrollments a second as one for each.
    """
    return _enroll(db, rows, math.inf)


def _enroll(db: pw.Database, rows: Sequence[Row], seconds: float) -> list[Result]:
    refusals: dict[int, ServiceError] = {}
    reached: list[Row] = []
    latest = (0, 0)

    def acceptable() -> Iterator[tuple[int | str, ...]]:
        nonlocal latest
        for row in rows:
            if reached and time.monotonic() > until:
                return
            reached.append(row)
            if isinstance(row, ServiceError):
                refusals[len(reached) - 1] = row
            else:
                latest = row
                yield enroll_params(*row, now)

    now = timestamp(datetime.now(UTC))
    until = time.monotonic() + seconds
    ((before,),) = fetch_all(db, LAST_EVENT)
    pending = acceptable()
    connection = db.connection()
    while True:
        try:
            connection.executemany(ENROLL, pending)
            break
        except connection.IntegrityError:
            if not connection.in_transaction:  # A host's own constraint rolled it back: what follows would commit.
                raise
            # A constraint refuses the row that was reached last; go on behind it.
            refusals[len(reached) - 1] = refusal(db, *latest)
    accepted = _accepted(db, before)
    return [refusals[at] if at in refusals else next(accepted) for at in range(len(reached))]


def _accepted(db: pw.Database, before: int) -> Iterator[Enrollment]:
    """Read what was inserted since an event: each insert has written one, in order."""
    last: dict[int, int] = {}
    found = []
    for student_id, course_id, status, at in fetch_all(db, EVENTS_SINCE, before):
        if status == "enrolled":
            found.append(Enrollment(student_id, course_id, at, status, None))
        else:
            if course_id not in last:
                ((last[course_id],),) = fetch_all(db, LAST_POSITION, course_id)
            found.append(Enrollment(student_id, course_id, None, status, last[course_id]))
            last[course_id] -= 1
    return reversed(found)
