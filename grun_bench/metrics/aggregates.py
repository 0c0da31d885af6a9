"""Harmonic means over kinds of measures: of what is memorised, of privacy, and of usefulness. No torch."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.stats import hmean

from grun_bench.core.errors import MissingReference
from grun_bench.core.registry import metric
from grun_bench.metrics import membership
from grun_bench.metrics.answers import paraphrased_probability, truth_knowledge
from grun_bench.metrics.memorisation import exact_memorisation, extraction_strength_open_unlearning
from grun_bench.metrics.scored import ScoredRecords
from grun_bench.metrics.summaries import model_utility_open_unlearning
from grun_bench.metrics.texts import fluency

_MEMORISED = (extraction_strength_open_unlearning, exact_memorisation, paraphrased_probability, truth_knowledge)
_ATTACKS = (membership.mia_loss, membership.mia_zlib, membership.mia_min_k, membership.mia_min_k_plus_plus)


def harmonic(parts: Iterable[float]) -> float:
    """Harmonic mean of numbers from 0 on; 0 where one of them is, NaN where one is none."""
    values = np.array(list(parts), dtype=float)
    return float(hmean(values)) if np.isfinite(values).all() else float("nan")


def likeness(own: float, retain: float) -> float:
    """How like the retain model's AUC another is: 1 - |own - retain| / retain, 0 where that is below 0."""
    return max(0.0, 1.0 - abs(own - retain) / retain) if retain else float("nan")


@metric("memorisation_score", over=("forget",), higher_is_better=True, bounds=(0.0, 1.0))
def memorisation_score(records: ScoredRecords, reference: ScoredRecords | None) -> float:
    """Harmonic mean of 1 - extraction strength, exact memorisation, paraphrased probability and truth ratio; 0 to 1.

    High is good: little is memorised. The parts are the means over the forget sets of
    `extraction_strength_open_unlearning`, `exact_memorisation`, `paraphrased_probability` and `truth_knowledge`.
    Source: OpenUnlearning (arXiv 2506.12618, memorisation score), as gnueaj/unlearning-depth-score @ fc31639 computes
    it; from the parts that it publishes of 152 checkpoints this gives its own numbers.
    """
    sets = records.each("forget")
    means = [np.concatenate([part(rows) for rows in sets]).mean() for part in _MEMORISED]
    return harmonic(1.0 - mean for mean in means)


@metric("privacy_score", over=("forget", "holdout"), reference="retain", higher_is_better=True, bounds=(0.0, 1.0))
def privacy_score(records: ScoredRecords, reference: ScoredRecords | None) -> float:
    """Harmonic mean of how like the retain model's AUC four membership attacks' are; 0 to 1, high is good.

    Each is max(0, 1 - |AUC - AUC_retain| / AUC_retain), by loss, zlib, min-k and min-k++. Source: MUSE's privleak as a
    score (arXiv 2407.06460), as gnueaj/unlearning-depth-score @ fc31639 computes it.
    """
    if reference is None or not (reference.of("forget") and reference.of("holdout")):
        raise MissingReference("the retain model's records have no rows of the forget and the holdout set.")
    return harmonic(likeness(attack(records, None), attack(reference, None)) for attack in _ATTACKS)


@metric(
    "utility_score",
    over=("forget", "retain", "utility"),
    higher_is_better=True,
    bounds=(0.0, 1.0),
    classifier=True,
    version=2,
)
def utility_score(records: ScoredRecords, reference: ScoredRecords | None) -> float:
    """Harmonic mean of model utility and of how fluent the answers on the forget sets are; 0 to 1, high is good.

    The parts are `model_utility_open_unlearning` and the mean of `fluency` over the forget sets. Source: OpenUnlearning
    (arXiv 2506.12618, utility score), as gnueaj/unlearning-depth-score @ fc31639 computes it.
    """
    fluent = np.concatenate([fluency(rows) for rows in records.each("forget")]).mean()
    return harmonic((model_utility_open_unlearning(records, None), fluent))
