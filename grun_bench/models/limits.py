"""How much runs at once: batches of like length, smaller ones when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from grun_bench.core import processes
from grun_bench.models.head import kind_of

T = TypeVar("T")

#: tokens of a forward pass and rows of a decoding batch to begin with where nothing is said, by kind of device: on CPUs
#: what suits their caches (more is no faster), on GPUs more than most hold, halved until it fits
TOKENS = {"cpu": 1024, "cuda": 2**18}
ROWS = {"cpu": 64, "cuda": 1024}


@dataclass
class Limits:
    """How much runs at once: input tokens of a pass, rows of a pass. Halved when memory runs out."""

    tokens: int
    rows: int
    #: whether somebody said how large batches are
    given: bool = False

    @classmethod
    def of(cls, device: torch.device, batch_size: int | None) -> Limits:
        """`batch_size` rows, or with None what suits the kind of device."""
        kind = kind_of(device)
        return cls(TOKENS[kind], ROWS[kind]) if batch_size is None else cls(2**31, batch_size, True)

    def parts(self, lengths: Sequence[int]) -> Iterator[slice]:
        """Cut ascending lengths into batches within the limits, padding included."""
        start = 0
        while start < len(lengths):
            end = start + 1
            while end < len(lengths) and end - start < self.rows and lengths[end] * (end - start + 1) <= self.tokens:
                end += 1
            yield slice(start, end)
            start = end

    def own_parts(self, lengths: Sequence[int]) -> Iterator[slice]:
        """The batches that this process runs: every so-manieth, as they are in one process, so that numbers are too.

        Where nobody said how large they are and there are fewer than processes, as on a GPU that holds all rows,
        smaller ones.
        """
        count = processes.count()
        if count == 1:
            yield from self.parts(lengths)
            return
        cut = [*self.parts(lengths)]
        if len(cut) < count and not self.given:
            size = -(-len(lengths) // count)
            cut = [slice(start, min(start + size, len(lengths))) for start in range(0, len(lengths), size)]
        yield from processes.own(cut)

    def fit(self, run: Callable[[list[T]], None], items: list[T]) -> None:
        """Run a batch; out of memory, halve the limits and run it in two parts. A failed `run` must leave no trace.

        Raises torch.OutOfMemoryError where a single item does not fit.
        """

        def done() -> bool:
            run(items)
            return True

        if self.attempt(done, len(items)):
            return
        half = len(items) // 2
        self.fit(run, items[:half])
        self.fit(run, items[half:])

    def attempt(self, run: Callable[[], T], count: int) -> T | None:
        """What `run` gives for `count` items; None, with the limits halved, when memory runs out for several."""
        try:
            return run()
        except torch.OutOfMemoryError:
            if count == 1:
                raise
        # outside the handler, so that the failed pass's tensors are free
        self.tokens, self.rows = max(1, self.tokens // 2), max(1, self.rows // 2)
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        return None
