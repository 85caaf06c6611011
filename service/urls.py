"""The database's URL: which file it names, and the right form where it is written in another tool's."""

import os
import re
import shlex
import stat
from pathlib import Path
from urllib.parse import unquote

from service.errors import SetupError

_URL = "sqlite:///"
_ANY_URL = re.compile(r"(?:jdbc:|sqlite:///(?=file:))?([a-z][a-z0-9+.-]+):(//)?(.*)", re.IGNORECASE | re.DOTALL)
"""A URL as any tool writes it. A scheme has two letters or more, so that a file may be called a:b.db."""


def database_path(url: str | os.PathLike[str]) -> Path:
    """Give the absolute path that a URL or a path names; the file may be missing, its folder not.

    Raises SetupError, with the right form, for anything but a SQLite file.
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
    """Give what a text means, as it is written here; what is right stays as it is.

    Raises SetupError if it means no file.
    """
    text = text.lstrip("\ufeff").strip()  # What an env file leaves around a value.
    if quoted := re.fullmatch(r"""(["'])(.*)\1""", text, re.DOTALL):
        return _right_form(quoted[2])
    start, path, query = "", text, [""]
    if found := _ANY_URL.fullmatch(text):
        scheme, slashes, rest = found.groups()
        if "sqlite" not in scheme.lower() and scheme.lower() != "file":
            mend = f"write {_URL}relative.db or {_URL}/absolute.db, or a path, with ./ before a name that begins so"
            raise _not_a_url(f"{scheme}:...", mend)  # What follows may have a password in it.
        path, *query = re.split("[?#]", rest, maxsplit=1)
        if slashes:  # Of three, the last one begins an absolute path in a file: URL, and no other.
            path = path.removeprefix("localhost" if scheme.lower() == "file" else "/")
        start = _URL
    if path in ("", ":memory:") or "mode=memory" in "".join(query):
        message = f"The database is a file, as {_URL}school.db is: in memory each connection would have its own."
        raise SetupError(message)
    return start + os.path.expanduser(path)  # noqa: PTH111 - pathlib refuses the name of a user whom it does not know.


def _not_a_url(text: str, mend: str) -> SetupError:
    return SetupError(f"{text!r} is not a database URL: {mend}.")


def _check_place(path: Path, text: str) -> None:
    """Raise SetupError unless a database may be at the path, or be made there."""
    try:
        found = path.stat()
    except FileNotFoundError as error:
        folder = path.resolve().parent  # A link may lead out of the folder that it is in.
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
