"""The benchmark: its files are filled by the rules, and what a comparison says of pairs can be trusted."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

import msgspec
import pytest
from bench import fill
from bench.campus import Campus
from bench.changes import Change, table
from conftest import ROOT
from invariants import check

from service import connect
from service.enrollments import list_roster

COMPARE = [sys.executable, "-m", "bench.compare", "HEAD", "--pairs", "1", "--figure", "drop"]
MISSING = [tool for tool in ("git", "wrk", "taskset", "setpriv") if not shutil.which(tool)]
needs_tools = pytest.mark.skipif(
    bool(MISSING) or len(os.sched_getaffinity(0)) < 2 or not (ROOT / ".git").exists(),
    reason=f"a comparison needs two cores, a git checkout and {', '.join(MISSING) or 'its tools'}",
)


def change(*ratios: float, more_is_better: bool = True) -> Change:
    """Make a figure that was 100 in each pair, and is so many times that now."""
    old = dict.fromkeys(range(len(ratios)), 100.0)
    new = {pair: 100 * ratio for pair, ratio in enumerate(ratios)}
    return Change("GET", "req/s", ".0f", old, new, more_is_better)


def environ(folder: Path) -> Mapping[str, str]:
    """Have a campus as small as a comparison can do with, in OULAD's form."""
    (folder / "courses.csv").write_text("code_module,code_presentation\nA,1\nB,1\n")
    rows = [f"A,1,{student}" for student in range(200)] + [f"B,1,{student}" for student in range(200, 2_000)]
    registrations = ["code_module,code_presentation,id_student", *rows]
    (folder / "studentRegistration.csv").write_text("\n".join(registrations))
    return {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "OULAD_DIR": str(folder)}


def test_median_of_pairs() -> None:
    """A change is the median of the pairs' ratios, with the quartiles; a pair that lacks one side does not count."""
    found = change(1.2, 0.9, 0.8, 1.0, 1.1)
    assert (found.ratio, *found.quartiles) == pytest.approx((1.0, 0.9, 1.1))
    assert change(0.5).quartiles == (0.5, 0.5)
    assert Change("", "", "", {1: 100, 2: 100}, {2: 90, 3: 1}, more_is_better=True).ratios == [0.9]


def test_interval_of_the_median() -> None:
    """The interval is the widest pair of ratios that leaves out at most 2.5 in 100 on either side."""
    assert change(*range(1, 6)).interval is None
    for pairs, bounds in ((6, (1, 6)), (8, (1, 8)), (9, (2, 8)), (20, (6, 15)), (25, (8, 18)), (50, (18, 33))):
        assert change(*range(1, pairs + 1)).interval == bounds


def test_interval_holds_the_true_median() -> None:
    """Of 1,000 comparisons of the same code with itself, at most 50 or so find a change, whatever the spread is."""
    dice = random.Random(1)
    for skew in (1, 4):
        found = [change(*(1 + dice.choice((-1, skew)) * dice.random() / 10 for _ in range(20))) for _ in range(1_000)]
        assert sum(one.certain for one in found) < 70


@pytest.mark.parametrize(
    ("ratios", "more_is_better", "verdict", "worse", "hidden"),
    [
        ([0.99, 1.01] * 10, True, "within the spread", False, False),
        ([0.90, 1.08] * 10, True, "within the spread, which may hide 3 %", False, True),
        ([0.99, 1.30] * 10, True, "within the spread", False, False),
        ([0.99, 1.30] * 10, False, "within the spread, which may hide 3 %", False, True),
        ([0.95, 0.97] * 10, True, "4.0 % less: worse", True, False),
        ([0.95, 0.97] * 10, False, "4.0 % less: better", False, False),
        ([0.98, 0.98] * 10, True, "2.0 % less: worse", False, False),
        ([1.04, 1.06] * 10, True, "5.0 % more: better", False, False),
        ([1.04, 1.06] * 10, False, "5.0 % more: worse", True, False),
        ([25.0] * 20, True, "25 times as much: better", False, False),
        ([0.5] * 5, True, "too few pairs to tell", False, True),
    ],
)
def test_verdict(ratios: list[float], more_is_better: bool, verdict: str, worse: bool, hidden: bool) -> None:
    """Words say which way a change goes; what is within the spread is no change, and may hide one."""
    found = change(*ratios, more_is_better=more_is_better)
    assert (found.verdict, found.worse, found.hidden) == (verdict, worse, hidden)


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


@pytest.mark.long
@needs_tools
def test_comparison(tmp_path: Path) -> None:
    """A comparison of the checkout with its last commit measures both and says so."""
    kept = tmp_path / "kept.json"
    done = subprocess.run(
        [*COMPARE, "--json", str(kept)],
        env=environ(tmp_path),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = msgspec.json.decode(kept.read_bytes())
    assert done.stdout == f"{table(results)}\n"
    assert {sample["system"] for sample in results["load"]} == {"old", "new"}
    assert all(sample["rate"] > 0 for sample in results["load"])


@pytest.mark.long
@needs_tools
def test_killed_comparison(tmp_path: Path) -> None:
    """A comparison that is killed takes its servers with it."""
    with subprocess.Popen(COMPARE, env=environ(tmp_path), cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert any("new: starting" in line for line in process.stderr)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        folders = {Path(f"/proc/{child}/cwd").resolve().parent for child in children}
        process.kill()
    try:
        assert children
        deadline = time.monotonic() + 10
        while left := [child for child in children if Path(f"/proc/{child}").exists()]:
            assert time.monotonic() < deadline, left
            time.sleep(0.01)
    finally:
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        for folder in folders:
            if folder.parent == ROOT / "build":
                shutil.rmtree(folder)
