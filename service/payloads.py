"""What clients send, as attrs classes, and the strict cattrs converters that make them.

Each field's type is its rule. All the faults of one value are found before it is refused.
"""

import re
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NewType, TypeVar
from urllib.parse import quote

import attrs
import msgspec
from cattrs import ClassValidationError, Converter, ForbiddenExtraKeysError

from service.errors import InvalidPayload, InvalidQuery
from service.models import MAX_NAME

T = TypeVar("T")

Name = NewType("Name", str)
"""1 to 200 characters once trimmed, none of them a control character or a surrogate."""
Id = NewType("Id", int)
"""1 to 2⁶³-1."""
Capacity = NewType("Capacity", int)
"""0 to 2⁶³-1."""
Prefix = NewType("Prefix", str)
"""In a query, how a text begins: up to 200 characters of those that a name may have."""
Status = NewType("Status", str)
"""In a query, enrolled or waitlisted."""
Number = NewType("Number", int)
"""In a query, 0 to 2⁶³-1."""
Flag = NewType("Flag", bool)
"""In a query, true or false."""
Limit = NewType("Limit", int)
"""In a query, 1 to 1000."""
Key = NewType("Key", tuple[Any, ...])
"""In a query, an opaque cursor: the key of the row before the page, (id,) or (name, id)."""

MAX_ID = 2**63 - 1
MAX_LIMIT = 1000
ABSENT: Any = msgspec.UNSET
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # Unicode's categories Cc and Cs.
_OTHER_LIST = "is not a cursor of this list"


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
    capacity: Capacity | None = None
    waitlist_capacity: Capacity | None = Capacity(0)


@attrs.frozen
class CourseChanges:
    """PATCH /courses/{course_id}: what is absent stays (RFC 7396)."""

    name: Name = ABSENT
    level: Name = ABSENT
    capacity: Capacity | None = ABSENT
    waitlist_capacity: Capacity | None = ABSENT


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

    atomic: Flag = Flag(False)
    dry_run: Flag = Flag(False)


@attrs.frozen
class EventQuery:
    """GET /events: `after` is the last id seen."""

    limit: Limit = Limit(100)
    after: Number = Number(0)
    student_id: Number | None = None
    course_id: Number | None = None


@attrs.frozen
class NoQuery:
    """The query of everything that takes none."""


@attrs.frozen
class PageQuery:
    """The query of a list by id."""

    limit: Limit = Limit(100)
    after: Key | None = None


@attrs.frozen
class ScheduleQuery(PageQuery):
    """GET /students/{student_id}/courses: of one status, or of both."""

    status: Status | None = None


@attrs.frozen
class StudentQuery(PageQuery):
    """GET /students: with `name`, by (name, id)."""

    name: Prefix | None = None


@attrs.frozen
class CourseQuery(StudentQuery):
    """GET /courses: as for students, and of one level."""

    level: Prefix | None = None


def payload(cls: type[T], value: object) -> T:
    """Make a payload of a JSON value. Raises InvalidPayload with a pointer to each fault."""
    if not isinstance(value, dict):
        raise InvalidPayload([("#", "must be a JSON object")])
    try:
        return _payloads.structure(value, cls)
    except ClassValidationError as error:
        raise InvalidPayload([(f"#/{_pointer(where)}", what) for where, what in _faults(error)]) from None


def query(cls: type[T], values: Mapping[str, list[str]]) -> T:
    """Make a query of its decoded values. Raises InvalidQuery with the parameter of each fault."""
    faults = []
    try:
        made = _queries.structure(values, cls)
    except ClassValidationError as error:
        faults = list(_faults(error))
    if issubclass(cls, PageQuery) and "after" not in dict(faults) and not _continues(values):
        faults.append(("after", _OTHER_LIST))
    if faults:
        raise InvalidQuery(faults)
    return made


def given(changes: Any) -> dict[str, Any]:
    """Tell which of a PATCH's keys the client sent, with their values."""
    return attrs.asdict(changes, filter=lambda _, value: value is not ABSENT)


def cursor(*key: str | int) -> str:
    """Write a row's key as an opaque cursor."""
    return urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def _continues(values: Mapping[str, list[str]]) -> bool:
    """Tell whether the cursor, if any, is of the order, and of the prefix, that the query asks for."""
    if "after" not in values:
        return True
    *name, _ = _key(values["after"][0])
    if "name" not in values or not name:
        return "name" not in values and not name
    # bytes.lower folds as SQLite's NOCASE does: ASCII letters only.
    folded: bytes = name[0].encode().lower()
    return folded.startswith(values["name"][0].encode().lower())


def _faults(error: ClassValidationError) -> Iterator[tuple[str, str]]:
    for fault in error.exceptions:
        if isinstance(fault, ForbiddenExtraKeysError):
            yield from ((name, "is not known here") for name in sorted(fault.extra_fields))
        else:
            where = next(note.name for note in fault.__notes__ if hasattr(note, "name"))
            yield where, "is required" if isinstance(fault, KeyError) else str(fault)


def _pointer(key: str) -> str:
    """Escape one key as RFC 6901, sections 3 and 6, want it."""
    return quote(key.replace("~", "~0").replace("/", "~1"), safe="~", errors="replace")


def _text(value: object, least: int) -> str:
    if type(value) is not str:
        raise ValueError("must be a string")
    if not least <= len(value) <= MAX_NAME:
        raise ValueError(f"must have {least} to {MAX_NAME} characters")
    if _FORBIDDEN.search(value):
        raise ValueError("must not have control characters or lone surrogates")
    return value


def _name(value: object) -> str:
    return _text(value.strip() if isinstance(value, str) else value, 1)


def _id(value: object) -> int:
    if type(value) is not int or not 1 <= value <= MAX_ID:
        raise ValueError(f"must be an integer from 1 to {MAX_ID}")
    return value


def _capacity(value: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_ID:
        raise ValueError(f"must be null or an integer from 0 to {MAX_ID}")
    return value


def _number(value: str, least: int, most: int) -> int:
    if not re.fullmatch("[0-9]{1,19}", value) or not least <= int(value) <= most:
        raise ValueError(f"must be an integer from {least} to {most}")
    return int(value)


def _one_of(*words: str) -> Callable[[str], str]:
    def rule(value: str) -> str:
        if value not in words:
            raise ValueError(f"must be {' or '.join(words)}")
        return value

    return rule


def _key(value: str) -> tuple[Any, ...]:
    try:
        match msgspec.json.decode(b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)):
            case [row_id]:
                return (_id(row_id),)
            case [name, row_id]:
                return (_text(name, 1), _id(row_id))
    except (ValueError, msgspec.DecodeError, RecursionError):
        pass
    raise ValueError(_OTHER_LIST)


def _single(rule: Callable[[str], Any]) -> Callable[[list[str]], Any]:
    def only(values: list[str]) -> Any:
        if len(values) > 1:
            raise ValueError("is given more than once")
        return rule(values[0])

    return only


def _hook(rule: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda value, _: rule(value)


def _converter(rules: Mapping[Any, Callable[[Any], Any]]) -> Converter:
    converter = Converter(forbid_extra_keys=True)
    for kind, rule in rules.items():
        converter.register_structure_hook(kind, _hook(rule))
    return converter


_payloads = _converter({Name: _name, Id: _id, Capacity: _capacity})
_queries = _converter(
    {
        Prefix: _single(lambda value: _text(value, 0)),
        Status: _single(_one_of("enrolled", "waitlisted")),
        Flag: _single(lambda value: _one_of("true", "false")(value) == "true"),
        Number: _single(lambda value: _number(value, 0, MAX_ID)),
        Limit: _single(lambda value: _number(value, 1, MAX_LIMIT)),
        Key: _single(_key),
    }
)
