"""The data that every system holds: OULAD where it is, else a made-up campus of the same size."""

import csv
import os
import random
from collections.abc import Iterable
from functools import cached_property
from itertools import product
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]
SEED = 20_170_171
ENROLLED_AT = "2014-01-01T00:00:00.000Z"
SIZES = {32_000: 1, 1_000_000: 31, 10_000_000: 307}
"""Enrollments, about, to the copies of the campus that have them; the ids of each go on where the last one's end."""

Pair = tuple[int, int]
"""(student_id, course_id), both from 1."""


@attrs.frozen
class Campus:
    """Names, by id from 1, and who is enrolled in what, in order."""

    source: str
    students: list[str]
    courses: list[tuple[str, str]]
    """(name, level)"""
    enrollments: list[Pair]

    @cached_property
    def free_pairs(self) -> list[Pair]:
        """Pairs that are not enrolled, in a random order that is always the same."""
        everything = product(range(1, len(self.students) + 1), range(1, len(self.courses) + 1))
        taken = set(self.enrollments)
        return _shuffled(pair for pair in everything if pair not in taken)

    @cached_property
    def taken_pairs(self) -> list[Pair]:
        """Pairs that are enrolled, in such an order."""
        return _shuffled(self.enrollments)

    def moved(self, pair: Pair, copy: int) -> Pair:
        """Give the same pair in a copy of the campus."""
        student, course = pair
        return student + copy * len(self.students), course + copy * len(self.courses)


def _shuffled(pairs: Iterable[Pair]) -> list[Pair]:
    found = list(pairs)
    random.Random(SEED).shuffle(found)
    return found


def load() -> Campus:
    """Read OULAD from $OULAD_DIR or ../shared/data/oulad, or else make a campus up."""
    folder = Path(os.environ.get("OULAD_DIR") or ROOT.parent / "shared/data/oulad")
    return _oulad(folder) if (folder / "studentRegistration.csv").is_file() else _made_up()


def _oulad(folder: Path) -> Campus:
    with (folder / "courses.csv").open(newline="") as lines:
        courses = [(row["code_module"], row["code_presentation"]) for row in csv.DictReader(lines)]
    with (folder / "studentRegistration.csv").open(newline="") as lines:
        rows = [
            ((row["code_module"], row["code_presentation"]), f"Student {row['id_student']}")
            for row in csv.DictReader(lines)
        ]
    students = {name: at for at, name in enumerate(dict.fromkeys(name for _, name in rows), 1)}
    numbers = {course: at for at, course in enumerate(courses, 1)}
    pairs = sorted((students[name], numbers[course]) for course, name in rows)
    return Campus("OULAD", list(students), courses, pairs)


def _made_up(students: int = 28_785, courses: int = 22, enrollments: int = 32_593) -> Campus:
    """Give each student a course, and some of them more; large and small courses, as OULAD has them."""
    dice = random.Random(SEED)
    weights = [course + 2 for course in range(courses)]
    pairs = {(at, course) for at, course in enumerate(dice.choices(range(1, courses + 1), weights, k=students), 1)}
    while len(pairs) < enrollments:
        pairs.add((dice.randint(1, students), dice.choices(range(1, courses + 1), weights)[0]))
    names = [f"Student {at}" for at in range(1, students + 1)]
    return Campus("made up", names, [(f"Course {at}", "2014J") for at in range(1, courses + 1)], sorted(pairs))
