"""Requests with JSON, for every operation of the API: mostly right, and in any place what no client should send."""

import json
import re
from random import Random
from typing import Any
from urllib.parse import quote

import attrs

from service.http.api import API
from service.http.body import JSON, NDJSON, Upload
from service.http.calls import PATCH_TYPES, Rows
from service.http.operations import Operation
from service.http.payloads import BulkRow, Swap
from service.http.problems import PROBLEMS
from service.http.queries import write_cursor

STUDENTS, COURSES = 1000, 300
"""How many of each the school has at first. A case takes its ids from these, because its bytes must not depend on what
other cases have added meanwhile."""
TEXTS = (
    *("Ada", "1", "Ö", "e\u0301" * 60, "ﷺ" * 200, "a" * 200, "a" * 201, "\U0010ffff", "'; --", "%", "*", "..", "%2F"),
    *(" ", "\t", "\0", "\r\nX: y", "\u202e", "\ufeff", "\u200d", "\ud800", "\udfff\ud800", "a" * 3000, "null", "true"),
)
NUMBERS = (
    *("0", "-0", "-1", "1.0", "1e2", "1e999", "-1e-999", "0.1", "01", "+1", ".5", "0x1", "1_0", "NaN", "-Infinity"),
    *("2147483648", "9223372036854775807", "9223372036854775808", "18446744073709551617", "9" * 400, "9" * 5000),
)
OTHERS = ("null", "true", "false", "{}", "[]", "[[]]", '""', "'a'", '"\\x"', '"\\ud800"', '"\\u12', "undefined", "")
MONSTERS = (
    b"[" * 100_000,
    b"[" * 20_000 + b"]" * 20_000,
    b'{"name":' * 50_000 + b"1" + b"}" * 50_000,
    b"{%s}" % b",".join(b'"%d":0' % number for number in range(300_000)),
    b"{%s}" % b",".join(b'"%d":0' % number for number in range(80_000)),
    b"{%s}" % b",".join([b'"name":"Ada"'] * 70_000),
    b"[%s]" % b",".join([b"{}"] * 300_000),
    b"[%s]" % b",".join([b'{"student_id":1,"course_id":1}'] * 10_000),
    b'{"name":"%s"}' % (b"a" * 900_000),
    b'{"name":"%s"}' % (b"\\u0301" * 150_000),
    b'{"course_id":%s}' % (b"9" * 900_000),
    b'{"course_id":1e%s}' % (b"9" * 100_000),
    b"\n" * 900_000,
    b"{}\n" * 20_000,
)
"""Bodies that are large, or wide, or deep."""
ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-7", "cp500")
TYPES = (
    *(b"application/json; charset=utf-16", b'application/json; charset="utf-8', b"APPLICATION/JSON;;a=b"),
    *(b"application/json, text/html", b"text/plain", b"", b"\xff/\xff", NDJSON, *PATCH_TYPES),
)
TAGS = (
    b"*",
    b'"a"',
    b'W/"a"',
    b'"a", "b"',
    b"another",
    b"",
    b"," * 9000,
    b'"' * 9000,
    b'"a",' * 9000 + b"x",
    b'"\xff"',
)
"""Tags that no record has, and what only looks like them."""
OPERATIONS = [(path, method, each) for path, methods in API.items() for method, each in methods.items()]


def names(kind: Any) -> list[str]:
    """Give the names of the fields of a payload or a query."""
    return [field.name for field in attrs.fields(kind)] if attrs.has(kind) else []


KEYS = sorted({name for *_, each in OPERATIONS for kind in (each.query, each.body) if kind for name in names(kind)})
"""Every name that a body or a query of the API has."""


LIMITS, FLAGS = ("null", "0", "1", "5", "30", "1000"), ("true", "false")
TIMES = ("null", '"2020-01-01T00:00:00Z"', '"2999-01-01T00:00:00.5+02:00"')
PLAUSIBLE = {
    **dict.fromkeys(("capacity", "waitlist_capacity", "limit"), LIMITS),
    **dict.fromkeys(("atomic", "dry_run", "override", "or_wait"), FLAGS),
    **dict.fromkeys(("opens_at", "closes_at"), TIMES),
    **dict.fromkeys(("starts_on", "ends_on"), ("null", '"2026-09-01"', '"2026-12-31"')),
    "email": ("null", '"ada@example.org"'),
    "order": ('"id"', '"name"'),
}
"""The JSON of values that a key may have, where that depends on the key."""
ONE_OF = [*BulkRow.EITHER, *Swap.EITHER]
"""Pairs of keys of which a body has one."""


@attrs.frozen
class Asked:
    """What a request asks for; `operation` is None where the path does not have the method."""

    method: str
    operation: Operation | None


def one_in(dice: Random, count: int) -> bool:
    """Tell whether this is the one time of so many."""
    return dice.randrange(count) == 0


def plausible(dice: Random, key: str) -> str:
    """Give the JSON of a value that a key of the API may have."""
    if key.endswith("external_id"):
        return json.dumps(dice.choice(("S-1", "S-2", "BIO/101", "Ł 7", "courses")))
    if key.endswith("_id"):
        return str(dice.randint(1, COURSES if key.endswith("course_id") else STUDENTS))
    if key in PLAUSIBLE:
        return dice.choice(PLAUSIBLE[key])
    return json.dumps(dice.choice(("Ada", "Bo", "Algebra", "A1", "1", "enrolled", "waitlisted", "İstanbul")))


def value(dice: Random, key: str, depth: int = 0) -> str:
    """Give the JSON of a value, or what only looks like it."""
    if not one_in(dice, 6):
        return plausible(dice, key)
    match dice.randrange(4):
        case 0:
            return dice.choice(NUMBERS)
        case 1:
            return json.dumps(dice.choice(TEXTS), ensure_ascii=one_in(dice, 2))
        case 2 if depth < 4:
            return dice.choice((thing(dice, KEYS, depth + 1), f"[{value(dice, key, depth + 1)}]"))
    return dice.choice(OTHERS)


def thing(dice: Random, keys: list[str], depth: int = 0) -> str:
    """Give a JSON object with these keys: a sound one, or one with keys that are missing, there twice, or not known."""
    side = dice.randrange(2)
    keys = [key for key in keys if one_in(dice, 30) or not any(key == pair[side] for pair in ONE_OF)]
    if one_in(dice, 3):
        members = ",".join(f"{json.dumps(key)}:{plausible(dice, key)}" for key in keys)
        return f"{{{members}}}"
    named = [key for key in keys if not one_in(dice, 8)]
    if one_in(dice, 6):
        named += dice.choices([*KEYS, *TEXTS], k=dice.randint(1, 3))
    members = ",".join(f"{json.dumps(key)}:{value(dice, key, depth)}" for key in named)
    return f"{{{members}}}"


def body(dice: Random, operation: Operation | None) -> bytes:
    """Give a body for an operation: one payload, or the rows of a bulk."""
    if one_in(dice, 40):
        return dice.choice(MONSTERS)
    kind: Any = operation.body if operation and operation.body is not Upload else None
    bulk = one_in(dice, 20) if kind is not Rows else not one_in(dice, 20)
    keys = names(BulkRow if kind in {None, Rows} else kind)
    if bulk:
        count = dice.choice((0, 1, 2, 3, 10, 40) if not one_in(dice, 30) else (400, 2001))
        rows = [thing(dice, keys) if not one_in(dice, 8) else value(dice, "course_id") for _ in range(count)]
        text = f"[{','.join(rows)}]" if one_in(dice, 2) else "\n".join(rows)
    else:
        text = thing(dice, keys) if not one_in(dice, 8) else value(dice, "name")
    if one_in(dice, 30):
        return text.encode(dice.choice(ENCODINGS), "replace")
    return text.encode(errors="surrogatepass")


def query(dice: Random, path: str, operation: Operation | None) -> str:
    """Give a query string with its question mark, or none."""
    own = names(operation.query) if operation else []
    if not one_in(dice, 2 if own else 12):
        return ""
    pairs = []
    for _ in range(dice.choice((0, 1, 1, 2, 3, 60))):
        name = dice.choice(own) if own and not one_in(dice, 5) else dice.choice([*KEYS, *TEXTS])
        given = plausible(dice, name).strip('"') if not one_in(dice, 3) else dice.choice((*TEXTS, *NUMBERS))
        if name == "after":
            given = write_cursor(f"{path}?", dice.choice((0, 1, 50, 2**63)), dice.choice(("", "Ada", b"\xff")))
        pairs.append(f"{quoted(name)}={quoted(given)}")
    return "?" + dice.choice("&&&;").join(pairs)


def quoted(text: str) -> str:
    """Write a text as a word of a URL, whatever is in it."""
    return quote(text.encode(errors="surrogatepass"), safe="")


def word(dice: Random, name: str) -> str:
    """Give a word of a path that the API calls so."""
    if one_in(dice, 8):
        return quoted(dice.choice((*TEXTS, *NUMBERS)))
    return dice.choice([*PROBLEMS]) if name == "code" else quoted(plausible(dice, name).strip('"'))


def request(dice: Random) -> tuple[bytes, Asked]:
    """Give a request whose bytes are HTTP/1.1, whatever its path, query and body are; and what it asks for."""
    template, method, found = dice.choice(OPERATIONS)
    operation: Operation | None = found
    if one_in(dice, 10):
        method = dice.choice(("HEAD", "OPTIONS", "PUT", "PATCH", "POST", "DELETE", "TRACE", "MKCOL", "QUERY"))
        operation = API[template].get("GET" if method == "HEAD" else method)
    path = re.sub(r"\{(\w+)(?::path)?\}", lambda part: word(dice, part[1]), template)
    target = path + query(dice, path, operation)
    content, fields = b"", b"Host: school\r\n"
    if one_in(dice, 10):
        fields += b"%s: %s\r\n" % (dice.choice((b"If-Match", b"If-None-Match")), dice.choice(TAGS))
    if (operation and operation.body) or one_in(dice, 10):
        content = body(dice, operation)
        usual = NDJSON if not content.startswith(b"[") and operation and operation.body is Rows else JSON
        fields += b"Content-Type: %s\r\n" % (usual if not one_in(dice, 12) else dice.choice(TYPES))
        if one_in(dice, 5):
            fields += b"Transfer-Encoding: chunked\r\n"
            cut = dice.randint(0, len(content))
            parts = [b"%x\r\n%s\r\n" % (len(part), part) for part in (content[:cut], content[cut:]) if part]
            content = b"".join([*parts, b"0\r\n\r\n"])
        else:
            fields += b"Content-Length: %d\r\n" % len(content)
    return b"%s %s HTTP/1.1\r\n%s\r\n%s" % (method.encode(), target.encode(), fields, content), Asked(method, operation)
