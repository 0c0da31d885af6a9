"""All weights, or those of some layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from grun_bench.core.errors import Refused
from grun_bench.core.registry import adapter
from grun_bench.methods.adapters.base import Adapter, layer_index, swapped
from grun_bench.methods.parts import Part, part_of
from grun_bench.models.devices import unchangeable
from grun_bench.models.forward import decoder_layers


@adapter("full")
class Full(Adapter):
    """Every weight of the model, or those of some layers.

    `layers` are depths as in `reft` (empty: the whole model). `weights` keeps of them the parameters whose name
    contains it, as in `mlp.down_proj` (empty: all). `attach` raises Refused where no parameter is left.
    """

    changes_model = divides = True

    def __init__(self, *, layers: Sequence[float] = (), weights: str = "") -> None:
        self.layers, self.weights = layers, weights
        self._target: list[Tensor] | None = None
        self._parts: list[Part] = []

    def attach(self, model: PreTrainedModel) -> None:
        blocks = decoder_layers(model)
        chosen = sorted({layer_index(depth, len(blocks)) for depth in self.layers})
        within = [blocks[index] for index in chosen] or [model]
        self.first_layer = min(chosen, default=0)
        if reason := unchangeable(model):
            raise Refused(f"full trains the model's own weights, but {reason}.")
        model.requires_grad_(False)
        self._trained = [
            parameter for part in within for name, parameter in part.named_parameters() if self.weights in name
        ]
        if not self._trained:
            raise Refused(f"weights={self.weights}: no parameter of this model has that in its name.")
        for parameter in self._trained:
            parameter.requires_grad_(True)

    def trainable_parameters(self) -> list[nn.Parameter]:
        return self._trained

    def keep_target(self) -> None:
        """A copy of the weights that are going to change: there is no other way to have the target later."""
        self._target = [parameter.detach().clone() for parameter in self._trained]

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The target if `keep_target` was called; else the model as it is, the target until training starts."""
        if self._target is None:
            yield
            return
        with _written(self._parts, self._target) if self._parts else swapped(self._trained, self._target):
            yield

    @contextmanager
    def divided(self, of: Callable[[nn.Parameter], nn.Parameter]) -> Iterator[None]:
        whole = self._trained
        self._trained = [of(weight) for weight in whole]
        self._parts = [part for each in self._trained if (part := part_of(each))]
        try:
            yield
        finally:
            self._trained, self._parts = whole, []


@contextmanager
def _written(parts: Sequence[Part], values: Sequence[Tensor]) -> Iterator[None]:
    """Other values for divided weights within this block, written in place: passes collect them, and keep none."""
    with torch.no_grad():
        before = [part.held.clone() for part in parts]
        for part, value in zip(parts, values, strict=True):
            part.held.copy_(part.of(value))
    try:
        yield
    finally:
        with torch.no_grad():
            for part, value in zip(parts, before, strict=True):
                part.held.copy_(value)
