"""A limit of time ends the block whatever code the first alarm meets, and nothing after it."""

from __future__ import annotations

import time

import pytest

from grun_bench.core.errors import GrunBenchError
from grun_bench.core.limits import at_most


class Slow:
    """What is raised in its destructor is lost."""

    def __del__(self) -> None:
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_alarm_that_is_lost_comes_again() -> None:
    started = time.monotonic()
    with pytest.raises(GrunBenchError, match="stopped after 0 seconds"), at_most(0.1):
        thing = Slow()
        del thing
        while time.monotonic() < started + 20:
            pass
    assert time.monotonic() < started + 10


def test_what_is_in_time_is_left_alone() -> None:
    with at_most(0.2):
        pass
    time.sleep(0.4)
