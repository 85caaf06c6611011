"""The registrar's desk: a page in which an office works all day. Its files are read when somebody asks for them."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

TYPES: Mapping[str, str] = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
}
"""The media type of a file by the end of its name."""
PAGE = "desk.html"
FILES = (
    *("activity.js", "api.js", "course.js", "courses.js", "desk.css", "desk.js", "dom.js", "feed.js", "form.js"),
    *("icon.svg", "import.js", "keys.js", "list.js", "login.js", "parts.js", "picker.js", "report.js", "seating.js"),
    *("student.js", "students.js", "terms.js", "words.js", "words.json"),
)
"""The files that the page loads, and no others."""
POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""What the page may do: load and run files of its own service, and ask that service."""


def media_type(name: str) -> str:
    """Give the media type of a file."""
    return TYPES[name.rpartition(".")[2]]


@lru_cache
def content(name: str) -> bytes:
    """Give what is in a file, which is in memory from the first time on."""
    return Path(__file__).with_name(name).read_bytes()
