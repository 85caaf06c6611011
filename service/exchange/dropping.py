"""Whom an import drops: who has a row that says so and, where that is asked for, who is not in the files."""

import time
from array import array
from collections.abc import Mapping, Sequence
from typing import Literal

import attrs
import peewee as pw

from service.bulk import bare
from service.enrollments import drop
from service.errors import EnrollmentNotFound, ServiceError
from service.events import Why
from service.exchange.errors import TooManyDrops
from service.exchange.pairs import Cells, Keys, Pairs
from service.exchange.parts import Kind
from service.storage import Pair, fetch

ROSTER = "SELECT student_id FROM enrollments WHERE course_id = ? ORDER BY waiting IS NULL, student_id"
"""Who waits comes first, so that nobody is promoted into a seat who is then dropped."""
TERM = "SELECT term_id FROM courses WHERE id = ?"


def drop_each(
    db: pw.Database, why: Why, pairs: Sequence[Pair], until: float
) -> list[Literal["dropped"] | ServiceError]:
    """Drop one pair after the other within the caller's transaction, and give each pair's result, in order.

    After `until`, in seconds of the monotonic clock, no further pair is begun except the first one. The result of a
    pair that is not enrolled is EnrollmentNotFound. Raises ConstraintViolated, as nobody can tell what a rule of
    another program has left of its pair.
    """
    results: list[Literal["dropped"] | ServiceError] = []
    for pair in pairs:
        if results and time.monotonic() > until:
            break
        try:
            drop(db, *pair, actor=why.actor, reason=why.reason)
        except EnrollmentNotFound as error:
            results.append(bare(error))
        else:
            results.append("dropped")
    return results


@attrs.frozen
class Plan:
    """Who is to be dropped, as the files do not have it."""

    leaving: Mapping[int, Sequence[int]]
    """The students to be dropped by their course, those who wait first."""
    of: int
    """How many enrollments the courses have that the files speak of."""
    unsure: int
    """In how many courses nobody is dropped, because a row cannot be read to its end."""

    def check(self, most: float) -> None:
        """Raise TooManyDrops if more than so many percent would be dropped."""
        missing = sum(map(len, self.leaving.values()))
        if missing * 100 > most * self.of:
            percent = 100 * missing / self.of
            raise TooManyDrops(
                f"{missing:,} of the {self.of:,} enrollments in these courses are not in the files, which is "
                f"{percent:.1f} % and more than the {most:g} % that may be dropped, so nothing was imported. If the "
                f"files are right, let the import drop up to {-(-100 * missing // self.of)} %."
            )


class Absent:
    """Finds who is enrolled in the courses that the files speak of, and not in the files.

    Where the files name terms, only courses of these terms count. A typo drops nobody: where a row names a course, but
    no student that there is, nobody is dropped from that course; where a row names a student, but no course that there
    is, that student is not dropped at all; and where a row names neither, nobody is.
    """

    def __init__(self, db: pw.Database) -> None:
        """Have seen no row yet."""
        self._db, self._pairs = db, Pairs(db)
        self._nouns: Mapping[str, Keys] = {kind: Keys(db, kind) for kind in ("terms", "courses", "students")}
        self._terms = Keys(db, "terms", "term_")
        self._present: dict[int, array[int]] = {}
        """The courses that the files speak of, each with the students that rows name."""
        self._coming: Mapping[str, set[str]] = {kind: set() for kind in self._nouns}
        """The external ids that rows of terms, courses and students bring."""
        self._names_terms = False
        self._term_ids: set[int] = set()
        self._of_terms: set[int] = set()
        """The courses of which a row of the files says the term."""
        self._unsure: set[int] = set()
        """The courses of which a row names no student that there is."""
        self._safe: set[int] = set()
        """The students of whom a row names no course that there is, or whose external id a row changes."""
        self._nobody = False

    def see(self, kind: Kind, rows: Sequence[Cells]) -> None:
        """Look at rows of one kind; those of terms come first, then courses, students and enrollments."""
        if kind == "enrollments":
            self._see_pairs(rows)
            return
        keys = self._nouns[kind]
        keys.look_up(rows, forget=True)
        for row in rows:
            if text := keys.named(row):
                self._coming[kind].add(text)
            self._see(kind, row, keys.find(row))
        self._names_terms |= kind == "terms" and bool(rows)

    def _see(self, kind: Kind, row: Cells, found: int | None) -> None:
        if kind == "terms" and found:
            self._term_ids.add(found)
        elif kind == "students" and "id" in row and "external_id" in row:
            by_id = {"id": row["id"]}
            self._nouns[kind].look_up([by_id], forget=False)
            self._safe.add(self._nouns[kind].find(by_id) or 0)
        elif kind == "courses":
            if row.get("term_external_id") or row.get("term_id"):
                self._names_terms = True
                self._terms.look_up([row], forget=False)
                self._term_ids.add(self._terms.find(row) or 0)
                self._of_terms.add(found or 0)
            if found:
                self._present.setdefault(found, array("q"))

    def _see_pairs(self, rows: Sequence[Cells]) -> None:
        students, courses = self._pairs.students, self._pairs.courses
        self._pairs.look_up(rows)
        for row in rows:
            student_id, course_id = students.find(row), courses.find(row)
            is_student = student_id or students.named(row) in self._coming["students"]
            is_course = course_id or courses.named(row) in self._coming["courses"]
            self._nobody |= not (is_student or is_course)
            if course_id:
                there = self._present.setdefault(course_id, array("q"))
                if student_id:
                    there.append(student_id)
                elif not is_student:
                    self._unsure.add(course_id)
            elif student_id and not is_course:
                self._safe.add(student_id)

    def plan(self) -> Plan:
        """Give who is to be dropped."""
        leaving, of, unsure = {}, 0, 0
        for course_id, present in sorted(self._present.items()):
            if not self._counts(course_id):
                continue
            roster = [student_id for (student_id,) in fetch(self._db, ROSTER, course_id)]
            of += len(roster)
            there = self._safe.union(present)
            gone = [student_id for student_id in roster if student_id not in there]
            if gone and (self._nobody or course_id in self._unsure):
                unsure += 1
            elif gone:
                leaving[course_id] = array("q", gone)
        return Plan(leaving, of, unsure)

    def _counts(self, course_id: int) -> bool:
        if not self._names_terms or course_id in self._of_terms:
            return True
        ((term_id,),) = fetch(self._db, TERM, course_id)
        return term_id in self._term_ids
