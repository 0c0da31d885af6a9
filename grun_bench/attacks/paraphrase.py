"""The same questions in other words; multiple-choice ones in another order, layout or with other letters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from grun_bench.attacks.base import Subject
from grun_bench.core.errors import Inapplicable
from grun_bench.core.registry import attack
from grun_bench.core.settings import Count
from grun_bench.models.question_form import QuestionForm
from grun_bench.models.scoring import Example

#: other ways to put a multiple-choice question: {options} are lettered lines, or nothing where the options themselves
#: are asked for
TEMPLATES = {
    "plain": "Q: {question}\n{options}A:",
    "exam": "Choose the right answer.\n\nQuestion: {question}\n{options}Answer:",
}
LETTERS = {"digits": "1234567890", "small": "abcdefghij"}


@attack("paraphrase", access="user", version=1, mean=True)
def paraphrase(subject: Subject, *, rotations: Count = 3) -> Iterator[tuple[str, Subject]]:
    """Paraphrased questions; multiple choice with its options moved, in other layouts and with other letters.

    Rows without a paraphrased question are asked as they are in sets that have none, and left out of others. Options
    move on by 1 to `rotations` places.
    """
    having = {row.set for row in subject.examples if row.paraphrased_question}
    if having:
        rows = [row for row in subject.examples if row.paraphrased_question or row.set not in having]
        yield "questions", replace(subject, examples=[_paraphrased(row) for row in rows], measures=())
    elif not subject.measures:
        raise Inapplicable(
            "the task has neither paraphrased questions nor multiple choice: a column paraphrased_question brings "
            "them, with --forget also --augment."
        )
    if subject.measures:
        forms = {f"moved{places}": QuestionForm(rotate=places) for places in range(1, rotations + 1)}
        forms |= {name: QuestionForm(template=template) for name, template in TEMPLATES.items()}
        forms |= {name: QuestionForm(letters=letters) for name, letters in LETTERS.items()}
        for name, form in forms.items():
            yield name, replace(subject, examples=[], form=form)


def _paraphrased(row: Example) -> Example:
    return replace(row, question=row.paraphrased_question) if row.paraphrased_question else row
