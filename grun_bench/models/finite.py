"""Whether what a model says is made of numbers: no file of records can hold any other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any

import torch

from grun_bench.core.errors import Diverged
from grun_bench.results.record import Record

#: what a number that is not finite may be due to besides the settings, by dtype of the arithmetic
HOLDS = {torch.float16: " in float16, which holds no number above 65,504 (bfloat16 and float32 do)"}


def check_finite(records: Iterable[Record], arithmetic: torch.dtype) -> None:
    """Raises Diverged, with the first, where what a model says of a row is not finite.

    Weights that are all finite say so too, where they have grown too large to be computed with in `arithmetic`.
    """
    for record in records:
        if odd := _odd(record):
            place, number = odd
            raise Diverged(
                f"what the model says is not finite{HOLDS.get(arithmetic, '')} (row {record.index} of '{record.set}': "
                f"{place.removeprefix('.')} {number:g}); where it was trained, lower lr or the weights of the loss."
            )


def _odd(value: Any) -> tuple[str, float] | None:
    """The first number in a value that is not finite, with its place; None where all are finite."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ("", value)
    if is_dataclass(value):
        inner: Iterable[tuple[Any, Any]] = vars(value).items()
    elif isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    else:
        return None
    return next(((f".{name}{odd[0]}", odd[1]) for name, each in inner if (odd := _odd(each))), None)
