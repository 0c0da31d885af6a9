"""The one optimiser loop: fine-tuning a target, unlearning, relearning and the embedded model all run through it."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from grun_bench.core.errors import Diverged
from grun_bench.core.progress import bar, say
from grun_bench.core.signals import Postponed, postponed
from grun_bench.methods.checkpoints import Checkpoint, RandomState, Stateful
from grun_bench.methods.optimisers import USUAL
from grun_bench.methods.trained_weights import LossScale, TrainedWeights
from grun_bench.models.finite import HOLDS

#: what is of no use after the last step
_STEPPING = ("optimiser", "scheduler")
#: whatever `losses` makes loss terms of
Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Schedule:
    """Settings of the optimiser (AdamW, or one of `optimisers`).

    `warmup` is a share of all steps, of which the first has a rate of 0 with `warmup_from_zero`, else of one part;
    `decay` is `linear` or `cosine`, to zero, or `constant`; `clip` bounds the gradient's norm; gradients of
    `accumulate` consecutive batches are averaged into one step.
    """

    lr: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: float = 0.0
    warmup_from_zero: bool = False
    decay: str = "linear"
    clip: float = 1.0
    accumulate: int = 1
    optimiser: str = USUAL

    @property
    def of_optimiser(self) -> dict[str, Any]:
        """What `TrainedWeights.adamw` takes."""
        return {name: getattr(self, name) for name in ("lr", "betas", "weight_decay", "optimiser")}

    def factor(self, step: int, total: int) -> float:
        """The learning rate of optimiser step `step` (from 0) of `total`, as a share of `lr`."""
        warm = round(self.warmup * total)
        if step < warm:
            return (step if self.warmup_from_zero else step + 1) / warm
        share = (step - warm) / max(1, total - warm)
        return {"linear": 1 - share, "cosine": 0.5 * (1 + math.cos(math.pi * share)), "constant": 1.0}[self.decay]


def optimise(
    parameters: Iterable[nn.Parameter] | TrainedWeights,
    batches: Sequence[Batch],
    losses: Callable[[Batch], dict[str, Tensor]],
    schedule: Schedule,
    label: str,
    *,
    arithmetic: torch.dtype = torch.float32,
    checkpoint: Checkpoint | None = None,
    beside: Mapping[str, Stateful] = {},
    after_step: Callable[[int, int], None] | None = None,
    told: Callable[[Sequence[Mapping[str, float]]], None] | None = None,
) -> list[dict[str, float]]:
    """Minimise the sum of the losses over the batches, in their order (all epochs written out).

    `losses(batch)` gives named scalar terms, already weighted; their sum is optimised. Parameters below float32 are
    trained as `TrainedWeights` says; `arithmetic` is what the model computes in. Returns the terms of every optimiser
    step. Raises Diverged at the first loss that is not finite, before it touches the weights, and for weights that are
    not finite after the last step.

    With a `checkpoint` a training that was killed goes on where its last one was written, and ends with the same
    weights; `beside` is what else changes with the steps and must be kept for that. `after_step(step, total)` is called
    after each optimiser step, from 1, and `told` before it with the terms of all steps so far.
    """
    weights = parameters if isinstance(parameters, TrainedWeights) else TrainedWeights(parameters)
    optimiser, scale = weights.adamw(**schedule.of_optimiser), LossScale(arithmetic)
    total = math.ceil(len(batches) / schedule.accumulate)
    where = f"of {total}{HOLDS.get(arithmetic, '')}"
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: schedule.factor(step, total))
    drawn: dict[str, Stateful] = {"random": RandomState(), **beside}
    stepped = weights.optimiser_state(optimiser)
    state = _State(weights, {"optimiser": stepped, "scheduler": scheduler, "scale": scale, **drawn}, total)
    if checkpoint is not None and (kept := checkpoint.begin(state.fits)) is not None:
        state.load_state_dict(kept)
        say(f"{label}: goes on from step {len(state.history)} of {total}, which {checkpoint.path} kept.")
    # a signal to stop waits for the end of a step where that can be kept
    stops = postponed() if checkpoint is not None else nullcontext(Postponed())
    with bar(label, total) as advance, weights.gathering(), stops as stop:
        if state.history:
            advance(len(state.history))
        for step in range(len(state.history), total):
            group = batches[step * schedule.accumulate : (step + 1) * schedule.accumulate]
            run = partial(_accumulate, group, losses, weights, f"step {step + 1} {where}")
            terms = _scaled(run, scale, weights, drawn)
            weights.clip(schedule.clip)
            optimiser.step()
            weights.write()
            scheduler.step()
            optimiser.zero_grad(set_to_none=True)
            state.history.append(terms)
            advance(**terms)
            if told is not None:
                told(state.history)
            if after_step is not None:
                after_step(step + 1, total)
            if checkpoint is not None:
                _keep(checkpoint, state, stop, label)
    if not weights.are_finite():
        raise Diverged(f"the weights are not finite after step {total} {where}; lower lr or the weights of the loss.")
    return state.history


@dataclass
class _State:
    """All that changes with the `total` steps of a training."""

    weights: TrainedWeights
    parts: Mapping[str, Stateful]
    total: int
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def over(self) -> bool:
        return len(self.history) == self.total

    @property
    def _kind(self) -> dict[str, Any]:
        """What two states of one training have in common."""
        return {"total": self.total, "parameters": self.weights.shapes}

    def fits(self, state: dict[str, Any]) -> bool:
        """Whether this is a state of the same training."""
        over = len(state["history"]) == self.total
        return state["kind"] == self._kind and (over or state.keys() >= self.parts.keys())

    def state_dict(self) -> dict[str, Any]:
        """Without what only further steps need where there are none."""
        parts = {name: part for name, part in self.parts.items() if not (self.over and name in _STEPPING)}
        kept = {name: part.state_dict() for name, part in parts.items()}
        return kept | {"kind": self._kind, "parameters": self.weights.state_dict(), "history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weights.load_state_dict(state["parameters"])
        for name in self.parts.keys() & state.keys():
            self.parts[name].load_state_dict(state[name])
        self.history += state["history"]


def _keep(checkpoint: Checkpoint, state: _State, stop: Postponed, label: str) -> None:
    """Keep the state when it is time to, when the process is to stop, and for good after the last step."""
    stop.agree()
    if not (stop or state.over):
        checkpoint.offer(state.state_dict)
    elif checkpoint.write(state.state_dict()) and stop:
        done = f"{len(state.history)} of {state.total}"
        say(f"{label}: {stop} after step {done}, which {checkpoint.path} keeps; the same command goes on from there.")
    stop.deliver()


def _scaled(
    run: Callable[[float], dict[str, float]], scale: LossScale, weights: TrainedWeights, drawn: Mapping[str, Stateful]
) -> dict[str, float]:
    """`run` with the largest scale whose gradients are finite; they are the loss's own when it is over.

    What is run again must draw the same, and find what else changes with the steps, `drawn`, as it was.
    """
    before = deepcopy({name: part.state_dict() for name, part in drawn.items()}) if scale.factor > 1 else {}
    while True:
        terms = run(scale.factor)
        if scale.fits(weights.values):
            return terms
        for name, state in before.items():
            drawn[name].load_state_dict(state)


def _accumulate(
    batches: Sequence[Batch],
    losses: Callable[[Batch], dict[str, Tensor]],
    weights: TrainedWeights,
    where: str,
    scale: float,
) -> dict[str, float]:
    """Gradients, `scale` times, of the mean over the batches of the summed losses; returns each term's mean.

    A loss is of the whole batch in every process, and its gradient of those rows that the process ran: their sum is the
    gradient.

    Raises Diverged.
    """
    terms: dict[str, float] = {}
    for batch in batches:
        parts = losses(batch)
        for name, value in parts.items():
            terms[name] = terms.get(name, 0.0) + value.item() / len(batches)
        if not all(math.isfinite(value) for value in terms.values()):
            shown = ", ".join(f"{name} {value:g}" for name, value in terms.items())
            raise Diverged(f"the loss is not finite at {where} ({shown}); lower lr or the weights.")
        loss = reduce(operator.add, parts.values()) / len(batches)
        (loss if scale == 1 else scale * loss).backward()
        weights.collect()
    weights.add_up()
    return terms
