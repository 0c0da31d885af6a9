"""How closely a model that is made again must answer as its row says."""

from __future__ import annotations

import pytest
import torch

from grun_bench.runs.made_again import LOGITS, SAME_LOSS, allowed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_a_dtype_rounds_is_no_other_model(dtype: torch.dtype) -> None:
    """The log probability of a token, of logits that are each rounded once, against the same in float64."""
    torch.manual_seed(0)
    logits = (torch.rand(200, 50, dtype=torch.float64) * 2 - 1) * LOGITS
    rounded = logits.to(dtype).double()
    change = (rounded.log_softmax(-1) - logits.log_softmax(-1)).abs().max().item()
    assert change <= allowed(dtype)
    # and not much more is allowed than that, where rounding is what it is for
    assert allowed(dtype) == SAME_LOSS or allowed(dtype) < 4 * change
