"""Whether a model still writes: entropy of n-grams, answers that are empty, and answers that do not end.

Every result has these, whether its task names them or not; so they are in no run id.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from grun_bench.core.registry import metric
from grun_bench.core.words import spaced
from grun_bench.metrics._common import TRAINED, missing, ngrams, per_row, written
from grun_bench.results.record import Record
from grun_bench.tasks.sets import ScoredSets

#: the metrics of this file
EVERYWHERE = ("ngram_entropy", "empty_answers", "runaway_answers")
#: n -> its weight in the mean of the entropies
_WEIGHTS = {2: 2 / 3, 3: 4 / 3}


@metric("ngram_entropy", roles=TRAINED, higher_is_better=None, bounds=(0.0, float("inf")))
def ngram_entropy(rows: Sequence[Record]) -> np.ndarray:
    """Entropy of the greedy answer's word n-grams, (2/3 H_2 + 4/3 H_3) / 2, in bits; from 0, without direction.

    H_n = -sum_g f(g) log2 f(g) over the n-grams g of one answer, f their shares. A loop has an entropy near 0, and so
    has an answer of a few words; noise has a high one: compare with the target's value. Words are what white space
    parts, characters in scripts without spaces. Source: Zhang et al. 2018 (arXiv 1809.05972, `Ent-n`), weighted as
    "fluency" of Meng et al. 2022 (arXiv 2202.05262, section 3.4) is.
    """
    return per_row(_entropy(spaced(written(row))) for row in rows)


@metric("empty_answers", roles=TRAINED, higher_is_better=False, bounds=(0.0, 1.0))
def empty_answers(rows: Sequence[Record]) -> np.ndarray:
    """Share of greedy answers without a letter or a digit; 0 to 1, low is good.

    Source: own measure. An unlearned model that says nothing scores as one that forgot by every measure of overlap.
    """
    return per_row(float(not any(map(str.isalnum, written(row)))) for row in rows)


@metric("runaway_answers", roles=TRAINED, higher_is_better=False, bounds=(0.0, 1.0))
def runaway_answers(rows: Sequence[Record]) -> np.ndarray:
    """Share of greedy answers that did not end within the task's limit of new tokens; 0 to 1, low is good.

    Source: own measure. Loops and noise have no end; compare with the target's value, whose answers may be long.
    """
    return per_row(_runaway(row) for row in rows)


def everywhere(sets: ScoredSets) -> dict[str, list[str]]:
    """The metrics that every result on these sets has beside those that its task names, with their keys."""
    names = sets.of(*TRAINED)
    return {metric: [f"{name}_{metric}" for name in names] for metric in EVERYWHERE} if names else {}


def _runaway(row: Record) -> float:
    if row.generation is None or row.generation.finished is None:
        raise missing(row, "mark whether its generated text came to an end")
    return float(not row.generation.finished)


def _entropy(words: list[str]) -> float:
    entropies = [weight * _entropy_of(ngrams(words, size)) for size, weight in _WEIGHTS.items()]
    return math.fsum(entropies) / len(_WEIGHTS)


def _entropy_of(grams: list[tuple[str, ...]]) -> float:
    shares = [count / len(grams) for count in Counter(grams).values()]
    return -math.fsum(share * math.log2(share) for share in shares)
