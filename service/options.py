"""What the commands have in common: the settings, from options and the environment, and the option for the database."""

import os
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


database_url_option = click.option(
    "--database-url",
    metavar="URL",
    help="A path, sqlite:///relative.db or sqlite:////absolute.db.  [env: DATABASE_URL; "
    f"default: {Settings().database_url}]",
)
