"""Which sequences each step of a pair's training runs: all of them are drawn before the first step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from random import Random

from grun_bench.methods.order import shuffled, shuffled_batches
from grun_bench.methods.recipes import Recipe
from grun_bench.models.batch import Encoded
from grun_bench.models.lm import LM


@dataclass(frozen=True)
class Sequences:
    """Training rows as token sequences.

    `alternates` are other answers to the forget questions, equally many of each, those of the first question first.
    """

    forget: Sequence[Encoded]
    retain: Sequence[Encoded]
    alternates: Sequence[Encoded] = ()


@dataclass
class Draw:
    """One batch: row numbers of the forget set, the retain set and the alternates, and refusals.

    `progress` is the share of the training that lies behind it.
    """

    progress: float
    forget: Sequence[int]
    retain: Sequence[int]
    idk: list[Encoded] = field(default_factory=list)
    alternate: list[int] = field(default_factory=list)


def encode_rows(lm: LM, rows: Sequence[tuple[str, str]], recipe: Recipe) -> list[Encoded]:
    """Training rows as token sequences: questions as prompt and answer, texts cut and split as the recipe says.

    Raises DataError for a text that is too short.
    """
    return [
        lm.prompts.encode(question, answer)
        if question
        else lm.prompts.encode_text(answer, recipe.text_prompt, recipe.text_length)
        for question, answer in rows
    ]


def pair_batches(
    forget: int, retain: int, epochs: int, size: int, seed: int
) -> list[tuple[Sequence[int], Sequence[int]]]:
    """Row numbers of all epochs: each forget row once an epoch in random order, with as many retain rows beside it.

    Retain rows come from one shuffled pass after another over the retain set, so none is drawn twice before all were;
    none at all where that set is empty.
    """
    rng = Random(seed)
    kept = shuffled(range(retain), rng)
    return [(rows, list(islice(kept, len(rows)))) for rows in shuffled_batches(range(forget), epochs, size, rng)]


def draw_batches(sequences: Sequences, recipe: Recipe, seed: int, refusals: Sequence[list[int]] = ()) -> list[Draw]:
    """All batches of a training; for each forget row a refusal (as tokens) or an alternate, where there are any."""
    count = len(sequences.forget)
    batches = pair_batches(count, len(sequences.retain), recipe.epochs, recipe.batch_size, seed)
    rng, of_each = Random(seed), len(sequences.alternates) // count
    draws = []
    for number, (forget, retain) in enumerate(batches):
        draw = Draw(number / len(batches), forget, retain)
        if refusals:
            draw.idk = [Encoded(sequences.forget[row].prompt, rng.choice(refusals)) for row in forget]
        if of_each:
            draw.alternate = [row * of_each + rng.choice(range(of_each)) for row in forget]
        draws.append(draw)
    return draws


def uses(sequences: Sequences, draws: Sequence[Draw], reference: bool, retain: bool) -> Iterator[Encoded]:
    """The sequences that a training runs, as often as it does.

    `reference`: forget answers and alternates are run once before it. `retain`: retain rows are run at all.
    """
    if reference:
        yield from (*sequences.forget, *sequences.alternates)
    for draw in draws:
        yield from (sequences.forget[row] for row in draw.forget)
        yield from (sequences.retain[row] for row in draw.retain if retain)
        yield from draw.idk
        yield from (sequences.alternates[row] for row in draw.alternate)
