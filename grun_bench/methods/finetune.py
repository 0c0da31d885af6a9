"""Fine-tuning on answers: target and retain models, task arithmetic and the relearning attack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

import torch
from torch import Tensor, nn

from grun_bench.methods.batch import Side
from grun_bench.methods.checkpoints import Checkpoint
from grun_bench.methods.loop import Schedule, optimise
from grun_bench.methods.order import shuffled_batches
from grun_bench.models.batch import Encoded, collate
from grun_bench.models.lm import LM
from grun_bench.tasks.task import FineTuning


def train_on_answers(
    lm: LM,
    parameters: Iterable[nn.Parameter],
    batches: Sequence[Sequence[Encoded]],
    schedule: Schedule,
    label: str,
    *,
    arithmetic: torch.dtype = torch.float32,
    term: str = "loss",
    checkpoint: Checkpoint | None = None,
) -> list[dict[str, float]]:
    """AdamW on the answers' cross-entropy, in nats, mean over the tokens of a batch; in place, in the mode set before.

    `parameters` are what may change. Small steps are lost on bfloat16 weights: keep those that change in fp32 and give
    the dtype of the `arithmetic`. Returns the loss of each step under the name `term`. Raises Diverged.
    """

    def losses(sequences: Sequence[Encoded]) -> dict[str, Tensor]:
        batch = collate(sequences, lm.pad_id).to(lm.device)
        # one block a pass: autocast keeps the weights' casts until its block ends, and they change with every step
        with torch.autocast(lm.device.type, arithmetic, enabled=arithmetic != torch.float32):
            return {term: Side(lm.model, batch).cross_entropy}

    return optimise(parameters, batches, losses, schedule, label, checkpoint=checkpoint)


def finetune(
    lm: LM, pairs: Sequence[tuple[str, str]], recipe: FineTuning, seed: int, label: str, dtype: str = "float32"
) -> None:
    """Full fine-tuning on answers, in place, with linear decay and arithmetic in `dtype`. Raises Diverged."""
    sequences = [lm.prompts.encode(*pair) for pair in pairs]
    batches = list(shuffled_batches(sequences, recipe.epochs, recipe.batch_size, Random(seed)))
    schedule = Schedule(recipe.lr, weight_decay=recipe.weight_decay, warmup=recipe.warmup)
    torch.manual_seed(seed)
    lm.model.train()
    train_on_answers(lm, lm.model.parameters(), batches, schedule, label, arithmetic=getattr(torch, dtype))
    lm.model.eval()
