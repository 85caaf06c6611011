"""Read the body of a request: check its declared media type, take its bytes up to a limit, and decode its JSON."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, cast

import attrs
import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from service.errors import InvalidPayload
from service.http.edge import MalformedJson, PayloadTooLarge, UnsupportedMediaType

JSON = b"application/json"
MERGE_PATCH = b"application/merge-patch+json"
NDJSON = b"application/x-ndjson"
FILES = (b"text/csv", b"application/zip", b"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet")
"""The media types of files: a table, several tables or a set in one file, a workbook."""
MAX_UPLOAD = 2**28
"""The most bytes that a file may have."""
WRITTEN_AT_ONCE = 2**20
"""How many bytes of a file are gathered before they are written, by a thread."""

# A parameter is `; name = value` or `; name = "value"`. A value without quotes has no comma: two Content-Type headers
# of one request are joined with a comma, and must be refused.
_PARAMETER = re.compile(rb';\s*(?:([^\s;=",]+)\s*(?:=\s*(?:(?:"((?:[^"\\]|\\.)*)"|([^\s;",]+))\s*)?)?)?')
_SPACE = re.compile(r"[ \t\n\r]*")
_LINE = re.compile(rb"([^\r\n]+)|[\r\n]+")
"""A line without its end, or the ends of lines: to pass over many ends at once takes less time."""
_CHARSETS = {b"utf-8", b"utf8", b"us-ascii", b"ascii"}
"""The charsets that are accepted: UTF-8 under its two names, and ASCII, which is UTF-8 as well."""


async def read(scope: Scope, receive: Receive, accepted: Sequence[bytes], limit: int) -> tuple[bytes, bytes]:
    """Give a body's media type, which is one of `accepted`, and its bytes, which are at most `limit`.

    Raises UnsupportedMediaType, PayloadTooLarge, and ClientDisconnect where the client is gone.
    """
    headers = _headers(scope)
    media_type = headers.get(b"content-type", b"")
    if media_type not in accepted:
        media_type = _media_type(media_type, accepted)
    _check_coding(headers, accepted)
    announced, body = _announced(headers), bytearray()
    more = announced <= limit
    while more:
        part, more = await _part(receive)
        body += part
        more = more and len(body) <= limit
    if max(announced, len(body)) > limit:
        raise PayloadTooLarge(limit)
    return media_type, bytes(body)


@attrs.frozen
class Upload:
    """A body that is a file: its media type, and its bytes, which have not come yet."""

    media_type: bytes
    _receive: Receive

    async def save(self, path: Path, hold: Callable[[int], None]) -> None:
        """Write the bytes to a new file, as they come; `hold` is told how many more are going to be there.

        Raises PayloadTooLarge, ClientDisconnect, OSError, and what `hold` raises.
        """
        with path.open("xb") as file:
            size, waiting, more = 0, bytearray(), True
            while more:
                part, more = await _part(self._receive)
                waiting += part
                size += len(part)
                if size > MAX_UPLOAD:
                    raise PayloadTooLarge(MAX_UPLOAD)
                hold(len(part))
                if len(waiting) >= WRITTEN_AT_ONCE or not more:
                    await asyncio.to_thread(file.write, bytes(waiting))
                    waiting.clear()


def upload(scope: Scope, receive: Receive) -> Upload:
    """Give a body that is a file. Raises UnsupportedMediaType, and PayloadTooLarge where it says so beforehand."""
    headers = _headers(scope)
    given = headers.get(b"content-type", b"")
    media_type = given.partition(b";")[0].strip().lower()  # Its charset is found in the bytes: the header may be wrong.
    if media_type not in FILES:
        _refuse(f"The body came as {_shown(given)}." if given else "The body came without a Content-Type.", FILES)
    _check_coding(headers, FILES)
    if _announced(headers) > MAX_UPLOAD:
        raise PayloadTooLarge(MAX_UPLOAD)
    return Upload(media_type, receive)


async def _part(receive: Receive) -> tuple[bytes, bool]:
    """Give the next bytes of a body, and whether more may come. Raises ClientDisconnect."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


def _headers(scope: Scope) -> dict[bytes, bytes]:
    headers = dict(scope["headers"])
    return headers if len(headers) == len(scope["headers"]) else _joined(scope["headers"])


def _announced(headers: Mapping[bytes, bytes]) -> int:
    length = headers.get(b"content-length", b"")
    return int(length[:20]) if length.isdigit() else 0


def _check_coding(headers: Mapping[bytes, bytes], accepted: Sequence[bytes]) -> None:
    coding = headers.get(b"content-encoding", b"")
    if coding.lower() not in (b"", b"identity"):
        _refuse(f"The body came with Content-Encoding {_shown(coding)}.", accepted, (b"accept-encoding", b"identity"))


def decode(body: bytes) -> object:
    """Read a JSON value. Raises MalformedJson."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    # Some JSON is valid, but msgspec cannot hold it: 1e999, or half a surrogate pair. The standard library can, so
    # that the field's own rule refuses the value and the answer names the field.
    try:
        return _DECODER.decode(body.decode())
    except (ValueError, RecursionError) as error:
        raise MalformedJson(str(error)) from error


def lines(body: bytes) -> Iterator[bytes]:
    """Give the lines of a body one by one, without their ends; empty lines are left out."""
    return (found[1] for found in _LINE.finditer(body) if found[1])


def elements(body: bytes) -> Iterator[object]:
    """Read the values in a JSON array one by one, because to read a large array at once would take long.

    Raises MalformedJson, and InvalidPayload for JSON that is no array.
    """
    try:
        text = body.decode()
        at = _end_of_space(text, 0)
        if text[at : at + 1] != "[":
            msgspec.json.decode(body, type=msgspec.Raw)  # It checks a large value fast, because it makes no objects.
            raise InvalidPayload([("#", "must be a JSON array of rows")])
        at = _end_of_space(text, at + 1)
        sign = "" if text[at : at + 1] == "]" else ","
        while sign == ",":
            value, at = _DECODER.raw_decode(text, at)
            yield value
            at = _end_of_space(text, at)
            sign = text[at : at + 1]
            at = _end_of_space(text, at + 1) if sign == "," else at
        if text[at : at + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
        at = _end_of_space(text, at + 1)
        if at < len(text):
            raise json.JSONDecodeError("Extra data", text, at)
    except (ValueError, RecursionError) as error:
        raise MalformedJson(str(error).removeprefix("JSON is malformed: ")) from error


def _end_of_space(text: str, at: int) -> int:
    return cast("re.Match[str]", _SPACE.match(text, at)).end()


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


# Python's int refuses more than 4,300 digits. The first 25 digits are enough to be out of every field's range.
_DECODER = json.JSONDecoder(parse_constant=_not_json, parse_int=lambda digits: int(digits[:25]))
