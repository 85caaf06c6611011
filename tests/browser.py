"""A real browser: Playwright drives the Chromium of this machine, and downloads none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), "")
needs_browser = pytest.mark.skipif(
    not PROGRAM and not os.environ.get("MUST_BROWSE"), reason="no Chromium is on this machine: apt install chromium"
)
Scheme = Literal["light", "dark"]
SIGHTS: tuple[tuple[int, Scheme], ...] = ((1280, "light"), (1280, "dark"), (360, "light"))
"""The width of the window and the colour scheme: by day, by night, and on a phone."""
SECONDS = 20
"""How long a test waits for what must come."""
WATCH = (
    "window.broken = []; addEventListener('securitypolicyviolation', (each) => broken.push(each.violatedDirective));"
)


@contextmanager
def browsing() -> Iterator[Browser]:
    """Run the browser until the block ends; meanwhile this thread has an event loop, and can run no other."""
    expect.set_options(timeout=1000 * SECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def tab(browser: Browser, width: int = 1280, scheme: Scheme = "light") -> Iterator[Page]:
    """Give a page with nothing in it, in a window of a width, for somebody who prefers a colour scheme.

    What the page throws, and what its Content-Security-Policy forbids it, fails the test in the end.
    """
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, locale="en-GB")
    context.set_default_timeout(1000 * SECONDS)
    context.add_init_script(WATCH)
    page = context.new_page()
    thrown: list[str] = []
    page.on("pageerror", lambda error: thrown.append(str(error)))
    yield page
    broken = page.evaluate("window.broken ?? []")
    context.close()
    assert (thrown, broken) == ([], [])
