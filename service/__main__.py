"""The command line: serve, import, export, migrate, rollback, status, check, repair, backup, move, token."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # From here on, until the server sets a handler of its own, Ctrl+C ends the program at once and prints nothing.
    # Python's own handler prints a traceback, and does nothing while a long SQL statement runs. If a migration is ended
    # midway, SQLite undoes it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click

import service
from service import tokens
from service.app import create_app
from service.errors import SetupError
from service.export_commands import export
from service.http.logs import AccessLog, logging_as
from service.http.server import Server, taking_port
from service.import_commands import import_
from service.move_commands import move
from service.options import clear, database_url_option, settings_of, show
from service.settings import Settings
from service.storage.kinds import command, connect, schema_of, without_password
from service.token_commands import token


class _Commands(click.Group):
    """The group of commands; an error that the user can mend ends one as a line of text and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SetupError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(service.__version__, message="enrollment-service %(version)s")
def cli() -> None:
    """Keep who is enrolled in what."""


@cli.command()
@click.option("--host", help=f"The address to listen on.  [env: HOST; default: {Settings().host}]")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help=f"The port to listen on; 0 takes a free one.  [env: PORT; default: {Settings().port}]",
)
@click.option(
    "--root-path",
    metavar="PATH",
    help="The path that a proxy strips in front of the service, such as /enrollment.  [env: ROOT_PATH; default: none]",
)
@database_url_option
@click.option("--migrate", is_flag=True, help="Apply pending migrations first.")
def serve(
    host: str | None, port: int | None, root_path: str | None, database_url: str | None, *, migrate: bool
) -> None:
    """Serve the API over HTTP until SIGTERM or Ctrl+C.

    AUTH, ALLOWED_HOSTS, PUBLIC_URL, BUSY_TIMEOUT, KEEP_ALIVE and MAX_PENDING_WRITES are read from the environment too,
    and so are LOG, ACCESS_LOG and SLOW_MS, which say what is logged to stderr.
    """
    settings = settings_of(host=host, port=port, root_path=root_path, database_url=database_url)
    # The port is taken first, so that no migration runs where the port is in use. The server listens last, so that no
    # client connects before the schema is right.
    with taking_port(settings) as sockets, logging_as(settings):
        app = create_app(settings, migrate=migrate, snapshot_per_turn=True, check_origins=True, check_tokens=True)
        told = AccessLog(app) if settings.access_log or settings.slow_ms else app
        Server(told, settings, _open_to(settings), app.state.metrics).run(sockets)


def _open_to(settings: Settings) -> str | None:
    """Say who needs no token, or None where everybody needs one.

    Raises SetupError where others than this machine's programs may come, and nobody can have a token.
    """
    if settings.auth == "none":
        return "everyone, without a token (AUTH=none)"
    with closing(connect(settings.database_url)) as db:
        made = tokens.any_token(db)
    if not made and not settings.is_loopback:
        create = command("token create", settings.database_url)
        raise SetupError(
            f"Others reach the address {settings.host}, and no token was ever made by which to let them in. "
            f"Make one: {create} --name admin --scope admin"
        )
    return None if made or settings.auth == "tokens" else "every program of this machine, without a token (AUTH=auto)"


@cli.command()
@database_url_option
def migrate(database_url: str | None) -> None:
    """Apply the pending migrations, all or nothing; make the file if there is none."""
    url = settings_of(database_url=database_url).database_url
    try:
        done = schema_of(url).migrate(url, show)
    finally:
        clear()
    for name in done:
        click.echo(f"applied {name}")
    click.echo(f"{without_password(url)} is up to date.")


@cli.command()
@database_url_option
@click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
def rollback(database_url: str | None, *, yes: bool) -> None:
    """Undo the newest migration, once it is said what goes with it; no server may run meanwhile."""
    url = settings_of(database_url=database_url).database_url
    try:
        name, lost = schema_of(url).try_rollback(url, show)
    finally:
        clear()
    click.echo(f"Rolling back {name} deletes" + (":" if lost else " no rows and no values."))
    for what, count in lost.items():
        unit = "value" if "." in what else "row"
        click.echo(f"{count:>12,} {unit if count == 1 else f'{unit}s'} of {what}")
    if not yes:
        if not sys.stdin.isatty():
            raise click.ClickException("Nothing was changed. To go on where there is no terminal, add --yes.")
        click.confirm("Go on?", abort=True, err=True)
    try:
        name = schema_of(url).rollback(url, alone=True, tick=show)
    finally:
        clear()
    click.echo(f"rolled back {name}")


@cli.command()
@database_url_option
def status(database_url: str | None) -> None:
    """Show the schema's version, the pending migrations, the number of rows, and what differs from the migrations.

    Exits with 1 if something does.
    """
    url = settings_of(database_url=database_url).database_url
    found, rows, differences = schema_of(url).status(url)
    click.echo(f"database  {without_password(url)}")
    click.echo(f"version   {found.applied[-1] if found.applied else 'none'}")
    click.echo(f"pending   {', '.join(found.pending) or 'none'}")
    if found.unknown:
        click.echo(f"unknown   {', '.join(found.unknown)}")
    for table, count in rows.items():
        click.echo(f"{table:<18}{count:>12,}")
    for difference in differences:
        click.echo(f"differs   {difference}")
    if differences:
        raise click.ClickException(f"It is not as its migrations made it. Run: {command('repair', url)}")


@cli.command()
@database_url_option
def check(database_url: str | None) -> None:
    """Prove what must hold in the database, while the service may go on; exits with 1 if something does not hold."""
    url = settings_of(database_url=database_url).database_url
    broken = False
    for result in schema_of(url).prove(url, show):
        broken |= bool(result.broken)
        clear()
        click.echo(f"{result.invariant.name:<14}{result}  ({result.seconds:.1f} s)")
    if broken:
        raise click.ClickException(f"The database is not sound. Run: {command('repair', url)}")


@cli.command()
@database_url_option
def repair(database_url: str | None) -> None:
    """Put the schema back as the migrations make it, and the rows in agreement with it, all or nothing."""
    url = settings_of(database_url=database_url).database_url
    try:
        done = schema_of(url).repair(url, show)
    finally:
        clear()
    for sentence in done or ["Nothing was to be done."]:
        click.echo(sentence)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@database_url_option
def backup(file: Path, database_url: str | None) -> None:
    """Copy the database to FILE, while the service may go on; FILE is replaced once the copy is whole and checked."""
    url = settings_of(database_url=database_url).database_url
    try:
        size = schema_of(url).back_up(url, file, show)
    finally:
        clear()
    click.echo(f"{file} is a copy of {without_password(url)}, of {size:,} bytes.")


cli.add_command(export)
cli.add_command(import_)
cli.add_command(move)
cli.add_command(token)

if __name__ == "__main__":
    cli()
