"""Bytes that look like requests in HTTP/1.1: from a grammar that has faults of its own, and then changed at random."""

from random import Random

from fuzz.values import one_in, request

METHODS = (b"GET",) * 8 + (b"POST",) * 4 + (b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"PATCH", b"CONNECT", b"TRACE")
ODD_METHODS = (b"get", b"", b"PRI", b"M-SEARCH", b"SOURCE", b"DESCRIBE", b"G\0ET", b"GET\t", b"\xff", b"A" * 5000)
TARGETS = (
    *(b"/health/live", b"/students", b"/courses/1", b"/students/1/courses", b"/enrollments", b"/events?limit=3"),
    *(b"/students/1/courses/1", b"/problems/busy", b"/nothing"),
)
ODD_TARGETS = (
    *(b"*", b"/", b"", b"//", b"//school/students", b"/../students", b"/students#x", b"/students?a?b#c", b"/%"),
    *(b"http://school", b"http://school/health/live", b"https://u:p@[::1]:99999/", b"school:80", b"http://", b"?"),
    *(b"/\xc3\xa9", b"/\xff", b"/a b", b"/\0", b"/\x7f", b"/%2e%2e%2f", b"/%00", b"#", b"/?" + b"z=1&" * 2000),
    b"/" + b"y" * 66_000,
)
VERSIONS = (b"HTTP/1.1",) * 12 + (b"HTTP/1.0",)
ODD_VERSIONS = (
    *(b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/9.9", b"HTTP/1.10", b"HTTP/11", b"http/1.1", b"", b"HTTP/1.1 "),
    *(b"RTSP/1.0", b"ICE/1.0", b"HTTP /1.1", b"HTTP/1"),
)
FIELDS = (
    *(b"Accept: */*", b"Content-Type: application/json", b"Connection: keep-alive", b"Connection: close"),
    *(b"Expect: 100-continue", b"Origin: http://school", b"X: y", b"X:", b"Cookie: a=b"),
)
ODD_FIELDS = (
    *(b"Host: school", b"Host: other.example", b"Host: ", b"Host: [::1", b"Host: school, school", b"HOST:\tschool\t"),
    *(b"Connection: Upgrade\r\nUpgrade: websocket", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c"),
    *(b"Connection: close, keep-alive", b"Connection: ,,,", b"Upgrade: h2c", b"Expect: 200-ok", b"Expect: x"),
    *(b"Content-Type: text/plain", b"Content-Encoding: gzip", b"Origin: null", b"Sec-Fetch-Site: cross-site"),
    *(b"X: a\r\n b", b" X: y", b"X : y", b"X", b": y", b"X: \0", b"X: a\rb", b"X: a\nb", b"X: \xff\xfe", b"X\0: y"),
    *(b"Content-Length: 5", b"Content-Length : 5", b"Transfer-Encoding: chunked", b"Trailer: Host", b"TE: trailers"),
    *(b"X: " + b"y" * 70_000, b"X: y\r\n" * 101 + b"X: y", b"Y" * 9000 + b": z", b"Keep-Alive: 9", b"Via: 1.1 a"),
)
LENGTHS = (
    *(b"0", b"1", b"4", b"5", b"99", b"-1", b"+5", b"5, 5", b"5,6", b"0x5", b"5 5", b" 5 ", b"", b"05", b"5.0", b"1e1"),
    *(b"1048577", b"99999999999", b"18446744073709551615", b"18446744073709551621", b"9" * 100, b"\xb2"),
)
CODINGS = (
    *(b"chunked",) * 6,
    *(b"Chunked", b"chunked, chunked", b"gzip, chunked", b"chunked, gzip", b"identity", b"xchunked", b"chunked\0"),
    *(b"\x0bchunked", b"chunked;q=1", b'"chunked"', b"", b"chunked\r\nTransfer-Encoding: identity"),
)
SIZES = (b"-1", b"+5", b"0x5", b"", b" 5", b"5 ", b"g", b"F" * 16, b"F" * 17, b"1" + b"0" * 15, b"00000005", b"5\t")
EXTENSIONS = (b";a=b", b";", b' ; a = "b;c"', b';"', b";a=\r", b";a=\n5", b";" + b"x" * 3000, b";\0", b";a=b\xff")
TRAILERS = (b"X: y\r\n", b"Content-Length: 3\r\n", b"Host: a\r\n", b"X\r\n", b"\0: y\r\n", b"X: y\r\n" * 101, b" x\r\n")
BODIES = (
    *(b'{"name": "Ada"}', b'{"course_id": 1}', b"[]", b"{", b""),
    b"GET /health/live HTTP/1.1\r\nHost: school\r\n\r\n",
)
TOKENS = (
    *(b"\r\n", b"\n", b"\r", b"\0", b"\r\n\r\n", b" ", b"\t", b"\x0b", b":", b"0\r\n\r\n", b"\xff", b"\x80", b"%00"),
    *(b"GET / HTTP/1.1\r\n", b"Host: school\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n"),
)
FLOOD = b"GET /students?limit=1000 HTTP/1.1\r\nHost: school\r\n\r\n" * 200
"""Requests for more than the operating system keeps for a client that does not read."""


def either(dice: Random, usual: tuple[bytes, ...], odd: tuple[bytes, ...], often: int = 12) -> bytes:
    """Give something usual, or once in so many times something odd."""
    return dice.choice(odd if one_in(dice, often) else usual)


def chunked(dice: Random, body: bytes) -> bytes:
    """Give a body in chunks, with what may stand beside them and what may not."""
    parts, left = b"", body
    while left:
        size = dice.randint(1, len(left))
        line = b"%x" % size if not one_in(dice, 20) else dice.choice(SIZES)
        line += dice.choice(EXTENSIONS) if one_in(dice, 10) else b""
        parts += line + b"\r\n" + left[:size] + either(dice, (b"\r\n",), (b"", b"\n", b"\r", b"\r\n\r\n"), 40)
        left = left[size:]
    end = either(dice, (b"0\r\n",), (b"", b"0\n", b"00\r\n", b"0;x\r\n", b"-0\r\n"), 20)
    return parts + end + (dice.choice(TRAILERS) if one_in(dice, 8) else b"") + b"\r\n"


def message(dice: Random) -> bytes:
    """Give a request: a head, and a body as the head says, or otherwise."""
    method, target = either(dice, METHODS, ODD_METHODS), either(dice, TARGETS, ODD_TARGETS, 6)
    line = b" ".join((method, target, either(dice, VERSIONS, ODD_VERSIONS)))
    fields = [b"Host: school"] if not one_in(dice, 20) else []
    fields += [either(dice, FIELDS, ODD_FIELDS, 4) for _ in range(dice.choice((0, 0, 1, 2, 3)))]
    body = b""
    if not one_in(dice, 3):
        body = dice.choice(BODIES)
        if length := dice.choice((b"%d" % len(body), b"%d" % len(body), None, dice.choice(LENGTHS))):
            fields.append(b"Content-Length: " + length)
        if length is None or one_in(dice, 10):
            fields.append(b"Transfer-Encoding: " + dice.choice(CODINGS))
            body = chunked(dice, body)
    dice.shuffle(fields)
    end = either(dice, (b"\r\n",), (b"\n", b"\r", b"\r\r\n", b""), 40)
    return line + end + b"".join(field + end for field in fields) + end + body


def mutated(dice: Random, data: bytes) -> bytes:
    """Change some of the bytes: other bits, some bytes less, twice, from elsewhere, or from another request."""
    for _ in range(dice.choice((0, 0, 0, 1, 1, 2, 6))):
        at = dice.randint(0, len(data))
        end = at + dice.choice((1, 1, 2, 7, 40))
        part = data[at:end]
        match dice.randrange(5):
            case 0:
                part = bytes(byte ^ (1 << dice.randrange(8)) for byte in part)
            case 1:
                part = b""
            case 2:
                part *= dice.choice((2, 2, 3, 100))
            case 3:
                part = dice.choice(TOKENS) + part
            case _:
                other = message(dice)
                part = other[dice.randint(0, len(other)) :][:200]
        data = data[:at] + part + data[end:]
    return data


def stream(dice: Random) -> bytes:
    """Give what one connection sends: some requests one behind the other, and noise."""
    if one_in(dice, 50):
        return dice.randbytes(dice.choice((1, 20, 5000)))
    count = dice.choice((1, 1, 1, 2, 3, 30))
    return mutated(dice, b"".join(message(dice) if not one_in(dice, 4) else request(dice)[0] for _ in range(count)))
