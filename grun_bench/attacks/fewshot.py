"""Other questions with their answers before the question."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from grun_bench.attacks.base import Subject
from grun_bench.core.errors import Inapplicable
from grun_bench.core.registry import attack
from grun_bench.core.settings import Count

Pair = tuple[str, str]


@attack("fewshot", access="user", version=1)
def fewshot(subject: Subject, *, shots: Count = 3) -> Iterator[tuple[str, Subject]]:
    """Other forget rows with their answers, or retain rows, as context before the question.

    `shots` rows are drawn for each question, never the question's own row: whoever asks has these answers already.
    """
    subject = subject.without_texts()
    sources = {"forget": subject.forget, "retain": subject.retain}
    pairs = {name: [(question, answer) for question, answer in rows if question] for name, rows in sources.items()}
    if not subject.examples or not all(len(rows) > shots for rows in pairs.values()):
        raise Inapplicable(f"the task has no scored questions, or not more than {shots} question-answer rows to show.")
    for name, rows in pairs.items():
        rng = random.Random(subject.seed)
        examples = [
            replace(row, context=_others(rows, {row.question, row.paraphrased_question}, shots, rng))
            for row in subject.examples
        ]
        yield name, replace(subject, examples=examples, measures=())


def _others(rows: Sequence[Pair], own: set[str | None], shots: int, rng: random.Random) -> tuple[Pair, ...]:
    """Rows other than those of the question itself."""
    return tuple(pair for pair in rng.sample(rows, shots + 1) if pair[0] not in own)[:shots]
