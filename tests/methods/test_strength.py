"""Unlearned models at other strengths: the target at 0, the model itself at 1, a line of weights or edits between."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from attaching import attached, logits_of
from torch import nn

from grun_bench.core import registry
from grun_bench.core.errors import Refused
from grun_bench.methods.adapters.base import Adapter
from grun_bench.methods.base import FitContext, Fitted
from grun_bench.methods.make import make_unlearner
from grun_bench.methods.strength import Strength, mixed
from grun_bench.models.forward import decoder_layers
from grun_bench.models.lm import LM
from grun_bench.plugin_checks.small_model import FORGET, RETAIN, small_lm
from grun_bench.tasks.world import PUBLISHED

BESIDE = [name for name in registry.names("adapter") if not registry.get("adapter", name).target.changes_model]


def none() -> LM:
    raise AssertionError("an adapter needs no target model")


def guarded(**options: float) -> Fitted:
    target = small_lm
    context = FitContext(FORGET, RETAIN, load_target=target, load_retain_model=target, seed=0)
    return make_unlearner("guard", {"threshold": -1.0, "clusters": [2, 2], **options}, PUBLISHED).fit(context)


@pytest.mark.parametrize("name", [*BESIDE, "guard"])
def test_at_0_it_is_the_target_and_at_1_itself_to_the_bit(make_lm: Callable[..., LM], name: str) -> None:
    plain = logits_of(make_lm())
    if name == "guard":
        fitted = guarded()
    else:
        lm = make_lm()
        fitted = Fitted(lm, adapter=attached(lm, name, layers=[1, 5]) if "lora" not in name else attached(lm, name))
    lm, strength = fitted.lm, Strength(fitted, none)
    lm.model.eval()
    own = logits_of(lm)
    with strength.at(0.0):
        assert torch.equal(logits_of(lm), plain)
    with strength.at(1.0):
        assert torch.equal(logits_of(lm), own)
    with strength.at(0.5):
        half = logits_of(lm)
    assert torch.equal(logits_of(lm), own)
    assert not torch.equal(half, plain) and not torch.equal(half, own)


@pytest.mark.parametrize("strength", [0.25, 1.5])
def test_lora_at_a_strength_has_so_many_times_its_updates(make_lm: Callable[..., LM], strength: float) -> None:
    lm, merged = make_lm(), make_lm()
    adapter = attached(lm, "lora")
    for each in (lm, merged):
        each.model.double().eval()
    with torch.no_grad():
        for name, weight in merged.model.named_parameters():
            whole = dict(lm.model.named_modules()).get(name.removesuffix(".weight"))
            if hasattr(whole, "lora_A"):
                update = whole.lora_B["default"].weight @ whole.lora_A["default"].weight
                weight += strength * whole.scaling["default"] * update
    with adapter.at_strength(strength):
        torch.testing.assert_close(logits_of(lm), logits_of(merged), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["reft", "grun", "reft-held", "grun-held"])
def test_an_edit_of_the_last_block_goes_straight_with_the_strength(make_lm: Callable[..., LM], name: str) -> None:
    lm = make_lm()
    adapter = attached(lm, name, layers=[len(decoder_layers(lm.model)) - 1])
    seen: list[torch.Tensor] = []
    norm = lm.model.model.norm
    norm.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    for strength in (0.0, 1.0, 1.75):
        with adapter.at_strength(strength):
            logits_of(lm)
    plain, own, more = seen
    assert (own - plain).abs().max() > 0.1
    torch.testing.assert_close(more, plain + 1.75 * (own - plain), rtol=1e-4, atol=1e-4)


def test_guard_at_half_its_strength_is_guard_with_half_the_setting() -> None:
    strong, weak = guarded(strength=2.0), guarded(strength=1.0)
    with Strength(strong, none).at(0.5):
        assert torch.equal(logits_of(strong.lm), logits_of(weak.lm))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_changed_weights_are_mixed_with_the_targets(make_lm: Callable[..., LM], dtype: torch.dtype) -> None:
    target, lm = make_lm(), make_lm()
    for each in (target, lm):
        each.model.to(dtype)
    changed = decoder_layers(lm.model)[2]
    with torch.no_grad():
        for weight in changed.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    before = {name: weight.clone() for name, weight in target.model.named_parameters()}
    after = {name: weight.clone() for name, weight in lm.model.named_parameters()}
    strength = Strength(Fitted(lm), lambda: target)
    for factor in (0.0, 0.3, 1.0, 2.0):
        with strength.at(factor):
            for name, weight in lm.model.named_parameters():
                wanted = before[name].double() + factor * (after[name].double() - before[name].double())
                if factor in (0.0, 1.0):
                    assert torch.equal(weight.double(), wanted if factor == 0 else after[name].double())
                else:
                    torch.testing.assert_close(weight.double(), wanted, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
    assert all(torch.equal(weight, after[name]) for name, weight in lm.model.named_parameters())


def test_a_mix_is_exact_at_its_ends() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (10 ** torch.randn(10_000, generator=generator) for _ in range(2))
    assert torch.equal(mixed(one, other, 0), one) and torch.equal(mixed(one, other, 1), other)


def test_models_of_other_weights_do_not_mix(make_lm: Callable[..., LM]) -> None:
    lm, target = make_lm(), make_lm()
    lm.model.lm_head = nn.Linear(32, 7, bias=False)
    with pytest.raises(Refused, match=r"other weights than the target \(lm_head\.weight\)"):
        Strength(Fitted(lm), lambda: target)


def test_every_adapter_of_the_package_has_a_strength() -> None:
    assert all(registry.get("adapter", name).target.has_strength for name in BESIDE)
    assert make_unlearner("full+npo", {}, PUBLISHED).has_strength
    assert make_unlearner("task-vector", {}, PUBLISHED).has_strength
    assert make_unlearner("guard", {}, PUBLISHED).has_strength and not Adapter.has_strength
