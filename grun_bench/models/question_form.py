"""How multiple-choice questions are put."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


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
