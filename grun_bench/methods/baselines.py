"""Unlearners that are not adapter x objective: the models that every run compares with, task arithmetic, steering."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Annotated, Any

import torch

from grun_bench.core.errors import Refused
from grun_bench.core.ranges import Choice, Range, times
from grun_bench.core.registry import unlearner
from grun_bench.core.settings import Bound, Count, Positive, options_of, within
from grun_bench.methods.adapters.guard import Guard
from grun_bench.methods.adapters.outside import hand_over
from grun_bench.methods.base import FitContext, Fitted, Unlearner
from grun_bench.methods.clusters import activations, clusters_of
from grun_bench.methods.finetune import train_on_answers
from grun_bench.methods.loop import Schedule
from grun_bench.methods.order import shuffled_batches
from grun_bench.methods.trained_weights import TrainedWeights
from grun_bench.models.devices import unchangeable
from grun_bench.models.sentences import pinned_sentences


@unlearner("none", role="target")
class Target(Unlearner):
    """The target model as it is: the row to improve on."""

    seeded = sequential = False

    def fit(self, context: FitContext) -> Fitted:
        return Fitted(context.load_target())


@unlearner("retain", role="retain model")
class RetainModel(Unlearner):
    """The oracle: a model that was trained without the forget set."""

    seeded = sequential = False

    def fit(self, context: FitContext) -> Fitted:
        return Fitted(context.load_retain_model())


@unlearner(
    "task-vector",
    searched={
        "lr": times(0.1, 10),
        "epochs": times(0.5, 2),
        "batch_size": times(0.5, 2),
        "scale": Range(0.1, 3, log=True),
    },
)
@dataclass(kw_only=True)
class TaskVector(Unlearner):
    """Task arithmetic: subtract `scale` times what fine-tuning on the forget set adds (Ilharco et al. 2023).

    theta0 - scale (theta_finetuned - theta0), arXiv 2212.04089, sec. 2; the retain set is not used. Twice the memory of
    the model while it runs.
    """

    lr: Positive = 1e-5
    epochs: Count = 5
    batch_size: Count = 32
    scale: float = 1.0

    changes_model = True

    @property
    def settings(self) -> dict[str, Any]:
        return asdict(self)

    def fit(self, context: FitContext) -> Fitted:
        lm = context.load_target()
        if reason := unchangeable(lm.model):
            raise Refused(f"task-vector changes the model's own weights, but {reason}.")
        start = time.perf_counter()
        weights = TrainedWeights(lm.model.requires_grad_(True).parameters())
        before = [value.detach().clone() for value in weights.values]
        sequences = lm.encoded(context.forget)
        batches = list(shuffled_batches(sequences, self.epochs, self.batch_size, Random(context.seed)))
        torch.manual_seed(context.seed)
        lm.model.train()
        history = train_on_answers(
            lm,
            weights,
            batches,
            Schedule(self.lr),
            "fine-tuning on the forget set",
            term="forget",
            checkpoint=context.checkpoint,
        )
        lm.model.eval()
        with torch.no_grad():
            for value, old in zip(weights.values, before, strict=True):
                value.copy_(old - self.scale * (value - old))
        weights.write()
        return Fitted(lm, sum(map(torch.numel, weights.values)), context.seconds_since(start), history=history)


def _is_range(counts: Sequence[int]) -> bool:
    return len(counts) == 2 and all(isinstance(count, int) for count in counts) and 2 <= counts[0] <= counts[1]


@unlearner(
    "guard",
    searched={
        "layer": Range(0.1, 0.75),
        "strength": Range(0.25, 4, log=True),
        "threshold": Range(0.3, 0.9),
        "clusters": Choice(([2, 5], [2, 10], [2, 20], [2, 40])),
    },
)
@dataclass(kw_only=True)
class GuardIt(Unlearner):
    """Steering at inference, behind a router, without any training (GUARD-IT, arXiv 2605.12765).

    Forget texts are clustered by k-means on embeddings of their questions, with the number of clusters in `clusters`
    whose silhouette is best; `adapters/guard.py` says what is done with them. A further request adds its clusters. The
    router is a sentence-embedding model, as the paper's, where `router` names one; else the model's own states are it,
    which is ours. The value of `strength`, and that means leave a text's first token out, are ours too.
    """

    layer: float = 0.25
    strength: Positive = 1.0
    threshold: Annotated[float, within(-1, 1)] = 0.55
    router: str = ""
    clusters: Annotated[Sequence[int], Bound("[fewest, most], from 2", _is_range)] = (2, 20)
    batch_size: Count = 32

    beside = Guard

    @property
    def settings(self) -> dict[str, Any]:
        return asdict(self) | {"clusters": list(self.clusters), "router": self.router and pinned_sentences(self.router)}

    def fit(self, context: FitContext) -> Fitted:
        """Raises Refused without a retain set, ModelError for a router that cannot be had."""
        if not context.retain:
            raise Refused("guard steers away from what retain texts do not share, and this task has no retain set.")
        lm = context.load_target()
        options: dict[str, Any] = {name: getattr(self, name) for name in options_of(Guard)}
        if context.previous:
            guard: Guard = context.previous.state
        else:
            guard = Guard(**options)
            guard.attach(lm.model)
            hand_over(guard, lm)
        start = time.perf_counter()
        forget, retain = (activations(lm, guard, rows, self.batch_size) for rows in (context.forget, context.retain))
        guard.add(clusters_of(forget, retain, not self.router, (self.clusters[0], self.clusters[1]), context.seed))
        seconds = context.seconds_since(start)
        return Fitted(lm, seconds=seconds, adapter=guard, adapter_name="guard", options=options, state=guard)
