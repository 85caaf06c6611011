"""Tell whether a pooler, such as PgBouncer, is in front of PostgreSQL, and refuse one that loses what is relied on.

A pooler in transaction mode gives each transaction another connection to PostgreSQL, on which the settings that the
service asks for when it connects are not set: not the timeouts, and not the search path, which says what school it is.
"""

import re

import peewee as pw

from service.errors import SetupError
from service.storage import fetch
from service.storage.postgres.urls import parameters, without_password

MARK = "enrollment.connected"
"""The setting that each connection asks for, and that nobody reads but `check`: where it is lost, so are the others."""
PREPARED = "the pooler loses prepared statements: PgBouncer keeps them from 1.22 on, with max_prepared_statements = 200"
REASONS = {
    "unsupported startup parameter": (
        "the pooler refuses the settings of the connection: let PgBouncer have ignore_startup_parameters = options, "
        "and give the settings to the role"
    ),
    'prepared statement "(_pg3|read)_.*exist': PREPARED,
}
"""What to say in place of an error that only a pooler brings about, by a pattern that is found in its words."""
# psycopg calls the statements that it prepares _pg3_0, _pg3_1 and so on, and this is one. A pooler that keeps them
# gives them names of its own.
ASK = f"""
    SELECT coalesce(current_setting('{MARK}', TRUE), '') = '',
           EXISTS (SELECT FROM pg_prepared_statements WHERE starts_with(name, '_pg3_')),
           ARRAY(SELECT name || ' = ''' || wanted || ''''
                 FROM (VALUES ('lock_timeout', '5s'), ('statement_timeout', '60s'),
                              ('idle_in_transaction_session_timeout', '3s')) AS timeouts (name, wanted)
                 WHERE current_setting(name) = '0'),
           quote_ident(current_user)"""


def check(db: pw.Database, url: str, *, through: bool) -> None:
    """Raise SetupError if a pooler is in front of the database, unless `through` it the promises hold all the same."""
    ((is_pooled, loses_statements, missing, user),) = fetch(db, ASK)
    if not is_pooled:
        return
    reason = ""
    if not through:
        reason = "this needs a connection to PostgreSQL itself, and not to a pooler"
    elif "options" in parameters(url):
        reason = f"the pooler loses the options of the URL: ALTER ROLE {user} SET search_path = ... has the same effect"
    elif loses_statements:
        reason = PREPARED
    elif missing:
        settings = "; ".join(f"ALTER ROLE {user} SET {each}" for each in missing)
        reason = f"the pooler loses the settings of the connection, which the role needs then: {settings}"
    if reason:
        raise SetupError(f"The database {without_password(url)} cannot be used: {reason}.")


def reason_of(message: str) -> str:
    """Give what to say in place of the message of an error, which is mostly the message itself."""
    return next((reason for pattern, reason in REASONS.items() if re.search(pattern, message)), message)
