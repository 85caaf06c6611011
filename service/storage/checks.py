"""What the checks of the invariants have in common, for the command `python -m service check` and for `repair`."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import attrs
import peewee as pw

FEW = 5
"""How many of the rows that break an invariant are named; all are counted."""

Tick = Callable[[str, float], object]
"""Is called again and again during long work, with the name of the work and the seconds since it began, to show that
the program is alive."""
Watched = Callable[[pw.Database, str, Tick], AbstractContextManager[Callable[[], float]]]
"""Calls a Tick, with a name, while the database works within a block; `with` gives a function that tells the seconds
since the block began."""


def silent(_: str, __: float) -> None:
    """Be a `Tick` that does nothing."""


@attrs.frozen
class Invariant:
    """One thing that must hold.

    `says` is the text that a report puts behind the names of the rows that break the invariant. `mend` tells a person
    what to do, and is empty if `repair` can mend it. `find` gives rows of (name,) or (name, is it over): what is over
    is told in the feed for ever, but the state now is right again.
    """

    name: str
    says: str
    find: Callable[[pw.Database], Iterable[tuple[Any, ...]]]
    mend: str = ""


def rows(sql: str) -> Callable[[pw.Database], Iterable[tuple[Any, ...]]]:
    """Give the `find` of an invariant that one statement checks."""
    return lambda db: db.execute_sql(sql)


@attrs.define
class Names:
    """The first FEW names of a list, and how many there are in all."""

    count: int = 0
    first: list[str] = attrs.Factory(list)

    def add(self, name: str) -> None:
        """Count one more name, and keep it if it is one of the first."""
        self.count += 1
        if self.count <= FEW:
            self.first.append(name)

    def __len__(self) -> int:
        return self.count

    def __str__(self) -> str:
        return "; ".join(self.first) + (f" and {self.count - FEW:,} more" if self.count > FEW else "")


@attrs.frozen
class Result:
    """The names of what breaks an invariant now, and of what broke it once.

    What is `over` stays in the feed (the table enrollment_events) for ever, as events are never changed.
    """

    invariant: Invariant
    broken: Names
    over: Names
    seconds: float

    def __str__(self) -> str:
        if self.broken:
            return f"{self.broken}: {self.invariant.says}. {self.invariant.mend}".strip()
        return f"ok now, but not once: {self.over}: {self.invariant.says}." if self.over else "ok"
