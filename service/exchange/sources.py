"""Open the files of an import, loose ones and those in a zip, with a bound for what a zip may hold."""

import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import attrs

from service.exchange.errors import UnreadableFile

MOST_BYTES = 2 << 30
"""The most bytes that all files in zips may have together, once they are unpacked."""
MOST_MEMBERS = 100
"""The most files that a zip may hold."""
CHUNK = 1 << 20

# Every zip begins so, and an empty one and one in several volumes too.
ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # What Excel wrote before 2007, and still writes around a locked workbook.
# What reading a file raises that is cut off, wrong, or another one than before; RuntimeError is for a password.
_DAMAGE = (OSError, EOFError, KeyError, UnicodeDecodeError, zlib.error, BadZipFile, RuntimeError)


@attrs.frozen
class Source:
    """A file whose bytes can be read many times."""

    file: str
    """The name of the file, as people know it; of a file in a zip, its name there."""
    path: Path
    member: str | None = None
    """The name in the zip at `path`; None for the file at `path` itself."""

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the file to be read from its first byte. Raises UnreadableFile, then and while it is read."""
        try:
            if self.member is None:
                with self.path.open("rb") as stream:
                    yield stream
            else:
                with ZipFile(self.path) as archive, archive.open(self.member) as stream:
                    yield stream
        except _DAMAGE as error:
            raise UnreadableFile(_damaged(self.file, error)) from error

    def begins_with(self, count: int = 8) -> bytes:
        """Give the first bytes. Raises UnreadableFile."""
        with self.open() as stream:
            return stream.read(count)


class Measure:
    """Counts what the files in zips have together, unpacked: the directory of a zip may say anything."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self.left = most

    def size(self, source: Source) -> int:
        """Read a file to its end, and give the number of its bytes. Raises UnreadableFile."""
        size = 0
        with source.open() as stream:
            while chunk := stream.read(CHUNK):
                size += len(chunk)
                if source.member is not None:
                    self.left -= len(chunk)
                    if self.left < 0:
                        raise UnreadableFile(
                            f"{source.path.name} has more than {MOST_BYTES >> 30} GiB once it is unpacked, "
                            "which is more than an import takes: give its files in several imports."
                        )
        return size


def opened(path: Path) -> Source:
    """Give a file as a source, if it can be read more than once. Raises UnreadableFile."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise UnreadableFile(_damaged(str(path), error)) from error
    if stat.S_ISDIR(mode):
        raise UnreadableFile(f"{path} is a folder: name the files in it, such as {path / '*.csv'}.")
    if not stat.S_ISREG(mode):
        raise UnreadableFile(f"{path} is no regular file, and an import reads a file several times: save it first.")
    source = Source(path.name, path)
    if source.begins_with() == _OLE:
        raise UnreadableFile(
            f"{path.name} is a workbook of an old kind, or one with a password: save it as .xlsx without a password, "
            "or as CSV."
        )
    return source


def members(source: Source) -> Sequence[Source]:
    """Give the files in a zip, which is not unpacked for it. Raises UnreadableFile."""
    infos = directory(source)
    kept = [info for info in infos if not _of_the_desktop(info)]
    if len(kept) > MOST_MEMBERS:
        raise UnreadableFile(f"{source.file} has {len(kept)} files, and an import takes {MOST_MEMBERS} at most.")
    names: set[str] = set()
    for info in kept:
        if fault := _fault(info, names):
            raise UnreadableFile(f"{source.file} cannot be read, because {fault}")
        names.add(info.filename)
    return [Source(info.filename, source.path, info.filename) for info in kept]


def directory(source: Source) -> Sequence[ZipInfo]:
    """Give what the directory of a zip says of each file in it. Raises UnreadableFile."""
    try:
        with ZipFile(source.path) as archive:
            return archive.infolist()
    except (*_DAMAGE, ValueError) as error:
        raise UnreadableFile(_damaged(source.file, error)) from error


def _of_the_desktop(info: ZipInfo) -> bool:
    """Tell whether macOS or Windows has put a file into a zip, and not the school."""
    return info.filename.startswith("__MACOSX/") or info.filename in {".DS_Store", "Thumbs.db", "desktop.ini"}


def _fault(info: ZipInfo, before: set[str]) -> str | None:
    name = info.filename
    if "/" in name or "\\" in name or name in {"", ".", ".."}:
        return f"it has a folder ({name!r}): put the files themselves into the zip, and not the folder they are in."
    if info.flag_bits & 1:
        return f"{name} in it has a password: make the zip anew without one."
    if info.compress_type not in {ZIP_STORED, ZIP_DEFLATED}:
        return f"{name} in it is packed in an uncommon way: make the zip anew with Deflate, which is the usual way."
    if name in before:
        return f"it has two files with the name {name}: take one of them out."
    return None


def _damaged(file: str, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{file} cannot be read: {error.strerror}."
    return f"{file} is damaged ({error or type(error).__name__}): get it once more from where it comes from."
