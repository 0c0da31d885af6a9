"""The contract of an attack."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from grun_bench.attacks.base import Answers, Attack, Subject, make_attacks
from grun_bench.methods.adapters.grun import Grun
from grun_bench.plugin_checks.contract import Check, require
from grun_bench.plugin_checks.small_model import FORGET, RETAIN, logits, small_lm, two_sets
from grun_bench.results.record import Records
from grun_bench.tasks.world import PUBLISHED


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


def _attack(name: str) -> Attack:
    (attack,) = make_attacks([name], {}, PUBLISHED)
    return attack


def _nothing(altered: Subject) -> Answers:
    return Answers(Records([]))


def yields_variants(name: str) -> None:
    """variants with names of their own, or Inapplicable; afterwards model and examples are as before, to the bit"""
    subject = attacked_subject()
    with _untouched(subject):
        attacked = _attack(name).run(subject, _nothing)
    require(bool(attacked.variants or attacked.reason), "no variant, and no Inapplicable that says why")


def may_be_abandoned(name: str) -> None:
    """stopped in its first variant, it leaves model and examples as before, to the bit"""
    subject = attacked_subject()

    def stop(altered: Subject) -> Answers:
        raise KeyboardInterrupt

    with _untouched(subject), suppress(KeyboardInterrupt):
        _attack(name).run(subject, stop)


@contextmanager
def _untouched(subject: Subject) -> Iterator[None]:
    """Whatever happens within this block: model and examples are afterwards what they were."""
    model, before, examples = subject.lm.model, logits(subject.lm), copy.deepcopy(subject.examples)
    kept = {key: value.clone() for key, value in model.state_dict().items()}
    forms = _forms(model)
    yield
    require(subject.examples == examples, "the examples are not what they were")
    state = model.state_dict()
    require(state.keys() == kept.keys(), "the model has other weights than it had")
    changed = [key for key, value in state.items() if not torch.equal(value, kept[key])]
    require(not changed, f"{', '.join(changed[:3])} is not what it was")
    require(_forms(model) == forms, "modes, dtypes, hooks or what is trainable are not what they were")
    require(torch.equal(logits(subject.lm, as_it_is=True), before), "the logits are not what they were")


def _forms(model: torch.nn.Module) -> list[Any]:
    """What a model is beside its weights."""
    hooks = sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())
    flags = [(parameter.requires_grad, parameter.dtype) for parameter in model.parameters()]
    return [hooks, flags, [part.training for part in model.modules()]]


#: all checks
CONTRACT: tuple[Check, ...] = (yields_variants, may_be_abandoned)
