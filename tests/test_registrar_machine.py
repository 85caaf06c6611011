"""The rules of a registrar against a model of them: whatever is asked, and in whatever order, both answer the same."""

import copy
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from invariants import check
from office import SHUT, Course, Model, Refused

from service import connect, courses, enrollments, registrar, students
from service.enrolling import EnrollmentRecord
from service.enrollments import list_roster, list_waitlist
from service.errors import ServiceError
from service.events import newest_event
from service.rows import ExternalId
from service.storage.kinds import schema_of

# Every run explores anew, in CI too; a failure prints its steps, and is tried first in the next run.
EXAMPLES = {"sqlite": 40, "postgresql": 12}
"""How many histories are tried; a step, with all that is looked at after it, takes ten times as long on PostgreSQL."""
EXPLORE = settings(
    stateful_step_count=40,
    derandomize=False,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
STUDENTS, COURSES = range(1, 7), range(1, 4)


def plain(answer: Any) -> Any:
    """Put an answer of the service as the model puts it."""
    match answer:
        case EnrollmentRecord():
            return answer.status, answer.position
        case registrar.Swapped():
            return answer.dropped, plain(answer.enrollment)
        case courses.CourseRecord():
            return None
    return answer


student_id, course_id = st.sampled_from([*STUDENTS, 99]), st.sampled_from([*COURSES, *COURSES, 99])
held = st.runner().flatmap(lambda office: st.sampled_from(office.model.pairs() or [(1, 1)]))
"""Draws from the students and courses that have to do with each other."""
pair = st.one_of(held, held, st.tuples(student_id, course_id))
limit = st.sampled_from([1, 0, 2, 3, None])
limits = st.fixed_dictionaries({}, optional={"capacity": limit, "waitlist_capacity": limit})
why = st.sampled_from([{}, {}, {"reason": "why"}, {"actor": "Eve"}])


class Office(RuleBasedStateMachine):
    """The plain functions on a file of its own, beside the model."""

    place: ClassVar[Callable[[], AbstractContextManager[Path | str]]]
    """Makes an empty database, which is gone at the end of the block."""

    def __init__(self) -> None:
        """Open the file, with all the students."""
        super().__init__()
        self.opened = ExitStack()
        self.path = self.opened.enter_context(type(self).place())
        self.db = self.opened.enter_context(closing(connect(self.path)))
        self.model = Model(STUDENTS)
        for student in STUDENTS:
            students.insert_student(self.db, "Ada", external_id=f"S{student}")

    def both(self, ask: Callable[[], Any], expected: Callable[[Model], object]) -> None:
        """Ask the service and the model, and hold the answers against each other; a refusal changes neither."""
        trial = copy.deepcopy(self.model)
        newest = newest_event(self.db)
        try:
            told = expected(trial)
            self.model = trial
        except Refused as refused:
            told = str(refused)
        try:
            answer = plain(ask())
        except ServiceError as error:
            answer = error.code
        assert answer == told
        assert self.model is trial or newest_event(self.db) == newest

    @initialize(limits=st.lists(st.tuples(limit, limit), min_size=len(COURSES), max_size=len(COURSES)))
    def begin(self, limits: list[tuple[int | None, int | None]]) -> None:
        """Let there be more students than seats."""
        for number, (capacity, waitlist_capacity) in enumerate(limits, 1):
            courses.insert_course(self.db, "Go", "A1", capacity, waitlist_capacity, external_id=f"C{number}")
            self.model.courses[number] = Course(capacity, waitlist_capacity)

    @rule(student=student_id, course=course_id, override=st.booleans(), by_name=st.booleans(), why=why)
    def enroll(self, student: int, course: int, override: bool, by_name: bool, why: dict[str, Any]) -> None:
        """Enroll, in the order of the rules or past it, by either id."""
        pair: Any = (ExternalId(f"S{student}"), ExternalId(f"C{course}")) if by_name else (student, course)
        self.both(
            lambda: enrollments.enroll(self.db, *pair, override=override, **why),
            lambda model: (model.override if override else model.enroll)(student, course),
        )

    @rule(pair=pair, why=why)
    def drop(self, pair: tuple[int, int], why: dict[str, Any]) -> None:
        """Drop."""
        self.both(lambda: enrollments.drop(self.db, *pair, **why), lambda model: model.drop(*pair))

    @rule(pair=pair, there=course_id, or_wait=st.booleans(), why=why)
    def swap(self, pair: tuple[int, int], there: int, or_wait: bool, why: dict[str, Any]) -> None:
        """Swap."""
        self.both(
            lambda: registrar.swap(self.db, *pair, there, or_wait=or_wait, **why),
            lambda model: model.swap(*pair, there, or_wait),
        )

    @rule(student=student_id, why=why)
    def withdraw(self, student: int, why: dict[str, Any]) -> None:
        """Withdraw a student."""
        self.both(lambda: registrar.withdraw(self.db, student, **why), lambda model: model.withdraw(student))

    @rule(course=course_id, why=why)
    def cancel(self, course: int, why: dict[str, Any]) -> None:
        """Cancel a course."""
        self.both(lambda: registrar.cancel(self.db, course, **why), lambda model: model.cancel(course))

    @rule(student=st.sampled_from([*STUDENTS[-2:], 99]))
    def erase(self, student: int) -> None:
        """Erase a student; most of them stay."""
        self.both(lambda: registrar.erase_student(self.db, student), lambda model: model.erase(student))

    @rule(course=course_id, changes=limits)
    def change(self, course: int, changes: dict[str, Any]) -> None:
        """Change the limits."""
        self.both(lambda: courses.update_course(self.db, course, changes), lambda model: model.update(course, changes))

    @rule(course=course_id, code=st.sampled_from(["", "", *SHUT]))
    def open_or_shut(self, course: int, code: str) -> None:
        """Open or shut the window."""
        self.both(lambda: courses.update_course(self.db, course, SHUT[code]), lambda model: model.window(course, code))

    @rule(course=course_id)
    def delete(self, course: int) -> None:
        """Delete a course."""
        self.both(lambda: courses.delete_course(self.db, course), lambda model: model.delete(course))

    @invariant()
    def holds(self) -> None:
        """Hold rosters, lines, limits and counts against the model."""
        assert [row.id for row in students.list_students(self.db)] == sorted(self.model.students)
        found = {course.id: course for course in courses.list_courses(self.db)}
        assert found.keys() == self.model.courses.keys()
        for number, expected in self.model.courses.items():
            course = found[number]
            assert [row.id for row in list_roster(self.db, number)] == sorted(expected.enrolled)
            assert [row.id for _, row in list_waitlist(self.db, number)] == expected.line
            assert (course.capacity, course.waitlist_capacity) == (expected.capacity, expected.waitlist_capacity)
            assert (course.enrolled, course.waitlisted) == (len(expected.enrolled), len(expected.line))
            assert course.availability == expected.availability()

    def teardown(self) -> None:
        """Prove all that must hold, fold the feed, and remove the file."""
        for number, course in self.model.courses.items():
            if course.shut:
                courses.update_course(self.db, number, SHUT[""])
        assert [str(result) for result in schema_of(self.path).prove(self.path) if str(result) != "ok"] == []
        assert {course: (set(seats), line) for course, (seats, line) in check(self.path).items()} == {
            number: (course.enrolled, course.line) for number, course in self.model.courses.items()
        }
        self.opened.close()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_office_is_answered_as_the_model_is(kind: str, request: pytest.FixtureRequest) -> None:
    """Whatever an office asks, each answer, each refusal and the feed are what plain lists would give."""

    @contextmanager
    def place() -> Iterator[Path | str]:
        if kind == "postgresql":
            with request.getfixturevalue("schools").lent() as url:
                yield url
        else:
            with TemporaryDirectory() as directory:
                yield Path(shutil.copy(request.getfixturevalue("empty_database"), directory))

    machine = type("Office", (Office,), {"place": staticmethod(place)})
    run_state_machine_as_test(machine, settings=settings(EXPLORE, max_examples=EXAMPLES[kind]))
