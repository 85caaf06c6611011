"""The refusals of imports: of a whole file, and of single rows. `service/errors.py` draws the tree of all refusals."""

from service.errors import Conflict, Invalid, ServiceError, SetupError, with_data


class UnreadableFile(SetupError):
    """A file of an import cannot be read; the text says which file, what is wrong with it, and what to do about it."""


@with_data
class UnreadableUpload(ServiceError):
    """The file cannot be read; `reason` says what is wrong with it, and what to do about it."""

    code, sentence = "unreadable_file", "{reason}"
    reason: str


@with_data
class TooManyDrops(Conflict):
    """An import would drop more of the enrollments of its courses than it may; nothing of it is done."""

    code, sentence = "too_many_drops", "{reason}"
    reason: str


@with_data
class Repeated(Conflict):
    """A row says something else than an earlier row with the same external id."""

    code, sentence = "repeated", "Line {line} of {file} says something else."
    file: str
    line: int


@with_data
class InvalidRow(Invalid):
    """A row of a file cannot be understood; where: the column."""

    code = "invalid_row"
