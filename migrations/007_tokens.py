"""Tokens: who may use the API, with which scopes and how long, and the sessions that a browser was given for a token.

Of a token and of a session only a SHA-256 is stored, so whoever reads the file, or a backup of it, gets no access.
A token is never deleted, because the service is open by itself only while no token was ever made.
"""

import peewee as pw
from peewee_migrate import Migrator

FORM = "????-??-??T??:??:??.???Z"
"""A time in RFC 3339, in UTC, to the millisecond, as a pattern of GLOB: in this form times are compared as texts."""

TABLES = (
    f"""
    CREATE TABLE api_tokens (
        id VARCHAR(8) NOT NULL PRIMARY KEY,
        hash BLOB NOT NULL CHECK (length(hash) = 32),
        name VARCHAR(200) NOT NULL,
        scopes VARCHAR(200) NOT NULL,
        created_at VARCHAR(24) NOT NULL,
        expires_at VARCHAR(24) CHECK (expires_at GLOB '{FORM}'),
        revoked_at VARCHAR(24),
        previous_hash BLOB,
        previous_until VARCHAR(24) CHECK (previous_until GLOB '{FORM}'),
        last_used_on VARCHAR(10)
    ) WITHOUT ROWID""",
    f"""
    CREATE TABLE api_sessions (
        hash BLOB NOT NULL PRIMARY KEY,
        token_id VARCHAR(8) NOT NULL REFERENCES api_tokens (id) ON DELETE CASCADE,
        ends_at VARCHAR(24) NOT NULL CHECK (ends_at GLOB '{FORM}')
    ) WITHOUT ROWID""",
)


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    """Add the two tables, which are empty."""
    for sql in TABLES:
        migrator.sql(sql)


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    """Take the tokens and the sessions away."""
    migrator.sql("DROP TABLE api_sessions")
    migrator.sql("DROP TABLE api_tokens")
