"""Take the rows of enrollments: who is dropped comes first, so that the seats are free, then who is enrolled."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial

import peewee as pw

from service.enrolling import STATUSES, Asked, enroll_each, enroll_pairs
from service.errors import AlreadyEnrolled, AlreadyWaitlisted, EnrollmentNotFound, ServiceError
from service.events import NOBODY
from service.exchange.dropping import Plan, drop_each
from service.exchange.pairs import Paired, Pairs
from service.exchange.parts import Part, Row
from service.exchange.reading import Read, ahead
from service.exchange.turns import Turns
from service.exchange.words import refused
from service.exchange.work import Lost, Placed, Work
from service.fields import Status
from service.storage import Pair, fetch

WINDOW = 20_000
"""How many rows are taken at a time, and enrolled course by course: the rows of one course lie side by side in the
database, which makes an import of many twice as fast."""
MOST_IN_SLICE = 10_000
"""The most enrollments of a slice: more do not fit in its time."""
MOST_DROPPED = 2_000
"""The most enrollments of one course that one transaction drops: all other writes wait until its end."""
SUPERSEDED = "another row enrolls the student in the same course"
NOT_THERE = "to be dropped, but the student or the course is not there"

EXTERNAL_IDS = """
    SELECT students.external_id, courses.external_id
    FROM students CROSS JOIN courses
    WHERE students.id = ? AND courses.id = ?"""

Place = tuple[Part | None, int]
"""The part and the line of a row; None and 0 for an enrollment that no row speaks of."""
NOWHERE: Place = None, 0


class Rosters:
    """Takes the rows of enrollments of one import."""

    def __init__(self, work: Work, db: pw.Database, turns: Turns) -> None:
        """Have taken no row yet."""
        self._work, self._db, self._turns, self._options = work, db, turns, work.options
        self._parts = work.parts["enrollments"]
        self._pairs = Pairs(db)
        self._done = 0

    def drop_marked(self) -> None:
        """Drop whoever has a row that says so, but none that enrolls the student in the same course.

        OneRoster and Canvas go on telling of students and courses that are long gone, so a drop of none is no fault.
        """
        drops: dict[int, dict[int, Place]] = defaultdict(dict)
        for placed in self._windows("drop"):
            found, lost = self._pairs.resolve(placed)
            for part, row in lost:
                if self._work.report.format != "csv" and row.code in {"student_not_found", "course_not_found"}:
                    self._work.skip("enrollments", NOT_THERE)
                else:
                    self._work.refuse("enrollments", [(part, row)])
            for each in found:
                student_id, course_id = each.pair
                if student_id in drops[course_id]:
                    self._work.count("enrollments", "unchanged")
                drops[course_id].setdefault(student_id, (each.part, each.row.line))
        for placed in self._windows("enroll"):
            found, _ = self._pairs.resolve(placed)
            for each in found:
                student_id, course_id = each.pair
                if course_id in drops and drops[course_id].pop(student_id, False):
                    self._work.skip("enrollments", SUPERSEDED)
        self._drop(drops)

    def drop_missing(self, plan: Plan) -> None:
        """Drop whom the files do not have."""
        self._drop({course_id: dict.fromkeys(leaving, NOWHERE) for course_id, leaving in plan.leaving.items()})

    def _windows(self, action: str) -> Iterator[list[Placed]]:
        """Read the rows with an action again."""
        with closing(ahead(self._parts, WINDOW)) as windows:
            for read in windows:
                self._work.show("dropping", 0, None, 0)
                yield [(part, row) for part, row in read if isinstance(row, Row) and row.values.get("action") == action]

    def _drop(self, drops: dict[int, dict[int, Place]]) -> None:
        done, of = 0, sum(map(len, drops.values()))
        for course_id, leaving in drops.items():
            standing = self._pairs.standing((student_id, course_id) for student_id in leaving)
            self._work.count("enrollments", "unchanged", len(leaving) - len(standing))
            # Who waits comes first, so that nobody is promoted into a seat who is then dropped.
            pairs = sorted(standing, key=lambda pair: (standing[pair] is None, pair))
            while pairs:
                results = self._turns.write(pairs[:MOST_DROPPED], partial(drop_each, self._db, self._options.why))
                for pair, result in zip(pairs, results, strict=False):
                    self._settle_drop(pair, leaving[pair[0]], result)
                pairs = pairs[len(results) :]
            done += len(leaving)
            self._work.show_rows("dropping", done, of)

    def _settle_drop(self, pair: Pair, place: Place, result: str | ServiceError) -> None:
        if not isinstance(result, ServiceError):
            self._work.count("enrollments", result)
        elif isinstance(result, EnrollmentNotFound):
            self._work.count("enrollments", "unchanged")
        else:
            ((student, course),) = fetch(self._db, EXTERNAL_IDS, *pair)
            part, line = place
            values = {"student_external_id": student, "course_external_id": course, "action": "drop"}
            self._work.refuse("enrollments", [(part, refused(part, Row(line, values), result))])

    def enroll(self) -> None:
        """Enroll whoever has a row that says so, within each course in the order of the rows."""
        with closing(ahead(self._parts, WINDOW)) as windows:
            for read in windows:
                self._enroll(read)
                self._done += len(read)
                self._show(0)

    def _enroll(self, read: Sequence[Read]) -> None:
        placed, lost = self._work.sift("enrollments", read)
        found, more = self._pairs.resolve([each for each in placed if each[1].values.get("action") != "drop"])
        lost += more
        left = self._new(found)
        at = 0
        while at < len(left):
            some = left[at : at + MOST_IN_SLICE]
            results: Sequence[Status | ServiceError] = self._turns.write(some, self._enroll_each)
            lost += self._settle(some, results)
            at += len(results)
            self._show(len(read) * at // len(left))
        self._work.refuse("enrollments", lost)

    def _show(self, more: int) -> None:
        self._work.show_rows("enrollments", self._done + more, self._work.counts["enrollments"])

    def _new(self, found: Sequence[Paired]) -> list[Paired]:
        """Give the rows whose pairs are not enrolled yet, course by course."""
        standing = self._pairs.standing(each.pair for each in found)
        if self._options.override:  # Who waits gets a seat.
            standing = {pair: place for pair, place in standing.items() if place is None}
        left = sorted((each for each in found if each.pair not in standing), key=lambda each: each.pair[1])
        self._work.count("enrollments", "unchanged", len(found) - len(left))
        return left

    def _enroll_each(self, rows: Sequence[Paired], until: float) -> list[Status | ServiceError]:
        options = self._options
        if options.override or options.why is not NOBODY:
            asked = [Asked(*each.pair, options.override, options.why) for each in rows]
            results = enroll_each(self._db, asked, until=until)
            return [each if isinstance(each, ServiceError) else each.status for each in results]
        return enroll_pairs(self._db, [each.pair for each in rows], until)

    def _settle(self, rows: Sequence[Paired], results: Sequence[Status | ServiceError]) -> list[Lost]:
        """Count what came of rows, and give those that were refused."""
        for status in STATUSES.values():
            self._work.count("enrollments", status, results.count(status))
        lost = list[Lost]()
        for each, result in zip(rows, results, strict=False):
            if isinstance(result, str):
                continue
            if isinstance(result, (AlreadyEnrolled, AlreadyWaitlisted)):
                self._work.count("enrollments", "unchanged")
            else:
                lost.append((each.part, refused(each.part, each.row, result)))
        return lost
