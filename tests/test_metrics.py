"""GET /metrics: what is counted, in the format that Prometheus' own parser reads."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from conftest import Server
from programs import is_file, lost
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from stores import wal

from service import Settings, connect, create_app
from service.courses import insert_course
from service.http.connections import Connections
from service.http.exposition import FAMILIES, TYPE
from service.http.metrics import ELSEWHERE
from service.http.problems import PROBLEMS
from service.storage.measured import Histogram
from service.students import insert_student
from service.tokens import create_token

pytestmark = pytest.mark.both

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(answer: httpx2.Response) -> Samples:
    """Give the samples of an answer by name and labels, once Prometheus' parser has read them."""
    assert (answer.status_code, answer.headers["content-type"]) == (200, TYPE)
    families = [*text_string_to_metric_families(answer.text)]
    # The parser names a counter without its end.
    assert {f"{each.name}_total" if each.type == "counter" else each.name: each.type for each in families} == {
        name: kind for name, (kind, _) in FAMILIES.items()
    }
    assert all(each.documentation for each in families)
    return {(each.name, tuple(sorted(each.labels.items()))): each.value for one in families for each in one.samples}


def of(samples: Samples, name: str, **labels: str) -> float:
    """Give the value of one sample."""
    return samples[f"enrollment_{name}", tuple(sorted(labels.items()))]


def test_what_is_counted(serve: Callable[..., Server], path: Path | str) -> None:
    """A server counts requests by operation and status, refusals by code, commits, and what there is."""
    with connect(path) as db:
        insert_student(db, "Ada")
        insert_course(db, "Logic", "1")
        tokens = {scope: create_token(db, scope, [scope]) for scope in ("metrics", "admin")}
    who = {scope: {"authorization": f"Bearer {token}"} for scope, token in tokens.items()}
    schedule, course = "/students/{student_id}/courses", "/students/1/courses"
    with httpx2.Client(base_url=serve(AUTH="tokens").url) as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers=who["metrics"]).status_code == 200
        assert client.get(course, headers=who["metrics"]).status_code == 403
        for _ in range(2):
            client.post(course, json={"course_id": 1}, headers=who["admin"])
        for _ in range(3):
            client.get(course, headers=who["admin"])
        client.get("/students/by-external-id/a/b", headers=who["admin"])
        for method, url, host in (
            ("GET", "/nothing", "localhost"),
            ("TRACE", "/students", "localhost"),
            ("GET", "/students", "evil.example"),
        ):
            client.request(method, url, headers={"host": host})
        twice = [("host", "a"), ("content-type", "a/b"), ("content-type", "a/b")]
        assert client.get("/", headers=twice).status_code == 400
        found = scraped(client.get("/metrics", headers=who["metrics"]))
    assert of(found, "http_requests_total", method="POST", path=schedule, status="201") == 1
    assert of(found, "http_requests_total", method="POST", path=schedule, status="409") == 1
    assert of(found, "http_requests_total", method="GET", path=schedule, status="200") == 3
    assert of(found, "http_requests_total", method="GET", path=ELSEWHERE, status="404") == 1
    assert of(found, "http_requests_total", method=ELSEWHERE, path="/students", status="405") == 1
    assert of(found, "http_requests_total", method="GET", path="/students/by-external-id/{external_id}", status="404")
    for status, count in ("200", 3), ("403", 1):
        asked = {"method": "GET", "path": schedule, "status": status}
        assert of(found, "http_request_seconds_count", **asked) == count
        assert 0 < of(found, "http_request_seconds_sum", **asked) < 5
        assert of(found, "http_request_seconds_bucket", **asked, le="+Inf") == count
    buckets = [
        value for (name, labels), value in found.items() if name.endswith("_bucket") and ("path", schedule) in labels
    ]
    assert len(buckets) == 4 * 17
    refusals = {dict(labels)["code"]: value for (name, labels), value in found.items() if "refusals" in name}
    assert refusals.keys() == PROBLEMS.keys()
    assert {code for code, count in refusals.items() if count} >= {
        *("unauthorized", "insufficient_scope", "already_enrolled", "not_found", "method_not_allowed"),
        *("misdirected_request", "student_not_found", "bad_request"),
    }
    assert of(found, "newest_event_id") == 1
    assert of(found, "http_connections") >= 1
    assert of(found, "writes_waiting") == 0
    assert (of(found, "wal_bytes") > 0) == is_file(path)  # PostgreSQL has its own figures of its log.
    assert of(found, "write_group_size_count") >= 2
    assert of(found, "commit_seconds_count") >= of(found, "checkpoint_seconds_count") == 0
    (info,) = (dict(labels) for (name, labels) in found if name == "enrollment_build_info")
    assert info["sqlite"] == sqlite3.sqlite_version


def test_metrics_within_a_host_program(path: Path | str) -> None:
    """Each app counts its own requests, and where another server serves, what is not known is left out."""
    apps = [create_app(Settings(database_url=str(path))) for _ in range(2)]
    with TestClient(Starlette(routes=[Mount("/a", apps[0]), Mount("/b", apps[1])])) as client:
        client.get("/a/students")
        for _ in range(2):
            assert client.request("TRACE", "/a/students").status_code == 405
        first, second = (scraped(client.get(f"/{each}/metrics")) for each in "ab")
    label = {"method": "GET", "path": "/students", "status": "200"}
    assert of(first, "http_requests_total", **label) == 1
    assert of(first, "http_requests_total", method=ELSEWHERE, path="/students", status="405") == 2
    assert ("enrollment_http_requests_total", tuple(sorted(label.items()))) not in second
    assert not [name for name, _ in first if name == "enrollment_http_connections"]


def test_metrics_without_a_database(client: TestClient, path: Path | str) -> None:
    """Where the database is gone, what was counted is still told, with the refusals."""
    client.get("/students")
    with lost(path):
        assert client.get("/students").status_code == 503
        found = scraped(client.get("/metrics"))
    assert of(found, "refusals_total", code="storage_unavailable") == 1
    assert not [name for name, _ in found if name == "enrollment_newest_event_id"]


@pytest.mark.both(False, because="only a file has checkpoints that the service waits for")
def test_a_checkpoint_is_measured(client: TestClient, path: Path) -> None:
    """A commit that copies the -wal to the database counts as a checkpoint as well."""
    client.app.state.metrics.connections = None  # type: ignore[attr-defined]
    before = os.stat(path).st_mtime_ns  # noqa: PTH116 - as the service looks.
    rows = [{"name": "x" * 200} for _ in range(3)]
    assert client.post("/students", json=rows[0]).status_code == 201
    assert of(scraped(client.get("/metrics")), "checkpoint_seconds_count") == 0
    commits = client.app.routes[0].endpoint._store._writer  # type: ignore[attr-defined]  # noqa: SLF001
    commits._db.execute_sql("PRAGMA wal_autocheckpoint = 1")  # noqa: SLF001
    assert client.post("/students", json=rows[1]).status_code == 201
    assert os.stat(path).st_mtime_ns != before  # noqa: PTH116
    assert of(scraped(client.get("/metrics")), "checkpoint_seconds_count") == 1
    assert wal(path).exists()


@pytest.mark.parametrize(("value", "bucket"), [(0.5, 0), (1, 0), (1.5, 1), (3, 2)])
def test_a_histogram(value: float, bucket: int) -> None:
    """A value is in the first bucket whose bound is not below it."""
    histogram = Histogram((1, 2))
    histogram.observe(value)
    assert (histogram.counts[bucket], sum(histogram.counts), histogram.sum) == (1, 1, value)


@pytest.mark.both(False, because="connections are of HTTP alone")
def test_connections_are_counted(client: TestClient) -> None:
    """The gauge of the connections is how many the server has open now."""
    Connections(Settings(), 10, client.app.state.metrics)  # type: ignore[attr-defined]
    assert of(scraped(client.get("/metrics")), "http_connections") == 0
