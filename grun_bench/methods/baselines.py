"""Unlearners that are not adapter x objective: the two models that every run compares with, and task arithmetic."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

import torch

from grun_bench.core.registry import unlearner
from grun_bench.core.settings import Count, Positive
from grun_bench.methods.base import FitContext, Fitted, Unlearner
from grun_bench.methods.finetune import train_on_answers
from grun_bench.methods.loop import Schedule
from grun_bench.methods.order import shuffled_batches
from grun_bench.methods.trained_weights import TrainedWeights


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


@unlearner("task-vector")
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

    @property
    def settings(self) -> dict[str, Any]:
        return asdict(self)

    def fit(self, context: FitContext) -> Fitted:
        lm = context.load_target()
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
