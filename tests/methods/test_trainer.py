"""Unlearning: batches, reference log-likelihoods, settings, all pairs, seeds, divergence, and the optimiser loop."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
import yaml
from conftest import FORGET, RETAIN
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from grun_bench.core import registry
from grun_bench.core.errors import Diverged, UsageError
from grun_bench.methods import loop as training
from grun_bench.methods import trainer as unlearn
from grun_bench.methods.loop import Schedule, optimise
from grun_bench.methods.refusals import REFUSALS
from grun_bench.methods.trainer import FitContext, Fitted, make_unlearner, pair_batches, reference_nll
from grun_bench.models.forward import calling, forward
from grun_bench.models.lm import LM
from grun_bench.tasks.world import PUBLISHED, TOY

ADAPTERS, OBJECTIVES = ("full", "lora", "reft", "grun"), ("ga", "gd", "npo", "idk")


# --- batches ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 4), st.integers(1, 12), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_pair_batches(forget: int, retain: int, epochs: int, size: int, seed: int) -> None:
    batches = pair_batches(forget, retain, epochs, size, seed)
    steps = math.ceil(forget / size)
    assert len(batches) == epochs * steps
    for epoch in range(epochs):
        rows = [row for part, _ in batches[epoch * steps : (epoch + 1) * steps] for row in part]
        assert sorted(rows) == list(range(forget))
    assert all(len(first) == len(second) and len(first) <= size for first, second in batches)
    drawn = [row for _, part in batches for row in part]
    assert set(drawn) <= set(range(retain))
    for start in range(0, len(drawn) - retain + 1, retain):
        assert sorted(drawn[start : start + retain]) == list(range(retain))
    counts = Counter(drawn)
    assert max(counts.values()) - min(counts[row] for row in range(retain)) <= 1


def test_pair_batches_depend_on_the_seed_alone() -> None:
    assert pair_batches(20, 50, 2, 4, 1) == pair_batches(20, 50, 2, 4, 1) != pair_batches(20, 50, 2, 4, 2)
    first, second = pair_batches(20, 50, 2, 20, 1)
    assert first[0] != second[0]


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


# --- settings ---------------------------------------------------------------------------------------------------------


def recipes(section: str) -> dict[str, dict[str, Any]]:
    text = (registry._PACKAGE / "methods" / "recipes.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)[section]


def test_code_defaults_are_under_the_recipes() -> None:
    settings = make_unlearner("grun+npo", {}, PUBLISHED).settings
    assert settings["beta"] == 0.1 and settings["rank"] == 4  # written in the objective and the adapter alone
    assert "lr" in recipes("paper")["grun"] and settings["lr"] == recipes("paper")["grun"]["lr"] != unlearn.Recipe().lr
    # the pair's own recipe is over the adapter's
    assert settings["forget_weight"] == recipes("paper")["grun+npo"]["forget_weight"]


def test_the_embedded_recipe_is_over_the_papers() -> None:
    paper, embedded = (make_unlearner("grun+npo", {}, world).settings for world in (PUBLISHED, TOY))
    assert embedded["layers"] == recipes("embedded")["grun"]["layers"] != list(paper["layers"])
    assert embedded["lr"] == recipes("embedded")["grun"].get("lr", paper["lr"])


def test_grun_defaults_are_the_papers() -> None:
    common = {"lr": 4e-3, "batch_size": 16, "epochs": 40, "clip": 1.0, "warmup": 0.0, "gate_weight": 10.0, "rank": 4}
    weights = {"gd": (1.0, 2.0), "npo": (100.0, 1.0), "idk": (1.0, 1.0)}
    for name, (forget, retain) in weights.items():
        settings = make_unlearner(f"grun+{name}", {}, PUBLISHED).settings
        assert {key: settings[key] for key in common} == common
        assert list(settings["layers"]) == [0.65, 0.8, 1.0]
        assert (settings["forget_weight"], settings["retain_weight"]) == (forget, retain)


def test_overrides_win_and_are_recorded() -> None:
    changed = {"lr": 0.5, "epochs": 3, "layers": [1, 2], "gate": "linear", "beta": 1, "clip": "1e-2"}
    settings = make_unlearner("grun+npo", changed, TOY).settings
    assert settings["lr"] == 0.5 and settings["epochs"] == 3 and settings["layers"] == [1, 2]
    assert settings["gate"] == "linear" and settings["clip"] == 0.01
    assert settings["beta"] == 1.0 and isinstance(settings["beta"], float)


def test_unknown_setting_names_the_near_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown setting of grun\+npo 'epoch': did you mean epochs"):
        make_unlearner("grun+npo", {"epoch": 3}, TOY)
    with pytest.raises(UsageError, match="'beta'"):
        make_unlearner("grun+gd", {"beta": 0.1}, TOY)
    with pytest.raises(UsageError, match="'lr'"):
        make_unlearner("none", {"lr": 0.1}, TOY)


@pytest.mark.parametrize(
    ("key", "value"),
    [("epochs", 1.5), ("epochs", "many"), ("epochs", True), ("lr", "fast"), ("lr", True), ("lr", [1.0]), ("layers", 3)],
)
def test_wrong_type_is_refused(key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"--set {key}="):
        make_unlearner("grun+npo", {key: value}, TOY)


@pytest.mark.parametrize("value", ["cee", 5])
def test_unknown_retain_term_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="retain"):
        make_unlearner("full+ga", {"retain": value}, TOY)


def test_names() -> None:
    assert make_unlearner("npo", {}, TOY).settings == make_unlearner("full+npo", {}, TOY).settings
    for wrong, near in (("grum+npo", "grun"), ("grun+mpo", "npo"), ("retian", "retain"), ("grn+npo", "grun")):
        with pytest.raises(UsageError, match=rf"did you mean .*\b{near}\b"):
            make_unlearner(wrong, {}, TOY)


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
    batch = unlearn.collate([base.prompts.encode(*pair) for pair in FORGET], base.pad_id)
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
    start = fit(make_lm, f"{adapter}+gd", layers=[0.5, 1.0], lr=0.0)
    batch = unlearn.collate([start.lm.prompts.encode(*pair) for pair in FORGET], start.lm.pad_id)
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


# --- seeds ------------------------------------------------------------------------------------------------------------


def all_weights(fitted: Fitted) -> list[Tensor]:
    """Every weight of the unlearned model, adapters' included: the answers' logits stand for the hooked edits."""
    lm = fitted.lm
    batch = unlearn.collate([lm.prompts.encode(*pair) for pair in FORGET], lm.pad_id)
    with torch.no_grad():
        return [*lm.model.state_dict().values(), forward(lm.model, batch).logits]


@pytest.mark.parametrize("name", ["full+idk", "lora+gd", "reft+npo", "grun+npo"])
def test_the_seed_decides_the_weights(make_lm: Callable[..., LM], name: str) -> None:
    first, again, other = (all_weights(fit(make_lm, name, seed=seed)) for seed in (3, 3, 4))
    torch.rand(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


# --- divergence -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_leaves_the_weights(value: float) -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    seen = []

    def losses(number: int) -> dict[str, Tensor]:
        seen.append(parameter.detach().clone())
        return {"fine": parameter.sum(), "odd": parameter.sum() * (value if number == 2 else 1.0)}

    with pytest.raises(Diverged, match=r"step 3 of 5 .*odd"):
        optimise([parameter], range(5), losses, Schedule(0.1), "test")
    assert len(seen) == 3 and torch.equal(parameter.detach(), seen[-1])
    assert not torch.equal(seen[0], seen[1])


def test_a_pair_that_diverges_says_so(make_lm: Callable[..., LM]) -> None:
    with pytest.raises(Diverged, match="not finite"):
        fit(make_lm, "full+ga", lr=1e30, epochs=4, clip=1e30)


# --- the optimiser loop -----------------------------------------------------------------------------------------------


class Problem:
    """A small regression with two weights' worth of everything: data, loss and fresh parameters."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(24, 3, generator=generator)
        self.targets = torch.randn(24, generator=generator)

    def parameters(self) -> list[nn.Parameter]:
        return [nn.Parameter(torch.tensor([0.3, -1.0, 2.0])), nn.Parameter(torch.tensor(0.5))]

    def loss(self, parameters: list[nn.Parameter], rows: list[int]) -> Tensor:
        weight, bias = parameters
        return ((self.inputs[rows] @ weight + bias - self.targets[rows]) ** 2).mean()


@pytest.fixture
def problem() -> Problem:
    return Problem()


def batches_of(size: int) -> list[list[int]]:
    return [list(range(start, start + size)) for start in range(0, 24, size)]


def test_optimise_is_torchs_adamw_with_linear_decay_and_clip(problem: Problem) -> None:
    ours, theirs = problem.parameters(), problem.parameters()
    schedule = Schedule(0.05, weight_decay=0.1, betas=(0.8, 0.95), clip=0.5)
    optimise(ours, batches_of(4), lambda rows: {"loss": problem.loss(ours, rows)}, schedule, "test")
    optimiser = torch.optim.AdamW(theirs, lr=0.05, betas=(0.8, 0.95), weight_decay=0.1)
    clipped = 0
    for step, rows in enumerate(batches_of(4)):
        for group in optimiser.param_groups:
            group["lr"] = 0.05 * (6 - step) / 6
        optimiser.zero_grad()
        problem.loss(theirs, rows).backward()
        norm = math.sqrt(sum(float((each.grad**2).sum()) for each in theirs))
        if norm > 0.5:
            clipped += 1
            for each in theirs:
                each.grad *= 0.5 / norm
        optimiser.step()
    assert clipped > 0
    for first, second in zip(ours, theirs, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)


def test_accumulation_is_a_bigger_batch(problem: Problem) -> None:
    small, large = problem.parameters(), problem.parameters()
    told = optimise(
        small, batches_of(4), lambda rows: {"loss": problem.loss(small, rows)}, Schedule(0.05, accumulate=3), "test"
    )
    whole = optimise(large, batches_of(12), lambda rows: {"loss": problem.loss(large, rows)}, Schedule(0.05), "test")
    assert len(told) == len(whole) == 2
    for first, second in zip(small, large, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)
    assert [step["loss"] for step in told] == pytest.approx([step["loss"] for step in whole], rel=1e-5)


def test_accumulation_with_a_rest(problem: Problem) -> None:
    parameters = problem.parameters()
    told = optimise(
        parameters,
        batches_of(4)[:5],
        lambda rows: {"loss": problem.loss(parameters, rows)},
        Schedule(0.05, accumulate=2),
        "test",
    )
    assert len(told) == 3


def test_terms_are_summed_and_told(problem: Problem) -> None:
    split, joint = problem.parameters(), problem.parameters()

    def parts(rows: list[int]) -> dict[str, Tensor]:
        return {"fit": problem.loss(split, rows), "size": 0.3 * split[0].abs().sum()}

    told = optimise(split, batches_of(8), parts, Schedule(0.05), "test")
    optimise(
        joint,
        batches_of(8),
        lambda rows: {"all": problem.loss(joint, rows) + 0.3 * joint[0].abs().sum()},
        Schedule(0.05),
        "test",
    )
    for first, second in zip(split, joint, strict=True):
        torch.testing.assert_close(first, second)
    assert told[0]["size"] == pytest.approx(0.3 * 3.3) and set(told[0]) == {"fit", "size"}


def test_frozen_parameters_stay(problem: Problem) -> None:
    parameters = problem.parameters()
    parameters[1].requires_grad_(False)
    optimise(parameters, batches_of(8), lambda rows: {"loss": problem.loss(parameters, rows)}, Schedule(0.05), "test")
    assert parameters[1].item() == 0.5 and parameters[0][0].item() != pytest.approx(0.3)


@given(st.integers(1, 60), st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from(["linear", "cosine"]))
@settings(max_examples=50, deadline=None)
def test_schedule_rises_and_falls(total: int, warmup: float, decay: str) -> None:
    factors = [Schedule(1.0, warmup=warmup, decay=decay).factor(step, total) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert factors[top] == 1
    assert all(first < second for first, second in pairwise(factors[: top + 1]))
    assert all(first > second or first == second == 1 for first, second in pairwise(factors[top:]))


def test_schedule_values() -> None:
    assert [Schedule(1.0).factor(step, 4) for step in range(4)] == [1, 0.75, 0.5, 0.25]
    assert [Schedule(1.0, warmup=0.5).factor(step, 4) for step in range(4)] == [0.5, 1, 1, 0.5]
    cosine = Schedule(1.0, decay="cosine")
    assert [cosine.factor(step, 3) for step in range(3)] == pytest.approx([1, 0.75, 0.25])


def test_optimise_hands_on_what_it_did(monkeypatch: pytest.MonkeyPatch, problem: Problem) -> None:
    """The bar advances once an optimiser step, with the terms."""
    from contextlib import contextmanager

    calls: list[dict[str, float]] = []

    @contextmanager
    def bar(label: str, total: int) -> Iterator[Callable[..., None]]:
        assert (label, total) == ("a label", 3)
        yield lambda steps=1, **values: calls.append(values)

    monkeypatch.setattr(training, "bar", bar)
    parameters = problem.parameters()
    history = optimise(
        parameters, batches_of(8), lambda rows: {"loss": problem.loss(parameters, rows)}, Schedule(0.1), "a label"
    )
    assert calls == history and len(calls) == 3
