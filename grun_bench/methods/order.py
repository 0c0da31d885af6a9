"""In which order training sees its rows: shuffled anew each time through, cut into batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import TypeVar

Row = TypeVar("Row")


def split(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    """Consecutive batches of `size` rows; the last one may be smaller."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def shuffled(rows: Sequence[Row], rng: Random) -> Iterator[Row]:
    """The rows in random order, then again in another, without end: none comes twice before all came."""
    while rows:
        yield from rng.sample(rows, len(rows))


def shuffled_batches(rows: Sequence[Row], epochs: int, size: int, rng: Random) -> Iterator[Sequence[Row]]:
    """Batches of `size` rows, each row once an epoch in random order; the last batch of an epoch may be smaller.

    An epoch's order is drawn when its first batch is asked for.
    """
    for _ in range(epochs):
        yield from split(rng.sample(rows, len(rows)), size)
