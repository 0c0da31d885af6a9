"""Which rows each step sees: every row once an epoch, retain rows in turn."""

from __future__ import annotations

import math
from collections import Counter
from itertools import islice
from random import Random

import pytest
import torch
from conftest import FORGET
from hypothesis import given, settings
from hypothesis import strategies as st

from grun_bench.methods.draws import Draw, draw_batches, encode_rows, pair_batches
from grun_bench.methods.order import shuffled, shuffled_batches, split
from grun_bench.methods.recipes import Recipe
from grun_bench.models.batch import Encoded
from grun_bench.models.lm import LM


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


# --- what recipes say of it -------------------------------------------------------------------------------------------


def draws_of(forget: int, retain: int, refusals: int = 0, **recipe: object) -> list[Draw]:
    """The draws of a training on so many rows, with so many refusals to each."""
    counts = {"forget": forget, "retain": retain} | ({"idk": forget * refusals} if refusals else {})
    sequences = {name: [Encoded([0], [1])] * count for name, count in counts.items()}
    return draw_batches(sequences, Recipe(**recipe), 0)


def met(draws: list[Draw], name: str, of_each: int = 1) -> dict[int, list[int]]:
    """Forget row -> what stood beside it, epoch after epoch."""
    found: dict[int, list[int]] = {}
    for draw in draws:
        for row, other in zip(draw.rows["forget"], draw.rows[name], strict=True):
            found.setdefault(row, []).append(other - row * of_each if name == "idk" else other)
    return found


def test_fixed_partners_are_those_of_the_official_code() -> None:
    """As its data set class draws them: torch's own generator seeded with the row, in all epochs the same."""
    partners = met(draws_of(200, 3800, epochs=3, batch_size=16, partner="fixed"), "retain")
    assert all(len(each) == 3 and len(set(each)) == 1 for each in partners.values())
    with torch.random.fork_rng(devices=[]):
        for row, (first, *_) in partners.items():
            torch.manual_seed(row)
            assert first == (row + torch.randint(0, 3800, (1,)).item()) % 3800
    assert len({each[0] for each in partners.values()}) == 195


def test_other_answers_are_drawn_as_the_recipe_says() -> None:
    anew, fixed, each = (
        met(draws_of(30, 30, 5, epochs=10, batch_size=8, others=how), "idk", 5) for how in ("random", "fixed", "each")
    )
    assert len({tuple(row) for row in anew.values()}) == 30
    assert all(len(set(row)) == 1 for row in fixed.values()) and len({row[0] for row in fixed.values()}) == 5
    # in ten epochs each of five twice
    assert all(Counter(row) == dict.fromkeys(range(5), 2) for row in each.values())


@pytest.mark.parametrize(("steps", "accumulate"), [(150, 1), (80, 16), (3, 2)])
def test_steps_stand_in_place_of_epochs(steps: int, accumulate: int) -> None:
    draws = draws_of(10, 7, steps=steps, accumulate=accumulate, batch_size=4, epochs=1)
    assert len(draws) == steps * accumulate
    assert [draw.progress for draw in draws] == [number / len(draws) for number in range(len(draws))]


@pytest.mark.long
@given(
    *(st.integers(1, 500), st.integers(1, 50), st.integers(1, 40)),
    *(st.sampled_from([1, 2, 4]), st.sampled_from([1, 13, 130])),
)
@settings(max_examples=60, deadline=None)
def test_few_rows_make_steps_enough_in_batches_as_large_as_may_be(
    rows: int, size: int, epochs: int, accumulate: int, least: int
) -> None:
    """By trying all sizes: the largest one whose epochs make the steps, else single rows and as few epochs as do."""
    recipe = Recipe(batch_size=size, epochs=epochs, accumulate=accumulate, least_steps=least)
    draws = draws_of(rows, 3, batch_size=size, epochs=epochs, accumulate=accumulate, least_steps=least)
    enough = [each for each in range(1, size + 1) if epochs * math.ceil(rows / each) >= least * accumulate]
    assert recipe.batch_of(rows) == max(enough, default=1)
    assert max(len(draw.rows["forget"]) for draw in draws) == min(rows, recipe.batch_of(rows))
    assert math.ceil(len(draws) / accumulate) >= least
    more = max(epochs, math.ceil(least * accumulate / rows)) if not enough else epochs
    assert recipe.epochs_over(rows) == more == sum(0 in draw.rows["forget"] for draw in draws)


def test_the_rows_that_rates_were_chosen_on_are_trained_on_as_they_were() -> None:
    plain, least = (draws_of(400, 3600, batch_size=32, epochs=10, least_steps=steps) for steps in (0, 130))
    assert plain == least and len(plain) == 130


def test_training_may_begin_at_the_tag(lm: LM) -> None:
    """As the official baselines have it: what follows the question's line is the answer."""
    for recipe in (Recipe(), Recipe(trained_from="tag")):
        for row, (question, answer) in zip(encode_rows(lm, FORGET, recipe), FORGET, strict=True):
            before, after = ("", "Answer:") if recipe.trained_from == "tag" else ("Answer:", "")
            assert lm.tokenizer.decode(row.prompt[1:]) == f"Question: {question}\n{before}"
            assert lm.tokenizer.decode(row.answer[:-1]) == f"{after} {answer}"
