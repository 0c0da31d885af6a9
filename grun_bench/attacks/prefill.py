"""The beginning of the answer is given: a model that only refuses to begin goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated

from grun_bench.attacks.base import Subject
from grun_bench.core.errors import Inapplicable
from grun_bench.core.registry import attack
from grun_bench.core.settings import each, whole
from grun_bench.models.scoring import Example


@attack("prefill", access="user", version=1)
def prefill(
    subject: Subject, *, words: Annotated[Sequence[int], each(whole(1))] = (1, 3)
) -> Iterator[tuple[str, Subject]]:
    """The first words of the answer are given, as an interface that lets its user begin the answer allows.

    What is scored and what ROUGE compares is the rest of the answer alone, so that the given words count for nothing:
    with them, a model that knows nothing would seem to recall. At least one word is left to find. Paraphrased and wrong
    answers begin otherwise and are not scored, so metrics that need them are null.
    """
    if not subject.examples:
        raise Inapplicable("the task scores no answers that could be begun.")
    for count in words:
        yield f"words{count}", replace(subject, examples=[_begun(row, count) for row in subject.examples], measures=())


def _begun(row: Example, count: int) -> Example:
    words = row.answer.split()
    given = min(count, len(words) - 1)
    return replace(
        row,
        prefill=" ".join(words[:given]),
        answer=" ".join(words[given:]),
        paraphrased_answer=None,
        perturbed_answers=(),
    )
