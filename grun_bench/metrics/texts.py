"""What the model writes: ROUGE against the reference texts, repetition, gibberish."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grun_bench.core.registry import metric
from grun_bench.core.words import spaced
from grun_bench.metrics._common import KNOWN, TRAINED, missing, ngrams, per_row, written
from grun_bench.metrics.rouge import Score, rouge
from grun_bench.results.record import Record

#: the model that tells clean text from gibberish; another one would be another metric
CLASSIFIER = "madhurjindal/autonlp-Gibberish-Detector-492513457"


def _scores(rows: Sequence[Record], kind: str = "rougeL", unicode: bool = False, stemmed: bool = True) -> list[Score]:
    """ROUGE of the greedy answers against the answers."""
    return [rouge(row, row.answer, written(row), kind, unicode=unicode, stemmed=stemmed) for row in rows]


@metric("rouge1_recall", roles=KNOWN, higher_is_better="kept", bounds=(0.0, 1.0))
def rouge1_recall(rows: Sequence[Record]) -> np.ndarray:
    """ROUGE-1 recall of the greedy answer, stemmed; 0 to 1, low is good on forget.

    Source: Lin 2004, by the package rouge-score; reported per row by locuslab/tofu @ bdc209e and OpenUnlearning.
    """
    return per_row(score.recall for score in _scores(rows, "rouge1"))


@metric("rougeL_recall", roles=KNOWN, higher_is_better="kept", bounds=(0.0, 1.0))
def rougeL_recall(rows: Sequence[Record]) -> np.ndarray:
    """ROUGE-L recall of the greedy answer, stemmed; 0 to 1, low is good on forget.

    Source: TOFU (arXiv 2401.06121, section 2.2), Lin 2004, by the package rouge-score, the same in locuslab/tofu
    @ bdc209e and OpenUnlearning @ d3d7cf9 (`*_Q_A_ROUGE`). Leaderboards, and model utility, use this one.
    """
    return per_row(score.recall for score in _scores(rows))


@metric("rouge1_f1", roles=KNOWN, higher_is_better="kept", bounds=(0.0, 1.0))
def rouge1_f1(rows: Sequence[Record]) -> np.ndarray:
    """ROUGE-1 F1 of the greedy answer, stemmed; 0 to 1, low is good on forget. Falls with long-winded answers.

    Source: Lin 2004, by the package rouge-score. No TOFU leaderboard uses it.
    """
    return per_row(score.f1 for score in _scores(rows, "rouge1"))


@metric("rougeL_f1", roles=KNOWN, higher_is_better="kept", bounds=(0.0, 1.0))
def rougeL_f1(rows: Sequence[Record]) -> np.ndarray:
    """ROUGE-L F1 of the greedy answer, stemmed; 0 to 1, low is good on forget. Falls with long-winded answers.

    Source: Lin 2004, by the package rouge-score; stored per row by OpenUnlearning @ d3d7cf9, which uses it for MUSE.
    No TOFU leaderboard uses it.
    """
    return per_row(score.f1 for score in _scores(rows))


@metric("rougeL_f1_unstemmed", roles=KNOWN, higher_is_better="kept", bounds=(0.0, 1.0))
def rougeL_f1_unstemmed(rows: Sequence[Record]) -> np.ndarray:
    """ROUGE-L F1 of the greedy answer, not stemmed; 0 to 1, low is good on forget.

    Source: MUSE (arXiv 2407.06460, section 3; jaechan-repo/muse_bench @ 54719c5), for verbatim and for knowledge
    memorisation; Lin 2004, by the package rouge-score.
    """
    return per_row(score.f1 for score in _scores(rows, stemmed=False))


@metric("rougeL_recall_unicode", roles=KNOWN, higher_is_better="kept", bounds=(0.0, 1.0), version=2)
def rougeL_recall_unicode(rows: Sequence[Record]) -> np.ndarray:
    """ROUGE-L recall of the greedy answer over words of any script, not stemmed; 0 to 1, low is good on forget.

    In scripts without spaces between words (Chinese, Japanese, Thai) over characters. For sets whose answers are not
    in Latin letters, where `rougeL_recall` is null; of English it is another number, for want of a stemmer. Source:
    Lin 2004, by the package rouge-score, with the words of `grun_bench.core.words`.
    """
    return per_row(score.recall for score in _scores(rows, unicode=True))


@metric("rougeL_f1_unicode", roles=KNOWN, higher_is_better="kept", bounds=(0.0, 1.0), version=2)
def rougeL_f1_unicode(rows: Sequence[Record]) -> np.ndarray:
    """ROUGE-L F1 of the greedy answer over words of any script, not stemmed; 0 to 1, low is good on forget.

    Source: as `rougeL_recall_unicode`.
    """
    return per_row(score.f1 for score in _scores(rows, unicode=True))


@metric("paraphrased_rougeL_recall", roles=TRAINED, higher_is_better="kept", bounds=(0.0, 1.0))
def paraphrased_rougeL_recall(rows: Sequence[Record]) -> np.ndarray:
    """ROUGE-L recall of the greedy answer against the paraphrased answer; 0 to 1, low is good on forget.

    Source: OpenUnlearning @ d3d7cf9 (`forget_Q_A_PARA_ROUGE`).
    """
    what = "paraphrased answer"
    return per_row(rouge(row, row.paraphrased, written(row), what=what, unicode=False).recall for row in rows)


@metric("perturbed_rougeL_recall", roles=KNOWN, higher_is_better=None, bounds=(0.0, 1.0))
def perturbed_rougeL_recall(rows: Sequence[Record]) -> np.ndarray:
    """ROUGE-L recall of the greedy answer against the wrong answers, the mean over a row's; 0 to 1, no direction.

    Source: OpenUnlearning @ d3d7cf9 (`forget_Q_A_PERT_ROUGE`).
    """
    return per_row(_perturbed_rouge(row) for row in rows)


def _perturbed_rouge(row: Record) -> float:
    if not row.perturbed:
        raise missing(row, "perturbed answers")
    what = "perturbed answers"
    return float(np.mean([rouge(row, each, written(row), what=what, unicode=False).recall for each in row.perturbed]))


@metric("repetition", roles=KNOWN, higher_is_better=False, bounds=(0.0, 1.0))
def repetition(rows: Sequence[Record]) -> np.ndarray:
    """Share of repeated word 4-grams in the greedy answer, 1 - distinct / all; 0 to 1, low is good.

    0 for an answer of fewer than four words. Source: seq-rep-4 of Welleck et al. 2020 (arXiv 1908.04319, section 4),
    over words that white space parts, characters in scripts without spaces. Near 1 where unlearning broke the model
    into loops.
    """
    return per_row(_repeated(spaced(written(row))) for row in rows)


def _repeated(words: list[str], size: int = 4) -> float:
    grams = ngrams(words, size)
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


@metric("gibberish", roles=TRAINED, higher_is_better=False, bounds=(0.0, 1.0))
def gibberish(rows: Sequence[Record]) -> np.ndarray:
    """Share of the greedy answer's character trigrams seen in no reference text of the set; 0 to 1, low is good.

    Reference texts are the questions and all answers of the set's rows, case folded. Fluent text of the same kind
    shares nearly all its trigrams with them (compare with the target model's value, which is no zero); symbol noise and
    cut-up words do not. An empty answer counts as 1. Own measure, of any language and without the classifier that
    `fluency` needs; not on utility sets, whose texts are too few.
    """
    known = set().union(*(_trigrams(text) for row in rows for text in _texts(row))) if rows else set()
    return per_row(_unknown_share(_trigrams(written(row)), known) for row in rows)


@metric("fluency", roles=TRAINED, higher_is_better=True, bounds=(0.0, 1.0), classifier=True)
def fluency(rows: Sequence[Record]) -> np.ndarray:
    """How likely the greedy answer is clean text and no gibberish, by a classifier of English; 0 to 1, high is good.

    The probability of its class 0 for the first 32 tokens, made when the answers are, for a task that needs it. Source:
    OpenUnlearning @ d3d7cf9 (`forget_Q_A_gibberish`), and so the fluency of gnueaj/unlearning-depth-score @ fc31639.
    """
    return per_row(_fluency(row) for row in rows)


def _fluency(row: Record) -> float:
    if "fluency" not in row.scores:
        raise missing(row, f"fluency, for which the classifier {CLASSIFIER} must be on the Hub or in a mirror")
    return row.scores["fluency"]


def _texts(row: Record) -> list[str]:
    answers = [row.answer, *([row.paraphrased] if row.paraphrased else []), *row.perturbed]
    return [row.question, *(answer.text for answer in answers)]


def _trigrams(text: str) -> list[str]:
    padded = f" {' '.join(text.casefold().split())} "
    return [padded[start : start + 3] for start in range(len(padded) - 2)]


def _unknown_share(trigrams: list[str], known: set[str]) -> float:
    return sum(trigram not in known for trigram in trigrams) / len(trigrams) if trigrams else 1.0
