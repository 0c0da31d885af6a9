"""Objectives: what unlearning optimises, each one function of a lazy batch.

An objective returns the forget loss, a scalar to minimise. `retain` in its declaration names the retain term added to
it (see `unlearn.RETAIN_TERMS`; None for no term), and `needs` what the batch must hold: `reference` (log-probabilities
of the target model) or `idk` (refusals). Keyword parameters are the options that `--set` overrides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.functional import logsigmoid

from grun_bench.registry import objective

if TYPE_CHECKING:
    from grun_bench.unlearn import UnlearningBatch


@objective("ga")
def ga(batch: UnlearningBatch) -> Tensor:
    """Gradient ascent: minus the forget set's cross-entropy (TOFU, arXiv 2401.06121, sec. 4)."""
    return -batch.forget.cross_entropy


@objective("gd", retain="ce")
def gd(batch: UnlearningBatch) -> Tensor:
    """Gradient difference: gradient ascent with a retain term (Liu et al. 2022; TOFU, arXiv 2401.06121, sec. 4)."""
    return -batch.forget.cross_entropy


@objective("npo", retain="ce", needs=("reference",))
def npo(batch: UnlearningBatch, *, beta: float = 0.1) -> Tensor:
    """Negative preference optimisation (arXiv 2404.05868, eq. 3), with log-probabilities summed over the answer.

    -(2 / beta) mean log sigmoid(-beta log(p / p0)), where p0 is the target model.
    """
    log_ratio = batch.forget.reference_nll - batch.forget.nll
    return -2 / beta * logsigmoid(-beta * log_ratio).mean()


@objective("idk", retain="ce", needs=("idk",))
def idk(batch: UnlearningBatch) -> Tensor:
    """Refusal training: cross-entropy of an "I don't know" answer (TOFU, arXiv 2401.06121, sec. 4)."""
    return batch.idk.cross_entropy
