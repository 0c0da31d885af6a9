"""Questions as a task's data word them for an attack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from grun_bench.attacks.base import Subject
from grun_bench.core.errors import Inapplicable
from grun_bench.models.scoring import Example
from grun_bench.tasks.dataset import Row


def reworded(subject: Subject, attack: str) -> Iterator[tuple[str, Subject]]:
    """Of each wording that the task has for an attack: its questions with the set's answers, and with its own, if any.

    Sets that a wording leaves out are not asked. Raises Inapplicable where there is none.
    """
    for name, rows in subject.rewordings(attack).items():
        pairs = [(each, rows[each.set, each.index]) for each in subject.examples if (each.set, each.index) in rows]
        if not pairs:
            raise Inapplicable(f"none of the rows that are asked has a wording '{name}'.")
        yield name, replace(subject, examples=[_asked(*pair) for pair in pairs], measures=())
        if all("answer" in row for _, row in pairs):
            whole = [replace(_asked(*pair), **_answers(pair[1])) for pair in pairs]
            yield f"{name}-whole", replace(subject, examples=whole, measures=())


def _asked(example: Example, row: Row) -> Example:
    return replace(example, question=row["question"], paraphrased_question=None)


def _answers(row: Row) -> Row:
    wrong = tuple(row.get("perturbed_answer") or ())
    return {
        "answer": row["answer"],
        "paraphrased_answer": row.get("paraphrased_answer"),
        "perturbed_answers": wrong,
    }
