"""What the commands have in common: the settings, the option for the database, and how far a long command is."""

import os
import sys
from typing import Any

import attrs
import click

from service.settings import Settings


def settings_of(**given: Any) -> Settings:
    """Make the settings from the options, then the environment, then the defaults; an empty one counts as absent."""
    try:
        settings = Settings.from_environ(os.environ)
        return attrs.evolve(settings, **{name: value for name, value in given.items() if value not in (None, "")})
    except ValueError as error:
        raise click.UsageError(error.args[0]) from error


def show(what: str, seconds: float) -> None:
    """Show on a terminal what is at work, and for how many seconds."""
    if sys.stdout.isatty():
        click.echo(f"\r{what:<13} {seconds:.0f} s", nl=False)


def clear() -> None:
    """Erase on a terminal the line that `show` printed."""
    if sys.stdout.isatty():
        click.echo("\r\x1b[K", nl=False)


database_url_option = click.option(
    "--database-url",
    metavar="URL",
    help="A path, sqlite:///relative.db, sqlite:////absolute.db, or postgresql://user@host/name.  [env: DATABASE_URL; "
    f"default: {Settings().database_url}]",
)
