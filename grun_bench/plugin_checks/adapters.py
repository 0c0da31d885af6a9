"""The contract of an adapter."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from grun_bench.core import registry
from grun_bench.core.ranges import OF_PART
from grun_bench.methods.base import FitContext
from grun_bench.methods.make import make_unlearner
from grun_bench.plugin_checks.contract import Check, require
from grun_bench.plugin_checks.search import check_ranges
from grun_bench.plugin_checks.small_model import FORGET, RETAIN, fit, logits, pair, small_lm
from grun_bench.tasks.world import PUBLISHED


def trains_what_it_names(name: str) -> None:
    """after attach, gradients go to trainable_parameters() and to no other weight of the model"""
    lm = small_lm()
    adapter = registry.get("adapter", name).target()
    adapter.attach(lm.model)
    trainable = {id(parameter) for parameter in adapter.trainable_parameters()}
    require(bool(trainable), "trainable_parameters() is empty")
    others = [key for key, value in lm.model.named_parameters() if value.requires_grad and id(value) not in trainable]
    require(not others, f"{', '.join(others[:3])} would be trained, and trainable_parameters() does not have it")


def disabled_is_the_target(name: str) -> None:
    """within disabled() the model is the target to the bit, before training and, after keep_target(), after a step"""
    lm, before = small_lm(), logits(small_lm())
    adapter = registry.get("adapter", name).target()
    adapter.attach(lm.model)
    with adapter.disabled():
        require(torch.equal(logits(lm), before), "the model differs from the target before any training")
    adapter.keep_target()
    torch.manual_seed(0)
    for parameter in adapter.trainable_parameters():
        parameter.data = parameter.data + 0.01 * torch.randn_like(parameter)
    require(not torch.equal(logits(lm), before), "changed parameters do not change what the model says")
    with adapter.disabled():
        require(torch.equal(logits(lm), before), "the model differs from the target after a step")


def trains_with_an_objective(name: str) -> None:
    """gradient difference on top of it changes what the model says, and every number stays finite"""
    fitted = fit(pair(name, "gd"))
    after = logits(fitted.lm)
    require(bool(torch.isfinite(after).all()), "the trained model's logits are not finite")
    require(not torch.equal(after, logits(small_lm())), "training changed nothing")


def comes_back_from_its_folder(name: str) -> None:
    """save() and load() give the same logits (of adapters that leave the model's own weights alone)"""
    fitted = fit(pair(name, "gd"))
    if fitted.adapter is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        fitted.adapter.save(Path(folder))
        again = small_lm()
        registry.get("adapter", name).target(**fitted.options).load(again.model, Path(folder))
        require(torch.equal(logits(again), logits(fitted.lm)), "the loaded adapter's logits differ")


def goes_on_with_a_further_request(name: str) -> None:
    """a second request of a sequence changes what the first left, and disabled() is still the target"""
    unlearner = pair(name, "npo")
    context = FitContext(FORGET[:2], RETAIN, small_lm, lambda: small_lm(1), seed=0, stages=2)
    first = unlearner.fit(context)
    before = logits(first.lm)
    later = replace(context, forget=FORGET[2:], load_target=lambda: first.lm, stage=1, previous=first)
    second = unlearner.fit(later)
    require(not torch.equal(logits(second.lm), before), "the second request changed nothing")
    with second.state.disabled():
        require(torch.equal(logits(second.lm), logits(small_lm())), "the model differs from the target")


def is_searched_like_the_others(name: str) -> None:
    """tune searches two settings of it, its own or of training"""
    check_ranges(registry.get("adapter", name).searched, OF_PART, make_unlearner(f"{name}+gd", {}, PUBLISHED).settings)


#: all checks
CONTRACT: tuple[Check, ...] = (
    trains_what_it_names,
    disabled_is_the_target,
    trains_with_an_objective,
    comes_back_from_its_folder,
    goes_on_with_a_further_request,
    is_searched_like_the_others,
)
