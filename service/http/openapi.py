"""Describe the API in OpenAPI 3.1: the document is made from the operations, their types and the table of problems."""

import json
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from itertools import groupby
from typing import Any, get_args, get_origin

from service import desk
from service.bulk import MAX_ROWS
from service.enrolling import EnrollmentRecord
from service.enrollments import RosterRow, ScheduleRow
from service.fields import EXTERNAL_ID, Field
from service.http import body, conditional, examples, schemas
from service.http.answers import NAME, SERVICE_UNAVAILABLE, Created, PlainText, SeeOther, Stream
from service.http.body import Upload
from service.http.calls import MAX_BODY, MAX_BULK_BODY, Rows
from service.http.conditional import Conditional, Tagged
from service.http.edge import (
    BadRequest,
    ForeignOrigin,
    HeadersTooLarge,
    MisdirectedRequest,
    RequestTimeout,
    UriTooLong,
)
from service.http.files import Csv, Zip
from service.http.operations import Api, Operation
from service.http.origins import SAFE
from service.http.payloads import BulkRow, Payload
from service.http.problems import PROBLEMS
from service.http.queries import MAX_LIMIT
from service.http.schemas import Schema, reference
from service.rows import ExternalId
from service.version import __version__

ABOUT = """\
Students, courses, and the enrollments between them: who has a seat, and who waits for one.

A list is a page of at most `limit` rows, and the header Link leads to the next page. A refusal is a problem
(RFC 9457) with a stable `code`. Every path has OPTIONS too, and every path with GET has HEAD. A single record has an
ETag, with which it is changed only if nobody else has changed it."""
EVERYWHERE = (BadRequest, RequestTimeout, UriTooLong, HeadersTooLarge, MisdirectedRequest)
"""The refusals of the server, which come before any operation is asked."""
TAGS = {
    "Students": "Who can be enrolled.",
    "Courses": "What students are enrolled in.",
    "Enrollments": "Who has a seat in what, and who waits for one.",
    "Imports": "A school's files, taken in.",
    "Terms": "When courses are held.",
    "Exports": "What there is, as files.",
    "Events": "What happened, in order.",
    "Service": "What the service says of itself.",
}
SCHEME = {
    "bearerAuth": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token, where the service asks for one; `x-required-scope` is the scope that it must have.",
    }
}
HEADERS: dict[str, Schema] = {
    "Link": {
        "description": 'The path of the next page, with `rel="next"` (RFC 8288), while there are more rows.',
        "schema": {"type": "string"},
        "example": '</students?limit=20&after=m-DWISyI4yUxIEFkYSBMb3ZlbGFjZQ>; rel="next"',
    },
    "Location": {
        "description": "The path of what was added, or of what was asked for.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
        "example": "/students/1",
    },
    "ETag": {
        "description": "The tag of the record as it is now (RFC 9110, section 8.8.3), good for If-Match.",
        "required": True,
        "schema": {"type": "string"},
        "example": examples.TAG,
    },
    "Content-Disposition": {
        "description": "That a browser is to save the file, and under which name (RFC 6266).",
        "required": True,
        "schema": {"type": "string"},
        "example": 'attachment; filename="students.csv"',
    },
    "WWW-Authenticate": {
        "description": "What is missing (RFC 6750, section 3).",
        "required": True,
        "schema": {"type": "string"},
        "example": 'Bearer realm="enrollment"',
    },
    "Retry-After": {
        "description": "Seconds to wait before the request is sent again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
        "example": 1,
    },
}
CONDITIONS = {
    conditional.IF_MATCH: "Do it only if the record has one of these tags, or any: `*`. Else the answer is 412.",
    conditional.IF_NONE_MATCH: "The answer is 304, to a write 412, if the record has one of these tags, or any: `*`.",
}
"""What the headers of conditional requests are for, each a list of tags or * (RFC 9110, section 13.1)."""
LAST_EVENT_ID: Schema = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The `id` of the last event that the client has got; for a stream it counts more than `after`.",
    "schema": {"type": "string"},
    "example": "17",
}
STREAMS = {
    "text/event-stream": "Server-sent events without an end: the `data` of each is an Event, and its `id` the Event's. "
    "Ask with the header `Accept: text/event-stream`.",
    body.NDJSON.decode(): "JSON lines that tell how far the import is; the last line is the Report. Ask with the "
    f"header `Accept: {body.NDJSON.decode()}`.",
}
"""What an answer in parts is, by its media type."""


def document(api: Api) -> dict[str, Any]:
    """Describe all operations, but for where the service is."""
    operations = [(path, method, each) for path, methods in api.items() for method, each in methods.items()]
    refusals = {_name(codes): codes for _, method, each in operations for codes in _refusals(method, each)}
    return {
        "openapi": "3.1.0",
        "info": {"title": NAME, "version": __version__, "description": ABOUT},
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": {
            path.replace(":path}", "}"): {
                method.lower(): _operation(path, method, each) for method, each in methods.items()
            }
            for path, methods in api.items()
        },
        "components": {
            "schemas": {
                **dict(sorted(_schemas(each for *_, each in operations))),
                **{name: schemas.problem(codes) for name, codes in sorted(refusals.items())},
            },
            "responses": {name: _refusal(codes) for name, codes in sorted(refusals.items())},
            "headers": HEADERS,
            "examples": {
                code: {"summary": PROBLEMS[code].title, "value": examples.refusal(code)}
                for code in sorted({code for codes in refusals.values() for code in codes})
            },
            "securitySchemes": SCHEME,
        },
    }


def _schemas(operations: Iterable[Operation]) -> Iterator[tuple[str, Schema]]:
    given: set[Any] = set()
    payloads: set[Any] = {BulkRow}
    for each in operations:
        given |= {get_args(kind)[0] if get_origin(kind) is list else kind for kind in each.gives.values()}
        if each.body not in (None, Rows, Upload):
            payloads.add(each.body)
    yield "Problem", schemas.PROBLEM
    yield from schemas.records(kind for kind in given if hasattr(kind, "__struct_fields__")).items()
    for kind in payloads:
        yield schemas.name_of(kind), schemas.payload(kind)


def _operation(path: str, method: str, each: Operation) -> dict[str, Any]:
    return {
        "operationId": each.handler.__name__,
        "summary": each.summary,
        "tags": [_tag(path, each)],
        **({"parameters": parameters} if (parameters := [*_parameters(each)]) else {}),
        **({"requestBody": _body(method, each.body)} if each.body else {}),
        "responses": {
            **{str(status): _answer(each, status, kind) for status, kind in sorted(each.gives.items())},
            **{
                str(PROBLEMS[codes[0]].status): {"$ref": f"#/components/responses/{_name(codes)}"}
                for codes in _refusals(method, each)
            },
        },
        **({"x-required-scope": each.right} if each.right else {}),
        "security": [{}, {"bearerAuth": [each.right]}] if each.right else [],
    }


def _tag(path: str, each: Operation) -> str:
    given = {kind for value in each.gives.values() for kind in (value, *get_args(value))}
    if each.right == "enroll" or given & {EnrollmentRecord, RosterRow, ScheduleRow}:
        return "Enrollments"
    noun = path.split("/")[1].title()
    return noun if noun in TAGS else "Service"


def _parameters(each: Operation) -> Iterator[dict[str, Any]]:
    for name, kind in each.words:
        yield _parameter(name, "path", dict(_rule(kind).schema))
    for name, schema in schemas.parameters(each.query).items():
        yield _parameter(name, "query", schema)
    for name in each.heeds if isinstance(each, Conditional) else ():
        yield {**_parameter(name, "header", {"type": "string"}), "description": CONDITIONS[name]}
    if each.streams is Stream:
        yield LAST_EVENT_ID


def _rule(kind: Any) -> Field:
    """Give the rule of a word of a path, which stands in its type."""
    rule: Field = EXTERNAL_ID if kind is ExternalId else kind.__metadata__[0]
    return rule


def _parameter(name: str, place: str, schema: Schema) -> dict[str, Any]:
    example = {"example": examples.PARAMETERS[name]} if name in examples.PARAMETERS else {}
    return {"name": name, "in": place, "required": place == "path", "schema": schema, **example}


def _body(method: str, kind: Any) -> dict[str, Any]:
    limit, text, required, content = MAX_BODY, "", True, {}
    if kind is Rows:
        limit, row = MAX_BULK_BODY, examples.payload(BulkRow)
        rows = {"type": "array", "maxItems": MAX_ROWS, "items": reference(BulkRow)}
        lines = {"type": "string", "description": "One row, as JSON, in each line."}
        content[body.JSON] = {"schema": rows, "example": [row]}
        content[body.NDJSON] = {"schema": lines, "example": f"{json.dumps(row)}\n"}
    elif kind is Upload:
        limit = body.MAX_UPLOAD
        content = {name: {"schema": {"type": "string", "format": "binary"}} for name in body.FILES}
        content[body.FILES[0]] = {"schema": {"type": "string"}, "example": examples.CSV}
    elif method == "PATCH":
        # Of two types with one schema openapi-python-client 0.29 makes a client that Python cannot import.
        content[body.MERGE_PATCH], text = _typed(kind), " They may be sent as application/json too."
    else:
        content[body.JSON], required = _typed(kind), not kind.OPTIONAL
    return {
        "required": required,
        "description": f"At most {limit:,} bytes.{text}",
        "content": {name.decode(): each for name, each in content.items()},
    }


def _typed(kind: type[Payload]) -> dict[str, Any]:
    return {"schema": reference(kind), "example": examples.payload(kind)}


def _answer(each: Operation, status: int, kind: Any) -> dict[str, Any]:
    headers = ["Location"] if status in {Created.STATUS, SeeOther.STATUS} else []
    if isinstance(each, Tagged):
        headers.append("ETag")
    content: dict[str, Any] = {}
    if get_origin(kind) is list:
        headers.append("Link")
        listed = {**reference(kind), "maxItems": MAX_LIMIT}
        content = {"application/json": {"schema": listed, "example": examples.record(kind)}}
    elif kind is PlainText:
        content = {"text/plain": {"schema": {"type": "string"}}}
    elif kind in {Csv, Zip}:
        headers.append("Content-Disposition")
        media_type = kind.MEDIA_TYPE.partition(";")[0]
        content = {media_type: {"schema": {"type": "string", **({"format": "binary"} if kind is Zip else {})}}}
    elif kind is str:
        content = {"text/html": {"schema": {"type": "string"}}}
    elif kind is bytes:
        kinds = {desk.media_type(name).partition(";")[0] for name in desk.FILES}
        content = {name: {"schema": {"type": "object" if "json" in name else "string"}} for name in sorted(kinds)}
    elif hasattr(kind, "__struct_fields__"):
        content = {"application/json": {"schema": reference(kind), "example": examples.record(kind)}}
    elif kind:
        content = {"application/json": {"schema": {"type": "object"}}}
    if each.streams and status == Stream.STATUS:
        told = {"type": "string", "description": STREAMS[each.streams.MEDIA_TYPE]}
        content[each.streams.MEDIA_TYPE] = {"schema": told}
    return {
        "description": HTTPStatus(status).phrase,
        **({"headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers}} if headers else {}),
        **({"content": content} if content else {}),
    }


def _refusals(method: str, each: Operation) -> list[tuple[str, ...]]:
    """Give the codes that an operation may be refused with, those of one status together."""
    kinds = {*each.refuses, *EVERYWHERE, *(() if method in SAFE else (ForeignOrigin,))}
    codes = sorted({kind.code for kind in kinds}, key=lambda code: (PROBLEMS[code].status, code))
    return [tuple(same) for _, same in groupby(codes, lambda code: PROBLEMS[code].status)]


def _name(codes: Sequence[str]) -> str:
    return "_or_".join(codes)


def _refusal(codes: Sequence[str]) -> dict[str, Any]:
    headers = [
        *(["Retry-After"] if PROBLEMS[codes[0]].status == SERVICE_UNAVAILABLE else []),
        *(["WWW-Authenticate"] if codes[0] in {"unauthorized", "invalid_token"} else []),
    ]
    return {
        "description": "; or: ".join(PROBLEMS[code].title for code in codes),
        **({"headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers}} if headers else {}),
        "content": {
            "application/problem+json": {
                "schema": {"$ref": f"#/components/schemas/{_name(codes)}"},
                "examples": {code: {"$ref": f"#/components/examples/{code}"} for code in codes},
            }
        },
    }
