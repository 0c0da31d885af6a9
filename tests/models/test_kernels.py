"""Faster kernels: the sums of torch's own, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import linear, scaled_dot_product_attention

from grun_bench.models.kernels import fast_kernels, fast_linear, grouped_attention
from grun_bench.models.lm import LM

sizes = st.integers(0, 5)


@settings(deadline=None)
@given(lead=st.lists(sizes, max_size=3), inner=st.integers(1, 70), outer=st.integers(1, 40), data=st.data())
def test_linear_is_the_product(lead: list[int], inner: int, outer: int, data: st.DataObject) -> None:
    """Against the product in float64, for every number of leading dimensions, transposed weights and no rows."""
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    states = torch.randn(*lead, inner, generator=draw)
    weight = torch.randn(outer, inner, generator=draw)
    if data.draw(st.booleans()):
        weight = torch.randn(inner, outer, generator=draw).T
    bias = torch.randn(outer, generator=draw) if data.draw(st.booleans()) else None
    expected = linear(states.double(), weight.double(), None if bias is None else bias.double())
    with torch.no_grad():
        got = fast_linear(states, weight, bias)
    assert got.shape == expected.shape and got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("share", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("mask", [True, False])
def test_attention_of_shared_heads(share: int, length: int, mask: bool) -> None:
    """As if each query head had its own copy of the keys and values."""
    draw = torch.Generator().manual_seed(share)
    query = torch.randn(2, 2 * share, length, 8, generator=draw)
    key, value = (torch.randn(2, 2, 9, 8, generator=draw) for _ in range(2))
    seen = torch.rand(2, 1, length, 9, generator=draw) < 0.7
    seen[..., 0] = True
    bias = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min) if mask else None
    expected = scaled_dot_product_attention(
        query, *(each.repeat_interleave(share, 1) for each in (key, value)), attn_mask=bias
    )
    torch.testing.assert_close(grouped_attention(query, key, value, bias), expected, rtol=1e-5, atol=1e-5)


def test_a_model_gives_what_it_gave(lm: LM) -> None:
    ids = torch.arange(10, 30).reshape(2, 10)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    with torch.no_grad():
        own = lm.model(input_ids=ids, attention_mask=mask).logits
        with fast_kernels(lm.model):
            fast = lm.model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(fast[mask.bool()], own[mask.bool()], rtol=1e-5, atol=1e-5)


def test_nothing_is_left_behind(lm: LM) -> None:
    def groups() -> list[int]:
        return [m.num_key_value_groups for m in lm.model.modules() if hasattr(m, "num_key_value_groups")]

    before, weight = groups(), nn.Parameter(torch.ones(3, 3))
    assert set(before) == {2}
    with pytest.raises(RuntimeError, match="stop"), fast_kernels(lm.model):
        assert set(groups()) == {1}
        raise RuntimeError("stop")
    assert groups() == before
    # gradients still come through torch's own
    linear(torch.ones(2, 3), weight).sum().backward()
    assert weight.grad is not None
