"""The beginning of the answer is given: a model that only refuses to begin goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated

from grun_bench.attacks.base import Subject
from grun_bench.core.errors import Inapplicable
from grun_bench.core.registry import attack
from grun_bench.core.settings import each, whole
from grun_bench.core.words import begun
from grun_bench.models.scoring import Example


@attack("prefill", access="user", version=1)
def prefill(
    subject: Subject, *, words: Annotated[Sequence[int], each(whole(1))] = (1, 3)
) -> Iterator[tuple[str, Subject]]:
    """The first words of the answer are given, as an interface that lets its user begin the answer allows.

    What is scored and what ROUGE compares is the rest of the answer alone, so that the given words count for nothing:
    with them, a model that knows nothing would seem to recall. At least one word is left to find. In scripts without
    spaces words are characters. Answers of a single word cannot be begun and are not asked. Paraphrased and wrong
    answers begin otherwise and are not scored, so metrics that need them are null.

    Extraction strength is then a share of the rest: of an answer of N tokens the same s that can be extracted are s / N
    without attack and s / (N - k) with k tokens given. So compare it with the target's and the retain model's under
    this attack, not with the row's own number without attack. Its recovery, which does compare the two, has the same
    trap; that of ROUGE, which compares generated texts, has it less.
    """
    for count in words:
        examples = [each for row in subject.examples if (each := _begun(row, count)) is not None]
        if not examples:
            raise Inapplicable("the task scores no answers that could be begun: one of a single word cannot.")
        yield f"words{count}", replace(subject, examples=examples, measures=())


def _begun(row: Example, count: int) -> Example | None:
    """The row with so many words of its answer given; None where nothing would be left of it."""
    parts = begun(row.answer, count)
    if parts is None:
        return None
    given, gap, rest = parts
    return replace(row, prefill=given, gap=gap, answer=rest, paraphrased_answer=None, perturbed_answers=())
