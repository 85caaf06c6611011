"""Say in JSON Schema what is sent and what comes: the records, the payloads, the values of queries, the problems."""

import inspect
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, get_args, get_origin

import attrs
import msgspec

from service import courses, students, terms
from service.fields import (
    CAPACITY,
    DAY_OR_NULL,
    ID,
    MAX_ID,
    MOMENT,
    MOMENT_OR_NULL,
    NAME_OR_NULL,
    TOKEN_ID,
    Field,
    integer,
)
from service.http.answers import MEMBERS
from service.http.payloads import Payload
from service.http.problems import PROBLEMS
from service.http.queries import Query

Schema = dict[str, Any]

_COUNT = integer(0, MAX_ID)
_OF_RECORDS: Mapping[str, Field] = {
    **terms.FIELDS,
    **students.FIELDS,
    **courses.FIELDS,
    **dict.fromkeys(("id", "student_id", "course_id"), ID),
    "position": integer(1, MAX_ID, or_null=True),
    "enrolled": _COUNT,
    "waitlisted": _COUNT,
    "refused": _COUNT,
    "seats_left": CAPACITY,
    "at": MOMENT,
    "ends_at": MOMENT_OR_NULL,
    "enrolled_at": MOMENT_OR_NULL,
    "actor": NAME_OR_NULL,
    "reason": NAME_OR_NULL,
}
"""The rule of a member of a record by its name, because a name means one thing in the whole house."""

_OF_TOKENS: Mapping[str, Field] = {
    "id": TOKEN_ID,
    "created_at": MOMENT,
    **dict.fromkeys(("expires_at", "revoked_at", "previous_until"), MOMENT_OR_NULL),
    "last_used_on": DAY_OR_NULL,
}
"""The same for the record of a token, whose id is a text."""

_ERRORS: Schema = {
    "type": "array",
    "description": "The faults of a payload or a query, or the refused rows of an atomic bulk.",
    "items": {
        "type": "object",
        "properties": {
            "detail": {"type": "string"},
            "pointer": {"type": "string", "description": "Where in the body it is (RFC 6901)."},
            "parameter": {"type": "string", "description": "Which parameter of the query has it."},
            "code": {"type": "string", "description": "Why the row is refused."},
        },
        "required": ["detail"],
    },
}
PROBLEM: Schema = {
    "type": "object",
    "description": "A refusal (RFC 9457). Programs should go by `code`; `detail` is for people, and may change.",
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "description": "The path that explains the code."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": [*PROBLEMS]},
        **{name: {"type": "integer", "minimum": 1} if name.endswith("_id") else {"type": "string"} for name in MEMBERS},
        **{name: {"type": "string"} for name in MEMBERS if name.endswith("external_id")},
        "newest_id": {"type": "integer", "minimum": 0},
        "errors": _ERRORS,
        "request_id": {
            "type": "string",
            "description": "With a status of 500 or above: what the lines of the log about the request have.",
        },
    },
    "required": ["type", "title", "status", "detail", "code"],
}


def text_of(kind: Any) -> str:
    """Give the docstring of a class as one paragraph, in the words of JSON."""
    return " ".join(inspect.cleandoc(kind.__doc__).split()).replace("None", "null")


def name_of(kind: Any) -> str:
    """Give the name by which the document calls a type."""
    name: str = kind.__name__
    return name.removesuffix("Record")


def reference(kind: Any) -> Schema:
    """Refer to the schema of a type, or of a list of them."""
    if get_origin(kind) is list:
        return {"type": "array", "items": reference(*get_args(kind))}
    return {"$ref": f"#/components/schemas/{name_of(kind)}"}


def records(kinds: Iterable[Any]) -> dict[str, Schema]:
    """Give the schema of each record's type, and of each type that these are made of, by name."""
    _, found = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    made = {name: _tidy(schema) for name, schema in found.items()}
    for name, schema in made.items():
        members = schema["properties"]
        ruled = _OF_TOKENS if name.endswith("TokenRecord") else _OF_RECORDS
        members |= {key: _ruled(ruled[key], each) for key, each in members.items() if key in ruled}
        if name == "BulkResult":  # Of the two others it has the one that is not null.
            members |= {
                "enrollment": {"$ref": "#/components/schemas/Enrollment"},
                "problem": {"$ref": "#/components/schemas/Problem"},
            }
        else:
            schema["required"] = [*members]  # A record is always sent whole.
    return {name.removesuffix("Record"): schema for name, schema in sorted(made.items())}


def _ruled(rule: Field, member: Schema) -> Schema:
    """Give the schema of a member's rule; it may be null where the member may."""
    schema = dict(rule.schema)
    if "anyOf" in member and isinstance(schema["type"], str):
        schema["type"] = [schema["type"], "null"]
    return schema


def _tidy(value: Any) -> Any:
    """Take from a schema of msgspec's the titles, which repeat names, and the defaults, which an answer has not."""
    if isinstance(value, list):
        return [_tidy(each) for each in value]
    if not isinstance(value, dict):
        return value.removesuffix("Record") if isinstance(value, str) else value
    kept = {
        key: _tidy(each)
        for key, each in value.items()
        if key != "default" and not (key == "title" and isinstance(each, str))
    }
    if "enum" in kept:
        kept = {"type": "string", **kept}
    if "description" in kept and "properties" in kept:
        kept["description"] = " ".join(kept["description"].split()).replace("None", "null")
    return kept


def problem(codes: Iterable[str]) -> Schema:
    """Give the schema of a problem with one of some codes."""
    told = {"type": "object", "properties": {"code": {"type": "string", "enum": [*codes]}}}
    return {"allOf": [{"$ref": "#/components/schemas/Problem"}, told]}


def members(kind: type[Payload]) -> list["attrs.Attribute[Any]"]:
    """Give the fields of a payload, first those that must be there, or of which one must."""
    fields = attrs.fields(kind)  # type: ignore[arg-type]
    wanted = [field.name for field in fields if field.default is attrs.NOTHING] + [*chain(*kind.EITHER)]
    return sorted(fields, key=lambda field: [*wanted, field.name].index(field.name))


def payload(kind: type[Payload]) -> Schema:
    """Give the schema of a payload."""
    fields = members(kind)
    one_each = [{"oneOf": [{"required": [name]} for name in pair]} for pair in kind.EITHER]
    whole = [*one_each, *([kind.WHOLE] if kind.WHOLE else [])]
    required = [field.name for field in fields if field.default is attrs.NOTHING]
    return {
        "type": "object",
        "description": text_of(kind),
        "properties": {field.name: dict(rule(field.type).schema) for field in fields},
        **({"required": required} if required else {}),
        **({"allOf": whole} if whole else {}),
        "additionalProperties": False,
    }


def parameters(kind: type[Query]) -> dict[str, Schema]:
    """Give the schema of each parameter of a query, by name."""
    return {field.name: _parameter(field) for field in attrs.fields(kind)}  # type: ignore[arg-type]


def _parameter(field: "attrs.Attribute[Any]") -> Schema:
    schema = dict(rule(field.type).schema)
    if isinstance(schema["type"], list):  # A query has no null.
        (schema["type"],) = set(schema["type"]) - {"null"}
    return schema if field.default is None else {**schema, "default": field.default}


def rule(kind: Any) -> Field:
    """Give the rule in a type's annotation, or in that of a type that may be None."""
    if not hasattr(kind, "__metadata__"):
        (kind,) = (each for each in get_args(kind) if each is not type(None))
    found: Field = kind.__metadata__[0]
    return found
