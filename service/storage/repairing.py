"""What the repairs of each kind of database have in common: what is mended, what is left, and when to give up."""

from collections.abc import Callable, Iterable, Mapping

import peewee as pw

from service.errors import SetupError
from service.storage.checks import Result

NOT_OURS = {"turns", "times"}
"""Invariants that a repair leaves broken: they are about what happened in the past, which a repair must not rewrite."""


def repaired(
    run: Callable[[], Iterable[Result]], mend: Callable[[Mapping[str, Result]], list[str]], database: str
) -> list[str]:
    """Repair a database within the caller's transaction, and give a sentence for each thing that was done.

    `run` checks the invariants, and `mend` mends those that are broken, given by name. `database` is the name of the
    program that a refusal of a constraint is from. Raises SetupError, which names what a person has to mend first.
    """
    results = [result for result in run() if result.broken]
    done: list[str] = []
    if _lines(results):
        try:
            done = mend({result.invariant.name: result for result in results})
        except pw.IntegrityError as error:  # A constraint that was put back, such as a CHECK, refuses a row.
            hopeless = [result for result in results if result.invariant.mend]
            raise refusal([*_lines(hopeless), f"{database} says: {str(error).strip()}."]) from error
        results = [result for result in run() if result.broken]
        if lines := _lines(results):
            raise refusal(lines)
    return done + [f"Left as it is: {result.invariant.name}: {result}" for result in results]


def _lines(results: Iterable[Result]) -> list[str]:
    return [f"{each.invariant.name}: {each}" for each in results if each.invariant.name not in NOT_OURS]


def refusal(reasons: Iterable[str]) -> SetupError:
    """Make the error that says why nothing was repaired."""
    return SetupError(
        "\n".join(["Nothing was repaired, the database is as it was. This has to be mended first:", *reasons])
    )
