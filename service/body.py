"""The body of a request: what it says that it is, its bytes, and the JSON in it."""

import json
import re
from collections.abc import Sequence
from typing import NoReturn

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from service.errors import ServiceError

Headers = tuple[tuple[bytes, bytes], ...]

JSON = b"application/json"
MERGE_PATCH = b"application/merge-patch+json"
NDJSON = b"application/x-ndjson"

# ; name = value, or "value"; what is not in quotes has no comma, so that two headers joined by one are no header.
_PARAMETER = re.compile(rb';\s*(?:([^\s;=",]+)\s*(?:=\s*(?:(?:"((?:[^"\\]|\\.)*)"|([^\s;",]+))\s*)?)?)?')
_CHARSETS = {b"utf-8", b"utf8", b"us-ascii", b"ascii"}
"""UTF-8, and what is UTF-8 too."""


class EdgeError(ServiceError):
    """A refusal that HTTP itself knows, before any rule is asked."""

    sentence = "{reason}"

    def __init__(self, code: str, reason: str, headers: Headers = ()) -> None:
        """Keep the code with the sentence, and the headers that the status calls for."""
        super().__init__(code, reason, headers)
        self.code, self.reason, self.headers = code, reason, headers  # type: ignore[misc]


async def read(scope: Scope, receive: Receive, accepted: Sequence[bytes], limit: int) -> tuple[bytes, bytes]:
    """Give the body's media type, which is one of the accepted, and its bytes."""
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
        raise EdgeError("payload_too_large", f"The body is over {limit:,} bytes.")
    return media_type, bytes(body)


def decode(body: bytes) -> object:
    """Read a JSON value."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    # Some JSON is sound and yet more than msgspec holds: 1e999, or half a surrogate pair.
    # The standard library reads it, so that the refusal can name the field.
    try:
        # More than 4,300 digits are more than int takes; 25 are enough to be out of any range here.
        return json.loads(body.decode(), parse_constant=_not_json, parse_int=lambda digits: int(digits[:25]))
    except (ValueError, RecursionError) as error:
        detail = f"The body is not JSON: {error}."
        raise EdgeError("malformed_json", detail) from error


def _joined(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Join the values of headers that come several times, as RFC 9110, section 5.3, has it."""
    joined: dict[bytes, bytes] = {}
    for name, value in headers:
        joined[name] = joined[name] + b", " + value if name in joined else value
    return joined


def _media_type(value: bytes, accepted: Sequence[bytes]) -> bytes:
    """Take a media type in any case and with any parameters, of which only a charset means something here."""
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
    detail = f"{came} What is accepted here is {types.decode()}, in UTF-8 and without Content-Encoding."
    raise EdgeError("unsupported_media_type", detail, (header or patch,))


def _shown(value: bytes) -> str:
    return value[:100].decode(errors="replace")


def _not_json(constant: str) -> object:
    message = f"{constant} is not a JSON value"
    raise ValueError(message)
