"""Low-rank edits of hidden states at the last prompt token."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from grun_bench.core.errors import ModelError, Refused
from grun_bench.core.registry import adapter
from grun_bench.core.settings import Count
from grun_bench.methods.adapters.base import Adapter, Depths, layer_index, load_tensors
from grun_bench.methods.adapters.state import keep_in_state
from grun_bench.models.devices import device_of
from grun_bench.models.forward import current_call, decoder_layers
from grun_bench.models.plain_calls import PlainCalls
from grun_bench.models.prompt_ends import refuse
from grun_bench.models.quantised import is_quantised

#: the file of a saved model that has the edits
ADAPTER_FILE = "adapter.safetensors"


class Rotation(nn.Module):
    """R^T of LoReFT: a (hidden, rank) matrix with orthonormal columns, in fp32."""

    def __init__(self, hidden: int, rank: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden, rank))
        nn.init.orthogonal_(self.weight)


class Edit(nn.Module):
    """The edit of one layer's hidden state: h' = h + s(h) R^T (W h + b - R h).

    LoReFT (Wu et al. 2024, arXiv 2404.03592, eq. 2) with s = 1; gated by s = sigmoid(g(h)) in GRUN (arXiv 2502.17823).
    R is fp32 with orthonormal rows; W, b and the gate g have the base model's dtype, on a quantised base fp32.
    """

    def __init__(self, hidden: int, rank: int, dtype: torch.dtype, gate: nn.Module | None) -> None:
        super().__init__()
        self.rotation = Rotation(hidden, rank)
        nn.utils.parametrizations.orthogonal(self.rotation)
        self.source = nn.Linear(hidden, rank, dtype=dtype)
        self.gate = gate

    def forward(self, states: Tensor, onto: Tensor | None = None, factor: float = 1.0) -> tuple[Tensor, Tensor | None]:
        """(batch, hidden) -> edited states, and gate logits (batch,) or None.

        The change, `factor` times, is added to `onto` (the states themselves where None) and has its shape and dtype.
        """
        onto = states if onto is None else onto
        if self.gate is None:
            return (onto + factor * self.shift(states)).to(onto.dtype), None
        logits = self.logits(states)
        return (onto + factor * self.shift(states) * torch.sigmoid(logits)).to(onto.dtype), logits.squeeze(-1)

    def shift(self, states: Tensor) -> Tensor:
        """R^T (W h + b - R h) of states (..., hidden), in fp32."""
        rotation = self.rotation.weight
        source = self.source(states.to(self.source.weight.dtype))
        return (source - states.to(rotation.dtype) @ rotation) @ rotation.T

    def logits(self, states: Tensor) -> Tensor:
        """(..., 1) gate logits of states (..., hidden), for an edit that has a gate."""
        if self.gate is None:
            raise TypeError("this edit has no gate")
        return self.gate(states.to(self.source.weight.dtype))


@adapter("reft")
class Reft(Adapter):
    """LoReFT edits without a gate, at the last prompt token (arXiv 2404.03592).

    `layers` are depths: a float in (0, 1] is a share of the layers (0.65 of 32 is block 20, 1.0 the last block), an
    integer the 0-based block whose output is edited.
    """

    edits_prompt_end = True
    has_strength = True

    def __init__(self, *, rank: Count = 4, layers: Depths = (0.65, 0.8, 1.0)) -> None:
        self.rank, self.layers = rank, layers
        #: for each request its edits, by layer; more than one only where later requests add their own
        self.stages = nn.ModuleList()

    @property
    def frozen_blocks(self) -> int:
        """The edits act on outputs, so the first edited block itself is frozen too."""
        return self.first_layer + 1

    @property
    def buffer_bytes(self) -> int:
        return sum(each.nbytes for each in self.stages.buffers())

    @property
    def edits(self) -> nn.ModuleDict:
        """Layer -> the edit that is trained, the latest request's."""
        return cast(nn.ModuleDict, self.stages[-1])

    def _make_gate(self, hidden: int, dtype: torch.dtype) -> nn.Module | None:
        return None

    def attach(self, model: PreTrainedModel) -> None:
        hidden = model.config.get_text_config().hidden_size
        if self.rank > hidden:
            raise Refused(f"rank={self.rank}: this model's hidden states have {hidden} dimensions.")
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        self._model, blocks = model, decoder_layers(model)
        self._indices = sorted({layer_index(depth, len(blocks)) for depth in self.layers})
        self.first_layer = self._indices[0]
        self._add_edits()
        for index in self._indices:
            blocks[index].register_forward_hook(partial(self._edit_output, index))
        self._watch(model)
        keep_in_state(model, self.stages)

    def _add_edits(self) -> None:
        """Fresh edits of all layers, to be trained from now on."""
        blocks = decoder_layers(self._model)
        dtype = torch.float32 if is_quantised(self._model) else self._model.dtype
        hidden, edits = self._model.config.get_text_config().hidden_size, nn.ModuleDict()
        for index in self._indices:
            edit = Edit(hidden, self.rank, dtype, self._make_gate(hidden, dtype))
            edits[str(index)] = edit.to(device_of(blocks[index]))
        self.stages.append(edits)

    def _edit(self, index: int, states: Tensor) -> tuple[Tensor, Tensor | None]:
        """States of the last prompt tokens, edited, and the gate logits that the call is told."""
        return self.edits[str(index)](states, factor=self.times)

    def _watch(self, model: PreTrainedModel) -> None:
        """Learn of every call of the model where it edits."""
        self.plain_calls = PlainCalls(model, self.acts)

    def _edit_output(self, index: int, block: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """A forward hook of the decoder block `index`. Raises UsageError outside of a call of the whole model."""
        if not self.on:
            return output
        call = current_call()
        if call is None:
            refuse("the decoder was called without its model, which is told it")
        if call.prompt_end is None:
            return output
        states = output[0] if isinstance(output, tuple) else output
        rows = torch.arange(len(states), device=states.device) if call.rows is None else call.rows.to(states.device)
        positions = call.prompt_end.to(states.device)
        edited, logits = self._edit(index, states[rows, positions])
        if logits is not None:
            call.gates[index] = logits.to(call.prompt_end.device)
        states = states.clone()
        states[rows, positions] = edited
        return (states, *output[1:]) if isinstance(output, tuple) else states

    def save(self, folder: Path) -> None:
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.stages.state_dict().items()}
        save_file(tensors, folder / ADAPTER_FILE)

    def load(self, model: PreTrainedModel, folder: Path) -> None:
        self.attach(model)
        path = folder / ADAPTER_FILE
        tensors = load_tensors(path)
        count = len({name.split(".")[0] for name in tensors if "." in name})
        for _ in range(count if count > 1 else 0):
            self.next_stage()
        try:
            self.stages.load_state_dict(tensors)
        except RuntimeError as error:
            raise ModelError(f"{path} does not fit this model: {' '.join(str(error).split())[:200]}") from None

    def trainable_parameters(self) -> list[nn.Parameter]:
        return list(self.edits.parameters())
