"""Metrics by what they are about."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grun_bench.leaderboard import themes
from grun_bench.leaderboard.filings import Column
from grun_bench.leaderboard.themes import by_theme
from grun_bench.results.words import metric_number
from grun_bench.tasks.sets import USUAL_SETS, ScoredSet, ScoredSets

unhurried = settings(deadline=None)  # a busy machine is no failure
OWN = ScoredSets((ScoredSet("leavers", "forget"), ScoredSet("stayers", "retain"), ScoredSet("quiz", "utility")))


@pytest.mark.parametrize(
    ("metric", "sets", "theme"),
    [
        ("forget_quality_D", USUAL_SETS, themes.FORGOTTEN),
        ("forget_truth_ratio", USUAL_SETS, themes.FORGOTTEN),
        ("leavers_probability", OWN, themes.FORGOTTEN),
        ("retain_rouge1_recall", USUAL_SETS, themes.KEPT),
        ("stayers_probability", OWN, themes.KEPT),
        ("world_facts_probability", USUAL_SETS, themes.OTHERWISE),
        ("quiz_accuracy", OWN, themes.OTHERWISE),
        ("mia_min_k", USUAL_SETS, themes.MEMBERS),
        ("retain_ngram_entropy", USUAL_SETS, themes.WRITING),
        ("leavers_empty_answers", OWN, themes.WRITING),
        ("forget_gate_paraphrased", USUAL_SETS, themes.GATES),
        ("forget_gate_layer_19", USUAL_SETS, themes.LAYERS),
        ("leavers_gate_paraphrased_layer_2", OWN, themes.LAYERS),
        ("forget_gateway", USUAL_SETS, themes.FORGOTTEN),
        ("something", USUAL_SETS, themes.REST),
    ],
)
def test_a_metric_stands_under_its_theme(metric: str, sets: ScoredSets, theme: str) -> None:
    assert by_theme([Column(metric, "1")], sets) == {theme: [Column(metric, "1")]}


@unhurried
@given(st.lists(st.tuples(st.sampled_from(["forget_gate", "retain_x", "mia_loss", "y", "forget_fluency"]), st.text())))
def test_every_column_is_under_one_theme_and_in_its_order(pairs: list[tuple[str, str]]) -> None:
    columns = [Column(*pair) for pair in pairs]
    found = by_theme(columns, USUAL_SETS)
    assert sorted(str(column) for held in found.values() for column in held) == sorted(map(str, columns))
    for held in found.values():
        assert held == [column for column in columns if column in held]


def test_counts_are_counts() -> None:
    assert metric_number("forget_quality_n", 40.0) == "40" and metric_number("forget_quality_n", 39.5) == "39.500"
    assert metric_number("forget_quality_D", 1.0) == "1.000" and metric_number("forget_quality_n", None) == "-"
