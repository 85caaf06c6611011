"""Swap: a seat in one course for the one in another; and what other programs say to the office's steps."""

from pathlib import Path
from typing import Any

import httpx2
import peewee as pw
import pytest
from invariants import check
from programs import LEAVE_OUT, host_rule, refuse
from starlette.testclient import TestClient
from test_seats import add_course, dump, put, refusal, standing

from service import registrar
from service.courses import insert_course
from service.enrolling import EnrollmentRecord
from service.enrollments import enroll, list_roster
from service.errors import ConstraintViolated, CourseFull
from service.events import list_events
from service.students import insert_student

pytestmark = pytest.mark.both

PAST, FUTURE = "2001-01-01T00:00:00.000Z", "2201-01-01T00:00:00.000Z"


@pytest.fixture(autouse=True)
def _students(db: pw.SqliteDatabase) -> None:
    """Have the students 1 to 8."""
    with db.atomic():
        for number in range(1, 9):
            insert_student(db, f"Student {number}", external_id=f"S{number}")


@pytest.fixture
def four_courses(client: TestClient) -> None:
    """Have Logic (1) with 1 in it and two in line, Music (2) full with a line, Chess (3) full, Go (4) with seats."""
    add_course(client, 1, None, 1, 2, 3)
    add_course(client, 1, 2, 4, 5)
    add_course(client, 1, 0, 4)
    add_course(client, 2, 0)


def swap(client: httpx2.Client, student_id: int, here: int, there: int, **more: Any) -> httpx2.Response:
    """Swap with a POST."""
    payload = {"drop_course_id": here, "enroll_course_id": there, **more}
    return client.post(f"/students/{student_id}/swap", json=payload)


@pytest.mark.usefixtures("four_courses")
def test_a_swap_passes_the_seat_on(client: TestClient, path: Path) -> None:
    """The student has the seat in the one course, and whoever waited longest has the one in the other."""
    answer = swap(client, 1, 1, 4)
    enrollment = client.get("/students/1/courses/4").json()
    assert (answer.status_code, answer.json()) == (200, {"dropped": True, "enrollment": enrollment})
    assert (standing(client, 1), standing(client, 4)) == (([2], [3]), ([1], []))
    assert [event["type"] for event in client.get("/events").json()[-3:]] == ["enrolled", "dropped", "promoted"]
    assert swap(client, 3, 1, 4).json()["dropped"] is True
    assert (standing(client, 1), standing(client, 4)) == (([2], []), ([1, 3], []))
    check(path)


@pytest.mark.usefixtures("four_courses")
def test_a_swap_may_wait(client: TestClient, path: Path) -> None:
    """With or_wait and no seat but a place in line, the student joins the line and keeps the seat in the other one."""
    answer = swap(client, 1, 1, 2, or_wait=True)
    enrollment = client.get("/students/1/courses/2").json()
    assert (answer.status_code, answer.json()) == (200, {"dropped": False, "enrollment": enrollment})
    assert (enrollment["status"], enrollment["position"]) == ("waitlisted", 2)
    assert (standing(client, 1), standing(client, 2)) == (([1], [2, 3]), ([4], [5, 1]))
    assert swap(client, 4, 3, 4, or_wait=True).json()["dropped"] is True
    check(path)


REFUSED: list[tuple[tuple[int, int, int], dict[str, Any], str]] = [
    ((1, 1, 2), {}, "course_full"),
    ((1, 1, 3), {}, "course_full"),
    ((1, 1, 3), {"or_wait": True}, "course_full"),
    ((4, 2, 3), {}, "already_enrolled"),
    ((5, 2, 2), {}, "invalid_payload"),
    ((9, 1, 4), {}, "student_not_found"),
    ((1, 1, 9), {}, "course_not_found"),
    ((1, 9, 4), {}, "enrollment_not_found"),
    ((1, 2, 4), {}, "enrollment_not_found"),
    ((6, 1, 4), {}, "enrollment_not_found"),
    ((1, 1, 5), {}, "enrollment_not_open"),
    ((1, 1, 6), {"or_wait": True}, "enrollment_closed"),
    ((1, 1, 4), {"or_wait": None}, "invalid_payload"),
    ((1, 1, 4), {"reason": "x" * 201}, "invalid_payload"),
]


@pytest.mark.usefixtures("four_courses")
@pytest.mark.parametrize(("ids", "more", "code"), REFUSED)
def test_a_swap_that_is_refused_changes_nothing(
    client: TestClient, path: Path, ids: tuple[int, int, int], more: dict[str, Any], code: str
) -> None:
    """Whatever refuses the one half of a swap, nothing of the other half is kept, not even an event."""
    for bounds in ({"opens_at": FUTURE}, {"closes_at": PAST}):
        client.post("/courses", json={"name": "Shut", "level": "A1", **bounds})
    before = dump(path)
    answer = swap(client, *ids, **more)
    assert refusal(answer)[1] == code
    assert dump(path) == before
    if code == "course_full":
        assert answer.json()["course_id"] == ids[2]


@pytest.mark.usefixtures("four_courses")
def test_a_swap_from_an_external_id_that_no_course_has(client: TestClient) -> None:
    """The one that was mistyped is named; one that a course has is not, as the answer has the id of the course."""
    client.patch("/courses/4", json={"external_id": "GO"})
    for external_id, named in (("OG", {"course_external_id": "OG"}), ("GO", {"course_id": 4})):
        answer = client.post("/students/1/swap", json={"drop_course_external_id": external_id, "enroll_course_id": 3})
        assert refusal(answer) == (404, "enrollment_not_found")
        assert {name: value for name, value in answer.json().items() if name.startswith("course_")} == named


@pytest.mark.usefixtures("four_courses")
def test_writes_go_on_behind_a_refused_swap(client: TestClient, path: Path) -> None:
    """Whoever writes next is not told of a swap that was refused for want of a seat, with its reason and all."""
    for count in range(3):
        assert refusal(swap(client, 1, 1, 2, reason="why")) == (409, "course_full")
        for student in (2 * count + 1, 2 * count + 2):
            assert put(client, student, 3 + count % 2).status_code in {201, 409}
    check(path)


@pytest.mark.usefixtures("four_courses")
def test_a_swap_into_a_line_that_the_student_is_in(client: TestClient, path: Path) -> None:
    """Who waits for the other course already is told so, and keeps both."""
    put(client, 6, 2)
    put(client, 6, 4)
    before = dump(path)
    for or_wait in (False, True):
        assert refusal(swap(client, 6, 4, 2, or_wait=or_wait)) == (409, "already_waitlisted")
    assert dump(path) == before


@pytest.mark.usefixtures("four_courses")
def test_the_plain_function_swaps(db: pw.SqliteDatabase, path: Path) -> None:
    """The plain function swaps within a transaction of its caller, too, and undoes its own part alone."""
    with db.atomic():
        enroll(db, 8, 4)
        for full in (2, 3):  # Of the two, Music has a place in line, which the student gets for a moment.
            with pytest.raises(CourseFull):
                registrar.swap(db, 1, 1, full)
        swapped = registrar.swap(db, 1, 1, 2, or_wait=True)
        assert swapped == registrar.Swapped(False, EnrollmentRecord(1, 2, None, "waitlisted", 2))
        assert registrar.swap(db, 2, 1, 4).dropped
    assert [row.id for row in list_roster(db, 4)] == [2, 8]
    check(path)


def test_other_programs_have_their_say(db: pw.Database, path: Path | str) -> None:
    """What a trigger of another program refuses, aloud or in silence, is refused whole and told as its own rule."""
    for name in ("Logic", "Music"):
        insert_course(db, name, "A1", 1, None)
    enroll(db, 1, 1, reason="why")
    enroll(db, 2, 1)
    for event, does, calls in (
        ("BEFORE INSERT ON enrollments", refuse("fees unpaid"), "override swap"),
        ("BEFORE INSERT ON enrollments", LEAVE_OUT, "override swap"),
        ("BEFORE DELETE ON enrollments", LEAVE_OUT, "swap withdraw cancel erase"),
        ("BEFORE UPDATE ON enrollments", LEAVE_OUT, "promote"),
        ("BEFORE UPDATE ON event_notes", LEAVE_OUT, "erase"),
    ):
        before = dump(path)
        for name in calls.split():
            done: Any = {
                "override": lambda: enroll(db, 3, 1, override=True, reason="why"),
                "promote": lambda: enroll(db, 2, 1, override=True),
                "swap": lambda: registrar.swap(db, 1, 1, 2),
                "withdraw": lambda: registrar.withdraw(db, 1),
                "cancel": lambda: registrar.cancel(db, 1),
                "erase": lambda: registrar.erase_student(db, 1),
            }[name]
            with host_rule(path, event, does), pytest.raises(ConstraintViolated):
                done()
        assert dump(path) == before
    check(path)


def test_a_trigger_that_drops_along(db: pw.Database, path: Path | str) -> None:
    """Who leaves a lecture may leave its lab by a trigger of another program; all of that is one withdrawal."""
    for name in ("Lecture", "Lab"):
        insert_course(db, name, "A1")
    along = "DELETE FROM enrollments WHERE student_id = OLD.student_id AND course_id = 2"
    for course in (1, 2):
        enroll(db, 1, course)
    with host_rule(path, "AFTER DELETE ON enrollments", along, when="OLD.course_id = 1"):
        assert registrar.withdraw(db, 1, reason="moved") == 2
    told = [(event.type, event.course_id, event.reason) for event in list_events(db)[-2:]]
    assert sorted(told) == [("dropped", 1, "moved"), ("dropped", 2, "moved")]
    check(path)
