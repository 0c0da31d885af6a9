"""A model whose weights are divided among the processes of a run while all of them are trained: FSDP2.

Each process has a part of every weight, of its gradient and of what the optimiser keeps of it, and collects a decoder
block's weights while that block runs (Zhao et al. 2023, arXiv 2304.11277; torch's `fully_shard`). Before and after the
training each has the whole model, in the dtype that it computes in: so it is loaded, asked and saved as in one process.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from grun_bench.core import processes
from grun_bench.core.errors import Refused
from grun_bench.methods.frozen import RANDOM
from grun_bench.models.batch import Encoded, collate
from grun_bench.models.devices import cuda_devices
from grun_bench.models.forward import decoder_layers, evaluating, forward
from grun_bench.models.lm import LM


class Divided:
    """The parts of a model's weights, in a model of the same modules; the whole one has no numbers meanwhile."""

    def __init__(self, lm: LM) -> None:
        self._lm, self._whole = lm, lm.model
        same = {id(each): each for each in (*lm.model.parameters(), *lm.model.buffers())}
        self._parts: PreTrainedModel = copy.deepcopy(lm.model, same)
        _shard(self._parts, lm.device.type)
        spread = dict(self._parts.named_parameters())
        self._pairs = [(weight, spread[name]) for name, weight in lm.model.named_parameters()]
        self._spread = {id(weight): each for weight, each in self._pairs}
        self._empty()

    def of(self, weight: nn.Parameter) -> nn.Parameter:
        """What stands for a weight of the whole model."""
        return self._spread[id(weight)]

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Within this block the model is whole, with the numbers that it has now."""
        self.fill()
        try:
            yield
        finally:
            self._empty()

    @torch.no_grad()
    def fill(self) -> None:
        """From here on the model is whole."""
        for weight, spread in self._pairs:
            weight.data = spread.full_tensor()
        self._lm.model = self._whole

    def _empty(self) -> None:
        for weight, _ in self._pairs:
            weight.data = weight.data.new_empty(0)
        self._lm.model = self._parts

    def leave(self) -> None:
        """Where training failed, the model is left without numbers."""
        self._lm.model = self._whole


def _shard(model: PreTrainedModel, device: str) -> None:
    """Divide the weights of a model, block by block; gradients are sums over the processes, in float32."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device, (processes.count(),))
    for module in (*decoder_layers(model), model):
        # the target model runs between a forward pass and its backward pass, with other weights: nothing is kept
        policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
        fully_shard(module, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


@contextmanager
def divided(lm: LM, wanted: bool = True) -> Iterator[Divided | None]:
    """Within this block each process has a part of the model's weights, where there are several; None where not.

    An error leaves the model without numbers.
    """
    if processes.count() == 1 or not wanted:
        yield None
        return
    parts = Divided(lm)
    try:
        yield parts
        parts.fill()
    finally:
        parts.leave()


def check_chance(lm: LM, sequences: Sequence[Encoded]) -> None:
    """Raises Refused where several processes would draw otherwise than one: as where there is dropout in training."""
    if processes.count() == 1 or not sequences:
        return
    batch = collate(sequences[:1], lm.pad_id).to(lm.device)
    with evaluating(lm.model), torch.random.fork_rng(cuda_devices(lm.model)), torch.no_grad():
        lm.model.train()
        one, other = (forward(lm.model, batch).logits.float() for _ in range(2))
    # dropout beside the model, as lora's, shows only once something is trained there
    drops = any(isinstance(module, nn.Dropout) and module.p > 0 for module in lm.model.modules())
    if drops or (one - other).abs().sum() > RANDOM * one.abs().sum():
        raise Refused(
            f"something in the model is random in training, as dropout is, and {processes.count()} processes would "
            "draw otherwise than one: turn it off (lora: --set dropout=0), or start one process."
        )
