"""How much memory a training takes, in bytes, from the shapes of a model: nothing is loaded and nothing allocated.

What it says is the peak of what torch holds for one process, at the end of the forward pass or in the optimiser's
step, whichever is more: kernels' workspaces, the libraries themselves and holes in the allocator come on top. The
formulas are those of Llama's decoder block as transformers has it, with fused attention; other blocks of the same parts
are close.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from grun_bench.models.head import LOGIT_BYTES

#: bytes of a number, by dtype
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
#: bytes of a weight in four bits: its code, and for a block of 64 a scale of 8 bits, which share a float32 by 256
#: (QLoRA, arXiv 2305.14314, sec. 3: double quantisation)
FOUR_BITS = 0.5 + 1 / 64 + 4 / (64 * 256)
#: bytes beside a trained weight of fewer than 32 bits: the copy or the rest, the gradient and AdamW's two means (see
#: `methods/trained_weights`); a weight in float32 has no copy
BESIDE = {"float32": 4 + 4 + 8, "compensated": 2 + 2 + 6, "own": 2 + 4}
BESIDE_FLOAT32 = 4 + 8
#: of these AdamW's two means; in 8 bits they have a float32 for each 256 (see `methods/optimisers`)
MEANS = {"float32": 8, "own": 4}
MEANS_8BIT = 2 * (1 + 4 / 256)

#: what the backward pass needs of a block: `through`, where gradients only pass; `inputs`, those of its linear layers
#: too, for updates beside them; `weights`, what its own weights' gradients take
Kept = Literal["through", "inputs", "weights"]


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder: `attention` and `keys` are heads x dimension of the queries and of the keys."""

    layers: int
    hidden: int
    intermediate: int
    attention: int
    keys: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> Shape:
        """The sizes that a model's configuration says. Raises KeyError for one that does not say them."""
        said = config.get_text_config().to_dict()
        heads, hidden = said["num_attention_heads"], said["hidden_size"]
        size = said.get("head_dim") or hidden // heads
        key_heads = said.get("num_key_value_heads") or heads
        inner = said.get("intermediate_size") or 4 * hidden
        return cls(said["num_hidden_layers"], hidden, inner, heads * size, key_heads * size, said["vocab_size"])


@dataclass(frozen=True)
class Weights:
    """How many weights a model has: in all, and of these in the linear layers of its blocks, which can be rounded."""

    parameters: int
    linear: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> Weights:
        """Those of a model, which may be on the device `meta`; a tied vocabulary head is counted once."""
        head = model.get_output_embeddings()
        inner = [each for each in model.modules() if isinstance(each, nn.Linear) and each is not head]
        return cls(sum(each.numel() for each in model.parameters()), sum(each.weight.numel() for each in inner))

    def bytes(self, dtype: str, rounded: bool = False) -> int:
        """Their size in this dtype, the linear ones in four bits where they are rounded."""
        four = self.linear if rounded else 0
        return (self.parameters - four) * BYTES[dtype] + int(four * FOUR_BITS)


def empty_model(config: Any, dtype: str = "float32") -> PreTrainedModel:
    """A model of a configuration without any numbers, on the device `meta`."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype))


@dataclass(frozen=True)
class Training:
    """A training as far as its memory goes.

    `own` and `full_precision` count the trained weights: in the model's dtype, and in float32 in a model below it.
    `way` is what the first are trained as. `blocks` are the decoder blocks that gradients run through, and `kept` what
    these need of each. `tokens` are those of one pass that blocks run on, padding included, `answers` those whose
    logits are taken; `sides` how many passes a step keeps until its backward pass (forget and retain rows). `chunked`
    says that the vocabulary head is frozen: logits are there a few at a time.
    """

    own: int
    full_precision: int
    blocks: int
    kept: Kept
    tokens: int
    answers: int
    sides: int = 2
    way: str = "float32"
    checkpointing: bool = False
    chunked: bool = True
    dropout: bool = False
    #: bytes of what lies beside the model and is not trained
    buffers: int = 0
    #: bytes of frozen parts that are kept over the training, in host memory (see `methods/frozen`)
    trunk: int = 0
    #: whether the target's trained weights are kept beside those that change
    target: bool = False
    #: whether AdamW's means are in 8 bits, and whether they can be paged to host memory
    bits8: bool = False
    paged: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes by what they are for; `host` are those in host memory where the model runs on a GPU."""

    device: Mapping[str, int]
    host: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """What is on the device, at the peak."""
        return sum(self.device.values())


def training_memory(
    shape: Shape, weights: Weights, training: Training, dtype: str, rounded: bool = False, kind: str = "cuda"
) -> Memory:
    """The peak of a training. `kind` is that of the device: cpu or cuda."""
    size, trained = BYTES[dtype], training.own + training.full_precision
    states = training.own * (BESIDE_FLOAT32 if size == 4 else BESIDE[training.way])
    states += training.full_precision * (4 + BESIDE_FLOAT32)
    less, host = _other_means(training, size)
    states -= less
    # what a pass leaves is gone in the optimiser's step, where torch has one more number a weight on GPUs (foreach)
    passing = activations(shape, training, size) + _logits(shape, training, size, kind)
    stepping = trained * 4 if kind == "cuda" else 0
    device = {
        # adapters below full precision are weights too, whose values BESIDE does not have
        "weights": weights.bytes(dtype, rounded) + _beside(training, size),
        "training": states + (training.own * size if training.target else 0),
        "passes": max(passing, stepping),
    }
    if kind == "cpu":
        return Memory(device | {"frozen parts": training.trunk})
    return Memory(device, {"frozen parts": training.trunk} | ({"paged means": host} if host else {}))


def _other_means(training: Training, size: int) -> tuple[int, int]:
    """Bytes that the device is spared by means in 8 bits or in paged memory, and those that can be on the host.

    Paged ones are on the device only as far as there is room.
    """
    if not (training.bits8 or training.paged):
        return 0, 0
    of_own = MEANS["own" if size < 4 and training.way == "own" else "float32"]
    usual = training.own * of_own + training.full_precision * MEANS["float32"]
    kept = int((training.own + training.full_precision) * (MEANS_8BIT if training.bits8 else MEANS["float32"]))
    return (usual, kept) if training.paged else (usual - kept, 0)


def _beside(training: Training, size: int) -> int:
    """What lies beside the model: trained weights in its dtype that are none of its own, and what is not trained."""
    return training.buffers + (0 if training.kept == "weights" else training.own * size)


def kept_by_block(shape: Shape, kept: Kept, size: int, dropout: bool = False) -> int:
    """Bytes that a decoder block keeps of one token for its backward pass.

    With h the hidden size, f the inner one, a the width of queries: RMSNorm keeps its input, h each of two, in float32;
    attention its queries, keys, values and output, 4 a, for keys that several queries share are repeated where rows are
    padded; the gated MLP the gate, its SiLU and the other half, 3 f. `inputs` are the two normalised states,
    attention's output and the product of the MLP, 2 h + a + f; where updates are in another dtype than the model, in
    float32, each linear layer has its own copy of its input, and with dropout that and a mask of the same size.
    `weights` are those inputs and the normalised states before they are scaled, 2 h.
    """
    norms, attention, inner = 2 * shape.hidden, 4 * shape.attention, 3 * shape.intermediate
    inputs = 2 * shape.hidden + shape.attention + shape.intermediate
    found = norms * 4 + (attention + inner) * size
    if kept == "weights":
        return found + (inputs + 2 * shape.hidden) * size
    if kept == "inputs":
        each = (5 * shape.hidden + shape.attention + shape.intermediate) * 4
        return found + (2 * each if dropout else each if size < 4 else inputs * size)
    return found


def activations(shape: Shape, training: Training, size: int) -> int:
    """What the passes of a step keep until the backward pass: of all blocks; or of all their inputs and one block."""
    block = kept_by_block(shape, training.kept, size, training.dropout)
    if not training.checkpointing:
        return training.tokens * training.sides * training.blocks * block
    return training.tokens * (training.sides * training.blocks * shape.hidden * size + block)


def _logits(shape: Shape, training: Training, size: int, kind: str) -> int:
    """Logits and their gradients: with a frozen head two float32 tables of a chunk and one of the model's dtype, beside
    the gradients of states; else of all answer tokens the logits, their float32 copy below it and the log probabilities
    of all sides, and one gradient."""
    row = shape.vocabulary
    if training.chunked:
        chunk = min(LOGIT_BYTES[kind], training.answers * row * 4)
        return chunk * (8 + size) // 4 + training.sides * training.answers * shape.hidden * size
    side = row * ((0 if size == 4 else size) + 4 + 4)
    return training.answers * (training.sides * side + row * 4)


def cache_bytes(shape: Shape, rows: int, columns: int, size: int) -> int:
    """Keys and values of rows of so many columns."""
    return 2 * shape.layers * shape.keys * rows * columns * size


def trunk_bytes(shape: Shape, tokens: int, prompt_tokens: int, blocks: int, size: int) -> int:
    """What frozen first blocks gave for `tokens`, and the keys and values of `prompt_tokens` in the `blocks` after
    them."""
    return size * (tokens * shape.hidden + 2 * blocks * shape.keys * prompt_tokens)
