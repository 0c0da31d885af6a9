"""Gradients of a model in memory: for which weights they are kept, and how large they are for a row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from grun_bench.models.batch import Batch
from grun_bench.models.devices import is_offloaded
from grun_bench.models.forward import evaluating, forward
from grun_bench.models.lm import LM


@contextmanager
def only(parameters: Sequence[nn.Parameter], others: Sequence[nn.Parameter]) -> Iterator[None]:
    """Within this block gradients are kept for `parameters` alone; afterwards for those for which they were."""
    before = [(parameter, parameter.requires_grad) for parameter in others]
    for parameter in others:
        parameter.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.grad = None
        for parameter, kept in before:
            parameter.requires_grad_(kept)


def gradient_norm(lm: LM, row: Batch) -> float | None:
    """Mean over a model's weight tensors of the 2-norm of a loss's gradient, of one row.

    The loss is the mean negative log-likelihood of the answer's tokens but for the last, the end of sequence, in nats.
    As OpenUnlearning @ d3d7cf9 (src/evals/metrics/mia/gradnorm.py, p = 2), without dropout. It takes a backward pass
    and the memory of a second copy of the weights. None where there is no such token; where the weights are quantised,
    in float16, whose gradients are rounded to zero, or elsewhere than where they run; or where it is not finite.
    """
    weights = list(lm.model.parameters())
    kinds = {weight.dtype for weight in weights}
    known = kinds <= {torch.float64, torch.float32, torch.bfloat16} and not is_offloaded(lm.model)
    if len(row.targets) < 2 or not known:
        return None
    with evaluating(lm.model), torch.enable_grad(), only(weights, weights):
        loss = cross_entropy(forward(lm.model, row.to(lm.device)).logits[:-1].float(), row.targets[:-1].to(lm.device))
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    norm = torch.stack([each.float().norm().cpu() for each in gradients if each is not None]).mean().item()
    return norm if math.isfinite(norm) else None
