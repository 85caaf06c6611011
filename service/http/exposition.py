"""Show what was counted in the text format of Prometheus, version 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

import platform
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from service.errors import ServiceError
from service.events import newest_event
from service.http.answers import PlainText, Text, text
from service.http.calls import Call
from service.http.metrics import Metrics
from service.storage.measured import Histogram, Measured
from service.version import __version__

TYPE = "text/plain; version=0.0.4; charset=utf-8"

FAMILIES = {
    "enrollment_build_info": ("gauge", "The versions of the service, of Python and of SQLite, as labels; always 1."),
    "enrollment_http_requests_total": ("counter", "Requests answered, by method, path of the API and status."),
    "enrollment_http_request_seconds": ("histogram", "Seconds until an answer was known, by method, path and status."),
    "enrollment_refusals_total": ("counter", "Requests refused, by the code of the problem."),
    "enrollment_http_connections": ("gauge", "Connections that are open."),
    "enrollment_writes_waiting": ("gauge", "Writes that wait for the writer thread."),
    "enrollment_write_group_size": ("histogram", "Writes that share a commit."),
    "enrollment_commit_seconds": ("histogram", "Seconds of a commit, with its sync to the disk."),
    "enrollment_checkpoint_seconds": ("histogram", "Seconds of what copied the -wal to the database, commits too."),
    "enrollment_wal_bytes": ("gauge", "Size of the -wal."),
    "enrollment_newest_event_id": ("gauge", "The id of the newest event; 0 if there is none."),
}
"""Each metric with its type and what it tells."""

Labels = Mapping[str, str]
Samples = Iterator[tuple[str, Labels, float]]


async def show_metrics(call: Call) -> Text[PlainText]:
    """Show what Prometheus scrapes: requests, refusals, commits, and how much waits."""
    try:
        newest: int | None = await call.store.read(newest_event)
    except ServiceError:  # Where the database cannot be used, the counts tell more than a refusal would.
        newest = None
    return text(_page(call.metrics, call.store.measured(), newest), TYPE)


def _page(metrics: Metrics, measured: Measured, newest: int | None) -> str:
    samples = {
        "enrollment_build_info": _one(
            1, version=__version__, python=platform.python_version(), sqlite=sqlite3.sqlite_version
        ),
        "enrollment_http_requests_total": _requests(metrics),
        "enrollment_http_request_seconds": _latencies(metrics),
        "enrollment_refusals_total": (("", {"code": code}, count) for code, count in metrics.refusals.items()),
        "enrollment_http_connections": _one(None if metrics.connections is None else len(metrics.connections)),
        "enrollment_writes_waiting": _one(measured.waiting),
        "enrollment_write_group_size": _histogram(measured.groups),
        "enrollment_commit_seconds": _histogram(measured.commits),
        "enrollment_checkpoint_seconds": _histogram(measured.checkpoints),
        "enrollment_wal_bytes": _one(measured.log_bytes),
        "enrollment_newest_event_id": _one(newest),
    }
    return "".join(_family(name, samples[name]) for name in FAMILIES)


def _family(name: str, samples: Samples) -> str:
    kind, says = FAMILIES[name]
    lines = [f"# HELP {name} {says}", f"# TYPE {name} {kind}"]
    for end, labels, value in samples:
        # No label has a quote, a backslash or a line break in it: they are paths of the API, codes and versions.
        shown = ",".join(f'{label}="{text}"' for label, text in labels.items())
        lines.append(f"{name}{end}{{{shown}}} {value!r}" if shown else f"{name}{end} {value!r}")
    return "\n".join(lines) + "\n"


def _one(value: float | None, **labels: str) -> Samples:
    if value is not None:
        yield "", labels, value


def _requests(metrics: Metrics) -> Samples:
    for labels, each in _by_operation(metrics):
        yield "", labels, sum(each.counts)


def _latencies(metrics: Metrics) -> Samples:
    for labels, each in _by_operation(metrics):
        yield from _histogram(each, labels)


def _by_operation(metrics: Metrics) -> Iterator[tuple[Labels, Histogram]]:
    for (method, path, status), each in metrics.requests.items():
        yield {"method": method, "path": path, "status": str(status)}, each


def _histogram(histogram: Histogram, labels: Labels | None = None) -> Samples:
    """Give the samples of a histogram: each bucket counts what is in the smaller ones too."""
    given = labels or {}
    counts: Sequence[int] = [*accumulate(histogram.counts)]
    for bound, count in zip([*map(repr, histogram.bounds), "+Inf"], counts, strict=True):
        yield "_bucket", {**given, "le": bound}, count
    yield "_sum", given, histogram.sum
    yield "_count", given, counts[-1]
