"""Fine-tuning on answers: target and retain models, task arithmetic and the relearning attack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random

import torch
from torch import Tensor, nn

from grun_bench.methods.batch import Side
from grun_bench.methods.checkpoints import Checkpoint
from grun_bench.methods.divided import check_chance, divided
from grun_bench.methods.loop import Schedule, optimise
from grun_bench.methods.order import shuffled_batches
from grun_bench.methods.trained_weights import TrainedWeights
from grun_bench.models.batch import Encoded, collate
from grun_bench.models.lm import LM
from grun_bench.tasks.task import FineTuning


def train_on_answers(
    lm: LM,
    parameters: Iterable[nn.Parameter] | TrainedWeights,
    batches: Sequence[Sequence[Encoded]],
    schedule: Schedule,
    label: str,
    *,
    term: str = "loss",
    checkpoint: Checkpoint | None = None,
    after_step: Callable[[int, int], None] | None = None,
) -> list[dict[str, float]]:
    """AdamW on the answers' cross-entropy, in nats, mean over the tokens of a batch; in place, in the mode set before.

    `parameters` are what may change. Returns the loss of each step under the name `term`; `after_step` is called as by
    `optimise`. Raises Diverged.
    """

    if lm.model.training:
        check_chance(lm, [each for batch in batches[:1] for each in batch])

    def losses(sequences: Sequence[Encoded]) -> dict[str, Tensor]:
        batch = collate(sequences, lm.pad_id).to(lm.device)
        return {term: Side(lm.model, batch).cross_entropy}

    return optimise(
        parameters,
        batches,
        losses,
        schedule,
        label,
        arithmetic=lm.model.dtype,
        checkpoint=checkpoint,
        after_step=after_step,
    )


def finetune(
    lm: LM,
    pairs: Sequence[tuple[str, str]],
    recipe: FineTuning,
    seed: int,
    label: str,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Full fine-tuning on answers, in place, with linear decay. Raises Diverged."""
    sequences = lm.encoded(pairs)
    batches = list(shuffled_batches(sequences, recipe.epochs, recipe.batch_size, Random(seed)))
    schedule = Schedule(recipe.lr, weight_decay=recipe.weight_decay, warmup=recipe.warmup, optimiser=recipe.optimiser)
    torch.manual_seed(seed)
    with divided(lm):
        lm.model.train()
        train_on_answers(lm, lm.model.parameters(), batches, schedule, label, checkpoint=checkpoint)
    lm.model.eval()
