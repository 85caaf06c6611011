"""What the checks of the invariants have in common, for the command `python -m service check` and for `repair`."""

from collections.abc import Callable

import attrs

from service.storage.invariants import Invariant

FEW = 5
"""How many of the rows that break an invariant are named; all are counted."""

Tick = Callable[[str, float], object]
"""Is called again and again during long work, with the name of the work and the seconds since it began, to show that
the program is alive."""


def silent(_: str, __: float) -> None:
    """Be a `Tick` that does nothing."""


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
