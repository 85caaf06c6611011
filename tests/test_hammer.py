"""The hammer, for some seconds: what must hold on PostgreSQL while everybody writes at once."""

import re

import pytest
from hammer import hammer


@pytest.mark.long
def test_everything_holds_while_everybody_writes(school: str) -> None:
    """Every answer and every commit is in the events, each once and in its place, and the events are what is there."""
    told = hammer(school, 5)
    assert re.search(r"[0-9]+ PUT 201", told)
    assert re.search(r"[0-9]+ READ COMMITTED committed", told)
