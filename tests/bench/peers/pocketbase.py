"""PocketBase: three collections, one of them the relation, asked through its records API.

Its rules are open, so that no request pays for a sign-in, and its request log is off. It sets its own
pragmas when it starts, synchronous=NORMAL among them, and has no setting for that.
"""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from bench.campus import Campus, Pair
from bench.processes import Server

COMMAND = str(Path(sys.executable).with_name("pocketbase"))
EMAIL, PASSWORD = "bench@example.com", "bench-bench"
ENROLLED_AT = "2014-01-01 00:00:00.000Z"


def upsert_superuser(folder: Path) -> None:
    """Make the database, and who may make collections."""
    command = [COMMAND, "superuser", "upsert", EMAIL, PASSWORD, "--dir=data"]
    subprocess.run(command, cwd=folder, check=True, timeout=60, stdout=subprocess.DEVNULL)


def make_collections(server: Server) -> None:
    """Make students, courses and enrollments, and switch the request log off."""
    path = "/api/collections/_superusers/auth-with-password"
    token = _call(server, "POST", path, {"identity": EMAIL, "password": PASSWORD})["token"]
    _call(server, "PATCH", "/api/settings", {"logs": {"maxDays": 0}}, token)
    name, level = ({"name": name, "type": "text", "required": True, "max": 200} for name in ("name", "level"))
    ids = {
        collection: _make(server, token, collection, *fields)
        for collection, fields in {"students": (name,), "courses": (name, level)}.items()
    }
    relation = {"type": "relation", "required": True, "minSelect": 1, "maxSelect": 1}
    _make(
        server,
        token,
        "enrollments",
        relation | {"name": "student", "collectionId": ids["students"]},
        relation | {"name": "course", "collectionId": ids["courses"]},
        {"name": "enrolled_at", "type": "autodate", "onCreate": True},
        indexes=[
            "CREATE UNIQUE INDEX enrollment_pair ON enrollments (student, course)",
            "CREATE INDEX enrollment_roster ON enrollments (course, student)",
        ],
    )


def fill(db: sqlite3.Connection, campus: Campus) -> None:
    """Insert the campus, with ids as PocketBase wants them."""
    db.executemany("INSERT INTO students (id, name) VALUES (?, ?)", _numbered((name,) for name in campus.students))
    db.executemany("INSERT INTO courses (id, name, level) VALUES (?, ?, ?)", _numbered(campus.courses))
    db.executemany(
        "INSERT INTO enrollments (id, student, course, enrolled_at) VALUES (?, ?, ?, ?)",
        _numbered((_id(student), _id(course), ENROLLED_AT) for student, course in campus.enrollments),
    )


def schedule(student: int) -> str:
    """Give the path of a student's enrollments with their courses."""
    return _records("student", student, "course")


def roster(course: int) -> str:
    """Give the path of a page of 100 of a course's enrollments with their students."""
    return _records("course", course, "student")


def enrollment(pair: Pair) -> str:
    """Give the path and the body of the POST that enrolls a student."""
    student, course = pair
    return f'/api/collections/enrollments/records {{"student":"{_id(student)}","course":"{_id(course)}"}}'


def _records(field: str, number: int, other: str) -> str:
    # skipTotal is its documentation's advice where no count is needed; to pick fields would cost more than it saves.
    where = quote(f"({field}='{_id(number)}')")
    return f"/api/collections/enrollments/records?filter={where}&expand={other}&sort={other}&perPage=100&skipTotal=1"


def _make(server: Server, token: str, name: str, *fields: Any, indexes: Any = ()) -> Any:
    rules = {"listRule": "", "viewRule": "", "createRule": ""}
    collection = {"name": name, "type": "base", "fields": fields, "indexes": indexes, **rules}
    return _call(server, "POST", "/api/collections", collection, token)["id"]


def _call(server: Server, method: str, path: str, body: Any, token: str = "") -> Any:
    status, answer = server.ask(method, path, json.dumps(body), {"authorization": token})
    if status != 200:
        raise click.ClickException(f"PocketBase: {method} {path}: {status} {answer!r}")
    return json.loads(answer)


def _id(number: int) -> str:
    return f"{number:015}"


def _numbered(rows: Any) -> Any:
    return ((_id(at), *row) for at, row in enumerate(rows, 1))
