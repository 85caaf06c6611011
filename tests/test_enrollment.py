"""Enrollments over HTTP: enroll, show, drop, the schedule and the roster."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx2
import peewee as pw
import pytest
from answers import SHOWN, faults, pages, refusal
from conftest import Server
from starlette.testclient import TestClient

from service.courses import insert_course
from service.enrollments import enroll, list_roster
from service.students import insert_student

pytestmark = pytest.mark.both

SEAT = {"status": "enrolled", "position": None}
"""What everybody has who does not wait."""


@pytest.fixture(autouse=True)
def school(db: pw.Database) -> None:
    """Have Ada (1) and Bo (2), Logic (1) and Music (2)."""
    with db.atomic():
        for student in ("Ada", "Bo"):
            insert_student(db, student)
        for course in ("Logic", "Music"):
            insert_course(db, course, "A1")


def post(client: TestClient, student_id: object, course_id: object) -> httpx2.Response:
    """Enroll with a POST."""
    return client.post(f"/students/{student_id}/courses", json={"course_id": course_id})


def put(client: TestClient, student_id: object, course_id: object) -> httpx2.Response:
    """Enroll with a PUT."""
    return client.put(f"/students/{student_id}/courses/{course_id}")


Enroll = Callable[[TestClient, object, object], httpx2.Response]
both = pytest.mark.parametrize("enroll", [post, put])


@both
def test_an_enrollment_is_found_at_its_location(client: TestClient, enroll: Enroll) -> None:
    """A student who enrolls gets the enrollment, the moment in UTC, and its Location."""
    before = datetime.now(UTC)
    answer = enroll(client, 1, 2)
    assert answer.status_code == 201
    assert answer.headers["location"] == "/students/1/courses/2"
    enrolled_at = answer.json()["enrolled_at"]
    assert answer.json() == {"student_id": 1, "course_id": 2, "enrolled_at": enrolled_at, **SEAT}
    assert before - timedelta(milliseconds=1) <= datetime.fromisoformat(enrolled_at) <= datetime.now(UTC)
    shown = client.get("/students/1/courses/2")
    assert (shown.status_code, shown.json()) == (200, answer.json())


def test_a_moment_has_a_zone(db: pw.Database) -> None:
    """A moment of any zone is kept in UTC; one that is in none is refused in words that say so, and nothing is kept."""
    noon = datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=-4)))
    with pytest.raises(ValueError, match=r"has no time zone: give one, as datetime.now\(UTC\) does"):
        enroll(db, 1, 2, now=noon.replace(tzinfo=None))
    assert list_roster(db, 2) == []
    assert enroll(db, 1, 2, now=noon).enrolled_at == "2026-07-01T16:00:00.000Z"


def test_the_moment_is_in_utc_everywhere(serve: Callable[..., Server]) -> None:
    """A server in Tokyo writes the moment in UTC."""
    answer = httpx2.put(f"{serve(TZ='JST-9').url}/students/1/courses/1")
    enrolled_at = answer.json()["enrolled_at"]
    assert enrolled_at.endswith("Z")
    assert abs(datetime.fromisoformat(enrolled_at) - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_second_post_is_refused(client: TestClient) -> None:
    """A student who is enrolled already is not enrolled again, however the first time went."""
    first = post(client, 1, 1).json()
    assert refusal(post(client, 1, 1)) == (409, "already_enrolled")
    put(client, 1, 2)
    assert refusal(post(client, 1, 2)) == (409, "already_enrolled")
    assert client.get("/students/1/courses/1").json() == first
    assert len(client.get("/students/1/courses").json()) == 2


def test_a_put_is_safe_to_retry(client: TestClient) -> None:
    """The first PUT is a 201, every later one a 200 with the same enrollment, whoever made it."""
    first = put(client, 1, 1)
    assert first.status_code == 201
    for _ in range(2):
        again = put(client, 1, 1)
        assert (again.status_code, again.json()) == (200, first.json())
    posted = post(client, 1, 2)
    assert (put(client, 1, 2).status_code, put(client, 1, 2).json()) == (200, posted.json())


@pytest.mark.parametrize("body", [b"{", b'{"course_id": 2}', b"\xff\0"])
def test_the_body_of_a_put_is_ignored(client: TestClient, body: bytes) -> None:
    """A PUT says all in its path; its body may be anything."""
    answer = client.put("/students/1/courses/1", content=body, headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["course_id"]) == (201, 1)


@both
@pytest.mark.parametrize(
    ("student_id", "course_id", "code"),
    [
        (3, 1, "student_not_found"),
        (1, 3, "course_not_found"),
        (3, 3, "student_not_found"),
        (2**63 - 1, 2**63 - 1, "student_not_found"),
        (1, 2**63 - 1, "course_not_found"),
        ("0", 1, "student_not_found"),
        ("x", 3, "student_not_found"),
    ],
)
def test_both_must_exist(client: TestClient, enroll: Enroll, student_id: object, course_id: int, code: str) -> None:
    """A missing student is told first, then a missing course, and nothing is kept."""
    assert refusal(enroll(client, student_id, course_id)) == (404, code)
    for url in ("/students/1/courses", "/students/2/courses", "/courses/1/students"):
        assert client.get(url).json() == []


@pytest.mark.both(False, because="what is refused here reaches no database")
@pytest.mark.parametrize("course_id", [None, True, False, 1.0, "1", "", [], [1], {}, 0, -1, 1.5, 2**63, 10**4000])
def test_a_course_id_is_an_integer(client: TestClient, course_id: object) -> None:
    """Only an integer from 1 to 2⁶³-1 is a course's id; nothing is coerced."""
    assert faults(post(client, 1, course_id)) == ["#/course_id"]
    assert client.get("/students/1/courses").json() == []


@pytest.mark.parametrize("digits", ["1e0", "1e999", "-0", "9" * 5000])
def test_a_number_that_is_no_id_is_refused(client: TestClient, digits: str) -> None:
    """A JSON number of any form and length, which is no id, is a fault of its field."""
    headers = {"content-type": "application/json"}
    answer = client.post("/students/1/courses", content=f'{{"course_id": {digits}}}', headers=headers)
    assert faults(answer) == ["#/course_id"]


@pytest.mark.parametrize(
    ("payload", "pointers"),
    [
        ({}, ["#/course_id"]),
        ({"course_id": 1, "student_id": 1}, ["#/student_id"]),
        ({"course": 1}, ["#/course", "#/course_id"]),
    ],
)
def test_a_payload_has_a_course_id_and_no_more(
    client: TestClient, payload: dict[str, int], pointers: list[str]
) -> None:
    """The course's id is required, and another key is refused."""
    assert faults(client.post("/students/1/courses", json=payload)) == pointers


def test_a_dropped_enrollment_is_gone(client: TestClient) -> None:
    """A student who drops a course is out of it, may not drop it twice, and may enroll again."""
    post(client, 1, 1)
    post(client, 1, 2)
    answer = client.delete("/students/1/courses/1")
    assert (answer.status_code, answer.content) == (204, b"")
    for again in (client.get("/students/1/courses/1"), client.delete("/students/1/courses/1")):
        assert refusal(again) == (404, "enrollment_not_found")
    assert [row["id"] for row in client.get("/students/1/courses").json()] == [2]
    assert client.get("/courses/1/students").json() == []
    assert post(client, 1, 1).status_code == 201


@pytest.mark.parametrize(("student_id", "course_id"), [(1, 1), (2, 2), (1, 3), (3, 2), (3, 3), ("x", 2), (1, "x")])
def test_an_enrollment_that_does_not_exist_is_not_found(
    client: TestClient, student_id: object, course_id: object
) -> None:
    """To show or drop what is not there is a 404, whether or not the student and the course exist."""
    post(client, 1, 2)
    url = f"/students/{student_id}/courses/{course_id}"
    for answer in (client.get(url), client.delete(url)):
        assert refusal(answer) == (404, "enrollment_not_found")
    assert len(client.get("/students/1/courses").json()) == 1


def test_a_schedule_has_the_students_own_courses(client: TestClient) -> None:
    """A schedule's row is the course, with its level and the moment; other students' courses are not in it."""
    moment = post(client, 1, 2).json()["enrolled_at"]
    post(client, 2, 1)
    answer = client.get("/students/1/courses")
    row = {"id": 2, "name": "Music", "level": "A1", "enrolled_at": moment, **SEAT}
    assert (answer.status_code, answer.json()) == (200, [row])


def test_a_roster_has_the_courses_own_students(client: TestClient) -> None:
    """A roster's row is the student, with the moment; other courses' students are not in it."""
    moment = post(client, 2, 1).json()["enrolled_at"]
    post(client, 1, 2)
    answer = client.get("/courses/1/students")
    assert (answer.status_code, answer.json()) == (
        200,
        [{"id": 2, "name": "Bo", **SHOWN, "enrolled_at": moment, **SEAT}],
    )


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("/students/3/courses", "student_not_found"),
        ("/students/0/courses", "student_not_found"),
        ("/courses/3/students", "course_not_found"),
        ("/courses/3/waitlist", "course_not_found"),
        ("/courses/0/waitlist", "course_not_found"),
        ("/courses/x/students", "course_not_found"),
    ],
)
def test_a_list_of_nobody_is_not_found(client: TestClient, url: str, code: str) -> None:
    """The schedule of a student, or a list of a course, that does not exist is a 404, and not empty."""
    assert refusal(client.get(url)) == (404, code)
    for empty in ("/students/1/courses", "/courses/1/students", "/courses/1/waitlist"):
        assert client.get(empty).json() == []


def ids(found: list[list[dict[str, Any]]]) -> list[list[int]]:
    """Give the ids of every page."""
    return [[row["id"] for row in page] for page in found]


def test_a_schedule_and_a_roster_are_paged_by_id(client: TestClient, db: pw.Database) -> None:
    """Both are ordered by id, whatever the order of enrolling, and their pages hold everybody once."""
    for _ in range(3):
        insert_student(db, "Cy")
        insert_course(db, "Yoga", "A1")
    for other in (5, 2, 4, 3, 1):
        put(client, 1, other)
        put(client, other, 1)
    for url in ("/students/1/courses", "/courses/1/students"):
        assert ids(pages(client, f"{url}?limit=2")) == [[1, 2], [3, 4], [5]]
        assert ids(pages(client, f"{url}?limit=5")) == [[1, 2, 3, 4, 5]]
        first = client.get(f"{url}?limit=2").headers["link"]
        assert first.startswith(f"<{url}?limit=2&after=")
        assert first.endswith('>; rel="next"')


def test_a_page_has_100_rows_unless_told(client: TestClient, db: pw.Database) -> None:
    """Without a limit a roster's page has 100 rows; with one it has up to 1000."""
    with db.atomic():
        for number in range(1001):
            student = insert_student(db, f"Student {number}")
            enroll(db, student.id, 1)
    assert [len(page) for page in pages(client, "/courses/1/students")] == [*[100] * 10, 1]
    assert [len(page) for page in pages(client, "/courses/1/students?limit=1000")] == [1000, 1]


def test_a_drop_between_two_pages_hides_nobody(client: TestClient, db: pw.Database) -> None:
    """A cursor outlives its row: when the page's last student drops, the next page goes on all the same."""
    insert_student(db, "Cy")
    for student_id in (1, 2, 3):
        put(client, student_id, 1)
    answer = client.get("/courses/1/students?limit=2")
    client.delete("/students/2/courses/1")
    assert ids([answer.json(), client.get(answer.links["next"]["url"]).json()]) == [[1, 2], [3]]


def test_who_is_enrolled_is_not_deleted(client: TestClient) -> None:
    """A student with enrollments, or a course with any, stays until the last one is dropped."""
    put(client, 1, 1)
    put(client, 1, 2)
    for course_id in (1, 2):
        assert refusal(client.delete("/students/1")) == (409, "student_has_enrollments")
        assert refusal(client.delete(f"/courses/{course_id}")) == (409, "course_has_enrollments")
        assert client.get("/students/1").status_code == client.get(f"/courses/{course_id}").status_code == 200
        client.delete(f"/students/1/courses/{course_id}")
        assert client.delete(f"/courses/{course_id}").status_code == 204
    assert client.delete("/students/1").status_code == 204


def test_a_new_student_inherits_nothing(client: TestClient) -> None:
    """The ids of a deleted student and course are not used again, so nobody is enrolled by surprise."""
    put(client, 2, 2)
    for url in ("/students/2/courses/2", "/students/2", "/courses/2"):
        assert client.delete(url).status_code == 204
    assert client.post("/students", json={"name": "Cy"}).json()["id"] == 3
    assert client.post("/courses", json={"name": "Yoga", "level": "A1"}).json()["id"] == 3
    assert refusal(post(client, 2, 1)) == (404, "student_not_found")
    assert refusal(post(client, 1, 2)) == (404, "course_not_found")
    assert client.get("/students/3/courses").json() == client.get("/courses/3/students").json() == []
