"""Live parity with OpenUnlearning (locuslab/open-unlearning at d3d7cf9) on SmolLM2-135M-Instruct, 24 rows a set.

The reference values were written by OpenUnlearning's own code; its quirks are listed in the reference file. With `-s`
the comparison is printed as a table.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from grun_bench.metrics.answers import truth_ratio_open_unlearning_raw
from grun_bench.metrics.evaluate import evaluate
from grun_bench.metrics.memorisation import exact_memorisation, extraction_strength_open_unlearning
from grun_bench.models.lm import LM, Prompts
from grun_bench.models.scoring import Example, ScoringSettings, score
from grun_bench.results.record import Continuation, Record, Records
from grun_bench.tasks.sets import USUAL, USUAL_SETS

SHARED = Path(os.environ.get("GRUN_BENCH_SHARED", Path(__file__).parents[3] / "shared"))
REFERENCE = SHARED / "reference" / "openunlearning_smollm2.json"
DATA = SHARED / "hub" / "locuslab" / "TOFU"
MODEL = os.environ.get("GRUN_BENCH_SMOLLM2")
FILES = {
    "forget": "forget10_perturbed",
    "retain": "retain_perturbed",
    "real_authors": "real_authors_perturbed",
    "world_facts": "world_facts_perturbed",
}
PREFIX = {"forget": "forget", "retain": "retain", "real_authors": "ra", "world_facts": "wf"}
ROWS = 24
ROUGE = ("rouge1_recall", "rougeL_recall", "rougeL_f1")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not REFERENCE.exists(), reason=f"{REFERENCE} not found (set GRUN_BENCH_SHARED)"),
    pytest.mark.skipif(not MODEL, reason="set GRUN_BENCH_SMOLLM2 to the folder that make_smollm2.py writes"),
]


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    return json.loads(REFERENCE.read_text())


@pytest.fixture(scope="module")
def records() -> Records:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL)
    examples = [example for name in FILES for example in _examples(name)]
    lm = LM(model, tokenizer, Prompts(tokenizer, "chat"), {})
    return score(lm, examples, ScoringSettings(protocol="open-unlearning"))


@pytest.fixture(scope="module")
def table() -> Iterator[Callable[[str, str, int, float], None]]:
    """Takes rows (quantity, tolerance, how many compared, largest difference) and prints them at the end."""
    lines = Table("quantity", "agreement asked for", "compared", "largest difference")
    yield lambda quantity, tolerance, count, worst: lines.add_row(quantity, tolerance, str(count), f"{worst:.1e}")
    Console(width=110).print(lines)


def _examples(name: str) -> list[Example]:
    lines = (DATA / f"{FILES[name]}.json").read_text().splitlines()[:ROWS]
    return [
        Example(
            name, index, row["question"], row["answer"], row.get("paraphrased_answer"), tuple(row["perturbed_answer"])
        )
        for index, row in enumerate(map(json.loads, lines))
    ]


def _losses(record: Record) -> dict[str, list[Continuation]]:
    """Scored continuations by the names of OpenUnlearning's metrics; it has no paraphrase of real authors and facts."""
    prefix = PREFIX[record.set]
    found = {f"{prefix}_Q_A_Prob": [record.answer], f"{prefix}_Q_A_PERT_Prob": record.perturbed}
    if record.paraphrased is not None:
        found[f"{prefix}_Q_A_PARA_Prob"] = [record.paraphrased]
    return found


def test_losses_and_probabilities(records: Records, reference: dict[str, Any], table) -> None:
    metrics = sorted({metric for record in records for metric in _losses(record)})
    for metric in metrics:
        pairs = [
            (each.loss, loss, prob)
            for record in records
            if metric in _losses(record)
            for row in [reference["value_by_index"][metric][str(record.index)]]
            for each, loss, prob in zip(
                _losses(record)[metric], np.atleast_1d(row["avg_loss"]), np.atleast_1d(row["prob"]), strict=True
            )
        ]
        ours, losses, probs = np.array(pairs).T
        table(f"{metric}, loss", "2e-4", len(pairs), np.abs(ours - losses).max())
        table(f"{metric}, probability", "2e-4 relative", len(pairs), np.abs(np.exp(-ours) / probs - 1).max())
        np.testing.assert_allclose(ours, losses, rtol=0, atol=2e-4, err_msg=metric)
        np.testing.assert_allclose(np.exp(-ours), probs, rtol=2e-4, err_msg=metric)
    assert sum(len(group) for record in records for group in _losses(record).values()) == ROWS * (7 + 7 + 4 + 4)


def test_generations_and_rouge(records: Records, reference: dict[str, Any], table) -> None:
    from rouge_score.rouge_scorer import RougeScorer  # with nltk, a second to import

    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    differing, worst = [], 0.0
    for record in records:
        row = reference["value_by_index"][f"{PREFIX[record.set]}_Q_A_ROUGE"][str(record.index)]
        if record.generation.text != row["generation"]:
            differing.append((record.set, record.index))
        scores = scorer.score(record.answer.text, record.generation.text)
        ours = scores["rouge1"].recall, scores["rougeL"].recall, scores["rougeL"].fmeasure
        worst = max(worst, *(abs(a - row[key]) for a, key in zip(ours, ROUGE, strict=True)))
    table("generations that differ", "equal", len(records), len(differing))
    table("ROUGE-1 recall, ROUGE-L recall and F1", "equal", 3 * len(records), worst)
    assert not differing
    assert worst == 0


def test_extraction_strength_and_exact_memorisation(records: Records, reference: dict[str, Any], table) -> None:
    rows = records.of("forget")
    for name, ours, tolerance in (
        ("extraction_strength", extraction_strength_open_unlearning(rows), 1e-12),
        ("exact_memorization", exact_memorisation(rows), 1e-6),  # theirs is a mean in float32
    ):
        theirs = [reference["value_by_index"][name][str(row.index)]["score"] for row in rows]
        table(name, "equal", len(rows), np.abs(ours - theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, err_msg=name)


def test_truth_ratio(records: Records, reference: dict[str, Any], table) -> None:
    for name in FILES:
        metric = "forget_truth_ratio" if name == "forget" else f"{PREFIX[name]}_Truth_Ratio"
        rows = records.of(name)
        ours = np.array([truth_ratio_open_unlearning_raw(row, USUAL[name][0]) for row in rows])
        theirs = np.array([reference["value_by_index"][metric][str(row.index)]["score"] for row in rows])
        table(f"{metric}, per row", "4e-4 relative", len(rows), np.abs(ours / theirs - 1).max())
        # a quotient of two probabilities that are each within 2e-4
        np.testing.assert_allclose(ours, theirs, rtol=4e-4, err_msg=metric)


def test_aggregates(records: Records, reference: dict[str, Any], table) -> None:
    """Every aggregate over the rows that has a key of ours, out of the same code as a result's."""
    known = {
        "forget_truth_ratio": "forget_truth_ratio_open_unlearning",
        "retain_Truth_Ratio": "retain_truth_ratio_open_unlearning",
        "ra_Truth_Ratio": "real_authors_truth_ratio_open_unlearning",
        "wf_Truth_Ratio": "world_facts_truth_ratio_open_unlearning",
        "ra_Q_A_Prob_normalised": "real_authors_normalised_probability_open_unlearning",
        "wf_Q_A_Prob_normalised": "world_facts_normalised_probability_open_unlearning",
        "forget_Q_A_Prob": "forget_probability",
        "forget_Q_A_ROUGE": "forget_rougeL_recall",
        "extraction_strength": "forget_extraction_strength_open_unlearning",
        "exact_memorization": "forget_exact_memorisation",
        "model_utility": "model_utility_open_unlearning",
    }
    names = ["probability", "rougeL_recall", "exact_memorisation", "extraction_strength_open_unlearning"]
    names += ["truth_ratio_open_unlearning", "normalised_probability_open_unlearning", "model_utility_open_unlearning"]
    values = evaluate(records, None, names, USUAL_SETS)
    for theirs, ours in known.items():
        expected, found = reference["aggregate_24_rows"][theirs], values[ours].value
        table(f"{theirs}, aggregate", "2e-4 relative", ROWS, abs(found / expected - 1))
        assert found == pytest.approx(expected, rel=2e-4), theirs


def test_prompt_and_labels(records: Records, reference: dict[str, Any]) -> None:
    assert records.of("forget")[0].answer.tokens == len(reference["prompt"]["example_label_ids"])
