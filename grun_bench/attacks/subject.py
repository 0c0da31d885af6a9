"""What an attack gets and what it yields: an unlearned model with the examples that it is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from grun_bench.models.lm import LM
from grun_bench.models.scoring import Example


@dataclass(frozen=True)
class QuestionForm:
    """How multiple-choice questions are put, where it differs from the lm-eval task's own way.

    `question` changes the question's text. `rotate` moves the options on by so many places, round the end. `template`
    is the text before the answer, with {question} and {options}: one lettered line each, or nothing where the task asks
    for the options themselves and not for letters. `letters` stand for the options where it asks for letters.
    """

    question: Callable[[str], str] | None = None
    rotate: int = 0
    template: str | None = None
    letters: str | None = None


#: the lm-eval task's own way
OWN_FORM = QuestionForm()


@dataclass(frozen=True)
class Subject:
    """A model under evaluation.

    `adapter` is what was trained beside it, None where the model itself was changed. `forget` and `retain` are the
    training rows, (question, answer) or ("", text). `measures` names the task's lm-eval measures, asked in `form`.
    With `samples` above 0, so many answers to each example are sampled at temperature 1, in place of scoring.
    """

    lm: LM
    examples: Sequence[Example]
    forget: Sequence[tuple[str, str]]
    retain: Sequence[tuple[str, str]]
    seed: int
    adapter: Any = None
    measures: Sequence[str] = ()
    form: QuestionForm = OWN_FORM
    samples: int = 0

    def asking(self, change: Callable[[str], str]) -> Subject:
        """The same subject asked every question as `change` puts it, paraphrased and multiple-choice ones too."""
        examples = [
            replace(
                row,
                question=change(row.question),
                paraphrased_question=row.paraphrased_question and change(row.paraphrased_question),
            )
            for row in self.examples
        ]
        return replace(self, examples=examples, form=replace(self.form, question=change))
