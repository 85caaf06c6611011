"""The handlers of tokens, by which whoever runs the service lets programs and people in."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import peewee as pw

from service import tokens
from service.errors import InvalidPayload
from service.fields import TokenId, pointer
from service.http.answers import Created, NoContent, Ok, created, no_content, ok
from service.http.calls import Call
from service.http.payloads import NewToken, Rotation
from service.tokens import MadeTokenRecord, TokenRecord


async def list_tokens(call: Call) -> Ok[list[TokenRecord]]:
    """List all tokens that were ever made, oldest first, without their secrets."""
    call.own_cookies()
    return ok(await call.store.read(tokens.list_tokens))


async def create_token(call: Call, payload: NewToken) -> Created[MadeTokenRecord]:
    """Make a token; it is shown this once."""
    cookies = call.own_cookies()
    if payload.expires_at is not None and payload.expires_at <= tokens.moment():
        raise InvalidPayload([(pointer("expires_at"), "must be to come")])
    made = await call.store.write(_shown, tokens.create_token, payload.name, payload.scopes, payload.expires_at)
    cookies.forget()
    return created(made, call.url(f"/tokens/{made.id}"))


async def show_token(call: Call, token_id: TokenId) -> Ok[TokenRecord]:
    """Show one token, without its secret."""
    call.own_cookies()
    return ok(await call.store.read(tokens.show_token, token_id))


async def rotate_token(call: Call, token_id: TokenId, payload: Rotation) -> Ok[MadeTokenRecord]:
    """Give a token a new secret, which is shown this once; sessions that were begun with the old one end."""
    cookies, grace = call.own_cookies(), timedelta(hours=payload.grace_hours)
    made = await call.store.write(_shown, tokens.rotate_token, token_id, grace)
    cookies.forget()
    return ok(made)


async def revoke_token(call: Call, token_id: TokenId) -> NoContent:
    """Let a token and its sessions count no more; it stays in the list."""
    cookies = call.own_cookies()
    await call.store.write(tokens.revoke_token, token_id)
    cookies.forget()
    return no_content()


def _shown(db: pw.Database, make: Callable[..., str], *args: Any) -> MadeTokenRecord:
    """Run a rule that gives a token, and give the token's record with it."""
    token = make(db, *args)
    record = tokens.show_token(db, tokens.find_token(db, token).token_id)
    return MadeTokenRecord(**msgspec.structs.asdict(record), token=token)
