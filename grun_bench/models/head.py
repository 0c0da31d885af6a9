"""The vocabulary head: applied to chosen positions a few rows at a time, and what is read off its logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from grun_bench.models.devices import device_of, present
from grun_bench.models.forward import calling, evaluating
from grun_bench.models.kernels import fast_linears

#: bytes of vocabulary logits in fp32 that exist at a time, by kind of device
LOGIT_BYTES = {"cpu": 16 * 2**20, "cuda": 256 * 2**20}


def kind_of(device: torch.device) -> str:
    """The kind of device in the tables of sizes above."""
    return "cpu" if device.type == "cpu" else "cuda"


@dataclass
class TokenScores:
    """Per token of a continuation: natural-log probability, the model's argmax, and, where asked for, the mean and the
    standard deviation of the log probability under the model's own distribution."""

    logprobs: list[float] = field(default_factory=list)
    argmax: list[int] = field(default_factory=list)
    means: list[float] = field(default_factory=list)
    deviations: list[float] = field(default_factory=list)


class Head:
    """The vocabulary head, applied to chosen positions and a few rows at a time.

    While the model runs, its head gets no rows; the hidden states that it would have got are kept and put through it
    afterwards in chunks. Models that do more after the head than casting (soft caps, scales) are found out by a trial
    at the start; theirs runs inside the model, on the chosen positions.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._module = model.get_output_embeddings()
        self.plain = False
        # not the token 0: where that is the padding token, its embedding may be zero and tell nothing
        ids = torch.arange(1, 9, device=device_of(model))[None]
        with calling(None), self.keeping(torch.ones_like(ids, dtype=torch.bool)) as kept:
            own = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits.float()
        self.vocabulary = own.shape[-1]
        # the same operation on the same numbers; not always equal to the bit, since sums depend on memory alignment
        tolerance = 1e-5 if self._module.weight.dtype == torch.float32 else 1e-2
        difference = (self._module(kept[0]).float().to(own.device) - own).abs().max()
        self.plain = bool(difference <= tolerance * own.abs().max())

    @contextmanager
    def keeping(self, chosen: Tensor) -> Iterator[list[Tensor]]:
        """Within this block the list receives the hidden states (chosen, hidden) of a forward pass."""
        kept: list[Tensor] = []

        def select(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
            kept.append(args[0][chosen.to(args[0].device)])
            return (kept[0][:0] if self.plain else kept[0],)

        handle = self._module.register_forward_pre_hook(select)
        try:
            yield kept
        finally:
            handle.remove()

    def logits(self, kept: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """fp32 logits of a few rows at a time. `kept`: (rows, hidden), or logits where the head is not plain."""
        size = max(1, LOGIT_BYTES[kind_of(kept.device)] // (4 * self.vocabulary))
        for start in range(0, len(kept), size):
            rows = kept[start : start + size]
            if self.plain:
                with fast_linears(kept.device):
                    rows = self._module(rows)
            yield slice(start, start + size), rows.float().to(kept.device)

    def argmax(self, kept: Tensor) -> list[int]:
        """The likeliest token after each row."""
        return [token for _, logits in self.logits(kept) for token in logits.argmax(-1).tolist()]

    def statistics(self, kept: Tensor, targets: Tensor, moments: Tensor) -> Statistics:
        """Statistics of the distributions after `kept`, of `targets` (rows, k); moments where `moments` (rows,)."""
        targets, moments = targets.to(kept.device), moments.to(kept.device)
        # made before: small tensors that stay, between large ones that go, would leave holes in memory that fit none
        chosen = torch.empty(targets.shape, device=kept.device)
        argmax = torch.empty(len(kept), dtype=torch.long, device=kept.device)
        means, deviations = torch.full((2, len(kept)), torch.nan, device=kept.device)
        for rows, logits in self.logits(kept):
            argmax[rows] = logits.argmax(-1)
            # on CPUs log_softmax takes a tenth of the time of logsumexp
            logprobs = logits.log_softmax(-1)
            del logits
            chosen[rows] = logprobs.gather(-1, targets[rows])
            if (wanted := moments[rows]).any():
                found = _moments(logprobs if wanted.all() else logprobs[wanted])
                means[rows][wanted], deviations[rows][wanted] = found
            del logprobs
        return Statistics(*(values.tolist() for values in (chosen, argmax, means, deviations)))


@dataclass
class Statistics:
    """Per row: log-probabilities of the targets asked for, the argmax, mean and deviation of the log probability."""

    logprobs: list[list[float]]
    argmax: list[int]
    means: list[float]
    deviations: list[float]

    def write(self, to: TokenScores, rows: Sequence[int], columns: Sequence[int], start: int, moments: bool) -> None:
        """Write the targets at these rows and columns as the scores of a continuation's tokens from `start` on."""
        to.logprobs[start:] = [self.logprobs[row][column] for row, column in zip(rows, columns, strict=True)]
        to.argmax[start:] = [self.argmax[row] for row in rows]
        if moments:
            to.means[start:] = [self.means[row] for row in rows]
            to.deviations[start:] = [self.deviations[row] for row in rows]


def _moments(logprobs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each row (rows, vocabulary) under its own distribution. Overwrites the rows."""
    probs = logprobs.exp()
    # products of a row and a column: no third tensor of the vocabulary's size
    mean = (probs[:, None] @ logprobs[:, :, None])[:, 0, 0]
    squares = logprobs.sub_(mean[:, None]).square_()
    return mean, (probs[:, None] @ squares[:, :, None])[:, 0, 0].sqrt()


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
            log_p = linear(states[part], head.weight, head.bias).float().log_softmax(-1)
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
    place = device_of(head)
    with present(head):
        return _TokenLoss.apply(states.to(place), targets.to(place), head).to(states.device)


def frozen_head(model: PreTrainedModel) -> nn.Linear | None:
    """The vocabulary head, if nothing of it is trained and the logits are its output as it is; None if they are not."""
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or any(parameter.requires_grad for parameter in head.parameters()):
        return None
    with torch.no_grad(), evaluating(model):
        return head if Head(model).plain else None
