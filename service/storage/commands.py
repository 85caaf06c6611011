"""Write the commands of the service that an error tells people to run."""

import os
import shlex


def command(verb: str, url: str | os.PathLike[str]) -> str:
    """Give the command line that runs a command of the service, such as "migrate", on a database."""
    return f"python -m service {verb} --database-url {shlex.quote(os.fspath(url))}"
