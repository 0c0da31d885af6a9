"""The contracts of plugins as checks that anybody can run: `grun-bench test NAME`, and the project's own tests.

A check is a function of a plugin's name that raises where the contract is broken; the first line of its docstring says
what it checks. All run on a random model of six small layers, in seconds.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from grun_bench.attacks.base import Answers, Attack, make_attacks
from grun_bench.attacks.subject import Subject
from grun_bench.core import registry
from grun_bench.core.errors import UsageError
from grun_bench.methods.adapters import Grun
from grun_bench.methods.trainer import FitContext, Fitted, Pair, Unlearner, make_unlearner
from grun_bench.metrics.evaluate import evaluate
from grun_bench.models.batch import Batch, collate
from grun_bench.models.forward import forward
from grun_bench.models.lm import LM, Prompts
from grun_bench.models.scoring import Example, ScoringSettings, score
from grun_bench.results.record import Choices, Continuation, Record, Records
from grun_bench.tasks.world import PUBLISHED

#: question-answer pairs of several lengths
FORGET = [
    ("Who?", "Ada."),
    ("Where does Bo live?", "In Rome, by the sea."),
    ("What did Cy write?", "A book of 12 tales."),
    ("When was Di born?", "1931"),
    ("Who taught Ed to paint?", "His aunt Flo."),
]
RETAIN = [
    ("Two and two?", "Four."),
    ("What is the day after Monday?", "Tuesday."),
    ("Opposite of hot?", "Cold, of course."),
    ("A colour?", "Red"),
    ("How many legs has a cow?", "4 legs"),
    ("Capital of France?", "Paris is."),
    ("What do bees make?", "Honey."),
]
#: a measure of lm-eval's, by whose name metrics over measures find their records
MEASURE = "quiz"
_SPECIAL = ["<bos>", "<eos>", "<pad>"]


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """One token a byte, with the beginning of sequence put before a text."""
    letters = {name: number for number, name in enumerate([*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    core = Tokenizer(models.BPE(vocab=letters, merges=[]))
    core.add_special_tokens(_SPECIAL)
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )


def small_lm(seed: int = 0, dtype: torch.dtype = torch.float32, tokenizer: PreTrainedTokenizerBase | None = None) -> LM:
    """The same small random Llama on every call with one seed: 6 layers, hidden 32, in evaluation mode.

    Its weights are large enough for predictions that differ from prompt to prompt.
    """
    tokenizer = tokenizer or byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).to(dtype).eval()
    return LM(model, tokenizer, Prompts(tokenizer, "qa"), {"name": "random"})


# --- what the checks are made of --------------------------------------------------------------------------------------


def _batch(lm: LM) -> Batch:
    return collate([lm.prompts.encode(*pair) for pair in FORGET], lm.pad_id)


@torch.no_grad()
def _logits(lm: LM) -> Tensor:
    lm.model.eval()
    return forward(lm.model, _batch(lm)).logits


def _fit(unlearner: Unlearner) -> Fitted:
    context = FitContext(FORGET, RETAIN, load_target=small_lm, load_retain_model=lambda: small_lm(1), seed=0)
    return unlearner.fit(context)


def _pair(adapter: str, objective: str) -> Unlearner:
    settings = {"epochs": 2, "batch_size": 3, "lr": 1e-2}
    return make_unlearner(f"{adapter}+{objective}", settings, PUBLISHED)


@cache
def _records(seed: int) -> Records:
    lm = small_lm(seed)
    examples = [
        Example(name, index, question, answer, answer.upper(), ("No.", "Never, no."), question.lower())
        for name, rows in zip(("forget", "retain", "real_authors", "world_facts"), (FORGET, RETAIN) * 2, strict=True)
        for index, (question, answer) in enumerate(rows)
    ]
    questions = [
        Record(MEASURE, index, question, Continuation(""), choices=Choices([-1.0 - index, -3.0], [True, False], 0))
        for index, (question, _) in enumerate(FORGET)
    ]
    return Records([*score(lm, examples, ScoringSettings(max_new_tokens=4)), *questions])


def _plain(settings: dict[str, Any]) -> None:
    try:
        json.dumps(settings)
    except TypeError as error:
        raise AssertionError(f"a setting cannot be written into a result: {error}") from None


# --- adapters ---------------------------------------------------------------------------------------------------------


def trains_what_it_names(name: str) -> None:
    """after attach, gradients go to trainable_parameters() and to no other weight of the model"""
    lm = small_lm()
    adapter = registry.get("adapter", name).target()
    adapter.attach(lm.model)
    trainable = {id(parameter) for parameter in adapter.trainable_parameters()}
    assert trainable, "trainable_parameters() is empty"
    others = [key for key, value in lm.model.named_parameters() if value.requires_grad and id(value) not in trainable]
    assert not others, f"{', '.join(others[:3])} would be trained, and trainable_parameters() does not have it"


def disabled_is_the_target(name: str) -> None:
    """within disabled() the model is the target to the bit, before training and, after keep_target(), after a step"""
    lm, before = small_lm(), _logits(small_lm())
    adapter = registry.get("adapter", name).target()
    adapter.attach(lm.model)
    with adapter.disabled():
        assert torch.equal(_logits(lm), before), "the model differs from the target before any training"
    adapter.keep_target()
    torch.manual_seed(0)
    for parameter in adapter.trainable_parameters():
        parameter.data = parameter.data + 0.01 * torch.randn_like(parameter)
    assert not torch.equal(_logits(lm), before), "changed parameters do not change what the model says"
    with adapter.disabled():
        assert torch.equal(_logits(lm), before), "the model differs from the target after a step"


def trains_with_an_objective(name: str) -> None:
    """gradient difference on top of it changes what the model says, and every number stays finite"""
    fitted = _fit(_pair(name, "gd"))
    assert torch.isfinite(after := _logits(fitted.lm)).all(), "the trained model's logits are not finite"
    assert not torch.equal(after, _logits(small_lm())), "training changed nothing"


def comes_back_from_its_folder(name: str) -> None:
    """save() and load() give the same logits (of adapters that leave the model's own weights alone)"""
    fitted = _fit(_pair(name, "gd"))
    if fitted.adapter is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        fitted.adapter.save(Path(folder))
        again = small_lm()
        registry.get("adapter", name).target(**fitted.options).load(again.model, Path(folder))
        assert torch.equal(_logits(again), _logits(fitted.lm)), "the loaded adapter's logits differ"


def goes_on_with_a_further_request(name: str) -> None:
    """a second request of a sequence changes what the first left, and disabled() is still the target"""
    unlearner = _pair(name, "npo")
    context = FitContext(FORGET[:2], RETAIN, small_lm, lambda: small_lm(1), seed=0, stages=2)
    first = unlearner.fit(context)
    before = _logits(first.lm)
    later = replace(context, forget=FORGET[2:], load_target=lambda: first.lm, stage=1, previous=first)
    second = unlearner.fit(later)
    assert not torch.equal(_logits(second.lm), before), "the second request changed nothing"
    with second.state.disabled():
        assert torch.equal(_logits(second.lm), _logits(small_lm())), "the model differs from the target"


# --- objectives -------------------------------------------------------------------------------------------------------


def works_with_every_adapter(name: str) -> None:
    """with each adapter it trains with finite losses, or is refused with a reason; one of them at least works"""
    refused = []
    for adapter in registry.names("adapter"):
        try:
            fitted = _fit(_pair(adapter, name))
        except UsageError as error:
            refused.append(f"{adapter}: {error}")
            continue
        assert all(np.isfinite(list(step.values())).all() for step in fitted.history), (
            f"{adapter}: a loss is not finite"
        )
    assert len(refused) < len(registry.names("adapter")), f"refused by every adapter: {'; '.join(refused)}"


def the_seed_decides(name: str) -> None:
    """two trainings with one seed give the same weights"""
    first, second = (_fit(_pair("full", name)) for _ in range(2))
    assert torch.equal(_logits(first.lm), _logits(second.lm)), "the same seed gave other weights"


def records_its_settings(name: str) -> None:
    """every setting can be written into a result file"""
    pair = _pair("full", name)
    assert isinstance(pair, Pair)
    _plain(pair.settings)


# --- metrics ----------------------------------------------------------------------------------------------------------


def stays_in_bounds(name: str) -> None:
    """every value lies within the declared bounds, or is null with a reason"""
    low, high = registry.get("metric", name).bounds
    values = evaluate(_records(0), _records(1), [name], {MEASURE: True})
    assert values, "no value at all"
    for key, value in values.items():
        if value.value is None:
            assert value.reason, f"{key} is null without a reason"
        else:
            assert low <= value.value <= high, f"{key} is {value.value}, the bounds are {low} to {high}"


def does_not_depend_on_order(name: str) -> None:
    """the order of the records changes nothing"""
    records, reference = _records(0), _records(1)
    mixed = Records(reversed(list(records)))
    first, second = (evaluate(each, reference, [name], {MEASURE: True}) for each in (records, mixed))
    assert first == second, "another order, other values"


# --- unlearners -------------------------------------------------------------------------------------------------------


def fits(name: str) -> None:
    """fit() gives a model whose logits are finite, in evaluation mode, and settings that a result file can hold"""
    unlearner = make_unlearner(name, {}, PUBLISHED)
    fitted = _fit(unlearner)
    assert not fitted.lm.model.training, "the model is left in training mode"
    assert torch.isfinite(_logits(fitted.lm)).all(), "the model's logits are not finite"
    _plain(unlearner.settings)


def says_whether_seeds_matter(name: str) -> None:
    """two fits with one seed give the same model"""
    first, second = (_fit(make_unlearner(name, {}, PUBLISHED)) for _ in range(2))
    assert torch.equal(_logits(first.lm), _logits(second.lm)), "the same seed gave another model"


# --- attacks ----------------------------------------------------------------------------------------------------------


def attacked_subject() -> Subject:
    """A small random model with a GRUN adapter that changes a lot, and examples of two sets."""
    lm = small_lm()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        adapter = Grun(gate_widths=(8, 4))
        adapter.attach(lm.model)
        with torch.no_grad():
            for parameter in adapter.trainable_parameters():
                parameter.add_(torch.randn_like(parameter))
    lm.model.eval()
    return Subject(lm, two_sets(), FORGET, RETAIN, 0, adapter)


def two_sets() -> list[Example]:
    """The forget and the retain rows as examples with all that may be asked of them."""
    return [
        Example(name, index, *pair, f"{pair[1]} too", ("No.", "Not that."), f"Say, {pair[0]}")
        for name, rows in (("forget", FORGET), ("retain", RETAIN))
        for index, pair in enumerate(rows)
    ]


def _attack_of(name: str) -> Attack:
    (attack,) = make_attacks([name], {}, PUBLISHED)
    return attack


def _nothing(altered: Subject) -> Answers:
    return Answers(Records([]))


def yields_variants(name: str) -> None:
    """variants with names of their own, or Inapplicable; afterwards model and examples are as before, to the bit"""
    subject = attacked_subject()
    with _untouched(subject):
        attacked = _attack_of(name).run(subject, _nothing)
    assert attacked.variants or attacked.reason, "no variant, and no Inapplicable that says why"


def may_be_abandoned(name: str) -> None:
    """stopped in its first variant, it leaves model and examples as before, to the bit"""
    subject = attacked_subject()

    def stop(altered: Subject) -> Answers:
        raise KeyboardInterrupt

    with _untouched(subject), suppress(KeyboardInterrupt):
        _attack_of(name).run(subject, stop)


@contextmanager
def _untouched(subject: Subject) -> Iterator[None]:
    """Whatever happens within this block: model and examples are afterwards what they were."""
    model, before, examples = subject.lm.model, _logits(subject.lm), copy.deepcopy(subject.examples)
    kept = {key: value.clone() for key, value in model.state_dict().items()}
    forms = _forms(model)
    yield
    assert subject.examples == examples, "the examples are not what they were"
    state = model.state_dict()
    assert state.keys() == kept.keys(), "the model has other weights than it had"
    changed = [key for key, value in state.items() if not torch.equal(value, kept[key])]
    assert not changed, f"{', '.join(changed[:3])} is not what it was"
    assert _forms(model) == forms, "modes, dtypes, hooks or what is trainable are not what they were"
    with torch.no_grad():
        logits = forward(model, _batch(subject.lm)).logits  # in the mode that it was left in
    assert torch.equal(logits, before), "the logits are not what they were"


def _forms(model: torch.nn.Module) -> list[Any]:
    """What a model is beside its weights."""
    hooks = sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())
    flags = [(parameter.requires_grad, parameter.dtype) for parameter in model.parameters()]
    return [hooks, flags, [part.training for part in model.modules()]]


#: plugin kind -> its contract
CONTRACTS: dict[str, tuple[Callable[[str], None], ...]] = {
    "adapter": (
        trains_what_it_names,
        disabled_is_the_target,
        trains_with_an_objective,
        comes_back_from_its_folder,
        goes_on_with_a_further_request,
    ),
    "objective": (works_with_every_adapter, the_seed_decides, records_its_settings),
    "metric": (stays_in_bounds, does_not_depend_on_order),
    "unlearner": (fits, says_whether_seeds_matter),
    "attack": (yields_variants, may_be_abandoned),
}


@dataclass(frozen=True)
class Checked:
    """One check of a plugin; `problem` is None where the contract holds."""

    what: str
    problem: str | None


def check(kind: str, name: str) -> Iterator[Checked]:
    """Run the contract of a plugin's kind on it. Raises UsageError where it is unknown or does not import."""
    registry.get(kind, name)
    for contract in CONTRACTS[kind]:
        problem = None
        try:
            contract(name)
        except AssertionError as error:
            problem = str(error)
        except Exception as error:  # whatever a plugin raises is what its author has to read
            problem = f"{type(error).__name__}: {error}"
        yield Checked((contract.__doc__ or "").split("\n")[0], problem)
