"""Which sequences each step of a pair's training runs: all of them are drawn before the first step.

Sequences go by name: `forget` and `retain` rows, and other answers to the forget questions, as many to each, those to
the first question first: refusals (`idk`) and what the target model sampled (`alternate`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

import torch

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

    Raises DataError for a text that is too short, and for a row that is longer than the model's context.
    """
    found = [
        encode(lm, question, [answer], recipe)[0]
        if question
        else lm.prompts.encode_text(answer, recipe.text_prompt, recipe.text_length)
        for question, answer in rows
    ]
    return lm.within_context(rows, found)


def encode(lm: LM, question: str, answers: Sequence[str], recipe: Recipe) -> list[Encoded]:
    """A question with each of several answers, trained from where the recipe says."""
    encoded = lm.prompts.encode_answers(question, answers)
    if recipe.trained_from == "answer":
        return encoded
    start = lm.prompts.tag_start(question)
    return [Encoded(each.prompt[:start], each.prompt[start:] + each.answer) for each in encoded]


def pair_batches(
    forget: int, retain: int, epochs: int, size: int, seed: int, fixed: bool = False
) -> list[tuple[Sequence[int], Sequence[int]]]:
    """Row numbers of all epochs: each forget row once an epoch in random order, with as many retain rows beside it.

    Retain rows come from one shuffled pass after another over the retain set, so none is drawn twice before all were;
    none at all where that set is empty. With `fixed` each forget row has the same one always (see `partner`).
    """
    rng = Random(seed)
    kept = shuffled(range(retain), rng)
    own = [partner(row, retain) for row in range(forget)] if fixed and retain else []
    return [
        (rows, [own[row] for row in rows] if own else list(islice(kept, len(rows))))
        for rows in shuffled_batches(range(forget), epochs, size, rng)
    ]


def partner(row: int, retain: int) -> int:
    """The retain row of a forget row in GRUN's official code (renjie3/GRUN @ b59fd78), whatever the seed of the run.

    It draws with the row's number as the seed, and adds that number: some retain rows are of several, most of none.
    """
    drawn = torch.randint(0, retain, (1,), generator=torch.Generator().manual_seed(row))
    return (row + int(drawn)) % retain


def draw_batches(sequences: Sequences, recipe: Recipe, seed: int) -> list[Draw]:
    """All batches of a training; beside each forget row a retain row and one of the other answers to its question."""
    count, rng, draws = len(sequences["forget"]), Random(seed), []
    others = {name: len(found) // count for name, found in sequences.items() if name not in ("forget", "retain")}
    wanted, epochs = recipe.steps * recipe.accumulate, recipe.epochs_over(count)
    kept, fixed = len(sequences["retain"]), recipe.partner == "fixed"
    batches = pair_batches(count, kept, epochs, recipe.batch_of(count), seed, fixed)[: wanted or None]
    seen: Counter[int] = Counter()
    for number, (forget, retain) in enumerate(batches):
        rows = {"forget": forget, "retain": retain}
        for name, of_each in others.items():
            rows[name] = [row * of_each + _other(recipe.others, of_each, row, seen[row], seed, rng) for row in forget]
        seen.update(forget)
        draws.append(Draw(number / len(batches), rows))
    return draws


def _other(how: str, of_each: int, row: int, epoch: int, seed: int, rng: Random) -> int:
    """Which of the other answers to a question stands beside its row in an epoch."""
    if how == "random":
        return rng.choice(range(of_each))
    own = Random(f"{seed} {row}").randrange(of_each)
    return own if how == "fixed" else (own + epoch) % of_each


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
