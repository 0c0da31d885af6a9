"""Records -> values: keys, intervals, nulls with their reasons, and plugins that break the contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grun_bench.core import plugins, registry
from grun_bench.core.errors import GrunBenchError, UsageError
from grun_bench.core.plugin_search import Entry
from grun_bench.metrics.evaluate import evaluate, result_fields
from grun_bench.metrics.interval import interval
from grun_bench.results.record import Continuation, Generation, Record, Records, load_records
from grun_bench.tasks.sets import USUAL_SETS, ScoredSet, ScoredSets

SETS = ("forget", "retain", "real_authors", "world_facts")

unhurried = settings(deadline=None)  # a busy machine is no failure


def record(name: str, index: int, loss: float = 1.0) -> Record:
    return Record(
        name,
        index,
        "who?",
        Continuation("the answer", logprobs=[-loss, -loss], matches=[1, 1], means=[-1.0] * 2, deviations=[1.0] * 2),
        Continuation("an answer", loss=loss),
        [Continuation("a wrong one", loss=loss + 1 + index / 10)],
        Generation("the answer", finished=True),
    )


def all_sets(names: tuple[str, ...] = SETS, rows: int = 4) -> Records:
    return Records([record(name, index, 0.5 + index / 10) for name in names for index in range(rows)])


@pytest.fixture
def plugin():
    """Registers a metric for one test; evaluation finds it as if a file had declared it."""
    known = registry.entries("metric")
    added = []

    def add(function, **options):
        known["probe"] = Entry("metric", "probe", "", Path("probe.py"))
        registry.metric("probe", **options)(function)
        added.append("probe")

    original = registry.entries
    registry.entries = lambda kind: known if kind == "metric" else original(kind)
    yield add
    registry.entries = original
    for name in added:
        plugins._registered.pop(("", "metric", name), None)


def test_keys_and_directions() -> None:
    values = evaluate(all_sets(), None, ["probability", "model_utility", "extraction_strength"], USUAL_SETS)
    assert list(values) == [f"{name}_probability" for name in SETS] + ["model_utility"] + [
        "forget_extraction_strength",
        "retain_extraction_strength",
    ]
    assert values["forget_probability"].higher_is_better is False
    assert values["retain_probability"].higher_is_better is True
    assert values["forget_probability"].n == 4
    assert values["model_utility"].n == 12
    assert values["model_utility"].low is None
    assert values["retain_probability"].low < values["retain_probability"].value < values["retain_probability"].high


def test_every_metric_gives_a_number_in_bounds_or_a_reason() -> None:
    records = all_sets((*SETS, "holdout"))
    names = registry.names("metric")
    for reference in (None, all_sets((*SETS, "holdout"))):
        for name in names:
            low, high = registry.get("metric", name).bounds
            for key, value in evaluate(records, reference, [name], USUAL_SETS).items():
                assert (value.value is None) != (value.reason is None), key
                assert value.value is None or low <= value.value <= high, key
    null = {key for key, value in evaluate(records, reference, names, USUAL_SETS).items() if value.value is None}
    asked = ("forget", "retain", "utility", "neighbour")
    assert null == {f"{name}_gate" for name in SETS} | {f"{role}_accuracy" for role in asked} | {
        *("mia_gradnorm", "aggregate_score"),  # of the gradients, and of lm-eval's questions
        *(f"{name}_kl_to_target" for name in ("real_authors", "world_facts")),
        *(f"{name}_{metric}" for name in SETS for metric in ("similarity", "same_meaning")),
        *("forget_fluency", "retain_fluency", "utility_score"),  # of a classifier
        "forget_erasure_depth",  # of an attack
    }


def test_missing_reference_is_null_with_what_to_do() -> None:
    values = evaluate(all_sets(), None, ["forget_quality", "privleak", "mia_reference"], USUAL_SETS)
    assert list(values)[:3] == ["forget_quality", "forget_quality_D", "forget_quality_n"]
    assert all(value.value is None for value in values.values())
    assert "--retain-log" in values["forget_quality"].reason
    assert "holdout" in values["privleak"].reason


def test_missing_set_is_null_with_its_name() -> None:
    values = evaluate(all_sets(("forget",)), None, ["probability", "model_utility"], USUAL_SETS)
    assert values["forget_probability"].value is not None
    assert values["retain_probability"].reason == "no rows of the set 'retain'."
    assert values["retain_probability"].n == 0
    assert "'retain' or 'real_authors'" in values["model_utility"].reason


def test_not_finite_is_null_and_names_the_row() -> None:
    records = all_sets()
    records[2].answer.loss = float("nan")
    value = evaluate(records, None, ["probability"], USUAL_SETS)["forget_probability"]
    assert value.value is None
    assert "1 of 4 rows, first in row 2 of 'forget'" in value.reason
    records.of("retain")[0].answer.loss = float("nan")
    assert "not finite" in evaluate(records, None, ["model_utility"], USUAL_SETS)["model_utility"].reason


def test_unknown_metric_names_the_near_ones() -> None:
    with pytest.raises(UsageError, match="did you mean probability"):
        evaluate(all_sets(), None, ["probabilty"], USUAL_SETS)


def test_values_do_not_depend_on_the_order_of_records() -> None:
    records, names = all_sets(), registry.names("metric")
    backwards = Records(reversed(list(records)))
    assert evaluate(records, None, names, USUAL_SETS) == evaluate(backwards, None, names, USUAL_SETS)


def test_values_survive_the_records_file(tmp_path: Path) -> None:
    records = all_sets((*SETS, "holdout"))
    records[0].answer.probability = 0.123
    path = tmp_path / "records.jsonl"
    path.write_text(records.dumps(), encoding="utf-8")
    names = registry.names("metric")
    assert evaluate(load_records(path), records, names, USUAL_SETS) == evaluate(records, records, names, USUAL_SETS)


def test_a_metric_of_ones_own(plugin) -> None:
    plugin(lambda rows: np.array([len(row.question) for row in rows]), roles=("forget",), version=3)
    value = evaluate(all_sets(), None, ["probe"], USUAL_SETS)["forget_probe"]
    assert (value.value, value.low, value.high, value.version, value.higher_is_better) == (4.0, 4.0, 4.0, 3, None)


def test_a_metric_over_all_records(plugin) -> None:
    plugin(lambda records, reference: {"a": 1.0, "b": np.arange(16.0)}, higher_is_better={"a": True, "b": False})
    values = evaluate(all_sets(), None, ["probe"], USUAL_SETS)
    assert values["a"].n == values["b"].n == 16
    assert values["b"].value == 7.5
    assert (values["a"].higher_is_better, values["b"].higher_is_better) == (True, False)


@pytest.mark.parametrize(
    ("options", "result", "message"),
    [
        ({"roles": ("forget",)}, np.zeros(3), "returned 3 values of 'probe' for 4 rows"),
        ({"roles": ("forget",), "boundaries": (0, 1)}, 0.0, "option of the metric probe 'boundaries'"),
        ({"roles": ("forgotten",)}, 0.0, "the role forgotten; roles are forget, retain"),
        ({"over": ("real_authors",)}, 0.0, "the role real_authors"),
        ({"over": ("forget",), "kind": "questions"}, 0.0, "no `roles`"),
        ({"roles": ("forget",), "reference": "retain"}, 0.0, "no `reference`"),
    ],
)
def test_a_metric_that_breaks_the_contract(plugin, options: dict, result: object, message: str) -> None:
    with pytest.raises(GrunBenchError, match=message):
        plugin(lambda rows: result, **options)
        evaluate(all_sets(), None, ["probe"], USUAL_SETS)


#: two sets to forget, none to retain, one that is near, one that no model has seen, and questions of lm-eval's
OWN = ScoredSets(
    (
        ScoredSet("leavers", "forget"),
        ScoredSet("strangers", "holdout"),
        ScoredSet("suppliers", "forget"),
        ScoredSet("kin", "neighbour"),
        ScoredSet("quiz", "forget", "questions"),
    )
)


def test_sets_of_any_name_by_their_roles() -> None:
    records = all_sets(("kin", "leavers", "strangers", "suppliers"))
    values = evaluate(records, records, ["probability", "mia_loss", "forget_quality", "model_utility"], OWN)
    probabilities = [key for key in values if key.endswith("_probability")]
    assert probabilities == ["leavers_probability", "suppliers_probability", "kin_probability"]
    better = {key: values[key].higher_is_better for key in probabilities}
    assert better == {"leavers_probability": False, "suppliers_probability": False, "kin_probability": True}
    # both forget sets' rows are members, and both are compared with the retain model's
    assert (values["mia_loss"].n, values["forget_quality"].n, values["forget_quality_n"].value) == (12, 8, 8.0)
    losses = [0.5 + index / 10 for index in range(4)]
    pairs = [(member < other) + 0.5 * (member == other) for member in 2 * losses for other in losses]
    assert values["mia_loss"].value == pytest.approx(np.mean(pairs))
    assert values["model_utility"].reason == "no set with the role 'retain' or 'utility' is scored."


def test_directions_follow_from_roles(plugin) -> None:
    roles = ("forget", "retain", "utility", "holdout", "neighbour")
    sets = ScoredSets(tuple(ScoredSet(f"a_{role}", role) for role in roles))
    records = all_sets(tuple(f"a_{role}" for role in roles))
    for told, expected in (("kept", [False, True, True, None, True]), ("forgotten", [True, False, False, None, False])):
        plugin(lambda rows: np.zeros(len(rows)), roles=roles, higher_is_better=told)
        found = evaluate(records, None, ["probe"], sets)
        assert [found[f"a_{role}_probe"].higher_is_better for role in roles] == expected


def test_a_metric_whose_roles_no_set_has_is_null_under_its_roles() -> None:
    (value,) = evaluate(all_sets(("kin",)), None, ["leak"], ScoredSets((ScoredSet("kin", "neighbour"),))).items()
    assert value[0] == "forget_leak" and value[1].reason == "no set with the role 'forget' is scored."
    assert (value[1].value, value[1].n) == (None, 0)


def test_two_metrics_with_one_key(plugin) -> None:
    plugin(lambda rows: {"probability": 0.0}, roles=("forget",))
    with pytest.raises(GrunBenchError, match="forget_probability"):
        evaluate(all_sets(), None, ["probability", "probe"], USUAL_SETS)


def test_interval_of_degenerate_samples() -> None:
    assert interval(np.array([0.5])) == (None, None)
    assert interval(np.full(40, 0.3)) == (0.3, 0.3)
    low, high = interval(np.array([0.0] * 399 + [1.0]))
    assert 0 <= low <= 1 / 400 <= high <= 0.05


def test_interval_is_close_to_the_normal_one_and_repeats() -> None:
    sample = np.random.default_rng(1).normal(0.5, 0.1, 400)
    half = 1.96 * sample.std(ddof=1) / 20
    low, high = interval(sample)
    assert low == pytest.approx(sample.mean() - half, abs=half / 5)
    assert high == pytest.approx(sample.mean() + half, abs=half / 5)
    assert interval(sample) == (low, high)


@unhurried
@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_interval_lies_within_the_sample(sample: list[float]) -> None:
    low, high = interval(np.array(sample))
    assert min(sample) - 1e-12 <= low <= high <= max(sample) + 1e-12


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(7)
    hits = 0
    for _ in range(200):
        low, high = interval(generator.beta(0.5, 1.5, 100))
        hits += low <= 0.25 <= high
    assert 180 <= hits <= 199  # 95 % of 200, within three standard deviations


# --- rows without anything to measure -------------------------------------------------------------------------------


def empty(name: str, index: int) -> Record:
    """A row whose answer is its end of sequence alone."""
    answer = Continuation("", logprobs=[-0.1], matches=[1], means=[-1.0], deviations=[1.0])
    return Record(name, index, "who?", answer, generation=Generation(""))


TOKENWISE = ["extraction_strength", "extraction_strength_open_unlearning", "exact_memorisation"]
MEMBERSHIP = ["mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "privleak", "privleak_half"]


@pytest.mark.parametrize("name", TOKENWISE)
def test_a_row_with_an_empty_answer_is_left_out_and_the_value_says_so(name: str) -> None:
    records = Records([record("forget", 0, 0.5), record("forget", 1, 0.6), empty("forget", 2), record("forget", 3)])
    records[0].answer.matches = [0, 1]
    found = evaluate(records, None, [name], USUAL_SETS)[f"forget_{name}"]
    others = evaluate(Records(row for row in records if row.index != 2), None, [name], USUAL_SETS)[f"forget_{name}"]
    assert (found.value, found.n, found.low, found.high) == (others.value, 3, others.low, others.high)
    assert found.reason == "1 of 4 rows left out, first row 2 of 'forget': the answer has no token before its end."
    assert others.reason is None


@pytest.mark.parametrize("name", MEMBERSHIP)
@pytest.mark.parametrize("side", ["forget", "holdout"])
def test_membership_is_told_from_the_rows_with_an_answer(name: str, side: str) -> None:
    rows = [record("forget", index, 0.5 + index) for index in range(4)]
    rows += [record("holdout", index, 1.2 + index / 3) for index in range(4)]
    reference = Records([record(row.set, row.index, 1 + row.index / 7) for row in rows])
    found = evaluate(Records([*rows, empty(side, 9)]), Records([*reference, empty(side, 9)]), [name], USUAL_SETS)[name]
    expected = evaluate(Records(rows), reference, [name], USUAL_SETS)[name]
    assert expected.value is not None and (found.value, found.n) == (expected.value, expected.n) == (expected.value, 8)
    assert f"1 of 9 rows left out, first row 9 of '{side}'" in found.reason


def test_where_every_row_is_empty_there_is_no_number() -> None:
    found = evaluate(Records([empty("forget", 0), empty("forget", 1)]), None, ["extraction_strength"], USUAL_SETS)
    value = found["forget_extraction_strength"]
    assert value.value is None and "row 0 of 'forget' has no per-token matches" in value.reason
    one_side = Records([empty("forget", 0), record("holdout", 0)])
    value = evaluate(one_side, None, ["mia_min_k"], USUAL_SETS)["mia_min_k"]
    assert value.value is None and value.reason.startswith("no rows of the set 'forget'. 1 of 2 rows left out")


@pytest.mark.parametrize("name", [*TOKENWISE, *MEMBERSHIP, "mia_loss", "probability"])
def test_a_token_without_a_number_makes_no_number(name: str) -> None:
    """What sorts or compares puts NaN at one end or the other: as if the token were not there, or never matched."""
    records = all_sets(("forget", "holdout"))
    records[1].answer = Continuation(
        "the answer", logprobs=[float("nan"), -1.0], matches=[0, 1], means=[-1.0] * 2, deviations=[1.0] * 2
    )
    reference = all_sets(("forget", "holdout"))
    for key, value in evaluate(
        records, reference, [name], ScoredSets(USUAL_SETS.sets[:1] + USUAL_SETS.sets[4:])
    ).items():
        assert value.value is None and "not finite" in value.reason, key


def other_answers(name: str, index: int, paraphrased: bool, wrong: bool) -> Record:
    row = record(name, index, 1.0 + index)
    row.paraphrased = Continuation("so", loss=0.5 + index) if paraphrased else None
    row.perturbed = [Continuation("no", loss=2.0 + index)] if wrong else []
    return row


def test_rows_without_other_answers_are_left_out_where_others_have_them() -> None:
    """As where a writer's paraphrase or wrong answers of some rows could not stand."""
    rows = [other_answers("forget", index, index != 1, index != 2) for index in range(4)]
    facts = [other_answers("world_facts", index, False, index != 1) for index in range(2)]
    names = ["truth_ratio", "paraphrased_probability", "perturbed_probability", "normalised_probability"]
    values = evaluate(Records(rows + facts), None, names, USUAL_SETS)
    ratio, whole = values["forget_truth_ratio"], [rows[0], rows[3]]
    assert ratio.value == pytest.approx(np.exp(-1.5)) and ratio.n == 2
    assert ratio.value == evaluate(Records(whole), None, names, USUAL_SETS)["forget_truth_ratio"].value
    assert "2 of 4 rows left out" in str(ratio.reason) and "no paraphrased answer" in str(ratio.reason)
    assert values["forget_paraphrased_probability"].n == values["forget_perturbed_probability"].n == 3
    assert values["forget_paraphrased_probability"].value == pytest.approx(np.exp([-0.5, -2.5, -3.5]).mean())
    # what is known otherwise needs no paraphrase
    assert values["world_facts_truth_ratio"].n == values["world_facts_normalised_probability"].n == 1
    bare = [other_answers("forget", index, False, False) for index in range(2)]
    missing = evaluate(Records(bare), None, names, USUAL_SETS)["forget_truth_ratio"]
    assert missing.value is None and "--augment" in str(missing.reason)


def test_rows_left_out_are_told_in_the_result() -> None:
    records = Records([*all_sets(("forget",)), empty("forget", 9)])
    values = evaluate(records, None, ["exact_memorisation"], ScoredSets(USUAL_SETS.sets[:1]))
    fields = result_fields("letters", 1, values)
    key = "forget_exact_memorisation,none"
    assert fields["results"]["letters"][key] == 1.0 and fields["n-samples"]["letters"]["forget_exact_memorisation"] == 4
    assert fields["reasons"][key].startswith("1 of 5 rows left out")
