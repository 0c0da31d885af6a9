"""lm-eval's multiple-choice questions put in another form than the task's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lm_eval.api.task import ConfigurableTask

from grun_bench.models.question_form import OWN_FORM, QuestionForm

#: WMDP's and MMLU's own layout of a question; `options` are lines
LETTERED = "{question}\n{options}Answer:"


def _lettered(task: ConfigurableTask) -> bool:
    """Whether the answer is a letter; else it is the option itself."""
    return isinstance(task.config.doc_to_choice, list)


def unfit(task: ConfigurableTask, form: QuestionForm) -> str:
    """Why questions cannot be put in a form; empty where they can."""
    if form == OWN_FORM:
        return ""
    if task.OUTPUT_TYPE != "multiple_choice" or not {"question", "choices", "answer"} <= set(task.features):
        return "its questions are not laid out with `question`, `choices` and `answer`."
    if not _lettered(task) and (form.rotate or form.letters):
        return "its options are not shown with letters, so no order or letter of theirs matters."
    return ""


def put(task: ConfigurableTask, form: QuestionForm) -> None:
    """Have lm-eval's task put its questions, those of its shots too, in another form."""
    if form == OWN_FORM:
        return
    text, choice, target = task.doc_to_text, task.doc_to_choice, task.doc_to_target
    lettered = _lettered(task)
    letters = form.letters or "ABCDEFGHIJ"
    template = form.template or (LETTERED if form.letters and lettered else None)

    def changed(doc: Mapping[str, Any]) -> dict[str, Any]:
        options = list(doc["choices"])
        moved = {(place + form.rotate) % len(options): option for place, option in enumerate(options)}
        return {
            **doc,
            "question": form.question(doc["question"]) if form.question else doc["question"],
            "choices": [moved[place] for place in range(len(options))],
            "answer": (doc["answer"] + form.rotate) % len(options),
        }

    def to_text(doc: Mapping[str, Any], own: Any = None) -> str:
        doc = changed(doc)
        if template is None:
            return text(doc, own)
        lines = [f"{letter}. {option}\n" for letter, option in zip(letters, doc["choices"], strict=False)]
        return template.format(question=doc["question"].strip(), options="".join(lines) if lettered else "")

    def to_choice(doc: Mapping[str, Any], own: Any = None) -> list[str]:
        doc = changed(doc)
        return list(letters[: len(doc["choices"])]) if form.letters and lettered else choice(doc, own)

    task.doc_to_text, task.doc_to_choice = to_text, to_choice
    task.doc_to_target = lambda doc, own=None: target(changed(doc), own)
