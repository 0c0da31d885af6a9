"""Edits of hidden states at every position, behind a gate that stays open once it has opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from grun_bench.core.errors import ModelError, Refused, UsageError
from grun_bench.core.registry import adapter
from grun_bench.core.settings import LATER, Count, NotNegative, at_least, each, one_of, whole
from grun_bench.methods.adapters.base import Depths, load_tensors
from grun_bench.methods.adapters.grun import GATED, Grun
from grun_bench.methods.adapters.reft import ADAPTER_FILE, Reft
from grun_bench.methods.adapters.seen import (
    common_beginning,
    largest_so_far,
    marked,
    of_own_turn,
    refuse_packed,
    seen_columns,
)
from grun_bench.models.forward import current_call, decoder_layers, set_call
from grun_bench.models.kv_cache import add_numbers, numbers_of
from grun_bench.models.lm import LM
from grun_bench.models.plain_calls import PlainCall, by_name, call_outside
from grun_bench.models.prompt_ends import Seen, cache_among

#: the buffer of the edits that says which tokens a user's turn begins with
TURN_START = "turn_start"


class EveryPosition(Reft):
    """What edits at every position have in common: no call has to say where a prompt ends."""

    edits_prompt_end = False

    def _watch(self, model: PreTrainedModel) -> None:
        """Nothing to learn of a call: what others need `prompt_lengths` for is taken and left."""
        model.register_forward_pre_hook(_without_lengths, with_kwargs=True)

    def _edit_output(self, index: int, block: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not self.on:
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
    -> (rows, requests, width). `marks` (rows, length, width) are those of where turns begin (see `marked`). `common`
    (rows, width), in training, is true for the tokens that every prompt begins with (see `common_beginning`)."""

    seen: Tensor
    cache: Cache | None
    logits: dict[int, Tensor]
    marks: Tensor | None = None
    common: Tensor | None = None


@adapter("grun-held", searched=GATED)
class HeldGrun(EveryPosition, Grun):
    """GRUN whose gate is held: every position has a gate and an edit, and in force is the largest gate so far.

        h'_t = h_t + sigmoid(max_{s <= t} g(h_s)) R^T (W h_t + b - R h_t)

    GRUN (arXiv 2502.17823) edits the last prompt token, so it changes how an answer begins; what comes later, or an
    answer whose first words are given, is as it was. Here whatever follows a forget question is edited, and no words
    after the question shut the gate again. The gates' loss is 1 at the last prompt token of forget prompts and 0 at the
    last token of retain rows, their answers included. Of forget prompts it reads the largest gate since the question
    began: the tokens before it are those of every prompt, so where one of them has the largest gate of all, forget rows
    push it up as retain rows push it down, and the layer's gates stay at 0.5 (with SmolLM2, whose first token has
    states a hundred times as large as any other, in 10 of 18 layers and seeds). Of requests in sequence each module
    holds its own gate.

    With `reset`, s begins at the user's latest turn: a question after a forget question in the same conversation finds
    the gates shut. Turns begin with `Prompts.question_start`, the tokens that the chat template, or "Question:" without
    one, puts before a question; where tokens of it are hidden from attention, as `open-unlearning` hides ends of turns
    that are padding elsewhere, none is found, and the gates stay as they are.

    Logits of earlier tokens lie in the cache, beside keys and values. The other settings are those of `grun`.
    """

    def __init__(
        self,
        *,
        rank: Count = 4,
        layers: Depths = (0.65, 0.8, 1.0),
        gate: Annotated[str, one_of("linear", "mlp")] = "mlp",
        gate_widths: Annotated[Sequence[int], each(whole(1))] = (256, 64),
        gate_weight: NotNegative = 10.0,
        stage_factor: Annotated[Sequence[float], each(at_least(0), 2)] = (0.6, 0.6),
        reset: Annotated[bool, LATER] = False,
    ) -> None:
        super().__init__(
            rank=rank,
            layers=layers,
            gate=gate,
            gate_widths=gate_widths,
            gate_weight=gate_weight,
            stage_factor=stage_factor,
        )
        self.reset = reset
        #: (length,) token ids, for training alone
        self._every_prompt_begins = torch.empty(0, dtype=torch.long)

    def know(self, lm: LM) -> None:
        """Learn how every prompt begins, and a user's turn where that is not saved with the edits. Raises Refused."""
        self._every_prompt_begins = torch.tensor(lm.prompts.frame[0], dtype=torch.long)
        if not self.reset or self._turn_start is not None:
            return
        if not lm.prompts.question_start:
            raise Refused(
                "reset: this model's chat template begins a user's turn with no special token, so other text could "
                "begin one by accident; leave it out."
            )
        self._turns_begin_with(torch.tensor(lm.prompts.question_start))

    @property
    def _turn_start(self) -> Tensor | None:
        """(length,) the token ids that a user's turn begins with."""
        return getattr(self.stages, TURN_START, None)

    def _turns_begin_with(self, ids: Tensor) -> None:
        self.stages.register_buffer(TURN_START, ids)

    def load(self, model: PreTrainedModel, folder: Path) -> None:
        if self.reset:
            path = folder / ADAPTER_FILE
            if (ids := load_tensors(path).get(TURN_START)) is None:
                raise ModelError(f"{path}: says nothing of how a user's turn begins, which reset needs.")
            self._turns_begin_with(ids)
        super().load(model, folder)

    def _watch(self, model: PreTrainedModel) -> None:
        super()._watch(model)
        self._layers = len(decoder_layers(model))
        # a step compiled around the edits would be compiled anew for every layer
        model.generation_config.disable_compile = True
        model.register_forward_pre_hook(self._begin, with_kwargs=True)
        model.register_forward_hook(self._end, with_kwargs=True, always_call=True)

    def _begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A pass begins. Raises UsageError where it does not say which tokens it sees."""
        if not self.on:
            return
        seen = Seen(by_name(model, args) | dict(kwargs))
        if all(seen.given.get(name) is None for name in ("input_ids", "inputs_embeds")):
            raise UsageError("this model is called with input_ids or inputs_embeds.")
        if isinstance(seen.given.get("past_key_values"), tuple):
            raise UsageError("this model keeps its gates beside keys and values: give it a DynamicCache, not tuples.")
        cache = cache_among(seen.given.values())
        earlier = numbers_of(cache, self._place(self._indices[0]))
        past = 0 if earlier is None else earlier.shape[-1]
        columns = seen_columns(seen.given.get("attention_mask"), seen.whole, past)
        refuse_packed(seen.given.get("position_ids"), seen.given.get("attention_mask"), columns)
        kept = Pass(columns, cache, {})
        if torch.is_grad_enabled() and (ids := seen.given.get("input_ids")) is not None:
            kept.common = common_beginning(ids, self._every_prompt_begins.to(ids.device))
        if self.reset:
            self._part_turns(kept, seen.given.get("input_ids"))
        if (call := call_outside()) is None:
            set_call(call := PlainCall(None))
        call.kept = kept

    def _part_turns(self, kept: Pass, ids: Any) -> None:
        """Let the gates of a pass read their own turns alone. Raises UsageError where these cannot be told."""
        if self._turn_start is None:
            raise UsageError("reset: nothing has said how a user's turn begins; load it with grun_bench.load(DIR).")
        if ids is None:
            raise UsageError("reset: a user's turn is known from its tokens: call this model with input_ids.")
        earlier = numbers_of(kept.cache, self._layers + len(self._indices))
        kept.marks = marked(ids, self._turn_start.to(ids.device), earlier, kept.seen)
        begins = kept.marks[:, -1]
        if earlier is not None:
            begins = torch.cat([earlier[:, -1].bool(), begins], 1)
        kept.seen = of_own_turn(kept.seen, begins)

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
            if call.kept.marks is not None:
                add_numbers(cache, self._layers + len(self._indices), call.kept.marks.float())

    def _place(self, index: int) -> int:
        """The layer of a cache, beyond the model's own, that has the logits of a block."""
        return self._layers + self._indices.index(index)

    def _edit(self, index: int, states: Tensor) -> tuple[Tensor, Tensor | None]:
        """(rows, width, hidden) edited by all requests; the call is told the gates that are in force."""
        call = current_call()
        if call is None or not isinstance(call.kept, Pass):
            raise UsageError("the decoder was called without its model, whose gates are held from call to call.")
        stages = [edits[str(index)] for edits in self.stages]  # type: ignore[index]
        logits = torch.stack([edit.logits(states)[..., 0] for edit in stages], 1)
        call.kept.logits[index] = logits.detach()
        earlier, seen = numbers_of(call.kept.cache, self._place(index)), call.kept.seen.to(states.device)
        held = largest_so_far(logits.float(), earlier, seen)
        edited = states.float()
        for edit, gate in zip(stages, held.unbind(1), strict=True):
            edited = edited + self.times * self.factor * torch.sigmoid(gate)[..., None] * edit.shift(states)
        if call.prompt_end is not None:
            told = self._told(held, logits, call.prompt_end.to(states.device), call.kept)
            call.gates[index] = told.to(call.prompt_end.device)
        return edited.to(states.dtype), None

    def _told(self, held: Tensor, logits: Tensor, prompt_end: Tensor, kept: Pass) -> Tensor:
        """The gates in force: in scoring the largest request's at the last prompt token, (rows,); in training that of
        the trained module, there, but for the tokens that every prompt begins with, and at the last token, (rows, 2).
        """
        rows = torch.arange(len(held), device=held.device)
        if not torch.is_grad_enabled():
            return held[rows, :, prompt_end].amax(1)
        width, seen = held.shape[-1], kept.seen.to(held.device)
        last = (seen.diagonal(seen.shape[-1] - width, 1, 2) * torch.arange(width, device=held.device)).argmax(1)
        asked = held[:, -1:]
        if kept.common is not None and seen.shape[-1] == width:
            before = kept.common & (torch.arange(width, device=held.device) < prompt_end[:, None])
            asked = largest_so_far(logits[:, -1:].float(), None, seen & ~before[:, None])
        return torch.stack([asked[rows, -1, prompt_end], held[rows, -1, last]], 1)

    def aux_loss(self, forget: dict[int, Tensor], retain: dict[int, Tensor]) -> dict[str, Tensor]:
        return super().aux_loss(
            {layer: gates[:, 0] for layer, gates in forget.items()},
            {layer: gates[:, 1] for layer, gates in retain.items()},
        )
