"""Which sequences each step of a pair's training runs: all of them are drawn before the first step.

Sequences go by name: `forget` and `retain` rows, and other answers to the forget questions, as many to each, those to
the first question first: refusals (`idk`) and what the target model sampled (`alternate`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

from grun_bench.methods.order import shuffled, shuffled_batches
from grun_bench.methods.recipes import Recipe
from grun_bench.models.batch import Encoded
from grun_bench.models.lm import LM

Sequences = Mapping[str, Sequence[Encoded]]
#: the sequences whose likelihood under the target model is computed before training, where it is needed
REFERRED = ("forget", "alternate")


@dataclass(frozen=True)
class Draw:
    """One batch: row numbers of sequences by name. `progress` is the share of the training that lies behind it."""

    progress: float
    rows: Mapping[str, Sequence[int]]


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


def draw_batches(sequences: Sequences, recipe: Recipe, seed: int) -> list[Draw]:
    """All batches of a training; beside each forget row a retain row and one of the other answers to its question."""
    count, rng, draws = len(sequences["forget"]), Random(seed), []
    others = {name: len(found) // count for name, found in sequences.items() if name not in ("forget", "retain")}
    batches = pair_batches(count, len(sequences["retain"]), recipe.epochs, recipe.batch_size, seed)
    for number, (forget, retain) in enumerate(batches):
        rows = {"forget": forget, "retain": retain}
        for name, of_each in others.items():
            rows[name] = [row * of_each + rng.choice(range(of_each)) for row in forget]
        draws.append(Draw(number / len(batches), rows))
    return draws


def uses(sequences: Sequences, draws: Sequence[Draw], reference: bool, retain: bool) -> Iterator[Encoded]:
    """The sequences that a training runs, as often as it does.

    `reference`: some are run once before it. `retain`: retain rows are run at all.
    """
    if reference:
        for name in REFERRED:
            yield from sequences.get(name, ())
    for draw in draws:
        for name, rows in draw.rows.items():
            if name != "retain" or retain:
                yield from (sequences[name][row] for row in rows)
