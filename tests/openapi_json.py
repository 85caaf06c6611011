"""Writes service/docs/openapi.json, for `make openapi`: the document that GET /openapi.json answers with."""

import json
from pathlib import Path

from service.http.api import API
from service.http.openapi import document

KEPT = Path(__file__).parent.parent / "service/docs/openapi.json"


def written() -> str:
    """Give the file's text: the document of a service that stands at the beginning of the path."""
    return json.dumps({**document(API), "servers": [{"url": "/"}]}, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    KEPT.write_text(written(), "utf-8")
