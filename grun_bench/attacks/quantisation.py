"""Quantised weights: what a method moved by less than a rounding step, rounding puts back.

The weights of the decoder blocks' linear layers are rounded to 8 or 4 bits (the attack of Zhang et al. 2024, arXiv
2410.16454); an adapter keeps its precision, as in the GRUN paper. Embeddings, norms and the vocabulary head stay as
they are, whether head and embeddings are tied or not: bitsandbytes leaves them alone too.

Rounding is bitsandbytes' own. The products are the model's own, in its dtype, with the weights as they come back from
their bits, so they do not depend on the processor nor on what else is in a batch. With bitsandbytes' layers they do:
`Linear8bitLt` also rounds activations and holds back columns that are large in any row of the batch; `Linear4bit`
rounds activations to bfloat16 on CPUs that multiply in it, and refuses there layers whose sizes are no multiples of 32
and 64, as small models have. The price is memory: rounded weights are as large as before.

4-bit weights go through as one long row: where a row is no whole number of blocks, version
0.50.2 gives them back with other blocks' scales on CPUs with AVX-512.

Tried with torch 2.13 on CPU, transformers 4.45.1 and 5.24.0, in fp32 and bfloat16:

- bitsandbytes 0.50.2, the paper's library: rounds everywhere. (transformers 4.45.1 cannot load models through it, its
  check of devices fails; nothing here needs that.)
- torchao 0.18.0: int8 works; packed int4 asks for one more package, mslk, and has no layout for CPUs.
- optimum-quanto 0.2.7: works, after compiling C++ for most of a minute in the first int4 product.
- hqq 0.2.8.post1: works; it fits zero points of its own, which are nobody else's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated, Any

from torch import Tensor

from grun_bench.attacks.base import Subject
from grun_bench.attacks.weights import KEPT, base_linears, base_parameters, restored
from grun_bench.core.errors import Inapplicable
from grun_bench.core.patches import quiet
from grun_bench.core.registry import attack
from grun_bench.core.settings import each, one_of
from grun_bench.models.forward import decoder_layers

#: weights that share a scale in 4 bits: bitsandbytes' default
BLOCK = 64


def rounded_int8(weight: Tensor) -> Tensor:
    """(out, in) weights after rounding to 8 bits: a whole number from -127 to 127, times the row's largest magnitude,
    by 127.

    The weights of LLM.int8() (Dettmers et al. 2022, arXiv 2208.07339), which are fp16 before.
    """
    functional = _bitsandbytes()
    codes, largest, _ = functional.int8_vectorwise_quant(weight.detach().half().contiguous())
    return functional.int8_vectorwise_dequant(codes, largest).to(weight.dtype)


def rounded_4bit(weight: Tensor, code: str) -> Tensor:
    """(out, in) weights after rounding to 4 bits: one of 16 values times the largest magnitude of the block.

    A block is BLOCK consecutive weights, row after row. `code` names the 16 values: `nf4`, quantiles of the normal
    distribution (QLoRA, Dettmers et al. 2023, arXiv 2305.14314, sec. 3), or `fp4`, floating-point numbers of 4 bits.
    """
    functional = _bitsandbytes()
    packed, state = functional.quantize_4bit(weight.detach().flatten(), blocksize=BLOCK, quant_type=code)
    return functional.dequantize_4bit(packed, state).view_as(weight)


@attack("int8", access="weights", version=1, utility=KEPT, extra=("bitsandbytes", "quantisation"))
def int8(subject: Subject) -> Iterator[tuple[str, Subject]]:
    """The base's weights rounded to 8 bits (bitsandbytes), an adapter in full precision."""
    yield from _quantised(subject, {"int8": rounded_int8})


@attack("int4", access="weights", version=1, utility=KEPT, extra=("bitsandbytes", "quantisation"))
def int4(
    subject: Subject, *, codes: Annotated[Sequence[str], each(one_of("nf4", "fp4"))] = ("nf4", "fp4")
) -> Iterator[tuple[str, Subject]]:
    """The base's weights rounded to 4 bits (bitsandbytes), an adapter in full precision."""
    yield from _quantised(subject, {code: partial(rounded_4bit, code=code) for code in codes})


def _quantised(subject: Subject, ways: dict[str, Callable[[Tensor], Tensor]]) -> Iterator[tuple[str, Subject]]:
    weights = [linear.weight for linear in base_linears(subject)]
    _check(subject, weights)
    for name, rounded in ways.items():
        with restored(weights):
            for weight in weights:
                weight.data = rounded(weight)
            yield name, subject


def _check(subject: Subject, weights: Sequence[Tensor]) -> None:
    """Raises Inapplicable where weights have been rounded before or would not be."""
    linear, base = {id(weight) for weight in weights}, {id(parameter) for parameter in base_parameters(subject)}
    for name, parameter in decoder_layers(subject.lm.model).named_parameters():
        if id(parameter) not in base or parameter.dim() < 2:
            continue
        if not parameter.is_floating_point():
            raise Inapplicable(f"the base is quantised already ({name} of the decoder blocks is {parameter.dtype}).")
        if id(parameter) not in linear:
            raise Inapplicable(f"{name} of the decoder blocks is no linear layer's weight: it would not be quantised.")


def _bitsandbytes() -> Any:
    with quiet("bitsandbytes"):  # on some CPUs it warns on import of a kernel that it lacks; nothing here needs one
        from bitsandbytes import functional
    return functional
