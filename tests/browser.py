"""A real browser, driven without a library: Chromium reads commands from a pipe and writes answers to another one."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), "")
needs_browser = pytest.mark.skipif(not PROGRAM, reason="no Chromium is on this machine")
SECONDS = 20
"""How long a test waits for what must come."""
WATCH = (
    "window.broken = []; addEventListener('securitypolicyviolation', (each) => broken.push(each.violatedDirective));"
)
ON_PIPES = """
import os, sys
for given, wanted in zip(map(int, sys.argv[1:3]), (3, 4)):
    os.dup2(given, wanted)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""A program that becomes the browser, which reads its commands from the file descriptor 3 and answers to 4."""


class Tab:
    """One page of the browser."""

    def __init__(self, commands: int, answers: int) -> None:
        """Open an empty page."""
        self._commands, self._answers = commands, answers
        self._count, self._rest, self._session = 0, b"", ""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Page.enable")
        self._call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)

    def _call(self, method: str, **parameters: Any) -> Any:
        self._count += 1
        session = {"sessionId": self._session} if self._session else {}
        command = {"id": self._count, "method": method, "params": parameters, **session}
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            text, ended, self._rest = self._rest.partition(b"\0")
            if not ended:
                came = os.read(self._answers, 2**16)
                assert came, "The browser has ended."
                self._rest = text + came
            elif (answer := json.loads(text)).get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def show(self, url: str, width: int = 1280, scheme: str = "light") -> None:
        """Load a page in a window of a width, for somebody who prefers a colour scheme."""
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", features=features)
        self._call("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url)})")

    def run(self, script: str) -> Any:
        """Give the value of an expression on the page."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script: str) -> Any:
        """Wait until an expression is true on the page, and give its value."""
        until = time.monotonic() + SECONDS
        while not (found := self.run(script)):
            assert time.monotonic() < until, f"It does not come: {script}"
            time.sleep(0.05)
        return found

    def press(self, key: str) -> None:
        """Press a key."""
        told: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": {"Tab": 9, "Enter": 13}[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        self._call("Input.dispatchKeyEvent", type="keyDown", **told, **text)
        self._call("Input.dispatchKeyEvent", type="keyUp", **told)


@contextmanager
def browsing(folder: Path) -> Iterator[Tab]:
    """Run the browser, with a profile in a folder, until the block ends."""
    (theirs, commands), (answers, ours) = os.pipe(), os.pipe()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={folder}"]
    command = [sys.executable, "-c", ON_PIPES, str(theirs), str(ours), PROGRAM, *options]
    with subprocess.Popen(command, pass_fds=(theirs, ours), stderr=subprocess.DEVNULL) as process:
        try:
            os.close(theirs)
            os.close(ours)
            yield Tab(commands, answers)
        finally:
            process.kill()
            os.close(commands)
            os.close(answers)
