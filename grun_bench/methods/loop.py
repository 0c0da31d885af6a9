"""The one optimiser loop: fine-tuning a target, unlearning, relearning and the embedded model all run through it."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from grun_bench.core.errors import Diverged
from grun_bench.core.progress import bar, say
from grun_bench.methods.checkpoints import Checkpoint, RandomState, Stateful

#: whatever `losses` makes loss terms of
Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Schedule:
    """Settings of the optimiser (AdamW).

    `warmup` is a share of all steps; `decay` is `linear` or `cosine`, to zero; `clip` bounds the gradient's norm;
    gradients of `accumulate` consecutive batches are averaged into one step.
    """

    lr: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: float = 0.0
    decay: Literal["linear", "cosine"] = "linear"
    clip: float = 1.0
    accumulate: int = 1

    def factor(self, step: int, total: int) -> float:
        """The learning rate of optimiser step `step` (from 0) of `total`, as a share of `lr`."""
        warm = round(self.warmup * total)
        if step < warm:
            return (step + 1) / warm
        share = (step - warm) / max(1, total - warm)
        return 1 - share if self.decay == "linear" else 0.5 * (1 + math.cos(math.pi * share))


def optimise(
    parameters: Iterable[nn.Parameter],
    batches: Sequence[Batch],
    losses: Callable[[Batch], dict[str, Tensor]],
    schedule: Schedule,
    label: str,
    *,
    checkpoint: Checkpoint | None = None,
    beside: Mapping[str, Stateful] = {},
    after_step: Callable[[int, int], None] | None = None,
) -> list[dict[str, float]]:
    """Minimise the sum of the losses over the batches, in their order (all epochs written out).

    `losses(batch)` gives named scalar terms, already weighted; their sum is optimised. Returns the terms of every
    optimiser step. Raises Diverged at the first loss that is not finite, before it touches the weights.

    With a `checkpoint` a training that was killed goes on where its last one was written, and ends with the same
    weights; `beside` is what else changes with the steps and must be kept for that. `after_step(step, total)` is called
    after each optimiser step, from 1.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trainable, lr=schedule.lr, betas=schedule.betas, weight_decay=schedule.weight_decay)
    total = math.ceil(len(batches) / schedule.accumulate)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: schedule.factor(step, total))
    parts: dict[str, Stateful] = {"optimiser": optimiser, "scheduler": scheduler, "random": RandomState(), **beside}
    state = _State(trainable, parts)
    if checkpoint is not None and (kept := checkpoint.begin()) is not None:
        state.load_state_dict(kept)
        say(f"{label}: goes on from step {len(state.history)} of {total}, which {checkpoint.path} kept.")
    with bar(label, total) as advance:
        if state.history:
            advance(len(state.history))
        for step in range(len(state.history), total):
            group = batches[step * schedule.accumulate : (step + 1) * schedule.accumulate]
            terms = _accumulate(group, losses, f"step {step + 1} of {total}")
            nn.utils.clip_grad_norm_(trainable, schedule.clip)
            optimiser.step()
            scheduler.step()
            optimiser.zero_grad(set_to_none=True)
            state.history.append(terms)
            advance(**terms)
            if after_step is not None:
                after_step(step + 1, total)
            if checkpoint is not None:
                checkpoint.offer(state.state_dict)
    return state.history


@dataclass
class _State:
    """All that changes with the steps of a training."""

    parameters: Sequence[nn.Parameter]
    parts: Mapping[str, Stateful]
    history: list[dict[str, float]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        kept = {name: part.state_dict() for name, part in self.parts.items()}
        values = [parameter.detach() for parameter in self.parameters]
        return kept | {"parameters": values, "history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for parameter, value in zip(self.parameters, state["parameters"], strict=True):
            parameter.data.copy_(value)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.history += state["history"]


def _accumulate(batches: Sequence[Batch], losses: Callable[[Batch], dict[str, Tensor]], where: str) -> dict[str, float]:
    """Gradients of the mean over the batches of the summed losses; returns each term's mean. Raises Diverged."""
    terms: dict[str, float] = {}
    for batch in batches:
        parts = losses(batch)
        for name, value in parts.items():
            terms[name] = terms.get(name, 0.0) + value.item() / len(batches)
        if not all(math.isfinite(value) for value in terms.values()):
            shown = ", ".join(f"{name} {value:g}" for name, value in terms.items())
            raise Diverged(f"the loss is not finite at {where} ({shown}); lower lr or the weights.")
        (reduce(operator.add, parts.values()) / len(batches)).backward()
    return terms
