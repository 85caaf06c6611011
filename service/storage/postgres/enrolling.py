"""Enroll many pairs of a student and a course in few round trips, and give the outcome of each pair.

The function `enroll_many` in `schema.sql` enrolls pairs as one after the other, and raises nothing for a refusal.
"""

import math
import time
from collections.abc import Sequence
from itertools import islice

import peewee as pw

from service.errors import ConstraintViolated
from service.storage import LEFT_OUT, Outcome, Pair, fetch
from service.storage.postgres.violations import WORDS

ENROLL = "SELECT outcome, at, place, rule FROM enroll_many(?::bigint[], ?::bigint[], ?)"
PIECE, MOST = 50, 1_000
"""How many pairs are handed over at once: at first where there is a time to keep, and where there is none. As long as
there is time left, each piece has twice as many as the one before, and MOST at most: a trigger of another program may
make each pair take long."""


def insert_each(db: pw.Database, pairs: Sequence[Pair], moment: str, until: float) -> Sequence[Outcome]:
    """Do what `Backend.insert_each` in `service.storage` says; the time is looked at after each piece."""
    rest, outcomes = iter(pairs), list[Outcome]()
    size = MOST if until == math.inf else PIECE if time.monotonic() < until else 1
    while piece := [*islice(rest, size)]:
        outcomes += _enroll(db, piece, moment)
        if time.monotonic() > until:
            break
        size = min(2 * size, MOST)
    return outcomes


def _enroll(db: pw.Database, pairs: Sequence[Pair], moment: str) -> list[Outcome]:
    # The driver would take longer to write a list than PostgreSQL takes to read it.
    students, courses = (f"{{{','.join(map(str, ids))}}}" for ids in zip(*pairs, strict=True))
    found = fetch(db, ENROLL, students, courses, moment)
    return [_outcome(*row) for row in found]


def _outcome(outcome: str | None, at: str | None, place: int | None, rule: str | None) -> Outcome:
    if outcome is None:
        return ConstraintViolated(LEFT_OUT)
    if outcome == "refused":
        return ConstraintViolated(WORDS.get(rule or "", at or "").rstrip("."))
    return outcome, at, place
