"""A process's part of a weight that is divided among several: as many rows of its first dimension as it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grun_bench.core import processes


@dataclass(frozen=True)
class Part:
    """`spread` is the weight as torch has it (a DTensor), of which `held` lies here, in the same memory."""

    spread: Any
    held: Tensor

    @property
    def shape(self) -> torch.Size:
        """That of the whole weight."""
        shape: torch.Size = self.spread.shape
        return shape

    def of(self, whole: Tensor) -> Tensor:
        """The part of another tensor of the weight's shape that is here."""
        rows = -(-len(whole) // processes.announced())
        return whole[rows * processes.rank() :][: len(self.held)]

    def whole(self, own: Tensor) -> Tensor:
        """A tensor of which each process has its part, `own` here."""
        from torch.distributed.tensor import DTensor

        spread = self.spread
        options: dict[str, Any] = {"run_check": False, "shape": spread.shape, "stride": spread.stride()}
        made = DTensor.from_local(own, spread.device_mesh, spread.placements, **options)
        full: Tensor = made.full_tensor()
        return full

    @staticmethod
    def held_of(spread: Any) -> Tensor:
        """What lies here of a divided tensor, as of a gradient."""
        held: Tensor = spread.to_local()
        return held


def part_of(weight: Tensor) -> Part | None:
    """This process's part of a weight; None of one that every process has whole."""
    if processes.count() == 1 or not hasattr(weight, "device_mesh"):
        return None
    return Part(weight, Part.held_of(weight.detach()))
