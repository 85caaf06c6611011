"""Logs the statements that take long: their text, which has no values in it, and for how long they ran."""

import logging

LONGEST = 1000
"""The characters of a statement that are logged; that of a bulk has many times as many."""

logger = logging.getLogger(__name__)


def log_slow(sql: str, seconds: float) -> None:
    """Log a statement that has taken so many seconds."""
    told = {"ms": round(seconds * 1000, 1), "sql": " ".join(sql.split())[:LONGEST]}
    logger.warning("A statement was slow.", extra={"told": told})
