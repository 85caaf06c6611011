"""The page for people: it shows the whole document, loads nothing from elsewhere, and each operation can be tried."""

import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from hashlib import sha256
from html import unescape
from itertools import pairwise
from pathlib import Path

import httpx2
import pytest
from browser import Scheme, browsing, needs_browser, tab
from conftest import Server
from playwright.sync_api import Browser, expect
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from service import Settings, __version__, create_app
from service.http.api import API
from service.http.problems import PROBLEMS

FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture
def page(client: TestClient) -> str:
    """Give the page as the service answers with it."""
    return client.get("/docs").text


def test_it_shows_every_operation(page: str) -> None:
    """Each operation is on the page with its summary, a form and a curl line, and is in the contents once."""
    curls = re.findall(r'<code class="curl">(.*?)</code>', page)
    operations = [(path, method, each) for path, methods in API.items() for method, each in methods.items()]
    assert len(curls) == len(operations) == page.count("<summary>Try it</summary>")
    for path, method, each in operations:
        name = each.handler.__name__
        plain = path.replace(":path}", "}")
        assert f'data-method="{method}" data-path="{plain}"' in page
        assert f"{method}</span>{plain}</h3>" in page
        assert page.count(f'href="#{name}"') == page.count(f'id="{name}"') == 1
    assert "curl -i 127.0.0.1:8000/students/1" in curls
    assert "curl -i -X DELETE 127.0.0.1:8000/students/1/courses/1" in curls
    shown = {unescape(line) for line in curls}
    assert not [line for line in shown if "\\u" in line]
    assert "curl -OJ 127.0.0.1:8000/exports/oneroster.zip" in shown
    for accept in "text/event-stream", "application/x-ndjson":
        assert f"Ask with the header <code>Accept: {accept}</code>." in page
    assert """curl -i 127.0.0.1:8000/students --json '{"name": "Ada Lovelace"}'""" in shown
    assert """curl -i -X PATCH 127.0.0.1:8000/courses/1 --json '{"capacity": 31}'""" in shown


def test_its_links_lead_somewhere(client: TestClient, page: str) -> None:
    """Each link is to a place on the page, or relative to the page, so that it leads right under any mount."""
    for link in set(re.findall(r'href="([^"]*)"', page)):
        if link.startswith("#"):
            assert page.count(f'id="{link[1:]}"') == 1, link
        else:
            assert re.fullmatch(r"openapi\.json|problems/\w+", link)
            assert client.get(f"/{link}").status_code == 200
    assert set(re.findall(r'href="problems/(\w+)"', page)) == PROBLEMS.keys() - {
        "method_not_allowed",  # Of a path, and of no operation.
        *("repeated", "invalid_row"),  # Of rows in the report of an import.
    }


def test_it_may_do_nothing_else(client: TestClient) -> None:
    """The policy lets the page run its own style and script, ask its own service, and nothing more."""
    answer = client.get("/docs")
    (style,) = re.findall("<style>(.*?)</style>", answer.text, re.DOTALL)
    (script,) = re.findall("<script>(.*?)</script>", answer.text, re.DOTALL)
    hashes = [b64encode(sha256(text.encode()).digest()).decode() for text in (style, script)]
    assert answer.headers["content-security-policy"].split("; ") == [
        "default-src 'none'",
        *(f"{kind}-src 'sha256-{each}'" for kind, each in zip(("style", "script"), hashes, strict=True)),
        *("connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
    ]
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"https?://|@import|\bsrc=|url\(", answer.text)
    assert not re.search(r"<[^>]*\s(on\w+|style)=", answer.text)


# The beginning


def test_the_beginning_has_links(client: TestClient) -> None:
    """GET / tells name and version, and each link leads somewhere."""
    home = client.get("/").json()
    assert (home["name"], home["version"]) == ("Enrollment service", __version__)
    assert home["links"]["docs"] == "/docs"
    assert {client.get(link).status_code for link in home["links"].values()} == {200}


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        (FIREFOX, 303),
        ("text/html", 303),
        ("TEXT/HTML;level=1 ; q=0.5, application/json;q=0.4", 303),
        ("text/*", 303),
        ("*/*", 200),
        ("application/json", 200),
        ("application/json, text/html;q=0.9", 200),
        ("application/*;q=0.3, text/html;q=0.2", 200),
        ("text/html;q=0", 200),
        ("text/html;q=much", 200),
        ("image/png", 200),
        ("", 200),
    ],
)
def test_a_browser_is_sent_to_the_desk(client: TestClient, accept: str, status: int) -> None:
    """Who would rather have HTML than JSON is sent to the desk, and everybody else gets JSON."""
    answer = client.get("/", headers={"accept": accept}, follow_redirects=False)
    assert answer.status_code == status
    assert answer.headers.get("location") == ("/desk" if status == 303 else None)
    assert answer.headers["vary"] == "accept"


def test_under_a_mount(path: Path) -> None:
    """Under a host's mount the beginning leads to the mount's own desk."""
    app = create_app(Settings(database_url=str(path)))
    with TestClient(app), TestClient(Starlette(routes=[Mount("/registry", app)])) as client:
        answer = client.get("/registry/", headers={"accept": FIREFOX}, follow_redirects=False)
        assert answer.headers["location"] == "/registry/desk"
        assert client.get(answer.headers["location"]).status_code == 200
        links = client.get("/registry/").json()["links"]
        assert {client.get(link).status_code for link in links.values()} == {200}
        assert client.get("/registry/docs/").status_code == 404


# In a real browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run a browser for all tests of this file."""
    with browsing() as browser:
        yield browser


# Of each text that is shown: the contrast of its colour with the background behind it (WCAG 2, 1.4.3).
CONTRASTS = """
(() => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([red, green, blue]) => [red, green, blue].map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (each) => {
    const colour = parts(getComputedStyle(each).backgroundColor);
    return colour.length === 4 && colour[3] === 0 ? behind(each.parentElement) : colour;
  };
  for (const each of document.querySelectorAll("details")) each.open = true;
  const found = {};
  for (const each of document.querySelectorAll("body *")) {
    const shown = [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!shown || !each.checkVisibility()) continue;
    const [one, other] = [light(parts(getComputedStyle(each).color)), light(behind(each))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) found[`${each.tagName}.${each.className}`] = ratio;
  }
  return found;
})()
"""


@needs_browser
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read(browser: Browser, serve: Callable[..., Server], width: int, scheme: Scheme) -> None:
    """On a phone and on a desktop, by day and by night: nothing is cut off, and every text stands out."""
    with tab(browser, width, scheme) as page:
        page.goto(f"{serve().url}/docs")
        assert page.evaluate(CONTRASTS) == {}
        assert page.evaluate("innerWidth") == width
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 24, 28)"
        )
        unnamed = "[...document.querySelectorAll('input, textarea')].filter((each) => !each.labels.length).length"
        assert page.evaluate(unnamed) == 0
        levels = page.evaluate(
            "[...document.querySelectorAll('h1, h2, h3, h4')].map((each) => Number(each.tagName[1]))"
        )
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.long
@needs_browser
def test_each_operation_can_be_tried(browser: Browser, serve: Callable[..., Server]) -> None:
    """With the keyboard alone a student is added and shown; the curl lines ask the page's own server."""
    url = serve().url
    with tab(browser) as page:

        def try_it(name: str) -> str:
            article = page.locator(f"article[aria-labelledby={name}]")
            article.get_by_text("Try it").focus()
            page.keyboard.press("Enter")
            expect(article.locator("form")).to_be_visible()
            while page.evaluate("document.activeElement.tagName") != "BUTTON":
                page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            answer = article.locator("output")
            expect(answer).to_contain_text(re.compile("^HTTP"))
            return answer.inner_text()

        page.goto(f"{url}/docs")
        assert page.locator(".curl").first.inner_text() == f"curl -i {url.removeprefix('http://')}/students"
        assert re.search(r'HTTP 201\netag: ".+"\nlocation: /students/1\n', try_it("create_student"))
        assert [each["name"] for each in httpx2.get(f"{url}/students").json()] == ["Ada Lovelace"]
        assert '"name": "Ada Lovelace"' in try_it("show_student")
        assert '"code": "course_not_found"' in try_it("ensure_enrolled")
        assert "HTTP 204" in try_it("delete_student")
