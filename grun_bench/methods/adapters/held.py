"""Edits of hidden states at every position, behind a gate that stays open once it has opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from grun_bench.core.errors import UsageError
from grun_bench.core.registry import adapter
from grun_bench.methods.adapters.grun import Grun
from grun_bench.methods.adapters.reft import Reft
from grun_bench.models.forward import current_call, decoder_layers, set_call
from grun_bench.models.kv_cache import add_numbers, numbers_of
from grun_bench.models.plain_calls import PlainCall, by_name, call_outside
from grun_bench.models.prompt_ends import Seen, cache_among


class EveryPosition(Reft):
    """What edits at every position have in common: no call has to say where a prompt ends."""

    edits_prompt_end = False

    def _watch(self, model: PreTrainedModel) -> None:
        """Nothing to learn of a call: what others need `prompt_lengths` for is taken and left."""
        model.register_forward_pre_hook(_without_lengths, with_kwargs=True)

    def _edit_output(self, index: int, block: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not self._on:
            return output
        states = output[0] if isinstance(output, tuple) else output
        edited = self._edit(index, states)[0]
        return (edited, *output[1:]) if isinstance(output, tuple) else edited


def _without_lengths(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, {name: value for name, value in kwargs.items() if name != "prompt_lengths"}


@adapter("reft-held")
class HeldReft(EveryPosition):
    """LoReFT edits (arXiv 2404.03592) without a gate, at every position: what `grun-held` does with its gate open."""


@dataclass
class Pass:
    """What the gates need of a pass of the model: `seen` (rows, width, columns) says which columns, earlier ones
    included, a token's gate may read; `cache` is where the logits of earlier passes are, `logits` are this one's, layer
    -> (rows, requests, width)."""

    seen: Tensor
    cache: Cache | None
    logits: dict[int, Tensor]


@adapter("grun-held")
class HeldGrun(EveryPosition, Grun):
    """GRUN whose gate is held: every position has a gate and an edit, and in force is the largest gate so far.

        h'_t = h_t + sigmoid(max_{s <= t} g(h_s)) R^T (W h_t + b - R h_t)

    GRUN (arXiv 2502.17823) edits the last prompt token, so it changes how an answer begins; what comes later, or an
    answer whose first words are given, is as it was. Here whatever follows a forget question is edited, and no words
    after the question shut the gate again. The gates' loss is 1 at the last prompt token of forget prompts and 0 at the
    last token of retain rows, their answers included. Of requests in sequence each module holds its own gate.

    Logits of earlier tokens lie in the cache, beside keys and values. The settings are those of `grun`.
    """

    def _watch(self, model: PreTrainedModel) -> None:
        super()._watch(model)
        self._layers = len(decoder_layers(model))
        # a step compiled around the edits would be compiled anew for every layer
        model.generation_config.disable_compile = True
        model.register_forward_pre_hook(self._begin, with_kwargs=True)
        model.register_forward_hook(self._end, with_kwargs=True, always_call=True)

    def _begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A pass begins. Raises UsageError where it does not say which tokens it sees."""
        if not self._on:
            return
        seen = Seen(by_name(model, args) | dict(kwargs))
        if all(seen.given.get(name) is None for name in ("input_ids", "inputs_embeds")):
            raise UsageError("this model is called with input_ids or inputs_embeds.")
        if isinstance(seen.given.get("past_key_values"), tuple):
            raise UsageError("this model keeps its gates beside keys and values: give it a DynamicCache, not tuples.")
        cache = cache_among(seen.given.values())
        earlier = numbers_of(cache, self._place(self._indices[0]))
        past = 0 if earlier is None else earlier.shape[-1]
        kept = Pass(seen_columns(seen.given.get("attention_mask"), seen.whole, past), cache, {})
        if (call := call_outside()) is None:
            set_call(call := PlainCall(None))
        call.kept = kept

    def _end(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """A pass is over: its logits go where its keys and values went. One that failed leaves none."""
        call = current_call()
        if isinstance(call, PlainCall):
            set_call(None)
        if output is None or call is None or not isinstance(call.kept, Pass):
            return
        cache = call.kept.cache
        if cache is None and hasattr(output, "values"):
            cache = cache_among(output.values())
        if cache is not None:
            for index in self._indices:
                add_numbers(cache, self._place(index), call.kept.logits[index].float())

    def _place(self, index: int) -> int:
        """The layer of a cache, beyond the model's own, that has the logits of a block."""
        return self._layers + self._indices.index(index)

    def _edit(self, index: int, states: Tensor) -> tuple[Tensor, Tensor | None]:
        """(rows, width, hidden) edited by all requests; the call is told the gates that are in force."""
        call = current_call()
        if call is None or not isinstance(call.kept, Pass):
            raise UsageError("the decoder was called without its model, whose gates are held from call to call.")
        stages = [edits[str(index)] for edits in self.stages]  # type: ignore[index]
        logits = torch.stack([edit.gate(states)[..., 0] for edit in stages], 1)
        call.kept.logits[index] = logits.detach()
        earlier, seen = numbers_of(call.kept.cache, self._place(index)), call.kept.seen.to(states.device)
        held = largest_so_far(logits.float(), earlier, seen)
        edited = states.float()
        for edit, gate in zip(stages, held.unbind(1), strict=True):
            edited = edited + self.factor * torch.sigmoid(gate)[..., None] * edit.shift(states)
        if call.prompt_end is not None:
            call.gates[index] = self._told(held, call.prompt_end.to(states.device), seen)
        return edited.to(states.dtype), None

    def _told(self, held: Tensor, prompt_end: Tensor, seen: Tensor) -> Tensor:
        """The gates in force: in scoring the largest request's at the last prompt token, (rows,); in training that of
        the trained module, there and at the last token, (rows, 2)."""
        rows = torch.arange(len(held), device=held.device)
        if not torch.is_grad_enabled():
            return held[rows, :, prompt_end].amax(1)
        width = held.shape[-1]
        last = (seen.diagonal(seen.shape[-1] - width, 1, 2) * torch.arange(width, device=held.device)).argmax(1)
        return torch.stack([held[rows, -1, prompt_end], held[rows, -1, last]], 1)

    def aux_loss(self, forget: dict[int, Tensor], retain: dict[int, Tensor]) -> dict[str, Tensor]:
        return super().aux_loss(
            {layer: gates[:, 0] for layer, gates in forget.items()},
            {layer: gates[:, 1] for layer, gates in retain.items()},
        )


def seen_columns(mask: Any, given: Tensor, past: int) -> Tensor:
    """(rows, width, columns) bool: which columns a token's gate reads, itself and visible ones before it.

    `mask` is the attention mask of the model's call: (rows, columns), or (rows, 1, width, columns) added to attention's
    logits, as trees of answers have it, or true where a token is seen. Raises UsageError for one of another kind.
    """
    rows, width = given.shape[:2]
    order = torch.ones(width, past + width, dtype=torch.bool, device=given.device).tril(past)
    if isinstance(mask, Mapping):
        mask = mask.get("full_attention", next(iter(mask.values())))
    if mask is None:
        return order.expand(rows, -1, -1)
    if not isinstance(mask, Tensor) or mask.dim() not in (2, 4):
        raise UsageError("attention_mask: (batch, length), so that this model's gates know what is padding.")
    if mask.dim() == 2:
        whole = mask.shape[1] >= past + width
        visible = mask[:, -(past + width) :].bool() if whole else order.new_ones(rows, past + width)
        return visible[:, None] & order
    seen = (mask if mask.dtype == torch.bool else mask == 0)[:, 0, :, : past + width].expand(rows, -1, -1)
    return seen


def largest_so_far(logits: Tensor, earlier: Tensor | None, seen: Tensor) -> Tensor:
    """(rows, requests, width) the largest logit among those that a token's gate reads.

    `logits` are of this pass, `earlier` (rows, requests, columns) of those before it. Tokens that see nothing, padding,
    have the lowest number there is: a gate of 0.
    """
    whole = logits if earlier is None else torch.cat([earlier.to(logits), logits], -1)
    lowest = torch.finfo(logits.dtype).min
    return torch.stack(
        [each[:, None].expand(-1, seen.shape[1], -1).masked_fill(~seen, lowest).amax(-1) for each in whole.unbind(1)], 1
    )
