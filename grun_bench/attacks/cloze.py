"""A statement with a gap: the fact is asked for without its question."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

from grun_bench.attacks.base import Subject
from grun_bench.core.errors import Inapplicable
from grun_bench.core.registry import attack
from grun_bench.core.words import words
from grun_bench.models.scoring import Example

GAP = "___"


@attack("cloze", access="user", version=1)
def cloze(subject: Subject, *, phrase: str = "Fill in the gap:") -> Iterator[tuple[str, Subject]]:
    """The answer as a statement with its fact left out; what is scored is the gap alone.

    The gap is the longest run of words of the answer that are neither in the question nor in most of the wrong answers,
    those with a capital or a digit first. Rows without such a run, or of nothing else, are not asked. As paraphrased
    and wrong answers have no such gap, metrics that need them are null.
    """
    subject = subject.without_texts()
    examples = [filled for row in subject.examples if (filled := _with_gap(row, phrase)) is not None]
    if not examples:
        raise Inapplicable("no answer of the task is a statement that a fact could be left out of.")
    yield "gap", replace(subject, examples=examples, measures=())


def _with_gap(row: Example, phrase: str) -> Example | None:
    statement = row.answer.split()
    wrong = [set(words(text)) for text in row.perturbed_answers]
    asked = set(words(row.question))

    def told(word: str) -> bool:
        return all(
            each in asked or (wrong and 2 * sum(each in other for other in wrong) > len(wrong)) for each in words(word)
        )

    runs = [list(run) for known, run in groupby(range(len(statement)), lambda at: told(statement[at])) if not known]
    if not runs or len(runs[0]) == len(statement):
        return None

    def weight(run: list[int]) -> tuple[int, int]:
        return sum(any(letter.isupper() or letter.isdigit() for letter in statement[at]) for at in run), len(run)

    gap = max(runs, key=weight)
    fact = " ".join(statement[at] for at in gap).rstrip(".,;:!?")
    end = " ".join(statement[at] for at in gap).removeprefix(fact)
    text = " ".join([*statement[: gap[0]], GAP + end, *statement[gap[-1] + 1 :]])
    return replace(
        row,
        question=f"{phrase} {text}",
        answer=fact,
        paraphrased_question=None,
        paraphrased_answer=None,
        perturbed_answers=(),
    )
