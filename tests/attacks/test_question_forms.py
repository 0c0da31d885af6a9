"""Multiple-choice questions in other forms: what the model is shown, and what a model of known preferences scores."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from grun_bench.attacks.base import Subject
from grun_bench.core import registry
from grun_bench.integrations.lm_eval import forms
from grun_bench.integrations.lm_eval import measures as harness
from grun_bench.integrations.lm_eval.model import HarnessLM
from grun_bench.models.lm import LM
from grun_bench.models.question_form import QuestionForm
from grun_bench.results.record import Record
from grun_bench.tasks.task import Measure
from grun_bench.tasks.world import TOY

TARGETS = [0, 1, 2, 3, 1, 1, 2]
ROWS = [
    {"question": f" Number {number}? ", "choices": [f"{number}-{name}" for name in "wxyz"], "answer": target}
    for number, target in enumerate(TARGETS)
]
#: the layout of lm-eval's tasks mmlu and wmdp
LETTERED = {
    "doc_to_text": (
        "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:"
    ),
    "doc_to_choice": ["A", "B", "C", "D"],
}
PLAIN = {"doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_choice": "choices"}


@pytest.fixture
def quiz(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], None]:
    """Has lm-eval ask ROWS in a layout."""

    def lay_out(layout: dict[str, Any]) -> None:
        import datasets

        def questions(**_: Any) -> dict[str, Any]:
            return {"test": datasets.Dataset.from_list(ROWS)}

        task = {
            "task": "quiz",
            "custom_dataset": questions,
            "output_type": "multiple_choice",
            "test_split": "test",
            "fewshot_split": "test",
            "doc_to_target": "answer",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
        monkeypatch.setattr(harness, "_task_over", lambda rows, name: task | layout)

    return lay_out


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every context that the model is shown, one a question."""
    seen: list[str] = []
    real = HarnessLM.loglikelihood

    def noting(self: HarnessLM, requests: list[Any], **options: Any) -> Any:
        seen.extend(dict.fromkeys(request.args[0] for request in requests))
        return real(self, requests, **options)

    monkeypatch.setattr(HarnessLM, "loglikelihood", noting)
    return seen


def preferring(lm: LM, order: str) -> LM:
    """A model that, whatever it reads, finds these letters likely, the first one most."""
    head = nn.Linear(lm.model.config.hidden_size, lm.model.config.vocab_size)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        for place, letter in enumerate(order):
            head.bias[lm.tokenizer.convert_tokens_to_ids(letter)] = 9.0 - place
    lm.model.set_output_embeddings(head)
    return lm


def asked(lm: LM, form: QuestionForm, shots: int | None = None) -> list[Record]:
    measured = harness.run(lm, {"wmdp_cyber": Measure(role="forget", num_fewshot=shots)}, TOY, batch_size=4, form=form)
    assert not measured.missing
    return measured.records


@pytest.mark.parametrize("places", range(4))
def test_accuracy_when_options_move_under_a_model_that_says_b(lm: LM, quiz: Callable[..., None], places: int) -> None:
    quiz(LETTERED)
    records = asked(preferring(lm, "BACD"), QuestionForm(rotate=places))
    assert [record.choices.target for record in records] == [(target + places) % 4 for target in TARGETS]
    # the options' log-probabilities are known: B's is the largest by one nat, whatever stands beside it
    for record in records:
        b, a, c, d = (record.choices.logprobs["ABCD".index(letter)] for letter in "BACD")
        assert [b - a, a - c, c - d] == pytest.approx([1, 1, 1], abs=1e-4)
    accuracy = sum(record.scores["acc"] for record in records) / len(records)
    assert accuracy == sum((target + places) % 4 == 1 for target in TARGETS) / len(TARGETS)


def test_other_letters_are_asked_for(lm: LM, quiz: Callable[..., None], contexts: list[str]) -> None:
    quiz(LETTERED)
    records = asked(preferring(lm, "3"), QuestionForm(letters="123456"))
    assert [record.scores["acc"] for record in records] == [float(target == 2) for target in TARGETS]
    assert contexts[0] == "Number 0?\n1. 0-w\n2. 0-x\n3. 0-y\n4. 0-z\nAnswer:"


def test_the_right_option_stays_right_wherever_it_moves(lm: LM, quiz: Callable[..., None], contexts: list[str]) -> None:
    quiz(LETTERED)
    for places in range(4):
        contexts.clear()
        records = asked(lm, QuestionForm(rotate=places), shots=1)
        assert len(contexts) == len(ROWS)
        for context, record, row in zip(contexts, records, ROWS, strict=True):
            shot, question = context.split("\n\n")
            lines = dict(re.findall(r"^([A-D])\. (.*)$", question, flags=re.MULTILINE))
            assert sorted(lines.values()) == sorted(row["choices"])
            assert lines["ABCD"[record.choices.target]] == row["choices"][row["answer"]]
            assert lines["ABCD"[places]] == row["choices"][0]
            # the shot is laid out like the question, and its answer is right
            shown = dict(re.findall(r"^([A-D])\. (.*)$", shot, flags=re.MULTILINE))
            (number,) = re.findall(r"Number (\d)", shot)
            right = ROWS[int(number)]["choices"][TARGETS[int(number)]]
            assert shown[shot[-1]] == right
            assert shown["ABCD"[places]] == ROWS[int(number)]["choices"][0]


def test_lm_evals_own_layout_is_one_of_the_forms(lm: LM, quiz: Callable[..., None], contexts: list[str]) -> None:
    quiz(LETTERED)
    own = asked(lm, QuestionForm())
    same = asked(lm, QuestionForm(template=forms.LETTERED, letters="ABCD"))
    assert contexts[: len(ROWS)] == contexts[len(ROWS) :]
    assert [record.choices for record in own] == [record.choices for record in same]


def test_the_question_alone_changes(lm: LM, quiz: Callable[..., None], contexts: list[str]) -> None:
    for layout in (LETTERED, PLAIN):
        quiz(layout)
        contexts.clear()
        subject = Subject(lm, [], [], [], 0, measures=("wmdp_cyber",)).asking(lambda text: f"Please: {text}")
        asked(lm, QuestionForm())
        own = list(contexts)
        contexts.clear()
        asked(lm, subject.form)
        without = [context.replace("Please: ", "") for context in contexts]
        assert [context.split() for context in without] == [context.split() for context in own]
        assert all("Please:" in context for context in contexts)


def test_forms_that_say_nothing_are_missing_with_a_reason(lm: LM, quiz: Callable[..., None]) -> None:
    """Where options are scored one by one, apart, their order and letters are shown to nobody."""
    quiz(PLAIN)
    measures = {"wmdp_cyber": Measure(role="forget")}
    for form in (QuestionForm(rotate=1), QuestionForm(letters="1234")):
        measured = harness.run(lm, measures, TOY, form=form)
        assert not measured.records and "no order or letter" in measured.missing["wmdp_cyber"]
    quiz(PLAIN | {"output_type": "generate_until", "doc_to_choice": None, "doc_to_target": "{{choices[answer]}}"})
    measured = harness.run(lm, measures, TOY, form=QuestionForm(template="{question}"))
    assert not measured.records and "not laid out" in measured.missing["wmdp_cyber"]


def test_paraphrase_asks_multiple_choice_in_every_form(lm: LM, quiz: Callable[..., None], contexts: list[str]) -> None:
    quiz(LETTERED)
    plugin = registry.get("attack", "paraphrase")
    subject = Subject(lm, [], [], [], 0, measures=("wmdp_cyber",))
    shown = {}
    for name, altered in plugin.target(subject):
        contexts.clear()
        asked(lm, altered.form)
        shown[name] = contexts[0]
    assert len(set(shown.values())) == len(shown) >= 7
    assert all("Number 0?" in context and "0-w" in context for context in shown.values())
