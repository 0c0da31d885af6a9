"""Adapters: what of the model may change.

`full` all weights, `lora` low-rank updates of the linear layers, `reft` low-rank edits of hidden states, `grun` the
same edits behind a gate. An adapter knows nothing of objectives; its options are its constructor's keyword parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Cache

from grun_bench.core.errors import ModelError, UsageError
from grun_bench.core.registry import adapter
from grun_bench.models.forward import current_call, decoder_layers


class Adapter(ABC):
    """The contract of adapters. `attach` is called once, before training."""

    #: True when `aux_loss` needs a forward pass over retain prompts even if the objective has no retain term
    needs_retain = False
    #: True when the model's own weights are what is trained, so that saving means the whole model
    changes_model = False
    #: the first decoder block whose output the adapter can change; known once it is attached
    first_layer = 0
    #: True when it changes hidden states at the last prompt token only (and what later layers make of that)
    edits_prompt_end = False

    @property
    def frozen_blocks(self) -> int:
        """How many of the first decoder blocks give what they gave before training; known once it is attached.

        Their output is that of the block itself, before hooks on it.
        """
        return self.first_layer

    @abstractmethod
    def attach(self, model: nn.Module) -> None:
        """Freeze or wrap `model` in place, so that an ordinary call of it goes through the adapter."""

    @abstractmethod
    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters that the optimiser may change."""

    @abstractmethod
    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Within this block the model is the target again, without a second copy of it.

        It may be entered between a forward pass and its backward pass, so it must not write into weights in place.
        """

    def keep_target(self) -> None:  # noqa: B027
        """Called before training when the target model is needed during training, not only before it.

        Nothing to do for an adapter that leaves the base weights alone.
        """

    def next_stage(self) -> None:  # noqa: B027
        """Called before each request of a sequence is trained, the first one too; never for a single request.

        Nothing to do where training simply goes on from one request to the next.
        """

    def save(self, folder: Path) -> None:
        """Write what `load` needs into a folder, as safetensors."""
        raise UsageError(f"the adapter {type(self).__name__} has no save(); it cannot be kept apart from its model.")

    def load(self, model: nn.Module, folder: Path) -> None:
        """Attach to `model` what `save` wrote, in place of `attach`."""
        raise UsageError(f"the adapter {type(self).__name__} has no load().")

    def aux_loss(self, forget: dict[int, Tensor], retain: dict[int, Tensor]) -> dict[str, Tensor]:
        """Loss terms of the adapter itself, from the gate logits (layer -> (batch,)) on forget and retain prompts."""
        return {}


@contextmanager
def swapped(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> Iterator[None]:
    """Other values for parameters within this block. Pointers change hands, so graphs built before stay valid."""
    before = [parameter.data for parameter in parameters]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data = value
    try:
        yield
    finally:
        for parameter, value in zip(parameters, before, strict=True):
            parameter.data = value


@adapter("full")
class Full(Adapter):
    """Every weight of the model, or those of some layers.

    `layers` are depths as in `reft` (empty: the whole model). `weights` keeps of them the parameters whose name
    contains it, as in `mlp.down_proj` (empty: all).
    """

    changes_model = True

    def __init__(self, *, layers: Sequence[float] = (), weights: str = "") -> None:
        self.layers, self.weights = layers, weights
        self._target: list[Tensor] | None = None

    def attach(self, model: nn.Module) -> None:
        blocks = decoder_layers(model)
        chosen = sorted({layer_index(depth, len(blocks)) for depth in self.layers})
        within = [blocks[index] for index in chosen] or [model]
        self.first_layer = min(chosen, default=0)
        model.requires_grad_(False)
        self._trained = [
            parameter for part in within for name, parameter in part.named_parameters() if self.weights in name
        ]
        if not self._trained:
            raise UsageError(f"weights={self.weights}: no parameter of this model has that in its name.")
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
        with swapped(self._trained, self._target) if self._target is not None else nullcontext():
            yield


@adapter("lora")
class Lora(Adapter):
    """Low-rank updates of the linear layers (Hu et al. 2021), through peft.

    Defaults are the baseline of the GRUN paper's code: rank 4, alpha 32, dropout 0.05, all linear layers but the
    vocabulary head.
    """

    def __init__(self, *, rank: int = 4, alpha: float = 32.0, dropout: float = 0.05) -> None:
        self.rank, self.alpha, self.dropout = rank, alpha, dropout

    def attach(self, model: nn.Module) -> None:
        import torch.distributed.tensor  # noqa: F401  (peft 0.21 reads it without importing it)
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules="all-linear")
        self.peft = get_peft_model(model, config)

    def save(self, folder: Path) -> None:
        self.peft.save_pretrained(folder, safe_serialization=True)

    def load(self, model: nn.Module, folder: Path) -> None:
        import torch.distributed.tensor  # noqa: F401
        from peft import PeftModel

        # by its own loader a pickle would be read where the safetensors are missing
        load_tensors(folder / "adapter_model.safetensors")
        self.peft = PeftModel.from_pretrained(model, folder)

    def trainable_parameters(self) -> list[nn.Parameter]:
        return [parameter for name, parameter in self.peft.named_parameters() if "lora_" in name]

    @contextmanager
    def disabled(self) -> Iterator[None]:
        with self.peft.disable_adapter():
            yield


class Rotation(nn.Module):
    """R^T of LoReFT: a (hidden, rank) matrix with orthonormal columns, in fp32."""

    def __init__(self, hidden: int, rank: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden, rank))
        nn.init.orthogonal_(self.weight)


class Edit(nn.Module):
    """The edit of one layer's hidden state: h' = h + s(h) R^T (W h + b - R h).

    LoReFT (Wu et al. 2024, arXiv 2404.03592, eq. 2) with s = 1; gated by s = sigmoid(g(h)) in GRUN (arXiv 2502.17823).
    R is fp32 with orthonormal rows; W, b and the gate g have the base model's dtype.
    """

    def __init__(self, hidden: int, rank: int, dtype: torch.dtype, gate: nn.Module | None) -> None:
        super().__init__()
        self.rotation = nn.utils.parametrizations.orthogonal(Rotation(hidden, rank))
        self.source = nn.Linear(hidden, rank, dtype=dtype)
        self.gate = gate

    def forward(self, states: Tensor, onto: Tensor | None = None, factor: float = 1.0) -> tuple[Tensor, Tensor | None]:
        """(batch, hidden) -> edited states, and gate logits (batch,) or None.

        The change, `factor` times, is added to `onto` (the states themselves where None) and has its shape and dtype.
        """
        onto, rotation = states if onto is None else onto, self.rotation.weight
        shift = (self.source(states) - states.to(rotation.dtype) @ rotation) @ rotation.T
        if self.gate is None:
            return (onto + factor * shift).to(onto.dtype), None
        logits = self.gate(states)
        return (onto + factor * shift * torch.sigmoid(logits)).to(onto.dtype), logits.squeeze(-1)


def make_gate(hidden: int, widths: Sequence[int], dtype: torch.dtype) -> nn.Module:
    """The gate's logit from a hidden state: hidden -> `widths` with ReLU -> 1; without widths one linear map."""
    sizes = [hidden, *widths, 1]
    maps = [nn.Linear(*pair, dtype=dtype) for pair in pairwise(sizes)]
    if len(maps) == 1:
        return maps[0]
    return nn.Sequential(*(module for each in maps[:-1] for module in (each, nn.ReLU())), maps[-1])


@adapter("reft")
class Reft(Adapter):
    """LoReFT edits without a gate, at the last prompt token (arXiv 2404.03592).

    `layers` are depths: a float in (0, 1] is a share of the layers (0.65 of 32 is block 20, 1.0 the last block), an
    integer the 0-based block whose output is edited.
    """

    edits_prompt_end = True

    def __init__(self, *, rank: int = 4, layers: Sequence[float] = (0.65, 0.8, 1.0)) -> None:
        self.rank, self.layers = rank, layers
        #: for each request its edits, by layer; more than one only where later requests add their own
        self.stages = nn.ModuleList()
        self._on = True
        self._positions: Tensor | None = None

    @property
    def frozen_blocks(self) -> int:
        """The edits act on outputs, so the first edited block itself is frozen too."""
        return self.first_layer + 1

    @property
    def edits(self) -> nn.ModuleDict:
        """Layer -> the edit that is trained, the latest request's."""
        return self.stages[-1]

    def _make_gate(self, hidden: int, dtype: torch.dtype) -> nn.Module | None:
        return None

    def attach(self, model: nn.Module) -> None:
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        self._model, blocks = model, decoder_layers(model)
        self._indices = sorted({layer_index(depth, len(blocks)) for depth in self.layers})
        self.first_layer = self._indices[0]
        self._add_edits()
        for index in self._indices:
            blocks[index].register_forward_hook(self._hook(index))
        model.register_forward_pre_hook(self._locate, with_kwargs=True)

    def _add_edits(self) -> None:
        """Fresh edits of all layers, to be trained from now on."""
        blocks, dtype = decoder_layers(self._model), self._model.dtype
        hidden, edits = self._model.config.get_text_config().hidden_size, nn.ModuleDict()
        for index in self._indices:
            weight = next(parameter for parameter in blocks[index].parameters() if parameter.is_floating_point())
            edits[str(index)] = Edit(hidden, self.rank, dtype, self._make_gate(hidden, dtype)).to(weight.device)
        self.stages.append(edits)

    def _edit(self, index: int, states: Tensor) -> tuple[Tensor, Tensor | None]:
        """States of the last prompt tokens, edited, and the gate logits that the call is told."""
        return self.edits[str(index)](states)

    def _locate(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Where a forward pass edits that `calling` does not tell: the last attended column of a prefill."""
        if current_call() is not None:
            return
        # by its type: `generate` hands it over as past_key_values, in newer transformers as cache
        cache = next((value for value in kwargs.values() if isinstance(value, Cache)), None)
        if cache is not None and cache.get_seq_length() > 0:
            self._positions = None
            return
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        mask = kwargs.get("attention_mask")
        if mask is None:
            mask = torch.ones_like(ids)
        columns = torch.arange(ids.shape[1], device=ids.device)
        self._positions = (mask * columns).argmax(dim=1)

    def _hook(self, index: int) -> Any:
        def hook(block: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            call = current_call()
            # a pass that runs again in the backward pass is known by its call alone: others have begun since
            where = self._positions if call is None else call.prompt_end
            if not self._on or where is None:
                return output
            states = output[0] if isinstance(output, tuple) else output
            rows = torch.arange(len(states), device=states.device)
            positions = where.to(states.device)
            edited, logits = self._edit(index, states[rows, positions])
            if call is not None and logits is not None:
                call.gates[index] = logits
            states = states.clone()
            states[rows, positions] = edited
            return (states, *output[1:]) if isinstance(output, tuple) else states

        return hook

    def save(self, folder: Path) -> None:
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.stages.state_dict().items()}
        save_file(tensors, folder / "adapter.safetensors")

    def load(self, model: nn.Module, folder: Path) -> None:
        self.attach(model)
        path = folder / "adapter.safetensors"
        tensors = load_tensors(path)
        count = len({name.split(".")[0] for name in tensors})
        for _ in range(count if count > 1 else 0):
            self.next_stage()
        try:
            self.stages.load_state_dict(tensors)
        except RuntimeError as error:
            raise ModelError(f"{path} does not fit this model: {' '.join(str(error).split())[:200]}") from None

    def trainable_parameters(self) -> list[nn.Parameter]:
        return list(self.edits.parameters())

    @contextmanager
    def disabled(self) -> Iterator[None]:
        self._on = False
        try:
            yield
        finally:
            self._on = True


@adapter("grun")
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
        rank: int = 4,
        layers: Sequence[float] = (0.65, 0.8, 1.0),
        gate: str = "mlp",
        gate_widths: Sequence[int] = (256, 64),
        gate_weight: float = 10.0,
        stage_factor: Sequence[float] = (0.6, 0.6),
    ) -> None:
        super().__init__(rank=rank, layers=layers)
        if gate not in ("linear", "mlp"):
            raise UsageError(f"gate={gate}: choose linear or mlp.")
        if not gate_widths or not all(isinstance(width, int) and width > 0 for width in gate_widths):
            raise UsageError(f"gate_widths={list(gate_widths)}: whole numbers above 0 are needed, as in [256, 64].")
        if len(stage_factor) != 2:
            raise UsageError(f"stage_factor={list(stage_factor)}: two numbers are needed, c and d, as in [0.6, 0.6].")
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
            edited, of_stage = edits[str(index)](states, edited, self.factor)
            logits.append(of_stage)
        told = logits[-1] if torch.is_grad_enabled() else torch.stack(logits).amax(0)
        return edited.to(states.dtype), told

    def aux_loss(self, forget: dict[int, Tensor], retain: dict[int, Tensor]) -> dict[str, Tensor]:
        bce = nn.functional.binary_cross_entropy_with_logits
        terms = [bce(logits.float(), torch.ones_like(logits, dtype=torch.float32)) for logits in forget.values()]
        terms += [bce(logits.float(), torch.zeros_like(logits, dtype=torch.float32)) for logits in retain.values()]
        return {"gate": self.gate_weight * torch.stack(terms).mean()}


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises ModelError for anything else, whatever its name says."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a safetensors file ({error}).") from None


def layer_index(depth: float, layers: int) -> int:
    """The 0-based decoder block of a depth: floor(depth x layers) for a share, the last one for 1.0.

    An integer is itself. Raises UsageError when there is no such block.
    """
    if isinstance(depth, int) and not isinstance(depth, bool) and 0 <= depth < layers:
        return depth
    if isinstance(depth, float) and 0 < depth <= 1:
        return min(int(depth * layers), layers - 1)
    raise UsageError(f"layers: {depth} is not a depth in (0, 1] nor a block of this model (0 to {layers - 1}).")
