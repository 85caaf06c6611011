"""Read the URL of a database: find the file that it names, or say how to write a URL that is in another tool's form."""

import os
import re
import shlex
import stat
from pathlib import Path
from urllib.parse import unquote

from service.errors import SetupError

_URL = "sqlite:///"
_ANY_URL = re.compile(r"(?:jdbc:|sqlite:///(?=file:))?([a-z][a-z0-9+.-]+):(//)?(.*)", re.IGNORECASE | re.DOTALL)
"""Matches a URL as any tool writes it. A scheme has two letters or more, so that a file may be called a:b.db."""


def database_path(url: str | os.PathLike[str]) -> Path:
    """Give the absolute path that a URL or a path names; the file may be missing, but its folder must exist.

    Raises SetupError, which says how to write it, for anything that does not name a SQLite file.
    """
    text = os.fspath(url)
    if (right := _right_form(text)) != text:
        raise _not_a_url(text, f"write {right!r}")
    try:
        name = unquote(text.removeprefix(_URL), errors="strict") if text.startswith(_URL) else text
        name.encode()
    except UnicodeError as error:
        raise _not_a_url(text, "write the file's name in UTF-8") from error
    if re.search(r"[\x00-\x1f\x7f]", name):
        raise _not_a_url(text, "write the file's name without control characters")
    path = Path(name).absolute()
    _check_place(path, text)
    if name.endswith("/"):
        raise _not_a_url(text, f"write {str(path)!r}")
    return path


def _right_form(text: str) -> str:
    """Give a URL or path in the form that this service reads; a text in that form stays as it is.

    Raises SetupError if the text names no file.
    """
    text = text.lstrip("\ufeff").strip()  # A file of environment variables may leave a BOM and spaces around a value.
    if quoted := re.fullmatch(r"""(["'])(.*)\1""", text, re.DOTALL):
        return _right_form(quoted[2])
    start, path, query = "", text, [""]
    if found := _ANY_URL.fullmatch(text):
        scheme, slashes, rest = found.groups()
        if "sqlite" not in scheme.lower() and scheme.lower() != "file":
            mend = f"write {_URL}relative.db or {_URL}/absolute.db, or a path, with ./ before a name that begins so"
            raise _not_a_url(f"{scheme}:...", mend)  # The rest of the URL may have a password in it: do not show it.
        path, *query = re.split("[?#]", rest, maxsplit=1)
        if slashes:  # Of three slashes, the last one begins an absolute path in a file: URL, but not in other URLs.
            path = path.removeprefix("localhost" if scheme.lower() == "file" else "/")
        start = _URL
    if path in ("", ":memory:") or "mode=memory" in "".join(query):
        message = f"The database is a file, as {_URL}school.db is: in memory each connection would have its own."
        raise SetupError(message)
    return start + os.path.expanduser(path)  # noqa: PTH111 - pathlib raises an error for an unknown user after the ~.


def _not_a_url(text: str, mend: str) -> SetupError:
    return SetupError(f"{text!r} is not a database URL: {mend}.")


def _check_place(path: Path, text: str) -> None:
    """Raise SetupError unless a database file may be at the path, or may be made there."""
    try:
        found = path.stat()
    except FileNotFoundError as error:
        folder = path.resolve().parent  # A symbolic link may lead to a file in another folder.
        if not folder.is_dir():
            message = (
                f"There is no folder {folder} for the database {path.name}; "
                f"make it with: mkdir -p {shlex.quote(str(folder))}"
            )
            raise SetupError(message) from error
    except OSError as error:
        message = f"The database {path} cannot be reached: {error.strerror}."
        raise SetupError(message) from error
    else:
        if stat.S_ISDIR(found.st_mode):
            raise _not_a_url(text, f"name a file in that folder, such as {str(path / 'enrollment.db')!r}")
