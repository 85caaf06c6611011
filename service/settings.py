"""Define the settings of the service and their defaults; only `__main__` reads the environment."""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Self

import attrs
from attrs.validators import ge, in_, le

from service.fields import NAME


@attrs.frozen(kw_only=True)
class Settings:
    """How the service runs; each setting's environment variable has the setting's name in capitals."""

    database_url: str = attrs.field(default="sqlite:///enrollment.db", repr=False)
    """The database: a file, as a path, or sqlite:///relative.db, or sqlite:////absolute.db; or one of PostgreSQL, as
    postgresql://user@host/name. It is not shown where settings are printed, as it may have a password in it."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = attrs.field(default=8000, converter=int, validator=[ge(0), le(65535)])
    """The TCP port to listen on; with 0 the operating system chooses a free one."""
    root_path: str = attrs.field(default="")
    """The beginning of the path, such as /enrollment, that a proxy in front of the service removes from each request.
    The headers Location and Link, and the type of a problem, begin with it, as clients need it."""
    allowed_hosts: str = attrs.field(default="")
    """The names, with a comma between two, that `serve` answers to, as a request has one in its header Host; with
    *.example.org all names below example.org. IP addresses, localhost and the names below localhost need not be
    listed."""
    public_url: str = attrs.field(default="")
    """The absolute URL, such as https://school.example.org/enrollment, by which browsers reach the service behind a
    proxy that sends another Host: pages from there may write."""
    school_name: str = attrs.field(default="School")
    """The name of the school, as exports to OneRoster tell it."""
    desk_words: str = ""
    """A file of JSON with the school's own words for the desk, in the place of those with the same keys."""
    auth: str = attrs.field(default="auto", validator=in_(("auto", "tokens", "none")))
    """Whether requests need a token. With `auto` they do unless the service listens on this machine alone and no token
    was ever made; with `tokens` they do, and with `none` they do not."""
    busy_timeout: float = attrs.field(default=5.0, converter=float, validator=[ge(0), le(3600)])
    """Seconds that a write waits for another process's lock on the file or, on PostgreSQL, for its turn; and that any
    request waits for an answer of PostgreSQL."""
    keep_alive: float = attrs.field(default=75, converter=float, validator=[ge(0), le(86_400)])
    """Seconds that a connection without a request stays open. It must be longer than a proxy keeps its connections to
    the service: else the proxy sends a request on a connection that is being closed, and gets a reset."""
    head_timeout: float = attrs.field(default=10, converter=float, validator=[ge(1), le(3600)])
    """Seconds within which the head of a request must be there, and the first one of a connection must begin."""
    body_timeout: float = attrs.field(default=30, converter=float, validator=[ge(1), le(3600)])
    """Seconds that a body may bring nothing; after so many it must have brought 1,024 bytes a second on the whole."""
    answer_timeout: float = attrs.field(default=60, converter=float, validator=[ge(1), le(3600)])
    """Seconds that a client may read nothing of its answer."""
    max_connections: int = attrs.field(default=4000, converter=int, validator=ge(1))
    """Connections at once; one more closes the one that waits longest for a request, or else gets 503 busy."""
    max_held_bytes: int = attrs.field(default=2**26, converter=int, validator=ge(2**22))
    """Bytes of request bodies in memory at once; a request that brings more gets 503 busy."""
    max_pending_writes: int = attrs.field(default=1000, converter=int, validator=ge(1))
    """How many writes may wait for the writer thread at once; one more is refused with 503 busy."""

    log: str = attrs.field(default="text", validator=in_(("text", "json")))
    """The form of the lines that `serve` logs."""
    access_log: bool = attrs.field(default=False, converter=attrs.converters.to_bool)
    """Whether `serve` logs a line for each request."""
    slow_ms: float = attrs.field(default=0, converter=float, validator=[ge(0), le(3_600_000)])
    """Milliseconds from which on a statement of SQL is logged; with 0 none is."""

    @root_path.validator
    def _check_root_path(self, _: object, value: str) -> None:
        if not re.fullmatch(r"(/[\w.~-]+)*", value, re.ASCII):  # Only characters that a URL need not escape.
            raise ValueError("'root_path' must begin with / and not end so, and have only letters, digits and . _ ~ -")

    @allowed_hosts.validator
    def _check_allowed_hosts(self, _: object, value: str) -> None:
        name = re.compile(r"((\*\.)?[\w-]+(\.[\w-]+)*\.?)?", re.ASCII)
        if not all(name.fullmatch(each.strip()) for each in value.split(",")):
            raise ValueError(
                "'allowed_hosts' must be names with a comma between two, such as school.example.org,*.example.net, "
                "without a scheme, a port or a path, and with xn-- for letters that are not ASCII"
            )

    @public_url.validator
    def _check_public_url(self, _: object, value: str) -> None:
        if value and not re.fullmatch(r"https?://([\w.-]+|\[[\da-fA-F:.]+\])(:\d+)?(/[\w.~-]+)*/?", value, re.ASCII):
            raise ValueError("'public_url' must be an absolute URL, such as https://school.example.org/enrollment")

    @school_name.validator
    def _check_school_name(self, _: object, value: str) -> None:
        try:
            NAME.check(value)
        except ValueError as error:
            raise ValueError(f"'school_name' {error}") from None

    @property
    def is_loopback(self) -> bool:
        """Whether the service listens where only programs of the same machine reach it."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:  # Another name may lead anywhere.
            return False

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
