"""The rules of a registrar in plain lists, for the tests that hold the service against them."""

import copy
from collections.abc import Iterable
from typing import Any

import attrs

SHUT: dict[str, Any] = {
    "enrollment_not_open": {"opens_at": "2201-01-01T00:00:00Z", "closes_at": None},
    "enrollment_closed": {"opens_at": None, "closes_at": "2001-01-01T00:00:00Z"},
    "": {"opens_at": None, "closes_at": None},
}
"""The bounds of a window, by the code with which it refuses; without a code it is open."""


class Refused(Exception):
    """The model refuses, with a code."""


@attrs.define
class Course:
    """A course of the model."""

    capacity: int | None
    waitlist_capacity: int | None
    shut: str = ""
    enrolled: set[int] = attrs.Factory(set)
    line: list[int] = attrs.Factory(list)

    def is_open(self) -> bool:
        """Tell whether a seat is free."""
        return self.capacity is None or len(self.enrolled) < self.capacity

    def has_places(self) -> bool:
        """Tell whether a place in line is free."""
        return self.waitlist_capacity is None or len(self.line) < self.waitlist_capacity

    def promote(self) -> None:
        """Give the free seats to those who wait longest."""
        while self.line and self.is_open():
            self.enrolled.add(self.line.pop(0))

    def drop(self, student: int) -> None:
        """Free a seat, or a place in line."""
        if student in self.line:
            self.line.remove(student)
        else:
            self.enrolled.remove(student)
        self.promote()

    def availability(self) -> str:
        """Tell what the next student gets."""
        if self.shut:
            return self.shut.removeprefix("enrollment_")
        return "open" if self.is_open() else "waitlist" if self.has_places() else "full"


class Model:
    """All that is promised, in plain lists; each method gives what the plain function gives, or raises Refused."""

    def __init__(self, students: Iterable[int]) -> None:
        """Begin without courses."""
        self.students = {*students}
        self.courses: dict[int, Course] = {}

    def pairs(self) -> list[tuple[int, int]]:
        """Give who is enrolled or waits, and where."""
        return [
            (student, at) for at, found in self.courses.items() for student in [*sorted(found.enrolled), *found.line]
        ]

    def course(self, student: int, course: int) -> Course:
        """Give the course of a pair that exists."""
        if student not in self.students:
            raise Refused("student_not_found")
        if course not in self.courses:
            raise Refused("course_not_found")
        found = self.courses[course]
        if student in found.enrolled:
            raise Refused("already_enrolled")
        return found

    def enroll(self, student: int, course: int) -> object:
        """Give a seat, or a place in line."""
        found = self.course(student, course)
        if student in found.line:
            raise Refused("already_waitlisted")
        if found.shut:
            raise Refused(found.shut)
        if found.is_open():
            found.enrolled.add(student)
            return "enrolled", None
        if not found.has_places():
            raise Refused("course_full")
        found.line.append(student)
        return "waitlisted", len(found.line)

    def override(self, student: int, course: int) -> object:
        """Give a seat in any case."""
        found = self.course(student, course)
        if not found.is_open():
            assert found.capacity is not None
            found.capacity += 1
        if student in found.line:
            found.line.remove(student)
        found.enrolled.add(student)
        return "enrolled", None

    def drop(self, student: int, course: int) -> object:
        """End an enrollment."""
        found = self.courses.get(course)
        if found is None or student not in {*found.enrolled, *found.line}:
            raise Refused("enrollment_not_found")
        found.drop(student)
        return None

    def swap(self, student: int, here: int, there: int, or_wait: bool) -> object:
        """Give a seat for a seat, or nothing."""
        if here == there:
            raise Refused("invalid_payload")
        if student not in self.students:
            raise Refused("student_not_found")
        self.drop_would(student, here)
        told: Any = self.enroll(student, there)
        if told[0] == "waitlisted" and not or_wait:
            raise Refused("course_full")
        if told[0] == "enrolled":
            self.drop(student, here)
        return told[0] == "enrolled", told

    def drop_would(self, student: int, course: int) -> None:
        """Raise what `drop` raises."""
        copy.deepcopy(self).drop(student, course)

    def withdraw(self, student: int) -> object:
        """End all enrollments of a student."""
        if student not in self.students:
            raise Refused("student_not_found")
        theirs = [found for found in self.courses.values() if student in {*found.enrolled, *found.line}]
        for found in theirs:
            found.drop(student)
        return len(theirs)

    def cancel(self, course: int) -> object:
        """End all enrollments of a course."""
        if course not in self.courses:
            raise Refused("course_not_found")
        found = self.courses[course]
        count = len(found.enrolled) + len(found.line)
        found.enrolled, found.line = set(), []
        return count

    def erase(self, student: int) -> object:
        """Withdraw a student, and forget who it was."""
        self.withdraw(student)
        self.students.remove(student)
        return None

    def update(self, course: int, changes: dict[str, int | None]) -> object:
        """Change the limits, unless that would cost anybody a seat or a place."""
        if course not in self.courses:
            raise Refused("course_not_found")
        found = self.courses[course]
        for name, value in changes.items():
            setattr(found, name, value)
        if found.capacity is not None and found.capacity < len(found.enrolled):
            raise Refused("capacity_below_enrolled")
        found.promote()
        if found.waitlist_capacity is not None and found.waitlist_capacity < len(found.line):
            raise Refused("waitlist_capacity_below_waitlisted")
        return None

    def window(self, course: int, code: str) -> object:
        """Open or shut the window."""
        if course not in self.courses:
            raise Refused("course_not_found")
        self.courses[course].shut = code
        return None

    def delete(self, course: int) -> object:
        """Delete a course where nobody is."""
        if course not in self.courses:
            raise Refused("course_not_found")
        if self.courses[course].enrolled or self.courses[course].line:
            raise Refused("course_has_enrollments")
        del self.courses[course]
        return None
