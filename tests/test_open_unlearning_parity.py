"""Live parity with OpenUnlearning (locuslab/open-unlearning at d3d7cf9) on SmolLM2-135M-Instruct, 24 rows a set.

The reference values were written by OpenUnlearning's own code; its quirks are listed in the reference file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from grun_bench.models import LM, Prompts
from grun_bench.records import Continuation, Record, Records
from grun_bench.scoring import Example, ScoringSettings, score

SHARED = Path(os.environ.get("GRUN_BENCH_SHARED", Path(__file__).parents[2] / "shared"))
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


def test_losses_and_probabilities(records: Records, reference: dict[str, Any]) -> None:
    compared = 0
    for record in records:
        for metric, continuations in _losses(record).items():
            row = reference["value_by_index"][metric][str(record.index)]
            losses, probs = np.atleast_1d(row["avg_loss"]), np.atleast_1d(row["prob"])
            ours = np.array([each.loss for each in continuations])
            np.testing.assert_allclose(ours, losses, rtol=0, atol=2e-4, err_msg=f"{metric} row {record.index}")
            np.testing.assert_allclose(np.exp(-ours), probs, rtol=2e-4, err_msg=f"{metric} row {record.index}")
            compared += len(losses)
    assert compared == ROWS * (7 + 7 + 4 + 4)


def test_generations_and_rouge(records: Records, reference: dict[str, Any]) -> None:
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    for record in records:
        row = reference["value_by_index"][f"{PREFIX[record.set]}_Q_A_ROUGE"][str(record.index)]
        assert record.generation is not None and record.generation.text == row["generation"]
        scores = scorer.score(record.answer.text, record.generation.text)
        assert scores["rougeL"].recall == row["rougeL_recall"]
        assert scores["rouge1"].recall == row["rouge1_recall"]
        assert scores["rougeL"].fmeasure == row["rougeL_f1"]


def test_extraction_strength_and_exact_memorisation(records: Records, reference: dict[str, Any]) -> None:
    for record in records.of("forget"):
        # the last scored token is dropped; no matching suffix leaves 1/N
        matches = np.array(record.answer.matches[:-1])
        begin = next((k for k in range(len(matches)) if matches[k:].all()), len(matches) - 1)
        values, index = reference["value_by_index"], str(record.index)
        assert 1 - begin / len(matches) == pytest.approx(values["extraction_strength"][index]["score"], abs=1e-12)
        assert matches.mean() == pytest.approx(values["exact_memorization"][index]["score"], abs=1e-6)


def test_truth_ratio(records: Records, reference: dict[str, Any]) -> None:
    for record in records:
        metric = "forget_truth_ratio" if record.set == "forget" else f"{PREFIX[record.set]}_Truth_Ratio"
        right = record.paraphrased or record.answer
        ratio = np.exp(-np.mean([each.loss for each in record.perturbed])) / (np.exp(-right.loss) + 1e-10)
        # a quotient of two probabilities that are each within 2e-4
        assert ratio == pytest.approx(reference["value_by_index"][metric][str(record.index)]["score"], rel=4e-4)


def test_prompt_and_labels(records: Records, reference: dict[str, Any]) -> None:
    assert records.of("forget")[0].answer.tokens == len(reference["prompt"]["example_label_ids"])
