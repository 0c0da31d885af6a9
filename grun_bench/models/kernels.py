"""Faster kernels for what models ask of torch, without gradients: the same sums, up to their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from grun_bench.core.patches import shared_key_heads
from grun_bench.models.devices import device_of


@contextmanager
def fast_kernels(model: PreTrainedModel) -> Iterator[None]:
    """Within this block the model's linear layers and attention run by the kernels of this file. No gradients."""
    own = fast_linears(device_of(model))
    heads = shared_key_heads(model) if model.config._attn_implementation == "sdpa" else nullcontext(False)
    with (
        own,
        heads as shared,
        _Replaced({scaled_dot_product_attention: grouped_attention}) if shared else nullcontext(),
    ):
        yield


def fast_linears(device: torch.device) -> AbstractContextManager[Any]:
    """Within this block linear layers on this device run by `fast_linear`, where that is another kernel."""
    faster = device.type == "cpu" and _has_avx512()
    return _Replaced({linear: fast_linear}) if faster else nullcontext()


class _Replaced(TorchFunctionMode):
    """Other functions in the place of some of torch's."""

    def __init__(self, functions: dict[Any, Callable[..., Any]]) -> None:
        super().__init__()
        self._functions = functions

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._functions.get(function, function)(*args, **(kwargs or {}))


@cache
def _has_avx512() -> bool:
    return torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


def fast_linear(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear` by oneDNN in fp32 on CPUs with AVX-512; as it is elsewhere.

    torch's own goes through MKL, which uses AVX-512 on the processors of its maker only, and so takes twice the time on
    others. torch reaches oneDNN's matrix product by an operator of its compiler's.
    """
    in_fp32 = states.dtype == weight.dtype == torch.float32 and type(weight) in (Tensor, nn.Parameter)
    if not in_fp32 or not states.numel() or states.device.type != "cpu" or not _has_avx512():
        return linear(states, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")


def grouped_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **options: Any
) -> Tensor:
    """Scaled dot-product attention of (batch, heads, queries, dimension) with fewer key heads than query heads.

    Query heads that share a key head are handed over as one head with more queries, so nothing is repeated.
    """
    options.pop("enable_gqa", None)
    batch, heads, length, dimension = query.shape
    share = heads // key.shape[1]
    if share == 1 or attn_mask is None or attn_mask.shape[1] > 1:
        key, value = (each if share == 1 else each.repeat_interleave(share, 1) for each in (key, value))
        return scaled_dot_product_attention(query, key, value, attn_mask, *args, **options)
    grouped = query.reshape(batch, key.shape[1], share * length, dimension)
    mask = attn_mask.expand(-1, -1, length, -1).repeat(1, 1, share, 1)
    return scaled_dot_product_attention(grouped, key, value, mask, *args, **options).reshape(query.shape)
