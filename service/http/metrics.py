"""Count the requests and the refusals of one application, for GET /metrics, and log each 503."""

import logging
from bisect import bisect_left
from typing import Protocol

from starlette.types import Scope

from service.errors import Busy, ServiceError, StorageUnavailable
from service.http.problems import PROBLEMS
from service.http.request_ids import request_id
from service.log import OneASecond
from service.storage.measured import SECONDS, Histogram

logger = logging.getLogger(__name__)
logger.addFilter(OneASecond())  # Where there is too much to do, every client is refused.

ELSEWHERE = "other"
"""Stands for the path where a request is for no path of the API, or was refused before that was asked."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""The methods that are told apart: a client can send any other word."""


class Connections(Protocol):
    """The connections of a server."""

    def __len__(self) -> int:
        """Tell how many are open."""


class Metrics:
    """What is counted of one application. All of it is counted on the event loop, so that no lock is needed."""

    def __init__(self) -> None:
        """Have counted nothing yet."""
        self.requests: dict[tuple[str, str, int], Histogram] = {}
        """The seconds until the answer was known, by method, path of the API and status."""
        self.refusals = dict.fromkeys(PROBLEMS, 0)
        """How often each code was the answer to a whole request."""
        self.connections: Connections | None = None
        """The connections that are open; None where another server than this service's own serves."""

    def tally(self, path: str = ELSEWHERE) -> "Tally":
        """Give what counts the requests for one path of the API."""
        return Tally(self, path.replace(":path}", "}"))


class Tally:
    """Counts the requests for one path."""

    def __init__(self, metrics: Metrics, path: str) -> None:
        """Count for the metrics of an application."""
        self._metrics, self._path = metrics, path
        self._seen: dict[tuple[str, int], Histogram] = {}

    def add(self, method: str, status: int, seconds: float) -> None:
        """Count a request that is answered."""
        found = self._seen.get((method, status)) or self._first(method, status)
        found.counts[bisect_left(SECONDS, seconds)] += 1  # As `observe` does, for a call less with each request.
        found.sum += seconds

    def _first(self, method: str, status: int) -> Histogram:
        told = method if method in METHODS else ELSEWHERE
        found = self._metrics.requests.setdefault((told, self._path, status), Histogram(SECONDS))
        if told == method:
            self._seen[method, status] = found
        return found

    def refuse(self, scope: Scope, refusal: ServiceError) -> None:
        """Count why a request is refused, and log a 503: it is the service that fails the client then."""
        self._metrics.refusals[refusal.code] += 1
        if isinstance(refusal, (Busy, StorageUnavailable)):
            told = {"request_id": request_id(scope)} if scope else {}
            logger.warning("A request was refused with 503 %s: %s", refusal.code, refusal.detail, extra={"told": told})

    def refuse_at_once(self, scope: Scope, refusal: ServiceError) -> None:
        """Count a request that is refused before any operation is asked; `scope` is empty where it never was one."""
        self.refuse(scope, refusal)
        self.add(scope.get("method", ELSEWHERE), PROBLEMS[refusal.code].status, 0)
