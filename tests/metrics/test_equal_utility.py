"""Forgetting at equal utility on a curve over strengths."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from grun_bench.core.errors import UsageError
from grun_bench.metrics.strengths import Place, equal_utility, line, percents
from grun_bench.results.result import Curve, Point


def test_where_the_line_crosses_the_share_of_the_targets_utility() -> None:
    found = equal_utility([(0, 1.0, 0.8), (50, 0.6, 0.8), (100, 0.2, 0.4)], 0.75)
    assert found is not None and not found.ends
    # 0.6 of utility is half of the way from strength 0.5 to 1
    assert (found.forgetting, found.strength) == (pytest.approx(0.4), pytest.approx(0.75))


def test_where_utility_is_kept_to_the_end_the_least_counts_and_it_says_so() -> None:
    found = equal_utility([(0, 1.0, 0.8), (100, 0.3, 0.79), (150, 0.1, 0.78)], 0.95)
    assert found is not None and (found.forgetting, found.strength, found.ends) == (0.1, 1.5, True)


def test_forgetting_that_comes_back_is_taken_where_it_was_least() -> None:
    found = equal_utility([(0, 1.0, 0.8), (50, 0.1, 0.8), (100, 0.3, 0.8)], 0.95)
    assert found is not None and (found.forgetting, found.strength, found.ends) == (0.1, 0.5, False)


def test_without_the_target_there_is_none() -> None:
    assert equal_utility([], 0.95) is None and equal_utility([(0, 0.5, 0.0), (100, 0.4, 0.0)], 0.95) is None
    assert equal_utility([(50, 0.5, 0.8), (100, 0.4, 0.7)], 0.95) is None


@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_least_of_a_fine_walk_along_the_line(seed: int) -> None:
    draw = random.Random(seed)
    ats = sorted(draw.sample(range(1, 300), 5))
    places: list[Place] = [(at, draw.random(), draw.random()) for at in (0, *ats)]
    found = equal_utility(places, 0.9)
    walked = []
    for (at, x, y), (to, x2, y2) in pairwise(places):
        for step in range(4001):
            way = step / 4000
            if y + way * (y2 - y) >= 0.9 * places[0][2]:
                walked.append((x + way * (x2 - x), (at + way * (to - at)) / 100))
    assert found is not None
    assert found.forgetting == pytest.approx(min(walked)[0], abs=1e-3)
    assert found.forgetting <= min(walked)[0] + 1e-12


def test_points_without_a_number_are_passed_over() -> None:
    points = [Point(at=at, values={"f": f, "u": 0.5}) for at, f in ((100, 0.1), (0, 0.9), (50, None))]
    assert line(Curve(unit="percent", points=points), "f", "u") == [(0, 0.9, 0.5), (100, 0.1, 0.5)]


def test_strengths_are_whole_percents() -> None:
    assert percents((1.5, 0.25, 0, 1, 0.25)) == [25, 150]
    for odd in (-0.1, 10.5, 0.333, float("nan")):
        with pytest.raises(UsageError, match="--strengths"):
            percents((odd,))
    with pytest.raises(UsageError, match="name others"):
        percents((1, 0))
    assert percents(()) == []
