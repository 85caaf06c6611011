"""What clients send, as attrs classes, and the strict cattrs converters that make them.

Each field's type has its rule along. All the faults of one value are found before it is refused.
"""

import hashlib
import re
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, TypeVar, get_args

import attrs
import msgspec
from cattrs import ClassValidationError, Converter, ForbiddenExtraKeysError

from service.database import readable, stored
from service.errors import InvalidPayload, InvalidQuery
from service.fields import MAX_ID, UNKNOWN, Capacity, Field, Id, Level, Name, Prefix, Status, integer, pointer, word

T = TypeVar("T")

MAX_LIMIT = 1000
ABSENT: Any = msgspec.UNSET
_OTHER_LIST = "is not a cursor of this list"
_CURSOR = re.compile(rb"(.{8})(-?[0-9]{1,19})([ =])(.*)", re.DOTALL)
"""Of which list it is, the row's id, and after a space the row's name, or after = one that is a BLOB."""


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
"""0 to 2⁶³-1."""
Flag = Annotated[bool, Field(_flag, {"type": "boolean"})]
"""true or false."""
Limit = Annotated[int, integer(1, MAX_LIMIT)]
"""Rows in a page."""
OneStatus = Annotated[Status, word(Status)]
"""enrolled or waitlisted."""
Key = Annotated[tuple[str | bytes, int], Field(_key, {"type": "string"})]
"""An opaque cursor: the name and the id of the row before the page."""


@attrs.frozen
class NewStudent:
    """POST /students."""

    name: Name


@attrs.frozen
class StudentChanges:
    """PATCH /students/{student_id}: what is absent stays (RFC 7396)."""

    name: Name = ABSENT


@attrs.frozen
class NewCourse:
    """POST /courses."""

    name: Name
    level: Name
    capacity: Capacity = None
    waitlist_capacity: Capacity = 0


@attrs.frozen
class CourseChanges:
    """PATCH /courses/{course_id}: what is absent stays (RFC 7396)."""

    name: Name = ABSENT
    level: Name = ABSENT
    capacity: Capacity = ABSENT
    waitlist_capacity: Capacity = ABSENT


@attrs.frozen
class NewEnrollment:
    """POST /students/{student_id}/courses."""

    course_id: Id


@attrs.frozen
class BulkRow:
    """One row of POST /enrollments."""

    student_id: Id
    course_id: Id


@attrs.frozen
class BulkQuery:
    """POST /enrollments."""

    atomic: Flag = False
    dry_run: Flag = False


@attrs.frozen
class EventQuery:
    """GET /events: `after` is the last id seen."""

    limit: Limit = 100
    after: Number = 0
    student_id: Number | None = None
    course_id: Number | None = None


@attrs.frozen
class NoQuery:
    """The query of everything that takes none."""


@attrs.frozen
class PageQuery:
    """The query of a list by id."""

    limit: Limit = 100
    after: Key | None = None


@attrs.frozen
class ScheduleQuery(PageQuery):
    """GET /students/{student_id}/courses: of one status, or of both."""

    status: OneStatus | None = None


@attrs.frozen
class StudentQuery(PageQuery):
    """GET /students: with `name`, by (name, id)."""

    name: Prefix | None = None


@attrs.frozen
class CourseQuery(StudentQuery):
    """GET /courses: as for students, and of one level."""

    level: Level | None = None


def payload(cls: type[T], value: object) -> T:
    """Make a payload of a JSON value. Raises InvalidPayload with a pointer to each fault."""
    if not isinstance(value, dict):
        raise InvalidPayload([("#", "must be a JSON object")])
    try:
        return _payloads.structure(value, cls)
    except ClassValidationError as error:
        raise InvalidPayload([(pointer(where), what) for where, what in _faults(error)]) from None


def query(cls: type[T], values: Mapping[str, list[str]], of: str = "") -> T:
    """Make a query of its decoded values; a cursor must be `of` the list.

    Raises InvalidQuery with the parameter of each fault.
    """
    asked: Mapping[str, Any] = values
    if issubclass(cls, PageQuery) and "after" in values:
        asked = {**values, "after": [(of, cursor) for cursor in values["after"]]}
    try:
        return _queries.structure(asked, cls)
    except ClassValidationError as error:
        raise InvalidQuery(list(_faults(error))) from None


def given(changes: Any) -> dict[str, Any]:
    """Tell which of a PATCH's keys the client sent, with their values."""
    return attrs.asdict(changes, filter=lambda _, value: value is not ABSENT)


def cursor(of: str, row_id: int, name: str | bytes = "") -> str:
    """Write a row's key as an opaque cursor of a list; any name is good, as the file may hold any."""
    kind = b"=" if isinstance(name, bytes) else b" "
    return urlsafe_b64encode(_digest(of) + b"%d" % row_id + kind + stored(name)).decode().rstrip("=")


def _digest(of: str) -> bytes:
    return hashlib.blake2b(of.encode(errors="surrogatepass"), digest_size=8).digest()


def _faults(error: ClassValidationError) -> Iterator[tuple[str, str]]:
    for fault in error.exceptions:
        if isinstance(fault, ForbiddenExtraKeysError):
            yield from ((name, UNKNOWN) for name in sorted(fault.extra_fields))
        else:
            where = next(note.name for note in fault.__notes__ if hasattr(note, "name"))
            yield where, "is required" if isinstance(fault, KeyError) else str(fault)


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
    converter = Converter(forbid_extra_keys=True)
    converter.register_structure_hook_factory(lambda kind: hasattr(kind, "__metadata__"), hook)
    return converter


_payloads = _converter(_from_json)
_queries = _converter(_from_query)
