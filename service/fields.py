"""Define each field's rule in one place: how its value is checked and stored, its error text, and its JSON Schema.

The functions that write students and courses apply these rules, and so does the code that reads requests. A type such
as `Name` has its rule in its annotation.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args
from unicodedata import normalize
from urllib.parse import quote

import attrs

from service.errors import InvalidPayload, InvalidQuery

MAX_NAME = 200
"""The most characters that a name or a level may have."""
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


def _text(seen: re.Pattern[str], least: int) -> Field:
    def check(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError("must be a string")  # noqa: TRY004 - callers catch ValueError for every fault.
        found = seen.search(value)
        text = found[0] if found else ""
        # NFC joins four characters at most to one, so a longer text is too long in any case. It is not normalized,
        # because that takes forever for a text with marks (accents) without end.
        if len(text) <= 4 * MAX_NAME:
            text = normalize("NFC", text)
        if len(text) < least:
            raise ValueError("must have a character that can be seen")
        if len(text) > MAX_NAME:
            raise ValueError(f"must have at most {MAX_NAME} characters")
        if _FORBIDDEN.search(text):
            raise ValueError("must not have control characters or lone surrogates")
        return text

    return Field(check, {"type": "string", "minLength": least, "maxLength": MAX_NAME})


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

    return Field(check, {"enum": list(words)})


NAME = _text(_WHOLE, 1)
PREFIX = _text(_BEGINNING, 0)
LEVEL = _text(_WHOLE, 0)
ID = integer(1, MAX_ID)
CAPACITY = integer(0, MAX_ID, or_null=True)

Name = Annotated[str, NAME]
"""A name or a level: 1 to 200 characters in NFC, without control characters and surrogates, visible at both ends."""
Prefix = Annotated[str, PREFIX]
"""The beginning of a name, to search for, in the form that names are stored in; white space at its end counts."""
Level = Annotated[str, LEVEL]
"""A level to search for, in the form that levels are stored in."""
Id = Annotated[int, ID]
"""The id of a row: an integer from 1 to 2⁶³-1."""
Capacity = Annotated[int | None, CAPACITY]
"""The limit of a course's seats or places in line: an integer from 0 to 2⁶³-1, or None for no limit."""

Status = Literal["enrolled", "waitlisted"]
"""What a student has in a course: a seat, or a place on the waitlist."""
Availability = Literal["open", "waitlist", "full"]
"""What the next student who enrolls in a course gets: a seat, a place on the waitlist, or neither."""
Change = Literal["enrolled", "waitlisted", "promoted", "dropped"]
"""The type of an event: an enrollment begins with a seat, begins on the waitlist, gets its seat, or ends."""


def checked(rules: Mapping[str, Field], values: Mapping[str, object]) -> dict[str, Any]:
    """Give the values in the form that is stored. Raises InvalidPayload with every fault."""
    kept, faults = _judge(rules, values)
    if faults:
        raise InvalidPayload([(pointer(name), what) for name, what in faults])
    return kept


def sought(*, name: str | None = None, level: str | None = None) -> tuple[str | None, str | None]:
    """Give (name's beginning, level) to search for, in the form that names and levels are stored in.

    Raises InvalidQuery with every fault.
    """
    given = {key: value for key, value in {"name": name, "level": level}.items() if value is not None}
    kept, faults = _judge({"name": PREFIX, "level": LEVEL}, given)
    if faults:
        raise InvalidQuery(faults)
    return kept.get("name"), kept.get("level")


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
