"""Which students and courses the rows of enrollments name: their ids, looked up many at a time."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import msgspec
import peewee as pw

from service.errors import InvalidPayload, ServiceError
from service.exchange.parts import Part, Row
from service.exchange.upserting import stored_text
from service.exchange.words import refused
from service.exchange.work import Lost, Placed
from service.fields import EXTERNAL_ID, ID, MAX_ID, pointer
from service.rows import ExternalId, Table, find_ids, in_groups, not_found
from service.storage import Pair, fetch

Cells = Mapping[str, str | None]

# The CROSS JOIN keeps SQLite from reading the whole table.
STANDS = """
    WITH asked (student, course) AS (VALUES {})
    SELECT student_id, course_id, waiting
    FROM asked CROSS JOIN enrollments
    WHERE student_id = student AND course_id = course"""


class Paired(msgspec.Struct, frozen=True, gc=False):
    """A row with the student and the course that it names."""

    part: Part
    row: Row
    pair: Pair


class Keys:
    """The ids of students, courses or terms, by the texts that rows have for them."""

    def __init__(self, db: pw.Database, table: Table, prefix: str = "") -> None:
        """Have looked nothing up yet; `prefix` is before external_id and id in the names of the fields."""
        self._db, self.table = db, table
        self._external, self._number = f"{prefix}external_id", f"{prefix}id"
        self._by_text: dict[str, int] = {}
        self._by_number: dict[str, int] = {}

    def look_up(self, rows: Sequence[Cells], *, forget: bool) -> None:
        """Look up what rows name; with `forget`, without keeping what was looked up before."""
        if forget:
            self._by_text, self._by_number = {}, {}
        texts = {text for row in rows if (text := row.get(self._external)) is not None} - self._by_text.keys()
        stored = {text: stored_text(text) for text in texts}
        ids = find_ids(self._db, self.table, [text for text in stored.values() if text])
        self._by_text.update((text, ids[kept]) for text, kept in stored.items() if kept in ids)
        asked = {row.get(self._number) or "" for row in rows if self._external not in row} - self._by_number.keys()
        numbers = {text: int(text) for text in asked if re.fullmatch("[0-9]{1,19}", text)}
        for some in in_groups(each for each in numbers.values() if each <= MAX_ID):
            marks = ", ".join("?" * len(some))
            there = {each for (each,) in fetch(self._db, f"SELECT id FROM {self.table} WHERE id IN ({marks})", *some)}
            self._by_number.update((text, number) for text, number in numbers.items() if number in there)

    def find(self, row: Cells) -> int | None:
        """Give the id of what a row names, or None where that is not there."""
        return self.find_each([row])[0]

    def find_each(self, rows: Iterable[Cells]) -> list[int | None]:
        """Give the ids of what rows name, each None where that is not there."""
        texts, numbers, external, number = self._by_text, self._by_number, self._external, self._number
        return [
            texts.get(text) if (text := row.get(external)) is not None else numbers.get(row.get(number) or "")
            for row in rows
        ]

    def named(self, row: Cells) -> str | None:
        """Give the external id that a row names, in the form that is stored."""
        return stored_text(row.get(self._external))

    def lost(self, row: Cells) -> ServiceError:
        """Tell why there is nothing that a row names."""
        text, number = row.get(self._external), row.get(self._number)
        field = self._number if text is None and number is not None else self._external
        try:
            if text is not None:
                return not_found(self.table, ExternalId(EXTERNAL_ID.check(text)))
            if number is not None:
                found = ID.check(int(number) if re.fullmatch("[0-9]{1,19}", number) else number)
                return not_found(self.table, found)
        except ValueError as error:
            return InvalidPayload([(pointer(field), str(error))])
        return InvalidPayload([(pointer(field), f"is required, or {self._number}")])


class Pairs:
    """Finds the pairs of rows. What it keeps grows with the number of courses alone."""

    def __init__(self, db: pw.Database) -> None:
        """Have looked nothing up yet."""
        self._db = db
        self.students, self.courses = Keys(db, "students", "student_"), Keys(db, "courses", "course_")

    def look_up(self, rows: Sequence[Cells]) -> None:
        """Look up all that rows name."""
        self.students.look_up(rows, forget=True)
        self.courses.look_up(rows, forget=False)

    def resolve(self, placed: Sequence[Placed]) -> tuple[list[Paired], list[Lost]]:
        """Give the rows with the pairs that they name, and those that name none, with the refusal of each."""
        rows = [row.values for _, row in placed]
        self.look_up(rows)
        found: list[Paired] = []
        lost: list[Lost] = []
        ids = zip(self.students.find_each(rows), self.courses.find_each(rows), strict=True)
        for (part, row), (student_id, course_id) in zip(placed, ids, strict=True):
            if student_id is None or course_id is None:
                keys = self.students if student_id is None else self.courses
                lost.append((part, refused(part, row, keys.lost(row.values))))
            else:
                found.append(Paired(part, row, (student_id, course_id)))
        return found, lost

    def standing(self, pairs: Iterable[Pair]) -> dict[Pair, int | None]:
        """Give which of some pairs are enrolled: the place in line of each that waits, and None of one with a seat."""
        return {
            (student_id, course_id): place
            for some in in_groups(pairs)
            for student_id, course_id, place in fetch(
                self._db, STANDS.format(", ".join(["(?, ?)"] * len(some))), *chain.from_iterable(some)
            )
        }
