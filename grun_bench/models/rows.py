"""A batch whose rows several processes run, each its own, and what they give, whole in all of them.

So a loss is one of the whole batch, whatever it is a mean over, and the same in every process. Its gradient goes back
into a process's own rows alone; summed over the processes it is the gradient.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from grun_bench.core import processes
from grun_bench.models.batch import Batch


def _bounds(rows: int) -> list[tuple[int, int]]:
    """The first row of each process, and where the next one's begin."""
    count = processes.count()
    return list(pairwise(rows * number // count for number in range(count + 1)))


def own_rows(batch: Batch) -> Batch:
    """The rows that this process runs; where there are not enough for all, one that does not count."""
    if processes.count() == 1:
        return batch
    start, end = _bounds(len(batch.labels))[processes.rank()]
    rows = slice(start, end) if end > start else slice(0, 1)
    return Batch(batch.input_ids[rows], batch.attention_mask[rows], batch.labels[rows], batch.prompt_end[rows])


def of_all(own: Tensor, lengths: Tensor) -> Tensor:
    """What all rows of a batch gave, in their order: `own` is what this process's gave, `lengths` how much of each."""
    if processes.count() == 1:
        return own
    sizes = [int(lengths[start:end].sum()) for start, end in _bounds(len(lengths))]
    gathered: Tensor = _OfAll.apply(own, sizes)
    return gathered


class _OfAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, sizes: list[int]) -> Tensor:
        ends = list(accumulate(sizes))
        number = processes.rank()
        ctx.part, ctx.count = slice(ends[number] - sizes[number], ends[number]), len(own)
        padded = own.new_zeros((max(sizes), *own.shape[1:]))
        padded[: sizes[number]] = own[: sizes[number]]
        parts = [torch.empty_like(padded) for _ in sizes]
        torch.distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        own = gradient[ctx.part]
        if len(own) == ctx.count:
            return own, None
        # the row that does not count
        return gradient.new_zeros((ctx.count, *gradient.shape[1:])), None
