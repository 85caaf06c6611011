"""Withdraw, cancel, erase and export: all that is of one student, or of one course."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import peewee as pw
import pytest
from conftest import Server
from invariants import check
from starlette.testclient import TestClient
from test_seats import add_course, dump, leave, refusal, standing

from service import bulk, registrar
from service.courses import find_course, insert_course
from service.enrolling import enroll_each
from service.enrollments import drop, enroll
from service.errors import CourseNotFound, StudentNotFound
from service.events import Why, list_events
from service.registrar import MOST_DROPPED, cancel_some
from service.storage import fetch
from service.students import find_student, insert_student

pytestmark = pytest.mark.both


@pytest.fixture(autouse=True)
def _students(db: pw.SqliteDatabase) -> None:
    """Have the students 1 to 6."""
    with db.atomic():
        for number in range(1, 7):
            insert_student(db, f"Student {number}", external_id=f"S{number}")


def kinds(client: httpx2.Client, after: int = 0) -> list[tuple[str, int, int]]:
    """Give the events behind an id as (type, student, course)."""
    events = client.get(f"/events?limit=1000&after={after}").json()
    return [(event["type"], event["student_id"], event["course_id"]) for event in events]


def test_withdrawing_drops_all_and_passes_seats_on(client: TestClient, path: Path) -> None:
    """A student who is withdrawn is in no course and no line; each free seat goes to who waits longest."""
    add_course(client, 1, None, 1, 2, 3)
    add_course(client, 1, 3, 4, 1, 5)
    add_course(client, None, 0, 1, 2)
    add_course(client, 1, 0, 6)
    newest = len(kinds(client))
    answer = client.post("/students/1/withdraw")
    assert (answer.status_code, answer.json()) == (200, {"dropped": 3})
    assert client.get("/students/1/courses").json() == []
    assert [standing(client, course) for course in (1, 2, 3, 4)] == [([2], [3]), ([4], [5]), ([2], []), ([6], [])]
    assert kinds(client, newest) == [("dropped", 1, 1), ("promoted", 2, 1), ("dropped", 1, 2), ("dropped", 1, 3)]
    assert client.post("/students/1/withdraw", json={}).json() == {"dropped": 0}
    assert client.get("/students/1").status_code == 200
    check(path)


def test_cancelling_promotes_nobody(client: TestClient, path: Path) -> None:
    """Who waits is dropped first, so that nobody gets a seat in a course that is cancelled; the course stays."""
    url = add_course(client, 2, None, 4, 3, 2, 1)
    add_course(client, 1, 1, 1, 2)
    newest = len(kinds(client))
    answer = client.post(f"{url}/cancel")
    assert (answer.status_code, answer.json()) == (200, {"dropped": 4})
    told = kinds(client, newest)
    assert {kind for kind, _, _ in told} == {"dropped"}
    assert [{student for _, student, _ in some} for some in (told[:2], told[2:])] == [{1, 2}, {3, 4}]
    assert (standing(client, 1), standing(client, 2)) == (([], []), ([1], [2]))
    assert client.get(url).json()["capacity"] == 2
    assert client.post(f"{url}/cancel").json() == {"dropped": 0}
    assert client.delete(url).status_code == 204
    check(path)


def test_what_does_not_exist_is_not_found(client: TestClient, db: pw.SqliteDatabase, path: Path) -> None:
    """A student or a course that does not exist is a 404 of each step, and an error of each plain function."""
    before = dump(path)
    for number in ("9", "0", "x", str(2**63)):
        for name, method in (("withdraw", "POST"), ("erase", "POST"), ("export", "GET")):
            assert refusal(client.request(method, f"/students/{number}/{name}")) == (404, "student_not_found")
        assert refusal(client.post(f"/courses/{number}/cancel")) == (404, "course_not_found")
    calls: list[Callable[..., object]] = [registrar.withdraw, registrar.erase_student, registrar.export_student]
    for call in calls:
        with pytest.raises(StudentNotFound):
            call(db, 9)
    with pytest.raises(CourseNotFound):
        registrar.cancel(db, 9)
    assert dump(path) == before


SEATS, LINE = 2_300, 2_200
"""More than two slices have together, and more than one slice has in line."""


def fill(db: pw.SqliteDatabase, seats: int, line: int) -> None:
    """Have so many students with a seat in Large (1), and so many who wait."""
    ours = "WITH RECURSIVE n (x) AS (SELECT 7 UNION ALL SELECT x + 1 FROM n WHERE x < ?) SELECT 'student' FROM n"
    db.execute_sql(f"INSERT INTO students (name) {ours}", (seats + line,))
    insert_course(db, "Large", "A1", seats, None)
    bulk.enroll_all(db, [(student, 1) for student in range(1, seats + line + 1)])


@pytest.mark.long
def test_a_large_course_is_cancelled_in_slices(db: pw.SqliteDatabase, path: Path, client: TestClient) -> None:
    """Each slice is a transaction of 2,000 rows, who waits first; all have their event, with the reason."""
    fill(db, SEATS, LINE)
    assert cancel_some(db, 1, Why(None, "fire")) == MOST_DROPPED
    assert (find_course(db, 1).enrolled, find_course(db, 1).waitlisted) == (SEATS, LINE - MOST_DROPPED)
    check(path)
    answer = client.post("/courses/1/cancel", json={"reason": "fire"})
    assert answer.json() == {"dropped": SEATS + LINE - MOST_DROPPED}
    told = fetch(db, "SELECT type, count(*), count(DISTINCT student_id) FROM enrollment_events GROUP BY type")
    assert told == [("dropped", 4500, 4500), ("enrolled", SEATS, SEATS), ("waitlisted", LINE, LINE)]
    reasons = """
        SELECT reason, count(*) FROM event_notes JOIN enrollment_events ON id = event_id
        WHERE type = 'dropped' GROUP BY reason"""
    assert fetch(db, reasons) == [("fire", 4500)]
    check(path)


@pytest.mark.long
def test_a_large_course_is_cancelled_beside_other_writes(
    db: pw.SqliteDatabase, path: Path, serve: Callable[..., Server]
) -> None:
    """The plain function cancels more than a slice in one call, while a server has the file open."""
    fill(db, MOST_DROPPED - 100, 200)
    server = serve()
    assert registrar.cancel(db, 1) == MOST_DROPPED + 100
    assert httpx2.get(f"{server.url}/courses/1").json()["enrolled"] == 0
    assert fetch(db, "SELECT count(*) FROM enrollment_events WHERE type = 'promoted'") == [(0,)]
    check(path)


def insert_courses(db: pw.SqliteDatabase, count: int) -> None:
    """Have so many courses, 1 and so on."""
    with db.atomic():
        db.execute_sql("INSERT INTO courses (name, level) VALUES " + ", ".join(["('Course', 'A1')"] * count))


@pytest.mark.long
def test_many_courses_of_one_student(
    db: pw.SqliteDatabase, client: TestClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student with more courses and events than a page has is exported whole, and erased whole."""
    monkeypatch.setattr(registrar, "PAGE", 100)
    count = 2 * registrar.PAGE + 1
    insert_courses(db, count)
    bulk.enroll_all(db, [(1, course) for course in range(1, count + 1)])
    exported = client.get("/students/1/export").json()
    assert [row["id"] for row in exported["courses"]] == [event["course_id"] for event in exported["events"]]
    assert len({row["id"] for row in exported["courses"]}) == count
    assert client.post("/students/1/withdraw?reason=moved").json() == {"dropped": count}
    assert client.post("/students/1/erase").status_code == 204
    assert fetch(db, "SELECT count(reason), count(*) FROM event_notes") == [(0, count)]
    check(path)


@pytest.mark.long
def test_many_events_of_one_student(db: pw.SqliteDatabase, path: Path) -> None:
    """All are exported, and blanked, by few statements: each is a way to the database, while others may not write."""
    count = 300
    insert_courses(db, 2)
    with db.atomic():
        for _ in range(count):
            enroll(db, 1, 1, reason="in")
            drop(db, 1, 1, reason="out")
        enroll(db, 1, 2, override=True, reason="needed")
    asked: list[pw.QueryEvent] = []
    db.query_hooks.append(asked.append)
    exported = registrar.export_student(db, 1)
    assert len(exported.events) == 2 * count + 1
    assert exported.overrides == [exported.events[-1].id]
    registrar.erase_student(db, 1)
    db.query_hooks.clear()
    assert len(asked) < 50
    assert fetch(db, "SELECT count(*), count(reason), count(actor) FROM event_notes") == [(2 * count + 1, 0, 0)]
    check(path)


def test_an_export_is_all_that_is_kept(client: TestClient) -> None:
    """An export has the student's row, schedule and events, as the other operations show them, and nobody else's."""
    add_course(client, 1, 2, 2, 1)
    add_course(client, None, 0, 1, 3)
    add_course(client, None, 0, 1)
    leave(client, 1, 3)
    client.post("/students/1/courses", json={"course_id": 3, "reason": "again"})
    exported = client.get("/students/1/export")
    assert exported.status_code == 200
    assert exported.json() == {
        "student": client.get("/students/1").json(),
        "courses": client.get("/students/1/courses").json(),
        "events": client.get("/events?student_id=1").json(),
        "overrides": [],
    }
    assert len(exported.json()["events"]) == 5
    assert exported.json()["events"][-1]["reason"] == "again"
    empty = client.get("/students/6/export").json()
    assert empty == {"student": client.get("/students/6").json(), "courses": [], "events": [], "overrides": []}


def test_erasing_forgets_the_words_and_keeps_the_numbers(client: TestClient, db: pw.SqliteDatabase, path: Path) -> None:
    """An erased student is gone, seats are passed on, the events stay without their reasons; others keep theirs."""
    add_course(client, 1, None)
    for student in (1, 2, 3):
        client.post(f"/students/{student}/courses", json={"course_id": 1, "reason": f"reason of {student}"})
    client.post("/students/1/courses", json={"course_id": 1, "override": True, "reason": "why"})
    client.delete("/students/3/courses/1?reason=ill")
    drop(db, 2, 1, actor="Eve", reason="moved")
    enroll(db, 2, 1, actor="Eve", reason="back")
    before = client.get("/events").json()
    answer = client.post("/students/2/erase")
    assert (answer.status_code, answer.content) == (204, b"")
    for gone in ("", "/export", "/courses"):
        assert refusal(client.get(f"/students/2{gone}")) == (404, "student_not_found")
    assert refusal(client.get("/students/by-external-id/S2")) == (404, "student_not_found")
    assert refusal(client.post("/students/2/erase")) == (404, "student_not_found")
    after = client.get("/events").json()
    assert after[: len(before)] == [
        {**event, "reason": None} if event["student_id"] == 2 else event for event in before
    ]
    assert [(event["type"], event["student_id"]) for event in after[len(before) :]] == [("dropped", 2)]
    assert [event["reason"] for event in client.get("/events?student_id=2").json()] == [None] * 4
    assert {event["reason"] for event in after} == {None, "reason of 1", "reason of 3", "ill"}
    assert client.post("/students", json={"name": "New", "external_id": "S2"}).json()["id"] == 7
    check(path)


def test_the_plain_functions_work_in_a_callers_transaction(db: pw.SqliteDatabase, path: Path) -> None:
    """What the caller undoes is as it was: rows, events, and the words of the erased."""
    insert_course(db, "Logic", "A1", 1, None)
    for student in (1, 2):
        enroll(db, student, 1, reason="why")
    before: Any = dump(path)
    with db.atomic() as undo:
        assert registrar.withdraw(db, 1, reason="gone") == 1
        registrar.erase_student(db, 2)
        assert registrar.cancel(db, 1, actor="Eve") == 0
        assert [event.reason for event in list_events(db, student_id=1)] == ["why", "gone"]
        undo.rollback()
    assert dump(path) == before
    assert find_student(db, 2).id == 2
    check(path)


@pytest.mark.long
def test_an_erasure_of_many_enrollments(client: TestClient, db: pw.SqliteDatabase, path: Path) -> None:
    """A student in more courses than one transaction drops is withdrawn in slices first, and then erased."""
    student = insert_student(db, "Everywhere").id
    insert_courses(db, MOST_DROPPED + 1)
    with db.atomic():
        enroll_each(db, [(student, course) for course in range(1, MOST_DROPPED + 2)])
    assert client.post(f"/students/{student}/erase").status_code == 204
    assert client.get(f"/students/{student}").status_code == 404
    drops = "SELECT count(*) FROM enrollment_events WHERE student_id = ? AND type = 'dropped'"
    assert fetch(db, drops, student) == [(MOST_DROPPED + 1,)]
    check(path)
