"""The registrar's desk: a page in which an office works all day. Its files are read when somebody asks for them."""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import msgspec

from service.errors import SetupError

TYPES: Mapping[str, str] = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
}
"""The media type of a file by the end of its name."""
PAGE = "desk.html"
WORDS = "words.json"
FILES = (
    *("activity.js", "api.js", "course.js", "courses.js", "desk.css", "desk.js", "dom.js", "feed.js", "form.js"),
    *("icon.svg", "import.js", "keys.js", "list.js", "login.js", "parts.js", "picker.js", "report.js", "seating.js"),
    *("student.js", "students.js", "terms.js", "words.js", "words.json"),
)
"""The files that the page loads, and no others."""
FORMS: Mapping[str, str] = {"language": "[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*", "direction": "ltr|rtl"}
"""What must be in the words, as regular expressions: a tag of a language (BCP 47), and where its lines run to."""
POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""What the page may do: load and run files of its own service, and ask that service."""


def media_type(name: str) -> str:
    """Give the media type of a file."""
    return TYPES[name.rpartition(".")[2]]


@lru_cache
def content(name: str) -> bytes:
    """Give what is in a file, which is in memory from the first time on."""
    return Path(__file__).with_name(name).read_bytes()


def words(path: str) -> bytes:
    """Give the words of the desk as JSON, with those of a school's own file in the place of those with the same keys.

    Raises SetupError where the file cannot be read, or the desk could not show its words.
    """
    kind = dict[str, str | dict[str, str]]
    try:
        own = msgspec.json.decode(Path(path).read_bytes(), type=kind)
    except (OSError, ValueError) as error:
        raise SetupError(f"The words of the desk in {path} cannot be read: {error}") from error
    found = msgspec.json.decode(content(WORDS), type=kind) | own
    wrong = [key for key, value in found.items() if isinstance(value, dict) and "other" not in value]
    wrong += [key for key, form in FORMS.items() if not re.fullmatch(form, str(found[key]))]
    if wrong:
        raise SetupError(f"The words of the desk in {path} are not as they must be: {', '.join(wrong)}.")
    return msgspec.json.encode(found)
