"""The benchmark: its files are filled by the rules."""

from contextlib import closing
from pathlib import Path

from bench import fill
from bench.campus import Campus
from invariants import check

from service import connect
from service.enrollments import list_roster


def test_fill(path: Path) -> None:
    """A file with two copies of a campus has every enrollment of each, as the rules would have left it."""
    pairs = [(1, 1), (1, 2), (2, 1), (3, 2)]
    fill.main(path, 2, Campus("", ["Ada", "Bo", "Cy"], [("Music", "A1"), ("Logic", "B2")], pairs))
    with closing(connect(path)) as db:
        rosters = [[(row.id, row.name) for row in list_roster(db, course)] for course in (1, 2, 3, 4)]
    assert rosters == [
        [(1, "Ada"), (2, "Bo")],
        [(1, "Ada"), (3, "Cy")],
        [(4, "Ada"), (5, "Bo")],
        [(4, "Ada"), (6, "Cy")],
    ]
    check(path)
