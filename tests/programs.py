"""Other programs on a database of either kind: their connections, the rules that they add, and what they are told."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg import connect, errors

from service.storage.kinds import is_postgresql

Place = Path | str
"""A file, or the URL of a database of PostgreSQL."""
REFUSED = (
    sqlite3.IntegrityError,
    errors.IntegrityError,
    errors.RaiseException,
    # To PostgreSQL the type of a column is a rule as well.
    errors.DataError,
    errors.DatatypeMismatch,
)
"""What a statement raises that would break a rule; a mistake in the statement itself is another error."""

_HOST = "host"


def is_file(path: Place) -> bool:
    """Tell whether a database is a file of SQLite."""
    return not is_postgresql(str(path))


def open_program(path: Place) -> Any:
    """Connect as another program, which commits each statement, with the defaults that its database has."""
    return sqlite3.connect(path, isolation_level=None) if is_file(path) else connect(str(path), autocommit=True)


def run_sql(path: Place, *statements: str) -> None:
    """Run statements as another program."""
    with closing(open_program(path)) as program:
        for statement in statements:
            program.execute(statement)


def rows_of(path: Place) -> list[tuple[Any, ...]]:
    """Give all rows that the rules are about, as another program finds them."""
    tables = "students", "courses", "terms", "enrollments", "enrollment_events", "event_notes"
    with closing(open_program(path)) as program:
        return [row for table in tables for row in program.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()]


def refuse(words: str) -> dict[str, str]:
    """Give what a trigger does that refuses a row, in each kind's own SQL."""
    return {"sqlite": f"SELECT raise(ABORT, '{words}')", "postgresql": f"RAISE EXCEPTION '{words}'"}


LEAVE_OUT = {"sqlite": "SELECT raise(IGNORE)", "postgresql": "RETURN NULL"}
"""What a trigger does that leaves a row as it was, and says nothing."""


@contextmanager
def host_rule(path: Place, event: str, does: str | dict[str, str], *, when: str = "TRUE") -> Iterator[None]:
    """Have a trigger of another program until the block ends.

    `event` is such as "BEFORE INSERT ON students", `when` the condition on NEW or OLD, and `does` a statement, of
    either kind or one for each.
    """
    does = does if isinstance(does, str) else does["sqlite" if is_file(path) else "postgresql"]
    if is_file(path):
        run_sql(path, f"CREATE TRIGGER {_HOST} {event} WHEN {when} BEGIN {does}; END")
    else:
        row = "OLD" if " DELETE " in event else "NEW"
        run_sql(
            path,
            f"CREATE FUNCTION {_HOST}() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN IF {when} THEN {does}; END IF; RETURN {row}; END $$",
            f"CREATE TRIGGER {_HOST} {event} FOR EACH ROW EXECUTE FUNCTION {_HOST}()",
        )
    yield
    table = event.rpartition(" ")[2]
    if is_file(path):
        run_sql(path, f"DROP TRIGGER {_HOST}")
    else:
        run_sql(path, f"DROP TRIGGER {_HOST} ON {table}", f"DROP FUNCTION {_HOST}()")


@contextmanager
def writing(path: Place) -> Iterator[Any]:
    """Have another program in a transaction that has written, which commits when the block ends."""
    with closing(open_program(path)) as program:
        program.execute("BEGIN IMMEDIATE" if is_file(path) else "BEGIN")
        program.execute("UPDATE students SET name = name WHERE id = -1")
        yield program
        program.execute("COMMIT")


@contextmanager
def lost(path: Place) -> Iterator[None]:
    """Have no database until the block ends: the file is away, or the server lets nobody in."""
    if is_file(path):
        away = shutil.move(path, Path(path).with_name("away.db"))
        yield
        shutil.move(away, path)
        return
    url, _, name = str(path).rpartition("/")
    server = f"{url}/postgres"
    run_sql(server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS FALSE")
    run_sql(server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    yield
    run_sql(server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS TRUE")


@contextmanager
def another_school(path: Place, request: pytest.FixtureRequest, like: Place | None = None) -> Iterator[Place]:
    """Give one more database of the same kind: empty and migrated, or like one that nobody has open."""
    if is_file(path):
        source = request.getfixturevalue("empty_database") if like is None else like
        yield Path(shutil.copy(source, Path(path).with_name("another.db")))
    else:
        source = request.getfixturevalue("empty_school") if like is None else like
        with request.getfixturevalue("server").database(source) as url:
            yield url
