"""Edits of hidden states behind a gate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, cast

import torch
from torch import Tensor, nn

from grun_bench.core.ranges import Searched, times
from grun_bench.core.registry import adapter
from grun_bench.core.settings import Count, NotNegative, at_least, each, one_of, whole
from grun_bench.methods.adapters.base import Depths
from grun_bench.methods.adapters.reft import Reft

#: where edits behind gates are searched: how far a step goes, and what the gates weigh
GATED: Searched = {"lr": times(0.1, 10), "gate_weight": times(0.1, 10)}


def make_gate(hidden: int, widths: Sequence[int], dtype: torch.dtype) -> nn.Module:
    """The gate's logit from a hidden state: hidden -> `widths` with ReLU -> 1; without widths one linear map."""
    sizes = [hidden, *widths, 1]
    maps = [nn.Linear(*pair, dtype=dtype) for pair in pairwise(sizes)]
    if len(maps) == 1:
        return maps[0]
    return nn.Sequential(*(module for each in maps[:-1] for module in (each, nn.ReLU())), maps[-1])


@adapter("grun", searched=GATED)
class Grun(Reft):
    """Gated LoReFT edits (GRUN, arXiv 2502.17823): the gate opens on forget prompts and stays shut on others.

    `gate` is `linear` (one linear map) or `mlp` (hidden -> `gate_widths` with ReLU -> 1). `gate_weight` scales the
    binary cross-entropy of the gates, forget prompts 1 and retain prompts 0, mean over layers and both sets.

    Of a sequence of requests each adds a module of its own, and those before it are frozen. n modules are combined as

        h' = h + (c n + d) sum_i sigmoid(g_i(h)) R_i^T (W_i h + b_i - R_i h),

    where `stage_factor` is [c, d]: [0.6, 0.6] in the official code (renjie3/GRUN @ b59fd78, which so has a factor of
    1.2 for the first of a sequence), [0, 1] for a plain sum. A single request has the factor 1. The official code
    trains every module on the target by itself and combines them for scoring; here the earlier ones act while a later
    one is trained, so that what is scored is what was trained.
    """

    needs_retain = True

    def __init__(
        self,
        *,
        rank: Count = 4,
        layers: Depths = (0.65, 0.8, 1.0),
        gate: Annotated[str, one_of("linear", "mlp")] = "mlp",
        gate_widths: Annotated[Sequence[int], each(whole(1))] = (256, 64),
        gate_weight: NotNegative = 10.0,
        stage_factor: Annotated[Sequence[float], each(at_least(0), 2)] = (0.6, 0.6),
    ) -> None:
        super().__init__(rank=rank, layers=layers)
        self.gate, self.gate_widths, self.gate_weight = gate, gate_widths, gate_weight
        self.stage_factor, self._requests = stage_factor, 0

    def _make_gate(self, hidden: int, dtype: torch.dtype) -> nn.Module:
        return make_gate(hidden, self.gate_widths if self.gate == "mlp" else (), dtype)

    def next_stage(self) -> None:
        """Freeze what was trained and add a module for the next request."""
        if self._requests:
            self.edits.requires_grad_(False)
            self._add_edits()
        self._requests += 1

    @property
    def factor(self) -> float:
        """c n + d of n requests in sequence; 1 for a single one."""
        slope, offset = self.stage_factor
        return slope * self._requests + offset if self._requests else 1.0

    def _edit(self, index: int, states: Tensor) -> tuple[Tensor, Tensor | None]:
        """All requests' edits; the gate logits are those of the trained module, in scoring the largest of all."""
        edited, logits = states.float(), []
        for edits in self.stages:
            edited, of_stage = cast(nn.ModuleDict, edits)[str(index)](states, edited, self.times * self.factor)
            logits.append(of_stage)
        told = logits[-1] if torch.is_grad_enabled() else torch.stack(logits).amax(0)
        return edited.to(states.dtype), told

    def aux_loss(self, forget: dict[int, Tensor], retain: dict[int, Tensor]) -> dict[str, Tensor]:
        bce = nn.functional.binary_cross_entropy_with_logits
        terms = [bce(logits, torch.ones_like(logits)) for logits in (each.float() for each in forget.values())]
        terms += [bce(logits, torch.zeros_like(logits)) for logits in (each.float() for each in retain.values())]
        return {"gate": self.gate_weight * torch.stack(terms).mean()}
