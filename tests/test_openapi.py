"""The document of the API: it is OpenAPI 3.1, says all that the operations declare, and its examples are sound."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
from answers import KINDS
from jsonschema import Draft202012Validator
from openapi_json import KEPT, written
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from service import Settings, __version__, create_app
from service.http import examples
from service.http.answers import Stream
from service.http.api import API
from service.http.origins import SAFE
from service.http.problems import PROBLEMS
from service.http.queries import NoQuery
from service.http.reading import read_payload

DOCUMENT: dict[str, Any] = json.loads(written())
OPERATIONS = [
    (path, method, each, DOCUMENT["paths"][path.replace(":path}", "}")][method.lower()])
    for path, methods in API.items()
    for method, each in methods.items()
]
EACH = pytest.mark.parametrize(
    ("path", "method", "declared", "told"), OPERATIONS, ids=[each.handler.__name__ for *_, each, _ in OPERATIONS]
)
EVERYWHERE = {"bad_request", "request_timeout", "uri_too_long", "headers_too_large", "misdirected_request"}


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference within the document."""
    while "$ref" in part:
        found: Any = DOCUMENT
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def fits(value: object, schema: dict[str, Any]) -> bool:
    """Tell whether a value is what a schema of the document wants."""
    return bool(Draft202012Validator({**schema, "components": DOCUMENT["components"]}).is_valid(value))


def test_the_copy_is_the_document() -> None:
    """The file beside the pages is what the service answers with."""
    assert KEPT.read_text("utf-8") == written(), "The API has changed. Write its document anew: make openapi"


def test_it_is_openapi() -> None:
    """The validator of the specification finds no fault, and each component is of use."""
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []
    text = json.dumps(DOCUMENT)
    for kind, components in DOCUMENT["components"].items():
        if kind != "securitySchemes":
            assert [name for name in components if f'"#/components/{kind}/{name}"' not in text] == []


def test_it_is_served(client: TestClient) -> None:
    """GET /openapi.json answers with the document, the second time as the first."""
    for _ in range(2):
        answer = client.get("/openapi.json")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        assert answer.json() == DOCUMENT


def test_it_says_where_the_service_is(path: Path) -> None:
    """Under a host's mount the server of the document is the mount's path."""
    app = create_app(Settings(database_url=str(path)))
    with TestClient(app), TestClient(Starlette(routes=[Mount("/the registry", app)])) as client:
        assert client.get("/the registry/openapi.json").json() == {**DOCUMENT, "servers": [{"url": "/the%20registry"}]}


def test_nobody_pays_who_does_not_ask(path: Path) -> None:
    """What makes the document is imported at the first request for it."""
    program = f"""
import sys
from starlette.testclient import TestClient
from service import Settings, create_app
client = TestClient(create_app(Settings(database_url={str(path)!r})))
makers = {{"service.http.openapi", "service.http.schemas", "service.http.examples"}}
assert client.get("/students").status_code == 200
assert makers.isdisjoint(sys.modules)
assert client.get("/openapi.json").status_code == 200
assert makers <= sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_it_says_what_it_is_of() -> None:
    """The document has the version of the code, and each operation once, under the name of its handler."""
    assert DOCUMENT["info"]["version"] == __version__
    names = [told["operationId"] for *_, told in OPERATIONS]
    assert names == [each.handler.__name__ for *_, each, _ in OPERATIONS]
    assert len(names) == len({*names})
    assert sum(map(len, DOCUMENT["paths"].values())) == len(OPERATIONS)


@EACH
def test_what_an_operation_takes(path: str, method: str, declared: Any, told: dict[str, Any]) -> None:
    """Each word of the path, each parameter of the query, the body, the conditions and the right are told."""
    del path, method
    query = [] if declared.query is NoQuery else [field.name for field in attrs.fields(declared.query)]
    wanted = [("path", name) for name, _ in declared.words] + [("query", name) for name in query]
    wanted += [("header", name) for name in getattr(declared, "heeds", ())]
    wanted += [("header", "Last-Event-ID")] if declared.streams is Stream else []
    assert [(each["in"], each["name"]) for each in told.get("parameters", [])] == wanted
    assert ("requestBody" in told) == (declared.body is not None)
    assert told["summary"] == declared.summary
    assert told["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}
    assert told.get("x-required-scope") == declared.right
    assert told["security"] == ([{}, {"bearerAuth": [declared.right]}] if declared.right else [])


@EACH
def test_what_an_operation_answers(path: str, method: str, declared: Any, told: dict[str, Any]) -> None:
    """Each status that an operation gives, and each status and code that it refuses with, is told, and no other."""
    del path
    codes = {each.code for each in declared.refuses} | EVERYWHERE | (set() if method in SAFE else {"foreign_origin"})
    statuses = {*map(str, declared.gives), *(str(PROBLEMS[code].status) for code in codes)}
    assert told["responses"].keys() == statuses
    found = set()
    for status, response in told["responses"].items():
        answer = resolved(response)
        if problem := answer.get("content", {}).get("application/problem+json"):
            schema = DOCUMENT["components"]["schemas"][problem["schema"]["$ref"].rpartition("/")[2]]
            these = set(schema["allOf"][1]["properties"]["code"]["enum"])
            assert {PROBLEMS[code].status for code in these} == {int(status)}
            assert problem["examples"].keys() == these
            assert ("Retry-After" in answer.get("headers", {})) == (status == "503")
            found |= these
        assert ("Location" in answer.get("headers", {})) == (status in {"201", "303"})
    assert found == codes


def test_what_gives_a_record_gives_its_tag() -> None:
    """GET and PATCH of a record, and the POST that makes one, tell of its tag; each of its writes takes If-Match."""
    tagged, checked = set(), {}
    for path, method, _, told in OPERATIONS:
        if any("ETag" in resolved(answer).get("headers", {}) for answer in told["responses"].values()):
            tagged.add((path, method))
        headers = {each["name"] for each in told.get("parameters", []) if each["in"] == "header"}
        checked[path, method] = sorted(headers - {"Last-Event-ID"})
    records = [*(f"/{noun}s/{{{noun}_id}}" for noun in ("student", "course", "term"))]
    named = [f"/{noun}s/by-external-id/{{external_id:path}}" for noun in ("student", "course", "term")]
    enrollment = "/students/{student_id}/courses/{course_id}"
    assert tagged == {
        *((path, method) for path in records for method in ("GET", "PATCH")),
        *((path, "GET") for path in (*named, enrollment)),
        *((f"/{noun}", "POST") for noun in ("students", "courses", "terms")),
    }
    assert {operation: names for operation, names in checked.items() if names} == {
        **{(path, "GET"): ["If-None-Match"] for path in (*records, *named, enrollment)},
        **{(path, method): ["If-Match"] for path in records for method in ("PATCH", "DELETE")},
        **{(path, "PUT"): ["If-Match", "If-None-Match"] for path in (*named, enrollment)},
        (enrollment, "DELETE"): ["If-Match"],
    }


def test_what_is_a_page_has_a_link() -> None:
    """Each list tells of the header that leads to its next page, and nothing else does."""
    for *_, declared, told in OPERATIONS:
        listed = "list[" in repr(declared.gives.get(200))
        assert ("Link" in resolved(told["responses"].get("200", {})).get("headers", {})) == listed


def test_what_streams_says_so() -> None:
    """Each operation that can answer in parts tells of the type of the parts."""
    kinds = {
        told["operationId"]: resolved(told["responses"].get("200", {})).get("content", {}) for *_, told in OPERATIONS
    }
    assert [name for name, content in kinds.items() if "text/event-stream" in content] == ["show_events"]
    assert [name for name, content in kinds.items() if "application/x-ndjson" in content] == ["import_files"]
    assert {each.handler.__name__ for *_, each, _ in OPERATIONS if each.streams} == {"show_events", "import_files"}


@EACH
def test_examples_fit(path: str, method: str, declared: Any, told: dict[str, Any]) -> None:
    """Each example of a parameter, a body and an answer is what its schema wants; the service takes the body."""
    del path, method
    for each in told.get("parameters", []):
        assert "example" in each or each["name"] in {"after", "student_id", "course_id", "term_id"}
        assert fits(each.get("example", each["schema"].get("default", "m-")), each["schema"]) or each["name"] == "after"
    for kind, content in told.get("requestBody", {"content": {}})["content"].items():
        if content["schema"].get("format") == "binary":
            continue
        assert fits(content["example"], content["schema"])
        if hasattr(declared.body, "EITHER"):
            assert read_payload(declared.body, content["example"]) == examples.PAYLOADS[declared.body], kind
    for response in told["responses"].values():
        for content in resolved(response).get("content", {}).values():
            given = [resolved(each)["value"] for each in content.get("examples", {}).values()]
            for example in [*given, *([content["example"]] if "example" in content else [])]:
                assert fits(example, content["schema"]), example


def test_each_refusal_has_an_example() -> None:
    """The examples of refusals are of their own codes, and no code is without one."""
    assert examples.REFUSALS.keys() == PROBLEMS.keys()
    assert all(isinstance(refusal, KINDS[code]) for code, refusal in examples.REFUSALS.items())
    assert all(type(record) is kind for kind, record in examples.RECORDS.items())
    assert all(msgspec.convert(msgspec.to_builtins(each), kind) == each for kind, each in examples.RECORDS.items())


BODIES: list[tuple[str, object, bool]] = [
    ("NewStudent", {"name": "Ada"}, True),
    ("NewStudent", {"given_name": "Ada", "family_name": "Byron", "email": None}, True),
    ("NewStudent", {"given_name": "Ada"}, False),
    ("NewStudent", {"given_name": "Ada", "family_name": None}, False),
    ("NewStudent", {"name": None}, False),
    ("NewStudent", {"name": ""}, False),
    ("NewStudent", {"name": "a" * 201}, False),
    ("NewStudent", {"name": "Ada", "age": 36}, False),
    ("NewStudent", [], False),
    ("NewCourse", {"name": "Logic", "level": "1", "capacity": None, "opens_at": None}, True),
    ("NewCourse", {"name": "Logic"}, False),
    ("NewCourse", {"name": "Logic", "level": "1", "capacity": -1}, False),
    ("NewCourse", {"name": "Logic", "level": "1", "capacity": 2**63}, False),
    ("NewCourse", {"name": "Logic", "level": "1", "capacity": "1"}, False),
    ("NewTerm", {"name": "Autumn", "starts_on": "2026-09-01"}, True),
    ("NewTerm", {"name": "Autumn", "starts_on": 1}, False),
    ("NewEnrollment", {"course_id": 1, "override": True, "reason": None}, True),
    ("NewEnrollment", {"course_external_id": "LOG-1"}, True),
    ("NewEnrollment", {"course_id": 1, "course_external_id": "LOG-1"}, False),
    ("NewEnrollment", {"override": True}, False),
    ("NewEnrollment", {"course_id": 0}, False),
    ("NewEnrollment", {"course_id": 1, "override": None}, False),
    ("BulkRow", {"student_id": 1, "course_external_id": "LOG-1"}, True),
    ("BulkRow", {"student_id": 1}, False),
    ("Swap", {"drop_course_id": 1, "enroll_course_external_id": "LOG-1", "or_wait": True}, True),
    ("Swap", {"drop_course_id": 1}, False),
    ("StudentChanges", {}, True),
    ("Reason", {}, True),
    ("Reason", {"reason": 1}, False),
]


@pytest.mark.parametrize(("name", "value", "sound"), BODIES)
def test_a_schema_judges_a_body_as_the_service_does(name: str, value: object, sound: bool) -> None:
    """What the schema of a payload takes the service takes, and what the schema refuses the service refuses."""
    (kind,) = (kind for kind in examples.PAYLOADS if kind.__name__ == name)
    assert fits(value, {"$ref": f"#/components/schemas/{name}"}) == sound
    try:
        read_payload(kind, value)
    except Exception:  # noqa: BLE001 - whatever refuses it.
        assert not sound
    else:
        assert sound
