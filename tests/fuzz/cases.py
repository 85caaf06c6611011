"""A case is all that one connection does. It is made of its seed and its number alone, so that it can be repeated."""

from collections.abc import Sequence
from random import Random
from typing import Literal

import attrs

from fuzz import values, wire
from fuzz.values import Asked, one_in

End = Literal["ends", "waits", "resets", "is deaf"]
"""What a client does once all is sent: it ends its side, waits for the server to end the connection, resets the
connection, or never reads."""


@attrs.frozen
class Case:
    """What one connection sends, in pieces and with pauses of so many seconds, and how it ends."""

    number: int
    pieces: Sequence[bytes]
    pause: float
    end: End
    asked: Sequence[Asked] | None
    """The requests, where each is one whatever becomes of it; None where the bytes may be anything."""

    @property
    def sent(self) -> bytes:
        """All the bytes."""
        return b"".join(self.pieces)


def make(seed: int, number: int) -> Case:
    """Make the case of this number."""
    dice = Random(f"{seed}/{number}")  # A text seeds the same on every machine, and no two cases share their dice.
    if one_in(dice, 400):
        return Case(number, [wire.FLOOD], 0.7, "is deaf", None)
    asked: list[Asked] | None = None
    if one_in(dice, 2):
        data = wire.stream(dice)
    else:
        requests = [values.request(dice) for _ in range(dice.choice((1, 1, 1, 2, 4, 12)))]
        data, asked = b"".join(sent for sent, _ in requests), [each for _, each in requests]
    ends: tuple[End, ...] = ("waits", "resets", "is deaf") if one_in(dice, 8) else ("ends",)
    cuts = sorted(dice.randint(0, len(data)) for _ in range(dice.choice((0, 0, 0, 1, 3))))
    pieces = [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    pause = dice.choice((0, 0.001, 0.02)) if not one_in(dice, 60) else 0.7
    return Case(number, [piece for piece in pieces if piece], pause, dice.choice(ends), asked)
