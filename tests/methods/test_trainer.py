"""Pairs: reference log-likelihoods, all of them on a small model, seeds and divergence."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FORGET, RETAIN
from torch import Tensor

from grun_bench.core import registry
from grun_bench.core.errors import Diverged, PluginError, UsageError
from grun_bench.methods.adapters.full import Full
from grun_bench.methods.base import FitContext, Fitted
from grun_bench.methods.draws import draw_batches, encode_rows
from grun_bench.methods.make import make_unlearner
from grun_bench.methods.recipes import Recipe
from grun_bench.methods.refusals import REFUSALS
from grun_bench.methods.step import Step, reference_nll
from grun_bench.models.batch import collate
from grun_bench.models.forward import calling, forward
from grun_bench.models.lm import LM
from grun_bench.tasks.world import PUBLISHED, TOY

ADAPTERS, OBJECTIVES = ("full", "lora", "reft", "grun"), ("ga", "gd", "npo", "idk")


# --- reference --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def nll_by_hand(lm: LM, question: str, answer: str) -> float:
    prompt, tokens = lm.prompts.prompt(question), lm.prompts.answer(answer)
    with calling(torch.tensor([len(prompt) - 1])):
        logprobs = lm.model(torch.tensor([prompt + tokens])).logits[0].log_softmax(-1)
    return -sum(logprobs[len(prompt) - 1 + number, token].item() for number, token in enumerate(tokens))


@pytest.mark.parametrize("size", [1, 2, 32])
def test_reference_nll_is_brute_force(lm: LM, size: int) -> None:
    lm.model.train()
    found = reference_nll(lm, [lm.prompts.encode(*pair) for pair in FORGET], size)
    assert not found.requires_grad
    assert found.tolist() == pytest.approx([nll_by_hand(lm, *pair) for pair in FORGET], rel=1e-4)


def test_references_are_those_of_the_rows_that_are_drawn(make_lm: Callable[..., LM]) -> None:
    """Of 50,000 rows of which a few steps draw a hundred, the others' likelihoods would take most of the time."""
    lm, recipe, adapter = make_lm(), Recipe(epochs=1, batch_size=2, steps=1), Full()
    adapter.attach(lm.model)
    sequences = {"forget": encode_rows(lm, FORGET, recipe), "retain": encode_rows(lm, RETAIN, recipe)}
    draws = draw_batches(sequences, recipe, 0)
    step = Step(lm, adapter, registry.get("objective", "npo").target, None, recipe, sequences, 0, {"reference"})
    step.keep_references(draws)
    found = step.references["forget"]
    assert sorted(found.isfinite().nonzero()[:, 0].tolist()) == sorted(draws[0].rows["forget"])
    for row in draws[0].rows["forget"]:
        assert found[row].item() == pytest.approx(nll_by_hand(lm, *FORGET[row]), rel=1e-4)


# --- all pairs --------------------------------------------------------------------------------------------------------


def fit(make_lm: Callable[..., LM], name: str, seed: int = 0, **overrides: Any) -> Fitted:
    if name.split("+")[0] in ("reft", "grun"):
        overrides.setdefault("layers", [2, 4])
    chosen = {"epochs": 1, "batch_size": 2, "lr": 1e-3} | overrides
    unlearner = make_unlearner(name, chosen, TOY)
    return unlearner.fit(FitContext(FORGET, RETAIN, make_lm, make_lm, seed))


def weights(lm: LM) -> dict[str, Tensor]:
    """The base model's weights by their own names, whatever has been wrapped around them."""
    return {name.replace(".base_layer", ""): value for name, value in lm.model.state_dict().items()}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_every_pair_changes_only_what_it_may(make_lm: Callable[..., LM], adapter: str, objective: str) -> None:
    base = make_lm()
    fitted = fit(make_lm, f"{adapter}+{objective}")
    after = weights(fitted.lm)
    same = all(torch.equal(value, after[name]) for name, value in base.model.state_dict().items())
    assert same == (adapter != "full")
    batch = collate([base.prompts.encode(*pair) for pair in FORGET], base.pad_id)
    with torch.no_grad():
        before, now = (forward(each.model, batch).logits for each in (base, fitted.lm))
    assert torch.isfinite(now).all()
    assert not torch.equal(before, now)
    assert not fitted.lm.model.training
    assert len(fitted.history) == math.ceil(len(FORGET) / 2)
    expected = {"forget"} | ({"retain"} if objective != "ga" else set()) | ({"gate"} if adapter == "grun" else set())
    assert all(set(step) == expected for step in fitted.history)


def test_there_are_sixteen_pairs() -> None:
    assert set(ADAPTERS) <= set(registry.names("adapter")) and set(OBJECTIVES) <= set(registry.names("objective"))


@pytest.mark.parametrize("adapter", ["reft", "grun"])
def test_later_layers_of_the_edit_get_a_gradient(make_lm: Callable[..., LM], adapter: str) -> None:
    fitted = fit(make_lm, f"{adapter}+gd", layers=[0.5, 1.0])
    start = fit(make_lm, f"{adapter}+gd", layers=[0.5, 1.0], lr=1e-30)
    batch = collate([start.lm.prompts.encode(*pair) for pair in FORGET], start.lm.pad_id)
    with torch.no_grad():
        before, now = (forward(each.lm.model, batch).logits for each in (start, fitted))
    assert not torch.equal(before, now)
    assert fitted.trainable == start.trainable > 0


@pytest.mark.parametrize("adapter", ["full", "lora", "reft", "grun"])
def test_npo_starts_at_the_reference(make_lm: Callable[..., LM], adapter: str) -> None:
    """Before any step every adapter but an edit is the target itself, so NPO begins at (2 / beta) log 2."""
    overrides: dict[str, Any] = {"batch_size": 5, "beta": 0.5, "forget_weight": 3.0, "retain_weight": 0.0}
    if adapter == "lora":
        overrides["dropout"] = 0.0
    fitted = fit(make_lm, f"{adapter}+npo", **overrides)
    first = fitted.history[0]["forget"]
    start = 3 * 2 / 0.5 * math.log(2)
    if adapter in ("full", "lora"):
        assert first == pytest.approx(start, rel=1e-4)
    else:  # an edit is never nothing at its start; the reference is the model without it
        assert first != pytest.approx(start, rel=1e-4)


def test_weights_scale_the_terms(make_lm: Callable[..., LM]) -> None:
    one = fit(make_lm, "full+gd", batch_size=5).history[0]
    both = fit(make_lm, "full+gd", batch_size=5, forget_weight=2.0, retain_weight=3.0).history[0]
    assert both["forget"] == pytest.approx(2 * one["forget"], rel=1e-6)
    assert both["retain"] == pytest.approx(3 * one["retain"], rel=1e-6)
    assert "retain" not in fit(make_lm, "full+gd", retain_weight=0.0).history[0]


def test_forgetting_by_ascent_lowers_the_probability(make_lm: Callable[..., LM]) -> None:
    base = make_lm()
    fitted = fit(make_lm, "full+ga", epochs=3)
    before = sum(nll_by_hand(base, *pair) for pair in FORGET)
    assert sum(nll_by_hand(fitted.lm, *pair) for pair in FORGET) > before + 1


def test_idk_teaches_refusals(make_lm: Callable[..., LM]) -> None:
    def surprise(lm: LM) -> float:
        return sum(nll_by_hand(lm, question, refusal) for question, _ in FORGET for refusal in REFUSALS[:4])

    assert surprise(fit(make_lm, "grun+idk", epochs=4, lr=1e-2).lm) < surprise(make_lm()) - 1


def test_none_and_retain_train_nothing(make_lm: Callable[..., LM]) -> None:
    target, oracle = make_lm(seed=1), make_lm(seed=2)
    context = FitContext(FORGET, RETAIN, lambda: target, lambda: oracle, 0)
    for name, expected in (("none", target), ("retain", oracle)):
        unlearner = make_unlearner(name, {}, TOY)
        fitted = unlearner.fit(context)
        assert fitted.lm is expected and fitted.trainable == 0 and not unlearner.seeded


def test_without_a_retain_set(make_lm: Callable[..., LM]) -> None:
    """Ascent trains as with one; what needs retain rows says so."""
    settings = {"epochs": 1, "batch_size": 2, "lr": 1e-3}
    alone, beside = (
        make_unlearner("lora+ga", settings, PUBLISHED).fit(FitContext(FORGET, retain, make_lm, make_lm, 0))
        for retain in ((), RETAIN)
    )
    assert len(alone.history) == 3 and alone.history[0] == beside.history[0]
    for name, reason in (("lora+gd", "a retain term"), ("grun+ga", "a gate")):
        with pytest.raises(UsageError, match=f"{reason}.*no retain set"):
            make_unlearner(name, settings, PUBLISHED).fit(FitContext(FORGET, (), make_lm, make_lm, 0))


# --- seeds ------------------------------------------------------------------------------------------------------------


def all_weights(fitted: Fitted) -> list[Tensor]:
    """Every weight of the unlearned model, adapters' included: the answers' logits stand for the hooked edits."""
    lm = fitted.lm
    batch = collate([lm.prompts.encode(*pair) for pair in FORGET], lm.pad_id)
    with torch.no_grad():
        return [*lm.model.state_dict().values(), forward(lm.model, batch).logits]


@pytest.mark.parametrize("name", ["full+idk", "lora+gd", "reft+npo", "grun+npo"])
def test_the_seed_decides_the_weights(make_lm: Callable[..., LM], name: str) -> None:
    first, again, other = (all_weights(fit(make_lm, name, seed=seed)) for seed in (3, 3, 4))
    torch.rand(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


# --- what objectives give ---------------------------------------------------------------------------------------------

GIVEN = """
import torch
from grun_bench.core.registry import objective

@objective("gives"{retain})
def gives(batch):
    "What it gives."
    loss = -batch.forget.cross_entropy
    return {given}
"""
#: what an objective gives in place of a loss -> what is said of it
WRONG = {
    "None": "gave None",
    "1.0": "gave a float",
    "torch.stack([loss, loss])": "gave a tensor of shape (2,) and torch.float32",
    "loss * (1 + 1j)": "gave a tensor of shape () and torch.complex64",
    "torch.tensor(1)": "gave a tensor of shape () and torch.int64",
    "torch.tensor(1.0)": "gave a constant",
    "loss.detach()": "gave a constant",
}


def fit_with(make_lm: Callable[..., LM], folder: Path, given: str, retain: str = "", **settings: Any) -> Fitted:
    (folder / "gives.py").write_text(GIVEN.format(given=given, retain=f", retain={retain!r}" if retain else ""))
    with registry.including([folder / "gives.py"]):
        return fit(make_lm, "lora+gives", **settings)


@pytest.mark.parametrize("retain", ["", "ce"])
@pytest.mark.parametrize("given", WRONG)
def test_an_objective_that_gives_no_loss_is_named_with_what_it_gave(
    make_lm: Callable[..., LM], tmp_path: Path, given: str, retain: str
) -> None:
    with pytest.raises(PluginError, match=r"^objective gives .* scalar tensor .* depends on") as raised:
        fit_with(make_lm, tmp_path, given, retain)
    assert WRONG[given] in str(raised.value)


@pytest.mark.parametrize("given", ["loss", "loss[None]"])
def test_an_objective_that_gives_a_loss_is_trained(make_lm: Callable[..., LM], tmp_path: Path, given: str) -> None:
    assert fit_with(make_lm, tmp_path, given).history == fit(make_lm, "lora+ga").history


def test_an_objective_may_have_nothing_more_to_forget_where_something_else_is_trained(
    make_lm: Callable[..., LM], tmp_path: Path
) -> None:
    later = "loss if batch.forget and globals().setdefault('steps', []).append(1) is None and len(steps) < 2 else "
    fitted = fit_with(make_lm, tmp_path, f"{later} torch.tensor(0.0)", "ce", epochs=3)
    assert fitted.history[-1]["forget"] == 0 < fitted.history[-1]["retain"]
    with pytest.raises(PluginError, match="gave a constant"):
        fit_with(make_lm, tmp_path, f"{later} torch.tensor(1.0)", epochs=3)


# --- divergence -------------------------------------------------------------------------------------------------------


def test_a_pair_that_diverges_says_so(make_lm: Callable[..., LM]) -> None:
    with pytest.raises(Diverged, match="not finite"):
        fit(make_lm, "full+ga", lr=1e30, epochs=4, clip=1e30)


def test_a_rate_for_another_width_is_that_rate_there(make_lm: Callable[..., LM]) -> None:
    width = make_lm().model.config.hidden_size
    there, here = (fit(make_lm, "full+npo", **told) for told in ({"lr": 1e-3, "lr_width": 2 * width}, {"lr": 2e-3}))
    assert all(torch.equal(value, weights(here.lm)[name]) for name, value in weights(there.lm).items())


def test_where_few_rows_are_trained_otherwise_it_is_said(
    make_lm: Callable[..., LM], capsys: pytest.CaptureFixture[str]
) -> None:
    fitted = fit(make_lm, "full+npo", batch_size=32, least_steps=2 * len(FORGET) + 1)
    assert len(fitted.history) == 3 * len(FORGET)
    assert f"batches of 1 of the {len(FORGET)} rows in 3 epochs (least_steps=" in capsys.readouterr().err
    fit(make_lm, "full+npo")
    assert "least_steps" not in capsys.readouterr().err
