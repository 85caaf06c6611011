"""Move a school to another database: from a file to a server, from a server to a file, or between two of a kind."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from service.errors import SetupError
from service.storage import fetch, kinds
from service.storage.checks import Tick, silent
from service.storage.repairing import NOT_OURS

# What one kind of database has for itself stays behind: indexes, the words of the search, and the columns that only say
# where a file finds an event. The order is that of the references.
COLUMNS: Mapping[str, Sequence[str]] = {
    "terms": ("id", "external_id", "name", "starts_on", "ends_on"),
    "students": ("id", "name", "external_id", "given_name", "family_name", "email"),
    "courses": (
        *("id", "name", "level", "capacity", "waitlist_capacity", "enrolled", "waitlisted", "event_id"),
        *("external_id", "term_id", "opens_at", "closes_at"),
    ),
    "enrollments": ("student_id", "course_id", "enrolled_at", "waiting"),
    "enrollment_events": ("id", "type", "at", "student_id", "course_id"),
    "event_notes": ("event_id", "actor", "reason", "override"),
    "api_tokens": (
        *("id", "hash", "name", "scopes", "created_at", "expires_at", "revoked_at"),
        *("previous_hash", "previous_until", "last_used_on"),
    ),
    "api_sessions": ("hash", "token_id", "ends_at"),
}
KEYS = {"enrollments": 2}
"""How many of the columns are the primary key, where it is not the first one alone; rows are moved in its order."""
NUMBERED = ("terms", "students", "courses")
"""The tables whose ids the database gives, and never gives again."""
UNCHECKED = {*NOT_OURS, "words"}
"""The invariants that are not checked in the target: those that a school may break, and the one of the words of the
search, which were made in the same transaction by the function that would check them."""
BATCH = 10_000
"""How many rows are moved between two calls of a `Tick`."""


def move(source_url: kinds.Url, target_url: kinds.Url, tick: Tick = silent) -> Mapping[str, int]:
    """Move all rows of a school, with their ids, to a database that has none, and give how many each table has.

    The events, the notes and the tokens are moved too, and no id is given a second time. The target is migrated first.
    It gets all rows in one transaction, in which its invariants are checked, or it stays empty. Nothing is written to
    the source, and nobody else may write there meanwhile. `tick` is called now and then with what is at work. Raises
    SchemaMismatch if the source is not as this code has it, and SetupError if the target has rows, or if either cannot
    be used.
    """
    source, target = kinds.moving_of(source_url), kinds.moving_of(target_url)
    with source.writing(source_url) as old:  # So that nobody else writes to it.
        kinds.migrate(target_url, tick)
        with target.writing(target_url) as new:
            if full := [table for table, count in _counts(new).items() if count]:
                shown = kinds.without_password(target_url)
                raise SetupError(f"Nothing was moved: the database {shown} has rows already, in {', '.join(full)}.")
            with target.filling(new, tick):
                for table, columns in COLUMNS.items():
                    rows = source.rows(old, table, columns, KEYS.get(table, 1))
                    target.fill(new, table, columns, _watched(rows, table, tick))
                target.go_on_behind(new, {table: source.given(old, table) for table in NUMBERED})
            counts = _counts(new)
            if _counts(old) != counts:
                raise SetupError("Nothing was moved: the rows that arrived are not as many as those that were read.")
            for result in target.check(new, tick, UNCHECKED):
                if result.broken:
                    raise SetupError(
                        f"Nothing was moved, because the school is not sound: {result.invariant.name}: {result} "
                        f"Run: {kinds.command('repair', source_url)}"
                    )
            return counts


def _counts(db: Any) -> Mapping[str, int]:
    return {table: fetch(db, f"SELECT count(*) FROM {table}")[0][0] for table in COLUMNS}


def _watched(rows: Iterator[Sequence[Any]], table: str, tick: Tick) -> Iterator[Sequence[Any]]:
    """Give the rows on, and tell how far it is."""
    started, number = time.monotonic(), 0
    tick(table, 0)
    for number, row in enumerate(rows, 1):
        yield row
        if not number % BATCH:
            tick(f"{table} {number:,}", time.monotonic() - started)
