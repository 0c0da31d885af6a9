"""Plain calls of a model that is edited where prompts end: `model(...)` and `model.generate(...)`, by whoever it is.

The project's own passes say where prompts end (see `forward.calling`). A plain call does not, so it is found out, or
the call is refused: edited anywhere else, a model answers as if it had unlearned nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from grun_bench.core.errors import UsageError
from grun_bench.models.forward import Call, current_call, set_call
from grun_bench.models.prompt_ends import NO_PADDING, Seen, refuse


class PlainCall(Call):
    """The Call that a plain call of the model is."""


def call_outside() -> Call | None:
    """The Call that a pass begins in. A plain one is none: it was left by a pass that was interrupted."""
    call = current_call()
    return None if isinstance(call, PlainCall) else call


def by_name(model: nn.Module, args: Sequence[Any]) -> dict[str, Any]:
    """The arguments of a model's call that were given by their place."""
    return dict(zip(list(inspect.signature(type(model).forward).parameters)[1:], args, strict=False))


class _Generating(NamedTuple):
    """A `generate` under way: the last column of each prompt."""

    model: nn.Module
    ends: list[int]


_generating: ContextVar[_Generating | None] = ContextVar("grun_bench_generating", default=None)


class PlainCalls:
    """Makes every plain call of a model a Call. Where prompts end is known from, in this order:

    - `generate`, whose whole input is the prompt: with any cache or none, any padding, beams and samples;
    - the argument `prompt_lengths`, a number or (batch,): how many of a row's tokens in this call are prompt, padding
      by `attention_mask` not counted; 0 where the prompt ends in another call;
    - that it is a single token after a past, so one of an answer;
    - `labels` (batch, length), -100 on the prompt;
    - `answer_start`, the token ids with which the chat template begins an answer, the last time that a row has them.

    Anything else is a UsageError. `acts` says whether the model is edited at all; None: always.
    """

    def __init__(self, model: PreTrainedModel, acts: Callable[[], bool] | None = None) -> None:
        self.answer_start: Sequence[int] = ()
        self._model, self._acts = model, acts
        self._generate = model.generate
        model.generate = self._generate_from_prompts
        # a step compiled around the edits would be compiled anew for every layer
        model.generation_config.disable_compile = True
        model.register_forward_pre_hook(self._begin, with_kwargs=True)
        model.register_forward_hook(self._end, always_call=True)

    def _begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        lengths = kwargs.pop("prompt_lengths", None)
        if call_outside() is None and (self._acts is None or self._acts()):
            ends = self._ends(Seen(by_name(model, args) | kwargs), lengths)
            rows = torch.empty(0) if ends is None else (ends >= 0).nonzero()[:, 0]
            set_call(PlainCall(ends[rows], rows=rows) if ends is not None and len(rows) else PlainCall(None))
        return args, kwargs

    def _end(self, *_: Any) -> None:
        if isinstance(current_call(), PlainCall):
            set_call(None)

    def _ends(self, seen: Seen, lengths: Any) -> Tensor | None:
        """(batch,) the columns where prompts end, -1 for rows without; None where none has. Raises UsageError."""
        generation, labels = _generating.get(), seen.given.get("labels")
        if generation is not None and generation.model is self._model:
            return seen.of_sequences(generation.ends)
        checkpointed = (getattr(each, "gradient_checkpointing", False) for each in self._model.modules())
        if torch.is_grad_enabled() and any(checkpointed):
            raise UsageError(
                "transformers' gradient checkpointing runs layers again without saying for which call, so this model "
                "cannot be edited in it: train within grun_bench.models.forward.checkpointing(model, True) instead."
            )
        if lengths is not None:
            return seen.of_lengths(lengths)
        if seen.whole.shape[1] == 1 and seen.past():
            return None
        return seen.of_start(self.answer_start) if labels is None else seen.of_labels(labels)

    def _generate_from_prompts(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        token = _generating.set(_Generating(self._model, self._last_columns(inputs, kwargs)))
        try:
            return self._generate(inputs, *args, **kwargs)
        finally:
            _generating.reset(token)

    def _last_columns(self, inputs: Tensor | None, given: Mapping[str, Any]) -> list[int]:
        """The last attended column of each input of `generate`."""
        ids = given.get("input_ids") if inputs is None else inputs
        whole = given.get("inputs_embeds", ids)
        if whole is None:
            return [0]
        mask = given.get("attention_mask")
        if mask is None:
            config = given.get("generation_config") or self._model.generation_config
            pad, stops = (given.get(name, getattr(config, name)) for name in ("pad_token_id", "eos_token_id"))
            # as transformers takes it
            padded = whole is ids and pad is not None and pad not in (stops if isinstance(stops, list) else [stops])
            mask = (whole != pad).long() if padded else torch.ones(whole.shape[:2], dtype=torch.long)
        if not isinstance(mask, Tensor) or mask.ndim != 2:
            refuse(NO_PADDING)
        return (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(1).tolist()
