"""Sliding windows. A model's window counts columns, whatever is in them, so nothing may lie between a row's tokens."""

from __future__ import annotations

import torch
import transformers
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from grun_bench.models.kv_cache import KeyValues
from grun_bench.models.passes import Passes, alike

#: how names of windows in configurations end
NAMES = ("window", "window_size", "window_len", "local_attention", "chunk_size")


def counts_columns(passes: Passes, columns: int) -> bool:
    """Whether a token that comes after padding, up to this many columns in all, is not what it is without it.

    A trial, for models whose configuration names something of the kind: a row with the padding inside beside the same
    row with it in front.
    """
    config = passes.model.config.get_text_config()
    if not _has_window(passes.model):
        return False
    past = passes.run([[1, 2, 3]], [range(3)], None, last=0).past
    gap = max(0, min(columns, getattr(config, "max_position_embeddings", None) or columns) - 4)

    def both(tensor: Tensor, *rest: int) -> Tensor:
        return torch.cat([pad(tensor, (*rest, 0, gap)), pad(tensor, (*rest, gap, 0))])

    pairs = [(both(keys, 0, 0), both(values, 0, 0)) for keys, values in past.layers]
    states = passes.run([[4], [4]], [[3], [3]], KeyValues(pairs, both(past.visible))).states
    return not alike(states[0], states[1])


def overfills(model: PreTrainedModel, columns: int) -> bool:
    """Whether a model with a window has no room for so many columns: GPT-Neo's mask is as wide as its context."""
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return _has_window(model) and columns > (room or columns)


def _has_window(model: PreTrainedModel) -> bool:
    config = model.config.get_text_config()
    return any(value and name.endswith(NAMES) for name, value in vars(config).items())


def own_window(model: PreTrainedModel) -> int | None:
    """The window that a model keeps in a cache of its own alone, as Gemma 2 does in transformers 4; None without one.

    On other keys and values of earlier tokens it sees all of them.
    """
    config = model.config.get_text_config()
    hybrid = hasattr(transformers, "HybridCache") and getattr(config, "cache_implementation", None) == "hybrid"
    return config.sliding_window if hybrid else None
