"""TOFU's two headline numbers: model utility and forget quality."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from scipy.stats import hmean, ks_2samp

from grun_bench.core.errors import MissingReference
from grun_bench.core.registry import metric
from grun_bench.metrics import answers
from grun_bench.metrics._common import without_pair
from grun_bench.metrics.scored import ScoredRecords, SetRecords
from grun_bench.metrics.texts import rougeL_recall, rougeL_recall_unicode
from grun_bench.results.record import Record
from grun_bench.tasks.roles import Role

PerRow = Callable[[SetRecords], np.ndarray]
QUALITY = {"forget_quality": True, "forget_quality_D": False, "forget_quality_n": None}
QUALITY_OU = {f"{key}_open_unlearning": better for key, better in QUALITY.items()}


def _utility(records: ScoredRecords, normalised: PerRow, ratio: PerRow, recall: PerRow = rougeL_recall) -> float:
    """Harmonic mean of three parts a set, nine for TOFU's sets; 0 when one of them is."""
    parts = []
    for rows in records.each("retain"):
        parts += [part(rows).mean() for part in (recall, answers.probability, ratio)]
    for rows in records.each("utility"):
        parts += [part(rows).mean() for part in (recall, normalised, ratio)]
    return float(hmean(parts)) if np.isfinite(parts).all() else float("nan")


@metric("model_utility", over=("retain", "utility"), higher_is_better=True, bounds=(0.0, 1.0), leaves_out=without_pair)
def model_utility(records: ScoredRecords, reference: ScoredRecords | None) -> float:
    """Harmonic mean of ROUGE-L recall, probability and truth ratio on the retain and the utility sets; 0 to 1.

    High is good. The parts, nine for TOFU's retain set, real authors and world facts, are the metrics `rougeL_recall`,
    `probability` (of utility sets `normalised_probability`) and `truth_ratio` (geometric) of each set. Source: TOFU
    (arXiv 2401.06121, section 2.2) and locuslab/tofu @ bdc209e. Leaderboards use this one under the clean protocol.
    """
    return _utility(records, answers.normalised_probability, answers.truth_ratio)


@metric(
    "model_utility_open_unlearning",
    over=("retain", "utility"),
    higher_is_better=True,
    bounds=(0.0, 1.0),
    leaves_out=without_pair,
)
def model_utility_open_unlearning(records: ScoredRecords, reference: ScoredRecords | None) -> float:
    """Model utility from the parts with OpenUnlearning's 1e-10; 0 to 1, high is good.

    Source: OpenUnlearning @ d3d7cf9 (`model_utility`). Its leaderboard uses this one.
    """
    return _utility(records, answers.normalised_probability_open_unlearning, answers.truth_ratio_open_unlearning)


@metric(
    "model_utility_unicode",
    over=("retain", "utility"),
    higher_is_better=True,
    bounds=(0.0, 1.0),
    version=2,
    leaves_out=without_pair,
)
def model_utility_unicode(records: ScoredRecords, reference: ScoredRecords | None) -> float:
    """`model_utility` with `rougeL_recall_unicode`, for answers of any script; 0 to 1, high is good.

    Source: as `model_utility`, but for the words that ROUGE compares.
    """
    return _utility(records, answers.normalised_probability, answers.truth_ratio, rougeL_recall_unicode)


def _quality(
    records: ScoredRecords, reference: ScoredRecords | None, ratio: Callable[[Record, Role], float]
) -> tuple[float, float, float]:
    """Two-sided KS test of R over the forget rows: (p, D, n of the smaller sample).

    Rows that only the retain model has are left out. It may have fewer, as in TOFU's published logs.
    """
    ours = records.of("forget")
    asked = {(row.set, row.index) for row in ours}
    theirs = [row for row in reference.of("forget") if (row.set, row.index) in asked] if reference else []
    if not theirs:
        raise MissingReference("the retain model's records have no rows of the forget set that this model has.")
    samples = [np.array([ratio(row, "forget") for row in side]) for side in (ours, theirs)]
    count = float(min(map(len, samples)))
    if not all(np.isfinite(sample).all() for sample in samples):
        return float("nan"), float("nan"), count
    with warnings.catch_warnings():
        # the exact p is out of reach for some unequal n: scipy takes the limit
        warnings.simplefilter("ignore", RuntimeWarning)
        test = ks_2samp(*samples)
    return float(test.pvalue), float(test.statistic), count


@metric(
    "forget_quality",
    over=("forget",),
    reference="retain",
    higher_is_better=QUALITY,
    bounds=(0.0, float("inf")),
    leaves_out=without_pair,
)
def forget_quality(records: ScoredRecords, reference: ScoredRecords | None) -> dict[str, float]:
    """p of a two-sided KS test between the truth ratios of this and the retain model on forget; 0 to 1, high is good.

    With it D (0 to 1, low is good; compare models on this one, p is coarse and depends on n) and n, the rows of the
    smaller sample; rows that only the retain model has are not in it. R is geometric, not folded. Source: TOFU (arXiv
    2401.06121, section 2.2) and locuslab/tofu @ bdc209e; p does not change when R is inverted, as some code does.
    Leaderboards use this one under the clean protocol.
    """
    return dict(zip(QUALITY, _quality(records, reference, answers.log_truth_ratio), strict=True))


@metric(
    "forget_quality_open_unlearning",
    over=("forget",),
    reference="retain",
    higher_is_better=QUALITY_OU,
    bounds=(0.0, float("inf")),
    leaves_out=without_pair,
)
def forget_quality_open_unlearning(records: ScoredRecords, reference: ScoredRecords | None) -> dict[str, float]:
    """Forget quality on truth ratios with 1e-10 in the denominator; p 0 to 1, high is good.

    Differs from `forget_quality` only where P(paraphrased) is near 1e-10. Source: OpenUnlearning @ d3d7cf9
    (`forget_quality`, ks_test on `forget_truth_ratio`). Its leaderboard uses this one.
    """
    return dict(zip(QUALITY_OU, _quality(records, reference, answers.truth_ratio_open_unlearning_raw), strict=True))
