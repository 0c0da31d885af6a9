"""The optimiser loop against torch's own AdamW, what it hands on, and a loss that is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import get_scheduler

from grun_bench.core.errors import Diverged
from grun_bench.methods import loop as training
from grun_bench.methods.loop import Schedule, optimise


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


@pytest.mark.parametrize(("warmup", "decay"), [(0.0, "linear"), (0.3, "linear"), (0.3, "cosine"), (0.3, "constant")])
def test_schedules_are_hugging_faces(warmup: float, decay: str) -> None:
    schedule = Schedule(1.0, warmup=warmup, decay=decay, warmup_from_zero=True)
    optimiser = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1.0)
    name = "constant_with_warmup" if decay == "constant" else decay
    scheduler = get_scheduler(name, optimiser, num_warmup_steps=round(warmup * 10), num_training_steps=10)
    expected = []
    for _ in range(10):
        expected.append(scheduler.get_last_lr()[0])
        optimiser.step()
        scheduler.step()
    assert [schedule.factor(step, 10) for step in range(10)] == pytest.approx(expected, abs=1e-12)


def test_warm_up_begins_with_a_part_unless_it_is_told_to_begin_with_zero() -> None:
    factors = {
        zero: [Schedule(1.0, warmup=0.3, warmup_from_zero=zero).factor(step, 10) for step in range(4)]
        for zero in (False, True)
    }
    assert factors[False] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert factors[True] == pytest.approx([0, 1 / 3, 2 / 3, 1])
