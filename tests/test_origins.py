"""Strangers in the browser: the service answers to its own names, and pages of other sites change nothing."""

import re
import socket
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from answers import refusal
from click.testing import CliRunner
from conftest import Server
from starlette.testclient import TestClient

from service import Settings, create_app
from service.__main__ import cli
from service.http.origins import LONGEST
from service.http.problems import PROBLEMS

NAMES = "school.example.org, *.Example.NET.,"


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a database file for all tests of this module, which write hardly anything."""
    return tmp_path_factory.mktemp("origins") / "school.db"


@pytest.fixture(scope="module")
def app(paths: Path) -> TestClient:
    """Give a client of the application as `serve` makes it, with names and a public URL."""
    settings = Settings(
        database_url=str(paths),
        allowed_hosts=NAMES,
        public_url="https://public.example.org/enrollment",
    )
    return TestClient(create_app(settings, migrate=True, check_origins=True))


OURS = [
    *(
        "localhost",
        "localhost:8000",
        "LocalHost.",
        "localhost.:80",
        "desk.localhost",
        "a.b.localhost:1",
        "localhost:",
        "school",
        "x:8000",
    ),
    *(
        "127.0.0.1",
        "127.0.0.1:8000",
        "10.1.2.3",
        "127.0.0.1.",
        "[::1]",
        "[::1]:8000",
        "[2001:db8::A]",
        "[::ffff:1.2.3.4]",
    ),
    *("school.example.org", "SCHOOL.example.org.:443", "a.example.net", "b.a.example.net:8080"),
]
OTHERS = [
    *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", ""),
    *("example.org", "a.school.example.org", "example.net", "evilexample.net", "school.example.org.evil.example"),
    *("localhost@evil.example", "localhost:80@evil.example", "localhost:80:80", "localhost/", "localhost, localhost"),
    *("::1", "[127.0.0.1]", "[::1", "::1]", "[evil.example]", "[::1]evil.example", "127.1", "0x7f.0.0.1", "2130706433"),
    *(
        "1.2.3.4.5",
        "256.0.0.1",
        "*.localhost",
        "*.example.net",
        "public.example.org",
        "localhost:http",
        "localhost..",
        ".",
    ),
]


@pytest.mark.parametrize("host", OURS)
def test_own_names_are_answered(app: TestClient, host: str) -> None:
    """Names of loopback, IP addresses and the names of the setting are the service's, whatever port they come with."""
    for method, url, status in ("GET", "/students", 200), ("POST", "/students", 415), ("GET", "/nothing", 404):
        assert app.request(method, url, headers={"host": host}).status_code == status


@pytest.mark.parametrize("host", OTHERS)
def test_other_names_are_refused(app: TestClient, host: str) -> None:
    """Any other name is refused for every method and path, at the first request and at the next, with the setting."""
    for method, url in ("GET", "/students"), ("OPTIONS", "/students"), ("PUT", "/students/1/courses/1"), ("GET", "/x"):
        answer = app.request(method, url, headers={"host": host})
        assert refusal(answer) == (421, "misdirected_request")
        assert repr(host) in answer.json()["detail"]
        assert "ALLOWED_HOSTS" in answer.json()["detail"]
        assert app.head(url, headers={"host": host}).content == b""


def test_a_long_name(app: TestClient) -> None:
    """A name as long as DNS has them is answered; a longer one is refused, and does not come back whole."""
    assert app.get("/students", headers={"host": f"{'a' * 240}.example.net.:65535"}).status_code == 200
    answer = app.get("/students", headers={"host": f"{'a' * 5000}.example.net"})
    assert refusal(answer) == (421, "misdirected_request")
    assert f"'{'a' * LONGEST}'" in answer.json()["detail"]


def test_more_than_one_host(app: TestClient) -> None:
    """A request with several hosts is answered only if each of them is the service's."""
    for hosts, status in (["localhost", "localhost:80"], 200), (["localhost", "evil.example"], 421):
        for each in (hosts, hosts[::-1]):
            assert app.get("/students", headers=[("host", host) for host in each]).status_code == status


@pytest.mark.long
def test_many_names(app: TestClient) -> None:
    """More names than are remembered are all judged as the first one was."""
    for number in range(200):
        assert app.get("/health/live", headers={"host": f"h{number}.localhost"}).status_code == 200
        assert app.get("/health/live", headers={"host": f"h{number}.example"}).status_code == 421


def test_without_a_setting_no_name_is_added(paths: Path, app: TestClient) -> None:
    """By default no name with a dot is answered, and only pages of the request's own host may write."""
    assert app.get("/students", headers={"host": "test.server"}).status_code == 421
    client = TestClient(create_app(Settings(database_url=str(paths)), check_origins=True))
    for host, status in ("localhost", 200), ("10.1.2.3", 200), ("school.example.org", 421), ("a.example.net", 421):
        assert client.get("/students", headers={"host": host}).status_code == status
    for origin, status in ("null", 403), ("", 403), ("https://public.example.org", 403), ("http://localhost", 415):
        assert client.post("/students", headers={"host": "localhost", "origin": origin}).status_code == status


def test_an_embedded_application_leaves_both_to_its_host(client: TestClient) -> None:
    """Whatever Host and Origin say, an application that a host program has made answers."""
    for headers in {"host": "evil.example"}, {"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}:
        assert client.post("/students", json={"name": "Ada"}, headers=headers).status_code == 201


# Pages of other sites


SELF = "localhost:8000"
OWN_PAGES: list[tuple[str, dict[str, str]]] = [
    (SELF, {}),
    (SELF, {"origin": f"http://{SELF}"}),
    (SELF, {"origin": f"https://{SELF}"}),
    ("LOCALHOST.:8000", {"origin": f"http://{SELF}"}),
    (SELF, {"origin": "HTTP://LocalHost.:8000"}),
    ("localhost", {"origin": "http://localhost"}),
    ("localhost:80", {"origin": "http://localhost"}),
    ("localhost", {"origin": "http://localhost:80"}),
    ("localhost", {"origin": "HTTP://localhost"}),
    ("localhost:443", {"origin": "https://localhost"}),
    ("[::1]:8000", {"origin": "http://[::1]:8000"}),
    ("127.0.0.1:8000", {"origin": "https://public.example.org"}),
    ("127.0.0.1:8000", {"origin": "https://Public.example.org.:443"}),
    (SELF, {"sec-fetch-site": "same-origin"}),
    (SELF, {"sec-fetch-site": "same-site"}),
    (SELF, {"sec-fetch-site": "none"}),
    (SELF, {"sec-fetch-site": "same-origin", "origin": "https://elsewhere.example.org"}),  # Behind a proxy.
]
OTHER_PAGES: list[tuple[str, dict[str, str]]] = [
    (SELF, {"sec-fetch-site": "cross-site"}),
    (SELF, {"sec-fetch-site": "cross-site", "origin": f"http://{SELF}"}),
    (SELF, {"origin": "null"}),
    (SELF, {"origin": ""}),
    (SELF, {"origin": "http://evil.example"}),
    (SELF, {"origin": "http://localhost"}),
    (SELF, {"origin": "http://localhost:8001"}),
    (SELF, {"origin": "http://127.0.0.1:8000"}),
    (SELF, {"origin": f"http://{SELF}.evil.example"}),
    (SELF, {"origin": f"http://{SELF}@evil.example"}),
    (SELF, {"origin": f"file://{SELF}"}),
    (SELF, {"origin": f"chrome-extension://{SELF}"}),
    (SELF, {"origin": SELF}),
    ("localhost:80", {"origin": "https://localhost"}),
    ("127.0.0.1:8000", {"origin": "http://public.example.org"}),
    ("127.0.0.1:8000", {"origin": "https://public.example.org:8443"}),
    ("127.0.0.1:8000", {"origin": "https://school.example.org"}),
]
UNSAFE = [
    ("POST", "/students", 415),
    ("PUT", "/students/9/courses/9", 404),
    ("PATCH", "/students/9", 415),
    ("DELETE", "/students/9", 404),
    ("BREW", "/students", 405),
    ("POST", "/nothing", 404),
]
"""Requests that would change something if they were right, and what they get from a page of the service's own."""


@pytest.mark.parametrize(("host", "headers"), OWN_PAGES)
def test_own_pages_may_write(app: TestClient, host: str, headers: dict[str, str]) -> None:
    """A page of the request's own host, or of the public URL, may write, and so may what is no page."""
    for method, url, status in UNSAFE:
        assert app.request(method, url, headers={"host": host, **headers}).status_code == status


@pytest.mark.parametrize(("host", "headers"), OTHER_PAGES)
def test_pages_of_other_sites_change_nothing(app: TestClient, host: str, headers: dict[str, str]) -> None:
    """A page of another site, of another port, or of no site gets 403 for whatever is unsafe; to read is no change."""
    for method, url, _ in UNSAFE:
        answer = app.request(method, url, headers={"host": host, **headers})
        assert refusal(answer) == (403, "foreign_origin")
        assert (headers.get("origin") or "cross-site") in answer.json()["detail"]
    for method, status in ("GET", 200), ("HEAD", 200), ("OPTIONS", 204):
        assert app.request(method, "/students", headers={"host": host, **headers}).status_code == status


def test_the_advice_names_the_settings() -> None:
    """Whoever looks a refusal up learns which setting it is about."""
    assert "ALLOWED_HOSTS" in PROBLEMS["misdirected_request"].advice
    assert "PUBLIC_URL" in PROBLEMS["foreign_origin"].advice


# Over the wire


def test_serve_looks_at_host_and_origin(serve: Callable[..., Server]) -> None:
    """The command `serve` refuses strangers, and takes its names from the environment."""
    server = serve(ALLOWED_HOSTS="school.example.org", PUBLIC_URL="https://public.example.org")
    with httpx2.Client(base_url=server.url) as client:

        def add(**headers: str) -> httpx2.Response:
            return client.post("/students", json={"name": "Ada"}, headers=headers)

        assert add().status_code == 201
        assert add(host="school.example.org").status_code == 201
        assert add(origin="https://public.example.org").status_code == 201
        assert refusal(add(host="evil.example", **{"sec-fetch-site": "same-origin"})) == (421, "misdirected_request")
        assert refusal(add(origin="null")) == (403, "foreign_origin")
        assert refusal(client.get("/students", headers={"host": "evil.example"})) == (421, "misdirected_request")
        assert len(client.get("/students").json()) == 3


def test_a_target_that_is_a_whole_url(serve: Callable[..., Server]) -> None:
    """The host of the target counts, and not the header Host: for who is answered, and for which page may write."""
    url = httpx2.URL(serve().url)
    page = "Origin: http://localhost:80\r\n"
    for request, host, header, code in (
        ("GET http://localhost/students", "evil.example", "", ""),
        ("GET http://[::1]:8000/students?limit=1", "evil.example", "", ""),
        ("GET http://evil.example/students", "localhost", "", "misdirected_request"),
        ("GET http://evil.example", "localhost", "", "misdirected_request"),
        ("GET http://evil.example?a=http://localhost/", "localhost", "", "misdirected_request"),
        ("GET http://localhost@evil.example/students", "localhost", "", "misdirected_request"),
        ("GET http://ada:secret@localhost/students", "localhost", "", "misdirected_request"),
        ("DELETE http://localhost/students/9", "school", page, "student_not_found"),
        ("DELETE http://school/students/9", "localhost", page, "foreign_origin"),
    ):
        with socket.create_connection((url.host, url.port), timeout=10) as connection:
            connection.sendall(f"{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{header}\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
            assert f'"code":"{code}"' in answer if code else answer.endswith("[]"), request


def test_odd_heads(serve: Callable[..., Server]) -> None:
    """HTTP/1.0 needs no Host, and a monitor may send none; any Origin is foreign then. No name has other letters."""
    url = httpx2.URL(serve().url)
    head = "HTTP/1.0\r\nContent-Length: 0\r\n"
    for request, status in (
        (f"GET /health/live {head}\r\n", 200),
        (f"DELETE /students/9 {head}\r\n", 404),
        (f"DELETE /students/9 {head}Origin: http://localhost\r\n\r\n", 403),
        (f"GET /health/live {head}Host: \r\n\r\n", 421),
        (f"GET /health/live {head}Host: büro.localhost\r\n\r\n", 421),
        (f"GET /health/live {head}HOST:localhost  \r\n\r\n", 200),
    ):
        with socket.create_connection((url.host, url.port), timeout=10) as connection:
            connection.sendall(request.encode())
            assert connection.recv(65536).split()[1] == str(status).encode()


# The settings


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            "allowed_hosts",
            ["", "a", "a.b-c.example.org", "a,b", " a , b ,", "*.example.org", "A.example.org.", "my_host", "10.0.0.1"],
        ),
        (
            "public_url",
            [
                *("", "https://school.example.org", "http://localhost:8000/", "https://[::1]:8443/a/B.c~d_e-1"),
                "https://school.example.org/enrollment",
            ],
        ),
    ],
)
def test_what_is_a_name_or_a_url(name: str, values: list[str]) -> None:
    """The settings take names, and a URL, in the forms that are usual."""
    for value in values:
        assert getattr(Settings.from_environ({name.upper(): value}), name) == value


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            "allowed_hosts",
            [
                *(
                    "*",
                    "*.",
                    "a.*",
                    "*a.org",
                    "a b",
                    "https://a.org",
                    "a.org:80",
                    "a/b",
                    "büro.example",
                    "[::1]",
                    "a..b",
                ),
                *(".a", "a\nb", "a;b"),
            ],
        ),
        (
            "public_url",
            [
                *("school.example.org", "/enrollment", "ftp://a.org", "https://", "https:///a", "https://a.org?b"),
                *("https://a.org#b", "https://ada@a.org", "https://a.org//b", "https://a b.org", "https://a.org/é"),
                *("https://a.org:", "https://a.org\n", "null"),
            ],
        ),
    ],
)
def test_what_is_no_name_and_no_url(tmp_path: Path, name: str, values: list[str]) -> None:
    """Anything else is a usage error, which names the variable and shows the form."""
    for value in values:
        command = ["serve", "--database-url", str(tmp_path / "none.db")]
        result = CliRunner().invoke(cli, command, env={name.upper(): value})
        assert result.exit_code == 2, value
        assert re.search(rf"{name.upper()}=.* is not valid: '{name}' must be", result.output)
