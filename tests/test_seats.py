"""Seats and waitlists: limits that hold, strict order in line, and a database that keeps its own books."""

import sqlite3
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx2
import peewee as pw
import pytest
from answers import COURSE, SHOWN
from invariants import ALL, check_feeds
from starlette.testclient import TestClient

from service import Settings, connect, create_app, migrate
from service.enrollments import drop, enroll, list_roster, list_waitlist
from service.errors import MigrationFailed
from service.events import list_events
from service.http.problems import PROBLEMS
from service.storage import fetch, models
from service.storage.sqlite import schema
from service.storage.sqlite.schema import rollback

pytestmark = pytest.mark.both

SEATS = "003_seats_and_events"
LONG_AGO = "2026-01-01T00:00:00.000Z"


@pytest.fixture(autouse=True)
def _students(db: pw.SqliteDatabase) -> None:
    """Have the students 1 to 8."""
    db.execute_sql(
        "INSERT INTO students (name) VALUES ('Ada'), ('Bo'), ('Cy'), ('Di'), ('Ed'), ('Flo'), ('Gus'), ('Hal')"
    )


def add_course(client: httpx2.Client, capacity: int | None, waitlist_capacity: int | None, *students: int) -> str:
    """Add a course, put students in it in their order, and give its URL."""
    seats = {"capacity": capacity, "waitlist_capacity": waitlist_capacity}
    url: str = client.post("/courses", json={"name": "Logic", "level": "A1", **seats}).headers["location"]
    for student in students:
        assert put(client, student, int(url.rpartition("/")[2])).status_code == 201
    return url


def post(client: httpx2.Client, student_id: int, course_id: int) -> httpx2.Response:
    """Enroll with a POST."""
    return client.post(f"/students/{student_id}/courses", json={"course_id": course_id})


def put(client: httpx2.Client, student_id: int, course_id: int) -> httpx2.Response:
    """Enroll with a PUT."""
    return client.put(f"/students/{student_id}/courses/{course_id}")


def leave(client: httpx2.Client, student_id: int, course_id: int) -> None:
    """Drop with a DELETE."""
    assert client.delete(f"/students/{student_id}/courses/{course_id}").status_code == 204


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    """Check that an answer is a problem of the table, and give its status and code."""
    code = answer.json()["code"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["type"]) == (PROBLEMS[code].status, f"/problems/{code}")
    return answer.status_code, code


def standing(client: httpx2.Client, course_id: int = 1) -> tuple[list[int], list[int]]:
    """Give who is enrolled, by id, and who waits, in line; the course's own counts must say the same."""
    roster = client.get(f"/courses/{course_id}/students?limit=1000").json()
    waitlist = client.get(f"/courses/{course_id}/waitlist?limit=1000").json()
    course = client.get(f"/courses/{course_id}").json()
    assert (course["enrolled"], course["waitlisted"]) == (len(roster), len(waitlist))
    assert [row["position"] for row in waitlist] == [*range(1, len(waitlist) + 1)]
    return [row["id"] for row in roster], [row["id"] for row in waitlist]


def audit(path: Path | str) -> list[tuple[str, int, int]]:
    """Check all that must always hold, and give the feed as (type, student, course).

    Nobody holds a seat or a place beyond the limits, no seat is empty while someone waits, the
    counts are those of the rows, and the feed folds to the rows, each waitlist in its order.
    """
    with closing(connect(path)) as db:
        return audited(db)


def audited(db: pw.Database) -> list[tuple[str, int, int]]:
    """Do what `audit` does, with a connection."""
    courses = fetch(db, "SELECT id, capacity, waitlist_capacity, enrolled, waitlisted FROM courses")
    rows = fetch(db, "SELECT course_id, waiting IS NOT NULL, student_id FROM enrollments ORDER BY 1, 2, waiting, 3")
    feed: Any = fetch(db, "SELECT type, student_id, course_id FROM enrollment_events ORDER BY id")
    check_feeds(db, list_events(db, limit=ALL))
    stored = {key: [row[2] for row in group] for key, group in groupby(rows, lambda row: (row[0], row[1]))}
    for course_id, capacity, waitlist_capacity, enrolled, waitlisted in courses:
        seats, line = stored.get((course_id, 0), []), stored.get((course_id, 1), [])
        assert (enrolled, waitlisted) == (len(seats), len(line))
        assert capacity is None or enrolled <= capacity
        assert waitlist_capacity is None or waitlisted <= waitlist_capacity
        assert not waitlisted or enrolled == capacity
    folded: dict[tuple[int, int], dict[int, None]] = defaultdict(dict)
    for kind, student, course in feed:
        seats_then, line_then = folded[course, 0], folded[course, 1]
        if kind == "promoted":
            assert next(iter(line_then)) == student
            del line_then[student]
        elif kind == "dropped":
            del (seats_then if student in seats_then else line_then)[student]
        else:
            assert student not in seats_then
            assert student not in line_then
        if kind != "dropped":
            (line_then if kind == "waitlisted" else seats_then)[student] = None
    in_order = {key: [*students] if key[1] else sorted(students) for key, students in folded.items() if students}
    assert in_order == stored
    told: list[tuple[str, int, int]] = feed
    return told


def undo_seats(path: Path) -> None:
    """Roll back to before the migration that brought seats."""
    while rollback(path) != SEATS:
        pass


def run_script(path: Path, sql: str) -> None:
    """Run SQL as another program would, with SQLite's own defaults."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)


def dump(path: Path | str) -> list[tuple[Any, ...]]:
    """Give all rows of the database that the rules are about."""
    tables = "students", "courses", "terms", "enrollments", "enrollment_events", "event_notes"
    with closing(connect(path)) as db:
        return [row for table in tables for row in fetch(db, f"SELECT * FROM {table} ORDER BY 1, 2")]


def dump_of_file(path: Path) -> list[str]:
    """Give the statements that make a file anew, whatever its schema is, all its rows among them."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


Enroll = Callable[[httpx2.Client, int, int], httpx2.Response]
both = pytest.mark.parametrize("enroll_by", [post, put])


# The course


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, {"capacity": None, "waitlist_capacity": 0, "seats_left": None, "availability": "open"}),
        ({"capacity": 2}, {"capacity": 2, "waitlist_capacity": 0, "seats_left": 2, "availability": "open"}),
        ({"capacity": 0}, {"capacity": 0, "waitlist_capacity": 0, "seats_left": 0, "availability": "full"}),
        (
            {"capacity": 0, "waitlist_capacity": 1},
            {"capacity": 0, "waitlist_capacity": 1, "seats_left": 0, "availability": "waitlist"},
        ),
        (
            {"capacity": 0, "waitlist_capacity": None},
            {"capacity": 0, "waitlist_capacity": None, "seats_left": 0, "availability": "waitlist"},
        ),
        (
            {"capacity": None, "waitlist_capacity": 2**63 - 1},
            {"capacity": None, "waitlist_capacity": 2**63 - 1, "seats_left": None, "availability": "open"},
        ),
    ],
)
def test_a_course_shows_its_seats(client: TestClient, given: dict[str, Any], shown: dict[str, Any]) -> None:
    """A course's limits have defaults, may be null or 0, and it shows in every place what is left."""
    answer = client.post("/courses", json={"name": "Logic", "level": "A1", **given})
    course = {"id": 1, "name": "Logic", "level": "A1", "enrolled": 0, "waitlisted": 0, **shown, **COURSE}
    assert (answer.status_code, answer.json()) == (201, course)
    assert client.get("/courses/1").json() == client.patch("/courses/1", json={}).json() == course
    for url in ("/courses", "/courses?name=l", "/courses?level=A1", "/courses?name=l&level=A1"):
        assert client.get(url).json() == [course]


@pytest.mark.parametrize("key", ["capacity", "waitlist_capacity"])
@pytest.mark.parametrize("value", [True, 1.0, "1", -1, 2**63, []])
def test_a_capacity_is_null_or_an_integer(client: TestClient, key: str, value: object) -> None:
    """A capacity that is neither null nor an integer from 0 is a fault of its key, in POST and in PATCH."""
    url = add_course(client, 1, 1)
    for answer in (
        client.post("/courses", json={"name": "Logic", "level": "A1", key: value}),
        client.patch(url, json={key: value}),
    ):
        assert refusal(answer) == (422, "invalid_payload")
        assert [error["pointer"] for error in answer.json()["errors"]] == [f"#/{key}"]


def test_a_course_fills(client: TestClient) -> None:
    """As a course fills it is open, then has a waitlist, then is full, and back again."""
    url = add_course(client, 1, 1)

    def shown() -> tuple[object, ...]:
        return tuple(client.get(url).json()[key] for key in ("enrolled", "waitlisted", "seats_left", "availability"))

    states = [(0, 0, 1, "open"), (1, 0, 0, "waitlist"), (1, 1, 0, "full")]
    assert shown() == states[0]
    for student, state in zip((1, 2), states[1:], strict=True):
        post(client, student, 1)
        assert shown() == state
    for student, state in zip((1, 2), reversed(states[:2]), strict=True):
        leave(client, student, 1)
        assert shown() == state


# Enrolling and dropping


@both
def test_a_full_course_puts_the_next_in_line(client: TestClient, path: Path, enroll_by: Enroll) -> None:
    """On a full course students are waitlisted in the order they come; when the list is full, refused."""
    add_course(client, 1, 2, 5)
    for student, position in ((4, 1), (3, 2)):
        answer = enroll_by(client, student, 1)
        waiting = {"enrolled_at": None, "status": "waitlisted", "position": position}
        assert (answer.status_code, answer.json()) == (201, {"student_id": student, "course_id": 1, **waiting})
        assert answer.headers["location"] == f"/students/{student}/courses/1"
        assert client.get(answer.headers["location"]).json() == answer.json()
    assert refusal(enroll_by(client, 2, 1)) == (409, "course_full")
    assert standing(client) == ([5], [4, 3])
    assert len(audit(path)) == 3


@both
def test_a_course_without_a_waitlist_is_full(client: TestClient, enroll_by: Enroll) -> None:
    """Without a waitlist a full course refuses the next student, even one with no seats at all."""
    add_course(client, 1, 0, 1)
    add_course(client, 0, 0)
    assert refusal(enroll_by(client, 2, 1)) == refusal(enroll_by(client, 2, 2)) == (409, "course_full")
    assert standing(client) == ([1], [])


def test_a_second_time(client: TestClient) -> None:
    """A second POST says which state stands against it, a second PUT gives that state, however full the course is."""
    add_course(client, 1, 1, 1, 2)
    for student, code in ((1, "already_enrolled"), (2, "already_waitlisted")):
        found = client.get(f"/students/{student}/courses/1").json()
        assert refusal(post(client, student, 1)) == (409, code)
        again = put(client, student, 1)
        assert (again.status_code, again.json()) == (200, found)
    assert standing(client) == ([1], [2])
    for enroll_by in (post, put):
        assert refusal(enroll_by(client, 9, 1)) == (404, "student_not_found")
        assert refusal(enroll_by(client, 9, 9)) == (404, "student_not_found")
        assert refusal(enroll_by(client, 3, 9)) == (404, "course_not_found")


def test_a_freed_seat_goes_to_the_head_of_the_line(client: TestClient, path: Path) -> None:
    """Who drops frees the seat for who waits longest, in one step; the others move up."""
    add_course(client, 2, None, 1, 2, 8, 3, 5)
    before = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    leave(client, 1, 1)
    assert standing(client) == ([2, 8], [3, 5])
    promoted = client.get("/students/8/courses/1").json()
    assert (promoted["status"], promoted["position"]) == ("enrolled", None)
    assert before <= promoted["enrolled_at"] <= datetime.now(UTC).isoformat(timespec="milliseconds")
    assert put(client, 8, 1).json() == promoted
    assert audit(path)[-2:] == [("dropped", 1, 1), ("promoted", 8, 1)]
    assert refusal(client.delete("/students/1/courses/1")) == (404, "enrollment_not_found")
    assert refusal(client.get("/students/1/courses/1")) == (404, "enrollment_not_found")


def test_leaving_the_line_closes_the_gap(client: TestClient, path: Path) -> None:
    """Who leaves the waitlist gives up the place for good: the others move up, and coming back is at the end."""
    add_course(client, 1, 4, 1, 7, 6, 5, 4)
    leave(client, 6, 1)
    assert standing(client) == ([1], [7, 5, 4])
    assert put(client, 6, 1).json()["position"] == 4
    leave(client, 4, 1)
    assert client.get("/students/6/courses/1").json()["position"] == 3
    assert standing(client) == ([1], [7, 5, 6])
    audit(path)


def test_the_line_survives_a_restart(client: TestClient, path: Path) -> None:
    """The order in line is the file's: after a restart it goes on as it was."""
    add_course(client, 1, None, 1, 8, 2, 7)
    with TestClient(create_app(Settings(database_url=str(path)))) as restarted:
        assert standing(restarted) == ([1], [8, 2, 7])
        assert put(restarted, 3, 1).json()["position"] == 4
        for student in (1, 8):
            leave(restarted, student, 1)
        assert standing(restarted) == ([2], [7, 3])
    audit(path)


def test_a_host_can_roll_all_of_it_back(db: pw.SqliteDatabase, client: TestClient, path: Path) -> None:
    """In a host's transaction a drop, its promotion and what they freed are undone together."""
    add_course(client, 1, None, 1, 2)
    with db.atomic() as transaction:
        drop(db, 1, 1)
        assert [row.id for row in list_roster(db, 1)] == [2]
        assert enroll(db, 1, 1).position == 1
        assert [row.id for _, row in list_waitlist(db, 1)] == [1]
        transaction.rollback()
    assert standing(client) == ([1], [2])
    assert len(audit(path)) == 2


# PATCH


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"capacity": 3}, ([1, 7, 8], [6, 5])),
        ({"capacity": 100}, ([1, 5, 6, 7, 8], [])),
        ({"capacity": None}, ([1, 5, 6, 7, 8], [])),
        ({"capacity": 1}, ([1], [8, 7, 6, 5])),
        ({"name": "New"}, ([1], [8, 7, 6, 5])),
        ({"waitlist_capacity": 4}, ([1], [8, 7, 6, 5])),
        ({"waitlist_capacity": None}, ([1], [8, 7, 6, 5])),
        ({"capacity": 4, "waitlist_capacity": 1}, ([1, 6, 7, 8], [5])),
        ({"waitlist_capacity": 0, "capacity": 5}, ([1, 5, 6, 7, 8], [])),
    ],
)
def test_a_raised_capacity_promotes(
    client: TestClient, path: Path, changes: dict[str, Any], expected: tuple[list[int], list[int]]
) -> None:
    """A PATCH gives as many as fit a seat, in their order, and its answer shows the course after that."""
    url = add_course(client, 1, 10, 1, 8, 7, 6, 5)
    answer = client.patch(url, json=changes)
    assert (answer.status_code, answer.json()) == (200, client.get(url).json())
    assert answer.json().items() >= changes.items()
    assert standing(client) == expected
    line = [8, 7, 6, 5]
    assert audit(path)[5:] == [("promoted", student, 1) for student in line[: len(line) - len(expected[1])]]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"capacity": 1}, "capacity_below_enrolled"),
        ({"capacity": 0, "name": "New"}, "capacity_below_enrolled"),
        ({"capacity": 1, "waitlist_capacity": 0}, "capacity_below_enrolled"),
        ({"waitlist_capacity": 2}, "waitlist_capacity_below_waitlisted"),
        ({"waitlist_capacity": 0, "name": "New"}, "waitlist_capacity_below_waitlisted"),
        ({"waitlist_capacity": 1, "capacity": 3}, "waitlist_capacity_below_waitlisted"),
    ],
)
def test_a_limit_below_what_it_limits_is_refused(
    client: TestClient, path: Path, changes: dict[str, Any], code: str
) -> None:
    """Nobody loses a seat or a place to a PATCH: judged after its promotions, it is refused and changes nothing."""
    url = add_course(client, 2, 3, 1, 2, 3, 4, 5)
    without_a_line = add_course(client, 2, 0, 1, 2)
    before = dump(path)
    assert refusal(client.patch(url, json=changes)) == (409, code)
    if code == "capacity_below_enrolled":
        assert refusal(client.patch(without_a_line, json=changes)) == (409, code)
    assert dump(path) == before
    assert refusal(client.patch("/courses/9", json=changes)) == (404, "course_not_found")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"waitlist_capacity": 0, "capacity": 1, "term_id": 9, "external_id": "X"}, "external_id_taken"),
        ({"waitlist_capacity": 0, "term_id": 9, "capacity": 1}, "capacity_below_enrolled"),
        ({"waitlist_capacity": 0, "term_id": 9}, "term_not_found"),
    ],
)
def test_of_several_refusals_one_is_told(client: TestClient, path: Path, changes: dict[str, Any], code: str) -> None:
    """It is the same one on every kind of database, and never the words of a rule that nobody is said to have made."""
    url = add_course(client, 2, 1, 1, 2, 3)
    client.put("/courses/by-external-id/X", json={"name": "Other", "level": "A1"})
    before = dump(path)
    assert refusal(client.patch(url, json=changes))[1] == code
    assert dump(path) == before


# Lists


def test_the_waitlist_in_pages(client: TestClient) -> None:
    """The waitlist is paged by place: who leaves while it is read makes nobody else appear twice or never."""
    url = add_course(client, 1, None, 1, 8, 7, 6, 5, 4)
    page = client.get(f"{url}/waitlist?limit=2")
    row = {"enrolled_at": None, "status": "waitlisted"}
    assert page.json() == [
        {"id": 8, "name": "Hal", **SHOWN, **row, "position": 1},
        {"id": 7, "name": "Gus", **SHOWN, **row, "position": 2},
    ]
    leave(client, 7, 1)
    page = client.get(page.links["next"]["url"])
    assert [(row["id"], row["position"]) for row in page.json()] == [(6, 2), (5, 3)]
    leave(client, 1, 1)
    page = client.get(page.links["next"]["url"])
    assert [(row["id"], row["position"]) for row in page.json()] == [(4, 3)]
    assert "next" not in page.links
    assert client.get(f"{add_course(client, 0, 0)}/waitlist").json() == []
    assert refusal(client.get("/courses/9/waitlist")) == (404, "course_not_found")
    assert refusal(client.get(f"{url}/waitlist?limit=0&after=1")) == (422, "invalid_query")


def test_a_position_is_the_place_in_the_waitlist(db: pw.SqliteDatabase, client: TestClient) -> None:
    """Wherever a student stands in a line, with whatever gaps, the schedule and the enrollment tell the place."""
    add_course(client, 0, None, *range(1, 9))
    add_course(client, 0, None, *range(8, 0, -1))
    for gone in (2, 3, 7, 1):
        for course in (1, 2):
            lines = {line: client.get(f"/courses/{line}/waitlist").json() for line in (1, 2)}
            for line, rows in lines.items():
                assert [row["position"] for row in rows] == [*range(1, len(rows) + 1)]
                for row in rows:
                    alone = client.get(f"/students/{row['id']}/courses/{line}").json()
                    schedule = client.get(f"/students/{row['id']}/courses").json()
                    listed = next(each for each in schedule if each["id"] == line)
                    assert alone["position"] == listed["position"] == row["position"]
            drop(db, gone, course)


def test_the_schedule_shows_both_states(client: TestClient) -> None:
    """A schedule lists what a student has and waits for, or with ?status= one of the two, in pages."""
    for course, (capacity, before) in enumerate([(2, [2]), (1, [2, 3]), (None, [4]), (0, [3]), (3, [2])], 1):
        add_course(client, capacity, None, *before)
        put(client, 1, course)
    rows = client.get("/students/1/courses").json()
    assert [(row["id"], row["status"], row["position"]) for row in rows] == [
        (1, "enrolled", None),
        (2, "waitlisted", 2),
        (3, "enrolled", None),
        (4, "waitlisted", 2),
        (5, "enrolled", None),
    ]
    assert all(row.keys() == {"id", "name", "level", "enrolled_at", "status", "position"} for row in rows)
    assert all((row["enrolled_at"] is None) == (row["status"] == "waitlisted") for row in rows)
    for status in ("enrolled", "waitlisted"):
        expected = [row for row in rows if row["status"] == status]
        url, found = f"/students/1/courses?status={status}&limit=1", []
        while url:
            page = client.get(url)
            found += page.json()
            url = page.links.get("next", {}).get("url", "")
        assert found == client.get(f"/students/1/courses?status={status}").json() == expected
    assert client.get("/students/5/courses?status=waitlisted").json() == []
    assert refusal(client.get("/students/9/courses?status=waitlisted")) == (404, "student_not_found")
    for query in ("status=", "status=dropped", "status=Enrolled", "status=enrolled&status=waitlisted"):
        answer = client.get(f"/students/1/courses?{query}")
        assert refusal(answer) == (422, "invalid_query")
        assert [error["parameter"] for error in answer.json()["errors"]] == ["status"]


def test_the_roster_is_who_is_enrolled(client: TestClient) -> None:
    """A roster lists, by id and in pages, only those who have a seat."""
    url = add_course(client, 3, None, 4, 3, 2, 1)
    page = client.get(f"{url}/students?limit=2")
    assert [(row["id"], row["status"], row["position"]) for row in page.json()] == [
        (2, "enrolled", None),
        (3, "enrolled", None),
    ]
    assert page.json()[0].keys() == {"id", "name", *SHOWN, "enrolled_at", "status", "position"}
    assert [row["id"] for row in client.get(page.links["next"]["url"]).json()] == [4]
    assert client.get(f"{add_course(client, 0, None, 1)}/students").json() == []
    assert refusal(client.get("/courses/9/students")) == (404, "course_not_found")


def test_who_waits_keeps_student_and_course(client: TestClient) -> None:
    """Neither the student nor the course of a place in line is deleted before it is given up."""
    add_course(client, 0, 1, 1)
    assert refusal(client.delete("/students/1")) == (409, "student_has_enrollments")
    assert refusal(client.delete("/courses/1")) == (409, "course_has_enrollments")
    leave(client, 1, 1)
    assert client.delete("/students/1").status_code == client.delete("/courses/1").status_code == 204
    assert refusal(client.delete("/courses/1")) == (404, "course_not_found")


# Other programs on the file


@pytest.mark.both(False, because="SQLite has its own words; those of PostgreSQL are in tests/test_postgresql_rules.py")
@pytest.mark.parametrize(
    ("sql", "events"),
    [
        ("INSERT INTO enrollments VALUES (6, 2, :now, NULL, NULL)", [("enrolled", 6, 2)]),
        ("INSERT INTO enrollments VALUES (6, 1, :now, NULL, NULL)", [("waitlisted", 6, 1)]),
        ("INSERT OR IGNORE INTO enrollments VALUES (6, 1, :now, NULL, NULL)", [("waitlisted", 6, 1)]),
        ("INSERT OR FAIL INTO enrollments VALUES (6, 1, :now, NULL, NULL)", [("waitlisted", 6, 1)]),
        ("INSERT OR REPLACE INTO enrollments (student_id, course_id) VALUES (6, 1)", [("waitlisted", 6, 1)]),
        (
            "INSERT INTO enrollments (student_id, course_id) VALUES (6, 2), (6, 1)",
            [("enrolled", 6, 2), ("waitlisted", 6, 1)],
        ),
        ("INSERT INTO enrollments VALUES (6, 3, :now, NULL, NULL)", None),
        ("INSERT INTO enrollments VALUES (6, 2, NULL, NULL, NULL)", [("enrolled", 6, 2)]),
        ("INSERT INTO enrollments SELECT 6, 1, NULL, max(id) + 1, NULL FROM enrollment_events", [("waitlisted", 6, 1)]),
        ("INSERT INTO enrollments SELECT 6, 3, NULL, max(id) + 1, NULL FROM enrollment_events", None),
        ("INSERT OR IGNORE INTO enrollments SELECT 6, 3, NULL, max(id) + 1, NULL FROM enrollment_events", None),
        ("INSERT INTO enrollments SELECT 6, 2, :now, NULL, max(id) + 1 FROM enrollment_events", [("enrolled", 6, 2)]),
        ("INSERT INTO enrollments SELECT 6, 2, :now, NULL, max(id) FROM enrollment_events", [("enrolled", 6, 2)]),
        ("INSERT OR IGNORE INTO enrollments VALUES (6, 2, :now, NULL, 100)", [("enrolled", 6, 2)]),
        ("UPDATE enrollments SET event_id = NULL WHERE student_id = 1", None),
        ("UPDATE OR REPLACE enrollments SET event_id = 1 WHERE student_id = 4", None),
        ("UPDATE enrollment_events SET filed = 1", []),
        ("UPDATE enrollment_events SET filed = 0", None),
        ("UPDATE enrollment_events SET filed = 2", None),
        ("DELETE FROM enrollments WHERE student_id = 1", [("dropped", 1, 1), ("promoted", 3, 1)]),
        ("DELETE FROM enrollments WHERE student_id = 3", [("dropped", 3, 1)]),
        ("UPDATE courses SET capacity = 2", [("promoted", 3, 1), ("promoted", 5, 3)]),
        ("UPDATE courses SET capacity = NULL WHERE id = 1", [("promoted", 3, 1), ("promoted", 2, 1)]),
        ("UPDATE courses SET capacity = 0 WHERE id = 1", None),
        ("UPDATE courses SET waitlist_capacity = 1 WHERE id = 1", None),
        (
            "DELETE FROM enrollments WHERE course_id = 3",
            [("dropped", 4, 3), ("promoted", 5, 3), ("dropped", 5, 3)],
        ),
    ],
)
def test_another_program_obeys_the_same_rules(
    client: TestClient, path: Path, sql: str, events: list[tuple[str, int, int]] | None
) -> None:
    """What another program writes with plain SQL is limited, counted, promoted and told as if the service did it."""
    add_course(client, 1, 3, 1, 3, 2)
    add_course(client, None, 0)
    add_course(client, 1, 1, 4, 5)
    before = audit(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if events is None:
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(sql, {"now": LONG_AGO})
        else:
            connection.execute(sql, {"now": LONG_AGO})
    assert audit(path) == before + (events or [])


@pytest.mark.both(False, because="SQLite has its own words; those of PostgreSQL are in tests/test_postgresql_rules.py")
@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO enrollments VALUES (6, 2, NULL, 100, NULL)",
        "INSERT INTO enrollments SELECT 6, 2, NULL, max(id) + 1, NULL FROM enrollment_events",
        "INSERT INTO enrollments VALUES (6, 1, NULL, 1, NULL)",
        "INSERT OR REPLACE INTO enrollments VALUES (4, 2, :now, NULL, NULL)",
        "INSERT OR REPLACE INTO enrollments VALUES (3, 1, NULL, 100, NULL)",
        "INSERT OR IGNORE INTO enrollments VALUES (4, 2, :now, NULL, NULL)",
        "UPDATE enrollments SET course_id = 2 WHERE student_id = 1",
        "UPDATE enrollments SET course_id = 1 WHERE student_id = 4",
        "UPDATE enrollments SET student_id = 6 WHERE student_id = 3",
        "UPDATE OR REPLACE enrollments SET student_id = 3 WHERE student_id = 1",
        "UPDATE enrollments SET enrolled_at = NULL, waiting = 100 WHERE student_id = 4",
        "UPDATE enrollments SET enrolled_at = NULL, waiting = 100 WHERE student_id = 1",
        "UPDATE enrollments SET enrolled_at = :now, waiting = NULL WHERE student_id = 3",
        "UPDATE OR IGNORE enrollments SET enrolled_at = :now, waiting = NULL WHERE student_id = 3",
        "UPDATE enrollments SET waiting = 100 WHERE student_id = 3",
        "UPDATE enrollments SET enrolled_at = :now WHERE student_id = 4",
    ],
)
def test_another_program_cannot_unsettle_the_books(client: TestClient, path: Path, sql: str) -> None:
    """Whatever another program does to an enrollment is refused, or counted and told in the feed."""
    add_course(client, 1, 3, 1, 3, 2)
    add_course(client, 3, 3, 4)
    audit(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection, suppress(sqlite3.IntegrityError):
        connection.execute(sql, {"now": LONG_AGO})
    audit(path)


def test_the_models_obey_the_same_rules(db: pw.Database, client: TestClient, path: Path | str) -> None:
    """A host that writes through the models is limited, counted, promoted and told too."""
    url = add_course(client, 1, 1, 1, 2)
    another = models.Enrollment.insert(student=3, course=1, enrolled_at=LONG_AGO)
    with pytest.raises(pw.IntegrityError):
        another.execute(db)
    models.Enrollment.delete().where(models.Enrollment.student == 1).execute(db)
    assert standing(client) == ([2], [])
    models.Course.update(capacity=2).where(models.Course.id == 1).execute(db)
    another.execute(db)
    assert standing(client) == ([2, 3], [])
    assert client.get(url).json()["availability"] == "waitlist"
    assert audit(path)[2:] == [("dropped", 1, 1), ("promoted", 2, 1), ("enrolled", 3, 1)]


# The migration


BEFORE_SEATS = f"""
    INSERT INTO courses (name, level) VALUES ('Basket weaving', 'A2'), ('  spaced  ', ''), ('empty', 'x'), ('gone', '');
    INSERT INTO enrollments VALUES (1, 2, '{LONG_AGO}'), (2, 1, '2026-03-01T00:00:00.000Z'),
                                   (8, 2, '2026-02-01T00:00:00.000Z'), (1, 1, '2025-01-01T00:00:00.000Z');
    DELETE FROM courses WHERE name = 'gone';
    DELETE FROM students WHERE id = 7;
"""


@pytest.mark.both(False, because="only files have older schemas")
def test_seats_come_to_a_database_with_rows(path: Path) -> None:
    """Migrating keeps every row, counts who is enrolled, and tells each enrollment once, in the order of time."""

    def rows() -> list[list[tuple[Any, ...]]]:
        with closing(sqlite3.connect(path)) as connection:
            return [
                connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2").fetchall()
                for columns, table in (
                    ("id, name", "students"),
                    ("id, name, level", "courses"),
                    ("student_id, course_id, enrolled_at", "enrollments"),
                    ("*", "sqlite_sequence"),
                )
            ]

    undo_seats(path)
    run_script(path, BEFORE_SEATS)
    before, whole = rows(), dump_of_file(path)
    assert migrate(path)[0] == SEATS
    assert rows() == before
    assert audit(path) == [("enrolled", 1, 1), ("enrolled", 1, 2), ("enrolled", 8, 2), ("enrolled", 2, 1)]
    with closing(connect(path)) as db:
        times = [row[0] for row in fetch(db, "SELECT at FROM enrollment_events ORDER BY id")]
        assert times == sorted(row[2] for row in before[2])
        counts = fetch(db, "SELECT enrolled, waitlisted, capacity, waitlist_capacity FROM courses ORDER BY id")
        assert counts == [(2, 0, None, 0), (2, 0, None, 0), (0, 0, None, 0)]
        assert enroll(db, 2, 2).status == "enrolled"
        drop(db, 2, 2)
    undo_seats(path)
    assert dump_of_file(path) == whole


@pytest.mark.both(False, because="only files have older schemas")
def test_seats_are_not_given_up_while_anyone_waits(client: TestClient, path: Path) -> None:
    """Rolling back says how many wait and changes nothing; once nobody waits it keeps all who are enrolled."""
    add_course(client, 1, None, 5, 4, 3)
    while schema.status(path)[0].applied[-1] != SEATS:
        rollback(path)
    before = dump_of_file(path)
    with pytest.raises(
        MigrationFailed, match=rf"{SEATS} failed: 2 on waitlists would be lost.* The database is as it was"
    ):
        rollback(path)
    assert dump_of_file(path) == before
    run_script(path, "DELETE FROM enrollments WHERE student_id <> 3")
    undo_seats(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT student_id, course_id FROM enrollments").fetchall() == [(3, 1)]


@pytest.mark.both(False, because="only files have older schemas")
@pytest.mark.parametrize("rows", ["", "INSERT INTO grades VALUES (1, 2, 'A');"], ids=["empty", "with a row"])
def test_seats_come_under_a_host_that_refers_to_enrollments(path: Path, rows: str) -> None:
    """A host's table and view that refer to enrollments do so after the migration, and after it is taken back."""
    undo_seats(path)
    run_script(path, BEFORE_SEATS)
    run_script(
        path,
        f"""CREATE TABLE grades (student, course, grade, FOREIGN KEY (student, course) REFERENCES enrollments);
        CREATE VIEW newest AS SELECT max(enrolled_at) FROM enrollments;
        {rows}""",
    )
    for move in (migrate, undo_seats):
        move(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("INSERT INTO grades VALUES (8, 2, 'B')")
            with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
                connection.execute("INSERT INTO grades VALUES (8, 3, 'B')")
            assert connection.execute("SELECT * FROM newest").fetchall() == [("2026-03-01T00:00:00.000Z",)]
