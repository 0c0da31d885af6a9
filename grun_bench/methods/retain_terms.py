"""Retain terms: what is added to an objective so that the retain set stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import kl_div, mse_loss

from grun_bench.core.errors import unknown
from grun_bench.core.settings import one_of
from grun_bench.methods.batch import Side

#: where hidden states are read: where an answer token is predicted, or at it
Positions = Annotated[str, one_of("predicting", "answer")]


@dataclass(frozen=True)
class RetainTerm:
    """A scalar loss of a retain batch, with what it needs (as objectives declare it); keywords are settings."""

    loss: Callable[..., Tensor]
    needs: tuple[str, ...] = ()


def retain_ce(retain: Side) -> Tensor:
    """Cross-entropy of the answers, in nats, mean over answer tokens."""
    return retain.cross_entropy


def retain_kl(retain: Side) -> Tensor:
    """KL(p0 || p) from the target model, in nats, mean over answer tokens."""
    log_p, log_p0 = retain.logits.log_softmax(-1), retain.target.logits.log_softmax(-1)
    return kl_div(log_p, log_p0, reduction="batchmean", log_target=True)


def retain_js(retain: Side) -> Tensor:
    """Jensen-Shannon divergence from the target model, in nats, mean over answer tokens (JensUn, arXiv 2509.02820)."""
    log_p, log_p0 = retain.logits.log_softmax(-1), retain.target.logits.log_softmax(-1)
    middle = torch.logaddexp(log_p, log_p0) - math.log(2)
    sides = [kl_div(middle, each, reduction="batchmean", log_target=True) for each in (log_p, log_p0)]
    return (sides[0] + sides[1]) / 2


def retain_hidden(retain: Side, *, layer: float = 1.0, positions: Positions = "predicting") -> Tensor:
    """Mean squared distance of hidden states from the target model's (RMU, arXiv 2403.03218, sec. 4)."""
    return mse_loss(retain.hidden(layer, positions), retain.target.hidden(layer, positions))


#: the retain terms that the setting `retain` names, each weighted by `retain_weight`
RETAIN_TERMS = {
    "ce": RetainTerm(retain_ce),
    "kl": RetainTerm(retain_kl, needs=("target",)),
    "js": RetainTerm(retain_js, needs=("target",)),
    "hidden": RetainTerm(retain_hidden, needs=("target", "hidden")),
}


def retain_term(name: str | None) -> RetainTerm | None:
    """The retain term of this name; None for none. Raises UsageError with the near names."""
    if name is None:
        return None
    if name not in RETAIN_TERMS:
        raise unknown("retain term", name, RETAIN_TERMS)
    return RETAIN_TERMS[name]
