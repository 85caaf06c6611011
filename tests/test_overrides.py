"""Override: the office gives a student a seat past the rules, and nobody else moves."""

from pathlib import Path
from typing import Any

import httpx2
import peewee as pw
import pytest
from answers import faults
from invariants import check
from starlette.testclient import TestClient
from test_seats import add_course, dump, refusal, standing

from service.courses import find_course, insert_course
from service.enrolling import Asked, enroll_each
from service.enrollments import enroll, list_roster
from service.errors import AlreadyEnrolled, CourseNotFound, StudentNotFound
from service.students import insert_student

pytestmark = pytest.mark.both

PAST, FUTURE = "2001-01-01T00:00:00.000Z", "2201-01-01T00:00:00.000Z"


@pytest.fixture(autouse=True)
def _students(db: pw.SqliteDatabase) -> None:
    """Have the students 1 to 8."""
    with db.atomic():
        for number in range(1, 9):
            insert_student(db, f"Student {number}", external_id=f"S{number}")


def override(client: httpx2.Client, student_id: int, course_id: int = 1, **more: Any) -> httpx2.Response:
    """Enroll with a POST that overrides the rules."""
    return client.post(f"/students/{student_id}/courses", json={"course_id": course_id, "override": True, **more})


@pytest.mark.parametrize(
    ("limits", "bounds", "before", "capacity"),
    [
        ((None, 0), {}, (), None),
        ((2, 0), {}, (), 2),
        ((1, 0), {}, (2,), 2),
        ((0, 0), {}, (), 1),
        ((1, None), {}, (2, 3, 4), 2),
        ((1, 2), {}, (2, 3, 4), 2),
        ((2, 0), {"opens_at": FUTURE}, (2,), 2),
        ((1, 0), {"closes_at": PAST}, (2,), 2),
        ((None, None), {"closes_at": PAST}, (), None),
    ],
)
def test_an_override_gives_a_seat_in_any_case(  # noqa: PLR0917, PLR0913 - a case is a course as it is before and after.
    client: TestClient,
    path: Path,
    limits: tuple[int | None, int | None],
    bounds: dict[str, str],
    before: tuple[int, ...],
    capacity: int | None,
) -> None:
    """Full or not, with others waiting, open or shut: the student has a seat, the others stay where they were.

    The capacity grows by one where no seat was free, and only there.
    """
    url = add_course(client, *limits, *before)
    client.patch(url, json=bounds)
    seats, line = standing(client)
    answer = override(client, 1)
    assert answer.status_code == 201
    assert answer.headers["location"] == "/students/1/courses/1"
    enrollment = client.get("/students/1/courses/1").json()
    assert answer.json() == enrollment
    assert (enrollment["status"], enrollment["position"]) == ("enrolled", None)
    assert standing(client) == ([1, *seats], line)
    course = client.get(url).json()
    assert (course["capacity"], course["waitlist_capacity"]) == (capacity, limits[1])
    event = client.get("/events").json()[-1]
    assert (event["type"], event["at"], event["student_id"]) == ("enrolled", enrollment["enrolled_at"], 1)
    client.patch(url, json={"opens_at": None, "closes_at": None})
    check(path)


def test_who_waits_leaves_the_line_by_an_override(client: TestClient, path: Path) -> None:
    """A waiting student who is overridden leaves the line, and the others keep their order and their turns."""
    add_course(client, 1, 4, 1, 2, 3, 4, 5)
    answer = override(client, 4)
    assert (answer.status_code, answer.json()["status"], answer.json()["position"]) == (201, "enrolled", None)
    assert standing(client) == ([1, 4], [2, 3, 5])
    assert client.get("/courses/1").json()["capacity"] == 2
    assert client.get("/events").json()[-1]["type"] == "promoted"
    check(path)
    client.delete("/students/4/courses/1")
    assert standing(client) == ([1, 2], [3, 5])
    override(client, 5)
    override(client, 3)
    assert standing(client) == ([1, 2, 3, 5], [])
    assert client.get("/courses/1").json()["capacity"] == 4
    check(path)


def test_an_override_is_refused_where_it_cannot_be(client: TestClient, path: Path) -> None:
    """Who has a seat already, and who or what does not exist, is told, and nothing changes; false asks for nothing."""
    add_course(client, 1, 0, 1)
    before = dump(path)
    assert refusal(override(client, 1)) == (409, "already_enrolled")
    assert refusal(override(client, 9)) == (404, "student_not_found")
    assert refusal(override(client, 9, 9)) == (404, "student_not_found")
    assert refusal(override(client, 2, 9)) == (404, "course_not_found")
    answer = client.post("/students/2/courses", json={"course_external_id": "L", "override": True})
    assert (refusal(answer), answer.json()["course_external_id"]) == ((404, "course_not_found"), "L")
    assert refusal(override(client, 2, override=False)) == (409, "course_full")
    for wrong in (None, 1, "true"):
        assert faults(override(client, 2, override=wrong)) == ["#/override"]
    assert dump(path) == before


@pytest.mark.parametrize("query", ["", "atomic=true", "dry_run=true"])
def test_overrides_in_bulk(client: TestClient, path: Path, query: str) -> None:
    """In a bulk each row overrides for itself, in its turn; a dry run tells the same and keeps nothing."""
    add_course(client, 1, 1, 1, 2)
    before = dump(path)
    rows = [
        {"student_id": 3, "course_id": 1},
        {"student_external_id": "S3", "course_id": 1, "override": True},
        {"student_id": 2, "course_id": 1, "override": True},
        {"student_id": 4, "course_id": 1},
        {"student_id": 4, "course_id": 1, "override": True},
        {"student_id": 4, "course_id": 1, "override": True},
        {"student_external_id": "S9", "course_id": 1, "override": True},
    ]
    if "atomic" in query:
        refused = client.post(f"/enrollments?{query}", json=rows)
        assert refusal(refused) == (409, "bulk_refused")
        assert [error["pointer"] for error in refused.json()["errors"]] == ["#/0", "#/5", "#/6"]
        assert dump(path) == before
        rows = [row for at, row in enumerate(rows) if at not in {0, 5, 6}]
    answer = client.post(f"/enrollments?{query}", json=rows).json()
    told = [each.get("problem", each.get("enrollment")) for each in answer["results"]]
    words = ["enrolled", "enrolled", "waitlisted", "enrolled"]
    if "atomic" not in query:
        words = ["course_full", *words, "already_enrolled", "student_not_found"]
        assert told[-1]["student_external_id"] == "S9"
    assert [each.get("code", each.get("status")) for each in told] == words
    if "dry_run" in query:
        assert dump(path) == before
    else:
        assert standing(client) == ([1, 2, 3, 4], [])
        assert client.get("/courses/1").json()["capacity"] == 4
    check(path)


def test_the_plain_function_overrides(db: pw.SqliteDatabase, path: Path) -> None:
    """The plain function gives the enrollment, raises what the API tells, and lives in its caller's transaction."""
    insert_course(db, "Logic", "A1", 0, 1)
    enroll(db, 2, 1)
    with db.atomic() as undo:
        assert enroll(db, 1, 1, override=True).status == enroll(db, 2, 1, override=True).status == "enrolled"
        assert [row.id for row in list_roster(db, 1)] == [1, 2]
        undo.rollback()
    assert (list_roster(db, 1), find_course(db, 1).capacity) == ([], 0)
    enroll(db, 1, 1, override=True)
    for pair, kind in (((1, 1), AlreadyEnrolled), ((9, 1), StudentNotFound), ((1, 9), CourseNotFound)):
        with pytest.raises(kind):
            enroll(db, *pair, override=True)
    check(path)


def test_overrides_end_with_their_time(db: pw.SqliteDatabase, path: Path) -> None:
    """Of rows some of which are overrides, only the first is begun once the time is over."""
    insert_course(db, "Logic", "A1", 0, 0)
    past = [Asked(student, 1, override=True) for student in (1, 2)]
    plain = [Asked(student, 1) for student in (3, 4)]
    for rows, count in ((past, 1), ([*past[:1], *plain], 1), ([*plain, *past], 1)):
        with db.atomic() as undo:
            assert len(enroll_each(db, rows, until=0)) == count
            undo.rollback()
    with db.atomic():
        assert [result.__class__.__name__ for result in enroll_each(db, [*plain, *past])] == [
            *["CourseFull"] * 2,
            *["EnrollmentRecord"] * 2,
        ]
    check(path)
