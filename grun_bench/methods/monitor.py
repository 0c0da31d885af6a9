"""Evaluation during training: a small sample scored every so many steps, to be shown and never to be chosen by."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from grun_bench.methods.checkpoints import RandomState
from grun_bench.models.lm import LM

#: first rows of each scored set
ROWS = 16
#: what is measured on them
METRICS = ("probability", "rougeL_recall", "extraction_strength", "model_utility")


@dataclass
class Monitor:
    """Values of a model every `every` optimiser steps and after the last one, by step; 0 is the target model.

    `watch(step, values)` gets them as they are measured, and what it raises ends the training. Else training goes on as
    if nothing had been measured: the random numbers and the model's mode are put back.
    """

    every: int
    measure: Callable[[LM], dict[str, float | None]]
    values: dict[int, dict[str, float | None]] = field(default_factory=dict)
    watch: Callable[[int, dict[str, float | None]], None] | None = None
    #: what it is measured within: a model whose weights are divided is whole there
    whole: Callable[[], AbstractContextManager[None]] = nullcontext

    def look(self, lm: LM, step: int, total: int) -> None:
        """Measure the model if this step is one to be measured."""
        if step % self.every and step != total:
            return
        random = RandomState()
        before = random.state_dict()
        with self.whole():
            self.values[step] = self.measure(lm)
        random.load_state_dict(before)
        if self.watch is not None:
            self.watch(step, self.values[step])

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values = state["values"]
