"""Bulk enrolling: each row is judged as the single call would judge it, and nobody else waits for it long."""

import asyncio
import gc
import json
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from statistics import median, quantiles
from typing import Any, cast

import httpx2
import peewee as pw
import postgresql
import pytest
from answers import faults
from conftest import Server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import another_school, host_rule, writing
from schools import Schools
from starlette.testclient import TestClient
from test_seats import add_course, audit, post, refusal, run_script, standing

from service import Settings, connect, create_app, migrate
from service.bulk import MAX_ROWS, MAX_WHOLE, enroll_all, enroll_many
from service.courses import insert_course
from service.enrolling import Result, Row, enroll_each
from service.errors import BulkRefused, ConstraintViolated, InvalidPayload
from service.http.body import elements
from service.http.calls import MAX_BULK_FAULTS, Call
from service.http.edge import MalformedJson
from service.http.reading import MAX_FAULTS
from service.rows import ExternalId
from service.storage.event_loop import in_pieces
from service.storage.sqlite import inserting
from service.storage.sqlite.store import Store

pytestmark = pytest.mark.both

JSON, NDJSON = "application/json", "application/x-ndjson"
STUDENTS = 10_000


FILL = f"""
    INSERT INTO students (name)
    WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {STUDENTS})
    SELECT 'student ' || x FROM n"""


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Have the students 1 to 10,000 in the file that each test has a copy of."""
    path = tmp_path_factory.mktemp("bulk") / "students.db"
    migrate(path)
    run_script(path, FILL)
    return path


@pytest.fixture(scope="module")
def empty_school(server: postgresql.Server, empty_school: str) -> Iterator[str]:
    """Have the same in the database of PostgreSQL that each test has a copy of."""
    with server.database(empty_school) as url:
        with closing(connect(url)) as db:
            db.execute_sql(FILL)
        yield url


@pytest.fixture(scope="module")
def schools(server: postgresql.Server, empty_school: str) -> Iterator[Schools]:
    """Give what lends these copies."""
    with closing(Schools(server, empty_school)) as schools:
        yield schools


def pair(student_id: object, course_id: object) -> dict[str, object]:
    """Give a row."""
    return {"student_id": student_id, "course_id": course_id}


def post_bulk(client: httpx2.Client, rows: object, query: str = "", media_type: str = JSON) -> httpx2.Response:
    """Send rows, given as values or as the body itself."""
    if media_type == NDJSON and isinstance(rows, list):
        rows = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    content = rows if isinstance(rows, bytes) else json.dumps(rows).encode()
    headers = {"content-type": media_type}
    return client.post(f"/enrollments?{query}", content=content, headers=headers)


def report(capsys: pytest.CaptureFixture[str], line: str) -> None:
    """Show a measurement, whatever pytest captures."""
    with capsys.disabled():
        print(f"\n{line}", end=" ")  # noqa: T201


# What is answered


@pytest.mark.parametrize("media_type", [JSON, NDJSON, "Application/JSON; charset=utf-8", f"{NDJSON};charset=UTF-8"])
def test_one_result_a_row(client: TestClient, path: Path, media_type: str) -> None:
    """A bulk answers 200 with one result for each row in order, and the totals."""
    add_course(client, 1, 2)
    rows = [pair(7, 1), pair(3, 1), pair(3, 1), {}, pair(2, 1), pair(4, 1)]
    body = b"\n".join(json.dumps(row).encode() for row in rows) if NDJSON in media_type else rows
    answer = post_bulk(client, body, media_type=media_type)
    shown = answer.json()
    assert answer.status_code == 200
    assert answer.headers["content-type"] == JSON
    enrolled_at = shown["results"][0]["enrollment"]["enrolled_at"]
    seat = {**pair(7, 1), "enrolled_at": enrolled_at, "status": "enrolled", "position": None}
    places = [
        {**pair(student, 1), "enrolled_at": None, "status": "waitlisted", "position": position}
        for student, position in ((3, 1), (2, 2))
    ]
    accepted = [result for result in shown["results"] if result["status"] == 201]
    refused = [result for result in shown["results"] if result["status"] != 201]
    assert accepted == [{"status": 201, "enrollment": enrollment} for enrollment in (seat, *places)]
    assert [client.get(f"/students/{student}/courses/1").json() for student in (7, 3, 2)] == [seat, *places]
    assert [shown["results"].index(result) for result in refused] == [2, 3, 5]
    assert [(row["status"], row["problem"]["code"]) for row in refused] == [
        (409, "already_waitlisted"),
        (422, "invalid_payload"),
        (409, "course_full"),
    ]
    assert refused[0] == {"status": 409, "problem": post(client, 3, 1).json()}
    assert shown["totals"] == {"enrolled": 1, "waitlisted": 2, "refused": 3}
    assert audit(path) == [("enrolled", 7, 1), ("waitlisted", 3, 1), ("waitlisted", 2, 1)]


NO_ROWS: list[tuple[object, list[str]]] = [
    (None, ["#"]),
    ([1, 1], ["#"]),
    ("1,1", ["#"]),
    ("", ["#"]),
    ({}, ["#/course_id", "#/student_id"]),
    ({"student_id": 1}, ["#/course_id"]),
    ({**pair(1, 1), "note": ""}, ["#/note"]),
    (pair(1, None), ["#/course_id"]),
    (pair("1", 1.0), ["#/course_id", "#/student_id"]),
    (pair(True, 0), ["#/course_id", "#/student_id"]),
    (pair(-1, 2**63), ["#/course_id", "#/student_id"]),
]


@pytest.mark.parametrize("media_type", [JSON, NDJSON])
def test_what_is_no_row(client: TestClient, media_type: str) -> None:
    """A row that is no object of two ids is its own refusal, with all of its faults; the others go on."""
    add_course(client, None, 0)
    rows = [value for no_row, _ in NO_ROWS for value in (no_row, pair(1, 1))]
    results = post_bulk(client, rows, media_type=media_type).json()["results"]
    for result, (_, pointers) in zip(results[::2], NO_ROWS, strict=True):
        assert (result["status"], result["problem"]["code"]) == (422, "invalid_payload")
        assert sorted(error["pointer"] for error in result["problem"]["errors"]) == pointers
    assert [result["status"] for result in results[1::2]] == [201] + [409] * (len(NO_ROWS) - 1)


def test_a_line_that_is_not_json(client: TestClient) -> None:
    """In NDJSON a line that is not JSON is its own refusal; lines may end in CRLF, and empty ones are none."""
    add_course(client, None, 0)
    good = [json.dumps(pair(student, 1)).encode() for student in (1, 2)]
    body = b"\r\n".join([b"", good[0], b"{", b" ", b"\xff", b"NaN", b"[" * 100_000, b"", good[1], b"", b""])
    answer = post_bulk(client, body, media_type=NDJSON)
    codes = [result.get("problem", {}).get("code") for result in answer.json()["results"]]
    assert codes == [None, *["malformed_json"] * 5, None]
    assert answer.json()["totals"] == {"enrolled": 2, "waitlisted": 0, "refused": 5}
    assert standing(client) == ([1, 2], [])


@pytest.mark.parametrize("media_type", [JSON, NDJSON])
def test_not_every_fault_is_listed(client: TestClient, media_type: str) -> None:
    """A row lists its first 20 faults and a bulk 1,000, the first rows first; each row says what it leaves out."""
    assert (MAX_FAULTS, MAX_BULK_FAULTS) == (20, 1_000)
    fat = {**pair(1, 1), **{f"key {n:02}": n for n in reversed(range(46))}}
    rows = [fat, *[{}] * 489, {"student_id": "1", "a": 1, "b": 1}, {}, None, {}, fat]
    results = post_bulk(client, rows, media_type=media_type).json()["results"]
    assert {(result["status"], result["problem"]["code"]) for result in results} == {(422, "invalid_payload")}
    problems = [result["problem"] for result in results]
    assert [error["pointer"] for error in problems[0]["errors"]] == [f"#/key%20{n:02}" for n in range(45, 25, -1)]
    assert problems[0] == client.post("/students/1/courses", json={"course_id": 1, **fat}).json() | {
        "detail": "The payload has 46 faults. The answer lists 20 of them.",
        "errors": problems[0]["errors"],
    }
    assert {(problem["detail"], len(problem["errors"])) for problem in problems[1:490]} == {
        ("The payload has 2 faults.", 2)
    }
    assert [(problem["detail"], len(problem["errors"])) for problem in problems[490:]] == [
        ("The payload has 4 faults. The answer lists 2 of them.", 2),
        ("The payload has 2 faults. The answer lists none of them.", 0),
        ("The payload has 1 fault. The answer lists none of them.", 0),
        ("The payload has 2 faults. The answer lists none of them.", 0),
        ("The payload has 46 faults. The answer lists none of them.", 0),
    ]
    assert sum(len(problem["errors"]) for problem in problems) == MAX_BULK_FAULTS


def rows_of(body: bytes, media_type: str = JSON) -> list[Any]:
    """Read a body as the rows of a bulk."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    scope = {"headers": [(b"content-type", media_type.encode())], "query_string": b""}
    return [*asyncio.run(Call(scope, receive, cast("Store", None)).rows())]


def test_refusals_of_rows_are_light() -> None:
    """A refused row holds no traceback and no other error, and rows with the same faults share one refusal."""
    rows = rows_of(b"{}\n{\n" * 1_000, NDJSON)
    assert [type(row) for row in rows] == [InvalidPayload, MalformedJson] * 1_000
    assert {(row.__traceback__, row.__context__, row.__cause__) for row in rows} == {(None, None, None)}
    assert len({id(row) for row in rows}) == 3  # With its faults listed, without, and no JSON.


ARRAYS = st.lists(st.recursive(st.none() | st.integers(-(2**63), 2**63) | st.text(), st.lists, max_leaves=5))


@given(ARRAYS, st.sampled_from([None, 1]), st.sampled_from(["", " ", "\r\n\t"]))
def test_an_array_is_read_value_by_value(values: list[object], indent: int | None, space: str) -> None:
    """The values in a body are those that the standard library reads, whatever white space is around them."""
    text = space + json.dumps(values, indent=indent).replace("[", f"[{space}", 1) + space
    assert [*elements(text.encode())] == values


@pytest.mark.both(False, because="what is refused here reaches no database")
@pytest.mark.parametrize(
    "body",
    ["", " ", "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1}", "[1]]", "[1] x", "x", "[NaN]", "NaN", "[" * 100_000],
)
def test_an_array_that_is_not_json(client: TestClient, body: str) -> None:
    """An array that is broken anywhere is refused whole."""
    assert refusal(post_bulk(client, body.encode())) == (400, "malformed_json")
    assert refusal(post_bulk(client, b"\xff" + body.encode())) == (400, "malformed_json")


@pytest.mark.parametrize("body", ["{}", "1", "-1", '"x"', "true", "false", "null", ' {"a": [1]} '])
def test_another_value_than_an_array(client: TestClient, body: str) -> None:
    """A JSON value that is no array is no bulk."""
    answer = post_bulk(client, body.encode())
    assert faults(answer) == ["#"]


@pytest.mark.anyio
async def test_long_work_lets_others_go_on() -> None:
    """Work in pieces holds the event loop for one piece, and the next work begins once the work before is done."""
    turns, order = 0, []

    def items(name: str) -> Iterator[str]:
        for _ in range(20):
            time.sleep(0.001)
            order.append(name)
            yield name

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    watching = asyncio.ensure_future(others())
    taken = await asyncio.gather(*(in_pieces(items(name)) for name in "abc"))
    watching.cancel()
    assert taken == [["a"] * 20, ["b"] * 20, ["c"] * 20]
    assert order == ["a"] * 20 + ["b"] * 20 + ["c"] * 20
    assert turns > 15


def test_long_work_on_several_event_loops() -> None:
    """Each event loop has its own order, one after the other and in several threads."""

    async def work(_: int) -> int:
        return sum(len(each) for each in await asyncio.gather(*(in_pieces(range(100_000)) for _ in range(3))))

    with ThreadPoolExecutor(2) as pool:
        assert [*pool.map(lambda n: asyncio.run(work(n)), range(4))] == [300_000] * 4


@pytest.mark.long
@pytest.mark.both(False, because="rows that are no rows reach no database")
def test_bulks_of_faults_cost_others_little(serve: Callable[..., Server], capsys: pytest.CaptureFixture[str]) -> None:
    """While a real server refuses many large bulks at once, its memory stays small and others are answered."""
    server = serve()
    status = Path(f"/proc/{server.process.pid}/status")
    if not status.exists():
        pytest.skip("How much memory a process has is told on Linux.")
    row = json.dumps({f"key {n:02}": 0 for n in range(32)}).encode()
    body = (b"\n".join([row] * MAX_ROWS))[: 2**22 - 1].rpartition(b"\n")[0]
    waits, memory = [], [0]
    with httpx2.Client(base_url=server.url, timeout=60) as client, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(post_bulk, client, body, "", NDJSON) for _ in range(8)]
        while not all(answer.done() for answer in answers):
            began = time.perf_counter()
            assert client.get("/students/1").is_success
            waits.append(time.perf_counter() - began)
            memory.append(int(status.read_text().partition("VmRSS:")[2].split()[0]) // 1024)
    assert {answer.result().status_code for answer in answers} == {200}
    longest = max(len(answer.result().content) for answer in answers)
    report(
        capsys, f"others waited {median(waits):.3f} s, at most {max(waits):.3f} s; {max(memory)} MB, {longest:,} bytes"
    )
    assert median(waits) < 0.05
    assert max(memory) < 200
    assert longest < 3_000_000


@pytest.mark.parametrize("query", ["", "atomic=true", "dry_run=true", "atomic=true&dry_run=true", "atomic=false"])
@pytest.mark.parametrize(("body", "media_type"), [(b"[]", JSON), (b"", NDJSON), (b"\n\n", NDJSON)])
def test_no_rows(client: TestClient, query: str, body: bytes, media_type: str) -> None:
    """A bulk of no rows has no results."""
    answer = post_bulk(client, body, query, media_type)
    totals = {"enrolled": 0, "waitlisted": 0, "refused": 0}
    assert (answer.status_code, answer.json()) == (200, {"results": [], "totals": totals})


@pytest.mark.both(False, because="what is refused here reaches no database")
@pytest.mark.parametrize(
    ("rows", "query", "media_type", "refused"),
    [
        ([], "", "text/plain", (415, "unsupported_media_type")),
        ([], "", "application/merge-patch+json", (415, "unsupported_media_type")),
        (b"[{]", "", JSON, (400, "malformed_json")),
        (b"", "", JSON, (400, "malformed_json")),
        ({}, "", JSON, (422, "invalid_payload")),
        (pair(1, 1), "", JSON, (422, "invalid_payload")),
        ([pair(1, 1)] * (MAX_ROWS + 1), "", JSON, (422, "invalid_payload")),
        ([pair(1, 1)] * (MAX_ROWS + 1), "", NDJSON, (422, "invalid_payload")),
        ([pair(1, 1)] * (MAX_WHOLE + 1), "atomic=true", JSON, (422, "invalid_payload")),
        ([pair(1, 1)] * (MAX_WHOLE + 1), "dry_run=true", NDJSON, (422, "invalid_payload")),
        ([pair(1, 1)], "atomic=1", JSON, (422, "invalid_query")),
        ([pair(1, 1)], "atomic=true&atomic=true", JSON, (422, "invalid_query")),
        ([pair(1, 1)], "dry-run=true", JSON, (422, "invalid_query")),
        (b"[]" + b" " * 2**22, "", JSON, (413, "payload_too_large")),
    ],
)
def test_what_is_no_bulk(
    client: TestClient, rows: object, query: str, media_type: str, refused: tuple[int, str]
) -> None:
    """A body or a query that is wrong as a whole is refused as a whole, and no row of it is kept."""
    add_course(client, None, 0)
    assert refusal(post_bulk(client, rows, query, media_type)) == refused
    assert standing(client) == ([], [])


def test_as_much_as_fits(client: TestClient, path: Path) -> None:
    """10,000 rows, or 2,000 at once, in a body of 4 MiB are accepted, with a length or in chunks."""
    assert (MAX_ROWS, MAX_WHOLE) == (10_000, 2_000)
    for _ in range(2):
        add_course(client, None, 0)
    most = json.dumps([pair(student, 1) for student in range(1, MAX_ROWS + 1)]).encode().ljust(2**22)
    assert post_bulk(client, most).json()["totals"]["enrolled"] == MAX_ROWS
    whole = json.dumps([pair(student, 2) for student in range(1, MAX_WHOLE + 1)]).encode().ljust(2**22)

    def chunks(body: bytes) -> Iterator[bytes]:
        for at in range(0, len(body), 2**16):
            yield body[at : at + 2**16]

    for body, status in ((whole + b" ", 413), (whole, 200)):
        headers = {"content-type": JSON}
        answer = client.post("/enrollments?atomic=true", content=chunks(body), headers=headers)
        assert answer.status_code == status
    assert answer.json()["totals"]["enrolled"] == MAX_WHOLE
    assert len(audit(path)) == MAX_ROWS + MAX_WHOLE


# The same as single calls


@pytest.fixture
def twins(path: Path | str, request: pytest.FixtureRequest) -> Iterator[dict[Path | str, TestClient]]:
    """Give two databases that are alike, each with a client of an app of its own."""
    with (
        another_school(path, request) as other,
        TestClient(create_app(Settings(database_url=str(path)))) as first,
        TestClient(create_app(Settings(database_url=str(other)))) as second,
    ):
        yield {path: first, other: second}


def comparable(result: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a result the moment, which differs."""
    enrollment = result.get("enrollment", {})
    return result | (
        {"enrollment": enrollment | {"enrolled_at": bool(enrollment["enrolled_at"])}} if enrollment else {}
    )


limits = st.sampled_from([0, 1, 2, None])
some_rows: list[Any] = [(student, course) for student in (1, 2, 3, 4, 5) for course in (0, 1)] * 2
some_rows += [(STUDENTS + 1, 0), (1, 2), *(no_row for no_row, _ in NO_ROWS[::4])]


@pytest.mark.long
@settings(
    deadline=None,
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    seats=st.lists(st.tuples(limits, limits), min_size=2, max_size=2),
    rows=st.builds(lambda rows, count: rows[:count], st.permutations(some_rows), st.integers(0, len(some_rows))),
    media_type=st.sampled_from([JSON, NDJSON]),
    flags=st.fixed_dictionaries({"atomic": st.booleans(), "dry_run": st.booleans()}),
)
def test_a_bulk_is_its_single_calls(
    twins: dict[Path | str, TestClient],
    seats: list[tuple[int | None, int | None]],
    rows: list[Any],
    media_type: str,
    flags: dict[str, bool],
) -> None:
    """Each row gets what the single call gives on a second database, and leaves what that call leaves."""
    (path, client), (single_path, single_client) = twins.items()
    before, single_before = len(audit(path)), len(audit(single_path))
    for some in twins.values():
        ids = [int(add_course(some, *limit).rpartition("/")[2]) for limit in seats]
    ids += [2**40]  # No course has this id.
    sent = [pair(row[0], ids[row[1]]) if isinstance(row, tuple) else row for row in rows]
    expected: list[Any] = []
    for row, value in zip(rows, sent, strict=True):
        if isinstance(row, tuple):
            answer = post(single_client, row[0], ids[row[1]])
            kind = "enrollment" if answer.is_success else "problem"
            expected.append(comparable({"status": answer.status_code, kind: answer.json()}))
        else:
            (alone,) = post_bulk(single_client, [value]).json()["results"]
            expected.append(alone)
    refused = {at: result["problem"] for at, result in enumerate(expected) if "problem" in result}
    query = "&".join(f"{name}={str(flag).lower()}" for name, flag in flags.items())
    answer = post_bulk(client, sent, query, media_type)
    undone = flags["atomic"] and refused
    if undone:
        assert refusal(answer) == (409, "bulk_refused")
        assert answer.json()["errors"] == [
            {"pointer": f"#/{at}", "code": problem["code"], "detail": problem["detail"]}
            for at, problem in refused.items()
        ]
    else:
        statuses = [result.get("enrollment", {}).get("status", "refused") for result in expected]
        totals = {status: statuses.count(status) for status in ("enrolled", "waitlisted", "refused")}
        assert answer.status_code == 200
        assert [comparable(result) for result in answer.json()["results"]] == expected
        assert answer.json()["totals"] == totals
    kept = [] if undone or flags["dry_run"] else audit(single_path)[single_before:]
    assert audit(path)[before:] == kept


def test_the_rules_without_http(db: pw.SqliteDatabase, path: Path) -> None:
    """In a host's own transaction a bulk is kept or undone with it, and a slice takes one row at the least."""
    insert_course(db, "Logic", "A1", 2, 1)
    rows: list[Row] = [(student, 1) for student in (1, 2, 3, 4)]
    with db.atomic() as transaction:
        assert [getattr(result, "status", None) for result in enroll_many(db, rows)] == [
            *["enrolled"] * 2,
            "waitlisted",
            None,
        ]
        transaction.rollback()
    assert audit(path) == []
    with db.atomic():
        with pytest.raises(BulkRefused, match="1 of 4 rows") as raised:
            enroll_all(db, rows, atomic=True)
        assert raised.value.refusals.keys() == {3}
        assert len(enroll_all(db, rows, dry_run=True)) == 4
        assert len(enroll_many(db, [(5, 1), (6, 1)], seconds=-1)) == 1
    assert audit(path) == [("enrolled", 5, 1)]


@pytest.mark.parametrize("work", [enroll_many, enroll_all])
def test_a_host_waits_its_turn(
    db: pw.Database, path: Path | str, work: Callable[[pw.Database, list[Row]], list[Result]]
) -> None:
    """With no transaction of the host's own, a bulk waits for another program's to end, as single calls do."""
    insert_course(db, "Logic", "A1")

    def bulk() -> list[Result]:
        with db.connection_context():
            return work(db, [(1, 1)])

    with ThreadPoolExecutor(1) as pool:
        with writing(path) as other:
            waiting = pool.submit(bulk)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.2)
            other.execute("INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (3, 1, '2026-01-01')")
        assert len(waiting.result()) == 1
    assert [student for _, student, _ in audit(path)] == [3, 1]


# In slices


@pytest.mark.parametrize("query", ["", "atomic=true", "dry_run=true"])
def test_a_slice_that_breaks_leaves_nothing(
    client: TestClient, path: Path | str, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    """When the database fails at a row, and no rule refuses it, the slice is not kept half."""
    monkeypatch.setattr(enroll_many, "__defaults__", (60.0,))  # However slow the machine is, it is one slice.
    add_course(client, None, 0)
    breaks = {"sqlite": "SELECT json_extract('{', '$')", "postgresql": "PERFORM missing()"}
    with host_rule(path, "AFTER INSERT ON enrollments", breaks, when="NEW.student_id = 3"):
        answer = post_bulk(client, [pair(student, 1) for student in (1, 2, 3, 4)], query)
    assert refusal(answer) == (503, "storage_unavailable")
    assert "Nothing was kept." in answer.json()["detail"]
    assert audit(path) == []


# A program's own trigger that makes a row slow, so that a bulk has many slices on any machine.
SLOW = {
    "sqlite": "SELECT (WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 200) SELECT max(x)"
    " FROM n)",
    "postgresql": "PERFORM max(x) FROM generate_series(1, 200) AS x",
}
"""What a trigger does that takes a while."""


@pytest.mark.long
def test_bulks_at_once_do_not_oversell(client: TestClient, path: Path, kind: str) -> None:
    """Bulks of two servers on one file share the seats and places that there are, and each answer is a fact."""
    many = STUDENTS if kind == "sqlite" else STUDENTS // 5  # Several slices, of some milliseconds each, on either.
    seats, places = 3 * many // 10, many // 5
    add_course(client, seats, places)
    rows = [pair(student, 1) for student in range(1, many + 1)]
    with TestClient(create_app(Settings(database_url=str(path)))) as other, ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(post_bulk, (client, other), (rows, rows[::-1])))
    told = [
        ("enrolled" if result["enrollment"]["enrolled_at"] else "waitlisted", result["enrollment"]["student_id"], 1)
        for answer in answers
        for result in answer.json()["results"]
        if "enrollment" in result
    ]
    assert sorted(told) == sorted(audit(path))
    assert len(told) == seats + places
    assert min(answer.json()["totals"]["refused"] for answer in answers) < len(rows)


@pytest.mark.both(False, because="it takes the file away; tests/test_postgresql.py takes the server away")
def test_a_failure_between_slices(client: TestClient, path: Path) -> None:
    """When the file goes away in the middle, rows that were answered 201 are kept, and each of the rest is a 503."""
    add_course(client, None, 0)
    slow = host_rule(path, "AFTER INSERT ON enrollments", SLOW)
    rows = [pair(student, 1) for student in range(1, STUDENTS + 1)]
    with slow, ThreadPoolExecutor(1) as pool, closing(sqlite3.connect(path)) as connection:
        answering = pool.submit(post_bulk, client, rows)
        sizes: set[int] = set()
        while len(sizes - {0}) < 2:  # The first slice is settled once the second one is there.
            assert not answering.done()
            sizes.update(connection.execute("SELECT count(*) FROM enrollments").fetchone())
        away = path.rename(path.with_name("away.db"))
        answer = answering.result()
        assert refusal(post_bulk(client, rows)) == (503, "storage_unavailable")
        away.rename(path)
    statuses = [result["status"] for result in answer.json()["results"]]
    done = statuses.count(201)
    assert statuses == [201] * done + [503] * (len(rows) - done)
    assert 0 < done < len(rows)
    assert answer.json()["totals"] == {"enrolled": done, "waitlisted": 0, "refused": len(rows) - done}
    problem = answer.json()["results"][-1]["problem"]
    assert (problem["code"], problem["status"]) == ("storage_unavailable", 503)
    assert {student for _, student, _ in audit(path)} >= set(range(1, done + 1))
    again = post_bulk(client, rows).json()
    assert {result["status"] for result in again["results"]} == {201, 409}
    assert len(audit(path)) == len(rows)


@pytest.mark.both(False, because="it measures what SQLite does in this thread")
@pytest.mark.parametrize(
    ("outcome", "seats"),
    [("enrolled", (None, 0)), ("waitlisted", (0, None)), ("refused", (0, 0))],
)
def test_no_unit_of_work_is_long(
    db: pw.SqliteDatabase,
    path: Path,
    capsys: pytest.CaptureFixture[str],
    outcome: str,
    seats: tuple[int | None, int | None],
) -> None:
    """No slice of 10,000 rows, nor 2,000 rows at once, holds the writer for long, and rows are fast."""

    def timed(work: Callable[..., list[Result]], *args: object) -> Callable[[pw.Database], tuple[int, float]]:
        def unit(db: pw.Database) -> tuple[int, float]:
            sys.settrace(None)  # Whoever counts the lines that are run would be measured, too.
            began = time.thread_time()  # What else the machine does is not the service's.
            results = work(db, *args)
            took = time.thread_time() - began
            assert {getattr(result, "status", "refused") for result in results} == {outcome}
            return len(results), took

        return unit

    async def run(course: int) -> tuple[list[float], float]:
        rows: list[Row] = [(student, course) for student in range(1, STUDENTS + 1)]
        at_once = [await store.write(timed(enroll_all, rows[:MAX_WHOLE], False, True), alone=True) for _ in range(5)]
        done, slices = 0, []
        while done < len(rows):
            count, took = await store.write(timed(enroll_many, rows[done:]), alone=True)
            slices.append(took)
            done += count
        return slices, min(took for _, took in at_once)  # The machine's own moments are not the service's either.

    store = Store(path, busy_timeout=5, max_pending_writes=9)
    gc.freeze()  # What other tests left for the collector is not the service's either.
    try:
        slices, whole = asyncio.run(run(insert_course(db, "Logic", "A1", *seats).id))
    finally:
        gc.unfreeze()
        store.close()
    speed = STUDENTS / sum(slices)
    report(capsys, f"{outcome}: {speed:,.0f} rows/s, longest slice {max(slices):.3f} s, 2,000 at once {whole:.3f} s")
    assert median(slices) < 0.05
    assert max(quantiles(slices, n=10)[-1], whole) < 0.1
    assert speed > 10_000


@pytest.mark.long
def test_others_are_served_meanwhile(
    serve: Callable[..., Server], path: Path | str, capsys: pytest.CaptureFixture[str]
) -> None:
    """While a real server enrolls 10,000 rows, reads and writes of others are answered between its slices."""
    url = serve().url
    waits: dict[str, list[float]] = {"GET": [], "PUT": []}
    reached: set[int] = set()
    with (
        host_rule(path, "AFTER INSERT ON enrollments", SLOW),
        httpx2.Client(base_url=url) as client,
        httpx2.Client(base_url=url, timeout=30) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        for _ in range(2):
            add_course(client, None, 0)
        answering = pool.submit(post_bulk, other, [pair(student, 1) for student in range(1, STUDENTS + 1)])
        for student in range(1, STUDENTS + 1):
            for method, where in (("PUT", f"/students/{student}/courses/2"), ("GET", "/courses/1")):
                began = time.perf_counter()
                answer = client.request(method, where)
                waits[method].append(time.perf_counter() - began)
                assert answer.is_success
            reached.add(answer.json()["enrolled"])
            if answering.done():
                break
    assert answering.result().json()["totals"] == {"enrolled": STUDENTS, "waitlisted": 0, "refused": 0}
    for method, times in waits.items():
        report(capsys, f"{method} during 10,000 rows: median {median(times):.3f} s, longest {max(times):.3f} s")
        assert median(times) < 0.1
        assert max(times) < 1
    assert len(reached - {0, STUDENTS}) > 3
    audit(path)


HOST_RULES = {
    "none": "",
    "it writes too": "UPDATE students SET name = 'host' WHERE id = NEW.student_id;",
    "it refuses": "SELECT raise(ABORT, 'not this one');",
    "it breaks off": "SELECT raise(FAIL, 'not this one');",
}


@pytest.mark.both(False, because="it is about the statement that SQLite enrolls many with")
@pytest.mark.parametrize("rule", HOST_RULES)
def test_many_seats_at_once(
    db: pw.SqliteDatabase, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    """Where many pairs get seats by one statement, all is as if each had a statement of its own."""
    full = insert_course(db, "Full", "1", capacity=40, waitlist_capacity=20).id
    wide = insert_course(db, "Wide", "1").id
    if HOST_RULES[rule]:
        db.execute_sql(
            f"CREATE TRIGGER host AFTER INSERT ON enrollments WHEN NEW.student_id = 333 BEGIN {HOST_RULES[rule]} END"
        )
    rows: list[Row] = [(student, wide) for student in range(1, 700)]
    rows[444:444] = [(STUDENTS + 9, wide), (3, wide)]
    rows += [(student, full) for student in range(1, 300)]
    rows += [(student, wide) for student in range(2000, 2600)]
    db.execute_sql("VACUUM INTO ?", (str(tmp_path / "other.db"),))
    told: list[object] = []
    for place, together in (path, 50), (tmp_path / "other.db", 10**9):
        monkeypatch.setattr(inserting, "TOGETHER", together)
        with closing(connect(place)) as target:
            try:
                results: Any = [str(result) for result in enroll_all(target, rows)]
            except ConstraintViolated as error:
                results = str(error)
            events = target.execute_sql("SELECT id, type, student_id, course_id, filed FROM enrollment_events")
            told.append((re.sub("[0-9-]{10}T[0-9:.]{12}Z", "", str(results)), events.fetchall()))
        audit(place)
    assert told[0] == told[1]
    assert (len(cast("Any", told[0])[1]) > 1300) == (rule != "it breaks off")


@pytest.mark.both(False, because="it counts the statements of SQLite")
def test_external_ids_are_looked_up_together(db: pw.SqliteDatabase) -> None:
    """A bulk looks up the external ids of many rows with one statement, and enrolls as one by ids does."""
    insert_course(db, "Wide", "1", external_id="wide")
    db.execute_sql("UPDATE students SET external_id = 'S' || id WHERE id < 600")
    rows: list[Row] = [(ExternalId(f"S{student}"), ExternalId("wide")) for student in [*range(1, 600), "none"]]
    asked: list[str] = []
    db.connection().set_trace_callback(asked.append)
    *enrolled, missing = enroll_all(db, rows)
    db.connection().set_trace_callback(None)
    assert [sum(f"FROM {table} WHERE external_id" in sql for sql in asked) for table in ("students", "courses")] == [
        2,
        1,
    ]
    assert [cast("Any", each).student_id for each in enrolled] == [*range(1, 600)]
    assert str(missing) == "No student has the external id 'Snone'."


@pytest.mark.both(False, because="a trigger of PostgreSQL cannot undo the transaction")
def test_a_statement_that_undoes_all(db: pw.SqliteDatabase, path: Path) -> None:
    """Where a trigger of another program undoes the transaction, nothing of it is kept."""
    course = insert_course(db, "Wide", "1").id
    undo = "BEGIN SELECT raise(ROLLBACK, 'no'); END"
    db.execute_sql(f"CREATE TRIGGER host AFTER INSERT ON enrollments WHEN NEW.student_id = 333 {undo}")
    db.execute_sql("BEGIN IMMEDIATE")
    with pytest.raises(ConstraintViolated):
        enroll_each(db, [(student, course) for student in range(1, 700)])
    assert not db.connection().in_transaction
    assert db.execute_sql("SELECT count(*) FROM enrollments").fetchall() == [(0,)]
    audit(path)


@pytest.mark.both(False, because="tests/test_postgresql_rules.py says how many pairs PostgreSQL enrolls in one go")
def test_a_slice_ends(db: pw.SqliteDatabase) -> None:
    """After its time no further pair is begun, and no further statement for many."""
    full = insert_course(db, "Full", "1", capacity=300).id
    rows = [(student, full) for student in range(1, 700)]
    done = 0
    for expected in (inserting.TOGETHER, 1, 1):
        with db.atomic():
            assert len(enroll_each(db, rows[done:], until=0)) == expected
        done += expected
