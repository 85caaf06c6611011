"""Enroll in bulk: many rows in one call, each with the result that a single call would have."""

import time
from collections.abc import Sequence

import peewee as pw

from service.enrolling import Result, Row, enroll_each
from service.errors import BulkRefused, InvalidPayload, ServiceError
from service.storage import Store, backend_of

MAX_ROWS = 10_000
"""The most rows that a bulk may have."""
MAX_WHOLE = 2_000
"""The most rows that a bulk in one transaction may have: all other writes wait until the end of that transaction."""
MOST_IN_SLICE = 3_000
"""The most rows of a slice: more do not fit in its time, within which the external ids of all of them are looked up."""
SLICE_SECONDS = 0.03
"""Seconds after which one slice of a bulk begins no further row; the next slice goes on with the rows that are left."""


def check_size(rows: int, most: int = MAX_ROWS) -> None:
    """Raise InvalidPayload if a bulk of so many rows has more than `most`."""
    if rows > most:
        raise InvalidPayload([("#", f"must have at most {most:,} rows")])


def bare(refusal: ServiceError) -> ServiceError:
    """Give a refusal without its traceback and its context: a refusal that is kept as a result would keep them too."""
    refusal.__traceback__ = refusal.__cause__ = refusal.__context__ = None
    return refusal


async def enroll_rows(
    store: Store, rows: Sequence[Row], *, atomic: bool = False, dry_run: bool = False
) -> list[Result]:
    """Enroll many rows, and give one result for each, in order.

    The rows are enrolled in slices, each a transaction, so that other writes get their turn in between. A slice that is
    committed stays: where the database fails later, that refusal is the result of each row that is left. With `atomic`
    or `dry_run`, all rows are one transaction, as in `enroll_all`. Raises InvalidPayload for too many rows,
    BulkRefused, and the refusal of the first slice if the database fails there.
    """
    whole = atomic or dry_run
    check_size(len(rows), MAX_WHOLE if whole else MAX_ROWS)
    if whole:
        return await store.write(enroll_all, rows, atomic, dry_run, alone=True)
    results: list[Result] = []
    while len(results) < len(rows):
        try:
            results += await store.write(enroll_many, rows[len(results) :], alone=True)
        except ServiceError as error:
            if not results:
                raise
            results += [bare(error)] * (len(rows) - len(results))
    return results


def enroll_many(db: pw.Database, rows: Sequence[Row], seconds: float = SLICE_SECONDS) -> list[Result]:
    """Enroll as many of the first rows as fit in the time, but at least one; give one result for each, in order."""
    with backend_of(db).atomic(db):
        return enroll_each(db, rows[:MOST_IN_SLICE], until=time.monotonic() + seconds)


def enroll_all(db: pw.Database, rows: Sequence[Row], atomic: bool = False, dry_run: bool = False) -> list[Result]:
    """Enroll all rows in one transaction, and give one result for each, in order.

    With `dry_run` the results are the same, but nothing is kept. Raises BulkRefused if any row is refused and `atomic`
    is set; nothing is kept then.
    """
    with backend_of(db).atomic(db) as undo:
        results = enroll_each(db, rows)
        refusals = {at: result for at, result in enumerate(results) if isinstance(result, ServiceError)}
        if atomic and refusals:
            raise BulkRefused(refusals, len(rows))
        if dry_run:
            undo.rollback()
    return results
