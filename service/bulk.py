"""Bulk enrolling: many rows, each judged as the single call would judge it."""

import time
from collections.abc import Sequence

import peewee as pw

from service.enrolling import Result, Row, enroll_each
from service.errors import BulkRefused, ServiceError

__all__ = ["Result", "Row", "enroll_all", "enroll_many"]

SLICE_SECONDS = 0.03
"""How long one unit of work goes on; what it has not reached is for the next one."""


def enroll_many(db: pw.Database, rows: Sequence[Row], seconds: float = SLICE_SECONDS) -> list[Result]:
    """Enroll the first rows, as many as fit in the time and at least one; one result a row, in order."""
    with db.atomic("IMMEDIATE"):
        return enroll_each(db, rows, until=time.monotonic() + seconds)


def enroll_all(db: pw.Database, rows: Sequence[Row], atomic: bool = False, dry_run: bool = False) -> list[Result]:
    """Enroll all rows in one transaction; with `dry_run` nothing is kept, and the answer is the same.

    Raises BulkRefused if `atomic` and any row is refused; nothing is kept then.
    """
    with db.atomic("IMMEDIATE") as undo:
        results = enroll_each(db, rows)
        refusals = {at: result for at, result in enumerate(results) if isinstance(result, ServiceError)}
        if atomic and refusals:
            raise BulkRefused(refusals, len(rows))
        if dry_run:
            undo.rollback()
    return results
