"""Bases in four bits: frozen, with what is trained beside them in full precision, as QLoRA has it (Dettmers et al.
2023, arXiv 2305.14314, sec. 3).

bitsandbytes' `Linear4bit` holds the weights of the decoder blocks' linear layers in blocks of 64 with one scale each,
the scales in 8 bits themselves (double quantisation): 0.516 bytes a weight. Products are in the dtype of the run, with
the weights as they come back from their bits. Embeddings, norms and the vocabulary head stay in that dtype.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

import torch
import transformers
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from grun_bench.core.errors import ModelError

#: weights that share a scale
BLOCK = 64


def quantisation(code: str, dtype: str) -> BitsAndBytesConfig:
    """How transformers is to load a model whose linear layers are rounded to four bits. Raises ModelError."""
    if transformers.__version__.startswith("4."):
        raise ModelError(f"--quantise needs transformers 5; {transformers.__version__} is installed.")
    if find_spec("bitsandbytes") is None:
        raise ModelError("--quantise needs bitsandbytes: pip install 'grun-bench[quantisation]'.")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=code,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def quantised_linears(model: nn.Module) -> list[nn.Linear]:
    """The linear layers whose weights are whole numbers in place of floating-point ones."""
    return [
        each
        for each in model.modules()
        if isinstance(each, nn.Linear) and not each.weight.is_floating_point() and hasattr(each.weight, "quant_state")
    ]


def is_quantised(model: nn.Module) -> bool:
    """Whether some weights are no floating-point numbers, and so cannot be trained."""
    return any(not parameter.is_floating_point() for parameter in model.parameters())


def settled(model: PreTrainedModel) -> str | None:
    """Make products what the module says, on processors too; the reason, in words, where that cannot be.

    On those that multiply in bfloat16 `Linear4bit` packs its weights anew in evaluation mode and rounds activations to
    bfloat16, whatever the dtype; and where a row is no whole number of blocks, version 0.50.2 gives weights back with
    other blocks' scales.
    """
    linear: Any
    for linear in quantised_linears(model):
        if linear.weight.device.type == "cpu":
            linear.support_avx512bf16_for_cpu = False
            if (width := linear.in_features) % BLOCK:
                return f"a row of its weights is {width} long, which in four bits must be a multiple of {BLOCK}"
    return None


def count(parameter: nn.Parameter) -> int:
    """How many weights a parameter holds: two to a byte where bitsandbytes packed them."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)
