"""Many answers at random: what greedy decoding hides and the distribution still holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from grun_bench.attacks.base import Subject
from grun_bench.core.errors import Inapplicable
from grun_bench.core.registry import attack
from grun_bench.core.settings import Count


@attack(
    "sampling",
    access="user",
    version=1,
    metrics=("sampled_rougeL_recall", "leak"),
    metrics_if_listed=("sampled_rougeL_recall_unicode", "leak_unicode", "similarity", "same_meaning"),
)
def sampling(subject: Subject, *, answers: Count = 8) -> Iterator[tuple[str, Subject]]:
    """Several answers at temperature 1 to each forget question: the best of them, and whether one of them leaks."""
    forget = [row for row in subject.examples if subject.sets.role(row.set) == "forget"]
    if not forget:
        raise Inapplicable("the task asks for no answers to forget questions.")
    yield f"of{answers}", replace(subject, examples=forget, measures=(), samples=answers)
