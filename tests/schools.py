"""Databases of PostgreSQL that one test after another borrows, each as it was when it was made.

To make a database and to drop it takes a server ten times as long as most tests take. So a database is swept between
two tests: its rows are deleted, and its sequences are set back. Whatever else a test has left behind, be it a trigger,
a setting or a table that has grown large, is found in the catalog; then the database is dropped, and another is made.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from postgresql import Server

SMALL = 10
"""PostgreSQL plans for a table of up to so many pages as for an empty one, if nothing has analyzed the table."""

CATALOG = """
    SELECT oid::regclass::text FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'pg_catalog'::regnamespace AND NOT relisshared"""
OWN = """
    SELECT oid::regclass::text FROM pg_class
    WHERE relkind = %s AND relnamespace = 'public'::regnamespace"""
ROWS = "(SELECT (count(*), max(xmin::text::bigint))::text FROM {})"
"""Changes with each row that is inserted, updated or deleted: the number of a transaction is above all before it."""
WRITTEN = """
    (SELECT sum(pg_stat_get_tuples_inserted(oid) + pg_stat_get_tuples_updated(oid) + pg_stat_get_tuples_deleted(oid))
     FROM pg_class WHERE relkind = 'r' AND relnamespace = 'pg_catalog'::regnamespace AND NOT relisshared)"""
"""Counts what was ever written to the catalog, and undone too: a connection has told all of that before it is gone."""
OF_DATABASE = f"""
    (SELECT (sum(reltuples), count(*) FILTER (WHERE pg_relation_size(oid) > {SMALL} * 8192))::text
     FROM pg_class WHERE relnamespace <> 'pg_catalog'::regnamespace AND relkind IN ('r', 'i', 't', 'm')),
    (SELECT (xmin, datallowconn, datconnlimit)::text FROM pg_database WHERE datname = current_database()),
    (SELECT (count(*), max(xmin::text::bigint))::text FROM pg_db_role_setting)"""
OTHERS = """
    SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""


class School:
    """A database, and a connection to it that stays."""

    def __init__(self, server: Server, template: str) -> None:
        """Make the database as a copy of another one, and remember what is in it."""
        import psycopg  # noqa: PLC0415 - who has no PostgreSQL does without.

        with ExitStack() as stack:
            self.url = stack.enter_context(server.database(template))
            self._connection = psycopg.connect(self.url, autocommit=True)
            stack.callback(self._connection.close)
            self._ask("SET lock_timeout = '5s'")
            tables = [name for (name,) in self._ask(OWN, "r")]
            full = [name for name in tables if self._ask(f"SELECT 1 FROM {name} LIMIT 1")]
            catalog = [name for (name,) in self._ask(CATALOG)]
            own = ", ".join([*map(ROWS.format, full), OF_DATABASE])
            self._look = f"SELECT {own}, {', '.join(map(ROWS.format, catalog))}"
            self._glance = f"SELECT {own}, {WRITTEN}"
            self._sweep = "SET session_replication_role = replica;"  # No trigger runs, and no reference is in the way.
            self._sweep += "".join(f"DELETE FROM {name};" for name in tables if name not in full)
            for (name,) in self._ask(OWN, "S"):
                ((value, is_called),) = self._ask(f"SELECT last_value, is_called FROM {name}")
                self._sweep += f"SELECT setval('{name}', {value}, {is_called});"
            self._before, self._known = self._ask(self._look), self._ask(self._glance)
            self.drop = stack.pop_all().close

    def _ask(self, sql: str, *values: Any) -> list[Any]:
        cursor = self._connection.execute(sql.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def sweep(self) -> bool:
        """End what is left of the connections of a test, delete its rows, and tell whether that is all it has left."""
        import psycopg  # noqa: PLC0415

        try:
            self._ask(OTHERS)
            self._ask(self._sweep)
            if (now := self._ask(self._glance)) == self._known:
                return True
            self._known = now
            return self._ask(self._look) == self._before  # To read the whole catalog takes longer than most tests.
        except psycopg.Error:
            return False


class Schools:
    """The databases of one server, which are copies of one that was migrated."""

    def __init__(self, server: Server, template: str) -> None:
        """Make none until a test asks for one."""
        self._server, self._template = server, template
        self._swept: list[School] = []

    @contextmanager
    def lent(self) -> Iterator[str]:
        """Give the URL of a database that is as it was when it was made, the borrower's own until the block ends."""
        school = self._swept.pop() if self._swept else School(self._server, self._template)
        try:
            yield school.url
        finally:
            if school.sweep():
                self._swept.append(school)
            else:
                school.drop()

    def close(self) -> None:
        """Drop all that have been given back."""
        while self._swept:
            self._swept.pop().drop()
