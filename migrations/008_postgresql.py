"""PostgreSQL: the schema that migrations 001 to 007 make in SQLite, as one text.

Those migrations change a file step by step, in SQLite's own words. In PostgreSQL they are listed as applied, but not
run, and this migration makes what they come to. In SQLite this migration does nothing.
"""

import re
from pathlib import Path

import peewee as pw
from peewee_migrate import Migrator

import service.storage
from service.storage.letters import letters

SCHEMA = Path(service.storage.__file__).parent / "postgres" / "schema.sql"
STATEMENT = re.compile("^(?=CREATE )", re.MULTILINE)
# The functions of the schema keep the search path that is set while they are made. With these two schemas in it, no
# function reads the table of another school, whoever calls it, nor a temporary table of the same name.
PATH = "SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', TRUE)"
FILL = "INSERT INTO letters SELECT * FROM unnest(?::text[], ?::text[])"

TABLES = (
    "api_sessions",
    "api_tokens",
    "event_notes",
    "enrollment_events",
    "enrollments",
    "courses",
    "students",
    "terms",
    "letters",
)
FUNCTIONS = (
    "enroll_many(bigint[], bigint[], text)",
    "enrollment_refusal(bigint, bigint)",
    "enrollment_promote()",
    "enrollment_dropped()",
    "enrollment_changing()",
    "enrollment_adding()",
    "enrollment_tell(text, text, bigint, bigint)",
    "enrollment_count(bigint, bigint, bigint, bigint, bigint)",
    "enrollment_check_note()",
    "enrollment_check_event()",
    "enrollment_check_counts()",
    "enrollment_check_course()",
    "enrollment_check_student()",
    "enrollment_check_term()",
    "enrollment_words(text, text)",
    "enrollment_folded(text)",
    "enrollment_time(text)",
    "enrollment_is_time(text)",
    "enrollment_is_day(text)",
    "enrollment_now()",
    "enrollment_refuse()",
    "enrollment_take_turn()",
)


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    """Make the tables, which are empty, and the functions and triggers that keep their rules."""
    if not isinstance(database, pw.PostgresqlDatabase):
        return
    migrator.sql(PATH)
    for statement in STATEMENT.split(SCHEMA.read_text("utf-8"))[1:]:
        migrator.sql(statement)
    migrator.run(database.execute_sql, FILL, ([*letters()], [*letters().values()]))


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    """Take everything away, with all rows. A view or a reference of another program's is an error, and all stays."""
    if not isinstance(database, pw.PostgresqlDatabase):
        return
    for table in TABLES:
        migrator.sql(f"DROP TABLE {table}")
    for function in FUNCTIONS:
        migrator.sql(f"DROP FUNCTION {function}")
