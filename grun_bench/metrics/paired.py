"""Do two models differ on the same examples? Paired tests of their per-example values, and several tests at once.

Both models answer the same rows, so rows are compared one by one: McNemar's test where a row is right or wrong (a
match, a leak, a question), a permutation test of the mean where it has a number. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.stats import binomtest, false_discovery_control

from grun_bench.core.errors import MissingReference
from grun_bench.metrics.evaluate import giving
from grun_bench.metrics.power import least_seen
from grun_bench.metrics.row_values import RowValues, row_values
from grun_bench.results.record import Records
from grun_bench.tasks.sets import ScoredSets

Test = Literal["McNemar", "permutation"]

#: differences from which sign flips are drawn in place of all being tried, and how many are
_ALL, _DRAWS, _SEED = 14, 20_000, 0


@dataclass(frozen=True)
class Paired:
    """A metric of two models on the rows that both have.

    `difference` is the mean of first - second over `n` rows, `p` of the two-sided test named, `q` the same adjusted
    for all metrics that were tested together. `least` is the difference that a test of so many rows with such a spread
    would see 4 times of 5. Without rows to compare they are None and `reason` says why.
    """

    metric: str
    n: int = 0
    difference: float | None = None
    p: float | None = None
    q: float | None = None
    least: float | None = None
    test: Test | None = None
    reason: str = ""


def paired_tests(first: Records, second: Records, keys: Sequence[str], sets: ScoredSets) -> list[Paired]:
    """Two models tested on the same rows, by metric key as results have it (`forget_leak`); q is adjusted over all.

    Metrics over all records, as forget quality, have no value of each row: their tests are null with that reason.
    """
    names = giving(keys, sets)
    ours, theirs = (row_values(records, names, sets) for records in (first, second))
    none = MissingReference("it has no value of each row.")
    return adjusted([compare(key, ours.get(key, none), theirs.get(key, none)) for key in keys])


def compare(metric: str, first: RowValues, second: RowValues) -> Paired:
    """One metric of two models, by what each has of a row; `q` is None."""
    if isinstance(first, MissingReference):
        return Paired(metric, reason=str(first))
    if isinstance(second, MissingReference):
        return Paired(metric, reason=str(second))
    rows = [row for row in first if row in second]
    if not rows:
        return Paired(metric, reason="the two have no row in common.")
    ours, theirs = (np.array([side[row] for row in rows]) for side in (first, second))
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return Paired(metric, n=len(rows), reason="not finite in some row.")
    binary = bool(np.isin(ours, (0, 1)).all() and np.isin(theirs, (0, 1)).all())
    differences = ours - theirs
    return Paired(
        metric,
        n=len(rows),
        difference=float(differences.mean()),
        p=mcnemar(ours, theirs) if binary else permutation(differences),
        least=least_seen(differences),
        test="McNemar" if binary else "permutation",
    )


def adjusted(tests: Sequence[Paired]) -> list[Paired]:
    """The same with q: p adjusted for the false discovery rate over all that have one (`benjamini_hochberg`)."""
    known = iter(benjamini_hochberg([test.p for test in tests if test.p is not None]))
    return [test if test.p is None else replace(test, q=next(known)) for test in tests]


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Exact two-sided p of McNemar's test: are rows that only the first has right as many as the second's?

    Of arrays of 0 and 1, a row each. Under the null hypothesis the b rows of the first kind are binomial among the
    b + c of both kinds, with probability 1/2. 1 where there are none. Source: McNemar 1947 (doi:10.1007/BF02295996),
    exact as in Agresti, Categorical Data Analysis, section 10.1.
    """
    only_first = int(np.sum((first == 1) & (second == 0)))
    only_second = int(np.sum((first == 0) & (second == 1)))
    if not only_first + only_second:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


def permutation(differences: np.ndarray) -> float:
    """Two-sided p of the paired permutation test of the mean: the share of sign flips with a mean as far from 0.

    If the two models were exchangeable, each row's difference might as well have the other sign. All 2^k flips of the
    k differences that are not 0 are tried up to k = 14; beyond, 20,000 drawn ones (seeded) and the one that was
    observed, so p is never 0. Source: Fisher 1935, The Design of Experiments, section 21; the count of the observed one
    by Phipson and Smyth 2010 (arXiv 1603.05766).
    """
    moved = differences[differences != 0]
    count = len(moved)
    if not count:
        return 1.0
    # sums of the same numbers in another order differ in their last digits
    observed = abs(moved.sum()) - 1e-12 * np.abs(moved).sum()
    if count <= _ALL:
        signs = 1 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
    else:
        signs = 1 - 2 * np.random.default_rng(_SEED).integers(0, 2, (_DRAWS, count), dtype=np.int8)
    as_far = int(np.sum(np.abs(signs @ moved) >= observed))
    return as_far / len(signs) if count <= _ALL else (as_far + 1) / (_DRAWS + 1)


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """p values adjusted so that those below a level have at most that share of false discoveries among them.

    Source: Benjamini and Hochberg 1995 (doi:10.1111/j.2517-6161.1995.tb02031.x), by scipy.
    """
    return [float(q) for q in false_discovery_control(ps, method="bh")] if ps else []
