"""Which rows each step sees: every row once an epoch, retain rows in turn."""

from __future__ import annotations

import math
from collections import Counter
from itertools import islice
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from grun_bench.methods.draws import pair_batches
from grun_bench.methods.order import shuffled, shuffled_batches, split


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 4), st.integers(1, 12), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_pair_batches(forget: int, retain: int, epochs: int, size: int, seed: int) -> None:
    batches = pair_batches(forget, retain, epochs, size, seed)
    steps = math.ceil(forget / size)
    assert len(batches) == epochs * steps
    for epoch in range(epochs):
        rows = [row for part, _ in batches[epoch * steps : (epoch + 1) * steps] for row in part]
        assert sorted(rows) == list(range(forget))
    assert all(len(first) == len(second) and len(first) <= size for first, second in batches)
    drawn = [row for _, part in batches for row in part]
    assert set(drawn) <= set(range(retain))
    for start in range(0, len(drawn) - retain + 1, retain):
        assert sorted(drawn[start : start + retain]) == list(range(retain))
    counts = Counter(drawn)
    assert max(counts.values()) - min(counts[row] for row in range(retain)) <= 1


def test_pair_batches_depend_on_the_seed_alone() -> None:
    assert pair_batches(20, 50, 2, 4, 1) == pair_batches(20, 50, 2, 4, 1) != pair_batches(20, 50, 2, 4, 2)
    first, second = pair_batches(20, 50, 2, 20, 1)
    assert first[0] != second[0]


def test_without_a_retain_set_no_retain_row_is_drawn() -> None:
    assert [(sorted(rows), kept) for rows, kept in pair_batches(4, 0, 1, 4, 0)] == [([0, 1, 2, 3], [])]


@given(st.lists(st.integers(), max_size=30), st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_batches_laid_end_to_end_are_the_rows(rows: list[int], size: int) -> None:
    parts = list(split(rows, size))
    assert [row for part in parts for row in part] == rows
    assert all(len(part) == size for part in parts[:-1]) and all(0 < len(part) <= size for part in parts)


@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_every_row_once_each_time_through(count: int, times: int, seed: int) -> None:
    endless = list(islice(shuffled(range(count), Random(seed)), times * count))
    epochs = [row for part in shuffled_batches(range(count), times, 7, Random(seed)) for row in part]
    for order in (endless, epochs):
        assert all(sorted(order[start : start + count]) == list(range(count)) for start in range(0, len(order), count))
    assert endless == epochs
