"""Answer with a file, which is sent in parts: however large the file is, little of it is in memory."""

from typing import IO, TYPE_CHECKING, ClassVar, Generic, TypeVar
from weakref import WeakSet

from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from service.errors import Busy
from service.http.answers import Ok, start
from service.http.calls import Call

if TYPE_CHECKING:
    from service.exchange.exporting import Export

PART = 2**18
"""How many bytes of a file are read and sent at once."""
MOST_FILES = 50
"""How many files there may be that are not sent yet: each takes room on the disk, and some clients are slow."""


class Csv:
    """A file of CSV (RFC 4180), in UTF-8."""

    MEDIA_TYPE: ClassVar[str] = "text/csv; charset=utf-8; header=present"


class Zip:
    """A zip."""

    MEDIA_TYPE: ClassVar[str] = "application/zip"


T = TypeVar("T", Csv, Zip)


class Attachment(Ok[T], Generic[T], frozen=True):
    """The answer 200 with a file of the type T, which a browser saves."""

    file: IO[bytes] | None = None
    """Read from its beginning, and closed when it is sent or the client is gone."""
    size: int = 0

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Send the file, to a HEAD request only how long it is.

        It is read in threads, because a disk may take long. `send` waits while the client has not read enough.
        """
        assert self.file is not None  # noqa: S101 - only a struct's field needs a default.
        with self.file as file:
            await send(start(self, scope, (b"content-length", b"%d" % self.size)))
            left = 0 if scope["method"] == "HEAD" else self.size
            while left > PART:
                await send({"type": "http.response.body", "body": await _read(file, PART), "more_body": True})
                left -= PART
            await send({"type": "http.response.body", "body": await _read(file, left)})


async def _read(file: IO[bytes], size: int) -> bytes:
    return await run_in_threadpool(file.read, size) if size else b""


def attachment(kind: type[T], name: str, file: IO[bytes], size: int) -> Attachment[T]:
    """Answer 200 with a file of some bytes, which a browser saves under a name."""
    headers = (
        (b"content-type", kind.MEDIA_TYPE.encode()),
        (b"content-disposition", f'attachment; filename="{name}"'.encode()),
    )
    return Attachment(Attachment.STATUS, headers=headers, file=file, size=size)


class Exports:
    """The exports of one application."""

    def __init__(self, school: str) -> None:
        """Have none yet; `school` is the name of the school."""
        self.school = school
        self._files: WeakSet[IO[bytes]] = WeakSet()

    async def send(self, call: Call, kind: type[T], name: str, export: "Export") -> Attachment[T]:
        """Answer with an export, which is written to a temporary file first. Raises Busy, and what the export does."""
        if sum(not file.closed for file in self._files) >= MOST_FILES:
            raise Busy(f"{MOST_FILES} exports are being sent already. Nothing was read.")
        from service.exchange.exporting import to_temporary  # noqa: PLC0415 - only who exports pays for it.

        file, size = await call.store.scan(to_temporary, export)
        self._files.add(file)
        return attachment(kind, name, file, size)
