"""How sure a mean over examples is. No torch."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.stats import bootstrap

CONFIDENCE, RESAMPLES, SEED = 0.95, 2000, 0


def interval(values: np.ndarray) -> tuple[float | None, float | None]:
    """95 % bootstrap interval of the mean (BCa, seeded); the value itself when all are equal, None for a single row."""
    if len(values) < 2:
        return None, None
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    for method in ("BCa", "percentile"):  # BCa has no answer when resampling hardly ever moves the mean
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = bootstrap(
                (values,),
                np.mean,
                n_resamples=RESAMPLES,
                batch=256,
                confidence_level=CONFIDENCE,
                method=method,
                vectorized=True,
                random_state=np.random.default_rng(SEED),
            ).confidence_interval
        if np.isfinite(found.low) and np.isfinite(found.high):
            return float(found.low), float(found.high)
    return None, None
