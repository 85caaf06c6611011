"""On an event loop that is not asyncio's the service says so, in one sentence."""

from pathlib import Path
from typing import Any

import pytest
from answers import refusal
from starlette.testclient import TestClient

from service import Settings, create_app

ONLY = "The service runs on asyncio only, and not on another event loop such as trio's: run it on asyncio."


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("GET", "/students", None),
        ("GET", "/students/1/courses", None),
        ("GET", "/health/ready", None),
        ("POST", "/students", {"name": "Ada"}),
        ("PUT", "/students/1/courses/1", None),
        ("DELETE", "/students/1", None),
        ("POST", "/enrollments", [{"student_id": 1, "course_id": 1}]),
        ("POST", "/enrollments?atomic=true", [{"student_id": 1, "course_id": 1}]),
    ],
)
def test_trio_is_refused_in_one_sentence(
    path: Path, caplog: pytest.LogCaptureFixture, method: str, url: str, body: Any
) -> None:
    """Reads and writes alike say in their answer and in the log what is wrong, and the app still starts and ends."""
    with TestClient(create_app(Settings(database_url=str(path))), backend="trio") as client:
        answer = client.request(method, url, json=body)
        assert refusal(answer) == (500, "internal_error")
        assert answer.json()["detail"] == ONLY
        assert client.get("/health/live").status_code == 200
    (line,) = caplog.records
    assert (line.levelname, line.getMessage(), line.exc_info) == ("ERROR", ONLY, None)
    with TestClient(create_app(Settings(database_url=str(path)))) as client:
        assert client.get("/students").json() == []
