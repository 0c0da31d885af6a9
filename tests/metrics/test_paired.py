"""Paired tests against brute force, scipy and their properties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, permutation_test

from grun_bench.metrics.paired import benjamini_hochberg, mcnemar, paired_tests, permutation
from grun_bench.results.record import Continuation, Generation, Record, Records
from grun_bench.tasks.sets import USUAL_SETS

unhurried = settings(deadline=None)
BITS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30)


@unhurried
@given(BITS)
def test_mcnemar_is_the_binomial_test_of_the_rows_that_differ(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs, dtype=float).T
    b, c = sum(pair == (1, 0) for pair in pairs), sum(pair == (0, 1) for pair in pairs)
    tail = binom.cdf(min(b, c), b + c, 0.5)
    assert mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail))


@unhurried
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_few_rows_have_every_sign_tried(differences: list[int]) -> None:
    total = abs(sum(differences))
    flips = itertools.product((1, -1), repeat=len(differences))
    as_far = [abs(sum(sign * each for sign, each in zip(flip, differences, strict=True))) >= total for flip in flips]
    assert permutation(np.array(differences, dtype=float)) == pytest.approx(np.mean(as_far))


def test_many_rows_agree_with_scipys_permutation_test() -> None:
    generator = np.random.default_rng(3)
    first, second = generator.normal(0.3, 1, 40), generator.normal(0, 1, 40)
    theirs = permutation_test(
        (first, second), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples",
        n_resamples=20_000, vectorized=True, random_state=generator,
    )  # fmt: skip
    assert permutation(first - second) == pytest.approx(theirs.pvalue, abs=0.012)
    assert permutation(first - second) == permutation(first - second) == permutation(second - first)


def test_equal_models_differ_nowhere_and_p_is_never_0() -> None:
    assert permutation(np.zeros(40)) == mcnemar(np.ones(40), np.ones(40)) == 1.0
    assert 0 < permutation(np.ones(40)) < 1e-4


@unhurried
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_q_is_the_step_up_procedure(ps: list[float]) -> None:
    ordered = sorted(range(len(ps)), key=ps.__getitem__)
    expected, least = [0.0] * len(ps), 1.0
    for rank in range(len(ps), 0, -1):
        least = min(least, ps[ordered[rank - 1]] * len(ps) / rank)
        expected[ordered[rank - 1]] = least
    assert benjamini_hochberg(ps) == pytest.approx(expected)


def record(index: int, matches: list[int], text: str = "a b", name: str = "forget") -> Record:
    answer = Continuation("a b", logprobs=[-0.1] * len(matches), matches=matches)
    return Record(name, index, "q", answer, generation=Generation(text))


def test_two_models_are_compared_on_the_rows_that_both_have() -> None:
    # of ten rows nine; the first matches all tokens of each, the second none
    first = Records(record(index, [1, 1, 1], "a b") for index in range(10))
    second = Records(record(index, [0, 0, 1], "c") for index in range(1, 10))
    keys = [
        "forget_extraction_strength",
        "forget_leak",
        "forget_rougeL_recall",
        "model_utility",
        "retain_rougeL_recall",
    ]
    found = {test.metric: test for test in paired_tests(first, second, keys, USUAL_SETS)}
    assert list(found) == keys
    assert found["model_utility"].p is None and found["model_utility"].reason == "it has no value of each row."
    strength = found["forget_extraction_strength"]
    assert (strength.n, strength.difference, strength.test) == (9, 1.0, "McNemar")
    assert strength.p == pytest.approx(2 * 0.5**9)
    known = [test for test in found.values() if test.p is not None]
    assert [test.q for test in known] == pytest.approx(benjamini_hochberg([test.p for test in known]))
    missing = found["retain_rougeL_recall"]
    assert missing.p is None and "no rows of the set 'retain'" in missing.reason


def test_values_between_0_and_1_are_permuted() -> None:
    first = Records(record(index, [1, index % 2, 1]) for index in range(12))
    second = Records(record(index, [0, 0, 1]) for index in range(12))
    (test,) = paired_tests(first, second, ["forget_exact_memorisation"], USUAL_SETS)
    assert (test.test, test.difference) == ("permutation", 0.75)
    assert test.p == pytest.approx(2 / 2**12)
    assert test.least is not None and test.least < 0.75
