"""Take what files hold into the database: terms, courses, students, then who is dropped and who is enrolled.

Each row is taken by the rule of the single request, in slices between which others have their turn. What a slice has
committed stays, and the same import again goes on where the last one broke off, as nothing is done twice.
"""

import time
from collections.abc import Sequence
from contextlib import closing, nullcontext

import peewee as pw

from service.errors import SetupError
from service.exchange.dropping import Absent, Plan
from service.exchange.parts import Found, Kind, Skipped
from service.exchange.reading import Read, ahead
from service.exchange.report import KINDS, MOST_LISTED, BrokenOff, Missing, Report
from service.exchange.rosters import Rosters
from service.exchange.turns import Turns
from service.exchange.upserting import Upserted, Upserting
from service.exchange.words import refused
from service.exchange.work import Options, Tick, Work
from service.storage import backend_of, fetch

__all__ = ["Import", "Options"]

WINDOW = 2_500
"""How many rows of terms, courses and students are taken at a time. Enrollments that come student by student are
written faster where the ids of students do so too, so this is not more, although the students would be."""
MOST_IN_SLICE = 500
"""The most rows of a slice: more do not fit in its time."""
WHO = """
    SELECT courses.external_id, students.external_id, students.name
    FROM courses CROSS JOIN students
    WHERE courses.id = ? AND students.id = ?"""


class Import:
    """One import; its report tells at any time what has come of it so far."""

    def __init__(self, found: Found, options: Options = Options(), tick: Tick = id) -> None:  # noqa: B008 - it is frozen.
        """Keep what is to be imported. Raises SetupError where the CSV file of refused rows cannot be written."""
        self._work = Work(found, options, tick)
        self._has_drops = False

    @property
    def report(self) -> Report:
        """Give what has come of the import so far."""
        return self._work.report

    def run(self, db: pw.Database) -> Report:
        """Import into a database, outside of any transaction.

        Where the database fails, or too many would be dropped, the report has the problem. Raises UnreadableFile, and
        SetupError where the CSV file of refused rows cannot be written.
        """
        began = time.monotonic()
        try:
            is_dry = self._work.options.dry_run
            with backend_of(db).copied(db, self._copying) if is_dry else nullcontext(db) as target:
                self._run(target)
            self.report.finished = True
        except SetupError:
            raise
        except Exception as error:  # noqa: BLE001 - what `explain` does not know is raised again.
            refusal = backend_of(db).explain(db, error)
            self.report.problem = BrokenOff(refusal.code, refusal.detail)
        finally:
            self.report.seconds = round(time.monotonic() - began, 3)
            self._work.refusals.close()
        return self.report

    def _copying(self, done: int, of: int) -> None:
        self._work.show("copying", 0, None, 100 * done / max(1, of))

    def _run(self, db: pw.Database) -> None:
        turns = Turns(db, alone=self._work.options.dry_run)
        plan = self._survey(db)
        for kind in ("terms", "courses", "students"):
            self._upsert(db, turns, kind)
        rosters = Rosters(self._work, db, turns)
        if self._has_drops:
            rosters.drop_marked()
        rosters.drop_missing(plan)
        rosters.enroll()

    def _survey(self, db: pw.Database) -> Plan:
        """Look at all before anything is written: count the rows, look for drops, and find who is missing.

        Rows are read only where there is no other way to know.
        Raises TooManyDrops, and UnreadableFile where a file breaks off in its middle.
        """
        work, absent = self._work, Absent(db) if self._work.options.drop_missing else None
        whole = sum(part.size for parts in work.parts.values() for part in parts)
        rows = size = 0
        for kind in KINDS:
            for part in work.parts[kind]:
                if not absent and part.count is not None and not (kind == "enrollments" and part.may_drop()):
                    work.counts[kind] += part.count
                    work.show("reading", rows, None, 100 * size / max(1, whole))
                    size += part.size
                    continue
                with closing(ahead([part], WINDOW)) as windows:
                    for read in windows:
                        rows += len(read)
                        work.counts[kind] += len(read)
                        work.show("reading", rows, None, 100 * size / max(1, whole))
                        self._see(kind, read, absent)
                size += part.size
        return self._judged(db, absent.plan()) if absent else Plan({}, 0, 0)

    def _see(self, kind: Kind, read: Sequence[Read], absent: Absent | None) -> None:
        cells = [item.values for _, item in read if not isinstance(item, Skipped)]
        self._has_drops |= kind == "enrollments" and any(row.get("action") == "drop" for row in cells)
        if absent:
            absent.see(kind, cells)

    def _judged(self, db: pw.Database, plan: Plan) -> Plan:
        """List who is missing. Raises TooManyDrops."""
        pairs = [(course_id, student_id) for course_id, leaving in plan.leaving.items() for student_id in leaving]
        self.report.missing_count = len(pairs)
        for course_id, student_id in pairs[:MOST_LISTED]:
            ((course, student, name),) = fetch(db, WHO, course_id, student_id)
            self.report.missing.append(Missing(course_id, course, student_id, student, name))
        if plan.unsure:
            self.report.notes.append(
                f"In {plan.unsure:,} of the courses nobody who is missing is dropped, because rows name students or "
                "courses that are not there: mend these rows first."
            )
        plan.check(self._work.options.max_drops)
        return plan

    def _upsert(self, db: pw.Database, turns: Turns, kind: Kind) -> None:
        upserting, done = Upserting(db, kind, self.report.format), 0
        with closing(ahead(self._work.parts[kind], WINDOW)) as some:
            for read in some:
                done += len(read)
                self._upsert_some(turns, upserting, kind, read, done)

    def _upsert_some(self, turns: Turns, upserting: Upserting, kind: Kind, read: Sequence[Read], done: int) -> None:
        work = self._work
        sifted, lost = work.sift(kind, read)
        placed = upserting.ordered(sifted)
        try:
            while placed:
                results = turns.write(placed[:MOST_IN_SLICE], upserting.upsert_each)
                for (part, row), result in zip(placed, results, strict=False):
                    if isinstance(result, Upserted):
                        upserting.remember(part, row, result)
                        work.count(kind, result.word)
                    else:
                        lost.append((part, refused(part, upserting.completed(row), result)))
                placed = placed[len(results) :]
                work.show_rows(kind, done - len(placed), work.counts[kind])
        finally:  # Where the import breaks off here, the report has the refusals of what was committed.
            work.refuse(kind, lost)
