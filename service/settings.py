"""What can be set, and its defaults; the environment is read in `__main__` only."""

import re
from collections.abc import Mapping
from typing import Self

import attrs
from attrs.validators import ge, le


@attrs.frozen(kw_only=True)
class Settings:
    """How the service runs; the environment's name of each is its own in capitals."""

    database_url: str = "sqlite:///enrollment.db"
    """A path, or sqlite:///relative.db, or sqlite:////absolute.db."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = attrs.field(default=8000, converter=int, validator=[ge(0), le(65535)])
    """The TCP port to listen on; 0 takes a free one."""
    root_path: str = attrs.field(default="")
    """The path that a proxy strips in front of the service, such as /enrollment: Location, Link and type begin so."""
    busy_timeout: float = attrs.field(default=5.0, converter=float, validator=[ge(0), le(3600)])
    """Seconds that a write waits for another process's lock on the file."""
    keep_alive: float = attrs.field(default=75, converter=float, validator=[ge(0), le(86_400)])
    """Seconds that a connection without a request stays open: longer than a proxy keeps its own, or it gets resets."""
    max_pending_writes: int = attrs.field(default=1000, converter=int, validator=ge(1))
    """Writes that may wait at once; one more is refused with 503 busy."""

    @root_path.validator
    def _check_root_path(self, _: object, value: str) -> None:
        if not re.fullmatch(r"(/[\w.~-]+)*", value, re.ASCII):  # Nothing that a URL would have to escape.
            raise ValueError("'root_path' must begin with / and not end so, and have only letters, digits and . _ ~ -")

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read DATABASE_URL, HOST, PORT, ...; one that is absent or empty keeps its default.

        Raises ValueError, naming the variable, for a value that does not fit.
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
