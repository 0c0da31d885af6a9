"""The one way in which everything calls a model, and what may be changed of its decoder blocks while it runs.

Every forward pass of the project goes through `forward` (or, in generation, `calling`). It tells adapters where the
prompts end and collects the values of their gates, so neither training nor scoring knows which adapter is attached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from grun_bench.models.batch import Batch
from grun_bench.models.kv_cache import Before, KeyValues, cache_argument


@dataclass
class Call:
    """One forward pass as adapters see it.

    `prompt_end`: (batch,) int64 index of the last prompt token, or None to edit nothing. `gates`: filled by gated
    adapters, layer index -> gate logits (batch,). `trunk`: (batch, length, hidden), what the frozen first blocks gave,
    where they need not run again (see `trunk`). `rows`: the rows of the batch that `prompt_end` is about; None: all.
    """

    prompt_end: Tensor | None
    gates: dict[int, Tensor] = field(default_factory=dict)
    trunk: Tensor | None = None
    rows: Tensor | None = None
    #: what an adapter keeps of the pass
    kept: Any = None


@dataclass
class Frozen:
    """What is left to run of a batch, and what comes before it (see `trunk`).

    `batch` is what runs. `states` (batch, length, hidden) is the output of the first `blocks` decoder blocks for it,
    before an adapter acts on it. `before` are the keys and values in the later blocks of the tokens before `batch`,
    None where it has all tokens or no later block runs.
    """

    batch: Batch
    states: Tensor
    before: KeyValues | None
    blocks: int

    def inputs(self, model: nn.Module) -> dict[str, Any]:
        """What the model must be told of the tokens before."""
        if self.before is None:
            return {}
        mask = torch.cat([self.before.visible, self.batch.attention_mask], 1)
        positions = (mask.cumsum(1) - 1)[:, -self.batch.input_ids.shape[1] :]
        past = Before(self.before, self.blocks)
        return {"attention_mask": mask, "position_ids": positions, **cache_argument(model, past)}


_current: ContextVar[Call | None] = ContextVar("grun_bench_call", default=None)


@contextmanager
def calling(prompt_end: Tensor | None, trunk: Tensor | None = None) -> Iterator[Call]:
    """Within this block, forward passes edit at `prompt_end`; yields the Call that collects gate values."""
    call = Call(prompt_end, trunk=trunk)
    with _within(call):
        yield call


@contextmanager
def _within(call: Call | None) -> Iterator[None]:
    token = _current.set(call)
    try:
        yield
    finally:
        _current.reset(token)


def current_call() -> Call | None:
    """The Call of the pass under way, by `calling` or as a plain call of the model (see `plain_calls`); else None."""
    return _current.get()


def set_call(call: Call | None) -> None:
    """Begin a Call where no block can be put around it, or end it."""
    _current.set(call)


@dataclass
class Forward:
    """`logits` (scored, vocabulary) in the order of `Batch.targets`, gate logits by layer, and the outputs of the
    decoder blocks that were asked for, layer -> (batch, length, hidden) at the positions of `batch`, what was run.

    `states` (scored, hidden) are what the vocabulary head gets. `logits` has no rows where the head was put off.
    """

    batch: Batch
    logits: Tensor
    gates: dict[int, Tensor]
    hidden: dict[int, Tensor]
    states: Tensor


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off within this block."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def wrapped_forwards(blocks: Iterable[nn.Module], wrap: Callable[..., Any]) -> Iterator[None]:
    """Within this block `wrap(own, *args, **kwargs)` is called in place of each block's own forward; hooks stay."""
    before = [(block, vars(block).get("forward")) for block in blocks]
    for block, _ in before:
        block.forward = partial(wrap, block.forward)
    try:
        yield
    finally:
        for block, forward in before:
            del block.forward
            if forward is not None:
                block.forward = forward


@contextmanager
def checkpointing(model: PreTrainedModel, on: bool) -> Iterator[None]:
    """Gradient checkpointing within this block: decoder blocks run again in the backward pass instead of keeping what
    is inside them. They run again as the same call: an adapter acts where it did in the forward pass.

    Not transformers' own, which has no keys and values of earlier tokens in training.
    """

    def run(own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return own(*args, **kwargs)
        call = current_call()
        return checkpoint(own, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), _within(call)), **kwargs)

    with wrapped_forwards(decoder_layers(model) if on else (), run):
        yield


def forward(
    model: PreTrainedModel, batch: Batch, layers: Sequence[int] = (), frozen: Frozen | None = None, head: bool = True
) -> Forward:
    """Run a batch and compute logits at the positions that predict answer tokens only.

    The vocabulary head sees (scored, hidden) instead of (batch, length, hidden): the same numbers for a fraction of the
    memory, for any Hugging Face causal language model. `layers` are decoder blocks whose outputs are kept, as the
    adapter leaves them. `frozen` is what need not run of this batch, where it is known. Without `head` the vocabulary
    head is put off: it gets no rows now.
    """
    batch = batch if frozen is None else frozen.batch
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if frozen is not None:
        inputs |= frozen.inputs(model)
    mask, hidden, states = batch.scored, {}, []

    def select(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        states.append(args[0][mask.to(args[0].device)])
        return (states[0] if head else states[0][:0],)

    handles = [model.get_output_embeddings().register_forward_pre_hook(select)]

    def keep(layer: int) -> Callable[..., None]:
        def hook(block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            hidden[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    # a hook that is registered later runs later: it sees what an adapter's hook made of the output
    handles += [decoder_layers(model)[layer].register_forward_hook(keep(layer)) for layer in layers]
    try:
        with calling(batch.prompt_end, frozen.states if frozen else None) as call:
            output = model(**inputs, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return Forward(batch, output.logits, call.gates, hidden, states[0].to(mask.device))


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The list of decoder blocks: the module list whose length is the configuration's number of layers."""
    count = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ValueError(f"{type(model).__name__}: no module list of {count} decoder layers found.")


@contextmanager
def truncated(model: PreTrainedModel, number: int) -> Iterator[None]:
    """Within this block the model ends after its first `number` decoder blocks.

    Edits at those blocks act, later ones do not: they belong to blocks that do not run. The keys and values of a
    generation have as many layers as run.
    """
    config, layers = model.config.get_text_config(), decoder_layers(model)
    count, removed = len(layers), list(layers[number:])
    del layers[number:]
    config.num_hidden_layers = number
    try:
        yield
    finally:
        layers.extend(removed)
        config.num_hidden_layers = count
