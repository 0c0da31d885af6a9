"""The contract of adapters, and what several of them use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from grun_bench.core.errors import ModelError, UsageError
from grun_bench.core.settings import Bound, each
from grun_bench.models.lm import LM
from grun_bench.models.plain_calls import PlainCalls


def _is_depth(value: float) -> bool:
    """Whether a value could be a depth: whether a model has such a block is another matter."""
    return 0 < value <= 1 if isinstance(value, float) else value >= 0


#: a setting of one depth or more (see `layer_index`)
Depths = Annotated[Sequence[float], each(Bound("a share above 0 and up to 1 or the number of a block", _is_depth))]


class Adapter(ABC):
    """What may change of a model. `attach` is called once, before training."""

    #: True when `aux_loss` needs a forward pass over retain prompts even if the objective has no retain term
    needs_retain = False
    #: True when the model's own weights are what is trained, so that saving means the whole model
    changes_model = False
    #: the first decoder block whose output the adapter can change; known once it is attached
    first_layer = 0
    #: True when it changes hidden states at the last prompt token only (and what later layers make of that)
    edits_prompt_end = False
    #: True when what is trained lies beside every linear layer, whose inputs the backward pass then needs
    beside_linears = False
    #: what finds the prompts' ends in plain calls of the model, where it does that
    plain_calls: PlainCalls | None = None
    #: True when `save_plain` can write what it leaves as a model by itself
    merges = False
    #: True when its weights can be divided among several processes while they are trained (see `divided`)
    divides = False
    #: True when what it does to the model goes with `times`, or `at_strength` is its own
    has_strength = False
    #: False within `disabled`: what acts while the model runs asks it at each pass
    on = True
    #: what a change that is made while the model runs is multiplied by, if it `has_strength` (see `at_strength`)
    times = 1.0

    @property
    def frozen_blocks(self) -> int:
        """How many of the first decoder blocks give what they gave before training; known once it is attached.

        Their output is that of the block itself, before hooks on it.
        """
        return self.first_layer

    @property
    def buffer_bytes(self) -> int:
        """Bytes of what lies beside the model and is not trained; known once it is attached."""
        return 0

    @abstractmethod
    def attach(self, model: PreTrainedModel) -> None:
        """Freeze or wrap `model` in place, so that an ordinary call of it goes through the adapter."""

    def know(self, lm: LM) -> None:  # noqa: B027
        """Called once it is attached, with the tokenizer and the prompts of its model, for what reads texts."""

    @abstractmethod
    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters that the optimiser may change."""

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Within this block the model is the target again, without a second copy of it.

        It may be entered between a forward pass and its backward pass, so it must not write into weights in place. What
        changes the weights themselves has a way of its own; of hooks, which look at `on`, this is all.
        """
        self.on = False
        try:
            yield
        finally:
            self.on = True

    @contextmanager
    def at_strength(self, strength: float) -> Iterator[None]:
        """Within this block its change is made `strength` times: 0 gives the target model, 1 the unlearned one."""
        self.times = strength
        try:
            yield
        finally:
            self.times = 1.0

    def acts(self) -> bool:
        """Whether it is on, for what calls back."""
        return self.on

    def keep_target(self) -> None:  # noqa: B027
        """Called before training when the target model is needed during training, not only before it.

        Nothing to do for an adapter that leaves the base weights alone.
        """

    @contextmanager
    def divided(self, of: Callable[[nn.Parameter], nn.Parameter]) -> Iterator[None]:
        """Within this block `of` gives what stands for each weight, of which this process has a part."""
        raise TypeError(f"{type(self).__name__} says that it divides, and has no divided().")
        yield

    def next_stage(self) -> None:  # noqa: B027
        """Called before each request of a sequence is trained, the first one too; never for a single request.

        Nothing to do where training simply goes on from one request to the next.
        """

    def save(self, folder: Path) -> None:
        """Write what `load` needs into a folder, as safetensors. Raises UsageError where it cannot be kept apart."""
        raise UsageError(f"the adapter {type(self).__name__} has no save(); it cannot be kept apart from its model.")

    def load(self, model: PreTrainedModel, folder: Path) -> None:
        """Attach to `model` what `save` wrote, in place of `attach`. Raises ModelError for what does not fit."""
        raise UsageError(f"the adapter {type(self).__name__} has no load().")

    def save_plain(self, model: PreTrainedModel, *args: Any, **options: Any) -> None:
        """What `model.save_pretrained` is: the unlearned model without an adapter, with transformers' own arguments.

        Raises UsageError where there is none.
        """
        raise UsageError(
            f"what this model unlearned is not in its weights but beside them ({type(self).__name__}): transformers "
            "would write it without. `grun-bench run --save DIR` keeps both: copy DIR, or share it with "
            "grun_bench.push_to_hub(DIR, NAME); grun_bench.load(DIR) reads it."
        )

    def aux_loss(self, forget: dict[int, Tensor], retain: dict[int, Tensor]) -> dict[str, Tensor]:
        """Loss terms of the adapter itself, scalars with their weights, by name.

        They come from the gate logits, layer -> (batch,), on forget and on retain prompts.
        """
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
