"""What a token sees of the columns before it: which are padding, which belong to its own turn of a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from grun_bench.core.errors import UsageError


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


def refuse_packed(positions: Any, mask: Any, seen: Tensor) -> None:
    """Raises UsageError where positions (rows, width) say that a row holds several sequences, and no mask parts them.

    A mask (rows, 1, width, columns) does. Without any, transformers part them wherever a position is not one more than
    that before it; with one of padding, a gate would read over the border where they begin again.
    """
    parted = mask is not None and getattr(mask, "ndim", 0) != 2
    if not isinstance(positions, Tensor) or positions.dim() != 2 or parted or positions.shape[1] == 1:
        return
    width = positions.shape[1]
    attended = seen[:, :, seen.shape[-1] - width :].diagonal(0, 1, 2)
    before = positions.where(attended, -1).cummax(1).values[:, :-1]
    step = (positions[:, 1:] - before).where(attended[:, 1:] & (before >= 0), 1)
    if bool(((step != 1) if mask is None else (step < 1)).any()):
        raise UsageError(
            "position_ids: a row holds several sequences, and this model's gates are held from the first to the last "
            "token of a row: give each sequence a row of its own."
        )


def marked(ids: Tensor, marker: Tensor, earlier: Tensor | None, seen: Tensor) -> Tensor:
    """(rows, length, width) bool: at which tokens the first 1, 2, ... of a marker (length,) have just been seen.

    `ids` (rows, width) are of this pass, `earlier` (rows, length, columns) what this gave for the passes before it.
    """
    width, columns = ids.shape[1], seen.shape[-1]
    order = torch.arange(1, columns + 1, device=ids.device)
    # 0 where a token sees none before itself
    before = (seen & (order <= order[columns - width :, None] - 1)).mul(order).amax(-1)
    found: list[Tensor] = []
    for token in marker:
        here = ids == token
        if found:
            kept = [] if earlier is None else [earlier[:, len(found) - 1].bool()]
            here = here & pad(torch.cat([*kept, found[-1]], 1), (1, 0)).gather(1, before)
        found.append(here)
    return torch.stack(found, 1)


def of_own_turn(seen: Tensor, begins: Tensor) -> Tensor:
    """Of the columns that tokens see (rows, width, columns) those from the last on at which a turn `begins`."""
    order = torch.arange(1, seen.shape[-1] + 1, device=seen.device)
    return seen & (order >= (seen & begins[:, None]).mul(order).amax(-1, keepdim=True))


def common_beginning(ids: Tensor, beginning: Tensor) -> Tensor:
    """(rows, width) bool: the tokens of `ids` (rows, width) that are `beginning` (length,), up to the first other one.

    Rows are padded on the right, as in training.
    """
    length = min(len(beginning), ids.shape[1])
    same = (ids[:, :length] == beginning[:length]).long().cumprod(1).bool()
    return pad(same, (0, ids.shape[1] - length))


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
