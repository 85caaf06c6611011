"""Tell which kind of database a URL means; what is only for that kind is imported when it is asked for."""

import os
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

import peewee as pw

from service.errors import SetupError
from service.storage import Store
from service.storage.commands import command as command_on

Url = str | os.PathLike[str]
Tick = Callable[[str, float], object]

_POSTGRESQL = re.compile(r"""[\s\ufeff"']*(jdbc:)?postgres(ql)?(\+\w+)?:""", re.IGNORECASE)
"""Matches the begin of a URL of PostgreSQL, in the form of any tool."""


def is_postgresql(url: Url) -> bool:
    """Tell whether a URL means a database of PostgreSQL; any other URL, and any path, means a file of SQLite."""
    return isinstance(url, str) and _POSTGRESQL.match(url) is not None


def _module(url: Url, name: str) -> Any:
    """Import a module of the kind that a URL means. Raises SetupError where the driver of PostgreSQL is not there."""
    if not is_postgresql(url):
        return import_module(f"service.storage.sqlite.{name}")
    try:
        for package in ("psycopg", "greenlet"):
            import_module(package)
    except ImportError as error:
        message = "To use PostgreSQL, the service needs psycopg and greenlet. Run: pip install '.[postgresql]'"
        raise SetupError(message) from error
    return import_module(f"service.storage.postgres.{name}")


def schema_of(url: Url) -> Any:
    """Give the module that manages the schema of the database that a URL means.

    The modules `schema` of all kinds have the same functions. Raises SetupError where the driver is not there.
    """
    return _module(url, "schema")


def moving_of(url: Url) -> Any:
    """Give the module that reads all rows of the database that a URL means, and fills an empty one.

    The modules `moving` of all kinds have the same functions. Raises SetupError where the driver is not there.
    """
    return _module(url, "moving")


def open_store(url: str, **options: Any) -> Store:
    """Check a database that is to be served, and give its store, with the options that `open_store` of each kind has.

    Raises SchemaMismatch when the database is missing or its schema is not the one of this code, and SetupError when
    the database cannot be used.
    """
    return cast("Store", _module(url, "opening").open_store(url, **options))


def connect(url: Url, *, busy_timeout: float = 5.0) -> pw.Database:
    """Connect to a migrated database, given as a URL or the path of a file, and give the `db` that the rules take.

    The connection of this thread is open then; another thread's opens at its first statement. `busy_timeout` is how
    many seconds a statement waits for another connection's lock. Raises SchemaMismatch if the database is missing, if
    migrations are missing in it or unknown to this code, or if the schema is not as the migrations made it; SetupError
    if the database cannot be used.
    """
    return cast("pw.Database", schema_of(url).connect(url, busy_timeout=busy_timeout))


def migrate(url: Url, tick: Tick = lambda what, seconds: None) -> list[str]:  # noqa: ARG005 - names for whoever calls.
    """Apply the pending migrations, all or nothing, and give their names; a file is made if it is missing.

    `tick` is called now and then with the name of the migration that is at work, and for how many seconds it is. Raises
    MigrationFailed, which names the migration, and SchemaMismatch if migrations were applied that this code does not
    know; the database is then as it was. Raises SetupError if the database cannot be used.
    """
    return cast("list[str]", schema_of(url).migrate(url, tick))


def without_password(url: Url) -> str:
    """Give a URL as it may be shown to people and logged: without a password."""
    return cast("str", _module(url, "urls").without_password(url)) if is_postgresql(url) else os.fspath(url)


def command(verb: str, url: Url) -> str:
    """Give the command line that runs a command of the service, such as "migrate", on a database."""
    return command_on(verb, without_password(url))
