"""The rule that chooses a trial."""

from __future__ import annotations

from itertools import product

import pytest

from grun_bench.results.tuning import KEPT, NEAR, RULE, Trial
from grun_bench.tuning.rule import chosen, loss, shortfall, utility_of


def trial(number: int, utility: float | None, strength: float | None, seconds: float = 1.0, **more: object) -> Trial:
    said = {"unlearner": "a+b", "task": "t", "model": "m", "on": "validation of t", "seed": 1, "settings": {}}
    measured = {"utility": utility, "extraction_strength": strength, "seconds": seconds, "whole": 1.0}
    return Trial.model_validate({"trial": number, "state": "ok"} | said | measured | more)


def pick(*trials: Trial) -> int:
    (found,) = [each.trial for each in chosen(trials) if each.chosen]
    return found


def test_utility_comes_first_then_forgetting_then_time() -> None:
    kept, more, too_little = trial(0, 0.96, 0.4), trial(1, 0.99, 0.5), trial(2, 0.94, 0.0)
    assert pick(kept, more, too_little) == 0  # above the floor more utility counts for nothing
    assert pick(kept, trial(3, 0.96, 0.4, 0.5), more) == 3
    assert pick(kept, trial(3, 0.96, 0.4004, 0.5)) == 3  # equal to three decimals
    assert pick(kept, trial(3, 0.96, 0.41, 0.5)) == 0
    assert [each.admitted for each in chosen([kept, more, too_little])] == [True, True, False]


def test_where_none_keeps_enough_the_one_that_keeps_most_is_chosen() -> None:
    assert pick(trial(0, 0.5, 0.0), trial(1, 0.7, 1.0), trial(2, 0.6, 0.0)) == 1
    assert not any(each.admitted for each in chosen([trial(0, 0.5, 0.0)]))


def test_only_trials_that_came_to_an_end_are_chosen() -> None:
    ended = trial(0, 0.2, 1.0)
    others = [trial(1, None, None, state="pruned"), trial(2, None, None, state="diverged")]
    assert pick(ended, *others) == 0
    assert not any(each.chosen for each in chosen(others))


def test_it_is_the_least_by_brute_force() -> None:
    trials = [
        trial(number, *each) for number, each in enumerate(product((0.90, 0.951, 1.0), (0.1, 0.1002, 0.9), (2.0, 1.0)))
    ]
    admitted = [each for each in trials if (each.utility or 0) >= KEPT]
    least = min(round(each.extraction_strength or 0, 3) for each in admitted)
    equal = [each for each in admitted if round(each.extraction_strength or 0, 3) == least]
    fastest = min(each.seconds or 0 for each in equal)
    assert pick(*trials) == next(each.trial for each in equal if each.seconds == fastest)


def test_a_search_sees_the_rule_as_one_number() -> None:
    assert loss(0.7, shortfall(0.95, 1.0, None)) == 0.7  # just enough
    assert loss(1.0, 0.0) <= loss(0.0, 1e-9)  # no strength is worse than what keeps too little
    assert loss(0.0, shortfall(0.5, 1.0, None)) == pytest.approx(1.45)
    assert shortfall(None, None, NEAR) == 0 and shortfall(None, None, NEAR + 0.5) == pytest.approx(0.5)
    assert shortfall(None, 1.0, None) == 1.0


def test_utility_is_the_harmonic_mean_of_what_there_is() -> None:
    assert utility_of([0.5, 1.0]) == pytest.approx(2 / (1 / 0.5 + 1 / 1.0))
    assert utility_of([0.5, None]) is None and utility_of([]) is None


def test_the_rule_says_its_numbers() -> None:
    assert "95 %" in RULE and "0.01 nats" in RULE and "prefill" in RULE and "3 decimals" in RULE
