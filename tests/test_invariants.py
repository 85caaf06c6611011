"""The store against a model of it: whatever is asked, and in whatever order, both answer the same."""

import asyncio
import copy
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from invariants import check

from service import bulk, courses, enrolling, enrollments, students
from service.errors import BulkRefused, InvalidPayload, ServiceError
from service.storage.sqlite.store import Store

# Every run explores anew, in CI too; a failure prints its steps, and is tried first in the next run.
EXPLORE = settings(
    max_examples=8,
    stateful_step_count=30,
    derandomize=False,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@attrs.define
class Course:
    """A course of the model."""

    capacity: int | None
    waitlist_capacity: int | None
    enrolled: list[int] = attrs.Factory(list)
    waiting: list[int] = attrs.Factory(list)

    def is_open(self) -> bool:
        """Tell whether there is a seat."""
        return self.capacity is None or len(self.enrolled) < self.capacity

    def has_places(self) -> bool:
        """Tell whether there is a place in line."""
        return self.waitlist_capacity is None or len(self.waiting) < self.waitlist_capacity

    def promote(self) -> None:
        """Give the free seats to those who wait longest."""
        while self.waiting and self.is_open():
            self.enrolled.append(self.waiting.pop(0))

    def show(self) -> tuple[int | None, ...]:
        """Give the limits and the counts."""
        return self.capacity, self.waitlist_capacity, len(self.enrolled), len(self.waiting)


class Model:
    """All that is promised, in plain lists: what a client sees of an answer, or a refusal's code."""

    def __init__(self) -> None:
        """Begin with nothing; ids are counted, as none is given twice."""
        self.students: list[int] = []
        self.courses: dict[int, Course] = {}
        self.last = {"students": 0, "courses": 0}

    def insert_student(self) -> int:
        """Add a student."""
        self.last["students"] += 1
        self.students.append(self.last["students"])
        return self.last["students"]

    def insert_course(self, capacity: int | None, waitlist_capacity: int | None) -> object:
        """Add a course."""
        self.last["courses"] += 1
        self.courses[self.last["courses"]] = Course(capacity, waitlist_capacity)
        return self.courses[self.last["courses"]].show()

    def find_enrollment(self, student: int, course: int) -> object:
        """Give a status and a position."""
        found = self.courses.get(course, Course(0, 0))
        if student in found.waiting:
            return "waitlisted", found.waiting.index(student) + 1
        return ("enrolled", None) if student in found.enrolled else "enrollment_not_found"

    def enroll(self, student: int, course: int) -> object:
        """Give a seat, or a place in line."""
        if student not in self.students:
            return "student_not_found"
        if course not in self.courses:
            return "course_not_found"
        found = self.courses[course]
        if student in found.enrolled:
            return "already_enrolled"
        if student in found.waiting:
            return "already_waitlisted"
        if not found.is_open() and not found.has_places():
            return "course_full"
        (found.enrolled if found.is_open() else found.waiting).append(student)
        return self.find_enrollment(student, course)

    def ensure_enrolled(self, student: int, course: int) -> object:
        """Enroll unless it is done already."""
        answer = self.enroll(student, course)
        if answer in ("already_enrolled", "already_waitlisted"):
            return self.find_enrollment(student, course), False
        return answer if isinstance(answer, str) else (answer, True)

    def enroll_all(self, rows: list[enrolling.Row], atomic: bool = False, dry_run: bool = False) -> object:
        """Enroll row by row; keep all, or nothing."""
        before = copy.deepcopy(self.courses)
        results = [row.code if isinstance(row, ServiceError) else self.enroll(*row) for row in rows]
        refusals = {at: result for at, result in enumerate(results) if isinstance(result, str)}
        refused = atomic and refusals
        if refused or dry_run:
            self.courses = before
        return refusals if refused else results

    def drop(self, student: int, course: int) -> object:
        """Free a seat, or a place in line."""
        if self.find_enrollment(student, course) == "enrollment_not_found":
            return "enrollment_not_found"
        found = self.courses[course]
        (found.enrolled if student in found.enrolled else found.waiting).remove(student)
        found.promote()
        return None

    def update_course(self, course: int, changes: dict[str, int | None]) -> object:
        """Change the limits, unless that would cost anybody a seat or a place in line."""
        if course not in self.courses:
            return "course_not_found"
        found = copy.deepcopy(self.courses[course])
        for name, value in changes.items():
            setattr(found, name, value)
        if found.capacity is not None and found.capacity < len(found.enrolled):
            return "capacity_below_enrolled"
        found.promote()
        if found.waitlist_capacity is not None and found.waitlist_capacity < len(found.waiting):
            return "waitlist_capacity_below_waitlisted"
        self.courses[course] = found
        return found.show()

    def delete_student(self, student: int) -> object:
        """Remove a student who is nowhere enrolled or waiting."""
        if student not in self.students:
            return "student_not_found"
        if any(student in (*course.enrolled, *course.waiting) for course in self.courses.values()):
            return "student_has_enrollments"
        self.students.remove(student)
        return None

    def delete_course(self, course: int) -> object:
        """Remove a course where nobody is enrolled or waiting."""
        if course not in self.courses:
            return "course_not_found"
        if self.courses[course].enrolled or self.courses[course].waiting:
            return "course_has_enrollments"
        del self.courses[course]
        return None


def plain(answer: Any) -> Any:  # noqa: PLR0911 - a table by type.
    """Put the store's answer as the model puts it."""
    match answer:
        case BulkRefused():
            return {at: plain(refusal) for at, refusal in answer.refusals.items()}
        case ServiceError():
            return answer.code
        case enrolling.EnrollmentRecord():
            assert (answer.enrolled_at is None) == (answer.status == "waitlisted")
            return answer.status, answer.position
        case students.StudentRecord():
            return answer.id
        case courses.CourseRecord():
            return answer.capacity, answer.waitlist_capacity, answer.enrolled, answer.waitlisted
        case list():
            return [plain(each) for each in answer]
        case enrollment, bool(new):
            return plain(enrollment), new
    assert answer is None
    return None


def ids(kind: str) -> st.SearchStrategy[int]:
    """Draw from the ids that were given, those in use twice as often, and one that was not."""
    return st.runner().flatmap(
        lambda school: st.sampled_from([*getattr(school.model, kind), *range(1, school.model.last[kind] + 2)])
    )


student_id, course_id = ids("students"), ids("courses")
pair = st.tuples(student_id, course_id)
NO_ROW = InvalidPayload([("#", "must be a JSON object")])
rows: st.SearchStrategy[list[enrolling.Row]] = st.builds(
    lambda first, odd, last: [*first, *odd, *last], st.lists(pair), st.sampled_from([[], [NO_ROW]]), st.lists(pair)
)
capacity = st.sampled_from([1, 2, 0, 3, None])
waitlist_capacity = st.sampled_from([None, 4, 2, 1, 0])
limits = st.fixed_dictionaries({}, optional={"capacity": capacity, "waitlist_capacity": waitlist_capacity})

RULES: dict[str, tuple[Any, Any, Any]] = {
    "POST": (enrollments.enroll, Model.enroll, pair),
    "PUT": (enrollments.ensure_enrolled, Model.ensure_enrolled, pair),
    "DELETE": (enrollments.drop, Model.drop, pair),
    "GET": (enrolling.find_enrollment, Model.find_enrollment, pair),
    "PATCH": (courses.update_course, Model.update_course, st.tuples(course_id, limits)),
    "bulk": (bulk.enroll_all, Model.enroll_all, st.tuples(rows, st.booleans(), st.booleans())),
}
requests = st.lists(
    st.one_of(*(st.tuples(st.just(name), params) for name, (_, _, params) in RULES.items())), min_size=1, max_size=8
)


class School(RuleBasedStateMachine):
    """A store on a file of its own, beside the model."""

    empty_database: ClassVar[Path]

    def __init__(self) -> None:
        """Open the store."""
        super().__init__()
        self.directory = TemporaryDirectory()
        self.path = Path(shutil.copy(self.empty_database, self.directory.name))
        self.runner = asyncio.Runner()
        self.model = Model()
        self.open()

    def open(self) -> None:
        """Make a store on the file."""
        self.store = Store(self.path, busy_timeout=5, max_pending_writes=100)

    def ask(self, *units: tuple[Any, ...]) -> list[Any]:
        """Hand units of work to the store all at once, and give the answers."""

        async def answers() -> list[Any]:
            return await asyncio.gather(*(self.store.write(*unit) for unit in units), return_exceptions=True)

        given: list[Any] = self.runner.run(answers())
        return [plain(answer) for answer in given]

    @initialize(limits=st.lists(st.tuples(capacity, waitlist_capacity), min_size=2, max_size=2))
    def begin(self, limits: list[tuple[int | None, int | None]]) -> None:
        """Let there be more students than seats."""
        for each in limits:
            self.insert_course(*each)
        for _ in range(5):
            self.insert_student()

    @rule(requests=requests)
    def request(self, requests: list[tuple[str, tuple[Any, ...]]]) -> None:
        """Be clients who do not wait for each other."""
        expected = [RULES[name][1](self.model, *params) for name, params in requests]
        assert self.ask(*((RULES[name][0], *params) for name, params in requests)) == expected

    @rule(rows=rows, seconds=st.sampled_from([0, bulk.SLICE_SECONDS]))
    def enroll_many(self, rows: list[enrolling.Row], seconds: float) -> None:
        """POST /enrollments, slice by slice."""
        results: list[object] = []
        while len(results) < len(rows):
            (done,) = self.ask((bulk.enroll_many, rows[len(results) :], seconds))
            assert isinstance(done, list)
            results += done
        assert results == self.model.enroll_all(rows)

    @rule()
    @precondition(lambda self: len(self.model.students) < 8)
    def insert_student(self) -> None:
        """POST /students."""
        assert self.ask((students.insert_student, "Ada")) == [self.model.insert_student()]

    @rule(capacity=capacity, waitlist_capacity=waitlist_capacity)
    @precondition(lambda self: len(self.model.courses) < 3)
    def insert_course(self, capacity: int | None, waitlist_capacity: int | None) -> None:
        """POST /courses."""
        expected = self.model.insert_course(capacity, waitlist_capacity)
        assert self.ask((courses.insert_course, "Chess", "A1", capacity, waitlist_capacity)) == [expected]

    @rule(student_id=student_id)
    def delete_student(self, student_id: int) -> None:
        """DELETE /students/{student_id}."""
        assert self.ask((students.delete_student, student_id)) == [self.model.delete_student(student_id)]

    @rule(course_id=course_id)
    def delete_course(self, course_id: int) -> None:
        """DELETE /courses/{course_id}."""
        assert self.ask((courses.delete_course, course_id)) == [self.model.delete_course(course_id)]

    @rule()
    def restart(self) -> None:
        """Stop the service, and start it."""
        self.store.close()
        self.open()

    @invariant()
    def holds(self) -> None:
        """Check that the file is sound, and says what the model says."""
        assert {course: (set(seats), line) for course, (seats, line) in check(self.path).items()} == {
            course: (set(expected.enrolled), expected.waiting) for course, expected in self.model.courses.items()
        }

    def teardown(self) -> None:
        """Close all, and remove the file."""
        self.store.close()
        self.runner.close()
        self.directory.cleanup()


@pytest.mark.long
def test_the_store_answers_as_the_model_does(empty_database: Path) -> None:
    """Whatever clients do, each answer, each refusal and the feed are what plain lists would give."""
    machine = type("School", (School,), {"empty_database": empty_database})
    run_state_machine_as_test(machine, settings=EXPLORE)
