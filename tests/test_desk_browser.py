"""The desk in a real browser: an office's day, two desks at once, a server that goes away, and whoever reads it."""

import json
import math
import re
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import SECONDS, SIGHTS, Scheme, browsing, needs_browser, tab
from conftest import ROOT, serving
from playwright.sync_api import Browser, FilePayload, Locator, Page, Route, expect
from school_files import messy
from starlette.applications import Starlette
from starlette.routing import Mount
from test_middleware import uvicorn_of

from service import Settings, connect, create_app
from service.courses import insert_course
from service.enrollments import enroll
from service.students import insert_student
from service.terms import insert_term
from service.tokens import create_token

pytestmark = needs_browser

HOSTILE = "<script>window.broken.push('run')</script><img src=x onerror=broken.push('img')>"
ARABIC, HEBREW = "ليلى حداد", "דוד בן־גוריון"
STUDENTS = [("Ada", "Lovelace"), ("Grace", "Hopper"), ("Alan", "Turing"), ("Katherine", "Johnson"), ("Emmy", "Noether")]
TRIES = 5
"""How often what is to come within a second may come later."""
VIEWS = {
    "courses": "Courses",
    "courses/1": "Logic",
    "students": "Students",
    "students/2": "Grace Hopper",
    "terms": "Terms",
    "activity": "Activity",
    "import": "Import",
    "keys": "Keys",
}
"""The path and the heading of each view."""


def open_school(path: Path) -> None:
    """Have Logic (1) with two seats and one place in line, Sets (2) with seats enough, and students of many a script.

    Ada (1) and Grace (2) are in Logic, and Alan (3) waits there. The students have the numbers from 20001 on.
    """
    with connect(path) as db, db.atomic():
        insert_term(db, "Autumn", external_id="2026A", starts_on="2026-09-01", ends_on="2026-12-18")
        insert_course(db, "Logic", "beginner", 2, 1, external_id="LOG", term_id=1)
        insert_course(db, "Sets", "advanced", 30, 5, external_id="SETS/A")
        for number, (given, family) in enumerate(STUDENTS, 20001):
            insert_student(db, given_name=given, family_name=family, external_id=str(number))
        for name in (HOSTILE, ARABIC, HEBREW):
            insert_student(db, name)
        for student_id in (1, 2, 3):
            enroll(db, student_id, 1)
        for student_id in (6, 7, 8):
            enroll(db, student_id, 2)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run a browser for all tests of this file."""
    with browsing() as browser:
        yield browser


@pytest.fixture
def school(path: Path) -> Path:
    """Give the file of the school."""
    open_school(path)
    return path


@pytest.fixture
def url(school: Path) -> Iterator[str]:
    """Give the address of a server on the school."""
    with serving("--database-url", str(school)) as server:
        yield server.url


@pytest.fixture
def desk(browser: Browser, url: str) -> Iterator[Page]:
    """Give a page with the desk."""
    with tab(browser) as page:
        page.goto(url)
        expect(page.get_by_role("heading", name="Courses")).to_be_visible()
        yield page


def told(page: Page) -> Locator:
    """Give what the desk says that came of the last action."""
    return page.locator(".outcome")


def field(page: Page, name: str = "Enroll a student") -> Locator:
    """Give the field that finds a student or a course."""
    return page.get_by_role("combobox", name=name)


def pick(page: Page, name: str, text: str) -> None:
    """Type a text into such a field, and press Enter at once."""
    field(page, name).fill(text)
    page.keyboard.press("Enter")


def focused(page: Page) -> str:
    """Give the words of what has the focus, or its name."""
    words: str = page.evaluate(
        "(document.activeElement.labels?.[0] ?? document.activeElement).textContent || document.activeElement.ariaLabel"
    )
    return words


def test_an_offices_morning(desk: Page, url: str) -> None:
    """From a term to a class list, all is done at the desk, and the service has it so."""
    desk.get_by_role("link", name="Terms").click()
    desk.get_by_role("button", name="Add a term").click()
    form = desk.get_by_role("dialog")
    form.get_by_role("textbox", name="Term").fill("Spring")
    form.get_by_role("button", name="Add").click()
    expect(told(desk)).to_contain_text("Spring is added.")

    desk.get_by_role("link", name="Courses").click()
    desk.get_by_role("button", name="Add a course").click()
    form.get_by_role("button", name="Add").click()
    expect(form.get_by_role("textbox", name="Course")).to_be_focused()
    expect(form.get_by_text("is required")).to_have_count(2)
    form.get_by_role("textbox", name="Course").fill("Topology")
    form.get_by_role("textbox", name="Level").fill("master")
    form.get_by_label("Term").select_option("Spring")
    form.get_by_label("Seats").fill("1")
    form.get_by_role("textbox", name="Code").fill("LOG")
    form.get_by_role("button", name="Add").click()
    expect(form.get_by_role("textbox", name="Code")).to_have_attribute("aria-invalid", "true")
    form.get_by_role("textbox", name="Code").fill("TOP")
    form.get_by_label("Enrolling opens").fill("2020-01-01T08:00")
    form.get_by_role("button", name="Add").click()
    expect(desk.get_by_role("heading", name="Topology")).to_be_focused()

    desk.get_by_role("link", name="Students").click()
    desk.get_by_role("button", name="Add a student").click()
    form.get_by_label("Given name").fill("Sofia")
    form.get_by_label("Family name").fill("Kovalevskaya")
    form.get_by_label("Number").fill("20009")
    form.get_by_role("button", name="Add").click()
    expect(desk.get_by_role("heading", name="Sofia Kovalevskaya")).to_be_visible()
    pick(desk, "Enroll in a course", "TOP")
    expect(told(desk)).to_contain_text("Sofia Kovalevskaya has a seat in Topology.")
    assert httpx2.get(f"{url}/courses/3").json()["opens_at"].startswith("2020-01-01T")


@pytest.mark.long
def test_an_override(desk: Page, url: str) -> None:
    """Past the limit a seat is given with a reason, once it is said who is passed over; then the course is changed."""
    form = desk.get_by_role("dialog")
    desk.goto(f"{url}/desk#/courses/1")
    pick(desk, "Enroll a student", "20004")
    expect(told(desk)).to_contain_text("Katherine Johnson: The course is full, and so is its waitlist.")
    desk.get_by_role("button", name="Override …").click()
    expect(form).to_contain_text("1 student who waits is passed over: Alan Turing.")
    expect(form).to_contain_text("the course grows to 3 seats")
    form.get_by_label("Reason").fill("Needs it to graduate")
    form.get_by_role("button", name="Give the seat").click()
    expect(told(desk)).to_contain_text("Katherine Johnson has a seat in Logic.")
    expect(desk.locator(".roster tbody tr")).to_have_count(3)
    assert httpx2.get(f"{url}/events?course_id=1").json()[-1]["reason"] == "Needs it to graduate"

    desk.get_by_role("button", name="Edit").click()
    form.get_by_label("Seats").fill("1")
    form.get_by_role("button", name="Save").click()
    expect(form.get_by_text("More students are enrolled than that.")).to_be_visible()
    form.get_by_label("Seats").fill("5")
    form.get_by_role("button", name="Save").click()
    expect(desk.locator(".facts")).to_contain_text("1 of 5 seats is free.")
    desk.locator("summary").click()
    with desk.expect_download() as download:
        desk.get_by_role("link", name="Roster as CSV").click()
    assert [line.split(",")[:3] for line in Path(download.value.path()).read_text("utf-8-sig").splitlines()] == [
        ["external_id", "family_name", "given_name"],
        ["20002", "Hopper", "Grace"],
        ["20004", "Johnson", "Katherine"],
        ["20001", "Lovelace", "Ada"],
        ["20003", "Turing", "Alan"],
    ]
    desk.locator("summary").click()
    desk.get_by_role("button", name="Delete").click()
    form.get_by_role("button", name="Delete").click()
    expect(form).to_contain_text("Students are enrolled or wait.")
    form.get_by_role("button", name="Cancel").click()
    desk.locator("summary").click()
    desk.get_by_role("button", name="Cancel course").click()
    form.get_by_role("button", name="Cancel the course").click()
    expect(told(desk)).to_contain_text("Logic is cancelled: 4 students have left.")


@pytest.mark.long
def test_a_student_moves(desk: Page, url: str) -> None:
    """Swap, drop, undo, withdraw and erase do what they say, and say who took the seat meanwhile."""
    desk.goto(f"{url}/desk#/students/2")
    form = desk.get_by_role("dialog")
    desk.get_by_role("button", name="Swap Logic").click()
    pick(desk, "The other course", "SETS/A")
    form.get_by_role("button", name="Swap").click()
    expect(told(desk)).to_contain_text("Grace Hopper has left Logic for a seat in Sets.")
    desk.get_by_role("button", name="Drop Sets").click()
    form.get_by_label("Reason").fill("Too early in the morning")
    form.get_by_role("button", name="Drop").click()
    expect(told(desk)).to_contain_text("Grace Hopper has left Sets.")
    expect(desk.get_by_role("table", name="History")).to_contain_text("Too early in the morning")
    expect(desk.get_by_role("button", name="Undo")).to_be_focused()
    desk.keyboard.press("Enter")
    expect(told(desk)).to_contain_text("Grace Hopper has a seat in Sets again.")

    desk.goto(f"{url}/desk#/courses/1")
    pick(desk, "Enroll a student", "katherine")
    expect(desk.get_by_role("option", selected=True)).to_contain_text("Katherine Johnson")
    desk.keyboard.press("Enter")
    expect(told(desk)).to_contain_text("No seat is free: Katherine Johnson waits for Logic, at place 1.")
    desk.get_by_role("button", name="Drop Ada Lovelace").click()
    form.get_by_role("button", name="Drop").click()
    expect(desk.locator(".roster")).to_contain_text("Katherine Johnson")
    desk.get_by_role("button", name="Undo").click()
    expect(told(desk)).to_contain_text("The seat has gone to another student meanwhile: Ada Lovelace waits for Logic")
    desk.get_by_role("button", name="Give a seat to Ada Lovelace").click()
    expect(form).to_contain_text("Ada Lovelace is at the head of the waitlist.")
    form.get_by_role("button", name="Cancel").click()
    assert focused(desk) == "Give a seat"

    desk.goto(f"{url}/desk#/students/1")
    desk.get_by_role("button", name="Withdraw").click()
    expect(form).to_contain_text("Ada Lovelace leaves 1 course, and every waitlist.")
    form.get_by_role("button", name="Withdraw").click()
    expect(told(desk)).to_contain_text("Ada Lovelace has left 1 course.")
    desk.get_by_role("button", name="Edit").click()
    form.get_by_label("Email").fill("no email")
    form.get_by_role("button", name="Save").click()
    expect(form.get_by_label("Email")).to_be_focused()
    form.get_by_label("Email").fill("ada@example.org")
    form.get_by_label("Given name").fill("Augusta Ada")
    form.get_by_role("button", name="Save").click()
    expect(desk.get_by_role("heading", name="Augusta Ada Lovelace")).to_be_visible()
    desk.locator("summary").click()
    desk.get_by_role("button", name="Erase").click()
    form.get_by_role("button", name="Erase for good").click()
    expect(desk.get_by_role("heading", name="Students")).to_be_focused()
    assert httpx2.get(f"{url}/students/1").status_code == 404


@pytest.mark.long
def test_two_desks_see_each_other(browser: Browser, desk: Page, url: str) -> None:
    """What is done at one desk is shown at another one within a second: bars, rosters, places in line, activity.

    A machine that is busy may take longer now and then: of some times one is within the second.
    """
    with tab(browser) as other, tab(browser) as third:
        other.goto(f"{url}/desk#/courses/2")
        expect(other.locator(".facts")).to_contain_text("27 of 30 seats are free.")
        third.goto(f"{url}/desk#/activity")
        newest = third.locator("tbody tr").first
        expect(third.locator("tbody tr")).to_have_count(6)
        bar = desk.locator("tr", has_text="SETS/A").locator(".count")
        expect(bar).to_have_text("3 / 30")
        took = [math.inf]
        while min(took) > 1 and len(took) < TRIES:
            pick(other, "Enroll a student", "20005")
            began = time.monotonic()
            expect(bar).to_have_text("4 / 30")
            expect(newest).to_contain_text("Emmy Noether")
            expect(newest).to_contain_text("enrolled")
            took.append(time.monotonic() - began)
            httpx2.delete(f"{url}/students/5/courses/2?reason=Ill").raise_for_status()
            began = time.monotonic()
            expect(bar).to_have_text("3 / 30")
            expect(other.locator(".roster tbody tr")).to_have_count(3)
            expect(newest).to_contain_text("Ill")
            took[-1] = max(took[-1], time.monotonic() - began)
        assert min(took) < 1


@pytest.mark.long
def test_the_server_goes_and_comes_back(browser: Browser, school: Path) -> None:
    """A desk says that the service does not answer, does nothing meanwhile, and goes on where it was."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = str(free.getsockname()[1])
    options = ("--database-url", str(school), "--port", port)
    with tab(browser) as page, tab(browser) as other:
        with serving(*options) as server:
            page.goto(f"{server.url}/desk#/courses/1")
            expect(page.locator(".facts")).to_contain_text("1 student waits")
            other.goto(f"{server.url}/desk")
            expect(other.get_by_role("link", name="Sets")).to_be_visible()
        expect(page.get_by_role("alert")).to_contain_text("The service does not answer.")
        pick(page, "Enroll a student", "20004")
        expect(page.locator(".note")).to_contain_text("No answer came from the service")
        page.get_by_role("button", name="Give a seat to Alan Turing").click()
        expect(told(page)).to_contain_text("No answer came from the service")
        expect(other.locator(".lost")).to_contain_text("The service does not answer.")
        other.get_by_role("link", name="Students").click()
        expect(other.get_by_role("heading", name="This cannot be shown")).to_be_focused()
        expect(other.locator("main [role=alert]")).to_have_text(
            "No answer came from the service. Try again in a moment."
        )
        with connect(school) as db:
            enroll(db, 5, 2)
        with serving(*options) as server:
            httpx2.delete(f"{server.url}/students/3/courses/1").raise_for_status()
            expect(page.locator(".lost p")).to_have_count(0)
            expect(page.locator(".facts")).to_contain_text("Nobody waits.")
            expect(other.get_by_role("link", name="Ada Lovelace")).to_be_visible()
            page.get_by_role("link", name="Courses", exact=True).click()
            expect(page.locator("tr", has_text="SETS/A").locator(".count")).to_have_text("4 / 30")


@pytest.mark.long
def test_a_server_that_is_silent(browser: Browser, school: Path) -> None:
    """A service that keeps its connections and says nothing is told of as one that is gone; then the desk goes on."""
    with serving("--database-url", str(school)) as server, tab(browser) as page:
        page.goto(f"{server.url}/desk#/courses/2")
        expect(page.locator(".facts")).to_contain_text("27 of 30 seats are free.")
        server.process.send_signal(signal.SIGSTOP)
        expect(page.get_by_role("alert")).to_contain_text("The service does not answer.")
        server.process.send_signal(signal.SIGCONT)
        expect(page.locator(".lost p")).to_have_count(0)
        httpx2.put(f"{server.url}/students/5/courses/2").raise_for_status()
        expect(page.locator(".facts")).to_contain_text("26 of 30 seats are free.")


@pytest.mark.long
def test_what_makes_no_event(desk: Page, url: str) -> None:
    """A changed limit and a closed window are shown by themselves, and so is that the course is deleted."""
    made = httpx2.post(f"{url}/courses", json={"name": "Empty", "level": "any", "capacity": 3}).json()["id"]
    desk.goto(f"{url}/desk#/courses/{made}")
    expect(desk.locator(".facts")).to_contain_text("3 of 3 seats are free.")
    changes = {"capacity": 4, "closes_at": "2020-01-01T00:00:00Z"}
    httpx2.patch(f"{url}/courses/{made}", json=changes).raise_for_status()
    expect(desk.locator(".facts")).to_contain_text("4 of 4 seats are free.")
    expect(desk.locator(".facts")).to_contain_text("closed")
    httpx2.delete(f"{url}/courses/{made}").raise_for_status()
    expect(desk.locator("main [role=alert]")).to_contain_text("No course has this id.")


def test_a_table_is_gone(desk: Page, school: Path) -> None:
    """Where the database has lost a table, a view says that it cannot be shown, and is shown once the table is back."""

    def rename(old: str, new: str) -> None:
        with closing(sqlite3.connect(school)) as db:
            db.execute("PRAGMA legacy_alter_table = ON")
            db.execute(f"ALTER TABLE {old} RENAME TO {new}")

    rename("students", "lost")
    desk.get_by_role("link", name="Students").click()
    expect(desk.get_by_role("heading", name="This cannot be shown")).to_be_focused()
    expect(desk.locator("main [role=alert]")).not_to_be_empty()
    rename("lost", "students")
    desk.get_by_role("button", name="Try again").click()
    expect(desk.get_by_role("link", name="Ada Lovelace")).to_be_visible()


def test_a_host_that_authenticates(browser: Browser, school: Path) -> None:
    """Where a host program says who comes in, there are no tokens to make, and the desk offers none."""
    app = create_app(Settings(database_url=str(school)), authenticate=lambda *_: ("office", ["admin"]))
    with uvicorn_of(Starlette(routes=[Mount("/registry", app)])) as url, tab(browser) as page:
        page.goto(f"{url}/registry/desk#/keys")
        expect(page.get_by_role("heading", name="Courses")).to_be_visible()
        expect(page.get_by_role("link", name="Import")).to_be_visible()
        expect(page.get_by_role("link", name="Keys")).to_have_count(0)
        page.get_by_role("link", name="Sets").click()
        pick(page, "Enroll a student", "20005")
        expect(told(page)).to_contain_text("Emmy Noether has a seat in Sets.")


@pytest.mark.long
def test_a_backup_is_put_back(browser: Browser, school: Path) -> None:
    """After a restore the feed ends before the last event that the desk knows: then the desk reads everything anew."""
    backup = school.read_bytes()
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        options = ("--database-url", str(school), "--port", str(free.getsockname()[1]))
    with tab(browser) as page:
        with serving(*options) as server:
            page.goto(f"{server.url}/desk#/courses/2")
            httpx2.put(f"{server.url}/students/5/courses/2").raise_for_status()
            expect(page.locator(".facts")).to_contain_text("26 of 30 seats are free.")
        for name in (f"{school.name}-wal", f"{school.name}-shm"):
            school.with_name(name).unlink(missing_ok=True)
        school.write_bytes(backup)
        with serving(*options) as server:
            expect(page.locator(".facts")).to_contain_text("27 of 30 seats are free.")
            httpx2.put(f"{server.url}/students/4/courses/2").raise_for_status()
            expect(page.locator(".roster")).to_contain_text("Katherine Johnson")


@pytest.mark.long
def test_what_happens_while_a_view_is_read(desk: Page, url: str) -> None:
    """A view that was read before something happened, and is shown after the feed told of that, is read again."""
    expect(desk.get_by_role("link", name="Sets")).to_be_visible()

    held = hold(desk, "**/courses/2", "GET", most=1)
    desk.get_by_role("link", name="Sets").click()
    wait_for(desk, held, 1)
    assert desk.locator("main").get_attribute("aria-busy") == "true"
    answer = held[0].fetch()
    httpx2.put(f"{url}/students/5/courses/2").raise_for_status()
    desk.wait_for_timeout(1000)  # The browser hears of it meanwhile.
    held[0].fulfill(response=answer)
    expect(desk.locator(".facts")).to_contain_text("26 of 30 seats are free.")
    assert desk.locator("main").get_attribute("aria-busy") is None


@pytest.mark.long
def test_what_happens_before_the_feed_is_found(desk: Page, url: str) -> None:
    """Where the feed could not be read at first, what was shown meanwhile is read again once it can."""
    held = hold(desk, "**/events?limit=1&*", "GET", most=1)
    desk.goto(f"{url}/desk#/courses/2")
    desk.reload()
    wait_for(desk, held, 1)
    held[0].abort()
    expect(desk.locator(".facts")).to_contain_text("27 of 30 seats are free.")
    httpx2.put(f"{url}/students/5/courses/2").raise_for_status()
    expect(desk.locator(".facts")).to_contain_text("26 of 30 seats are free.")


def hold(page: Page, path: str, method: str = "POST", most: int = 9) -> list[Route]:
    """Hold back the first requests to a path, as a slow line does; each goes on when the test says so.

    Nothing ends that before the page does: Chromium may lose a request that it sends at the moment when it is told to
    hold back none any more.
    """
    held: list[Route] = []

    def keep(route: Route) -> None:
        if route.request.method == method and len(held) < most:
            held.append(route)
        else:
            route.fallback()

    page.route(path, keep)
    return held


def wait_for(page: Page, held: list[Route], count: int) -> None:
    """Wait until so many requests are held back."""
    for _ in range(1000 * SECONDS // 20):
        if len(held) >= count:
            return
        page.wait_for_timeout(20)
    pytest.fail(f"{len(held)} requests are held back, and not {count}.")


def test_enter_takes_what_was_typed(desk: Page) -> None:
    """Enter in a search opens the first row of what was typed, and not of what is still shown."""
    held = hold(desk, "**/courses?q=*", "GET", most=1)
    desk.keyboard.press("/")
    desk.keyboard.type("sets")
    desk.keyboard.press("Enter")
    wait_for(desk, held, 1)
    expect(desk.get_by_role("heading", name="Courses")).to_be_visible()
    held[0].continue_()
    expect(desk.get_by_role("heading", name="Sets")).to_be_focused()
    desk.go_back()
    search = desk.get_by_role("searchbox", name="Search courses")
    expect(search).to_be_visible()
    desk.evaluate(
        """() => {
            const search = document.querySelector('[data-search]');
            search.value = 'logic';
            search.dispatchEvent(new Event('input'));
            location.hash = '#/students';
        }"""
    )
    expect(desk.get_by_role("heading", name="Students")).to_be_focused()
    desk.wait_for_timeout(200)  # The search would have begun meanwhile.
    assert desk.url.endswith("#/students")


@pytest.mark.long
def test_answers_that_come_late(desk: Page, url: str) -> None:
    """What comes of each enrollment is told: of two at once side by side, and after the view was left in the next."""
    desk.goto(f"{url}/desk#/courses/1")
    held = hold(desk, "**/students/*/courses")
    pick(desk, "Enroll a student", "20001")
    wait_for(desk, held, 1)
    pick(desk, "Enroll a student", "20004")
    wait_for(desk, held, 2)
    held[1].continue_()
    expect(told(desk)).to_contain_text("Katherine Johnson: The course is full")
    held[0].continue_()
    expect(told(desk)).to_contain_text("Ada Lovelace: This student has a seat in the course already.")
    expect(told(desk)).to_contain_text("Katherine Johnson: The course is full")

    expect(desk.locator(".note")).to_be_empty()
    pick(desk, "Enroll a student", "20005")
    wait_for(desk, held, 3)
    expect(desk.locator(".note")).to_have_text("…")
    expect(told(desk)).to_contain_text("Katherine Johnson")
    desk.get_by_role("link", name="Terms").click()
    expect(desk.get_by_role("heading", name="Terms")).to_be_visible()
    held[2].continue_()
    late = desk.locator(".late")
    expect(late).to_contain_text("Emmy Noether: The course is full")
    desk.get_by_role("link", name="Students").click()
    expect(desk.get_by_role("heading", name="Students")).to_be_visible()
    expect(late).to_contain_text("Emmy Noether: The course is full")
    desk.get_by_role("button", name="Close this message").click()
    expect(late).to_be_empty()


@pytest.mark.long
def test_nothing_is_asked_twice(desk: Page, url: str) -> None:
    """A second click on what is at work already does nothing."""
    desk.goto(f"{url}/desk#/courses/1")
    desk.get_by_role("button", name="Drop Ada Lovelace").click()
    desk.get_by_role("dialog").get_by_role("button", name="Drop").click()
    held = hold(desk, "**/students/*/courses")
    undo = desk.get_by_role("button", name="Undo")
    undo.click()
    wait_for(desk, held, 1)
    undo.click(force=True)
    held[0].continue_()
    expect(told(desk)).to_contain_text("The seat has gone to another student meanwhile")
    assert len(held) == 1

    heads = hold(desk, "**/courses/1/waitlist?limit=10", "GET")
    give = told(desk).get_by_role("button", name="Override …")
    give.click()
    wait_for(desk, heads, 1)
    give.click(force=True)
    heads[0].continue_()
    expect(desk.get_by_role("dialog")).to_have_count(1)
    assert len(heads) == 1


@pytest.mark.long
def test_a_form_on_a_slow_line(desk: Page) -> None:
    """Whoever leaves a form that is being sent is told what came of it; nobody leaves one by the way back."""
    form = desk.get_by_role("dialog")
    desk.get_by_role("link", name="Logic").click()
    expect(desk.get_by_role("heading", name="Logic")).to_be_visible()
    held = hold(desk, "**/courses/1", "PATCH")
    for count, (seats, words) in enumerate({"3": "Logic is changed.", "1": "More students are enrolled"}.items(), 1):
        desk.get_by_role("button", name="Edit").click()
        form.get_by_label("Seats").fill(seats)
        form.get_by_role("button", name="Save").click()
        wait_for(desk, held, count)
        desk.keyboard.press("Escape")
        expect(form).to_have_count(0)
        held[-1].continue_()
        expect(told(desk)).to_contain_text(words)

    desk.get_by_role("button", name="Edit").click()
    form.get_by_role("textbox", name="Course").fill("Logic of sets")
    desk.go_back()
    expect(form.get_by_role("textbox", name="Course")).to_have_value("Logic of sets")
    expect(desk.locator("main h1")).to_have_text("Logic")
    with desk.expect_event("dialog") as asked:
        desk.evaluate("setTimeout(() => location.reload())")
    assert asked.value.type == "beforeunload"
    asked.value.dismiss()
    expect(form.get_by_role("textbox", name="Course")).to_have_value("Logic of sets")
    desk.keyboard.press("Escape")
    desk.reload()
    expect(desk.get_by_role("heading", name="Logic")).to_be_visible()


@pytest.mark.long
def test_long_lists(browser: Browser, school: Path) -> None:
    """The rows of a long list are read when the reader comes to their place, and a class list on paper has them all.

    Of what happens the desk keeps the last 300 changes, however long it is open.
    """
    with connect(school) as db, db.atomic():
        insert_course(db, "Everybody", "any")
        for number in range(450):
            enroll(db, insert_student(db, given_name="Somebody", family_name=f"Number {number:03}").id, 3)
    with serving("--database-url", str(school)) as server, tab(browser) as page:
        page.goto(f"{server.url}/desk#/courses/3")
        rows = page.locator(".roster tbody tr")
        expect(rows).to_have_count(100)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        rows.last.scroll_into_view_if_needed()
        expect(rows).to_have_count(200)
        page.evaluate(
            "() => { window.print = () => { window.printed = document.querySelectorAll('tbody tr').length; }; }"
        )
        page.get_by_role("button", name="Print class list").click()
        expect(rows).to_have_count(450)
        assert page.evaluate("printed") == 450
        rosters = [url for url in asked if "/students?" in url]
        assert len(rosters) <= 3  # Two as the reader came to them, and one of all the rest.
        page.emulate_media(media="print")
        expect(rows.last).to_be_visible()
        for hidden in ("nav", ".picker", ".acts", ".buttons"):
            expect(page.locator(hidden).first).to_be_hidden()
        page.emulate_media(media="screen")
        httpx2.delete(f"{server.url}/students/9/courses/3").raise_for_status()
        expect(rows).to_have_count(449)
        page.goto(f"{server.url}/desk#/activity")
        expect(page.get_by_role("heading", name="Activity")).to_be_visible()
        expect(page.locator("tbody tr")).to_have_count(300)
        httpx2.put(f"{server.url}/students/2/courses/3?reason=Late").raise_for_status()
        expect(page.locator("tbody tr").first).to_contain_text("Late")
        expect(page.locator("tbody tr")).to_have_count(300)
        page.goto(f"{server.url}/desk#/students/3")
        expect(page.get_by_role("heading", name="Alan Turing")).to_be_visible()
        page.emulate_media(media="print")
        expect(page.get_by_text("waits at place 1")).to_be_visible()
        expect(page.get_by_role("button", name="Swap")).to_have_count(0)


@pytest.mark.long
def test_sign_in(browser: Browser, school: Path) -> None:
    """With a token that reads, all is shown and no change is offered; when it ends, the desk asks for one again."""
    with connect(school) as db:
        reads, does = create_token(db, "front desk", ["read"]), create_token(db, "office", ["admin"])
    with serving("--database-url", str(school)) as server, tab(browser) as page:
        page.goto(f"{server.url}/desk#/courses/1")
        expect(page.get_by_label("Token")).to_be_focused()
        page.get_by_label("Token").fill("enr_wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("mistyped or cut off")
        page.get_by_label("Token").fill(reads)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Logic")).to_be_visible()
        expect(page.locator("nav")).to_contain_text("front desk")
        names = {"Print class list", "Sign out"}
        for view, heading in [*VIEWS.items()][:-2]:
            page.goto(f"{server.url}/desk#/{view}")
            expect(page.locator("main h1")).to_have_text(heading)
            offered = set(page.locator("button").all_text_contents())
            assert offered <= names | {"Show more"}, view
            assert page.get_by_role("combobox").count() == (view == "courses")  # The choice of a term.
        for view in ("Import", "Keys"):
            assert page.get_by_role("link", name=view).count() == 0
            page.goto(f"{server.url}/desk#/{view.lower()}")
            expect(page.get_by_role("heading", name="Courses")).to_be_visible()

        page.goto(f"{server.url}/desk#/students/2")
        expect(page.get_by_role("heading", name="Grace Hopper")).to_be_visible()
        bearer = {"authorization": f"Bearer {does}"}
        httpx2.delete(f"{server.url}/tokens/{reads.split('_')[1]}", headers=bearer).raise_for_status()
        expect(page.get_by_role("alert")).to_contain_text("The session has ended.")
        page.get_by_label("Token").fill(does)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Grace Hopper")).to_be_visible()
        expect(page.get_by_role("button", name="Withdraw")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


@pytest.mark.long
def test_who_enrolls_is_offered_no_more(browser: Browser, school: Path) -> None:
    """With a token that enrolls, nobody is offered to change the course, nor to let anyone past its limit."""
    with connect(school) as db:
        token = create_token(db, "front desk", ["enroll"])
    with serving("--database-url", str(school)) as server, tab(browser) as page:
        page.goto(f"{server.url}/desk#/courses/1")
        page.get_by_label("Token").fill(token)
        page.keyboard.press("Enter")
        pick(page, "Enroll a student", "20004")
        expect(told(page)).to_contain_text("The course is full")
        assert set(page.locator("main button").all_text_contents()) == {
            *("Print class list", "Cancel course", "Drop", "\N{MULTIPLICATION SIGN}"),
        }
        page.get_by_role("button", name="Drop Ada Lovelace").click()
        page.get_by_role("dialog").get_by_role("button", name="Drop").click()
        page.get_by_role("button", name="Undo").click()
        expect(told(page)).to_contain_text("The seat has gone to another student meanwhile")
        assert told(page).get_by_role("button").all_text_contents() == ["\N{MULTIPLICATION SIGN}"]
        page.get_by_role("link", name="Activity").click()
        expect(page.locator("tbody tr").first).to_contain_text("front desk")


@pytest.mark.long
def test_keys(desk: Page, url: str) -> None:
    """The first token is made at the desk, which goes on with it; others are made, rotated and revoked."""
    form = desk.get_by_role("dialog")
    desk.get_by_role("link", name="Keys").click()
    expect(desk.get_by_text("No token was ever made.")).to_be_visible()

    def make(name: str) -> str:
        desk.get_by_role("button", name="Make a token").click()
        form.get_by_label("Name").fill(name)
        form.get_by_role("button", name="Make").click()
        expect(told(desk)).to_contain_text(f"{name} has a token.")
        return desk.locator(".secret").inner_text()

    office = make("office")
    expect(desk.locator("nav")).to_contain_text("Signed in as office")
    reader = make("reader")
    scopes = httpx2.get(f"{url}/session", headers={"authorization": f"Bearer {reader}"}).json()["scopes"]
    assert scopes == ["read"]
    desk.get_by_role("button", name="Rotate reader").click()
    form.get_by_role("button", name="Rotate").click()
    expect(told(desk)).to_contain_text("reader has a new secret.")
    assert desk.locator(".secret").inner_text() != reader
    desk.get_by_role("button", name="Revoke reader").click()
    form.get_by_role("button", name="Revoke").click()
    expect(desk.locator("tr", has_text="reader")).to_contain_text("revoked")
    bearer = {"authorization": f"Bearer {office}"}
    httpx2.delete(f"{url}/students/2/courses/1", headers=bearer).raise_for_status()
    desk.get_by_role("link", name="Activity").click()
    expect(desk.locator("tr", has_text="left")).to_contain_text("office")
    tokens = httpx2.get(f"{url}/tokens", headers=bearer).json()
    assert [(each["name"], each["state"]) for each in tokens] == [("office", "active"), ("reader", "revoked")]
    assert httpx2.get(f"{url}/courses").status_code == 401


@pytest.mark.long
def test_a_messy_file(desk: Page, url: str, tmp_path: Path) -> None:
    """What a file would do is shown and nothing is changed; then it is applied, and its refused rows, once mended."""
    file = tmp_path / "students.csv"
    file.write_bytes(messy())
    desk.goto(f"{url}/desk#/import")
    before = httpx2.get(f"{url}/students?limit=1000").json()
    desk.locator("input[type=file]").set_input_files(file)
    expect(told(desk)).to_contain_text("students.csv was tried, and 2 rows cannot be taken. Nothing is changed yet.")
    expect(desk.get_by_role("table", name="Rows by what")).to_contain_text("Added40")
    assert httpx2.get(f"{url}/students?limit=1000").json() == before
    rows = desk.get_by_role("table", name="Refused").locator("tbody tr")
    expect(rows).to_have_count(2)
    desk.get_by_role("searchbox", name="Search refused rows").fill("S0001")
    expect(rows).to_have_count(1)
    fits(desk, "what a file would do")
    with desk.expect_download() as download:
        desk.get_by_role("button", name="Refused Students as CSV").click()
    desk.get_by_role("button", name="Apply").click()
    expect(told(desk)).to_contain_text("students.csv is imported, but for 2 rows.")
    expect(desk.get_by_role("button", name="Apply")).to_have_count(0)
    assert focused(desk).startswith("What students.csv did")
    after = httpx2.get(f"{url}/students?limit=1000").json()
    assert len(after) == len(before) + 40

    mended = tmp_path / download.value.suggested_filename
    text = Path(download.value.path()).read_text("utf-8-sig").replace("S0001", "S0041", 1)
    mended.write_text(text, "utf-8-sig", newline="")
    desk.locator("input[type=file]").set_input_files(mended)
    expect(told(desk)).to_contain_text("1 row cannot be taken")
    desk.get_by_role("button", name="Apply").click()
    expect(told(desk)).to_contain_text("but for 1 row")
    added = httpx2.get(f"{url}/students?limit=1000").json()[-1]
    assert (added["external_id"], added["given_name"]) == ("S0041", "Zweite")


@pytest.mark.long
def test_files_that_are_not_taken(desk: Page, url: str, tmp_path: Path) -> None:
    """A file of another kind, one that cannot be read, and one that was saved meanwhile are told so."""
    desk.goto(f"{url}/desk#/import")
    chosen = desk.locator("input[type=file]")
    chosen.set_input_files({"name": "letter.pdf", "mimeType": "application/pdf", "buffer": b"%PDF"})
    expect(told(desk)).to_contain_text("Take one file at a time")
    chosen.set_input_files({"name": "a.xlsx", "mimeType": "", "buffer": b"no workbook"})
    expect(told(desk).locator(".bad")).to_contain_text("a.xlsx")
    file = tmp_path / "students.csv"
    file.write_text("external_id,name\n7,Ada\n")
    chosen.set_input_files(file)
    expect(told(desk)).to_contain_text("every row can be taken")
    file.write_text("external_id,name\n7,Ada\n8,Bo\n")
    desk.get_by_role("button", name="Apply").click()
    expect(told(desk)).to_contain_text("Choose it again.")


@pytest.mark.long
def test_a_file_is_dropped_on_the_page(desk: Page, url: str) -> None:
    """A file that is dropped anywhere on the page is tried; whom it does not have is dropped, up to the limit."""
    desk.goto(f"{url}/desk#/import")
    expect(desk.get_by_role("heading", name="Import")).to_be_visible()
    zone = desk.locator(".zone")
    carried = desk.evaluate_handle(
        """(text) => {
            const carried = new DataTransfer();
            carried.items.add(new File([text], "roster.csv", { type: "text/csv" }));
            return carried;
        }""",
        "student_id,course_id\n3,1\n",
    )
    desk.dispatch_event("main", "dragover", {"dataTransfer": carried})
    expect(zone).to_have_class("zone over")
    desk.dispatch_event("main", "drop", {"dataTransfer": carried})
    expect(zone).to_have_class("zone")
    expect(told(desk)).to_contain_text("roster.csv was tried, and every row can be taken.")
    expect(desk.locator("main")).to_contain_text("Nothing would be changed.")

    desk.get_by_label("Drop who is not in the file").check()
    expect(told(desk).locator(".bad")).to_contain_text("If the file is right, allow a greater part above.")
    expect(desk.get_by_text("2 enrollments are not in the file")).to_be_visible()
    expect(desk.get_by_role("table", name="Not in the file")).to_contain_text("Ada Lovelace")
    expect(desk.get_by_role("button", name="Apply")).to_have_count(0)
    most = desk.get_by_label("At most so many percent of them")
    most.fill("100")
    most.blur()
    desk.get_by_label("Reason, for the history").fill("Left in summer")
    desk.get_by_role("button", name="Apply").click()
    expect(told(desk)).to_contain_text("roster.csv is imported.")
    assert [each["id"] for each in httpx2.get(f"{url}/courses/1/students").json()] == [3]
    assert httpx2.get(f"{url}/events?course_id=1").json()[-1]["reason"] == "Left in summer"


@pytest.mark.long
def test_an_import_is_stopped_and_left(browser: Browser, desk: Page, url: str) -> None:
    """An import stops when it is told to, one at a time is at work, and whoever leaves one is asked first."""
    content = "external_id,name\n" + "".join(f"N{number},Student {number}\n" for number in range(20_000))
    file: FilePayload = {"name": "students.csv", "mimeType": "text/csv", "buffer": content.encode()}
    stop = desk.get_by_role("button", name="Stop", exact=True)
    desk.goto(f"{url}/desk#/import")
    with tab(browser) as other:
        other.goto(f"{url}/desk#/import")
        expect(other.get_by_role("heading", name="Import")).to_be_visible()
        desk.locator("input[type=file]").set_input_files(file)
        expect(desk.get_by_role("progressbar")).to_have_attribute("aria-valuetext", re.compile("Copying|rows"))
        other.locator("input[type=file]").set_input_files(file)
        expect(told(other).locator(".bad")).to_contain_text("Another import is at work. Nothing was kept.")
        stop.click()
        expect(told(desk)).to_contain_text("Stopped. Nothing was changed.")
    until_it_is_at_work(desk, "Try again")
    desk.get_by_role("button", name="Apply").click(timeout=60_000)
    expect(stop).to_be_focused()
    desk.get_by_role("link", name="Terms").click()
    form = desk.get_by_role("dialog")
    form.get_by_role("button", name="Cancel").click()
    expect(desk.get_by_role("heading", name="Import")).to_be_visible()
    with desk.expect_event("dialog") as asked:
        desk.evaluate("setTimeout(() => location.reload())")
    assert asked.value.type == "beforeunload"
    asked.value.dismiss()
    stop.click()
    expect(told(desk)).to_contain_text("Stopped. What was taken stays")
    assert len(httpx2.get(f"{url}/students?q=Student 19999").json()) == 0
    until_it_is_at_work(desk, "Apply")
    desk.get_by_role("link", name="Terms").click()
    form.get_by_role("button", name="Stop and leave").click()
    expect(desk.get_by_role("heading", name="Terms")).to_be_visible()
    assert len(httpx2.get(f"{url}/students?q=Student 19999").json()) == 0


def until_it_is_at_work(page: Page, button: str) -> None:
    """Press a button until the import has begun: the one before may take a moment to come to its end."""
    at_work = page.locator("[aria-valuetext]:not([aria-valuetext*='on its way']):visible")
    while at_work.count() == 0:
        page.get_by_role("button", name=button).click()
        expect(at_work.or_(told(page).locator(".bad"))).to_be_visible()


@pytest.mark.long
def test_with_the_keyboard_alone(desk: Page) -> None:
    """Find a course, enroll, drop and undo without a mouse; the focus is where the next key is wanted."""
    desk.keyboard.press("/")
    desk.keyboard.type("log")
    expect(desk.locator("tbody tr")).to_have_count(1)
    desk.keyboard.press("ArrowDown")
    assert focused(desk) == "Logic"
    desk.keyboard.press("Enter")
    expect(desk.get_by_role("heading", name="Logic")).to_be_focused()
    desk.keyboard.press("/")
    desk.keyboard.type("a")
    desk.keyboard.press("Escape")
    desk.keyboard.press("Escape")
    expect(field(desk)).to_have_value("")
    desk.keyboard.type("john")
    expect(desk.get_by_role("option")).to_have_count(1)
    desk.keyboard.press("ArrowDown")
    expect(desk.get_by_role("option", selected=True)).to_contain_text("Katherine Johnson")
    desk.keyboard.press("Enter")
    expect(told(desk)).to_contain_text("The course is full")
    expect(field(desk)).to_be_focused()
    desk.get_by_role("button", name="Drop Grace Hopper").focus()
    desk.keyboard.press("Enter")
    expect(desk.get_by_label("Reason")).to_be_focused()
    desk.keyboard.press("Escape")
    expect(desk.get_by_role("dialog")).to_have_count(0)
    assert focused(desk) == "Drop"
    desk.keyboard.press("Enter")
    desk.keyboard.press("Enter")
    expect(desk.get_by_role("button", name="Undo")).to_be_focused()


@pytest.mark.long
def test_who_is_passed_over(desk: Page, url: str) -> None:
    """An override names those who wait before the student, and nobody who waits behind; an id is a number too."""
    httpx2.patch(f"{url}/courses/1", json={"waitlist_capacity": None}).raise_for_status()
    for student in (4, 5, 6):
        httpx2.put(f"{url}/students/{student}/courses/1").raise_for_status()
    form = desk.get_by_role("dialog")
    desk.goto(f"{url}/desk#/courses/1")
    for name, words in {
        "Emmy Noether": "2 students who wait are passed over: Alan Turing, Katherine Johnson.",
        "Katherine Johnson": "1 student who waits is passed over: Alan Turing.",
        "Alan Turing": "Alan Turing is at the head of the waitlist.",
    }.items():
        desk.get_by_role("button", name=f"Give a seat to {name}").click()
        expect(form).to_contain_text(words)
        desk.keyboard.press("Escape")
    pick(desk, "Enroll a student", "8")
    expect(told(desk)).to_contain_text(f"No seat is free: {HEBREW} waits for Logic, at place 5.")
    desk.get_by_role("button", name="Override …").click()
    expect(form).to_contain_text("4 students who wait are passed over: Alan Turing, Katherine Johnson, Emmy Noether, <")


@pytest.mark.long
def test_refusals_in_their_place(desk: Page, url: str) -> None:
    """A swap into a full course is refused beside the course, and offers the line; an undo says if the seat is gone."""
    form = desk.get_by_role("dialog")
    httpx2.delete(f"{url}/students/3/courses/1").raise_for_status()
    httpx2.put(f"{url}/students/4/courses/2").raise_for_status()
    desk.goto(f"{url}/desk#/students/4")
    desk.get_by_role("button", name="Swap Sets").click()
    pick(desk, "The other course", "LOG")
    form.get_by_role("button", name="Swap").click()
    expect(form.locator(".field", has=field(desk, "The other course"))).to_contain_text("No seat is free there.")
    expect(field(desk, "The other course")).to_be_focused()
    form.get_by_label("If it is full").check()
    form.get_by_role("button", name="Swap").click()
    expect(told(desk)).to_contain_text("Katherine Johnson keeps Sets, and waits for Logic at place 1.")

    desk.goto(f"{url}/desk#/courses/1")
    for name, words in {"Katherine Johnson": "The place in line", "Ada Lovelace": "The seat"}.items():
        desk.get_by_role("button", name=f"Drop {name}").click()
        form.get_by_role("button", name="Drop").click()
        expect(told(desk)).to_contain_text(f"{name} has left Logic.")
        httpx2.put(f"{url}/students/5/courses/1").raise_for_status()
        httpx2.put(f"{url}/students/6/courses/1")
        desk.get_by_role("button", name="Undo").click()
        expect(told(desk)).to_contain_text(
            f"{words} has gone meanwhile. {name}: The course is full, and so is its waitlist."
        )
    desk.get_by_role("button", name="Edit").click()
    form.get_by_role("button", name="Save").click()
    expect(form).to_have_count(0)
    expect(told(desk)).not_to_contain_text("changed")


@pytest.mark.long
def test_refusals_beside_their_fields(desk: Page, url: str) -> None:
    """Each fault is beside its field, with the names that the form has for the fields, and no number is rounded."""
    form = desk.get_by_role("dialog")

    def fault(label: str) -> Locator:
        return form.locator(".field", has=desk.get_by_label(label)).get_by_role("alert")

    desk.goto(f"{url}/desk#/terms")
    desk.get_by_role("button", name="Edit Autumn").click()
    form.get_by_label("Last day").fill("2026-08-31")
    form.get_by_role("button", name="Save").click()
    expect(fault("Last day")).to_have_text("must not be before First day")
    desk.keyboard.press("Escape")
    desk.goto(f"{url}/desk#/courses/1")
    expect(desk.get_by_role("heading", name="Logic")).to_be_visible()
    desk.get_by_role("button", name="Edit").click()
    for seats in ("1.5", "-1", "9007199254740993"):
        form.get_by_label("Seats").fill(seats)
        form.get_by_role("button", name="Save").click()
        expect(fault("Seats")).to_have_text("must be a whole number from 0 to 9007199254740991")
    form.get_by_label("Seats").fill("3")
    form.get_by_role("button", name="Save").click()
    expect(told(desk)).to_contain_text("Logic is changed.")
    desk.get_by_role("button", name="Drop Ada Lovelace").click()
    form.get_by_label("Reason").fill("R" * 201)
    form.get_by_role("button", name="Drop").click()
    expect(fault("Reason")).to_have_text("must have at most 200 characters")
    expect(form.get_by_label("Reason")).to_be_focused()


@pytest.mark.long
def test_numbers_in_a_row(desk: Page, url: str) -> None:
    """Whoever types number after number, each with Enter, loses none on a slow line, and hears of one of nobody."""
    desk.goto(f"{url}/desk#/courses/2")
    field(desk).focus()
    held = hold(desk, "**/students?external_id=*", "GET")
    for number in ("20001", "29999", "20002"):
        desk.keyboard.type(number)
        desk.keyboard.press("Enter")
        desk.keyboard.press("Enter")
    wait_for(desk, held, 3)
    for each in [*held]:
        each.continue_()
    for words in ("Ada Lovelace has a seat", "29999: Nothing found.", "Grace Hopper has a seat"):
        expect(told(desk)).to_contain_text(words)
    expect(told(desk)).not_to_contain_text("already")
    expect(field(desk)).to_have_value("")
    assert len(held) == 3


@pytest.mark.long
def test_suggestions_are_of_what_was_typed(desk: Page, url: str) -> None:
    """An arrow chooses among what was found for the whole text, and no list opens over what has the focus by then."""
    desk.goto(f"{url}/desk#/courses/2")
    field(desk).press_sequentially("20")
    expect(desk.locator(".note")).to_have_text(
        "Nothing found. One or two letters are looked for at the beginning of names only."
    )
    field(desk).press_sequentially("0")
    expect(desk.get_by_role("option")).to_have_count(5)
    held = hold(desk, "**/students?q=*", "GET", most=2)
    field(desk).press_sequentially("05")
    desk.keyboard.press("ArrowDown")
    wait_for(desk, held, 1)
    expect(desk.get_by_role("option", selected=True)).to_have_count(0)
    held[0].continue_()
    expect(desk.get_by_role("option", selected=True)).to_contain_text("Emmy Noether")
    field(desk).fill("gra")
    wait_for(desk, held, 2)
    desk.keyboard.press("Tab")
    with desk.expect_response("**/students?q=gra*"):
        held[1].continue_()
    desk.wait_for_timeout(100)  # The list would open meanwhile.
    expect(desk.get_by_role("listbox")).to_be_hidden()
    desk.get_by_role("link", name="Students").click()
    desk.get_by_role("searchbox").fill("zz")
    expect(desk.locator(".foot")).to_contain_text("There is no such student. One or two letters")


@pytest.mark.long
def test_the_focus_is_never_lost(desk: Page, url: str) -> None:
    """After a message is closed, and after a form of a menu is left, the focus is where the next key is wanted."""
    desk.goto(f"{url}/desk#/courses/1")
    pick(desk, "Enroll a student", "20001")
    desk.get_by_role("button", name="Close this message").click()
    expect(field(desk)).to_be_focused()
    desk.locator("summary").focus()
    for key in ("Enter", "Tab", "Tab", "Enter"):
        desk.keyboard.press(key)
    expect(desk.get_by_role("dialog")).to_contain_text("Cancel the course")
    desk.keyboard.press("Escape")
    expect(desk.locator("summary")).to_be_focused()


@pytest.mark.long
def test_names_that_change(desk: Page, url: str) -> None:
    """A changed name is shown within a minute where only events tell of it, and that of an erased student nowhere."""
    desk.clock.install()
    desk.goto(f"{url}/desk#/activity")
    desk.reload()
    expect(desk.get_by_role("link", name="Alan Turing")).to_be_visible()
    httpx2.patch(f"{url}/students/3", json={"family_name": "M. Turing", "name": "Alan M. Turing"}).raise_for_status()
    httpx2.post(f"{url}/students/2/erase").raise_for_status()
    desk.clock.fast_forward(61_000)
    expect(desk.get_by_role("link", name="Alan M. Turing").first).to_be_visible()
    expect(desk.locator("tbody")).to_contain_text("student 2, deleted")
    expect(desk.get_by_text("Grace Hopper")).to_have_count(0)

    desk.goto(f"{url}/desk#/students/1")
    desk.locator("summary").click()
    desk.get_by_role("button", name="Erase").click()
    desk.get_by_role("dialog").get_by_role("button", name="Erase for good").click()
    expect(desk.get_by_role("heading", name="Students")).to_be_focused()
    desk.goto(f"{url}/desk#/activity")
    expect(desk.locator("tbody")).to_contain_text("student 1, deleted")


@pytest.mark.long
def test_names_of_any_kind(desk: Page, url: str) -> None:
    """Names that are HTML are shown as they are; those that run from right to left turn nothing around them."""
    for view in ("students", "students/6", "courses/2", "activity"):
        desk.goto(f"{url}/desk#/{view}")
        expect(desk.get_by_text(HOSTILE).first).to_be_visible()
    assert desk.evaluate("[document.scripts.length, document.images.length, broken.length]") == [1, 0, 0]
    desk.goto(f"{url}/desk#/courses/2")
    pick(desk, "Enroll a student", "<script>")
    expect(desk.get_by_role("option", selected=True)).to_contain_text(HOSTILE)
    desk.keyboard.press("Enter")
    expect(told(desk)).to_contain_text(f"{HOSTILE}: This student has a seat in the course already.")
    for name in (ARABIC, HEBREW):
        shown = desk.locator("bdi", has_text=name)
        assert shown.evaluate("(each) => [getComputedStyle(each).direction, getComputedStyle(each).unicodeBidi]") == [
            "rtl",
            "isolate",
        ]


def test_behind_a_proxy(browser: Browser, school: Path) -> None:
    """Under the path that a proxy takes away, the desk loads, reads and writes, and follows what happens."""
    asked: list[str] = []

    def proxy(route: Route) -> None:
        parts = urlsplit(route.request.url)
        asked.append(parts.path)
        route.continue_(url=route.request.url.replace("/campus/registry", "", 1))

    with serving("--database-url", str(school), ROOT_PATH="/campus/registry") as server, tab(browser) as page:
        page.context.route(re.compile("/campus/registry"), proxy)
        page.goto(f"{server.url}/campus/registry/desk#/courses/2")
        expect(page.locator(".facts")).to_contain_text("27 of 30 seats are free.")
        pick(page, "Enroll a student", "20005")
        expect(page.locator(".facts")).to_contain_text("26 of 30 seats are free.")
        assert "/campus/registry/desk/words.json" in asked


@pytest.mark.long
def test_in_another_language(browser: Browser, url: str) -> None:
    """A school puts words of its own in the place of the desk's, in a language that runs from right to left too."""
    words = json.loads((ROOT / "service" / "desk" / "words.json").read_text("utf-8"))
    words |= {"language": "ar", "direction": "rtl", "courses": "المقررات", "refusal.course_full": "المقرر ممتلئ"}
    words["facts.places"] = {"two": "طالبان ينتظران", "one": "طالب واحد ينتظر", "other": "{n} طلاب ينتظرون"}
    for width in (1280, 360):
        with tab(browser, width) as page:
            page.route("**/desk/words.json", lambda route: route.fulfill(json=words))
            page.goto(f"{url}/desk")
            expect(page.get_by_role("heading", name="المقررات")).to_be_visible()
            fits(page, "courses")
            page.goto(f"{url}/desk#/courses/1")
            expect(page.locator(".facts")).to_contain_text("طالب واحد ينتظر")
            pick(page, "Enroll a student", "20004")
            expect(told(page)).to_contain_text("المقرر ممتلئ")
            fits(page, "a course")


@pytest.mark.long
@pytest.mark.parametrize(("width", "scheme"), [*SIGHTS, (768, "light")])
def test_everybody_can_read_it(browser: Browser, url: str, width: int, scheme: Scheme) -> None:
    """By day, by night, on a phone and a tablet axe finds no fault in any view, and all that is shown has its room."""
    httpx2.patch(f"{url}/courses/2", json={"capacity": 1_000_000}).raise_for_status()
    with tab(browser, width, scheme) as page:
        for view, heading in VIEWS.items():
            page.goto(f"{url}/desk#/{view}")
            expect(page.locator("main h1")).to_have_text(heading)
            fits(page, view)
        page.goto(f"{url}/desk#/courses/1")
        page.get_by_role("button", name="Edit").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        fits(page, "the form of a course")
        page.keyboard.press("Escape")
        field(page).fill("a")
        expect(page.get_by_role("option").first).to_be_visible()
        fits(page, "suggestions")


def fits(page: Page, what: str) -> None:
    """Hold what is shown to axe, to the width of the window, and to fingers."""
    found = Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == [], what
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0, what
    tight = """[...document.querySelectorAll('td.wide, .count')].filter((each) => each.checkVisibility() &&
        (each.scrollWidth > each.clientWidth || (each.matches('td') && each.clientWidth < 90))
    ).map((each) => each.outerHTML)"""
    assert page.evaluate(tight) == [], what
    small = """[...document.querySelectorAll('a, button, summary, select, input')].filter((each) => {
        const place = (each.closest('label') ?? each).getBoundingClientRect();
        return each.checkVisibility() && !each.matches('.skip') && Math.min(place.height, place.width) < 43.5;
    }).map((each) => each.outerHTML)"""
    assert page.evaluate(small) == [], what
