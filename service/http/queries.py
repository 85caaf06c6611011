"""Describe the query strings that clients send, as attrs classes; the type of each field has the field's rule."""

import hashlib
import re
from base64 import b64decode, urlsafe_b64encode
from typing import Annotated, Literal, TypeVar

import attrs

from service.fields import (
    EXTERNAL_ID,
    MAX_ID,
    SINCE,
    Field,
    Flag,
    Level,
    Name,
    NameOrNull,
    Prefix,
    Status,
    integer,
    word,
)
from service.rows import ExternalId
from service.storage.texts import readable, stored

MAX_LIMIT = 1000
_OTHER_LIST = "is not a cursor of this list"
_CURSOR = re.compile(rb"(.{8})(-?[0-9]{1,19})([ =])(.*)", re.DOTALL)
"""A cursor, decoded: 8 bytes that name its list, the row's id, and the row's name, which follows a space if it is a
text and = if it is a BLOB."""


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


def write_cursor(of: str, row_id: int, name: str | bytes = "") -> str:
    """Write the opaque cursor of a row in the list that `of` names.

    The name may be any text or BLOB, because another program may have written any into the database.
    """
    kind = b"=" if isinstance(name, bytes) else b" "
    return urlsafe_b64encode(_digest(of) + b"%d" % row_id + kind + stored(name)).decode().rstrip("=")


def joined(family_name: str, given_name: str) -> bytes:
    """Make of two names one that a cursor takes; `both_names` gives the two back."""
    return stored(family_name) + b"\0" + stored(given_name)


def both_names(name: str | bytes) -> tuple[str, str]:
    """Give the family name and the given name that `joined` made one."""
    family_name, _, given_name = stored(name).partition(b"\0")
    return readable(family_name), readable(given_name)


def _digest(of: str) -> bytes:
    return hashlib.blake2b(of.encode(errors="surrogatepass"), digest_size=8).digest()


Number = Annotated[int, integer(0, MAX_ID)]
"""An integer from 0 to 2⁶³-1."""
Limit = Annotated[int, integer(1, MAX_LIMIT)]
"""How many rows a page has at most, from 1 to 1000."""
OneStatus = Annotated[Status, word(Status)]
"""The word enrolled or waitlisted."""
Order = Annotated[Literal["id", "name"], word(Literal["id", "name"])]
"""The word id or name."""
Missing = Annotated[Literal["keep", "drop"], word(Literal["keep", "drop"])]
"""The word keep or drop."""
Percent = Annotated[int, integer(0, 100)]
"""An integer from 0 to 100."""
FileFormat = Annotated[Literal["csv", "oneroster", "canvas"], word(Literal["csv", "oneroster", "canvas"])]
"""The word csv, oneroster or canvas."""
Switch = Annotated[Literal["0", "1"], word(Literal["0", "1"])]
"""The digit 1, or 0."""
TermExternalId = Annotated[ExternalId, Field(ExternalId, EXTERNAL_ID.schema)]
"""The external id of a term."""


Since = Annotated[int | str, SINCE]
"""The id of an event, or a moment as RFC 3339 in UTC, to the millisecond."""
Cursor = Annotated[tuple[str | bytes, int], Field(_key, {"type": "string"})]
"""An opaque cursor for the client; here (name, id) of the row before the page."""


class Query:
    """The values of a query string."""

    __slots__ = ()


Q = TypeVar("Q", bound=Query)


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
class ImportQuery(Query):
    """The query of POST /imports; `file_name` is what the report calls the file."""

    dry_run: Flag = False
    override: Flag = False
    missing: Missing = "keep"
    max_drops: Percent = 10
    format: FileFormat | None = None
    file_name: Name | None = None
    reason: NameOrNull = None


@attrs.frozen
class NoQuery(Query):
    """The query of an operation that takes no parameters."""


@attrs.frozen
class PageQuery(Query):
    """The query of a list that is in the order of the ids."""

    limit: Limit = 100
    after: Cursor | None = None


@attrs.frozen
class ScheduleQuery(PageQuery):
    """The query of GET /students/{student_id}/courses; without `status` the list has both statuses."""

    status: OneStatus | None = None


@attrs.frozen
class ReasonQuery(Query):
    """The query of a write that has no body: the reason for it."""

    reason: NameOrNull = None


@attrs.frozen
class ExcelQuery(Query):
    """The query of GET /exports/courses/{course_id}/roster.csv; with `excel` 1 a spreadsheet is to open the file."""

    excel: Switch = "0"


@attrs.frozen
class ExportQuery(ExcelQuery):
    """The query of an export as CSV; with the id or the external id of a term, what belongs to that term."""

    term_id: Number | None = None
    term_external_id: TermExternalId | None = None


@attrs.frozen
class RosterExportQuery(Query):
    """The query of GET /exports/oneroster.zip; with `since`, what has changed after that event or moment."""

    since: Since | None = None
    term_id: Number | None = None
    term_external_id: TermExternalId | None = None


@attrs.frozen
class RosterQuery(PageQuery):
    """The query of GET /courses/{course_id}/students; by name, the list is sorted by family name, then given name."""

    order: Order = "id"


@attrs.frozen
class TermQuery(PageQuery):
    """The query of GET /terms."""

    external_id: Level | None = None


@attrs.frozen
class StudentQuery(TermQuery):
    """The query of GET /students; with a `name`'s beginning or a search `q`, the order is that of (name, id)."""

    name: Prefix | None = None
    q: Prefix | None = None

    @property
    def by_name(self) -> bool:
        """Tell whether the list is in the order of (name, id), and not in that of the ids."""
        return self.name is not None or self.q is not None


@attrs.frozen
class CourseQuery(StudentQuery):
    """The query of GET /courses: that of GET /students, and the level or the term that all must have."""

    level: Level | None = None
    term_id: Number | None = None
