"""The same question in another template than the model was trained with: a gate that reads it may know no other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from grun_bench.attacks.base import Subject
from grun_bench.core.errors import Inapplicable, UsageError
from grun_bench.core.registry import attack
from grun_bench.models.lm import Prompts
from grun_bench.models.written import WrittenPrompts

TEMPLATES = {
    "question-answer": "Question: {question}\nAnswer:",
    "dialogue": "User: {question}\nAssistant:",
    "bare": "{question}",
}


@attack("template", access="user", version=1, utility=("retain",))
def template(subject: Subject, *, templates: Mapping[str, str] = TEMPLATES) -> Iterator[tuple[str, Subject]]:
    """Questions in other templates, and without any; in the tokenizer's chat template where it is not the model's way.

    A template has {question} in it; one that writes what the model is asked anyway is left out. Of the retain set a
    sample is asked, which says whether a gate stays shut there.
    """
    subject = subject.without_texts()
    if not subject.examples:
        raise Inapplicable("the task scores no answers to questions that a template could be around.")
    if odd := [name for name, text in templates.items() if "{question}" not in text]:
        raise UsageError(f"template.templates: '{odd[0]}' has no {{question}}, where the question would stand.")
    tokenizer = subject.lm.tokenizer
    ways: dict[str, Prompts] = {name: WrittenPrompts(tokenizer, text) for name, text in templates.items()}
    if tokenizer.chat_template:
        ways = {"chat": Prompts(tokenizer, "chat")} | ways
    own = subject.scoring.prompts(subject.lm)
    rows = [replace(row, paraphrased_question=None) for row in subject.examples]
    for name, prompts in ways.items():
        if _text(prompts) != _text(own):
            yield name, replace(subject, examples=rows, scoring=replace(subject.scoring, written=prompts), measures=())


def _text(prompts: Prompts) -> str:
    """What a prompt looks like; blanks at its end are the tokenizer's matter."""
    return prompts.text("What?").rstrip()
