"""Read the URL of a database of PostgreSQL, and show it without its password."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from service.errors import SetupError

FORM = "postgresql://user:password@host:5432/database"
_URL = re.compile(
    r"postgres(ql)?://([^@/?#]*@)?([^@/?#:]*|\[[^@/?#\]]*\])(:\d+)?(,[^@/?#:]*(:\d+)?|,\[[^@/?#\]]*\](:\d+)?)*(/[^@?#]*)?(\?.*)?$"
)
_SECRET = re.compile("password|secret|scram_.*_key")
_IN_PLACE = {"user", "host", "port", "dbname"}
"""The parameters that have a place of their own in a URL, before the ? of the others."""


def parameters(url: str) -> Mapping[str, Any]:
    """Give the parameters of libpq that a URL has, such as host and dbname.

    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS says what a URL may have: several
    hosts, and how TLS is to be checked. What the URL does not have is in the environment of libpq, PGPASSWORD and so
    on, or in its files. Raises SetupError for any other text, which is not shown, as it may have a password in it.
    """
    text = url.lstrip("\ufeff").strip()  # A file of environment variables may leave a BOM and spaces around a value.
    if not _URL.match(text):
        # A password that is not escaped may look like a host or a database to libpq, whose message would tell it.
        message = (
            f"The URL of a database of PostgreSQL is written as {FORM}, with %40 for a @, %3A for a :, %2F for a / and "
            "%25 for a % in the password."
        )
        raise SetupError(message)
    try:
        return conninfo_to_dict(text)
    except psycopg.Error:
        message = "libpq cannot read the URL of the database: see whether it knows each parameter behind the ?."
        raise SetupError(message) from None


def without_password(url: str) -> str:
    """Give a URL without its password, for people and for logs: libpq takes the password from its own places then."""
    try:
        given = {name: str(value) for name, value in parameters(url).items() if not _SECRET.search(name)}
    except SetupError:
        return "postgresql://..."
    hosts, ports = given.get("host", "").split(","), given.get("port", "").split(",")
    if len(ports) < len(hosts):
        ports = ports[:1] * len(hosts)
    places = [f"{_host(host)}{port and f':{port}'}" for host, port in zip(hosts, ports, strict=False)]
    user = f"{quote(given['user'], safe='')}@" if "user" in given else ""
    rest = urlencode({name: value for name, value in given.items() if name not in _IN_PLACE}, quote_via=quote)
    name = quote(given.get("dbname", ""), safe="")
    return f"postgresql://{user}{','.join(places)}/{name}{rest and f'?{rest}'}"


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else quote(host, safe="")
