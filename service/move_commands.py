"""The command that moves a school to another database."""

import click

from service.options import clear, show
from service.storage import kinds


@click.command(short_help="Move a school from a file to PostgreSQL, or back.")
@click.argument("source", metavar="SOURCE_URL")
@click.argument("target", metavar="TARGET_URL")
def move(source: str, target: str) -> None:
    """Move all rows of the database SOURCE_URL to TARGET_URL, from a file to a server of PostgreSQL, or back.

    Students, courses, terms and enrollments keep their ids, and the events, their notes, and the tokens go with them.
    Stop the service first: nothing can be written to the source meanwhile, and what is written later stays behind. The
    target is migrated first, and may have no rows. It gets all rows at once, checked, or none. The source stays as it
    is.
    """
    # The other commands need nothing of this.
    from service import moving  # noqa: PLC0415

    try:
        counts = moving.move(source, target, show)
    finally:
        clear()
    for table, count in counts.items():
        click.echo(f"{table:<18}{count:>12,}")
    click.echo(f"{kinds.without_password(target)} has all that {kinds.without_password(source)} has, and is sound.")
