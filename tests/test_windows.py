"""The window of enrolling: from opens_at to before closes_at, by the clock of the database."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import peewee as pw
import pytest
from answers import faults
from programs import REFUSED, run_sql
from starlette.testclient import TestClient
from test_seats import dump, leave, post, put, refusal, standing

from service import bulk
from service.courses import find_course, insert_course, update_course
from service.enrollments import drop, enroll
from service.errors import CourseFull, EnrollmentClosed, EnrollmentNotOpen, InvalidPayload, ServiceError
from service.fields import timestamp
from service.students import insert_student

pytestmark = pytest.mark.both

PAST, FUTURE = "2001-01-01T00:00:00.000Z", "2201-01-01T00:00:00.000Z"
SHUT = {
    "enrollment_not_open": {"opens_at": FUTURE, "closes_at": None},
    "enrollment_closed": {"opens_at": None, "closes_at": PAST},
}
"""The two ways in which a window is shut, by the code of the refusal."""
shut = pytest.mark.parametrize("code", SHUT)


@pytest.fixture(autouse=True)
def _students(db: pw.SqliteDatabase) -> None:
    """Have the students 1 to 5, and Logic (1) without limits."""
    with db.atomic():
        for number in range(1, 6):
            insert_student(db, f"Student {number}")
        insert_course(db, "Logic", "A1")


def in_seconds(seconds: float) -> datetime:
    """Give the moment in so many seconds from now."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.mark.parametrize("key", ["opens_at", "closes_at"])
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("2026-09-01T08:30:00Z", "2026-09-01T08:30:00.000Z"),
        ("2026-09-01T10:30:00+02:00", "2026-09-01T08:30:00.000Z"),
        ("2026-08-31T21:00:00.5-11:30", "2026-09-01T08:30:00.500Z"),
        ("2026-09-01t08:30:00.123999z", "2026-09-01T08:30:00.123Z"),
        ("2026-09-01 08:30:00-00:00", "2026-09-01T08:30:00.000Z"),
        ("2024-02-29T23:59:59.9994999+00:00", "2024-02-29T23:59:59.999Z"),
        (None, None),
    ],
)
def test_a_bound_is_kept_in_utc(client: TestClient, key: str, given: str | None, kept: str | None) -> None:
    """A bound of any zone is kept and shown in UTC, to the millisecond; a POST, a PATCH and a PUT agree."""
    made = client.post("/courses", json={"name": "Music", "level": "A1", key: given})
    assert (made.status_code, made.json()[key]) == (201, kept)
    assert client.patch("/courses/1", json={key: given}).json()[key] == kept
    assert client.put("/courses/by-external-id/P", json={"name": "P", "level": "1", key: given}).json()[key] == kept
    assert [row[key] for row in client.get("/courses").json()] == [kept] * 3


WRONG: list[Any] = [
    *("2026-09-01T08:30:00", "2026-09-01_08:30:00Z", "2026-09-01", "2026-02-29T08:30:00Z", "2026-09-01T08:30Z"),
    *("2026-09-01T08:30:00+2:00", "2026-09-01T08:30:00+0200", "2026-09-01T08:30:00+02:60", "2026-09-01T25:00:00Z"),
    *("2026-09-01T08:30:60Z", "2026-09-01T08:30:00+24:00", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"),
    *("2026-09-01T08:30:00.Z", "2026-09-01T08:30:00Z ", "now", "", 1788251400, True, [], {}),
]


@pytest.mark.parametrize("key", ["opens_at", "closes_at"])
@pytest.mark.parametrize("value", WRONG)
def test_a_bound_that_is_no_time_is_refused(client: TestClient, key: str, value: object) -> None:
    """A time without a zone, or that no clock shows, is a fault of its member."""
    for answer in (
        client.post("/courses", json={"name": "Music", "level": "A1", key: value}),
        client.patch("/courses/1", json={key: value}),
    ):
        assert faults(answer) == [f"#/{key}"]
    assert [row[key] for row in client.get("/courses").json()] == [None]


def test_a_window_closes_after_it_opens(client: TestClient) -> None:
    """A window that closes when it opens, or before, is refused; so is a change of one bound, which is told of."""
    bounds = {"opens_at": "2026-09-01T10:30:00+02:00", "closes_at": "2026-09-01T08:30:00Z"}
    assert faults(client.post("/courses", json={"name": "M", "level": "1", **bounds})) == ["#/closes_at"]
    assert faults(client.patch("/courses/1", json=bounds)) == ["#/closes_at"]
    opens_at, closes_at = "2026-09-01T08:30:00.000Z", "2026-09-01T08:30:00.001Z"
    assert client.patch("/courses/1", json={"external_id": "L", "opens_at": opens_at}).status_code == 200
    for url, method in (("/courses/1", "PATCH"), ("/courses/by-external-id/L", "PUT")):
        assert faults(client.request(method, url, json={"closes_at": opens_at})) == ["#/closes_at"]
        assert client.request(method, url, json={"closes_at": closes_at}).json()["closes_at"] == closes_at
        assert faults(client.request(method, url, json={"opens_at": closes_at, "name": "N"})) == ["#/opens_at"]
        assert client.request(method, url, json={"closes_at": None}).status_code == 200
    assert client.get("/courses/1").json()["name"] == "Logic"


def test_the_plain_functions_take_moments(db: pw.SqliteDatabase) -> None:
    """A plain function takes a datetime of any zone, and refuses one that is in none."""
    noon = datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=-4)))
    assert insert_course(db, "Music", "A1", opens_at=noon).opens_at == "2026-07-01T16:00:00.000Z"
    with pytest.raises(InvalidPayload):
        update_course(db, 1, {"opens_at": noon.replace(tzinfo=None)})  # type: ignore[dict-item]


@shut
@pytest.mark.parametrize("limits", [{}, {"capacity": 2}, {"capacity": 0, "waitlist_capacity": 2}, {"capacity": 0}])
def test_nobody_enrolls_while_it_is_shut(
    client: TestClient, db: pw.SqliteDatabase, path: Path, code: str, limits: dict[str, int]
) -> None:
    """While the window is shut every way to enroll is refused, with the moment; whether or not seats are free."""
    update_course(db, 1, {**limits, **SHUT[code]})
    assert client.get("/courses/1").json()["availability"] == code.removeprefix("enrollment_")
    before = dump(path)
    row = {"student_id": 1, "course_id": 1}
    member, moment = next((key, value) for key, value in SHUT[code].items() if value)
    for answer in (post(client, 1, 1), put(client, 1, 1)):
        assert refusal(answer) == (409, code)
        problem = answer.json()
        assert (problem["course_id"], problem[member], moment in problem["detail"]) == (1, moment, True)
        assert not {"opens_at", "closes_at"} - {member} & problem.keys()
    (result,) = client.post("/enrollments", json=[row]).json()["results"]
    assert (result["status"], result["problem"][member]) == (409, moment)
    assert client.post("/enrollments?atomic=true", json=[row]).json()["errors"][0]["code"] == code
    with pytest.raises(EnrollmentNotOpen if code == "enrollment_not_open" else EnrollmentClosed) as refused:
        enroll(db, 1, 1, datetime(2100, 1, 1, tzinfo=UTC))
    assert vars(refused.value)[member] == moment
    assert [
        refused.code for refused in bulk.enroll_all(db, [(1, 1), (9, 1), (1, 9)]) if isinstance(refused, ServiceError)
    ] == [
        code,
        "student_not_found",
        "course_not_found",
    ]
    assert dump(path) == before


@shut
def test_what_is_told_first(client: TestClient, db: pw.SqliteDatabase, code: str) -> None:
    """Who is missing, and who is there already, is told before the window, and that before a course that is full."""
    update_course(db, 1, {"capacity": 1, "waitlist_capacity": 1})
    for student in (1, 2):
        enroll(db, student, 1)
    update_course(db, 1, SHUT[code])
    told = [refusal(post(client, student, course))[1] for student, course in ((9, 1), (9, 9), (1, 9), (1, 1), (2, 1))]
    assert told == [
        "student_not_found",
        "student_not_found",
        "course_not_found",
        "already_enrolled",
        "already_waitlisted",
    ]
    assert [put(client, student, 1).status_code for student in (1, 2)] == [200, 200]
    assert refusal(post(client, 3, 1)) == (409, code)
    update_course(db, 1, {"opens_at": None, "closes_at": None})
    assert refusal(post(client, 3, 1)) == (409, "course_full")


@shut
def test_dropping_and_promotion_go_on(client: TestClient, db: pw.SqliteDatabase, code: str) -> None:
    """While the window is shut students may drop, and free seats go to who waits."""
    update_course(db, 1, {"capacity": 1, "waitlist_capacity": None})
    for student in range(1, 6):
        enroll(db, student, 1)
    update_course(db, 1, SHUT[code])
    leave(client, 1, 1)
    assert standing(client) == ([2], [3, 4, 5])
    assert client.patch("/courses/1", json={"capacity": 2}).json()["availability"] == code.removeprefix("enrollment_")
    leave(client, 4, 1)
    assert standing(client) == ([2, 3], [5])


@pytest.mark.parametrize("full", [False, True])
def test_the_clock_opens_and_closes(db: pw.SqliteDatabase, full: bool) -> None:
    """Enrolling is refused until the very moment, granted from then on, and refused again from the other moment on."""
    opens, closes = in_seconds(0.3), in_seconds(0.9)
    update_course(db, 1, {"opens_at": opens, "closes_at": closes, "capacity": 0 if full else None})  # type: ignore[dict-item]
    told: list[str] = []
    while "enrollment_closed" not in told and datetime.now(UTC) < closes + timedelta(seconds=5):
        before = timestamp(datetime.now(UTC))
        try:
            enroll(db, 1, 1)
            drop(db, 1, 1)
            word = "enrolled"
        except ServiceError as refused:
            word = refused.code
        told.append(word)
        after = timestamp(datetime.now(UTC))
        assert word != "enrollment_not_open" or before < timestamp(opens)
        assert word != "enrollment_closed" or after >= timestamp(closes)
        assert word in {"enrollment_not_open", "enrollment_closed"} or timestamp(opens) <= after
        assert word in {"enrollment_not_open", "enrollment_closed"} or before < timestamp(closes)
    assert [*dict.fromkeys(told)] == ["enrollment_not_open", "course_full" if full else "enrolled", "enrollment_closed"]


@pytest.mark.both(False, because="PostgreSQL gives the reason in the same statement")
@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        (lambda: {"opens_at": in_seconds(0.5)}, EnrollmentNotOpen),
        (lambda: {"closes_at": in_seconds(0.5), "capacity": 0}, CourseFull),
    ],
)
def test_a_bound_that_comes_between_a_refusal_and_its_reason(
    db: pw.SqliteDatabase, changes: Callable[[], dict[str, Any]], refusal: type[ServiceError]
) -> None:
    """The reason that is told is that of the moment of the refusal, though a bound passes before it is looked up."""
    update_course(db, 1, changes())

    def late(sql: str) -> None:
        if "WITH pair" in sql:
            time.sleep(0.6)

    db.connection().set_trace_callback(late)
    with pytest.raises(refusal):
        enroll(db, 1, 1)
    db.connection().set_trace_callback(None)


def test_availability_follows_the_clock(db: pw.SqliteDatabase) -> None:
    """A course that is not open, or closed, says so whatever its seats; with bounds on both sides it is as it is."""
    for limits, usual in (
        ({}, "open"),
        ({"capacity": 0, "waitlist_capacity": 1}, "waitlist"),
        ({"capacity": 0}, "full"),
    ):
        course = insert_course(db, "Music", "A1", **limits)
        for code, bounds in SHUT.items():
            assert update_course(db, course.id, bounds).availability == code.removeprefix("enrollment_")
        assert update_course(db, course.id, {"opens_at": PAST, "closes_at": FUTURE}).availability == usual
        assert find_course(db, course.id).availability == usual


FORMS = {
    "(student_id, course_id) VALUES (1, ?)": (2, 3, 4),
    "(student_id, course_id, enrolled_at) VALUES (1, ?, '2026-09-01T08:30:00.000Z')": (2, 3, 4),
    "(student_id, course_id, enrolled_at, event_id) VALUES (1, ?, '2026-09-01T08:30:00.000Z', 1)": (2,),
    "(student_id, course_id, waiting, event_id) VALUES (1, ?, 1, 1)": (2, 3, 4),
}
"""Forms of an INSERT, and the courses that each is tried on: (2) with seats, (3) with places in line, (4) full."""


@shut
@pytest.mark.parametrize(("values", "courses"), FORMS.items())
def test_another_programs_insert_is_refused_too(
    db: pw.Database, path: Path | str, code: str, values: str, courses: tuple[int, ...]
) -> None:
    """A plain INSERT into a course that is shut is refused with the code, in whatever form it comes."""
    for limits in ({}, {"capacity": 0, "waitlist_capacity": None}, {"capacity": 0}):
        insert_course(db, "Music", "A1", **limits, **SHUT[code])  # type: ignore[arg-type]
    before = dump(path)
    for course in courses:
        with pytest.raises(REFUSED, match=f"^{code}: "):
            run_sql(path, f"INSERT INTO enrollments {values.replace('?', str(course))}")
    assert dump(path) == before
