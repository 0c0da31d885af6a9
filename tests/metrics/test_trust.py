"""Faithfulness and robustness against published pools and tables, brute force and properties."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grun_bench.metrics.trust import (
    Change,
    faithfulness,
    harmonic,
    kept_by_quantisation,
    kept_by_relearning,
    robustness,
    same_after_quantisation,
    same_after_relearning,
    threshold,
)

VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=8)
CHANGES = st.builds(Change, st.floats(0, 1), st.floats(0, 1))

#: metric -> of published models, the values of 30 that know the forget set (P) and of 30 that do not (N)
POOLS = json.loads((Path(__file__).parents[1] / "data" / "uds_pools.json").read_text())["pools"]


@pytest.fixture(scope="module")
def published(shared: Path) -> dict:
    file = shared / "reference" / "uds" / "meta_eval.json"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    return json.loads(file.read_text())


@pytest.mark.parametrize("metric", POOLS)
def test_faithfulness_of_published_pools_is_as_printed(published: dict, metric: str) -> None:
    knowing, unknowing = POOLS[metric]["P"], POOLS[metric]["N"]
    assert len(knowing) == len(unknowing) == 30
    stated = published["faithfulness"][metric]
    assert sum(knowing) / 30 == pytest.approx(stated["p_mean"], abs=6e-4)
    assert sum(unknowing) / 30 == pytest.approx(stated["n_mean"], abs=6e-4)
    if metric == "uds":  # its high values say that nothing is known
        knowing, unknowing = ([1 - value for value in pool] for pool in (knowing, unknowing))
    assert round(faithfulness(knowing, unknowing), 3) == stated["auc_roc"]


def test_robustness_of_every_published_metric_is_the_harmonic_mean_as_printed(published: dict) -> None:
    assert len(published["robustness"]) == 22
    for stated in published["robustness"].values():
        assert harmonic(stated["relearning"], stated["quantization"]) == pytest.approx(stated["agg"], abs=1e-4)


@given(VALUES, VALUES)
def test_faithfulness_counts_pairs(knowing: list[float], unknowing: list[float]) -> None:
    pairs = [(one > other) + 0.5 * (one == other) for one in knowing for other in unknowing]
    assert faithfulness(knowing, unknowing) == pytest.approx(sum(pairs) / len(pairs))


@given(VALUES, VALUES)
def test_no_other_threshold_errs_less(knowing: list[float], unknowing: list[float]) -> None:
    def errors(cut: float) -> float:
        wrong = (sum(value <= cut for value in knowing), sum(value > cut for value in unknowing))
        return wrong[0] / len(knowing) + wrong[1] / len(unknowing)

    inner = sorted({*knowing, *unknowing})
    found = errors(threshold(knowing, unknowing))
    assert all(found <= errors((low + high) / 2) + 1e-12 for low, high in pairwise(inner))


@given(CHANGES, CHANGES)
def test_robustness_is_from_0_to_1_and_whole_where_nothing_changes(one: Change, other: Change) -> None:
    for two_sided in (False, True):
        found = robustness([(one, other)], [one], two_sided)
        assert found.relearning is not None and found.quantisation is not None
        assert 0 <= found.relearning <= 1 and 0 <= found.quantisation <= 1
    still = Change(one.before, one.before)
    assert kept_by_quantisation(still) == kept_by_relearning(still, other) == 1
    assert same_after_quantisation(still) == pytest.approx(1)
    assert same_after_relearning(one, one) == pytest.approx(1)


def test_what_comes_back_counts_and_what_a_model_learns_anew_does_not() -> None:
    taught = Change(0.1, 0.3)
    assert kept_by_relearning(Change(0.1, 0.5), taught) == pytest.approx(0.5)
    assert kept_by_relearning(Change(0.1, 0.2), taught) == 1.0
    assert same_after_relearning(Change(0.1, 0.2), taught) == pytest.approx(1 - 0.1 / 0.3, abs=1e-5)
    assert kept_by_quantisation(Change(0.2, 0.8)) == pytest.approx(0.25)
    assert kept_by_quantisation(Change(0.8, 0.2)) == 1.0
    assert same_after_quantisation(Change(0.8, 0.2)) == pytest.approx(0.4, abs=1e-5)


def test_without_models_there_is_no_robustness() -> None:
    assert robustness([], []).both is None
    assert harmonic(0.5, None) is None and harmonic(0.0, 1.0) == 0.0
