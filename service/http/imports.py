"""The handler of imports: it keeps the body on the disk, and lets the command `import` do the rest.

The command is a process of its own, so that a large file takes neither memory from the server nor its turns from other
requests. It writes to the database as any other program does.
"""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import attrs
import msgspec
from starlette.types import Receive, Scope, Send

from service.errors import Busy, ConstraintViolated, StorageUnavailable
from service.exchange.errors import TooManyDrops, UnreadableUpload
from service.exchange.report import Progress, Report
from service.http.answers import Ok, Stream, ok, start
from service.http.body import FILES, MAX_UPLOAD, NDJSON, Upload
from service.http.calls import Call
from service.http.edge import InsufficientScope
from service.http.queries import ImportQuery
from service.settings import Settings
from service.storage.event_loop import running_loop

ENDINGS = dict(zip(FILES, (".csv", ".zip", ".xlsx"), strict=True))
"""The ending of the name of a file of each media type, by which the command tells what it is."""
BROKE_OFF = {each.code: each for each in (TooManyDrops, StorageUnavailable, ConstraintViolated)}
"""Why an import broke off; where it is something else, such as the end of the server, the same can be asked again."""
MOST_HELD = 4 * MAX_UPLOAD
"""The most bytes of bodies that lie on the disk at once. A body counts as it comes, so whoever sends slowly keeps no
room from others."""
MOST_LINE = 2**26
"""The most bytes of one line of the command; the report with the most rows has a tenth of that."""
PATIENCE = 10.0
"""The most seconds that the command may take to come to the end of a slice, when it is to stop."""
PACKAGE = Path(__file__).parents[2]
"""The folder that has the package, from which the command is to run."""


class Lines(Stream, frozen=True):
    """The answer 200 in parts: a JSON line now and then that tells how far an import is, and the report as the last."""

    MEDIA_TYPE: ClassVar[str] = NDJSON.decode()

    command: Any = None
    stack: Any = None

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Send the lines as the command gives them."""
        async with self.stack:
            await send(start(self, scope))
            async for line in self.command.lines():
                await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def import_files(call: Call, query: ImportQuery, upload: Upload) -> Ok[Report] | Lines:
    """Import students, courses, terms and enrollments from a file, or tell what that would do."""
    if query.override and "override" not in call.granted.scopes:
        raise InsufficientScope("override")
    running_loop()
    await call.store.check_ready()
    found: Ok[Report] | Lines = await call.app.imports.answer(call, query, upload)
    return found


class Imports:
    """The imports of one application: one at a time, as each would have to wait for the other."""

    def __init__(self, settings: Settings) -> None:
        """Have none at work."""
        self._settings, self._at_work, self._held = settings, False, 0

    async def answer(self, call: Call, query: ImportQuery, upload: Upload) -> Ok[Report] | Lines:
        """Import a body, and answer with the report: alone, or with lines before it that tell how far the import is.

        An import has its turn once its body is there, so that nobody waits for a client that sends slowly. Raises Busy,
        UnreadableUpload, TooManyDrops, StorageUnavailable, ConstraintViolated, and as `Upload.save`.
        """
        self._check_turn()
        async with AsyncExitStack() as stack:
            try:
                file = await self._keep(query, upload, stack)
                self._check_turn()
                self._at_work = True
                stack.callback(self._end)
                command = await self._start(call, query, file, stack)
            except OSError as error:
                raise StorageUnavailable(f"The file cannot be kept: {error.strerror}. Nothing was imported.") from error
            if call.prefers(Lines.MEDIA_TYPE, "application/json"):
                return Lines(Lines.STATUS, b"", ((b"content-type", NDJSON),), command, stack.pop_all())
            report = await command.report()
        if report.problem and not report.dry_run:
            raise BROKE_OFF.get(report.problem.code, Busy)(report.problem.detail)
        return ok(report)

    def _check_turn(self) -> None:
        if self._at_work:
            raise Busy("Another import is at work. Nothing was kept.")

    def _end(self) -> None:
        self._at_work = False

    async def _keep(self, query: ImportQuery, upload: Upload, stack: AsyncExitStack) -> Path:
        """Write a body to a file in a folder of its own, which goes with the stack."""
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if self._held + size > MOST_HELD:
                raise Busy("As many files are being sent as there is room for. Nothing was kept.")
            self._held += size
            held += size

        def release() -> None:
            self._held -= held

        stack.callback(release)
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="enrollment-")))
        # The report names the file; a name is a path's last part, so that nothing is written elsewhere.
        name = re.sub(r"[/\\\0]", "_", query.file_name or "upload")
        file = folder / f"{Path(name).stem[:50]}{ENDINGS[upload.media_type]}"
        await upload.save(file, hold)
        return file

    async def _start(self, call: Call, query: ImportQuery, file: Path, stack: AsyncExitStack) -> "Command":
        errors = file.with_name("errors")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "service", "import", str(file), *self._options(call, query)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=stack.enter_context(errors.open("wb")),
            # In the environment nobody else on the machine sees a password that the URL has. A variable such as PORT
            # may be the host program's own, and mean nothing to this service.
            env={
                **os.environ,
                **{field.name.upper(): "" for field in attrs.fields(Settings)},
                "DATABASE_URL": self._settings.database_url,
                "BUSY_TIMEOUT": str(self._settings.busy_timeout),
                "PYTHONPATH": str(PACKAGE),
                "PYTHONUTF8": "1",
            },
            limit=MOST_LINE,
        )
        command = Command(process, errors, asyncio.create_task(call.left()))
        stack.push_async_callback(command.end)
        await command.begin()
        return command

    def _options(self, call: Call, query: ImportQuery) -> list[str]:
        why = call.why(query.reason)
        given = {
            "missing": query.missing,
            "max-drops": str(query.max_drops),
            "progress": "ndjson",
            "format": query.format,
            "actor": why.actor,
            "reason": why.reason,
        }
        flags = {"dry-run": query.dry_run, "override": query.override}
        return [
            *(f"--{name}={value}" for name, value in given.items() if value is not None),
            *(f"--{name}" for name, is_set in flags.items() if is_set),
        ]


class Command:
    """The command `import` at work, which writes a JSON line now and then, and the report as the last one."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Path, left: "asyncio.Task[None]") -> None:
        """Let it end once the client has left: it stops between two slices."""
        self._process, self._errors, self._left = process, errors, left
        self._lines: asyncio.StreamReader = process.stdout  # type: ignore[assignment]
        self._first = b""
        left.add_done_callback(self._stop)

    def _stop(self, left: "asyncio.Task[None]") -> None:
        if not left.cancelled():
            with suppress(ProcessLookupError):
                self._process.terminate()

    async def begin(self) -> None:
        """Wait for the first line. Raises UnreadableUpload, and Busy where the command could not begin."""
        self._first = await self._lines.readline()
        if not self._first:
            await self._process.wait()
            told = self._errors.read_text("utf-8", "replace").strip().removeprefix("Error: ")
            raise Busy(f"The import did not begin, so nothing was imported. {told}")
        line = msgspec.json.decode(self._first, type=Report | Progress)
        if isinstance(line, Report) and line.problem and line.problem.code == UnreadableUpload.code:
            raise UnreadableUpload(line.problem.detail)

    async def lines(self) -> AsyncIterator[bytes]:
        """Give the lines one by one, the report last."""
        line = self._first
        while line:
            yield line
            line = await self._lines.readline()

    async def report(self) -> Report:
        """Wait for the report."""
        last = b""
        async for line in self.lines():
            last = line
        return msgspec.json.decode(last, type=Report)

    async def end(self) -> None:
        """Stop the command, unless it has ended by itself, and wait for its end."""
        self._left.cancel()
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
