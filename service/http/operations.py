"""Declare operations (one method of one path each), and dispatch each request to its operation."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Concatenate, Literal, ParamSpec, Union, get_args, get_origin, get_type_hints

import attrs
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from service.errors import (
    Busy,
    ConstraintViolated,
    Failed,
    InvalidPayload,
    InvalidQuery,
    ServiceError,
    StorageUnavailable,
)
from service.http.answers import Answer, NoContent, Page, Stream, no_content, problem
from service.http.body import Upload
from service.http.calls import PATCH_TYPES, Call, Rows
from service.http.edge import (
    InsufficientScope,
    InvalidToken,
    MalformedJson,
    MethodNotAllowed,
    PayloadTooLarge,
    Unauthorized,
    UnsupportedMediaType,
)
from service.http.guard import Guard
from service.http.metrics import Tally
from service.http.payloads import Payload
from service.http.queries import NoQuery, Query
from service.http.request_ids import request_id
from service.rows import ExternalId
from service.storage import Store

P = ParamSpec("P")
Run = Callable[[Call], Awaitable[Answer]]

logger = logging.getLogger(__name__)

Right = Literal["read", "enroll", "write", "import", "metrics", "admin"]
"""The scope that a client must have: "read" is to see everything, "enroll" to enroll and drop, "write" to change
students, courses and terms, "admin" to let others in."""
Refusals = tuple[type[ServiceError], ...]

CONDITIONS = frozenset({b"if-match", b"if-none-match"})
"""The headers by which a client lets a request be done only if something holds (RFC 9110, section 13.1)."""

_ALWAYS: Refusals = (InvalidQuery, Failed)
_STORED: Refusals = (Busy, StorageUnavailable)
_GUARDED: Refusals = (Unauthorized, InvalidToken, InsufficientScope)
_WRITES: Refusals = (ConstraintViolated,)
_UPLOAD: Refusals = (PayloadTooLarge, UnsupportedMediaType)
_BODY: Refusals = (MalformedJson, PayloadTooLarge, UnsupportedMediaType, InvalidPayload)


@attrs.frozen(eq=False)
class Operation:
    """One method of one path: what was declared of it, and what its handler's signature says."""

    summary: str
    """The first line of the handler's docstring."""
    right: Right | None
    """What the client must be allowed to do; None if the operation is open to everyone."""
    words: Sequence[tuple[str, Any]]
    """The variable words of the path that the handler takes, such as student_id: (name, type) of each."""
    query: type[Query]
    body: type[Payload | Rows | Upload] | None
    gives: Mapping[int, Any]
    """The type of the answer's value for each status that the handler answers with; None where there is no value."""
    streams: type[Stream] | None
    """What the handler answers with in parts, where a client prefers that."""
    refuses: Refusals
    handler: Any
    """The coroutine function that `operation` was given."""

    async def run(self, call: Call) -> Answer:
        """Read from a call what the handler takes, and run the handler. Raises the refusals, each a ServiceError."""
        taken: list[Any] = [*map(call.word, self.words)]
        if self.query is not NoQuery or call.has_query:
            values = call.query(self.query)
            if self.query is not NoQuery:
                taken.append(values)
        if self.body is not None:
            read = READ.get(self.body)
            taken.append(await (read(call) if read else call.payload(self.body)))
        answer: Answer = await self.handler(call, *taken)
        return answer

    @property
    def run_if(self) -> Run | None:
        """Run a request that has one of CONDITIONS; None where the operation passes over them."""
        return None


READ: Mapping[Any, Callable[[Call], Awaitable[Any]]] = {Rows: Call.rows, Upload: Call.upload}
"""How a body that is no payload is read."""
Api = Mapping[str, Mapping[str, Operation]]
"""The operations by path and method."""


def operation(
    right: Right | None, handler: Callable[Concatenate[Call, P], Awaitable[Answer]], *refuses: type[ServiceError]
) -> Operation:
    """Declare an operation by its right, its handler and the refusals of the rule that the handler runs.

    The handler takes the call, and then parts of the request by the types of its parameters: words of the path (an
    ExternalId, or a type with a rule such as Id, by their names in the path), then the values of the query (a Query),
    then the body (a Payload, Rows, or an Upload). The refusals that every query, body, read or write may end in are
    added to `refuses`. Raises TypeError for a handler with another signature.
    """
    hints = get_type_hints(handler, include_extras=True)
    gives = hints.pop("return")
    (_, call), *takes = hints.items()
    words = [(name, kind) for name, kind in takes if kind is ExternalId or get_origin(kind) is Annotated]
    queries = [kind for _, kind in takes if isinstance(kind, type) and issubclass(kind, Query)]
    bodies = [kind for _, kind in takes if isinstance(kind, type) and issubclass(kind, (Payload, Rows, Upload))]
    if call is not Call or [kind for _, kind in takes] != [*(kind for _, kind in words), *queries[:1], *bodies[:1]]:
        raise TypeError(
            f"{handler} takes a Call, then words of the path, then a Query, then a Payload, Rows or Upload."
        )
    query = queries[0] if queries else NoQuery
    body = bodies[0] if bodies else None
    answers = get_args(gives) if get_origin(gives) in {Union, UnionType} else (gives,)
    streams = [each for each in answers if isinstance(each, type) and issubclass(each, Stream)]
    return Operation(
        summary=(handler.__doc__ or "").partition("\n")[0],
        right=right,
        words=words,
        query=query,
        body=body,
        gives={(get_origin(each) or each).STATUS: _value(each) for each in answers if each not in streams},
        streams=streams[0] if streams else None,
        refuses=(
            *refuses,
            *(_UPLOAD if body is Upload else _BODY if body else ()),
            *(_WRITES if right in {"enroll", "write"} else ()),
            *((*_STORED, *_GUARDED) if right else ()),
            *_ALWAYS,
        ),
        handler=handler,
    )


def _value(answer: Any) -> Any:
    value = next(iter(get_args(answer)), None)
    return list[value] if get_origin(answer) is Page else value  # type: ignore[valid-type]


class Endpoint:
    """The ASGI application of one path: it runs the operation of the request's method, and answers its refusals."""

    def __init__(
        self, store: Store, operations: Mapping[str, Operation], tally: Tally, guard: Guard | None = None
    ) -> None:
        """Add to the operations what HTTP wants of every path: HEAD where there is a GET, and OPTIONS.

        Without a guard, every client may do everything.
        """
        operations = {**operations, **({"HEAD": operations["GET"]} if "GET" in operations else {})}
        self._store, self._tally, self._guard = store, tally, guard
        self._cookies = guard.cookies if guard else None
        self._run: dict[str, Run] = {method: each.run for method, each in operations.items()}
        self._run_if = {method: run for method, each in operations.items() if (run := each.run_if)}
        self._rights = {method: each.right for method, each in operations.items()}
        allow = ", ".join(sorted([*self._run, "OPTIONS"])).encode()
        self._allow = ((b"allow", allow),)
        self._takes = ((b"accept-patch", b", ".join(PATCH_TYPES)),) if "PATCH" in operations else ()
        self._run["OPTIONS"], self._rights["OPTIONS"] = self._options, None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, with 500 and a line in the log if the service has a defect."""
        began = time.perf_counter()
        call = Call(scope, receive, self._store, self._cookies)
        try:
            run = self._run.get(scope["method"])
            if run is None:
                raise MethodNotAllowed(self._allow)
            if self._guard is not None and (right := self._rights[scope["method"]]) is not None:
                call.granted = await self._guard.admit(scope, right)
            if (run_if := self._run_if.get(scope["method"])) and not CONDITIONS.isdisjoint(dict(scope["headers"])):
                run = run_if
            answer = await run(call)
        except ServiceError as refusal:
            self._tally.refuse(scope, refusal)
            answer = problem(call, refusal)
        except ClientDisconnect:
            return  # The client has closed the connection, so nobody would read an answer.
        except Exception:
            told = {"request_id": request_id(scope)}
            logger.exception("%s %s failed.", scope["method"], scope["path"], extra={"told": told})
            self._tally.refuse(scope, failed := Failed())
            answer = problem(call, failed)
        self._tally.add(scope["method"], answer.status, time.perf_counter() - began)
        await answer(scope, receive, send)

    async def _options(self, call: Call) -> NoContent:
        call.query(NoQuery)
        return no_content((*self._allow, *self._takes))
