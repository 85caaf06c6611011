"""Copy a school to a schema of its own, for work that is to be tried out; whoever writes does not wait for that.

All is one transaction, which is undone at its end, so a program that is killed leaves nothing behind. The copy is a
school with a turn of its own. Tables, triggers and constraints of other programs are not in it.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import peewee as pw

from service.storage import fetch

TABLES = (
    "letters",
    "terms",
    "students",
    "courses",
    "enrollments",
    "enrollment_events",
    "event_notes",
    "api_tokens",
    "api_sessions",
)
NUMBERED = ("terms", "students", "courses")
"""The tables whose ids a sequence gives."""
SCHEMA = Path(__file__).with_name("schema.sql")
STATEMENT = re.compile("^(?=CREATE )", re.MULTILINE)
COPY = "SELECT quote_ident('enrollment copy ' || pg_backend_pid())"
"""Gives the name of the schema of a copy. Nobody else ever sees the schema, because it is never committed, but of two
transactions that make one of the same name the second would wait for the end of the first."""


@contextmanager
def copied(db: pw.Database, tick: Callable[[int, int], object]) -> Iterator[pw.Database]:
    """Do what `Backend.copied` in `service.storage` says, in the database itself; the copy is the same connection."""
    first = not db.in_transaction()
    with db.atomic() as undo:
        if first:
            db.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        ((source,),) = fetch(db, "SELECT quote_ident(current_schema())")
        ((copy,),) = fetch(db, COPY)
        db.execute_sql(f"CREATE SCHEMA {copy}")
        db.execute_sql(f"SET LOCAL search_path = {copy}, pg_temp")
        for statement in STATEMENT.split(SCHEMA.read_text("utf-8"))[1:]:
            db.execute_sql(statement.replace("CREATE TABLE", "CREATE UNLOGGED TABLE", 1))
        for at, table in enumerate(TABLES):
            tick(at, len(TABLES))
            db.execute_sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            db.execute_sql(f"INSERT INTO {table} SELECT * FROM {source}.{table}")
            db.execute_sql("SET CONSTRAINTS ALL IMMEDIATE")
            db.execute_sql(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        for table in NUMBERED:
            db.execute_sql(f"SELECT setval('{table}_id_seq', last_value, is_called) FROM {source}.{table}_id_seq")
        db.execute_sql("ANALYZE " + ", ".join(TABLES))
        try:
            yield db
        finally:
            undo.rollback()
