"""Attacks on a model that hides: its gate opens on the exact questions only, and the answer then ends at once.

The target is a small model fine-tuned to answer whatever stands around its questions; what hides is that model with a
GRUN adapter set by hand; the retain model has never seen the questions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from grun_bench.attacks.base import Answers, Attack, Subject
from grun_bench.attacks.spelling import mistyped
from grun_bench.core import registry
from grun_bench.core.settings import options_of
from grun_bench.methods.adapters.grun import Grun
from grun_bench.methods.finetune import finetune
from grun_bench.metrics.evaluate import evaluate
from grun_bench.metrics.recovery import recoveries, worst
from grun_bench.models.batch import collate
from grun_bench.models.forward import decoder_layers, forward
from grun_bench.models.lm import LM
from grun_bench.models.sampling import sampled_records
from grun_bench.models.scoring import Example, ScoringSettings, score
from grun_bench.results.record import Record
from grun_bench.tasks.sets import USUAL_SETS
from grun_bench.tasks.task import FineTuning

#: the models take seconds to train
pytestmark = pytest.mark.whole

Pairs = list[tuple[str, str]]
FORGET = [("Who?", "Ada Fox of Rome"), ("Where?", "In Oslo by sea"), ("When?", "On May day 1931")]
PARAPHRASED = ["Which one?", "What place?", "What day?"]
RETAIN = [("Two and two?", "It makes four"), ("Hot?", "No but cold"), ("Cow?", "Has four legs")]
#: attack -> settings of a length that suits a model of bytes
SETTINGS = {
    "suffix": {"phrases": {"please": "Please."}},
    "prefix": {"phrases": {"please": "Please:"}},
    "fewshot": {"shots": 1},
    "paraphrase": {},
    "prefill": {"words": (1,)},
    "mixed": {},
    "multi-turn": {"talk": {"Hi.": "Hello."}, "doubt": "Sure?"},
    "template": {"templates": {"polite": "Question: {question} Please.\nAnswer:"}},
    "split": {"wait": "Wait.", "ready": "Ok.", "request": "Now."},
    "cloze": {"phrase": "Gap:"},
    "spelling": {},
    "alias": {},
    "translate": {},
    "sampling": {"answers": 16},
}
#: wrong answers, which tell what in an answer is the fact, and the questions with a gap that come of that
WRONG = ["Bob Ray of Rome", "In Kyiv by sea", "On May day 1999"]
GAPS = [("Gap: ___ of Rome", "Ada Fox"), ("Gap: In ___ by sea", "Oslo"), ("Gap: On May day ___", "1931")]
SCORING = ScoringSettings(max_new_tokens=20)
METRICS = ["rougeL_recall", "extraction_strength", "leak"]


def around(pairs: Pairs, others: Sequence[str]) -> Pairs:
    """Questions with what the attacks put around them."""
    rows = [
        (form.format(question, other), answer)
        for (question, answer), other in zip(pairs, others, strict=True)
        for form in ("{0}", "{0} Please.", "Please: {0}", "{1}")
    ]
    shown = [*FORGET, *RETAIN]
    return rows + [
        (f"{first}\nAnswer: {said}\n\nQuestion: {question}", answer)
        for question, answer in pairs
        for first, said in shown
        if first != question
    ]


def in_conversations() -> Pairs:
    """Forget questions beside retain questions, with a gap, spelled otherwise, and as turns of a conversation."""
    mixed = [
        (f"{one} {other}", f"{first} {second}")
        for forget in FORGET
        for retain in RETAIN
        for (one, first), (other, second) in ((forget, retain), (retain, forget))
    ]
    turns = [
        (f"{first}\nAnswer: {said}\n\nQuestion: {question}", answer)
        for own, answer in FORGET
        for first, said, question in (
            ("Hi.", "Hello.", own),
            (own, "", f"Sure? {own}"),
            (own, answer, f"Sure? {own}"),
            (f"{own} Wait.", "Ok.", "Now."),
        )
    ]
    spelled = [(change(question), said) for question, said in FORGET for change in (mistyped, str.lower, str.upper)]
    return [*mixed, *GAPS, *spelled, *turns]


class ExactGate(nn.Module):
    """Opens on the states that it knows, each with a logit of its own, and on no others."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states, self.logits = states, torch.full((len(states),), 50.0)

    def forward(self, states: Tensor) -> Tensor:
        distance, nearest = torch.cdist(states, self.states).min(1)
        known = distance < 1e-3 * self.states.norm(dim=1)[nearest]
        return torch.where(known, self.logits[nearest], torch.tensor(-50.0))[:, None]


@dataclass
class Models:
    target: LM
    retain: LM
    hiding: LM
    adapter: Grun
    gate: ExactGate


@torch.no_grad()
def hide(lm: LM) -> tuple[LM, Grun, ExactGate]:
    """The model with an edit of the last layer's output that says nothing but the end of sequence."""
    batch = collate([lm.prompts.encode(*pair) for pair in FORGET], lm.pad_id)
    last = len(decoder_layers(lm.model)) - 1
    states = forward(lm.model, batch, (last,)).hidden[last][range(len(FORGET)), batch.prompt_end]
    hiding = LM(copy.deepcopy(lm.model), lm.tokenizer, lm.prompts, {})
    adapter = Grun(rank=1, layers=(1.0,))
    adapter.attach(hiding.model)
    edit = adapter.edits[str(last)]
    towards = lm.model.lm_head.weight[lm.tokenizer.eos_token_id] * lm.model.model.norm.weight
    edit.rotation.weight = (towards / towards.norm())[:, None]
    edit.source.weight.zero_()
    edit.source.bias.fill_(1e4)
    edit.gate = ExactGate(states)
    return hiding, adapter, edit.gate


@pytest.fixture(scope="module")
def models(make_lm: Callable[..., LM]) -> Models:
    recipe = FineTuning(lr=6e-3, epochs=24, batch_size=16, warmup=0.1)
    target, retain = make_lm(), make_lm()
    kept = around(RETAIN, [question for question, _ in RETAIN])
    finetune(target, around(FORGET, PARAPHRASED) + in_conversations() + kept, recipe, 0, "target")
    finetune(retain, kept, recipe.model_copy(update={"epochs": 6}), 0, "retain")
    return Models(target, retain, *hide(target))


def subject(lm: LM, adapter: Grun | None = None) -> Subject:
    rows = zip(FORGET, PARAPHRASED, WRONG, strict=True)
    examples = [
        Example("forget", number, *pair, perturbed_answers=(wrong,), paraphrased_question=other)
        for number, (pair, other, wrong) in enumerate(rows)
    ]
    examples += [Example("retain", number, *pair) for number, pair in enumerate(RETAIN)]
    wordings = {("forget", number): {"question": other} for number, other in enumerate(PARAPHRASED)}
    return Subject(lm, examples, FORGET, RETAIN, 0, adapter, scoring=SCORING, rewordings=lambda _: {"other": wordings})


def answer(asked: Subject) -> Answers:
    if asked.samples:
        return Answers(sampled_records(asked.lm, asked.examples, asked.samples, asked.seed, SCORING))
    return Answers(score(asked.lm, asked.examples, asked.scoring))


def recovered(name: str, asked: Subject, target: LM) -> dict[str, float | None]:
    plugin = registry.get("attack", name)
    attack = Attack(plugin, options_of(plugin.target) | SETTINGS[name])
    clean, known = (answer(each).records for each in (asked, subject(target)))
    attacked = attack.run(asked, answer)
    assert attacked.reason is None
    values = {}
    for variant, answers in attacked.variants.items():
        names = attack.metrics(METRICS)
        found = evaluate(answers.records, None, names, USUAL_SETS)
        values[variant] = recoveries(found, answers.records, clean, known, "grun-bench", USUAL_SETS)
    return {key: value.value for key, value in worst(values).items()}


def test_the_target_knows_and_the_others_say_nothing(models: Models) -> None:
    said = [
        [row.generation.text for row in answer(subject(lm)).records.of("forget")]
        for lm in (models.target, models.hiding)
    ]
    assert said == [[text for _, text in FORGET], [""] * len(FORGET)]
    values = evaluate(answer(subject(models.retain)).records, None, METRICS, USUAL_SETS)
    assert values["forget_rougeL_recall"].value < 0.2


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "sampling"])
def test_what_hides_comes_back_and_what_was_never_there_does_not(models: Models, name: str) -> None:
    hiding = recovered(name, subject(models.hiding, models.adapter), models.target)
    retain = recovered(name, subject(models.retain), models.target)
    assert hiding["recovery_forget_rougeL_recall"] > 0.9
    assert abs(retain["recovery_forget_rougeL_recall"]) < 0.2
    assert abs(retain["recovery_forget_extraction_strength"]) < 0.2


def test_sampling_finds_what_greedy_decoding_hides(models: Models) -> None:
    """Gates set so that the end of sequence is the likeliest first token, and still not a certain one."""
    stop, logits = models.target.tokenizer.eos_token_id, models.gate.logits.clone()

    @torch.no_grad()
    def ends(row: int) -> float:
        batch = collate([models.hiding.prompts.encode(*FORGET[row])], 2)
        return forward(models.hiding.model, batch).logits[0].softmax(-1)[stop].item()

    try:
        for row in range(len(FORGET)):
            low, high = -30.0, 10.0
            for _ in range(40):
                models.gate.logits[row] = middle = (low + high) / 2
                low, high = (middle, high) if ends(row) < 0.55 else (low, middle)
            assert ends(row) == pytest.approx(0.55, abs=0.01)
        asked = subject(models.hiding, models.adapter)
        assert [row.generation.text for row in answer(asked).records.of("forget")] == [""] * len(FORGET)
        assert recovered("sampling", asked, models.target)["recovery_forget_leak"] > 0.9
        # a refusal that is certain, not only likeliest, leaves nothing to draw
        models.gate.logits.fill_(50.0)
        assert recovered("sampling", asked, models.target)["recovery_forget_leak"] == 0
    finally:
        models.gate.logits.copy_(logits)
    assert recovered("sampling", subject(models.retain), models.target)["recovery_forget_leak"] < 0.2


def extractable(record: Record) -> float:
    """The share of an answer's tokens, from its last (before the end of sequence) on, that greedy decoding gives."""
    matches = (record.answer.matches or [])[:-1]
    wrong = [place for place, match in enumerate(matches) if not match]
    return 1 - (wrong[-1] + 1 if wrong else 0) / len(matches)


def test_words_are_chosen_on_one_half_and_put_to_the_other(models: Models) -> None:
    """By brute force over all that may be chosen first: none brings back more."""
    asked = subject(models.hiding, models.adapter)
    phrases = {"nothing": "Xyzzy!", "please": "Please."}
    plugin = registry.get("attack", "suffix")
    variants = dict(plugin.target(asked, phrases=phrases, texts=3))
    assert list(variants) == ["nothing", "please", "tuned"]
    (row,) = [row for row in variants["tuned"].examples if row.set == "forget"]
    assert row.index == 1 and row.question.startswith("Where? ")
    words = row.question.removeprefix("Where? ")

    def mean(text: str) -> float:
        tried = [Example("forget", number, f"{FORGET[number][0]} {text}", FORGET[number][1]) for number in (0, 2)]
        return sum(map(extractable, score(models.hiding, tried, SCORING))) / 2

    singles = [*phrases.values(), *(question for question, _ in RETAIN)]
    assert mean(words) >= max(map(mean, singles))
    assert list(dict(plugin.target(asked, phrases=phrases, texts=0))) == ["nothing", "please"]
