"""Keys and values of a batch."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import Cache, DynamicCache

from grun_bench.core.errors import UsageError

if hasattr(transformers.cache_utils, "DynamicLayer"):  # since transformers 4.56
    from transformers.cache_utils import DynamicLayer


def cache_argument(model: nn.Module, cache: Cache | None) -> dict[str, Cache | None]:
    """The cache as models take it: by the name `cache` since transformers 5.24, `past_key_values` before."""
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    return {name: cache}


def add_numbers(cache: Cache, layer: int, numbers: Tensor) -> None:
    """Keep numbers (batch, count, width) of a pass's columns, as keys of a layer beyond the model's, in order.

    So they go wherever keys and values go: rows that are copied, reordered, dropped or cropped. Raises UsageError for a
    cache that takes no such layer.
    """
    if not isinstance(cache, DynamicCache) and not hasattr(cache, "layers"):
        raise UsageError(
            f"this model keeps its gates beside keys and values, and a {type(cache).__name__} of transformers "
            f"{transformers.__version__} has no place for them: generate with a DynamicCache, or without a cache."
        )
    if hasattr(cache, "layers") and not isinstance(cache, Slots):
        cache.layers += [DynamicLayer() for _ in range(layer + 1 - len(cache.layers))]
    cache.update(numbers[..., None], numbers[..., None][..., :0], layer)


def numbers_of(cache: Cache | None, layer: int) -> Tensor | None:
    """What `add_numbers` kept of earlier passes: (batch, count, columns); None for nothing."""
    if isinstance(cache, Slots):
        return cache.keys(layer)[..., 0]
    kept = [] if cache is None else KeyValues.of(cache, torch.empty(0)).layers
    keys = kept[layer][0] if layer < len(kept) else None
    return keys[..., 0] if isinstance(keys, Tensor) and keys.numel() else None


@dataclass
class KeyValues:
    """Keys and values of a batch: per layer (batch, heads, width, dimension); `visible` (batch, width) is the mask.

    Columns that are not visible hold padding, rejected drafts or hidden tokens, anywhere in a row: position ids are
    always given explicitly, so only the order of the visible columns matters.
    """

    layers: list[tuple[Tensor, Tensor]]
    visible: Tensor

    @classmethod
    def of(cls, cache: DynamicCache, visible: Tensor) -> KeyValues:
        """Read a cache out. The one place that knows how transformers 4 and 5 differ in it."""
        if hasattr(cache, "layers"):
            return cls([(layer.keys, layer.values) for layer in cache.layers], visible)
        return cls(list(zip(cache.key_cache, cache.value_cache, strict=True)), visible)

    def cache(self) -> DynamicCache:
        """A cache for the model; it appends to copies, these tensors stay as they are."""
        cache = DynamicCache()
        for index, (keys, values) in enumerate(self.layers):
            cache.update(keys, values, index)
        return cache

    def take(self, rows: Sequence[int]) -> KeyValues:
        """The rows with these numbers; a number may come more than once."""
        index = torch.tensor(rows, dtype=torch.long)

        def taken(tensor: Tensor) -> Tensor:
            return tensor.index_select(0, index.to(tensor.device))

        return KeyValues([(taken(keys), taken(values)) for keys, values in self.layers], taken(self.visible))

    def compact(self, inner: bool = False) -> KeyValues:
        """Move the visible columns of each row to the right and drop the columns that no row needs. With `inner`, what
        is hidden between a row's visible columns stays there."""
        needed = self.visible
        if inner:
            needed = (needed.cumsum(1) > 0) & (needed.flip(1).cumsum(1).flip(1) > 0)
        width = int(needed.sum(1).max())
        order = needed.long().sort(dim=1, stable=True).indices[:, needed.shape[1] - width :]

        def move(tensor: Tensor) -> Tensor:
            index = order.to(tensor.device)[:, None, :, None].expand(-1, tensor.shape[1], -1, tensor.shape[3])
            return tensor.gather(2, index)

        return KeyValues([(move(keys), move(values)) for keys, values in self.layers], self.visible.gather(1, order))


class _Past(DynamicCache):
    """A cache that says how long it is: `width` columns, whatever of them is visible."""

    width: int

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.width

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self.width + query_length, 0


class Before(_Past):
    """Keys and values of the tokens before a pass, in the layers from `first` on, which the pass reads and does not add
    to: a block that runs again in the backward pass finds the same."""

    def __init__(self, past: KeyValues, first: int) -> None:
        super().__init__()
        self._layers, self._first, self.width = past.layers, first, past.visible.shape[1]

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The keys and values of a layer with the pass's own after them."""
        before = self._layers[layer - self._first]
        return torch.cat([before[0].to(keys), keys], 2), torch.cat([before[1].to(values), values], 2)


class Slots(_Past):
    """Keys and values of a decoding batch, with room for the columns to come: a pass writes its own and copies nothing.

    Rows of different widths are padded on the left. The model's passes write after column `width` and leave `width` as
    it is; `advance` makes what they wrote part of the past, so a failed pass leaves no trace.
    """

    def __init__(self, parts: Sequence[KeyValues], room: int) -> None:
        super().__init__()
        self.rows = len(parts)
        self.width = max(part.visible.shape[1] for part in parts)
        self._visible = self._lay([part.visible for part in parts], room)
        layers = zip(*(part.layers for part in parts), strict=True)
        self._pairs = [tuple(self._lay(side, room) for side in zip(*pairs, strict=True)) for pairs in layers]

    def _lay(self, parts: Sequence[Tensor], room: int) -> Tensor:
        """(1, ..., width, ...) tensors of one row each, in one with columns up to `width + room`, nought elsewhere."""
        columns = 1 if parts[0].dim() == 2 else 2
        shape = list(parts[0].shape)
        shape[0], shape[columns] = len(parts), self.width + room
        whole = parts[0].new_zeros(shape)
        for row, part in enumerate(parts):
            width = part.shape[columns]
            whole[row : row + 1].narrow(columns, self.width - width, width).copy_(part)
        return whole

    @property
    def visible(self) -> Tensor:
        """The mask (rows, width)."""
        return self._visible[: self.rows, : self.width]

    def cache(self) -> Slots:
        """Itself: what a model's pass appends to."""
        return self

    def advance(self, visible: Tensor) -> None:
        """Take the last pass's columns in; `visible` (rows, columns) is their mask."""
        self._visible[: self.rows, self.width : self.width + visible.shape[1]] = visible
        self.width += visible.shape[1]

    def drop(self, row: int) -> None:
        """Remove a row; the last one takes its place."""
        self.rows -= 1
        self._visible[row] = self._visible[self.rows]
        for pair in self._pairs:
            for side in pair:
                side[row, :, : self.width] = side[self.rows, :, : self.width]

    def take(self, row: int) -> KeyValues:
        """One row, as views."""
        part = slice(row, row + 1), slice(None), slice(self.width)
        return KeyValues([(keys[part], values[part]) for keys, values in self._pairs], self.visible[part[0]])

    def keys(self, layer: int) -> Tensor:
        """The keys of a layer that are part of the past, as a view."""
        return self._pairs[layer][0][: self.rows, :, : self.width]

    # ---- what transformers asks of a cache

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the new columns of a layer; returns views of all of its columns."""
        end = self.width + keys.shape[2]
        all_keys, all_values = (whole[: self.rows, :, :end] for whole in self._pairs[layer])
        all_keys[:, :, self.width :], all_values[:, :, self.width :] = keys, values
        return all_keys, all_values
