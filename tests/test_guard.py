"""Who is let in: each refusal, each scope at each operation, sessions of browsers, AUTH, and servers that run."""

import gc
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import peewee as pw
import pytest
from answers import JSON, DeclaringClient, open_school, refusal
from click.testing import CliRunner
from conftest import ROOT, Server, serving
from starlette.datastructures import Headers
from starlette.testclient import TestClient
from starlette.types import Scope
from stores import held

from service import Settings, create_app, tokens
from service.__main__ import cli
from service.http import guard
from service.http.api import API
from service.http.guard import Authenticate
from service.tokens import EXPIRED, MISTYPED, REPLACED, REVOKED, SCOPES, UNKNOWN

OPERATIONS = [(path, method, each.right) for path, methods in API.items() for method, each in methods.items()]
CHALLENGE = 'Bearer realm="enrollment"'
FOREIGN = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}


def bearing(token: str) -> dict[str, str]:
    """Give the header that brings a token."""
    return {"authorization": f"Bearer {token}"}


def made(db: pw.Database, *scopes: tokens.Scope) -> str:
    """Make a token."""
    return tokens.create_token(db, "x", scopes)


def run(path: Path, *args: str) -> str:
    """Run `token` as a process of its own, and give what it prints."""
    command = [sys.executable, "-m", "service", "token", args[0], "--database-url", str(path), *args[1:]]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def within_a_second(ask: Callable[[], int], status: int) -> bool:
    """Ask again and again until the status comes; tell whether it came within a second, or not much later."""
    until = time.monotonic() + 2
    while (found := ask()) != status and time.monotonic() < until:
        time.sleep(0.02)
    return found == status


@pytest.fixture
def app(db: pw.Database, path: Path) -> Iterator[TestClient]:
    """Give a client of the small school's app as `serve` makes it with AUTH=tokens."""
    open_school(db)
    settings = Settings(database_url=str(path), auth="tokens")
    with DeclaringClient(create_app(settings, check_origins=True, check_tokens=True), "http://127.0.0.1") as client:
        yield client


# Refusals


@pytest.mark.parametrize("header", [None, "", "Basic YTpi", "Bearer", "Token abc", "abc"])
def test_without_a_token(app: TestClient, header: str | None) -> None:
    """A request without a token is told how to bring one, and nothing of an error (RFC 6750, section 3.1)."""
    answer = app.get("/students", headers={} if header is None else {"authorization": header})
    assert refusal(answer) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == CHALLENGE
    assert app.head("/students").headers["www-authenticate"] == CHALLENGE


@pytest.mark.parametrize("why", [MISTYPED, UNKNOWN, REVOKED, EXPIRED, REPLACED])
def test_with_a_token_that_does_not_count(app: TestClient, db: pw.Database, why: str) -> None:
    """A token that does not count is told why, in the header and the body, and never shown."""
    token = made(db, "admin")
    token_id = token[4:12]
    if why == UNKNOWN:
        db.execute_sql("UPDATE api_tokens SET id = 'another0'")
    if why == REVOKED:
        tokens.revoke_token(db, token_id)
    if why == EXPIRED:
        db.execute_sql("UPDATE api_tokens SET expires_at = '2026-01-01T00:00:00.000Z'")
    if why == REPLACED:
        tokens.rotate_token(db, token_id)
    answer = app.get("/students", headers=bearing(token[:-1] if why == MISTYPED else token))
    assert refusal(answer) == (401, "invalid_token")
    assert answer.headers["www-authenticate"] == f'{CHALLENGE}, error="invalid_token", error_description="{why}"'
    assert answer.json()["detail"] == why
    assert re.fullmatch(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+", why)  # RFC 6750, section 3.
    assert token[13:-7] not in str(answer.headers) + answer.text
    assert re.search("old|mistyped|ever|revoked|expired|replaced", why)


@pytest.mark.parametrize("scope", SCOPES)
def test_each_scope_at_each_operation(app: TestClient, db: pw.Database, scope: tokens.Scope) -> None:
    """An operation runs for the scopes that have its right; for others it is a 403, which names the right."""
    headers, granted = bearing(made(db, scope)), tokens.granted([scope])
    for template, method, right in OPERATIONS:
        url = re.sub(r"\{\w+(:path)?\}", "9", template)
        answer = app.request(method, url, headers=headers, json={} if method in {"POST", "PUT", "PATCH"} else None)
        if right is None or right in granted:
            assert answer.status_code not in {401, 403} or template == "/session", (method, template)
            continue
        assert refusal(answer) == (403, "insufficient_scope"), (method, template)
        assert answer.json()["scope"] == right
        challenge = f'{CHALLENGE}, error="insufficient_scope", scope="{right}"'
        assert answer.headers["www-authenticate"] == challenge
    head = app.head("/students", headers=headers)
    assert head.status_code == (200 if "read" in granted else 403)


def test_what_is_open_to_everyone(app: TestClient) -> None:
    """Health, problems, OPTIONS and what is nowhere need no token, and a token that does not count is no harm there."""
    for headers in ({}, bearing("any")):
        for url in ("/health/live", "/health/ready", "/problems/busy"):
            assert app.get(url, headers=headers).status_code == 200
        assert app.options("/students", headers=headers).status_code == 204
        assert app.get("/nothing", headers=headers).status_code == 404
        assert app.put("/students", headers=headers).status_code == 405


def test_never_a_token_in_a_url(app: TestClient, db: pw.Database) -> None:
    """A token in the query is no token, and an unknown parameter."""
    token = made(db, "admin")
    assert refusal(app.get(f"/students?access_token={token}")) == (401, "unauthorized")
    answer = app.get(f"/students?access_token={token}", headers=bearing(token))
    assert refusal(answer) == (422, "invalid_query")
    assert token not in answer.text


def test_the_scheme_is_in_any_case(app: TestClient, db: pw.Database) -> None:
    """The word Bearer is read in capitals and small letters (RFC 9110, section 11.1), with white space behind."""
    token = made(db, "read")
    for header in (f"bearer {token}", f"BEARER  {token} "):
        assert app.get("/students", headers={"authorization": header}).status_code == 200


def test_an_override_needs_its_scope(app: TestClient, db: pw.Database) -> None:
    """Past the rules is only who may enroll and override; in a bulk, each row is refused as it would be alone."""
    plain, both = bearing(made(db, "enroll")), bearing(made(db, "enroll", "override"))
    past = {"course_id": 1, "override": True}
    for body in (past, {**past, "reason": "Needs it"}):
        answer = app.post("/students/3/courses", json=body, headers=plain)
        assert refusal(answer) == (403, "insufficient_scope")
        assert answer.json()["scope"] == "override"
    rows = [{"student_id": 3, **past}, {"student_id": 3, "course_id": 9}, {"student_id": 3, **past}]
    results = app.post("/enrollments", json=rows, headers=plain).json()["results"]
    assert [row["problem"]["code"] for row in results] == [
        "insufficient_scope",
        "course_not_found",
        "insufficient_scope",
    ]
    whole = app.post("/enrollments?atomic=true", json=rows[:1], headers=plain)
    assert refusal(whole) == (409, "bulk_refused")
    assert whole.json()["errors"][0]["code"] == "insufficient_scope"
    assert app.post("/students/3/courses", json=past, headers=bearing(made(db, "override"))).status_code == 403
    assert app.get("/courses/1", headers=plain).json()["enrolled"] == 1
    assert app.post("/students/3/courses", json={**past, "override": False}, headers=plain).status_code == 409
    assert app.post("/enrollments", json=rows[:1], headers=both).json()["results"][0]["status"] == 201
    assert app.get("/courses/1", headers=plain).json()["capacity"] == 2


def test_each_write_tells_its_actor(app: TestClient, db: pw.Database) -> None:
    """Whatever enrolls or drops with a token has the token's id in its events."""
    token = made(db, "admin")
    headers, known = bearing(token), len(app.get("/events", headers=bearing(token)).json())
    app.post("/courses", json={"name": "Logic", "level": "1"}, headers=headers)
    app.post("/courses", json={"name": "Chess", "level": "1"}, headers=headers)
    app.post("/students/3/courses", json={"course_id": 2}, headers=headers)
    swap = {"drop_course_id": 2, "enroll_course_id": 3}
    assert app.post("/students/3/swap", json=swap, headers=headers).status_code == 200
    assert app.delete("/students/3/courses/3", headers=headers).status_code == 204
    app.put("/students/3/courses/2", headers=headers)
    app.post("/enrollments", json=[{"student_id": 2, "course_id": 2}], headers=headers)
    app.post("/courses/2/cancel", headers=headers)
    app.post("/students/2/withdraw", headers=headers)
    told = app.get("/events", headers=headers).json()[known:]
    assert len(told) == 9
    assert {event["actor"] for event in told} == {f"token:{token[4:12]}"}


# AUTH


@pytest.mark.parametrize(
    ("auth", "host", "without", "with_one"),
    [
        *(("auto", host, 200, 401) for host in ("127.0.0.1", "127.8.9.1", "::1", "localhost")),
        *(("auto", host, 401, 401) for host in ("0.0.0.0", "::", "192.0.2.1", "school", "", "localhost.evil.example")),  # noqa: S104
        ("tokens", "127.0.0.1", 401, 401),
        ("none", "127.0.0.1", 200, 200),
        ("none", "0.0.0.0", 200, 200),  # noqa: S104
    ],
)
def test_when_a_token_is_needed(  # noqa: PLR0913, PLR0917
    db: pw.Database, path: Path, monkeypatch: pytest.MonkeyPatch, auth: str, host: str, without: int, with_one: int
) -> None:
    """With auto, as soon as a token was ever made, one that was revoked too, or others reach the address."""
    monkeypatch.setattr(guard, "KEPT", 0)
    settings = Settings(database_url=str(path), auth=auth, host=host)
    with TestClient(create_app(settings, check_tokens=True)) as client:
        assert [client.get("/students").status_code for _ in range(2)] == [without] * 2
        token = made(db, "read")
        assert client.get("/students").status_code == with_one
        assert client.get("/students", headers=bearing(token)).status_code == 200
        tokens.revoke_token(db, token[4:12])
        assert client.get("/students").status_code == with_one


def test_once_closed_it_is_not_asked_again(db: pw.Database, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While no token is there, one question a second goes to the database; once one is there, none."""
    asked: list[float] = []
    any_token = tokens.any_token

    def counted(db: pw.Database) -> bool:
        asked.append(time.monotonic())
        return any_token(db)

    monkeypatch.setattr(tokens, "any_token", counted)
    with TestClient(create_app(Settings(database_url=str(path)), check_tokens=True)) as client:
        began = time.monotonic()
        assert {client.get("/students").status_code for _ in range(20)} == {200}
        assert len(asked) <= 1 + (time.monotonic() - began) / guard.KEPT
        made(db, "read")
        assert within_a_second(lambda: client.get("/students").status_code, 401)
        count = len(asked)
        monkeypatch.setattr(guard, "KEPT", 0)
        assert {client.get("/students").status_code for _ in range(5)} == {401}
        assert len(asked) == count


def test_the_first_token_closes_the_door(path: Path) -> None:
    """Where nobody has needed a token, everybody needs one as soon as the first one is made over HTTP."""
    with TestClient(create_app(Settings(database_url=str(path)), check_tokens=True)) as client:
        assert client.get("/students").status_code == 200
        token = client.post("/tokens", json={"name": "office", "scopes": ["read"]}).json()["token"]
        assert refusal(client.get("/students")) == (401, "unauthorized")
        assert client.get("/students", headers=bearing(token)).status_code == 200


def test_embedded_apps_are_open(db: pw.Database, path: Path) -> None:
    """Without check_tokens and authenticate, an app asks for no token unless AUTH says so, and has no sessions."""
    token = made(db, "read")
    with DeclaringClient(create_app(Settings(database_url=str(path)))) as client:
        assert client.post("/students", json={"name": "Ada"}, headers=bearing("any")).status_code == 201
        assert refusal(client.post("/session", json={"token": token})) == (404, "not_found")
        assert refusal(client.delete("/session")) == (404, "not_found")
    with DeclaringClient(create_app(Settings(database_url=str(path), auth="tokens"))) as client:
        assert refusal(client.get("/students")) == (401, "unauthorized")
        assert client.get("/students", headers=bearing(token)).status_code == 200


# Embedded


async def later(headers: Headers, scope: Scope) -> tuple[str | None, list[str]] | None:
    """Know a user by a header, as a coroutine function may."""
    assert scope["type"] == "http"
    return {"ada": ("ada", ["enroll"]), "bo": (None, ["admin"])}.get(headers.get("X-User", ""))


def at_once(headers: Headers, scope: Scope) -> tuple[str | None, list[str]] | Awaitable[Any] | None:
    """Know a user by a header, as a plain function may."""
    assert scope["type"] == "http"
    return {"ada": ("ada", ["enroll"]), "bo": (None, ["admin"])}.get(headers["x-user"]) if "x-user" in headers else None


@pytest.mark.parametrize("authenticate", [later, at_once])
def test_a_host_program_authenticates(db: pw.Database, path: Path, authenticate: Authenticate) -> None:
    """Whom the host's function knows is let in for the scopes that it gives, and is the actor; tokens do not count."""
    open_school(db)
    token = made(db, "admin")
    with DeclaringClient(create_app(Settings(database_url=str(path)), authenticate=authenticate)) as client:
        ada, bo = {"x-user": "ada"}, {"x-user": "bo"}
        for headers in ({}, bearing(token), {"x-user": "cy"}):
            assert refusal(client.get("/students", headers=headers)) == (401, "unauthorized")
        assert client.get("/health/live").status_code == 200
        assert client.get("/students", headers=ada).status_code == 200
        assert refusal(client.post("/students", json={"name": "Di"}, headers=ada)) == (403, "insufficient_scope")
        assert client.post("/courses", json={"name": "Go", "level": "1"}, headers=bo).status_code == 201
        client.post("/students/3/courses", json={"course_id": 2}, headers=ada)
        client.delete("/students/3/courses/2", headers=bo)
        told = [event["actor"] for event in client.get("/events", headers=bo).json()]
        assert told[-2:] == ["ada", None]
        assert refusal(client.post("/session", json={"token": token})) == (404, "not_found")


def test_a_text_is_no_list_of_scopes(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A host's function that gives a text as the scopes is told so, rather than that everybody lacks a scope."""
    app = create_app(Settings(database_url=str(path)), authenticate=lambda *_: ("ada", "read"))
    with TestClient(app) as client:
        assert refusal(client.get("/students")) == (500, "internal_error")
    assert "`authenticate` gives the scopes as the text 'read': it must give a list of words." in caplog.text


def test_either_the_host_or_tokens(path: Path) -> None:
    """Two who decide would be one too many."""
    with pytest.raises(ValueError, match="and not both"):
        create_app(Settings(database_url=str(path)), check_tokens=True, authenticate=at_once)
    with pytest.raises(ValueError, match="not both"):
        create_app(Settings(database_url=str(path), auth="tokens"), authenticate=at_once)


# What is remembered


def test_few_tokens_are_remembered(app: TestClient, db: pw.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tokens come, the memory for them is bounded, and each counts."""
    monkeypatch.setattr(guard, "MOST_KEPT", 3)
    many = [made(db, "read") for _ in range(10)]
    for _ in range(2):
        assert {app.get("/students", headers=bearing(token)).status_code for token in many} == {200}
        assert {app.get("/students", headers=bearing(f"{token}0")).status_code for token in many} == {401}
    gc.collect()
    assert 1 <= sum(isinstance(each, tokens.Grant) for each in gc.get_objects()) <= 3


@pytest.mark.long
def test_a_remembered_token_ends_in_time(app: TestClient, db: pw.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of a token is not good past the token's end, however long it is remembered."""
    monkeypatch.setattr(guard, "KEPT", 3600)
    lasting, short = made(db, "read"), made(db, "read")
    soon = tokens.moment(timedelta(seconds=2))
    db.execute_sql("UPDATE api_tokens SET expires_at = ? WHERE id = ?", (soon, short[4:12]))
    for token in (lasting, short):
        assert app.get("/students", headers=bearing(token)).status_code == 200
    db.execute_sql("UPDATE api_tokens SET hash = zeroblob(32)")
    assert app.get("/students", headers=bearing(lasting)).status_code == 200
    while tokens.moment() <= soon:
        time.sleep(0.05)
    assert app.get("/students", headers=bearing(short)).status_code == 401


def test_the_day_of_the_last_use(db: pw.Database, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first use on a day is noted, once; a request does not wait for that, nor fail where it cannot be noted."""
    monkeypatch.setattr(guard, "KEPT", 0)
    token = made(db, "read")
    with TestClient(create_app(Settings(database_url=str(path), busy_timeout=0), check_tokens=True)) as client:

        def is_noted() -> int:
            assert client.get("/students", headers=bearing(token)).status_code == 200
            return int(tokens.show_token(db, token[4:12]).last_used_on == tokens.moment()[:10])

        with held(path, "BEGIN IMMEDIATE"):
            assert not is_noted()
            time.sleep(0.2)
        assert not tokens.show_token(db, token[4:12]).last_used_on
        assert within_a_second(is_noted, 1)
        time.sleep(0.2)
        db.execute_sql("UPDATE api_tokens SET last_used_on = NULL")
        assert not is_noted()
        time.sleep(0.2)
        assert not is_noted()


# Pages of other sites


@pytest.mark.parametrize("host", ["127.0.0.1", "evil.example"])
def test_a_token_is_of_no_other_page(app: TestClient, db: pw.Database, host: str) -> None:
    """With a token that counts, any Host and any Origin is answered; one that does not count opens nothing."""
    headers = {"host": host, **FOREIGN}
    new = {"name": "Di"}
    assert app.post("/students", json=new, headers=headers | bearing(made(db, "write"))).status_code == 201
    assert refusal(app.post("/students", json=new, headers=headers | bearing("any"))) == (401, "invalid_token")
    basic = {**headers, "authorization": "Basic YTpi"}
    refused = refusal(app.post("/students", json=new, headers=basic))
    assert refused == ((403, "foreign_origin") if host == "127.0.0.1" else (421, "misdirected_request"))


@pytest.mark.parametrize(("auth", "status"), [("auto", 401), ("none", 421)])
def test_a_made_up_token_opens_nothing(path: Path, auth: str, status: int) -> None:
    """Where no token is needed, a page behind another name gets no further with one that it made up (DNS rebinding)."""
    settings = Settings(database_url=str(path), auth=auth)
    with TestClient(create_app(settings, check_origins=True, check_tokens=True)) as client:
        headers = {"host": "evil.example", **bearing("any")}
        assert client.get("/students", headers=headers).status_code == status
        assert client.get("/students", headers={"host": "localhost"}).status_code == 200


# Sessions of browsers


PAGE = {"sec-fetch-site": "same-origin"}


def test_a_session_from_first_to_last(app: TestClient, db: pw.Database) -> None:
    """With the cookie a browser may what the token may, until the session is closed; then its cookie is of no use."""
    token = made(db, "enroll")
    begun = app.post("/session", json={"token": token}, headers=PAGE)
    assert begun.status_code == 200
    shown = begun.json()
    actor = f"token:{token[4:12]}"
    assert (shown["actor"], shown["name"], shown["scopes"]) == (actor, "x", ["enroll", "read"])
    cookie = begun.headers["set-cookie"]
    found = re.fullmatch(r"enrollment=([\w-]{43}); Path=/; Max-Age=43200; HttpOnly; SameSite=Strict", cookie)
    assert found
    assert token not in begun.text + cookie
    assert app.cookies["enrollment"] == found[1]
    assert app.get("/students").status_code == 200
    assert refusal(app.post("/students", json={"name": "Di"}, headers=PAGE)) == (403, "insufficient_scope")
    assert app.delete("/students/1/courses/1", headers=PAGE).status_code == 204
    assert app.get("/events").json()[-2]["actor"] == actor
    ended = app.delete("/session", headers=PAGE)
    assert (ended.status_code, ended.content) == (204, b"")
    assert "enrollment=; Path=/; Max-Age=0; HttpOnly" in ended.headers["set-cookie"]
    assert "enrollment" not in app.cookies
    assert refusal(app.get("/students", headers={"cookie": f"a=b; enrollment={found[1]}"})) == (401, "unauthorized")
    assert app.delete("/session", headers=PAGE).status_code == 204


@pytest.mark.parametrize(
    ("headers", "may"),
    [
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1"}, True),
        ({"origin": "http://127.0.0.1"}, True),
        ({"origin": "http://127.0.0.1:80"}, True),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site", "origin": "http://127.0.0.1"}, False),
        ({"origin": "http://127.0.0.1:8001"}, False),
        ({"origin": "http://localhost"}, False),
        ({"origin": "null"}, False),
        ({}, False),
    ],
)
def test_a_session_writes_from_its_own_page(
    app: TestClient, db: pw.Database, headers: dict[str, str], may: bool
) -> None:
    """By cookie only a page of the service itself may write; to read, each may that the browser lets."""
    app.post("/session", json={"token": made(db, "write")})
    assert app.get("/students").status_code == 200
    answer = app.post("/students", json={"name": "Di"}, headers=headers)
    if may:
        assert answer.status_code == 201
    else:
        assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
        assert headers or "(the request does not say which)" in answer.json()["detail"]
    assert len(app.get("/students").json()) == 3 + may


def test_a_session_behind_https(db: pw.Database, path: Path) -> None:
    """Where PUBLIC_URL is https, the cookie is Secure and bound to its host, and pages from there may write."""
    public = "https://school.example.org/enrollment"
    settings = Settings(database_url=str(path), auth="tokens", public_url=public)
    with TestClient(create_app(settings, check_origins=True, check_tokens=True), "http://127.0.0.1") as client:
        begun = client.post("/session", json={"token": made(db, "write")})
        cookie = begun.headers["set-cookie"]
        end = "; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict; Secure"
        assert cookie.startswith("__Host-enrollment=")
        assert cookie.endswith(end)
        value = cookie.removeprefix("__Host-enrollment=").removesuffix(end)
        sent = {"cookie": f"__Host-enrollment={value}", "origin": "https://school.example.org"}
        assert client.post("/students", json={"name": "Ada"}, headers=sent).status_code == 201
        assert client.get("/students", headers={"cookie": f"enrollment={value}"}).status_code == 401


def test_no_session_without_a_token_that_counts(app: TestClient, db: pw.Database) -> None:
    """What begins a session is a token that counts, in a JSON body: no other site can send that through a browser."""
    revoked = made(db, "admin")
    tokens.revoke_token(db, revoked[4:12])
    for token in ("", "any", revoked):
        answer = app.post("/session", json={"token": token})
        assert refusal(answer) == (401, "invalid_token")
        assert "set-cookie" not in answer.headers
    for body in ({}, {"token": 1}, {"token": None}, {"token": "any", "more": 1}):
        assert app.post("/session", json=body).status_code == 422
    text = {"content-type": "text/plain"}
    assert app.post("/session", content=b'{"token": "any"}', headers=text).status_code == 415
    assert app.post("/session", content=b"token=any", headers=JSON).status_code == 400


@pytest.mark.parametrize("way", ["revoke", "rotate"])
def test_a_session_ends_with_its_token(
    app: TestClient, db: pw.Database, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Who revokes or rotates a token ends the sessions that were begun with it."""
    monkeypatch.setattr(guard, "KEPT", 0)
    token = made(db, "read")
    app.post("/session", json={"token": token})
    assert app.get("/students").status_code == 200
    tokens.revoke_token(db, token[4:12]) if way == "revoke" else tokens.rotate_token(db, token[4:12])
    assert refusal(app.get("/students")) == (401, "unauthorized")


def test_a_token_counts_before_a_session(app: TestClient, db: pw.Database) -> None:
    """A request with a token that does not count is refused, though it brings a session too."""
    app.post("/session", json={"token": made(db, "read")})
    assert refusal(app.get("/students", headers=bearing("any"))) == (401, "invalid_token")


# Servers


@pytest.mark.long
def test_a_running_server_heeds_the_commands(serve: Callable[..., Server], path: Path) -> None:
    """A server that is open closes within a second of the first token; revocation and rotation count so soon, too."""
    url = f"{serve().url}/students"

    def status(token: str = "") -> int:
        return httpx2.get(url, headers=bearing(token) if token else {}).status_code

    assert status() == 200
    first = run(path, "create", "--name", "a", "--scope", "read")
    assert within_a_second(status, 401)
    assert status(first) == 200
    second = run(path, "create", "--name", "b", "--scope", "read")
    assert status(second) == 200
    run(path, "revoke", first[4:12])
    assert within_a_second(lambda: status(first), 401)
    assert status(second) == 200
    third = run(path, "rotate", second[4:12], "--grace", "1h")
    assert [status(second), status(third)] == [200, 200]
    fourth = run(path, "rotate", second[4:12])
    assert within_a_second(lambda: status(third), 401)
    assert [status(second), status(fourth)] == [401, 200]
    assert status() == 401


def has_ipv6() -> bool:
    """Tell whether this machine has IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.long
@pytest.mark.parametrize("auth", ["auto", "tokens"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104
def test_no_server_that_nobody_may_use(path: Path, host: str, auth: str) -> None:
    """Where others reach the address, `serve` without a token ends with the command that mends it; then it serves."""
    if host == "::" and not has_ipv6():
        pytest.skip("This machine has no IPv6.")
    environ = {"AUTH": auth, "HOST": host, "DATABASE_URL": str(path), "PORT": "0"}
    ended = subprocess.run(
        [sys.executable, "-m", "service", "serve", "--migrate"],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    command = re.search(r"python (-m service token create .*)", ended.stderr)
    assert command
    made = subprocess.run([sys.executable, *command[1].split()], cwd=ROOT, check=True, capture_output=True, text=True)
    with serving(**environ) as server:
        assert server.line.endswith(f'- try: curl -H "Authorization: Bearer TOKEN" {server.url}/students\n')
        url = server.url.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")  # noqa: S104
        assert httpx2.get(f"{url}/students").status_code == 401
        assert httpx2.get(f"{url}/students", headers=bearing(made.stdout.strip())).status_code == 200


@pytest.mark.parametrize(
    ("environ", "said", "status"),
    [
        ({}, " to every program of this machine, without a token (AUTH=auto) - try: curl http", 200),
        ({"AUTH": "auto"}, " to every program of this machine, without a token (AUTH=auto) - try: curl http", 200),
        ({"AUTH": "none"}, " to everyone, without a token (AUTH=none) - try: curl http", 200),
        ({"AUTH": "none", "HOST": "0.0.0.0"}, " to everyone, without a token (AUTH=none) - try: curl http", 200),  # noqa: S104
        ({"AUTH": "tokens"}, ' - try: curl -H "Authorization: Bearer TOKEN" http', 401),
    ],
)
def test_the_start_line_says_who_needs_no_token(
    serve: Callable[..., Server], environ: dict[str, str], said: str, status: int
) -> None:
    """Whoever starts the server reads at once whether it is open; with AUTH=tokens it waits for its first token."""
    server = serve(**environ)
    assert f"{server.url}{said}" in server.line
    assert httpx2.get(f"{server.url.replace('0.0.0.0', '127.0.0.1')}/students").status_code == status  # noqa: S104


def test_a_bad_auth(path: Path) -> None:
    """Another word for AUTH is a usage error."""
    ended = CliRunner().invoke(cli, ["serve"], env={"AUTH": "off", "DATABASE_URL": str(path)})
    assert ended.exit_code == 2
    assert "AUTH='off' is not valid: 'auth' must be in ('auto', 'tokens', 'none')" in ended.output


@contextmanager
def logging(path: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Run a server with all it prints in one pipe, and give its URL."""
    command = [sys.executable, "-m", "service", "serve", "--port", "0", "--database-url", str(path)]
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={"AUTH": "tokens"}
    ) as process:
        try:
            assert process.stdout
            found = re.search(r"at (http://\S+)", process.stdout.readline())
            assert found
            yield found[1], process
        finally:
            process.kill()


def test_no_token_in_the_log(db: pw.Database, path: Path) -> None:
    """Whatever is sent with a token, what the server prints has neither the token nor the cookie of a session."""
    token = made(db, "admin")
    with logging(path) as (url, process):
        begun = httpx2.post(f"{url}/session", json={"token": token})
        httpx2.get(f"{url}/students?access_token={token}", headers=bearing(token))
        httpx2.get(f"{url}/{token}")
        httpx2.get(f"{url}/students", headers=bearing(token[:-1]))
        httpx2.post(f"{url}/students", content=token, headers=bearing(token))
        host, port = url.removeprefix("http://").split(":")
        for request in (
            "GET / HTTP/1.1\r\nAuthorization: Bearer {}\x00\r\n\r\n",
            "{}\r\n\r\n",
            "GET /{} HTTP/9\r\n\r\n",
        ):
            with socket.create_connection((host, int(port))) as raw:
                raw.sendall(request.format(token).encode())
                assert raw.recv(99)
        path.rename(path.with_name("gone.db"))
        assert httpx2.get(f"{url}/students", headers=bearing(token)).status_code == 503
        process.terminate()
        said = process.communicate(timeout=20)[0]
    assert token[13:-6] not in said
    assert begun.headers["set-cookie"][11:54] not in said


# Tokens over HTTP


def test_tokens_over_http(app: TestClient, db: pw.Database) -> None:
    """An administrator makes a token that works at once, sees it without its secret, rotates it, and revokes it.

    The process that does it heeds it at once.
    """
    admin = bearing(made(db, "admin"))
    answer = app.post("/tokens", json={"name": "Büro", "scopes": ["enroll", "enroll"]}, headers=admin)
    assert answer.status_code == 201
    record = answer.json()
    token, path = record.pop("token"), answer.headers["location"]
    assert (record["name"], record["scopes"], record["state"], record["last_used_on"]) == (
        *("Büro", ["enroll"], "active"),
        None,
    )
    assert app.get(path, headers=admin).json() == record
    assert record in app.get("/tokens", headers=admin).json()
    assert app.get("/students", headers=bearing(token)).status_code == 200
    assert refusal(app.get("/tokens", headers=bearing(token))) == (403, "insufficient_scope")
    rotated = app.post(f"{path}/rotate", json={"grace_hours": 1}, headers=admin).json()
    for each in (token, rotated["token"]):
        assert app.get("/students", headers=bearing(each)).status_code == 200
    last = app.post(f"{path}/rotate", headers=admin).json()["token"]
    assert refusal(app.get("/students", headers=bearing(rotated["token"]))) == (401, "invalid_token")
    assert app.get("/students", headers=bearing(last)).status_code == 200
    for _ in range(2):
        assert app.delete(path, headers=admin).status_code == 204
        assert refusal(app.get("/students", headers=bearing(last))) == (401, "invalid_token")
    assert app.get(path, headers=admin).json()["state"] == "revoked"
    assert refusal(app.post(f"{path}/rotate", headers=admin)) == (409, "token_ended")
    shown = app.get("/tokens", headers=admin).text
    assert token not in shown
    assert token[13:] not in shown


@pytest.mark.parametrize(
    "payload",
    [
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["all"]},
        {"name": "x", "scopes": "read"},
        {"name": "x", "scopes": [["read"]]},
        {"name": "", "scopes": ["read"]},
        {"name": "x", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"},
        {"name": "x", "scopes": ["read"], "expires_at": "tomorrow"},
        {"name": "x"},
    ],
)
def test_no_token_is_made_of(app: TestClient, db: pw.Database, payload: Any) -> None:
    """A token needs a name, scopes that there are, and a moment to come if it has one; else none is made."""
    answer = app.post("/tokens", json=payload, headers=bearing(made(db, "admin")))
    assert refusal(answer) == (422, "invalid_payload")
    assert len(tokens.list_tokens(db)) == 1


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ("2999-01-01T01:00:00+01:00", "2999-01-01T00:00:00.000Z"),
        ("2999-01-01T00:00:00.0009Z", "2999-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
        (None, None),
    ],
)
def test_a_token_expires_when_it_was_asked_to(
    app: TestClient, db: pw.Database, asked: str | None, kept: str | None
) -> None:
    """The moment may be in any zone; it is kept in UTC, to the millisecond, and the token counts until then."""
    payload = {"name": "x", "scopes": ["read"], "expires_at": asked}
    answer = app.post("/tokens", json=payload, headers=bearing(made(db, "admin")))
    assert (answer.status_code, answer.json()["expires_at"]) == (201, kept)
    assert app.get("/session", headers=bearing(answer.json()["token"])).json()["ends_at"] == kept


@pytest.mark.parametrize("token_id", ["nobody00", "x", "%00", "%ff", "enr_nobody0", "a" * 1000])
def test_no_such_token(app: TestClient, db: pw.Database, token_id: str) -> None:
    """What is nobody's id, or no id at all, is not found."""
    admin = bearing(made(db, "admin"))
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/rotate")):
        answer = app.request(method, f"/tokens/{token_id}{path}", headers=admin)
        assert refusal(answer) == (404, "token_not_found")


def test_who_asks(app: TestClient, db: pw.Database, client: TestClient) -> None:
    """GET /session tells who asks, what for and until when; where it is open, everybody may do everything."""
    assert refusal(app.get("/session")) == (401, "unauthorized")
    token = tokens.create_token(db, "office", ["enroll"], tokens.moment(timedelta(hours=1)))
    told = app.get("/session", headers=bearing(token)).json()
    record = tokens.show_token(db, token[4:12])
    assert told == {
        "actor": f"token:{record.id}",
        "name": "office",
        "scopes": ["enroll", "read"],
        "ends_at": record.expires_at,
    }
    assert app.post("/session", json={"token": token}).json() == told
    assert app.get("/session").json() == told
    everybody = {"actor": None, "name": None, "scopes": sorted(SCOPES), "ends_at": None}
    assert client.get("/session").json() == everybody
