"""The rules of tokens, by which programs use the API: who made a request, and what the one who did may do.

A token is `enr_<id>_<secret><check>`, in letters and digits: its id, which is no secret; 43 characters that hold 256
random bits; and the CRC-32 of all that, so that a token that is mistyped or cut off is told from one that no longer
counts without a look at the database. Only the SHA-256 of the secret is stored: 256 random bits need no slow hash.
"""

import hmac
import re
import secrets
import string
import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from math import inf
from typing import Any, Literal, get_args

import attrs
import msgspec
import peewee as pw

from service.errors import Conflict, NotFound, with_data
from service.fields import NAME, checked
from service.storage import change, fetch, fetch_one

Scope = Literal["read", "enroll", "write", "import", "metrics", "override", "admin"]
"""What a token may be made for: `admin` is all of them, and who may enroll or write may read too."""
State = Literal["active", "expired", "revoked"]
SCOPES: Sequence[Scope] = get_args(Scope)
IMPLIED: dict[str, frozenset[str]] = {
    **{scope: frozenset({scope}) for scope in SCOPES},
    "enroll": frozenset({"enroll", "read"}),
    "write": frozenset({"write", "read"}),
    "admin": frozenset(SCOPES),
}
"""Each scope with those that it includes."""

MISTYPED = "The token is mistyped or cut off: it does not agree with its own last six characters."
UNKNOWN = "No such token was ever made here."
REPLACED = "The token was replaced by a newer one with the same id."
REVOKED = "The token was revoked."
EXPIRED = "The token has expired."

COLUMNS = "id, name, scopes, created_at, expires_at, revoked_at, previous_until, last_used_on"
INSERT = """
    INSERT INTO api_tokens (id, hash, name, scopes, created_at, expires_at)
    VALUES (?, ?, ?, ?, ?, ?)
    RETURNING id"""
LIST = f"SELECT {COLUMNS} FROM api_tokens ORDER BY created_at, id"
FIND = f"SELECT {COLUMNS} FROM api_tokens WHERE id = ?"
FIND_HASHES = f"SELECT hash, previous_hash, {COLUMNS} FROM api_tokens WHERE id = ?"
ROTATE = "UPDATE api_tokens SET previous_hash = hash, previous_until = ?, hash = ? WHERE id = ? RETURNING id"
REVOKE = "UPDATE api_tokens SET revoked_at = coalesce(revoked_at, ?) WHERE id = ? RETURNING id"
END_SESSIONS = "DELETE FROM api_sessions WHERE token_id = ?"
ANY = "SELECT 1 FROM api_tokens LIMIT 1"
NOTE_USE = "UPDATE api_tokens SET last_used_on = ? WHERE id = ?"

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_LENGTH, _SECRET_LENGTH, _CHECK_LENGTH = 8, 43, 6
_ID = re.compile(f"[0-9A-Za-z]{{{_ID_LENGTH}}}")
_FORM = re.compile(
    rf"(enr_([0-9A-Za-z]{{{_ID_LENGTH}}})_([0-9A-Za-z]{{{_SECRET_LENGTH}}}))([0-9A-Za-z]{{{_CHECK_LENGTH}}})"
)


class Unusable(ValueError):
    """A token that does not count; the text says why, in words that its holder may know."""


@with_data
class TokenNotFound(NotFound):
    """No token has the id."""

    code, sentence = "token_not_found", "No token has the id {token_id!r}."
    token_id: str


@with_data
class TokenEnded(Conflict):
    """A token that was revoked or has expired gets no new secret."""

    code, sentence = "token_ended", "The token {token_id} is {state}, and no longer rotated. Make a new one."
    token_id: str
    state: str


def granted(scopes: Iterable[str]) -> frozenset[str]:
    """Give some scopes with those that they include; a word that is no scope includes nothing."""
    return frozenset().union(*(IMPLIED.get(scope, frozenset()) for scope in scopes))


class TokenRecord(msgspec.Struct, frozen=True):
    """A token, without its secret.

    Its `state` says whether it counts now, and if not, why. After a rotation, the secret before this one counts until
    `previous_until`.
    """

    id: str
    name: str
    scopes: list[str]
    state: State
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    previous_until: str | None
    last_used_on: str | None


class MadeTokenRecord(TokenRecord, frozen=True):
    """A token that was made now, or has a new secret: `token` is shown this once."""

    token: str


def token_record(row: Sequence[Any]) -> TokenRecord:
    """Make the record of a token of the row that `COLUMNS` gives."""
    token_id, name, scopes, created_at, expires_at, revoked_at, *rest = row
    state: State = "revoked" if revoked_at is not None else "active" if _is_to_come(expires_at) else "expired"
    return TokenRecord(token_id, name, scopes.split(), state, created_at, expires_at, revoked_at, *rest)


@attrs.frozen
class Grant:
    """Who asks, and what the one who asks may do, until when in seconds since 1970."""

    actor: str | None
    scopes: frozenset[str] = attrs.field(converter=granted)
    """With those that the given ones include."""
    ends: float = inf
    token_id: str = ""


EVERYBODY = Grant(None, SCOPES)
"""Where no token is needed: nobody is known, and everything is granted."""


def create_token(db: pw.Database, name: str, scopes: Iterable[Scope], expires_at: str | None = None) -> str:
    """Make a token, and give it: it is stored nowhere, so this is the only time.

    `expires_at` is the moment from which on it counts no more, as `moment` writes it. Raises InvalidPayload for the
    name, and ConstraintViolated.
    """
    kept = checked({"name": NAME}, {"name": name})["name"]
    token_id = "".join(secrets.choice(_DIGITS) for _ in range(_ID_LENGTH))
    token, digest = _make(token_id)
    words = " ".join(scope for scope in SCOPES if scope in {*scopes})
    change(db, INSERT, token_id, digest, kept, words, moment(), expires_at)
    return token


def list_tokens(db: pw.Database) -> list[TokenRecord]:
    """Give all tokens that were ever made, oldest first."""
    return [*map(token_record, fetch(db, LIST))]


def any_token(db: pw.Database) -> bool:
    """Tell whether a token was ever made; one that was revoked or has expired counts."""
    return fetch_one(db, ANY) is not None


def show_token(db: pw.Database, token_id: str) -> TokenRecord:
    """Give one token. Raises TokenNotFound."""
    row = fetch_one(db, FIND, token_id) if _ID.fullmatch(token_id) else None
    if row is None:
        raise TokenNotFound(token_id)
    return token_record(row)


def rotate_token(db: pw.Database, token_id: str, grace: timedelta = timedelta()) -> str:
    """Give a token a new secret; the old one counts for the grace, and without one no more.

    The token's sessions end in any case. Call it within a transaction. Raises TokenNotFound, TokenEnded,
    ConstraintViolated.
    """
    found = show_token(db, token_id)
    if found.state != "active":
        raise TokenEnded(token_id, found.state)
    token, digest = _make(token_id)
    change(db, ROTATE, moment(grace), digest, token_id)
    fetch(db, END_SESSIONS, token_id)
    return token


def revoke_token(db: pw.Database, token_id: str) -> TokenRecord:
    """Let a token and its sessions count no more; a token that was revoked before stays as it is.

    Call it within a transaction. Raises TokenNotFound, ConstraintViolated.
    """
    show_token(db, token_id)
    change(db, REVOKE, moment(), token_id)
    fetch(db, END_SESSIONS, token_id)
    return show_token(db, token_id)


def find_token(db: pw.Database, text: str) -> Grant:
    """Tell who has a token, and what for. Raises Unusable where the token does not count."""
    token_id, secret = _read(text)
    row = fetch_one(db, FIND_HASHES, token_id)
    if row is None:
        raise Unusable(UNKNOWN)
    digest, found = sha256(secret.encode()).digest(), token_record(row[2:])
    until = None
    if not hmac.compare_digest(digest, row[0]):
        if row[1] is None or not hmac.compare_digest(digest, row[1]):
            raise Unusable(UNKNOWN)
        until = found.previous_until
        if not _is_to_come(until):
            raise Unusable(REPLACED)
    return grant(found, until)


def grant(token: TokenRecord, until: str | None = None) -> Grant:
    """Tell what a token grants now, and at most until a moment. Raises Unusable where it grants nothing."""
    if token.state != "active":
        raise Unusable(REVOKED if token.state == "revoked" else EXPIRED)
    ends = min(datetime.fromisoformat(each).timestamp() if each else inf for each in (token.expires_at, until))
    return Grant(f"token:{token.id}", token.scopes, ends, token.id)


def note_use(db: pw.Database, token_id: str, day: str) -> None:
    """Keep on which day a token was used last."""
    fetch(db, NOTE_USE, day, token_id)


def moment(later: timedelta = timedelta()) -> str:
    """Give the present moment, or a later one, as RFC 3339 in UTC, to the millisecond."""
    return written(datetime.now(UTC) + later)


def written(at: datetime) -> str:
    """Write a moment in UTC in the form that is stored, in which moments are compared as texts."""
    return f"{at.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def _is_to_come(at: str | None) -> bool:
    return at is None or moment() < at


def _make(token_id: str) -> tuple[str, bytes]:
    """Give a new token with an id, and the hash of its secret."""
    secret = _digits(int.from_bytes(secrets.token_bytes(32)), _SECRET_LENGTH)
    token = f"enr_{token_id}_{secret}"
    return f"{token}{_check(token)}", sha256(secret.encode()).digest()


def _read(text: str) -> tuple[str, str]:
    """Give the id and the secret of a token. Raises Unusable for what is none."""
    found = _FORM.fullmatch(text)
    if found is None or found[4] != _check(found[1]):
        raise Unusable(MISTYPED)
    return found[2], found[3]


def _check(token: str) -> str:
    return _digits(zlib.crc32(token.encode()), _CHECK_LENGTH)


def _digits(number: int, length: int) -> str:
    """Write a number with the 62 letters and digits, with zeros before it up to the length."""
    text = ""
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        text = _DIGITS[digit] + text
    return text
