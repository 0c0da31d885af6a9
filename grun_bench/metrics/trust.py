"""Which metric can be trusted? Faithfulness and robustness of a metric of forgetting. No torch.

Everything here takes a metric as knowledge: higher where more of the forget set is known. Sources: OpenUnlearning
(arXiv 2506.12618, section 4, meta-evaluation) and, for the two-sided forms, the unlearning depth score (arXiv
2605.24614; gnueaj/unlearning-depth-score @ fc31639).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

import numpy as np

from grun_bench.metrics.membership import auc

#: the share of the target's utility that a model must keep to say something of a metric's robustness
USABLE = 0.8
_TINY = 1e-6


class Change(NamedTuple):
    """A metric of one model before and after it was quantised or relearned."""

    before: float
    after: float

    @property
    def rise(self) -> float:
        return self.after - self.before


@dataclass(frozen=True)
class Robustness:
    """`relearning` and `quantisation` are means over `models` models, 0 to 1; None without one."""

    relearning: float | None
    quantisation: float | None
    models: int

    @property
    def both(self) -> float | None:
        """Their harmonic mean, as both sources have it."""
        return harmonic(self.relearning, self.quantisation)


def faithfulness(knowing: Sequence[float], unknowing: Sequence[float]) -> float:
    """AUC of a metric over two pools of models, those that know the forget set and those that never saw it; 0 to 1.

    The probability that a model that knows has the higher value, ties half: 1 for a metric that tells all of them.
    Source: OpenUnlearning, section 4.1.
    """
    return auc(np.array(unknowing), np.array(knowing))


def threshold(knowing: Sequence[float], unknowing: Sequence[float]) -> float:
    """The value up to which a model counts as unknowing: of those between two models the one that errs least.

    Errors are shares of each pool, so that pools of different size weigh the same.
    """
    values = sorted({*knowing, *unknowing})
    cuts = [(low + high) / 2 for low, high in pairwise(values)] or values

    def errors(cut: float) -> float:
        return fmean(value <= cut for value in knowing) + fmean(value > cut for value in unknowing)

    return min(cuts, key=errors)


def kept_by_relearning(unlearned: Change, retain: Change) -> float:
    """min((rise of the retain model) / (rise of the unlearned model), 1), not below 0; 1 where nothing rose.

    Below 1 where relearning brings back more than it teaches a model that never knew: the metric had called hidden
    knowledge forgotten. Source: OpenUnlearning, section 4.2, equation of r.
    """
    if unlearned.rise <= _TINY:
        return 1.0
    return min(max(retain.rise / unlearned.rise, 0.0), 1.0)


def kept_by_quantisation(model: Change) -> float:
    """min(before / after, 1); 1 where nothing rose. Below 1 where quantisation brings knowledge back.

    Source: OpenUnlearning, section 4.2, equation of q.
    """
    return 1.0 if model.rise <= 0 or model.after <= 0 else min(max(model.before / model.after, 0.0), 1.0)


def same_after_relearning(unlearned: Change, retain: Change) -> float:
    """1 - |d_u - d_r| / (|d_u| + |d_r|), d the rises; knowledge that is destroyed counts as knowledge that comes back.

    Source: the unlearning depth score's meta-evaluation, which adds 1e-6 to the denominator.
    """
    return _alike(unlearned.rise, retain.rise)


def same_after_quantisation(model: Change) -> float:
    """1 - |after - before| / (|after| + |before|), as `same_after_relearning`."""
    return _alike(model.before, model.after)


def _alike(one: float, other: float) -> float:
    return 1.0 - min(abs(one - other) / (abs(one) + abs(other) + _TINY), 1.0)


def robustness(
    relearned: Iterable[tuple[Change, Change]], quantised: Iterable[Change], two_sided: bool = False
) -> Robustness:
    """The means over models: of (unlearned, retain model) under relearning, and of models under quantisation."""
    of_pair, of_one = (
        (same_after_relearning, same_after_quantisation) if two_sided else (kept_by_relearning, kept_by_quantisation)
    )
    first = [of_pair(*pair) for pair in relearned]
    second = [of_one(change) for change in quantised]
    return Robustness(fmean(first) if first else None, fmean(second) if second else None, max(len(first), len(second)))


def harmonic(*values: float | None) -> float | None:
    """The harmonic mean; None where a value is missing, 0 where one is."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not values:
        return None
    return len(known) / sum(1 / value for value in known) if min(known) > 0 else 0.0
