"""Bulk enrolling: many rows, each judged as the single call would judge it."""

import math
import time
from collections.abc import Iterator, Sequence

import peewee as pw

from service.enrolling import Pair, Result, enroll_each
from service.errors import BulkRefused, ServiceError

Row = Pair | ServiceError
"""(student_id, course_id), or the refusal of a row that is no such pair."""

SLICE_SECONDS = 0.03
"""How long one unit of work goes on; what it has not reached is for the next one."""


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


def _enroll(db: pw.Database, rows: Sequence[Row], seconds: float) -> list[Result]:
    until = time.monotonic() + seconds
    reached: list[ServiceError | None] = []

    def pairs() -> Iterator[Pair]:
        for row in rows:
            if reached and time.monotonic() > until:
                return
            if isinstance(row, ServiceError):
                reached.append(row)
            else:
                reached.append(None)
                yield row

    enrolled = iter(enroll_each(db, pairs()))
    return [next(enrolled) if refusal is None else refusal for refusal in reached]
