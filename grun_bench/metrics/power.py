"""What could have been seen: the least difference that a test finds with so many rows. No torch.

All of it at a level of 5 %, two-sided, and a power of 80 %: a difference as large is found in 4 of 5 samples.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from grun_bench.results.words import number

LEVEL, POWER = 0.05, 0.8
#: the keys that are p or D of a KS test
KS_TESTED = frozenset(f"forget_quality{what}{protocol}" for what in ("", "_D") for protocol in ("", "_open_unlearning"))
#: samples drawn at each shift, and steps of the bisection: the shift is good to two digits
_DRAWS, _STEPS, _SEED = 1000, 10, 0
#: rows up to which is simulated
_SIMULATED = 100
_LARGEST_SHIFT = 4.0
#: rows up to which D is exact: a result may say that it has any number of them
_EXACT = 5000
#: 5 % of Kolmogorov's distribution lie above it, that of D sqrt(n / 2) in the limit (Smirnov 1948)
_LIMIT = 1.3580986


def least_seen(differences: np.ndarray) -> float | None:
    """The least mean difference that a paired test of so many rows sees; None for a single row.

    (t_{.975} + t_{.8}) s / sqrt(n), s the deviation of the differences as observed, t the quantiles of Student's
    distribution with n - 1 degrees of freedom. Source: the normal approximation of a paired t test's power (Cohen 1988,
    Statistical Power Analysis, section 2.3), which a permutation test of the mean shares (Lehmann and Romano, Testing
    Statistical Hypotheses, theorem 15.2.3), as McNemar's test does for differences of -1, 0 and 1.
    """
    from scipy.special import stdtrit  # takes a moment, and what reads a board needs none of it

    count = len(differences)
    if count < 2:
        return None
    quantiles = sum(float(stdtrit(count - 1, share)) for share in (1 - LEVEL / 2, POWER))
    return quantiles * float(differences.std(ddof=1)) / math.sqrt(count)


def least_between(interval: tuple[float, float]) -> float:
    """The least difference between two rows whose means have a 95 % interval like this one.

    (z_{.975} + z_{.8}) sqrt(2) SE, with the standard error SE read off the interval, (high - low) / (2 z_{.975}). It is
    of two independent samples: on the same rows, whose values go together, less is seen (`least_seen`).
    """
    low, high = interval
    z = NormalDist().inv_cdf(1 - LEVEL / 2)
    return (z + NormalDist().inv_cdf(POWER)) * math.sqrt(2) * (high - low) / (2 * z)


def least_words(metric: str, count: int, interval: tuple[float, float] | None) -> str:
    """The least difference between two rows that is seen in a metric, as people read it; "" where it is not known.

    Of p and D of a KS test the least D; of a mean over rows `least_between`.
    """
    if metric in KS_TESTED:
        seen = least_d(count) if count else None
        return f"D {number(seen)}" if seen else "none"
    return number(least_between(interval)) if interval else ""


def ks_words(metric: str, count: int) -> str:
    """What a p of forget quality from so many rows can say, in a sentence; "" of other metrics, and of too few rows."""
    seen = least_ks(count) if metric in KS_TESTED and count else None
    if seen is None:
        return ""
    return (
        f"Forget quality's p is below 0.05 from D = {number(seen.D)} on with {count} rows, and 4 times of 5 so for "
        f"truth ratios that are {seen.shift:.2f} standard deviations apart: a higher p may be lack of rows."
    )


class LeastKS(NamedTuple):
    """What a two-sample Kolmogorov-Smirnov test sees: `D` is the least statistic with p below 5 %, `shift` the least
    shift between two normal samples, in standard deviations, that it finds in 4 of 5 draws."""

    D: float
    shift: float


@lru_cache
def least_ks(count: int) -> LeastKS | None:
    """The same for two samples of so many rows each; None where no statistic is below 5 % (fewer than 4).

    D is exact (Gnedenko and Korolyuk 1951, for samples of the same size); the shift by simulation: 1,000 pairs of
    samples (seeded, the same at every shift), and bisection for the shift at which 80 % of them have such a D. Beyond
    100 rows it is that of 100 times sqrt(100 / n), as it is in the limit.
    """
    least = _least_step(count)
    if least is None:
        return None
    return LeastKS(least / count, _shift(count, least))


def least_d(count: int) -> float | None:
    """The D of `least_ks` alone."""
    least = _least_step(count)
    return None if least is None else least / count


def _shift(count: int, least: int) -> float:
    if count > _SIMULATED and (of_fewer := least_ks(_SIMULATED)):
        return of_fewer.shift * math.sqrt(_SIMULATED / count)
    # one long line of numbers, a stretch of it for each pair of samples: sorted once, since a shift moves all alike
    apart = np.arange(_DRAWS)[:, None] * 100.0
    samples, others = np.sort(np.random.default_rng(_SEED).normal(size=(2, _DRAWS, count)), axis=2)
    low, high = 0.0, _LARGEST_SHIFT
    for _ in range(_STEPS):
        middle = (low + high) / 2
        power = float(np.mean(_statistics(samples + apart, others + middle + apart) >= least))
        low, high = (low, middle) if power >= POWER else (middle, high)
    return high


@lru_cache
def _least_step(count: int) -> int | None:
    """The least whole number k with P(D >= k / count) below 5 %; of very many rows as it is in the limit."""
    if count > _EXACT:
        return math.ceil(_LIMIT * math.sqrt(2 * count))
    least = bisect_left(range(1, count + 1), True, key=lambda step: _p(step, count) < LEVEL) + 1
    return least if least <= count else None


def _p(step: int, count: int) -> float:
    """P(D >= step / count) = 2 sum_j (-1)^(j+1) C(2n, n - j step) / C(2n, n), of two samples of n = `count` rows."""
    terms = range(1, count // step + 1)
    ways = sum((-1) ** (term + 1) * math.comb(2 * count, count - term * step) for term in terms)
    return 2 * ways / math.comb(2 * count, count)


def _statistics(samples: np.ndarray, others: np.ndarray) -> np.ndarray:
    """D times the number of rows, for each of (draws, rows) pairs of samples, all in one ascending order."""
    draws, count = samples.shape
    below = np.searchsorted(others.ravel(), samples.ravel()).reshape(draws, count) - count * np.arange(draws)[:, None]
    own = np.arange(count)
    # of a step function the largest distance lies right before or at a row of the first sample
    return np.maximum(np.abs(own + 1 - below), np.abs(own - below)).max(axis=1)
