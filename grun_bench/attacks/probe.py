"""The logit lens (nostalgebraist 2020): what the model would answer if it ended in the middle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from grun_bench.attacks.base import Subject
from grun_bench.core.registry import attack
from grun_bench.core.settings import between, each
from grun_bench.models.forward import decoder_layers, truncated


@attack("probe", access="weights", version=1)
def probe(
    subject: Subject, *, depths: Annotated[Sequence[float], each(between(0, 1))] = (0.5, 0.65, 0.8, 0.9)
) -> Iterator[tuple[str, Subject]]:
    """The answer read from middle layers: the first decoder blocks, then final norm and vocabulary head (logit lens).

    `depths` are the shares of the blocks that run, rounded down.
    """
    count = len(decoder_layers(subject.lm.model))
    for number in sorted({_kept(depth, count) for depth in depths}):
        with truncated(subject.lm.model, number):
            yield f"layer{number}", subject


def _kept(depth: float, count: int) -> int:
    """How many of `count` blocks a depth is: at least one and not all."""
    return min(max(1, int(depth * count)), count - 1)
