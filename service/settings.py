"""Define the settings of the service and their defaults; only `__main__` reads the environment."""

import re
from collections.abc import Mapping
from typing import Self

import attrs
from attrs.validators import ge, le


@attrs.frozen(kw_only=True)
class Settings:
    """How the service runs; each setting's environment variable has the setting's name in capitals."""

    database_url: str = "sqlite:///enrollment.db"
    """The database file: a path, or sqlite:///relative.db, or sqlite:////absolute.db."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = attrs.field(default=8000, converter=int, validator=[ge(0), le(65535)])
    """The TCP port to listen on; with 0 the operating system chooses a free one."""
    root_path: str = attrs.field(default="")
    """The beginning of the path, such as /enrollment, that a proxy in front of the service removes from each request.
    The headers Location and Link, and the type of a problem, begin with it, as clients need it."""
    busy_timeout: float = attrs.field(default=5.0, converter=float, validator=[ge(0), le(3600)])
    """Seconds that a write waits for another process's lock on the file."""
    keep_alive: float = attrs.field(default=75, converter=float, validator=[ge(0), le(86_400)])
    """Seconds that a connection without a request stays open. It must be longer than a proxy keeps its connections to
    the service: else the proxy sends a request on a connection that is being closed, and gets a reset."""
    max_pending_writes: int = attrs.field(default=1000, converter=int, validator=ge(1))
    """How many writes may wait for the writer thread at once; one more is refused with 503 busy."""

    @root_path.validator
    def _check_root_path(self, _: object, value: str) -> None:
        if not re.fullmatch(r"(/[\w.~-]+)*", value, re.ASCII):  # Only characters that a URL need not escape.
            raise ValueError("'root_path' must begin with / and not end so, and have only letters, digits and . _ ~ -")

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings from DATABASE_URL, HOST, PORT and so on; an absent or empty variable keeps its default.

        Raises ValueError, which names the variable, for a value that is not valid.
        """
        given = {}
        for field in attrs.fields(cls):
            if value := environ.get(field.name.upper()):
                try:
                    cls(**{field.name: value})
                except ValueError as error:
                    message = f"{field.name.upper()}={value!r} is not valid: {error.args[0]}"
                    raise ValueError(message) from error
                given[field.name] = value
        return cls(**given)
