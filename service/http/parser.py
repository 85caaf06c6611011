"""Reads the bytes of one connection as requests in HTTP/1.1 (RFC 9112), with a bound for each part of them."""

import re
from typing import Any, Protocol
from urllib.parse import unquote

import httptools

from service.errors import ServiceError
from service.http.edge import BadRequest, HeadersTooLarge, UriTooLong

MAX_HEAD = 2**16
"""Bytes in a request's target, in its header fields, and in its trailers, at most."""
MAX_FIELDS = 100
"""Header fields and trailers of a request, together, at most."""
VERSIONS = ("1.1", "1.0")
"""What is answered. The parser reads HTTP/2.0 and HTTP/0.9 as well, of which neither would have to name a Host."""
PIECE = 4096
"""Bytes that are given to the parser at once, at most, so that it makes no more than some hundred requests of them."""

_SLASH = re.compile("%2[fF]")
_AUTHORITY = re.compile(rb"(?<=://)[^/?#]*")


class Refused(Exception):
    """What came is no request, or too much of one; nothing more can be read. `args[0]` is the refusal."""


class Sink(Protocol):
    """What requests are read for."""

    def begin(self, scope: dict[str, Any], fault: str, *, keep_alive: bool, expects: bool) -> None:
        """Take the head of a request, and what is wrong with it, if anything is."""

    def take(self, data: bytes) -> None:
        """Take a part of the body."""

    def end(self, *, keep_alive: bool) -> None:
        """Take the end of the body, and whether another request may follow."""


class Parser:
    """The requests of one connection."""

    def __init__(self, sink: Sink, root_path: str) -> None:
        """Have read nothing yet."""
        self.in_head = False
        """Whether the head of a request has begun and not ended."""
        self._sink, self._root_path = sink, root_path
        self._refusal: ServiceError | None = None
        self._muted = False
        self._fed = self._extra = self._fields = 0
        self._url, self._headers, self._method = b"", list[tuple[bytes, bytes]](), ""
        self._in_body = False
        self._parser = self._reader()

    def _reader(self) -> Any:
        """Make a parser that takes what comes behind a last request for nothing, and not for a fault."""
        reader = httptools.HttpRequestParser(self)
        reader.set_dangerous_leniencies(lenient_data_after_close=True)
        return reader

    def feed(self, data: bytes) -> None:
        """Read up to PIECE bytes. Raises Refused."""
        try:
            self._read(data)
        except httptools.HttpParserError:
            raise Refused(self._refusal or BadRequest("The bytes that came are no request in HTTP/1.1.")) from None
        if self.in_head or self._in_body:
            self._limit(len(data))

    def _read(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])

    def _limit(self, count: int) -> None:
        """Bound what the parser keeps to itself: a field, a chunk's own line, or a trailer that does not end."""
        if self.in_head:
            self._fed += count
            if self._fed > MAX_HEAD + PIECE:
                raise Refused(HeadersTooLarge() if self._headers else UriTooLong())
        else:
            self._extra += count
            if self._extra > MAX_HEAD + PIECE:
                raise Refused(HeadersTooLarge())

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read the body of a request as its body, although the client would rather speak another protocol behind it.

        RFC 9110, section 7.8: a server may ignore Upgrade. The parser cannot: it ends where the other protocol would
        begin. So a new parser is told of the body, and goes on.
        """
        if self._method == "CONNECT":
            raise Refused(BadRequest("This server is no proxy."))
        fields, seen = dict(self._headers), self._fields
        name = b"transfer-encoding" if b"transfer-encoding" in fields else b"content-length"
        self._parser, self._muted = self._reader(), True
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%s: %s\r\n\r\n" % (name, fields.get(name, b"0")))
        self._muted, self._fields = False, seen
        if rest:
            self._read(rest)

    def on_message_begin(self) -> None:
        """Begin a request."""
        if not self._muted:
            self._url, self._headers, self.in_head = b"", [], True
            self._fed = self._extra = self._fields = 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        if not self._muted:
            self._url += url
            if len(self._url) > MAX_HEAD:
                self._refuse(UriTooLong())

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field; a trailer is counted and thrown away."""
        self._fields += 1
        if self._fields > MAX_FIELDS:
            self._refuse(HeadersTooLarge())
        if self.in_head:
            # White space at the end of a line is none of the value (RFC 9112, section 5.1); that before it is gone.
            self._headers.append((name.lower(), value.rstrip(b" \t")))

    def _refuse(self, refusal: ServiceError) -> None:
        self._refusal = refusal
        raise ValueError  # httptools ends then, with an error of its own.

    def on_headers_complete(self) -> None:
        """Hand the head of a request on."""
        if self._muted:
            return
        self.in_head, self._in_body = False, True
        version, self._method = self._parser.get_http_version(), self._parser.get_method().decode()
        if version not in VERSIONS:
            self._refuse(BadRequest("The request is neither in HTTP/1.1 nor in HTTP/1.0."))
        fields = dict(self._headers)
        fault = self._fault(fields, version)
        url = httptools.parse_url(self._url)
        if url.host:
            self._take_host()
        raw_path = url.path or b"/"
        path = raw_path.decode("ascii")
        if "%" in path:
            path = unquote(_SLASH.sub("%252F", path))  # A slash that is written so does not part two words.
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "method": self._method,
            "scheme": "http",
            "path": self._root_path + path,
            "raw_path": self._root_path.encode() + raw_path,
            "query_string": url.query or b"",
            "root_path": self._root_path,
            "headers": self._headers,
        }
        modern = version != "1.0"
        self._sink.begin(
            scope,
            fault,
            keep_alive=modern and self._parser.should_keep_alive(),
            expects=modern and fields.get(b"expect", b"").lower() == b"100-continue",
        )

    def _take_host(self) -> None:
        """Put the host of a target that is a whole URL in the place of the header Host (RFC 9112, section 3.2.2)."""
        host = _AUTHORITY.search(self._url)[0]  # type: ignore[index]  # The target has a host.
        self._headers = [each for each in self._headers if each[0] != b"host"] + [(b"host", host)]

    def _fault(self, fields: dict[bytes, bytes], version: str) -> str:
        """Tell what is wrong with a head that has a clear end; refuse one that has not, or is too large."""
        if sum(len(name) + len(value) for name, value in self._headers) > MAX_HEAD:
            self._refuse(HeadersTooLarge())
        if len(fields) < len(self._headers):
            names = [name for name, _ in self._headers]  # Two lengths the parser refuses itself.
            for name in ("Host", "Content-Type"):
                if names.count(name.lower().encode()) > 1:
                    return f"The header field {name} comes more than once."
        if b"host" not in fields and version == "1.1":
            return "A request in HTTP/1.1 names its Host (RFC 9112, section 3.2)."
        return ""

    def on_body(self, data: bytes) -> None:
        """Hand a part of the body on."""
        # A chunk has a line of its own, which is short where the chunk is not: 16 bytes for each byte are enough.
        self._extra -= 16 * len(data)
        self._sink.take(data)

    def on_message_complete(self) -> None:
        """Hand the end of the body on, unless the parser takes what follows for another protocol."""
        if self._muted or not self._parser.should_upgrade():
            self._in_body = False
            self._sink.end(keep_alive=self._parser.should_keep_alive())
