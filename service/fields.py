"""Define each field's rule in one place: how its value is checked and stored, its error text, and its JSON Schema.

The functions that write students and courses apply these rules, and so does the code that reads requests. A type such
as `Name` has its rule in its annotation.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, get_args
from unicodedata import normalize
from urllib.parse import quote

import attrs

from service.errors import InvalidPayload, InvalidQuery

MAX_NAME = 200
"""The most characters that a name, a level, an external id or a reason may have."""
MAX_EMAIL = 254
"""The most characters that an e-mail address may have (RFC 5321, section 4.5.3.1.3, without the angle brackets)."""
MAX_ID = 2**63 - 1
"""The largest integer that the database can store."""
UNKNOWN = "is not known here"

# The characters with Unicode's property Default_Ignorable_Code_Point (DerivedCoreProperties.txt), which are not
# visible. No character ever loses the property, and code points that are not assigned yet have it already.
_IGNORABLE = (
    "\u00ad\u034f\u061c\u115f-\u1160\u17b4-\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_SPACE = r"\s\u2800"  # White space, and the Braille pattern without a dot, which looks like a space.
# Characters that are not visible, but shape the character before them and so may end a name: variation selectors and
# tags, as in emoji, flags and Japanese names; and a joiner behind one of the Indic viramas (RFC 5892, appendix A).
_SHAPING = (
    "(?:[\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0020-\U000e007f\U000e0100-\U000e01ef]+"
    "|(?<=[\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca])[\u200c\u200d])?"
)
# A match goes from the first visible character to the last one; that of _BEGINNING keeps white space at its end.
# Whatever text a client sends, each pattern takes time in proportion to the text's length.
_WHOLE = re.compile(f"[^{_SPACE}{_IGNORABLE}](?:.*[^{_SPACE}{_IGNORABLE}])?{_SHAPING}", re.DOTALL)
_BEGINNING = re.compile(f"[^{_SPACE}{_IGNORABLE}](?:.*[^{_IGNORABLE}])?{_SHAPING}", re.DOTALL)
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # Unicode's categories Cc and Cs.


@attrs.frozen(eq=False)
class Field:
    """The rule of a field."""

    check: Callable[[object], Any]
    """Gives the value in the form that is stored. Raises ValueError, whose text says what is wrong."""
    schema: Mapping[str, Any]
    """The part of the rule that JSON Schema can express."""


def _text(seen: re.Pattern[str], least: int, most: int = MAX_NAME) -> Field:
    def check(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError("must be a string")  # noqa: TRY004 - callers catch ValueError for every fault.
        found = seen.search(value)
        text = found[0] if found else ""
        # NFC joins four characters at most to one, so a longer text is too long in any case. It is not normalized,
        # because that takes forever for a text with marks (accents) without end.
        if len(text) <= 4 * most:
            text = normalize("NFC", text)
        if len(text) < least:
            raise ValueError("must have a character that can be seen")
        if len(text) > most:
            raise ValueError(f"must have at most {most} characters")
        if _FORBIDDEN.search(text):
            raise ValueError("must not have control characters or lone surrogates")
        return text

    return Field(check, {"type": "string", "minLength": least, "maxLength": most})


def integer(least: int, most: int, *, or_null: bool = False) -> Field:
    """Make the rule of an integer from `least` to `most`; with `or_null` it may be None too."""
    words = f"must be {'null or ' if or_null else ''}an integer from {least} to {most}"

    def check(value: object) -> int | None:
        if or_null and value is None:
            return None
        if type(value) is not int or not least <= value <= most:
            raise ValueError(words)
        return value

    kind = ["integer", "null"] if or_null else "integer"
    return Field(check, {"type": kind, "minimum": least, "maximum": most})


def word(kind: Any) -> Field:
    """Make the rule of a text that is one of a Literal's words."""
    words = get_args(kind)

    def check(value: object) -> str:
        if value not in words:
            raise ValueError(f"must be {' or '.join(words)}")
        return str(value)

    return Field(check, {"type": "string", "enum": list(words)})


def or_null(rule: Field) -> Field:
    """Make the rule of a value that may be None too."""
    kind = [rule.schema["type"], "null"]
    return Field(lambda value: None if value is None else rule.check(value), {**rule.schema, "type": kind})


def external_id_text(value: object) -> str:
    """Give an external id in the form that is stored. Raises ValueError, whose text says what is wrong."""
    text: str = NAME.check(value)
    if text.startswith("/") or "//" in text or {".", ".."} & {*text.split("/")}:
        raise ValueError("must not have the parts . and .. or an empty one, because it is a part of a path")
    return text


def _any_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string")  # noqa: TRY004 - callers catch ValueError for every fault.
    return value


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise ValueError("must be true or false")
    return value


def _email(value: object) -> str:
    text: str = _ADDRESS.check(value)
    if not re.fullmatch(r"[^\s@]+@[^\s@]+", text):
        raise ValueError("must be an e-mail address such as ada@example.org")
    return text


def _day(value: object) -> str:
    if type(value) is date:
        return value.isoformat()
    try:
        if isinstance(value, str) and re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            return date.fromisoformat(value).isoformat()
    except ValueError:
        pass
    raise ValueError("must be a date such as 2026-09-01")


_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-5][0-9])"
)


def _moment(value: object) -> str:
    try:
        if isinstance(value, datetime):
            return timestamp(value)
        if isinstance(value, str) and _RFC_3339.fullmatch(value):
            return timestamp(datetime.fromisoformat(value.upper()))
    except (ValueError, OverflowError):  # Overflow: in UTC it would be before the year 1, or after the year 9999.
        pass
    raise ValueError("must be a time with its zone (RFC 3339), such as 2026-09-01T08:30:00Z")


def _since(value: object) -> int | str:
    try:
        return int(str(value)) if re.fullmatch("[0-9]{1,18}", str(value)) else _moment(value)
    except ValueError:
        raise ValueError("must be the id of an event, or a time with its zone (RFC 3339)") from None


def timestamp(moment: datetime) -> str:
    """Write a moment as RFC 3339 in UTC, to the millisecond: 24 characters that sort by time.

    Raises ValueError for a moment without a time zone, because nobody can tell what it is in UTC.
    """
    if moment.utcoffset() is None:
        raise ValueError(f"{moment!r} has no time zone: give one, as datetime.now(UTC) does.")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


NAME = _text(_WHOLE, 1)
_ADDRESS = _text(_WHOLE, 1, MAX_EMAIL)
EXTERNAL_ID = Field(external_id_text, NAME.schema)
EMAIL = Field(_email, {**_ADDRESS.schema, "format": "email"})
DAY = Field(_day, {"type": "string", "format": "date"})
MOMENT = Field(_moment, {"type": "string", "format": "date-time"})
SINCE = Field(_since, {"type": "string"})
PREFIX = _text(_BEGINNING, 0)
LEVEL = _text(_WHOLE, 0)
ID = integer(1, MAX_ID)
TOKEN_ID = Field(_any_text, {"type": "string", "pattern": "^[0-9A-Za-z]{8}$"})
CAPACITY = integer(0, MAX_ID, or_null=True)
ID_OR_NULL = or_null(ID)
EXTERNAL_ID_OR_NULL = or_null(EXTERNAL_ID)
NAME_OR_NULL = or_null(NAME)
EMAIL_OR_NULL = or_null(EMAIL)
DAY_OR_NULL = or_null(DAY)
MOMENT_OR_NULL = or_null(MOMENT)
_SOUGHT = {"name": PREFIX, "level": LEVEL, "q": PREFIX, "external_id": LEVEL, "term_id": integer(0, MAX_ID)}

Name = Annotated[str, NAME]
"""A name or a level: 1 to 200 characters in NFC, without control characters and surrogates, visible at both ends."""
Prefix = Annotated[str, PREFIX]
"""The beginning of a name, to search for, in the form that names are stored in; white space at its end counts."""
Level = Annotated[str, LEVEL]
"""A level or an external id to search for, in the form that it is stored in."""
Id = Annotated[int, ID]
"""The id of a row: an integer from 1 to 2⁶³-1."""
Capacity = Annotated[int | None, CAPACITY]
"""The limit of a course's seats or places in line: an integer from 0 to 2⁶³-1, or None for no limit."""
ExternalIdOrNull = Annotated[str | None, EXTERNAL_ID_OR_NULL]
"""The school's own number or code of a row, or None: 1 to 200 characters as in a name, and a part of a path."""
NameOrNull = Annotated[str | None, NAME_OR_NULL]
"""A text with the rules of a name, or None."""
EmailOrNull = Annotated[str | None, EMAIL_OR_NULL]
"""An e-mail address of at most 254 characters, or None."""
IdOrNull = Annotated[int | None, ID_OR_NULL]
"""The id of a row, or None."""
DayOrNull = Annotated[str | None, DAY_OR_NULL]
"""A date such as 2026-09-01, or None."""
MomentOrNull = Annotated[str | None, MOMENT_OR_NULL]
"""A moment as RFC 3339 in UTC, to the millisecond, or None; any other zone is put into UTC."""

TokenId = Annotated[str, TOKEN_ID]
"""The id of a token, which is no secret."""
Token = Annotated[str, Field(_any_text, {"type": "string"})]
"""A token, or any other text: whether it is a token, the rules of tokens say."""
Flag = Annotated[bool, Field(_flag, {"type": "boolean"})]
"""The word true or false."""

Status = Literal["enrolled", "waitlisted"]
"""What a student has in a course: a seat, or a place on the waitlist."""
Availability = Literal["not_open", "open", "waitlist", "full", "closed"]
"""What the next student who enrolls in a course gets: a seat, a place on the waitlist, or neither; and nothing before
the window of enrolling opens, and after it has closed."""
Change = Literal["enrolled", "waitlisted", "promoted", "dropped"]
"""The type of an event: an enrollment begins with a seat, begins on the waitlist, gets its seat, or ends."""


def checked(rules: Mapping[str, Field], values: Mapping[str, object], required: Sequence[str] = ()) -> dict[str, Any]:
    """Give the values in the form that is stored. Raises InvalidPayload with every fault."""
    kept, faults = _judge(rules, values)
    faults += [(name, "is required") for name in required if name not in values]
    if faults:
        raise InvalidPayload([(pointer(name), what) for name, what in faults])
    return kept


def sought(**given: object) -> dict[str, Any]:
    """Give what rows are sought by, without what is None, in the form that it is stored in.

    It may be the beginning of a `name`, the words of a search `q`, a `level`, an `external_id`, a `term_id`. Raises
    InvalidQuery with every fault.
    """
    kept, faults = _judge(_SOUGHT, {key: value for key, value in given.items() if value is not None})
    if faults:
        raise InvalidQuery(faults)
    return kept


def _judge(rules: Mapping[str, Field], values: Mapping[str, object]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    kept, faults = {}, []
    for name, value in values.items():
        if name not in rules:
            faults.append((name, UNKNOWN))
            continue
        try:
            kept[name] = rules[name].check(value)
        except ValueError as error:
            faults.append((name, str(error)))
    return kept, faults


def pointer(name: str) -> str:
    """Give the JSON Pointer to a key, as a URI fragment (RFC 6901, sections 3 and 6)."""
    return "#/" + quote(str(name).replace("~", "~0").replace("/", "~1"), safe="~", errors="replace")


def row_id(value: object) -> int:
    """Give an id as it is, and 0 for a value that cannot be an id; no row has the id 0."""
    return value if type(value) is int and 0 < value <= MAX_ID else 0
