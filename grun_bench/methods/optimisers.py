"""AdamW in torch, and bitsandbytes' with its two means in 8 bits, in memory that is paged to the host, or both.

In 8 bits a mean is one of 256 values of its block of 256 weights, by the block's largest (Dettmers et al. 2022, arXiv
2110.02861); weights of fewer than 4,096 numbers keep theirs in float32. Paged ones lie in CUDA's unified memory: what
does not fit on the GPU is moved to host memory and back (QLoRA, arXiv 2305.14314, sec. 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, get_args

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from grun_bench.core import processes
from grun_bench.core.errors import Refused
from grun_bench.core.patches import quiet
from grun_bench.tasks.task import Optimiser

#: the usual one first
OPTIMISERS: tuple[str, ...] = get_args(Optimiser)
USUAL = OPTIMISERS[0]
#: what they are called in bitsandbytes
_CLASSES = {"adamw8bit": "AdamW8bit", "paged": "PagedAdamW", "paged8bit": "PagedAdamW8bit"}
#: those whose means lie in memory that is paged, which CUDA alone has
PAGED = ("paged", "paged8bit")


def check_optimiser(name: str, device: str, way: str = "float32", divides: bool = True) -> None:
    """Raises Refused where there is no such optimiser on a device, for weights that are trained in this way.

    `divides` says that several processes would each have a part of the weights.
    """
    said = f"optimiser={name}"
    if name == USUAL:
        return
    if find_spec("bitsandbytes") is None:
        raise Refused(f"{said} needs bitsandbytes: pip install 'grun-bench[quantisation]'.")
    if name in PAGED and not device.startswith("cuda"):
        raise Refused(f"{said}: memory is paged between a GPU and its host, and this run is on {device}.")
    if way == "compensated":
        raise Refused(f"{said}: trained_as=compensated is an optimiser of its own; choose one of the two.")
    if divides and processes.announced() > 1:
        raise Refused(
            f"{said} in {processes.announced()} processes: its blocks would be those of each process's part of a "
            f"weight, and numbers depend on how many there are; use optimiser={USUAL}."
        )


def adamw(name: str, values: Sequence[nn.Parameter], **options: Any) -> Optimizer:
    """AdamW (arXiv 1711.05101) of this name."""
    if name == USUAL:
        # one pass over the memory in place of a dozen; in fewer bits it would round less often than the official code
        return AdamW(values, **options, fused=all(value.dtype == torch.float32 for value in values))
    with quiet("bitsandbytes"):
        from bitsandbytes import optim
    kind: type[Optimizer] = getattr(optim, _CLASSES[name])
    return kind(values, **options)
