"""The rules of sessions: for a token, the browser of whoever has the token gets a cookie, which ends with the token.

A page cannot keep a token where no script of another page may find it; the cookie is out of reach of every script. Only
the SHA-256 of the cookie is stored.
"""

import secrets
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import msgspec
import peewee as pw

from service.storage import fetch, fetch_one
from service.tokens import COLUMNS, Grant, TokenRecord, Unusable, find_token, grant, moment, show_token, written

LASTS = timedelta(hours=12)
"""How long a session lasts, if its token does not end before."""
ENDED = "The session has ended."

FORGET = "DELETE FROM api_sessions WHERE ends_at <= ?"
INSERT = "INSERT INTO api_sessions (hash, token_id, ends_at) VALUES (?, ?, ?)"
FIND = f"""
    SELECT ends_at, {COLUMNS}
    FROM api_sessions
    JOIN api_tokens ON api_tokens.id = api_sessions.token_id
    WHERE api_sessions.hash = ? AND ends_at > ?"""
DELETE = "DELETE FROM api_sessions WHERE hash = ?"


class SessionRecord(msgspec.Struct, frozen=True):
    """A session: who uses it, what for, and until when."""

    actor: str
    name: str
    scopes: list[str]
    ends_at: str


def open_session(db: pw.Database, token: str) -> tuple[str, SessionRecord]:
    """Begin a session with a token, and give its cookie, which is stored nowhere. Raises Unusable."""
    found = find_token(db, token)
    record = show_token(db, found.token_id)
    cookie = secrets.token_urlsafe(32)
    ends = datetime.now(UTC) + LASTS
    ends_at = written(datetime.fromtimestamp(min(found.ends, ends.timestamp()), UTC))
    fetch(db, FORGET, moment())
    fetch(db, INSERT, _digest(cookie), record.id, ends_at)
    return cookie, SessionRecord(f"token:{record.id}", record.name, sorted(found.scopes), ends_at)


def find_session(db: pw.Database, cookie: str) -> Grant:
    """Tell whose session a cookie is, and what for. Raises Unusable where it has ended, or where it never began."""
    row = fetch_one(db, FIND, _digest(cookie), moment())
    if row is None:
        raise Unusable(ENDED)
    return grant(TokenRecord(*row[1:]), row[0])


def close_session(db: pw.Database, cookie: str) -> None:
    """End a session; nothing is done where it has ended already."""
    fetch(db, DELETE, _digest(cookie))


def _digest(cookie: str) -> bytes:
    return sha256(cookie.encode()).digest()
