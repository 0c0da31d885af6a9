"""The loss of each token from the states before the vocabulary head, without keeping logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from grun_bench.models.engine import LOGIT_BYTES, Head, kind_of
from grun_bench.models.forward import evaluating


class _TokenLoss(torch.autograd.Function):
    """The head is frozen, so a token's loss has one gradient, that of its state: it is computed at once, while the
    token's logits are there, and kept in their place. The backward pass scales it, and runs the head not again."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, targets: Tensor, head: nn.Linear) -> Tensor:
        losses = torch.empty(len(states), dtype=torch.float32, device=states.device)
        gradients = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        size = max(1, LOGIT_BYTES[kind_of(states.device)] // (4 * head.out_features))
        for start in range(0, len(states), size):
            part = slice(start, start + size)
            log_p = head(states[part]).float().log_softmax(-1)
            target = targets[part, None]
            losses[part] = -log_p.gather(1, target)[:, 0]
            if gradients is not None:
                # d loss / d logits = p - 1 at the target
                p = log_p.exp_()
                p.scatter_add_(1, target, torch.full_like(target, -1, dtype=p.dtype))
                gradients[part] = p.to(head.weight.dtype) @ head.weight
        ctx.save_for_backward(gradients)
        return losses

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None, None]:
        (gradients,) = ctx.saved_tensors
        return (gradients * scale[:, None]).to(gradients.dtype), None, None


def token_losses(states: Tensor, targets: Tensor, head: nn.Linear) -> Tensor:
    """(tokens,) fp32 cross-entropy of `targets` (tokens,) under head(states), states being (tokens, hidden).

    The same numbers as from whole logits, for the memory of the states. `head` must be frozen.
    """
    return _TokenLoss.apply(states, targets, head)


def frozen_head(model: PreTrainedModel) -> nn.Linear | None:
    """The vocabulary head, if nothing of it is trained and the logits are its output as it is; None if they are not."""
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or any(parameter.requires_grad for parameter in head.parameters()):
        return None
    with torch.no_grad(), evaluating(model):
        return head if Head(model).plain else None
