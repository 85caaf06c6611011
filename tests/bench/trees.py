"""Trees: the service's code as a revision has it, and as the checkout has it now, each with the Python to run it."""

import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.campus import ROOT
from bench.processes import run

CODE = ("service", "migrations", "requirements.txt")
"""What a tree has."""


def commit(revision: str) -> str:
    """Give the hash of a revision. Raises ClickException if there is none."""
    return _git("rev-parse", "--verify", f"{revision}^{{commit}}")


def title(revision: str) -> str:
    """Say which it is."""
    return _git("log", "-1", "--format=%h %s", revision)


def changed() -> list[str]:
    """Give the files that are not as HEAD has them."""
    return _git("status", "--porcelain", *CODE).splitlines()


def check_out(revision: str, folder: Path) -> None:
    """Put the code as a revision has it into a folder."""
    run(["tar", "-x"], folder, given=run(["git", "archive", revision, *CODE], ROOT))


def copy_checkout(folder: Path) -> None:
    """Put the code as it is now into a folder: what is edited meanwhile is not measured."""
    for name in CODE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder)


def pythons(trees: Sequence[Path]) -> list[str]:
    """Give the Python for each tree, its code compiled: this one, unless the trees require different packages."""
    required = {(tree / "requirements.txt").read_bytes() for tree in trees}
    found = [sys.executable if len(required) == 1 else _environment(tree) for tree in trees]
    for tree, python in zip(trees, found, strict=True):
        run([python, "-m", "compileall", "-q", *CODE[:2]], tree)
    return found


def _environment(tree: Path) -> str:
    """Make an environment that has what a tree requires, unless there is one; give its Python."""
    requirements = tree / "requirements.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = ROOT / "build" / f"venv-{digest}"
    python = str(folder / "bin/python")
    if not (folder / "made").exists():
        run([sys.executable, "-m", "venv", "--clear", str(folder)], ROOT)
        run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)], ROOT)
        (folder / "made").touch()
    return python


def _git(*words: str) -> str:
    return run(["git", *words], ROOT).decode().strip()
