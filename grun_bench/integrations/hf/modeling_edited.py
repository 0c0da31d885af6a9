"""A language model whose hidden states are edited beside its weights, so that it answers as if it had unlearned.

Written by grun-bench. It needs torch and transformers alone:

    model = AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)

`config.edits` says what is edited. Each edit is h' = h + s R^T (W h + b - R h) at a decoder block's output (LoReFT,
arXiv 2404.03592): s is 1, or sigmoid of a gate's logit on h (GRUN, arXiv 2502.17823), or of the largest logit so far.
Without `every_position` only the last token of a prompt is edited, so a call has to say which that is:

- `generate` edits the end of its input, with any cache or none, padding, beams or samples;
- a call with an empty cache is the prefill of a generation: it edits the last token of each row;
- in any other call `prompt_lengths` (how many tokens of each row are prompt, padding not counted; 0 for none), `labels`
  that are -100 on the prompt, or the chat template's beginning of an answer among the tokens say it;
- a single token after a past belongs to the answer.

Anything else is a ValueError: edited elsewhere, the model would look as if it had unlearned nothing.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from functools import partial
from inspect import signature
from itertools import pairwise
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import Cache, DynamicCache, LlamaConfig, LlamaForCausalLM

try:
    from transformers.cache_utils import DynamicLayer
except ImportError:  # before transformers 4.56
    DynamicLayer = None


class Edit(nn.Module):
    """The edit of one block's output. R keeps its 32 bits in whatever dtype the model is loaded: they are integers."""

    rotation_bits: Tensor
    gate: nn.Module | None

    def __init__(self, hidden: int, rank: int, widths: list[int] | None) -> None:
        super().__init__()
        self.register_buffer("rotation_bits", torch.zeros(hidden, rank, dtype=torch.int32))
        self.source, self.gate = nn.Linear(hidden, rank), None
        if widths is not None:
            maps = [nn.Linear(*pair) for pair in pairwise([hidden, *widths, 1])]
            hidden_maps = [part for each in maps[:-1] for part in (each, nn.ReLU())]
            self.gate = nn.Sequential(*hidden_maps, maps[-1]) if widths else maps[0]

    def shift(self, states: Tensor) -> Tensor:
        """R^T (W h + b - R h), in float32."""
        rotation = self.rotation_bits.view(torch.float32)
        return (self.source(states) - states.float() @ rotation) @ rotation.T


class Pass:
    """One call of the model: `ends` are the columns of the rows' prompt ends (-1: none here), `seen` which columns a
    token's gate reads, `cache` what has the logits of earlier passes, `logits` and `marks` are this pass's own."""

    def __init__(self, ends: Tensor | None = None, cache: Cache | None = None) -> None:
        self.ends, self.cache = ends, cache
        self.seen: Any = None
        self.logits: dict[int, Tensor] = {}
        self.marks: Tensor | None = None


_pass: ContextVar[Pass | None] = ContextVar("edited_pass", default=None)
#: of a `generate` under way: the model, and the last column of each prompt
_prompts: ContextVar[tuple[nn.Module, list[int]] | None] = ContextVar("edited_prompts", default=None)


class EditedConfig(LlamaConfig):
    model_type = "edited-llama"


class EditedForCausalLM(LlamaForCausalLM):
    config_class = EditedConfig

    def __init__(self, config: EditedConfig) -> None:
        super().__init__(config)
        known = config.edits
        text = config.get_text_config()
        count = text.num_hidden_layers
        stage = {str(index): (text.hidden_size, known["rank"], known["gate"]) for index in known["blocks"]}
        self.edits = nn.ModuleList(
            nn.ModuleDict({index: Edit(*sizes) for index, sizes in stage.items()}) for _ in range(known["requests"])
        )
        blocks = next(each for each in self.modules() if isinstance(each, nn.ModuleList) and len(each) == count)
        for index in known["blocks"]:
            blocks[index].register_forward_hook(partial(self._edit_output, index))
        self.register_forward_pre_hook(type(self)._begin, with_kwargs=True)
        self.register_forward_hook(type(self)._end, with_kwargs=True, always_call=True)
        self._first_place = count

    # ---- a call begins and ends

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        kwargs = dict(kwargs)
        lengths, known = kwargs.pop("prompt_lengths", None), self.config.edits
        given = dict(zip(list(signature(type(self).forward).parameters)[1:], args, strict=False)) | kwargs
        whole, cache = _whole(given), _cache(given.values())
        if not known["every_position"]:
            _pass.set(Pass(self._ends(given, lengths)))
            return args, kwargs
        call = Pass(cache=cache)
        if known["gate"] is not None:
            earlier = _numbers(cache, self._first_place)
            call.seen = _seen(given.get("attention_mask"), whole, 0 if earlier is None else earlier.shape[-1])
            _refuse_packed(given, call.seen)
            if known["turn_start"]:
                self._part_turns(call, given.get("input_ids"))
        _pass.set(call)
        return args, kwargs

    def _end(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        call = _pass.get()
        _pass.set(None)
        if output is None or call is None or not call.logits:
            return
        cache = call.cache or (_cache(output.values()) if hasattr(output, "values") else None)
        if cache is not None:
            blocks = self.config.edits["blocks"]
            for place, index in enumerate(blocks):
                _keep(cache, self._first_place + place, call.logits[index].float())
            if call.marks is not None:
                _keep(cache, self._first_place + len(blocks), call.marks.float())

    # ---- edits

    def _edit_output(self, index: int, block: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        call = _pass.get()
        if call is None:
            raise ValueError("the decoder was called without its model, which says where it is edited.")
        states = output[0] if isinstance(output, tuple) else output
        if self.config.edits["every_position"]:
            edited = self._edited(index, states, call)
        elif call.ends is None:
            return output
        else:
            ends = call.ends.to(states.device)
            rows = (ends >= 0).nonzero()[:, 0]
            edited = states.clone()
            edited[rows, ends[rows]] = self._edited(index, states[rows, ends[rows]], call)
        return (edited, *output[1:]) if isinstance(output, tuple) else edited

    def _edited(self, index: int, states: Tensor, call: Pass) -> Tensor:
        edits: Any = [stage[str(index)] for stage in self.edits]  # type: ignore[index]
        if edits[0].gate is None:
            return (states + edits[0].shift(states)).to(states.dtype)
        logits = torch.stack([edit.gate(states)[..., 0] for edit in edits])
        if call.seen is not None:
            logits = self._held(index, logits.transpose(0, 1), call).transpose(0, 1)
        changed = states.float()
        for edit, gate in zip(edits, logits, strict=True):
            changed = changed + self.config.edits["factor"] * edit.shift(states) * torch.sigmoid(gate)[..., None]
        return changed.to(states.dtype)

    def _held(self, index: int, logits: Tensor, call: Pass) -> Tensor:
        """(rows, requests, width): of each token's gate the largest logit that it reads."""
        call.logits[index] = logits.detach()
        earlier = _numbers(call.cache, self._first_place + self.config.edits["blocks"].index(index))
        seen, logits = call.seen.to(logits.device), logits.float()
        whole = logits if earlier is None else torch.cat([earlier.to(logits), logits], -1)
        shut = whole[:, :, None].masked_fill(~seen[:, None], torch.finfo(logits.dtype).min)
        return shut.amax(-1)

    def _part_turns(self, call: Pass, ids: Tensor | None) -> None:
        """Let gates read the latest turn of a user alone, which its first tokens begin."""
        if ids is None:
            raise ValueError("a user's turn is known from its tokens: call this model with input_ids.")
        start = self.config.edits["turn_start"]
        earlier = _numbers(call.cache, self._first_place + len(self.config.edits["blocks"]))
        call.marks = _marks(ids, start, earlier, call.seen)
        begins = call.marks[:, -1]
        if earlier is not None:
            begins = torch.cat([earlier[:, -1].bool(), begins], 1)
        order = torch.arange(1, call.seen.shape[-1] + 1, device=ids.device)
        call.seen = call.seen & (order >= (call.seen & begins[:, None]).mul(order).amax(-1, keepdim=True))

    # ---- where prompts end

    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        # a step compiled around the edits would be compiled anew for every layer
        self.generation_config.disable_compile = True
        token = _prompts.set((self, self._last_columns(inputs, kwargs)))
        try:
            return super().generate(inputs, *args, **kwargs)
        finally:
            _prompts.reset(token)

    def _last_columns(self, inputs: Tensor | None, given: Mapping[str, Any]) -> list[int]:
        """The last attended column of each input of `generate`."""
        ids = given.get("input_ids") if inputs is None else inputs
        whole = given.get("inputs_embeds", ids)
        if whole is None:
            return [0]
        mask = given.get("attention_mask")
        if mask is None:
            config = given.get("generation_config") or self.generation_config
            fill, stops = (given.get(name, getattr(config, name)) for name in ("pad_token_id", "eos_token_id"))
            padded = whole is ids and fill is not None and fill not in (stops if isinstance(stops, list) else [stops])
            mask = (whole != fill).long() if padded else torch.ones(whole.shape[:2], dtype=torch.long)
        if mask.ndim != 2:
            _refuse("attention_mask is not (batch, length), so it does not tell padding")
        return (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(1).tolist()

    def _ends(self, given: Mapping[str, Any], lengths: Any) -> Tensor | None:
        """(rows,) the columns of this call where prompts end, -1 for none; None where no row has one."""
        whole, past = _whole(given), _past(given)
        rows, width = whole.shape[:2]
        generating = _prompts.get()
        if generating is not None and generating[0] is self:
            return _of_sequences(generating[1], past, rows, width, whole.device)
        if lengths is not None:
            return _of_lengths(given, lengths)
        if width == 1 and past:
            return None
        if given.get("labels") is not None:
            return _of_labels(given)
        if not past and _cache(given.values()) is not None:
            attended = _attended(given)
            return width - 1 - attended.flip(1).long().argmax(1)
        return _of_start(given, self.config.edits["answer_start"])


def _refuse(reason: str) -> NoReturn:
    raise ValueError(
        f"where the prompt ends is not known: {reason}. This model is edited at the last token of each prompt. Pass "
        "prompt_lengths=[...], how many tokens of each row are prompt (0: it ends in another call), or labels that are "
        "-100 on the prompt. generate() needs neither."
    )


def _whole(given: Mapping[str, Any]) -> Tensor:
    whole = given.get("input_ids") if given.get("input_ids") is not None else given.get("inputs_embeds")
    if whole is None:
        raise ValueError("this model is called with input_ids or inputs_embeds.")
    return whole


def _past(given: Mapping[str, Any]) -> int:
    """How many columns came before in earlier calls."""
    if (columns := given.get("cache_position")) is not None:
        return int(columns[0])
    cache, pairs = _cache(given.values()), given.get("past_key_values")
    if cache is not None:
        return int(cache.get_seq_length())
    return pairs[0][0].shape[2] if pairs else 0


def _attended(given: Mapping[str, Any]) -> Tensor:
    """(rows, width) bool, False on padding."""
    whole, mask = _whole(given), given.get("attention_mask")
    if mask is None:
        return torch.ones(whole.shape[:2], dtype=torch.bool, device=whole.device)
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        _refuse("attention_mask is not (batch, length), so it does not tell padding")
    attended, positions = mask[:, -whole.shape[1] :].bool(), given.get("position_ids")
    if positions is not None and ((positions == 0) & attended).sum(1).max() > 1:
        _refuse("a row holds several sequences")
    return attended


def _of_sequences(ends: list[int], past: int, rows: int, width: int, device: Any) -> Tensor | None:
    """From the ends of whole sequences, of which this call has a part; each may have several rows, as of beams."""
    if past > max(ends):
        return None
    ends = ends[:1] if len(set(ends)) == 1 else ends
    if rows % len(ends):
        _refuse(f"{rows} rows came of {len(ends)} prompts")
    columns = [end - past if 0 <= end - past < width else -1 for end in ends for _ in range(rows // len(ends))]
    return torch.tensor(columns, device=device)


def _of_lengths(given: Mapping[str, Any], lengths: Any) -> Tensor:
    attended = _attended(given)
    counts = torch.as_tensor(lengths, device=attended.device)
    if counts.is_floating_point() or counts.dtype == torch.bool or counts.shape not in ((), attended.shape[:1]):
        raise ValueError(f"prompt_lengths: a whole number for each of {len(attended)} rows, or one for all.")
    counts = counts.expand(len(attended))[:, None]
    if bool(((counts < 0) | (counts > attended.sum(1, keepdim=True))).any()):
        raise ValueError(f"prompt_lengths: from 0 to a row's number of tokens; got {counts[:, 0].tolist()}.")
    ends = ((attended.cumsum(1) == counts) & attended).long().argmax(1)
    return ends.where(counts[:, 0] > 0, -1)


def _of_labels(given: Mapping[str, Any]) -> Tensor:
    """From the first token that has a label."""
    scored = given["labels"] != -100
    ends = scored.long().argmax(1) - 1
    before = _attended(given).gather(1, ends.clamp(min=0)[:, None])[:, 0] & (ends >= 0)
    starts = scored & ~pad(scored, (1, 0))[:, :-1]
    if bool((~before | (starts.sum(1) != 1)).any()):
        _refuse("labels hold no single answer after a prompt that is -100")
    return ends


def _of_start(given: Mapping[str, Any], start: list[int]) -> Tensor:
    """From the last time that a row has the tokens with which the chat template begins an answer."""
    ids, size = given.get("input_ids"), len(start)
    if not size or ids is None or ids.shape[1] < size:
        _refuse("nothing says it")
    _attended(given)
    windows = (ids.unfold(1, size, 1) == torch.tensor(start, device=ids.device)).all(-1)
    if not bool(windows.any(1).all()):
        _refuse("a row has no turn of the assistant, as the chat template begins one")
    return ids.shape[1] - 1 - windows.flip(1).long().argmax(1)


# ---- what gates keep from call to call, beside keys and values


def _cache(values: Any) -> Cache | None:
    return next((each for each in values if isinstance(each, Cache)), None)


def _keep(cache: Cache, place: int, numbers: Tensor) -> None:
    """Numbers (rows, count, width) as keys of a layer beyond the model's own: they go where keys and values go."""
    if hasattr(cache, "layers"):
        cache.layers += [DynamicLayer() for _ in range(place + 1 - len(cache.layers))]
    elif not isinstance(cache, DynamicCache):
        raise ValueError(f"a {type(cache).__name__} has no place for the gates: use a DynamicCache, or no cache.")
    cache.update(numbers[..., None], numbers[..., None][..., :0], place)


def _numbers(cache: Cache | None, place: int) -> Tensor | None:
    if cache is None:
        return None
    kept = [layer.keys for layer in cache.layers] if hasattr(cache, "layers") else cache.key_cache
    keys = kept[place] if place < len(kept) else None
    return keys[..., 0] if isinstance(keys, Tensor) and keys.numel() else None


def _seen(mask: Any, whole: Tensor, past: int) -> Tensor:
    """(rows, width, columns) bool: which columns a token's gate reads, itself and visible ones before it."""
    rows, width = whole.shape[:2]
    order = torch.ones(width, past + width, dtype=torch.bool, device=whole.device).tril(past)
    if isinstance(mask, Mapping):
        mask = mask.get("full_attention", next(iter(mask.values())))
    if mask is None:
        return order.expand(rows, -1, -1)
    if not isinstance(mask, Tensor) or mask.dim() not in (2, 4):
        raise ValueError("attention_mask: (batch, length), so that this model's gates know what is padding.")
    if mask.dim() == 4:
        return (mask if mask.dtype == torch.bool else mask == 0)[:, 0, :, : past + width].expand(rows, -1, -1)
    all_there = mask.shape[1] >= past + width
    visible = mask[:, -(past + width) :].bool() if all_there else order.new_ones(rows, past + width)
    return visible[:, None] & order


def _refuse_packed(given: Mapping[str, Any], seen: Tensor) -> None:
    """ValueError where positions say that a row holds several sequences, and no mask parts them for the gates."""
    positions, mask = given.get("position_ids"), given.get("attention_mask")
    parted = mask is not None and getattr(mask, "ndim", 0) != 2
    if not isinstance(positions, Tensor) or positions.dim() != 2 or parted or positions.shape[1] == 1:
        return
    attended = seen[:, :, seen.shape[-1] - positions.shape[1] :].diagonal(0, 1, 2)
    before = positions.where(attended, -1).cummax(1).values[:, :-1]
    step = (positions[:, 1:] - before).where(attended[:, 1:] & (before >= 0), 1)
    if bool(((step != 1) if mask is None else (step < 1)).any()):
        raise ValueError("position_ids: a row holds several sequences: give each sequence a row of its own.")


def _marks(ids: Tensor, start: list[int], earlier: Tensor | None, seen: Tensor) -> Tensor:
    """(rows, length, width) bool: at which tokens the first 1, 2, ... tokens of `start` have just been seen."""
    width, columns = ids.shape[1], seen.shape[-1]
    order = torch.arange(1, columns + 1, device=ids.device)
    before = (seen & (order <= order[columns - width :, None] - 1)).mul(order).amax(-1)
    found: list[Tensor] = []
    for token in start:
        here = ids == token
        if found:
            kept = [] if earlier is None else [earlier[:, len(found) - 1].bool()]
            here = here & pad(torch.cat([*kept, found[-1]], 1), (1, 0)).gather(1, before)
        found.append(here)
    return torch.stack(found, 1)
