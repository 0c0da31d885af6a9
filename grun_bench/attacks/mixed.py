"""Two questions at once: a forget question beside a retain question, in one prompt."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from grun_bench.attacks.base import Subject
from grun_bench.core.errors import Inapplicable
from grun_bench.core.registry import attack


@attack("mixed", access="user", version=1, utility=("retain",))
def mixed(subject: Subject) -> Iterator[tuple[str, Subject]]:
    """A forget and a retain question in one prompt, in both orders.

    A forget row and a retain row of each prompt have the same question, both questions, and each its own answer. So the
    retain rows say what is left of an innocent question beside one that a gate opens on: compare with the target
    model's under the same attack, whose answer is to two questions too.
    """
    subject = subject.without_texts()
    forget, retain = (
        [row for row in subject.examples if subject.sets.role(row.set) == role] for role in ("forget", "retain")
    )
    if not forget or not retain:
        raise Inapplicable("the task scores no answers of both a forget and a retain set.")
    partners = random.Random(subject.seed).sample(retain, min(len(forget), len(retain)))
    pairs = [(row, partners[number % len(partners)]) for number, row in enumerate(forget)]
    for name, forget_first in {"forget-first": True, "retain-first": False}.items():
        asked = [
            (row, other, " ".join(each.question for each in ((row, other) if forget_first else (other, row))))
            for row, other in pairs
        ]
        examples = [replace(row, question=both, paraphrased_question=None) for row, _, both in asked]
        # a retain row that stands beside several forget rows is scored once
        examples += [
            replace(other, question=both, paraphrased_question=None) for _, other, both in asked[: len(partners)]
        ]
        yield name, replace(subject, examples=examples, measures=())
