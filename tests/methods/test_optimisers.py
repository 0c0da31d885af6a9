"""Optimisers with states in 8 bits or in paged memory: near to AdamW, of the size that is said, refused in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FORGET, RETAIN, SMALL, TASK
from torch import nn

from grun_bench.core import processes
from grun_bench.core.errors import Refused, UsageError
from grun_bench.methods import checkpoints, optimisers
from grun_bench.methods.base import FitContext, Fitted
from grun_bench.methods.checkpoints import Checkpoint
from grun_bench.methods.loop import Schedule, optimise
from grun_bench.methods.make import make_unlearner
from grun_bench.methods.optimisers import OPTIMISERS, PAGED, adamw, check_optimiser
from grun_bench.models.lm import LM
from grun_bench.models.memory import MEANS, MEANS_8BIT, Shape, Training, Weights, training_memory
from grun_bench.runs.config import RunConfig
from grun_bench.runs.run import run
from grun_bench.tasks.task import FineTuning
from grun_bench.tasks.world import PUBLISHED

OPTIONS: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.999), "weight_decay": 0.01}


def fitted_line(optimiser: str) -> tuple[torch.Tensor, list[float]]:
    """The weights of a linear map after 60 steps of least squares, and its losses."""
    torch.manual_seed(0)
    inputs, true = torch.randn(256, 96), torch.randn(96, 64)
    weight = nn.Parameter(torch.zeros(96, 64))
    losses = optimise(
        [weight],
        [None] * 60,
        lambda _: {"loss": (inputs @ (weight - true)).square().mean()},
        Schedule(1e-2, weight_decay=0.01, optimiser=optimiser, clip=1e9),
        "least squares",
    )
    return weight.detach(), [each["loss"] for each in losses]


def test_in_8_bits_it_goes_as_adamw_does() -> None:
    (plain, losses), (rough, others) = fitted_line("adamw"), fitted_line("adamw8bit")
    assert not torch.equal(plain, rough)
    # a mean is off by up to a step of its code, of small means a larger share: weights by a few percent of their way
    assert (plain - rough).norm() < 0.06 * plain.norm()
    assert others[-1] == pytest.approx(losses[-1], rel=0.01) and losses[-1] < 0.6 * losses[0]


def test_states_are_of_the_size_that_is_said() -> None:
    weight = nn.Parameter(torch.randn(256, 512))
    weight.grad = torch.randn(256, 512)
    stepped = adamw("adamw8bit", [weight], **OPTIONS)
    stepped.step()
    tables = 2 * 256 * 4  # the codes' values, the same for all weights
    held = sum(each.nbytes for each in stepped.state[weight].values() if torch.is_tensor(each))
    assert held - tables == MEANS_8BIT * weight.numel()


@pytest.mark.parametrize(("name", "spared"), [("adamw8bit", 8 - MEANS_8BIT), ("paged", 8), ("paged8bit", 8)])
def test_the_estimate_knows_them(name: str, spared: float) -> None:
    shape, weights = Shape(4, 64, 192, 64, 64, 1000), Weights(1_000_000, 600_000)
    usual = Training(own=1_000_000, full_precision=0, blocks=4, kept="weights", tokens=512, answers=64)
    other = Training(**vars(usual) | {"bits8": name.endswith("8bit"), "paged": name in PAGED})
    before, after = (training_memory(shape, weights, each, "bfloat16") for each in (usual, other))
    assert before.device["training"] - after.device["training"] == pytest.approx(spared * 1_000_000)
    paged = {"adamw8bit": 0, "paged": MEANS["float32"], "paged8bit": MEANS_8BIT}[name]
    assert after.host.get("paged means", 0) == pytest.approx(paged * 1_000_000)


def fit(make_lm: Callable[..., LM], checkpoint: Checkpoint | None = None) -> Fitted:
    settings = {"epochs": 3, "batch_size": 2, "lr": 1e-3, "optimiser": "adamw8bit"}
    context = FitContext(FORGET, RETAIN, make_lm, make_lm, 0, checkpoint=checkpoint)
    return make_unlearner("full+gd", settings, PUBLISHED).fit(context)


@pytest.mark.long
def test_a_killed_training_ends_the_same(
    make_lm: Callable[..., LM], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    monkeypatch.setattr(checkpoints, "TIMES", 0)
    whole, write = fit(make_lm), Checkpoint.write

    def killing(self: Checkpoint, state: dict[str, Any]) -> bool:
        write(self, state)
        if len(state["history"]) == 2:
            raise KeyboardInterrupt
        return True

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "write", killing)
        with pytest.raises(KeyboardInterrupt):
            fit(make_lm, Checkpoint(tmp_path / "kept.pt"))
    resumed = fit(make_lm, Checkpoint(tmp_path / "kept.pt"))
    pairs = zip(whole.lm.model.parameters(), resumed.lm.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs) and resumed.history == whole.history


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("paged", {}, "memory is paged between a GPU and its host, and this run is on cpu"),
        ("paged8bit", {}, "this run is on cpu"),
        ("adamw8bit", {"way": "compensated"}, "trained_as=compensated is an optimiser of its own"),
    ],
)
def test_what_there_is_not_is_refused(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused, match=says):
        check_optimiser(name, "cpu", **options)


def test_without_bitsandbytes_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimisers, "find_spec", lambda name: None)
    for name in OPTIMISERS[1:]:
        with pytest.raises(Refused, match=r"needs bitsandbytes: pip install 'grun-bench\[quantisation\]'"):
            check_optimiser(name, "cuda")
    check_optimiser("adamw", "cpu")


def test_processes_that_divide_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "announced", lambda: 2)
    with pytest.raises(Refused, match="optimiser=adamw8bit in 2 processes"):
        check_optimiser("adamw8bit", "cuda")
    check_optimiser("adamw8bit", "cuda", divides=False)


@pytest.mark.long
def test_a_run_is_refused_before_anything_is_loaded(environment: Path, hub: Path, tmp_path: Path) -> None:
    task = str(hub / "small.yaml")
    for overrides, says in (({"optimiser": "paged"}, "on cpu"), ({"optimiser": "adam8bit"}, "one of adamw, adamw8bit")):
        with pytest.raises(UsageError, match=says):
            run(RunConfig("full+gd", task, tmp_path, model=SMALL, overrides=overrides, device="cpu"))
    assert not list(tmp_path.rglob("*.json"))


def test_rows_and_models_of_before_keep_their_keys() -> None:
    known = TASK["finetune"]
    assert FineTuning(**known).model_dump() == {"weight_decay": 0.0, "warmup": 0.0, **known}  # type: ignore[dict-item]
    assert FineTuning(**known, optimiser="paged").model_dump()["optimiser"] == "paged"  # type: ignore[arg-type]
    assert "optimiser" not in make_unlearner("full+gd", {}, PUBLISHED).settings
    assert make_unlearner("full+gd", {"optimiser": "adamw8bit"}, PUBLISHED).settings["optimiser"] == "adamw8bit"
