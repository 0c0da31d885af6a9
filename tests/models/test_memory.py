"""What is said of memory, against the bytes that torch has: weights, what is beside trained ones, what passes keep."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from bitsandbytes.functional import quantize_4bit
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from grun_bench.methods.adapters.lora import Lora
from grun_bench.methods.trained_weights import WAYS, TrainedWeights
from grun_bench.models.lm import LM
from grun_bench.models.memory import (
    BESIDE,
    BESIDE_FLOAT32,
    FOUR_BITS,
    Kept,
    Shape,
    Training,
    Weights,
    activations,
    cache_bytes,
    empty_model,
    kept_by_block,
    training_memory,
)

TOKENS = 48


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_counted_without_any(make_lm: Callable[..., LM], dtype: str) -> None:
    model = make_lm(dtype=getattr(torch, dtype)).model
    empty = empty_model(model.config, dtype)
    assert all(each.device.type == "meta" for each in empty.parameters())
    assert Weights.of(empty) == Weights.of(model)
    assert Weights.of(empty).bytes(dtype) == sum(each.nbytes for each in model.parameters())


def test_a_weight_in_four_bits_is_as_large_as_bitsandbytes_has_it() -> None:
    packed, state = quantize_4bit(torch.randn(1024, 1024), blocksize=64, compress_statistics=True, quant_type="nf4")
    assert packed.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes == FOUR_BITS * 1024 * 1024


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_beside_trained_weights_is_what_one_step_leaves(way: str, dtype: torch.dtype) -> None:
    weight = nn.Parameter(torch.randn(64, 96).to(dtype))
    trained = TrainedWeights([weight], way)
    optimiser = trained.adamw(1e-3, (0.9, 0.999), 0.0)
    with trained.gathering():
        weight.square().sum().backward()
        optimiser.step()
    held = [value for value in trained.values if value is not weight]
    held += [each.grad for each in (weight, *trained.values) if each.grad is not None][:1]
    held += [each for each in optimiser.state[trained.values[0]].values() if torch.is_tensor(each) and each.dim()]
    said = BESIDE_FLOAT32 if dtype == torch.float32 else BESIDE[way]
    if (dtype, way) != (torch.float32, "compensated"):  # which keeps a rest of nought there
        assert sum(each.nbytes for each in held) == said * weight.numel()


def kept_bytes(model: nn.Module, embedded: Tensor) -> int:
    """Bytes of the tensors that the backward pass of a decoder needs, each once, without weights; rows are padded."""
    own = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        seen = (torch.arange(TOKENS) < TOKENS - 5).long()[None]
        states = model.model(inputs_embeds=embedded, attention_mask=seen, use_cache=False).last_hidden_state
    assert states.requires_grad
    return sum(each.untyped_storage().nbytes() for at, each in found.items() if at not in own)


@pytest.mark.parametrize(("kept", "dropout"), [("through", 0.0), ("inputs", 0.0), ("inputs", 0.1), ("weights", 0.0)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_a_block_keeps_is_what_torch_saves_of_it(kept: Kept, dropout: float, dtype: str) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 192, "num_attention_heads": 4, "num_key_value_heads": 2}

    def held(layers: int) -> int:
        config = LlamaConfig(vocab_size=64, num_hidden_layers=layers, **sizes)
        model = LlamaForCausalLM(config).to(getattr(torch, dtype)).train()
        embedded = torch.randn(1, TOKENS, 64).to(model.dtype).requires_grad_(kept == "through")
        model.requires_grad_(kept == "weights")
        if kept == "inputs":
            Lora(dropout=dropout).attach(model)
        return kept_bytes(model, embedded)

    shape = Shape.of(LlamaConfig(num_hidden_layers=4, **sizes))
    a_block = (held(4) - held(2)) / 2 / TOKENS
    said = kept_by_block(shape, kept, 4 if dtype == "float32" else 2, dropout > 0)
    assert said == pytest.approx(a_block, rel=0.15)


def test_the_parts_of_a_training_add_up() -> None:
    shape, weights = Shape(4, 64, 192, 64, 64, 1000), Weights(1_000_000, 600_000)
    training = Training(
        own=1_000_000, full_precision=0, blocks=4, kept="weights", tokens=512, answers=64, chunked=False
    )
    whole = training_memory(shape, weights, training, "float32", kind="cpu")
    assert whole.device["weights"] + whole.device["training"] == 16 * 1_000_000
    assert training_memory(shape, weights, training, "bfloat16").device["training"] == 16 * 1_000_000
    frozen = Training(own=0, full_precision=10_000, blocks=4, kept="through", tokens=512, answers=64)
    rounded = training_memory(shape, weights, frozen, "bfloat16", rounded=True)
    assert rounded.device["weights"] == 2 * 400_000 + int(FOUR_BITS * 600_000)
    assert rounded.device["training"] == 16 * 10_000
    # inputs of blocks alone, and one block as it is
    light = Training(**{**vars(frozen), "checkpointing": True})
    assert activations(shape, light, 2) == 512 * (2 * 4 * 64 * 2 + kept_by_block(shape, "through", 2))
    assert cache_bytes(shape, 3, 10, 2) == 2 * 4 * 64 * 3 * 10 * 2
