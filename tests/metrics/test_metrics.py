"""Metrics against hand-computed values, brute force and properties that hold for any input."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from grun_bench.core import registry
from grun_bench.core.errors import MissingReference
from grun_bench.metrics import (
    answers,
    gates,
    membership,
    memorisation,
    summaries,
    texts,
)
from grun_bench.metrics.scored import ScoredRecords, SetRecords
from grun_bench.results.record import Continuation, Generation, Record, Records
from grun_bench.tasks.sets import USUAL, USUAL_SETS

unhurried = settings(deadline=None)  # a busy machine is no failure

LN2 = math.log(2)
LOSSES = st.floats(0, 20)
finite_lists = st.lists(LOSSES, min_size=1, max_size=5)


def said(probability: float) -> Continuation:
    """An answer of this probability per token."""
    return Continuation("text", loss=-math.log(probability))


def row(name: str = "forget", index: int = 0, answer: Continuation | None = None, **fields) -> Record:
    return Record(name, index, "question", answer or said(0.5), **fields)


def of(*rows: Record) -> SetRecords:
    """Rows of one of TOFU's sets."""
    return SetRecords(rows[0].set, USUAL[rows[0].set][0], rows)


def scored(*rows: Record) -> ScoredRecords:
    return ScoredRecords(Records(rows), USUAL_SETS)


def texts_row(answer: str, written: str, **fields) -> Record:
    return row(answer=Continuation(answer, loss=0.0), generation=Generation(written), **fields)


def matched(*matches: int, **fields) -> Record:
    """A row whose answer's tokens match like this; the end of sequence, the last entry, included."""
    return row(answer=Continuation("text", logprobs=[-1.0] * len(matches), matches=list(matches)), **fields)


# --- the contract ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.names("metric"))
def test_metric_declares_what_a_table_needs(name: str) -> None:
    plugin = registry.get("metric", name)
    assert bool(plugin.roles) != bool(plugin.over)
    assert plugin.bounds[0] < plugin.bounds[1] and not all(map(math.isinf, plugin.bounds))
    # what a key is about is asked without importing metrics
    assert tuple(registry.entries("metric")[name].declared.get("over", ())) == plugin.over
    assert len(plugin.target.__doc__.splitlines()) > 1, "the docstring says what, range, direction and source"


# --- probabilities --------------------------------------------------------------------------------------------------


def test_probability_is_the_geometric_mean_over_tokens() -> None:
    answer = Continuation("text", logprobs=[math.log(0.5), math.log(0.5), math.log(0.125)])
    assert answers.probability([row(answer=answer)]) == pytest.approx([(0.5 * 0.5 * 0.125) ** (1 / 3)])


def test_probability_prefers_the_rounding_of_an_imported_log() -> None:
    assert answers.probability([row(answer=Continuation("", loss=LN2, probability=0.49999997))])[0] == 0.49999997


def test_paraphrased_and_perturbed_probability() -> None:
    example = row(paraphrased=said(0.25), perturbed=[said(0.1), said(0.3)])
    assert answers.paraphrased_probability([example]) == pytest.approx([0.25])
    assert answers.perturbed_probability([example]) == pytest.approx([0.2])


def test_normalised_probability_is_the_share_among_the_choices() -> None:
    example = row("real_authors", answer=said(0.2), perturbed=[said(0.1), said(0.05), said(0.05)])
    assert answers.normalised_probability([example]) == pytest.approx([0.5])
    expected = 0.2 / (0.4 + 1e-10)
    assert answers.normalised_probability_open_unlearning([example]) == pytest.approx([expected], rel=1e-14)


def test_epsilon_shows_where_probabilities_are_tiny() -> None:
    example = row("world_facts", answer=said(1e-10), perturbed=[said(1e-10)])
    assert answers.normalised_probability([example]) == pytest.approx([0.5])
    assert answers.normalised_probability_open_unlearning([example]) == pytest.approx([1 / 3])
    assert answers.truth_ratio(of(example)) == pytest.approx([0.0], abs=1e-12)
    assert answers.truth_ratio_open_unlearning(of(example)) == pytest.approx([0.5])


# --- truth ratio ----------------------------------------------------------------------------------------------------


def ratio_row(name: str) -> Record:
    """Paraphrased 1/2; perturbed 1/2 and 1/8: R is 1/2 geometric, 5/8 arithmetic."""
    return row(name, answer=said(0.9), paraphrased=said(0.5), perturbed=[said(0.5), said(0.125)])


@pytest.mark.parametrize(
    ("function", "forget", "retain"),
    [
        (answers.truth_ratio, 0.5, 0.5),
        (answers.truth_ratio_open_unlearning, 0.5, 0.5),
        (answers.truth_ratio_arithmetic, 0.625, 0.375),
        (answers.truth_ratio_grun, 0.375, 0.375),
        (answers.truth_knowledge, 2 / 3, 2 / 3),
    ],
)
def test_truth_ratio_variants(function, forget: float, retain: float) -> None:
    assert function(of(ratio_row("forget"))) == pytest.approx([forget], rel=1e-9)
    assert function(of(ratio_row("retain"))) == pytest.approx([retain], rel=1e-9)


def test_truth_ratio_above_one() -> None:
    def twice(name: str) -> Record:
        return row(name, paraphrased=said(0.25), perturbed=[said(0.5)])

    for function in (answers.truth_ratio, answers.truth_ratio_arithmetic, answers.truth_ratio_open_unlearning):
        assert function(of(twice("forget"))) == pytest.approx([0.5], rel=1e-9)
        assert function(of(twice("retain"))) == pytest.approx([0.0])
    assert answers.truth_ratio_grun(of(twice("forget"))) == pytest.approx([0.0])


@pytest.mark.parametrize("name", ["real_authors", "world_facts"])
def test_answer_is_its_own_paraphrase_in_the_general_sets(name: str) -> None:
    assert answers.truth_ratio(of(row(name, answer=said(0.5), perturbed=[said(0.125)]))) == pytest.approx([0.75])


@pytest.mark.parametrize("name", ["forget", "retain"])
def test_missing_paraphrase_is_no_reason_to_take_the_answer(name: str) -> None:
    with pytest.raises(MissingReference, match=f"row 0 of '{name}' has no paraphrased answer .*a column para"):
        answers.truth_ratio(of(row(name, perturbed=[said(0.5)])))


@unhurried
@given(LOSSES, finite_lists, st.sampled_from(["forget", "retain", "real_authors", "world_facts"]))
def test_truth_ratios_stay_in_bounds(right: float, wrong: list[float], name: str) -> None:
    rows = of(
        row(
            name,
            answer=Continuation("", loss=right),
            paraphrased=Continuation("", loss=right),
            perturbed=[Continuation("", loss=loss) for loss in wrong],
        )
    )
    for function in (
        answers.truth_ratio,
        answers.truth_ratio_open_unlearning,
        answers.truth_ratio_arithmetic,
        answers.truth_ratio_grun,
        answers.truth_knowledge,
    ):
        assert 0 <= function(rows)[0] <= 1


def test_extreme_losses_do_not_overflow() -> None:
    rows = of(row(paraphrased=Continuation("", loss=2000.0), perturbed=[Continuation("", loss=0.0)]))
    assert answers.truth_ratio(rows)[0] == 0.0
    assert answers.truth_knowledge(rows)[0] == pytest.approx(0.0, abs=1e-300)


# --- ROUGE and other texts ------------------------------------------------------------------------------------------


def test_rouge_by_hand() -> None:
    """Answer: a b c d; written: b a d x y. Overlap 3 of 4 and of 5; longest common subsequence 2 (a d or b d)."""
    rows = [texts_row("alpha beta gamma delta", "beta alpha delta xi ypsilon")]
    assert texts.rouge1_recall(rows) == pytest.approx([3 / 4])
    assert texts.rouge1_f1(rows) == pytest.approx([2 * 3 / (4 + 5)])
    assert texts.rougeL_recall(rows) == pytest.approx([2 / 4])
    assert texts.rougeL_f1(rows) == pytest.approx([2 * 2 / (4 + 5)])


def test_rouge_stems_words_and_ignores_case() -> None:
    assert texts.rougeL_recall([texts_row("He writes Novels", "he writing novel")]) == pytest.approx([1.0])


def subsequence(left: list[str], right: list[str]) -> int:
    """The longest common subsequence, straight from its definition."""
    if not left or not right:
        return 0
    if left[0] == right[0]:
        return 1 + subsequence(left[1:], right[1:])
    return max(subsequence(left[1:], right), subsequence(left, right[1:]))


words = st.lists(st.sampled_from(["aa", "bb", "cc"]), min_size=1, max_size=6)


@unhurried
@given(words, words)
def test_rouge_l_is_the_longest_common_subsequence(answer: list[str], written: list[str]) -> None:
    recall = texts.rougeL_recall([texts_row(" ".join(answer), " ".join(written))])
    assert recall == pytest.approx([subsequence(answer, written) / len(answer)])


def test_rouge_against_the_other_answers() -> None:
    example = texts_row("alpha", "beta gamma", paraphrased=Continuation("beta delta"))
    example.perturbed = [Continuation("beta gamma"), Continuation("xi"), Continuation("gamma beta")]
    assert texts.paraphrased_rougeL_recall([example]) == pytest.approx([0.5])
    assert texts.perturbed_rougeL_recall([example]) == pytest.approx([(1 + 0 + 0.5) / 3])


def test_rouge_without_text_is_missing() -> None:
    with pytest.raises(MissingReference, match="generated text"):
        texts.rougeL_recall([row()])
    with pytest.raises(MissingReference, match="text of the paraphrased answer"):
        texts.paraphrased_rougeL_recall([texts_row("a", "b", paraphrased=Continuation("", loss=1.0))])


@pytest.mark.parametrize(
    ("written", "expected"),
    [("", 0.0), ("one two three", 0.0), ("a b c d e f", 0.0), ("x " * 13, 0.9), ("a b c d a b c d", 1 / 5)],
)
def test_repetition(written: str, expected: float) -> None:
    assert texts.repetition([texts_row("answer", written)]) == pytest.approx([expected])


def test_gibberish_counts_unknown_trigrams() -> None:
    """' ab ' padded: ' ab' and 'ab ' are known; ' abx ' has ' ab' known of ' ab', 'abx', 'bx '."""
    rows = [texts_row("ab", written) for written in ("AB", "abx", "zz", "")]
    for example in rows:
        example.question = ""
    assert texts.gibberish(rows) == pytest.approx([0.0, 2 / 3, 1.0, 1.0])


# --- memorisation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matches", "strength", "floored", "exact"),
    [
        ((1, 1, 1, 1, 1), 1.0, 1.0, 1.0),
        ((1, 1, 1, 1, 0), 1.0, 1.0, 1.0),  # the end of sequence does not count
        ((0, 0, 0, 0, 1), 0.0, 0.25, 0.0),
        ((1, 1, 1, 0, 1), 0.0, 0.25, 0.75),
        ((1, 0, 1, 1, 1), 0.5, 0.5, 0.75),
    ],
)
def test_memorisation_by_hand(matches: tuple[int, ...], strength: float, floored: float, exact: float) -> None:
    rows = [matched(*matches)]
    assert memorisation.extraction_strength(rows) == pytest.approx([strength])
    assert memorisation.extraction_strength_open_unlearning(rows) == pytest.approx([floored])
    assert memorisation.exact_memorisation(rows) == pytest.approx([exact])


@unhurried
@given(st.lists(st.integers(0, 1), min_size=1, max_size=12))
def test_extraction_strength_tries_every_prefix(matches: list[int]) -> None:
    prefix = next(k for k in range(len(matches) + 1) if all(matches[k:]))
    assert memorisation.extraction_strength([matched(*matches, 1)]) == pytest.approx([1 - prefix / len(matches)])


def test_memorisation_falls_back_on_stored_scores_but_never_on_a_part_of_them() -> None:
    stored = row(scores={"exact_memorisation": 0.7})
    assert memorisation.exact_memorisation([stored])[0] == 0.7
    with pytest.raises(MissingReference, match="per-token matches"):
        memorisation.exact_memorisation([stored, row(index=1)])


# --- model utility and forget quality -------------------------------------------------------------------------------


def utility_records(retain: float = 0.5) -> ScoredRecords:
    """ROUGE 1 everywhere; P `retain`, normalised 1/2 and 4/5 on the general sets; truth ratios 3/4, 1/2 and 3/4."""
    written = Generation("word")
    kept = Record("retain", 0, "q", Continuation("word", loss=-math.log(retain)), said(0.4), [said(0.1)], written)
    authors = Record("real_authors", 0, "q", Continuation("word", loss=LN2), None, [said(0.25)] * 2, written)
    facts = Record("world_facts", 0, "q", Continuation("word", loss=-math.log(0.8)), None, [said(0.2)], written)
    return scored(kept, authors, facts)


def test_model_utility_is_the_harmonic_mean_of_nine_parts() -> None:
    parts = [1.0, 0.5, 0.75, 1.0, 0.5, 0.5, 1.0, 0.8, 0.75]
    expected = 9 / sum(1 / part for part in parts)
    assert summaries.model_utility(utility_records(), None) == pytest.approx(expected, rel=1e-12)
    assert summaries.model_utility_open_unlearning(utility_records(), None) == pytest.approx(expected, rel=1e-8)


def test_model_utility_is_zero_when_a_part_is() -> None:
    records = utility_records()
    records.of("retain")[0].generation.text = "other"
    assert summaries.model_utility(records, None) == 0.0


def quality_records(ratios: list[float]) -> ScoredRecords:
    """Forget rows with these truth ratios."""
    rows = [
        row(index=index, paraphrased=said(0.01), perturbed=[Continuation("", loss=-math.log(0.01 * ratio))])
        for index, ratio in enumerate(ratios)
    ]
    return scored(*rows)


def test_forget_quality_of_a_model_against_itself_is_one() -> None:
    records = quality_records([0.5, 1.0, 2.0, 3.0])
    found = summaries.forget_quality(records, records)
    assert found == {"forget_quality": 1.0, "forget_quality_D": 0.0, "forget_quality_n": 4.0}


def test_forget_quality_of_total_separation() -> None:
    """Two samples of n that do not overlap: 2 of the C(2n, n) equally likely orders are as extreme."""
    found = summaries.forget_quality(quality_records([0.1, 0.2, 0.3, 0.4]), quality_records([1.0, 2.0, 3.0, 4.0]))
    assert found["forget_quality"] == pytest.approx(2 / math.comb(8, 4))
    assert found["forget_quality_D"] == 1.0


spread = st.lists(st.integers(1, 9000), min_size=2, max_size=30)


@unhurried
@pytest.mark.filterwarnings("ignore:ks_2samp:RuntimeWarning")
@given(spread, spread)
def test_forget_quality_is_ks_and_does_not_change_when_the_ratio_is_inverted(left: list[int], right: list[int]) -> None:
    ratios = [[value / 100 for value in side] for side in (left, right)]
    inverted = [[1 / value for value in side] for side in ratios]
    # of the retain model the rows that this one has
    expected = ks_2samp(left, right[: len(left)])
    for values in (ratios, inverted):
        found = summaries.forget_quality(*map(quality_records, values))
        assert found["forget_quality"] == pytest.approx(expected.pvalue)
        assert found["forget_quality_D"] == pytest.approx(expected.statistic)


def test_rows_that_the_retain_model_alone_has_are_not_compared() -> None:
    ours, theirs = [0.1 * place for place in range(1, 5)], [0.15 * place for place in range(1, 5)]
    more = quality_records([*theirs, *[50.0 + place for place in range(20)]])
    found = summaries.forget_quality(quality_records(ours), more)
    assert found == summaries.forget_quality(quality_records(ours), quality_records(theirs))
    assert found["forget_quality_n"] == 4
    with pytest.raises(MissingReference, match="that this model has"):
        summaries.forget_quality(quality_records(ours), scored(*more.of("forget")[4:]))


def test_the_coarse_steps_at_forty_rows() -> None:
    """p at n = 40 for D = 0, 1/40, ...: the published list of possible values."""
    published = [1, 1, 1, 0.99, 0.919, 0.766, 0.579, 0.405, 0.266, 0.165, 0.097, 0.054, 0.029]
    low = [float(index + 1) for index in range(40)]
    for step, expected in enumerate(published[3:], 4):
        shifted = [ratio + step + 0.5 - 1 for ratio in low]
        found = summaries.forget_quality(quality_records(low), quality_records(shifted))
        assert found["forget_quality_D"] == pytest.approx(step / 40)
        assert found["forget_quality"] == pytest.approx(expected, abs=6e-4)


# --- gates ----------------------------------------------------------------------------------------------------------


def test_gates_by_layer() -> None:
    rows = [
        row(index=0, gates={"19": 1.0, "2": 0.5}, gates_paraphrased={"19": 0.2, "2": 0.4}),
        row(index=1, gates={"19": 0.0, "2": 0.1}, gates_paraphrased={"19": 0.0, "2": 0.0}),
    ]
    found = gates.gate(rows)
    assert list(found) == ["gate", "gate_layer_2", "gate_layer_19"] + [
        f"gate_paraphrased{end}" for end in ("", "_layer_2", "_layer_19")
    ]
    assert found["gate"] == pytest.approx([0.75, 0.05])
    assert found["gate_layer_19"] == pytest.approx([1.0, 0.0])
    assert found["gate_paraphrased"] == pytest.approx([0.3, 0.0])


def test_gates_that_are_not_there() -> None:
    with pytest.raises(MissingReference, match="no gates"):
        gates.gate([row()])
    assert isinstance(gates.gate([row(gates={"1": 0.5})])["gate_paraphrased"], MissingReference)


# --- membership inference -------------------------------------------------------------------------------------------

scores = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=15)


@unhurried
@given(scores, scores)
def test_auc_counts_pairs(members: list[float], others: list[float]) -> None:
    wins = sum((member < other) + 0.5 * (member == other) for member in members for other in others)
    assert membership.auc(np.array(members), np.array(others)) == pytest.approx(wins / (len(members) * len(others)))


def sides(forget: list[Continuation], holdout: list[Continuation]) -> ScoredRecords:
    rows = [row("forget", index, answer) for index, answer in enumerate(forget)]
    return scored(*rows, *(row("holdout", index, answer) for index, answer in enumerate(holdout)))


def test_mia_loss_and_reference() -> None:
    records = sides([said(0.9), said(0.4)], [said(0.5), said(0.1)])
    assert membership.mia_loss(records, None) == pytest.approx(3 / 4)
    # losses minus the reference's, in units of probability ratios: 0.9/0.9, 0.4/0.1 against 0.5/0.5, 0.1/0.1
    reference = sides([said(0.9), said(0.1)], [said(0.5), said(0.1)])
    assert membership.mia_reference(records, reference) == pytest.approx((2 + 2 * 0.5) / 4)
    with pytest.raises(MissingReference, match="--retain"):
        membership.mia_reference(records, None)


def test_mia_zlib_divides_by_the_compressed_length() -> None:
    long, short = "an answer that goes on and on without saying much " * 3, "x"
    records = sides([Continuation(long, loss=1.2)], [Continuation(short, loss=1.0)])
    assert len(zlib.compress(long.encode())) > 1.2 * len(zlib.compress(short.encode()))
    assert membership.mia_loss(records, None) == 0.0
    assert membership.mia_zlib(records, None) == 1.0


def test_min_k_takes_the_least_likely_two_fifths_without_the_end() -> None:
    """Five tokens: the lowest two, -6 and -4, score 5; the end of sequence at -50 does not count."""
    answer = Continuation("", logprobs=[-1.0, -6.0, -2.0, -4.0, -0.5, -50.0])
    assert membership._min_k(row(answer=answer)) == pytest.approx(5.0)
    assert membership._min_k(row(answer=Continuation("", logprobs=[-3.0, -1.0]))) == pytest.approx(3.0)


def test_min_k_plus_plus_standardises() -> None:
    answer = Continuation(
        "", logprobs=[-1.0, -6.0, -9.0], means=[-2.0, -2.0, 0.0], deviations=[0.5, 2.0, 1.0], matches=[1, 0, 0]
    )
    assert membership._min_k_plus_plus(row(answer=answer)) == pytest.approx(2.0)
    flat = Continuation("", logprobs=[-1.0, 0.0], means=[-0.999, 0.0], deviations=[0.0, 0.0])
    assert membership._min_k_plus_plus(row(answer=flat)) == pytest.approx(1.0)


def test_privleak() -> None:
    """AUC 1 against a retain AUC of one half: (0 - 1/2) / (1/2) = -100 %."""
    told = sides([Continuation("", logprobs=[-1.0, 0.0])], [Continuation("", logprobs=[-2.0, 0.0])])
    equal = sides([Continuation("", logprobs=[-1.0, 0.0])], [Continuation("", logprobs=[-1.0, 0.0])])
    assert membership.privleak(told, equal) == pytest.approx(-100)
    assert membership.privleak_half(told, None) == pytest.approx(-100)
    assert membership.privleak(equal, equal) == 0.0
    with pytest.raises(MissingReference, match="holdout"):
        membership.privleak(told, scored(row()))


def test_gradnorm_needs_norms() -> None:
    with pytest.raises(MissingReference, match="no gradient norm"):
        membership.mia_gradnorm(sides([said(0.5)], [said(0.5)]), None)
