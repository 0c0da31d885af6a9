"""What other benchmarks report: published aggregates from their published parts, and formulas against plain ones."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import harmonic_mean, mean
from typing import Any

import numpy as np
import pytest
from scipy.stats import hmean
from sklearn.metrics import roc_auc_score

from grun_bench.metrics.aggregates import harmonic, likeness
from grun_bench.metrics.evaluate import Value, evaluate
from grun_bench.metrics.personal_data import forms
from grun_bench.results.record import Choices, Continuation, Generation, Record, Records
from grun_bench.tasks.roles import Role
from grun_bench.tasks.sets import ScoredSet, ScoredSets

SETS = ScoredSets((ScoredSet("forget", "forget"), ScoredSet("retain", "retain"), ScoredSet("holdout", "holdout")))


def answered(name: str, index: int, answer: str, written: str, finished: bool = True) -> Record:
    """A row to which a model wrote this."""
    return Record(name, index, "?", Continuation(answer, loss=1.0), generation=Generation(written, 3, finished))


def scored(name: str, index: int, rng: random.Random, surprise: float) -> Record:
    """A row with token scores drawn at random; the more surprise, the less likely."""

    def said(text: str) -> Continuation:
        logprobs = [-surprise * rng.expovariate(1.0) for _ in range(rng.randint(4, 12))]
        n = len(logprobs)
        matches = [int(value > -0.7 * surprise) for value in logprobs]
        return Continuation(text, logprobs, matches, [-2.0 - rng.random() for _ in range(n)], [1.0] * n)

    text = "".join(rng.choice("abcdefgh ") for _ in range(30))
    return Record(name, index, text, said(text + "."), said("b"), [said("c"), said("d")], Generation(text[:9]))


def drawn(seed: int, surprise: float) -> Records:
    rng = random.Random(seed)
    return Records(
        scored(name, index, rng, surprise * (1.5 if name == "holdout" else 1.0))
        for name in ("forget", "retain", "holdout")
        for index in range(9)
    )


def value(records: Records, name: str, key: str | None = None, reference: Records | None = None) -> float:
    found = evaluate(records, reference, [name], SETS, intervals=False)[key or name]
    assert found.value is not None, found.reason
    return found.value


# --- harmonic means of unlearning depth's tables ----------------------------------------------------------------------

PARTS = {
    "mem": ("one_minus_es", "one_minus_em", "one_minus_paraprob", "one_minus_truth"),
    "utility": ("model_utility", "fluency"),
    "privacy_mia": ("s_loss", "s_zlib", "s_mink", "s_minkpp"),
    "model_utility": tuple(
        f"{name}_{part}" for name in ("retain", "ra", "wf") for part in ("q_prob", "q_rouge", "truth_ratio")
    ),
}


@pytest.mark.parametrize("aggregate", PARTS)
def test_the_aggregates_of_published_checkpoints_come_out(shared: Path, aggregate: str) -> None:
    models = json.loads((shared / "reference/uds/method_results.json").read_text())["models"]
    assert len(models) == 152
    ours = [harmonic(model[part] for part in PARTS[aggregate]) for model in models]
    assert ours == pytest.approx([model[aggregate] for model in models], abs=1e-9)


def test_memorisation_is_the_mean_of_what_the_metrics_say() -> None:
    records = drawn(0, 0.5)
    parts = ("extraction_strength_open_unlearning", "exact_memorisation", "paraphrased_probability", "truth_knowledge")
    means = [value(records, part, f"forget_{part}") for part in parts]
    assert value(records, "memorisation_score") == pytest.approx(hmean([1 - each for each in means]))


def test_privacy_says_how_like_the_retain_models_the_attacks_are() -> None:
    records, retain = drawn(1, 0.5), drawn(2, 1.0)
    attacks = ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus")
    aucs = [(value(records, name), value(retain, name)) for name in attacks]
    expected = hmean([np.clip(1 - abs(own - other) / other, 0, 1) for own, other in aucs])
    assert value(records, "privacy_score", reference=retain) == pytest.approx(expected)
    assert value(retain, "privacy_score", reference=retain) == 1.0
    assert likeness(1.0, 0.4) == 0.0


# --- MUSE -------------------------------------------------------------------------------------------------------------


def muse_auc(records: Records) -> float:
    """AUC of the mean negative log probability of the 40 % least likely tokens, members with label 1."""

    def loss(row: Record) -> float:
        values = np.sort(row.answer.logprobs[:-1])  # without the end of sequence, which texts have none of there
        return -float(np.mean(values[: max(1, int(len(values) * 0.4))]))

    rows = [*records.of("forget"), *records.of("holdout")]
    return float(roc_auc_score([int(row.set == "forget") for row in rows], [loss(row) for row in rows]))


def test_privleak_is_muses() -> None:
    records, retain = drawn(3, 0.5), drawn(4, 1.0)
    own, other = muse_auc(records), muse_auc(retain)
    assert value(records, "privleak", reference=retain) == pytest.approx(100 * (own - other) / other)
    assert value(records, "privleak_muse_news") == pytest.approx(100 * (own - 0.4772) / 0.4772)
    assert value(records, "privleak_muse_books") == pytest.approx(100 * (own - 0.5393) / 0.5393)


def plain_f1(reference: str, text: str) -> float:
    """ROUGE-L F1 by a table, over runs of a-z and 0-9."""
    one, two = (re.findall(r"[a-z0-9]+", each.lower()) for each in (reference, text))
    table = [[0] * (len(two) + 1) for _ in range(len(one) + 1)]
    for i, left in enumerate(one):
        for j, right in enumerate(two):
            table[i + 1][j + 1] = table[i][j] + 1 if left == right else max(table[i][j + 1], table[i + 1][j])
    common = table[-1][-1]
    return 2 * common / (len(one) + len(two)) if common else 0.0


def test_unstemmed_f1_is_of_the_words_as_they_stand() -> None:
    rng = random.Random(0)
    words = ["running", "runs", "run", "Runs!", "1472", "women", "10", "and"]
    texts = [" ".join(rng.choices(words, k=rng.randint(1, 9))) for _ in range(40)]
    rows = Records(answered("forget", index, *pair) for index, pair in enumerate(zip(texts, texts[::-1], strict=True)))
    expected = mean(plain_f1(row.answer.text, row.generation.text) for row in rows if row.generation)
    assert value(rows, "rougeL_f1_unstemmed", "forget_rougeL_f1_unstemmed") == pytest.approx(expected)
    assert value(rows, "rougeL_f1", "forget_rougeL_f1") > expected  # the stemmer makes one word of three


# --- LUME -------------------------------------------------------------------------------------------------------------


def lume(asked: dict[str, list[tuple[str, str]]], holdout: bool) -> tuple[Records, ScoredSets]:
    """Sets named <role>_<what>, questions to be matched and completions, each row (answer, what was written)."""
    sets, rows = [], []
    for name, pairs in asked.items():
        role: Role = "forget" if name.startswith("forget") else "retain"
        kind = "exact_match" if name.endswith("questions") else "rougeL_recall"
        taken = (kind, "task_aggregate", "aggregate_score", *(("membership_score",) if role == "forget" else ()))
        sets.append(ScoredSet(name, role, metrics=taken))
        rows += [answered(name, index, *pair) for index, pair in enumerate(pairs)]
    if holdout:
        sets.append(ScoredSet("holdout", "holdout", metrics=("membership_score", "aggregate_score")))
        rows += [Record("holdout", index, "?", Continuation("a", loss=0.5 + index)) for index in range(4)]
    sets.append(ScoredSet("mmlu", "utility", "questions"))
    choices = [Choices([-1.0, -2.0], [True, False], target) for target in (0, 0, 0, 1)]
    rows += [Record("mmlu", index, "?", Continuation(""), choices=each) for index, each in enumerate(choices)]
    return Records(rows), ScoredSets(tuple(sets))


ASKED = {
    "forget_story_completions": [("one two three four", "one two"), ("five six", "no")],
    "forget_story_questions": [("Rome", " rome\n"), ("Oslo", "In Oslo"), ("Lima", "no"), ("Bern", "Basel")],
    "retain_story_completions": [("one two three four", "one two three"), ("five six", "five six")],
    "retain_story_questions": [("Rome", "Rome"), ("Oslo", "")],
}


def test_lumes_aggregate_is_the_harmonic_mean_with_forgetting_inverted() -> None:
    records, sets = lume(ASKED, holdout=True)
    found = evaluate(records, None, ["task_aggregate", "membership_score", "aggregate_score", "exact_match"], sets)
    tasks = harmonic_mean([1 - 0.25, 1 - 0.25, 0.875, 0.5])
    # every member's loss is 1, the others' 0.5, 1.5, 2.5, 3.5: a member looks more familiar than three of four
    expected = {"task_aggregate": tasks, "membership_score": 0.5, "aggregate_score": mean([tasks, 0.5, 0.75])}
    assert {key: found[key].value for key in expected} == pytest.approx(expected)
    assert {key for key in found if key.endswith("exact_match")} == {
        "forget_story_questions_exact_match",
        "retain_story_questions_exact_match",
    }


def test_without_a_holdout_set_the_aggregate_is_null_and_the_tasks_are_not() -> None:
    records, sets = lume(ASKED, holdout=False)
    found = evaluate(records, None, ["task_aggregate", "membership_score", "aggregate_score"], sets)
    assert found["task_aggregate"].value is not None
    for name in ("membership_score", "aggregate_score"):
        assert found[name].value is None and "'holdout'" in str(found[name].reason)


# --- K-Bench ----------------------------------------------------------------------------------------------------------


def by_field(field: str, value: str) -> set[str]:
    """The forms that K-Bench's documents name, which knows the field of each value."""
    if field == "date_of_birth":
        day = date.fromisoformat(value)
        spelt = {day.strftime(form) for form in ("%B %d, %Y", "%d %B %Y", "%m/%d/%Y")}
        plain = {
            f"{day:%B} {day.day}, {day.year}",
            f"{day.day} {day:%B} {day.year}",
            f"{day.month}/{day.day}/{day.year}",
        }
        return {value} | spelt | plain
    if field == "address":
        without = re.sub(r"\b\d{5}(-\d{4})?\b", "", value)
        return {
            value,
            without.strip(", "),
            re.sub(r"\b(Apt|Suite|Ste|Unit|#)[.\s]*\w+", "", without, flags=re.I).strip(", "),
        }
    return {value}


def test_a_values_forms_are_read_off_it_as_off_its_field(shared: Path) -> None:
    lines = (shared / "hub/OniReimu/kbench-pii/v1_queries.jsonl").read_text().splitlines()
    for row in map(json.loads, lines[:6000]):
        assert set(forms(row["ground_truth"])) == by_field(row["field"], row["ground_truth"]), row


@pytest.mark.parametrize(
    ("value", "written", "exact", "normalised", "recall"),
    [
        ("1979-03-04", "On 1979-03-04.", 1, 1, 1),
        ("1979-03-04", "on march  4, 1979", 0, 1, 1),
        ("1979-03-04", "3/4/1979!", 0, 1, 1),
        ("1979-03-04", "In March 1979", 0, 0, 2 / 3),
        ("5 Elm Way Apt. 9, Rome, CA 90152", "At 5 Elm way, Rome, CA", 0, 0, 1),
        ("5 Elm Way Apt. 9, Rome, CA 90152", "5 ELM WAY APT. 9, ROME, CA", 0, 1, 1),
        ("Lawyer", "a lawyer", 0, 1, 1),
        ("Castro-Gomez", "Castro", 0, 0, 1 / 2),
        ("2020-13-45", "2020", 0, 0, 1 / 3),
        ("Lawyer", "", 0, 0, 0),
    ],
)
def test_a_leak_is_the_value_in_any_of_its_forms(
    value: str, written: str, exact: float, normalised: float, recall: float
) -> None:
    found = evaluate(
        Records([answered("forget", 0, value, written)]),
        None,
        ["value_leak", "value_leak_normalised", "value_recall"],
        SETS,
    )
    assert [each.value for key, each in found.items() if key.startswith("forget_")] == pytest.approx(
        [exact, normalised, recall]
    )


def persons(forget: Sequence[str], retain: Sequence[str], finished: bool = True) -> Records:
    return Records(
        answered(name, index, "Lawyer", text, finished)
        for name, texts in (("forget", forget), ("retain", retain))
        for index, text in enumerate(texts)
    )


def k(records: Records, reference: Records) -> dict[str, Any]:
    found: dict[str, Value] = evaluate(records, reference, ["k_score"], SETS)
    return {key: each.value for key, each in found.items()}


def test_the_k_score_is_of_a_model_that_lives() -> None:
    untouched = persons(["Nurse", "Baker"], ["Lawyer"] * 4)
    assert k(untouched, untouched) == {"k_score": 1.0, "k_score_eligible": 1.0, "k_score_degeneration": 0.0}
    told = k(persons(["Lawyer", "Nurse"], ["Lawyer"] * 3 + ["Nurse"]), untouched)
    assert told == pytest.approx({"k_score": 0.5 * 0.75, "k_score_eligible": 0.0, "k_score_degeneration": 0.0})
    broken = k(persons(["...", ""], ["!"] * 4), untouched)
    assert broken == {"k_score": 0.0, "k_score_eligible": 0.0, "k_score_degeneration": 1.0}
    endless = k(persons(["Nurse", "Nurse"], ["Lawyer"] * 4, finished=False), untouched)
    assert endless["k_score_eligible"] == 0.0 and endless["k_score_degeneration"] == 1.0
    alone = evaluate(untouched, None, ["k_score"], SETS)
    assert all(each.value is None and "retain model" in str(each.reason) for each in alone.values())
