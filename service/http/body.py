"""Read the body of a request: check its declared media type, take its bytes up to a limit, and decode its JSON."""

import json
import re
from collections.abc import Sequence
from typing import NoReturn

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from service.errors import MalformedJson, PayloadTooLarge, UnsupportedMediaType

JSON = b"application/json"
MERGE_PATCH = b"application/merge-patch+json"
NDJSON = b"application/x-ndjson"

# A parameter is `; name = value` or `; name = "value"`. A value without quotes has no comma: two Content-Type headers
# of one request are joined with a comma, and must be refused.
_PARAMETER = re.compile(rb';\s*(?:([^\s;=",]+)\s*(?:=\s*(?:(?:"((?:[^"\\]|\\.)*)"|([^\s;",]+))\s*)?)?)?')
_CHARSETS = {b"utf-8", b"utf8", b"us-ascii", b"ascii"}
"""The charsets that are accepted: UTF-8 under its two names, and ASCII, which is UTF-8 as well."""


async def read(scope: Scope, receive: Receive, accepted: Sequence[bytes], limit: int) -> tuple[bytes, bytes]:
    """Give a body's media type, which is one of `accepted`, and its bytes, which are at most `limit`.

    Raises UnsupportedMediaType, PayloadTooLarge, and ClientDisconnect where the client is gone.
    """
    headers = dict(scope["headers"])
    if len(headers) < len(scope["headers"]):
        headers = _joined(scope["headers"])
    media_type = headers.get(b"content-type", b"")
    if media_type not in accepted:
        media_type = _media_type(media_type, accepted)
    coding = headers.get(b"content-encoding", b"")
    if coding.lower() not in (b"", b"identity"):
        _refuse(f"The body came with Content-Encoding {_shown(coding)}.", accepted, (b"accept-encoding", b"identity"))
    length = headers.get(b"content-length", b"")
    announced = int(length[:20]) if length.isdigit() else 0
    body = bytearray()
    more = announced <= limit
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False) and len(body) <= limit
    if max(announced, len(body)) > limit:
        raise PayloadTooLarge(limit)
    return media_type, bytes(body)


def decode(body: bytes) -> object:
    """Read a JSON value. Raises MalformedJson."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    # Some JSON is valid, but msgspec cannot hold it: 1e999, or half a surrogate pair. The standard library can, so
    # that the field's own rule refuses the value and the answer names the field.
    try:
        # Python's int refuses more than 4,300 digits. The first 25 digits are enough to be out of every field's range.
        return json.loads(body.decode(), parse_constant=_not_json, parse_int=lambda digits: int(digits[:25]))
    except (ValueError, RecursionError) as error:
        raise MalformedJson(str(error)) from error


def _joined(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Join the values of headers that come several times with a comma, as RFC 9110, section 5.3, says."""
    joined: dict[bytes, bytes] = {}
    for name, value in headers:
        joined[name] = joined[name] + b", " + value if name in joined else value
    return joined


def _media_type(value: bytes, accepted: Sequence[bytes]) -> bytes:
    """Give the accepted media type that a Content-Type names, in any letter case and with any parameters.

    Of the parameters only charset has a meaning here. Raises UnsupportedMediaType.
    """
    name, semicolon, rest = value.partition(b";")
    name, parameters = name.strip().lower(), semicolon + rest
    if name not in accepted or _PARAMETER.sub(b"", parameters):
        came = f"The body came as {_shown(value)}." if value else "The body came without a Content-Type."
        _refuse(came, accepted)
    for parameter, quoted, plain in _PARAMETER.findall(parameters):
        charset = quoted or plain
        if parameter.lower() == b"charset" and charset and charset.lower() not in _CHARSETS:
            _refuse(f"The body came in the charset {_shown(charset)}.", accepted)
    return name


def _refuse(came: str, accepted: Sequence[bytes], header: tuple[bytes, bytes] | None = None) -> NoReturn:
    types = b", ".join(accepted)
    patch = (b"accept-patch" if MERGE_PATCH in accepted else b"accept", types)
    reason = f"{came} What is accepted here is {types.decode()}, in UTF-8 and without Content-Encoding."
    raise UnsupportedMediaType(reason, (header or patch,))


def _shown(value: bytes) -> str:
    return value[:100].decode(errors="replace")


def _not_json(constant: str) -> object:
    message = f"{constant} is not a JSON value"
    raise ValueError(message)
