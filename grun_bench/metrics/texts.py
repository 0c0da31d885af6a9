"""What the model writes: ROUGE against the reference texts, repetition, gibberish."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from grun_bench.core.patches import quiet
from grun_bench.core.registry import metric
from grun_bench.metrics._common import KNOWN, TRAINED, missing, per_row
from grun_bench.results.record import Continuation, Record


@lru_cache(maxsize=1)
def _scorer() -> Any:
    from rouge_score import rouge_scorer  # nltk behind it takes a second to import

    with quiet("absl"):  # where it says that it uses the default tokenizer
        return rouge_scorer.RougeScorer(["rouge1", "rougeL"], use_stemmer=True)


@lru_cache(maxsize=100_000)
def _rouge(reference: str, text: str) -> dict[str, tuple[float, float, float]]:
    """(precision, recall, F1) of rouge1 and rougeL; kept, since several metrics ask for the same pairs."""
    return {kind: tuple(score) for kind, score in _scorer().score(reference, text).items()}


def _written(row: Record) -> str:
    if row.generation is None:
        raise missing(row, "generated text")
    return row.generation.text


def _reference(row: Record, answer: Continuation | None, what: str) -> str:
    if answer is None or not answer.text:
        raise missing(row, what)
    return answer.text


def rougeL_recalls(row: Record, texts: Sequence[str]) -> list[float]:
    """ROUGE-L recall of each of several texts against the answer, stemmed."""
    return [_rouge(_reference(row, row.answer, "answer text"), text)["rougeL"][1] for text in texts]


def _recall(rows: Sequence[Record], kind: str) -> np.ndarray:
    return per_row(_rouge(_reference(row, row.answer, "answer text"), _written(row))[kind][1] for row in rows)


def _f1(rows: Sequence[Record], kind: str) -> np.ndarray:
    return per_row(_rouge(_reference(row, row.answer, "answer text"), _written(row))[kind][2] for row in rows)


@metric("rouge1_recall", roles=KNOWN, higher_is_better="kept", bounds=(0.0, 1.0))
def rouge1_recall(rows: Sequence[Record]) -> np.ndarray:
    """ROUGE-1 recall of the greedy answer, stemmed; 0 to 1, low is good on forget.

    Source: Lin 2004, by the package rouge-score; reported per row by locuslab/tofu @ bdc209e and OpenUnlearning.
    """
    return _recall(rows, "rouge1")


@metric("rougeL_recall", roles=KNOWN, higher_is_better="kept", bounds=(0.0, 1.0))
def rougeL_recall(rows: Sequence[Record]) -> np.ndarray:
    """ROUGE-L recall of the greedy answer, stemmed; 0 to 1, low is good on forget.

    Source: TOFU (arXiv 2401.06121, section 2.2), Lin 2004, by the package rouge-score, the same in locuslab/tofu
    @ bdc209e and OpenUnlearning @ d3d7cf9 (`*_Q_A_ROUGE`). Leaderboards, and model utility, use this one.
    """
    return _recall(rows, "rougeL")


@metric("rouge1_f1", roles=KNOWN, higher_is_better="kept", bounds=(0.0, 1.0))
def rouge1_f1(rows: Sequence[Record]) -> np.ndarray:
    """ROUGE-1 F1 of the greedy answer, stemmed; 0 to 1, low is good on forget. Falls with long-winded answers.

    Source: Lin 2004, by the package rouge-score. No TOFU leaderboard uses it.
    """
    return _f1(rows, "rouge1")


@metric("rougeL_f1", roles=KNOWN, higher_is_better="kept", bounds=(0.0, 1.0))
def rougeL_f1(rows: Sequence[Record]) -> np.ndarray:
    """ROUGE-L F1 of the greedy answer, stemmed; 0 to 1, low is good on forget. Falls with long-winded answers.

    Source: Lin 2004, by the package rouge-score; stored per row by OpenUnlearning @ d3d7cf9, which uses it for MUSE.
    No TOFU leaderboard uses it.
    """
    return _f1(rows, "rougeL")


@metric("paraphrased_rougeL_recall", roles=TRAINED, higher_is_better="kept", bounds=(0.0, 1.0))
def paraphrased_rougeL_recall(rows: Sequence[Record]) -> np.ndarray:
    """ROUGE-L recall of the greedy answer against the paraphrased answer; 0 to 1, low is good on forget.

    Source: OpenUnlearning @ d3d7cf9 (`forget_Q_A_PARA_ROUGE`).
    """
    what = "text of the paraphrased answer"
    return per_row(_rouge(_reference(row, row.paraphrased, what), _written(row))["rougeL"][1] for row in rows)


@metric("perturbed_rougeL_recall", roles=KNOWN, higher_is_better=None, bounds=(0.0, 1.0))
def perturbed_rougeL_recall(rows: Sequence[Record]) -> np.ndarray:
    """ROUGE-L recall of the greedy answer against the wrong answers, the mean over a row's; 0 to 1, no direction.

    Source: OpenUnlearning @ d3d7cf9 (`forget_Q_A_PERT_ROUGE`).
    """
    return per_row(_perturbed_rouge(row) for row in rows)


def _perturbed_rouge(row: Record) -> float:
    if not row.perturbed:
        raise missing(row, "perturbed answers")
    texts = [_reference(row, answer, "text of a perturbed answer") for answer in row.perturbed]
    return float(np.mean([_rouge(text, _written(row))["rougeL"][1] for text in texts]))


@metric("repetition", roles=KNOWN, higher_is_better=False, bounds=(0.0, 1.0))
def repetition(rows: Sequence[Record]) -> np.ndarray:
    """Share of repeated word 4-grams in the greedy answer, 1 - distinct / all; 0 to 1, low is good.

    0 for an answer of fewer than four words. Source: seq-rep-4 of Welleck et al. 2020 (arXiv 1908.04319, section 4),
    over words that white space parts. Near 1 where unlearning broke the model into loops.
    """
    return per_row(_repeated(_written(row).split()) for row in rows)


def _repeated(words: list[str], size: int = 4) -> float:
    grams = [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


@metric("gibberish", roles=TRAINED, higher_is_better=False, bounds=(0.0, 1.0))
def gibberish(rows: Sequence[Record]) -> np.ndarray:
    """Share of the greedy answer's character trigrams seen in no reference text of the set; 0 to 1, low is good.

    Reference texts are the questions and all answers of the set's rows, case folded. Fluent text of the same kind
    shares nearly all its trigrams with them (compare with the target model's value, which is no zero); symbol noise and
    cut-up words do not. An empty answer counts as 1. Own measure, in place of OpenUnlearning's classifier
    (`forget_Q_A_gibberish`), which needs a second model; not on utility sets, whose texts are too few.
    """
    known = set().union(*(_trigrams(text) for row in rows for text in _texts(row))) if rows else set()
    return per_row(_unknown_share(_trigrams(_written(row)), known) for row in rows)


def _texts(row: Record) -> list[str]:
    answers = [row.answer, *([row.paraphrased] if row.paraphrased else []), *row.perturbed]
    return [row.question, *(answer.text for answer in answers)]


def _trigrams(text: str) -> list[str]:
    padded = f" {' '.join(text.casefold().split())} "
    return [padded[start : start + 3] for start in range(len(padded) - 2)]


def _unknown_share(trigrams: list[str], known: set[str]) -> float:
    return sum(trigram not in known for trigram in trigrams) / len(trigrams) if trigrams else 1.0
