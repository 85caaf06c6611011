"""Describe what clients send, as attrs classes, and the strict cattrs converters that make them.

The type of each field, such as `Name`, has the field's rule in its annotation. A payload or query is refused only after
all its faults were found, so that a client learns of all of them at once.
"""

import hashlib
import re
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from functools import cache
from itertools import islice
from typing import Annotated, Any, TypeVar, get_args

import attrs
import msgspec
from cattrs import ClassValidationError, Converter

from service.errors import InvalidPayload, InvalidQuery
from service.fields import MAX_ID, UNKNOWN, Capacity, Field, Id, Level, Name, Prefix, Status, integer, pointer, word
from service.storage.texts import readable, stored

MAX_LIMIT = 1000
MAX_FAULTS = 20
"""The most faults of one payload or one query that an answer lists: each unknown key of a large body is a fault."""
ABSENT: Any = msgspec.UNSET
_OTHER_LIST = "is not a cursor of this list"
_CURSOR = re.compile(rb"(.{8})(-?[0-9]{1,19})([ =])(.*)", re.DOTALL)
"""A cursor, decoded: 8 bytes that name its list, the row's id, and the row's name, which follows a space if it is a
text and = if it is a BLOB."""


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise ValueError("must be true or false")
    return value


def _key(value: tuple[str, str]) -> tuple[str | bytes, int]:
    of, text = value
    try:
        cursor = b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        cursor = b""
    found = _CURSOR.fullmatch(cursor)
    if found is None or found[1] != _digest(of) or not -MAX_ID - 1 <= int(found[2]) <= MAX_ID:
        raise ValueError(_OTHER_LIST)
    return readable(found[4]) if found[3] == b" " else found[4], int(found[2])


Number = Annotated[int, integer(0, MAX_ID)]
"""An integer from 0 to 2⁶³-1."""
Flag = Annotated[bool, Field(_flag, {"type": "boolean"})]
"""The word true or false."""
Limit = Annotated[int, integer(1, MAX_LIMIT)]
"""How many rows a page has at most, from 1 to 1000."""
OneStatus = Annotated[Status, word(Status)]
"""The word enrolled or waitlisted."""
Key = Annotated[tuple[str | bytes, int], Field(_key, {"type": "string"})]
"""An opaque cursor for the client; here (name, id) of the row before the page."""


class Payload:
    """A JSON object in the body of a request."""

    __slots__ = ()


class Query:
    """The values of a query string."""

    __slots__ = ()


T = TypeVar("T")
P = TypeVar("P", bound=Payload)
Q = TypeVar("Q", bound=Query)


@attrs.frozen
class NewStudent(Payload):
    """The body of POST /students."""

    name: Name


@attrs.frozen
class StudentChanges(Payload):
    """The body of PATCH /students/{student_id}: a field that is absent stays as it is (RFC 7396)."""

    name: Name = ABSENT


@attrs.frozen
class NewCourse(Payload):
    """The body of POST /courses."""

    name: Name
    level: Name
    capacity: Capacity = None
    waitlist_capacity: Capacity = 0


@attrs.frozen
class CourseChanges(Payload):
    """The body of PATCH /courses/{course_id}: a field that is absent stays as it is (RFC 7396)."""

    name: Name = ABSENT
    level: Name = ABSENT
    capacity: Capacity = ABSENT
    waitlist_capacity: Capacity = ABSENT


@attrs.frozen
class NewEnrollment(Payload):
    """The body of POST /students/{student_id}/courses."""

    course_id: Id


@attrs.frozen
class BulkRow(Payload):
    """One row in the body of POST /enrollments."""

    student_id: Id
    course_id: Id


@attrs.frozen
class BulkQuery(Query):
    """The query of POST /enrollments."""

    atomic: Flag = False
    dry_run: Flag = False


@attrs.frozen
class EventQuery(Query):
    """The query of GET /events; `after` is the id of the last event that the client has seen."""

    limit: Limit = 100
    after: Number = 0
    student_id: Number | None = None
    course_id: Number | None = None


@attrs.frozen
class NoQuery(Query):
    """The query of an operation that takes no parameters."""


@attrs.frozen
class PageQuery(Query):
    """The query of a list that is in the order of the ids."""

    limit: Limit = 100
    after: Key | None = None


@attrs.frozen
class ScheduleQuery(PageQuery):
    """The query of GET /students/{student_id}/courses; without `status` the list has both statuses."""

    status: OneStatus | None = None


@attrs.frozen
class StudentQuery(PageQuery):
    """The query of GET /students; with `name`, the beginning of a name, the list is in the order of (name, id)."""

    name: Prefix | None = None


@attrs.frozen
class CourseQuery(StudentQuery):
    """The query of GET /courses: that of GET /students, and `level` to list the courses of one level only."""

    level: Level | None = None


def read_payload(cls: type[P], value: object, most_faults: int = MAX_FAULTS) -> P:
    """Make a payload of a decoded JSON value.

    Raises InvalidPayload with a pointer to each fault, but to no more than `most_faults`.
    """
    if not isinstance(value, dict):
        raise InvalidPayload([("#", "must be a JSON object")][:most_faults], max(0, 1 - most_faults))
    payload, faults, left_out = _structure(_payloads, cls, value, most_faults)
    if payload is None:
        raise InvalidPayload([(pointer(where), what) for where, what in faults], left_out)
    return payload


def read_query(cls: type[Q], values: Mapping[str, list[str]], of: str = "") -> Q:
    """Make a query of its decoded values, each parameter's values in a list.

    `of` names the requested list: a cursor of another list is refused. Raises InvalidQuery with the parameter of each
    fault, but of no more than MAX_FAULTS.
    """
    asked: Mapping[str, Any] = values
    if issubclass(cls, PageQuery) and "after" in values:
        asked = {**values, "after": [(of, cursor) for cursor in values["after"]]}
    query, faults, left_out = _structure(_queries, cls, asked, MAX_FAULTS)
    if query is None:
        raise InvalidQuery(faults, left_out)
    return query


def given(changes: Any) -> dict[str, Any]:
    """Give the fields of a PATCH that the client sent, with their values."""
    return attrs.asdict(changes, filter=lambda _, value: value is not ABSENT)


def write_cursor(of: str, row_id: int, name: str | bytes = "") -> str:
    """Write the opaque cursor of a row in the list that `of` names.

    The name may be any text or BLOB, because another program may have written any into the database.
    """
    kind = b"=" if isinstance(name, bytes) else b" "
    return urlsafe_b64encode(_digest(of) + b"%d" % row_id + kind + stored(name)).decode().rstrip("=")


def _digest(of: str) -> bytes:
    return hashlib.blake2b(of.encode(errors="surrogatepass"), digest_size=8).digest()


def _structure(
    converter: Converter, cls: type[T], values: Mapping[str, Any], most: int
) -> tuple[T | None, list[tuple[str, str]], int]:
    """Make an object of a class; or give None, the first faults, at most `most`, and how many more there are.

    Values that the class does not know are counted, but only the first of them are looked at: a body of 4 MB may have
    300,000, and to make a set of their names, as cattrs would, holds up every other request for 0.1 s.
    """
    made, faults = None, list[tuple[str, str]]()
    known = _names(cls)  # type: ignore[arg-type]  # mypy does not know that classes can be hashed.
    try:
        made = converter.structure(values, cls)
    except ClassValidationError as error:
        for fault in error.exceptions:
            where = next(note.name for note in fault.__notes__ if hasattr(note, "name"))
            faults.append((where, "is required" if isinstance(fault, KeyError) else str(fault)))
    if values.keys() <= known and made is not None:
        return made, [], 0
    count = len(faults) + len(values) - sum(name in values for name in known)
    faults += ((name, UNKNOWN) for name in islice((name for name in values if name not in known), most))
    return None, faults[:most], max(0, count - most)


@cache
def _names(cls: type[Any]) -> frozenset[str]:
    return frozenset(attrs.fields_dict(cls))


def _from_json(kind: Any) -> Callable[[Any, Any], Any]:
    rule: Field = kind.__metadata__[0]
    return lambda value, _: rule.check(value)


def _from_query(kind: Any) -> Callable[[Any, Any], Any]:
    base, rule = get_args(kind)
    read = {int: _integer, bool: _boolean}.get(base, lambda value: value)

    def only(values: list[Any], _: object) -> Any:
        if len(values) > 1:
            raise ValueError("is given more than once")
        return rule.check(read(values[0]))

    return only


def _integer(text: str) -> int | str:
    return int(text) if re.fullmatch("[0-9]{1,19}", text) else text


def _boolean(text: str) -> bool | str:
    return {"true": True, "false": False}.get(text, text)


def _converter(hook: Callable[[Any], Callable[[Any, Any], Any]]) -> Converter:
    converter = Converter()
    converter.register_structure_hook_factory(lambda kind: hasattr(kind, "__metadata__"), hook)
    return converter


_payloads = _converter(_from_json)
_queries = _converter(_from_query)
