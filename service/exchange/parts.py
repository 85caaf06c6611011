"""What an import reads from files, whatever their format is: parts, each with rows of one kind.

A format gives the parts; the import takes them. Neither knows the other.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import attrs
import msgspec

Kind = Literal["terms", "courses", "students", "enrollments"]
"""What the rows of a part are. Parts are imported in this order, as courses name terms, and enrollments the rest."""


LIMITS = ("capacity", "waitlist_capacity")
"""The fields that are limits."""
UNLIMITED = "unlimited"
"""The cell of a limit that there is not. A cell that is empty says nothing."""


ADDED = ("line", "code", "reason")
"""The columns that a CSV file of refused rows has behind the row's own; an import leaves them out."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row of a part: the line of the file on which it begins (from 1), and its cells by the API's field names.

    A cell that says nothing is not among the values, unless the format says that an empty cell clears the field: then
    its value is None. A row of the kind "enrollments" names a student by `student_external_id` or `student_id`, a
    course by `course_external_id` or `course_id`, and says by its `action` "enroll" or "drop".
    """

    line: int
    values: Mapping[str, str | None]


class Skipped(msgspec.Struct, frozen=True, gc=False):
    """A row that is not for the import, and is no fault: `why` says so in a few words, such as "role teacher"."""

    line: int
    why: str


class Refused(msgspec.Struct, frozen=True):
    """A row, or a cell of it, that cannot be taken."""

    line: int
    column: str | None
    """The column as the file's header names it; None where the fault is not of one cell."""
    value: str | None
    """The cell as the file has it."""
    code: str
    detail: str
    """What is wrong, and what to do about it."""
    values: Mapping[str, str | None] = {}
    """All cells of the row that could be read, as those of a `Row`."""


@attrs.frozen
class Part:
    """The rows of one kind in one file. They can be read many times, and never stand in memory all at once."""

    kind: Kind
    file: str
    """The name of the file, as people know it; of a file in a zip, its name there."""
    columns: Mapping[str, str]
    """The header's name of the column that each field is read from."""
    rows: Callable[[], Iterator[Row | Skipped | Refused]]
    """Begin to read the rows."""
    size: int
    """The number of bytes that reading it goes through: a measure for the progress."""
    count: int | None = None
    """How many rows there are; None where only reading them tells."""
    may_drop: Callable[[], bool] = lambda: True
    """Tell, without reading row by row, whether a row may have the action "drop"."""


@attrs.frozen
class Found:
    """What the files of one import hold."""

    format: Literal["csv", "oneroster", "canvas"]
    parts: Sequence[Part]
    """In the order of `Kind`."""
    notes: Sequence[str]
    """What people should know of the files, a sentence each: a guessed encoding, a column that was ignored."""
