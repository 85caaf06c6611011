"""The commands of tokens: make one, list them, give one a new secret, and let one count no more.

A token is printed alone on stdout, so that a script can keep it; whatever else there is to say goes to stderr.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta

import click
import msgspec
import peewee as pw

from service import tokens
from service.errors import InvalidPayload, SetupError
from service.options import database_url_option, settings_of
from service.storage.kinds import command, connect, without_password
from service.tokens import SCOPES, Scope, TokenEnded, TokenNotFound, TokenRecord

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_HEAD = ("ID", "STATE", "SCOPES", "CREATED", "EXPIRES", "USED", "NAME")


def _duration(_: click.Context, __: click.Parameter, text: str | None) -> timedelta | None:
    """Read a whole number and a unit, such as 90d; what is none is a usage error."""
    if text is None:
        return None
    found = re.fullmatch("([1-9][0-9]{0,4})([mhdw])", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not a number and a unit, such as 30m, 24h, 90d or 52w.")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


@contextmanager
def _opened(database_url: str | None) -> Iterator[pw.Database]:
    """Open the database for a block; what the user can mend is raised as SetupError."""
    settings = settings_of(database_url=database_url)
    url = settings.database_url
    with closing(connect(url, busy_timeout=settings.busy_timeout)) as db:
        try:
            yield db
        except (TokenNotFound, TokenEnded) as error:
            raise SetupError(f"{error} To see all: {command('token list', url)}") from error
        except pw.DatabaseError as error:
            raise SetupError(f"The database {without_password(url)} cannot be used: {error}.") from error


def _say(*sentences: str) -> None:
    click.echo(" ".join(sentences), err=True)


def _described(token: TokenRecord) -> str:
    ends = f"until {token.expires_at}" if token.expires_at else "until it is revoked"
    return f"Token {token.id} of {token.name} counts {ends}, for: {', '.join(token.scopes)}."


@click.group(short_help="Make, list, rotate and revoke the tokens that let programs in.")
def token() -> None:
    """Make, list, rotate and revoke the tokens by which programs use the API.

    A server that runs heeds each change within a second.
    """


@token.command(short_help="Make a token, and print it, once.")
@database_url_option
@click.option("--name", required=True, help="Whose token it is, or what for, for your own list.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(SCOPES),
    help="What it may do; give one --scope for each. enroll and write include read; admin includes all.",
)
@click.option(
    "--expires",
    callback=_duration,
    metavar="DURATION",
    help="After how long it counts no more, such as 12h or 90d.  [default: never]",
)
def create(database_url: str | None, name: str, scopes: Sequence[Scope], expires: timedelta | None) -> None:
    """Make a token, and print it alone on stdout: it is shown this once, as only a hash of it is stored.

    A client sends it in the header "Authorization: Bearer TOKEN".
    """
    with _opened(database_url) as db, db.atomic("IMMEDIATE"):
        try:
            made = tokens.create_token(db, name, scopes, None if expires is None else tokens.moment(expires))
        except InvalidPayload as error:
            raise click.BadParameter(error.faults[0][1], param_hint="'--name'") from error
        shown = tokens.show_token(db, tokens.find_token(db, made).token_id)
    click.echo(made)
    _say(_described(shown), "It is not shown again.")


@token.command("list", short_help="List all tokens, without their secrets.")
@database_url_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, for programs.")
def list_(database_url: str | None, *, as_json: bool) -> None:
    """List all tokens that were ever made, oldest first, without their secrets."""
    with _opened(database_url) as db:
        found = tokens.list_tokens(db)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
    elif not found:
        _say("No token was ever made.")
    else:
        _print_table([_HEAD, *map(_row, found)])


def _row(token: TokenRecord) -> tuple[str, ...]:
    days = (token.created_at[:10], (token.expires_at or "never")[:10], token.last_used_on or "never")
    return token.id, token.state, ",".join(token.scopes), *days, token.name


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@token.command(short_help="Give a token a new secret, and print the token, once.")
@database_url_option
@click.argument("token_id", metavar="ID")
@click.option(
    "--grace",
    callback=_duration,
    metavar="DURATION",
    help="How long the old secret counts beside the new one, such as 24h.  [default: no longer]",
)
def rotate(database_url: str | None, token_id: str, grace: timedelta | None) -> None:
    """Give a token a new secret, and print the token alone on stdout; sessions that were begun with it end."""
    with _opened(database_url) as db, db.atomic("IMMEDIATE"):
        made = tokens.rotate_token(db, token_id, grace or timedelta())
        shown = tokens.show_token(db, token_id)
    click.echo(made)
    old = f"The old secret counts until {shown.previous_until}." if grace else "The old secret counts no more."
    _say(_described(shown), old, "The new one is not shown again.")


@token.command(short_help="Let a token count no more.")
@database_url_option
@click.argument("token_id", metavar="ID")
def revoke(database_url: str | None, token_id: str) -> None:
    """Let a token count no more, nor the sessions that were begun with it; it stays in the list."""
    with _opened(database_url) as db, db.atomic("IMMEDIATE"):
        shown = tokens.revoke_token(db, token_id)
    click.echo(f"Token {shown.id} of {shown.name} counts no more, since {shown.revoked_at}.")
