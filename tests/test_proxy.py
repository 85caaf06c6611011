"""The path that a proxy strips in front of the service: what the service says of itself leads through the proxy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner
from conftest import Server

from service import Settings
from service.__main__ import cli


@pytest.mark.parametrize(
    ("options", "environ"),
    [
        ([], {"ROOT_PATH": "/campus/enrollment"}),
        (["--root-path", "/campus/enrollment"], {"ROOT_PATH": "/other"}),
    ],
)
def test_urls_lead_through_the_proxy(serve: Callable[..., Server], options: list[str], environ: dict[str, str]) -> None:
    """Location, Link and type begin with the path that the proxy strips, and lead where they say."""
    with httpx2.Client(base_url=serve(*options, **environ).url) as client:

        def ask(method: str, url: str, **body: Any) -> httpx2.Response:
            assert url.startswith("/campus/enrollment/")
            return client.request(method, url.removeprefix("/campus/enrollment"), **body)

        for name in ("Ada", "Grace"):
            added = ask("POST", "/campus/enrollment/students", json={"name": name})
            assert ask("GET", added.headers["location"]).json() == added.json()
        page = ask("GET", "/campus/enrollment/students?limit=1")
        assert ask("GET", page.links["next"]["url"]).json() == [added.json()]
        for path, code in ("students/9", "student_not_found"), ("nowhere", "not_found"):
            problem = ask("GET", f"/campus/enrollment/{path}").json()
            assert ask("GET", problem["type"]).json()["code"] == problem["code"] == code
        assert client.get("/campus/enrollment/students").status_code == 404


@pytest.mark.parametrize("value", ["", "/a", "/a/B.c~d_e-1"])
def test_root_path(value: str) -> None:
    """A root path is empty, or a path of plain characters that begins with a slash and does not end with one."""
    assert Settings(root_path=value).root_path == value


@pytest.mark.parametrize("value", ["/", "a", "/a/", "//a", "/a//b", "/a b", "/a%20b", "/é", "/a?b", "/a#b", "/a\n"])
def test_what_is_no_root_path(tmp_path: Path, value: str) -> None:
    """Anything else is a usage error, as an option and in the environment."""
    for args, environ in (["--root-path", value], {}), ([], {"ROOT_PATH": value}):
        command = ["serve", "--database-url", str(tmp_path / "none.db"), *args]
        result = CliRunner().invoke(cli, command, env={"ROOT_PATH": None, **environ})
        assert result.exit_code == 2
        assert "'root_path' must begin with / and not end so" in result.output
