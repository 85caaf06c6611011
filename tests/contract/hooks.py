"""Tells schemathesis how a body in NDJSON is written: its example and its made-up values are texts already."""

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def ndjson(_: Any, value: Any) -> bytes:
    """Write a body."""
    return (value if isinstance(value, str) else json.dumps(value)).encode(errors="replace")
