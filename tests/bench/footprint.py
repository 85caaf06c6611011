"""Footprint: what each system puts on the disk."""

from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bench.campus import ROOT
from bench.systems import SYSTEMS, System, bun_binary


def installed(system: System) -> dict[str, Any]:
    """Give the number of packages and their size in MB (10⁶ bytes), compiled Python and all.

    Python itself is not counted where it is what runs them; Bun and PocketBase bring all they need.
    """
    if system.key == "bun":
        return {"packages": 1, "megabytes": _size(bun_binary().parent.parent.rglob("*"))}
    found = _with_requirements(system.packages)
    files = [Path(str(file.locate())) for one in found.values() for file in one.files or ()]
    own = (path for folder in ("service", "migrations") for path in (ROOT / folder).rglob("*.py"))
    return {
        "packages": len(found) + (system.key == "ours"),
        "megabytes": _size(files) + (_size(own) if system.key == "ours" else 0),
    }


def versions() -> dict[str, str]:
    """Give the version of each package that a system names."""
    named = sorted({name for system in SYSTEMS.values() for name in system.packages})
    return {name: distribution(name).version for name in named}


def _with_requirements(names: Iterable[str]) -> dict[str, Distribution]:
    found: dict[str, Distribution] = {}
    wanted = list(names)
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name not in found:
            found[name] = distribution(name)
            needed = map(Requirement, found[name].requires or ())
            wanted += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def _size(files: Iterable[Path]) -> float:
    return sum(file.stat().st_size for file in set(files) if file.is_file()) / 1e6
