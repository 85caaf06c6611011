"""The rules of sessions: for a token, the browser of whoever has the token gets a cookie, which ends with the token.

A page cannot keep a token where no script of another page may find it; the cookie is out of reach of every script. Only
the SHA-256 of the cookie is stored.
"""

import secrets
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from math import inf

import attrs
import msgspec
import peewee as pw

from service.storage import fetch, fetch_one
from service.tokens import COLUMNS, Grant, Unusable, find_token, grant, moment, show_token, token_record, written

LASTS = timedelta(hours=12)
"""How long a session lasts, if its token does not end before."""
ENDED = "The session has ended."
HALF = timedelta(milliseconds=0.5)
"""What makes a moment that is cut to the millisecond a rounded one."""

FORGET = "DELETE FROM api_sessions WHERE ends_at <= ?"
INSERT = "INSERT INTO api_sessions (hash, token_id, ends_at) VALUES (?, ?, ?)"
FIND = f"""
    SELECT ends_at, {COLUMNS}
    FROM api_sessions
    JOIN api_tokens ON api_tokens.id = api_sessions.token_id
    WHERE api_sessions.hash = ? AND ends_at > ?"""
DELETE = "DELETE FROM api_sessions WHERE hash = ?"


class SessionRecord(msgspec.Struct, frozen=True):
    """Who makes a request, what that one may do, and until when.

    `name` is the token's. Where no token is needed, everybody may do everything, and the rest is null.
    """

    actor: str | None
    name: str | None
    scopes: list[str]
    ends_at: str | None


def open_session(db: pw.Database, token: str) -> tuple[str, SessionRecord]:
    """Begin a session with a token, and give its cookie, which is stored nowhere. Raises Unusable."""
    found = find_token(db, token)
    ends = min(found.ends, (datetime.now(UTC) + LASTS).timestamp())
    session = show_session(db, attrs.evolve(found, ends=ends))
    cookie = secrets.token_urlsafe(32)
    fetch(db, FORGET, moment())
    fetch(db, INSERT, _digest(cookie), found.token_id, session.ends_at)
    return cookie, session


def find_session(db: pw.Database, cookie: str) -> Grant:
    """Tell whose session a cookie is, and what for. Raises Unusable where it has ended, or where it never began."""
    row = fetch_one(db, FIND, _digest(cookie), moment())
    if row is None:
        raise Unusable(ENDED)
    return grant(token_record(row[1:]), row[0])


def show_session(db: pw.Database, granted: Grant) -> SessionRecord:
    """Tell who it is that something is granted to. Raises TokenNotFound for a token that is not there."""
    name = show_token(db, granted.token_id).name if granted.token_id else None
    # As a float, a moment that is far away is some microseconds before or after itself: `written` would cut those off.
    ends_at = None if granted.ends == inf else written(datetime.fromtimestamp(granted.ends, UTC) + HALF)
    return SessionRecord(granted.actor, name, sorted(granted.scopes), ends_at)


def close_session(db: pw.Database, cookie: str) -> None:
    """End a session; nothing is done where it has ended already."""
    fetch(db, DELETE, _digest(cookie))


def _digest(cookie: str) -> bytes:
    return sha256(cookie.encode()).digest()
