"""Several processes end with the numbers of one: weights, losses, references, and a checkpoint of either."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FORGET, RETAIN
from together import together
from torch import Tensor

from grun_bench.core import processes
from grun_bench.core.errors import GrunBenchError, Refused
from grun_bench.core.signals import Stopped, stopping
from grun_bench.methods import checkpoints
from grun_bench.methods.base import FitContext, Fitted
from grun_bench.methods.checkpoints import Checkpoint
from grun_bench.methods.finetune import finetune
from grun_bench.methods.make import make_unlearner
from grun_bench.methods.monitor import Monitor
from grun_bench.methods.parts import Part
from grun_bench.methods.trained_weights import rounded
from grun_bench.models.lm import LM
from grun_bench.tasks.task import FineTuning
from grun_bench.tasks.world import TOY

pytestmark = pytest.mark.whole

#: batches of 2 of the 5 rows: the last of an epoch has a row for one of two processes only
OPTIONS = {"epochs": 2, "batch_size": 2, "lr": 1e-4, "warmup": 0.2, "clip": 0.5}
#: what float32 leaves of sums in another order, over a few steps
SAME = 1e-6


def fit(
    make_lm: Callable[..., LM],
    name: str,
    context: dict[str, Any] | None = None,
    dtype: str = "float32",
    **overrides: Any,
) -> Fitted:
    own: dict[str, Any] = {"layers": [2, 4]} if name.split("+")[0] in ("reft", "grun") else {}
    unlearner = make_unlearner(name, OPTIONS | own | overrides, TOY, dtype)
    return unlearner.fit(replace(FitContext(FORGET, RETAIN, make_lm, make_lm, 0), **context or {}))


def trained(fitted: Fitted) -> list[Tensor]:
    values = fitted.adapter.trainable_parameters() if fitted.adapter else fitted.lm.model.parameters()
    return [value.detach().clone() for value in values]


def apart(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest difference of two weights."""
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("full+npo", {"accumulate": 2, "checkpointing": True}),  # references
        ("full+kl", {"layers": [1, 0.9]}),  # the target's logits, from other weights in the same parts
        ("full+pdu", {"dual_warmup": 0.0, "retain_limit": 0.0}),  # state between steps
        ("lora+dpo", {"dropout": 0.0}),
        ("grun+rmu", {}),  # gates, hidden states and a trunk
    ],
)
def test_two_processes_end_with_the_weights_of_one(
    make_lm: Callable[..., LM], tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    def run() -> tuple[list[Tensor], list[list[float]]]:
        fitted = fit(make_lm, name, **options)
        return trained(fitted), [[*step.values()] for step in fitted.history]

    weights, history = run()
    found = together(tmp_path, run)
    for each, losses in found:
        assert apart(each, weights) < SAME
        assert torch.allclose(torch.tensor(losses), torch.tensor(history), rtol=1e-5, atol=SAME)
    assert apart(found[0][0], found[1][0]) == 0
    if name.startswith("full"):
        assert apart(weights, trained(Fitted(make_lm()))) > 100 * SAME


def test_fine_tuning(make_lm: Callable[..., LM], tmp_path: Path) -> None:
    """Three processes of which some have no row, on token means of rows of unlike length."""
    recipe = FineTuning(lr=1e-4, epochs=2, batch_size=5, weight_decay=0.1)

    def run() -> list[Tensor]:
        lm = make_lm()
        finetune(lm, RETAIN, recipe, 0, "fine-tuning")
        return trained(Fitted(lm))

    weights = run()
    for each in together(tmp_path, run, count=3):
        assert apart(each, weights) < SAME
    assert apart(weights, trained(Fitted(make_lm()))) > 100 * SAME


@pytest.mark.parametrize("way", ["float32", "compensated"])
def test_weights_of_fewer_bits(make_lm: Callable[..., LM], tmp_path: Path, way: str) -> None:
    """They are rounded as in one process, but where a gradient of eight bits was rounded otherwise."""

    def run() -> list[Tensor]:
        return trained(
            fit(partial(make_lm, dtype=torch.bfloat16), "full+npo", dtype="bfloat16", trained_as=way, lr=1e-3)
        )

    weights, start = run(), trained(Fitted(make_lm(dtype=torch.bfloat16)))
    found = together(tmp_path, run)
    assert apart(found[0], found[1]) == 0
    flat = [torch.cat([each.flatten().float() for each in part]) for part in (found[0], weights, start)]
    assert (flat[0] - flat[1]).norm() < 0.1 * (flat[1] - flat[2]).norm()


@pytest.mark.parametrize("columns", [5, 300_000])
def test_a_part_is_rounded_as_in_the_whole(columns: int) -> None:
    whole = torch.randn(7, columns)

    class Half(Part):
        shape = whole.shape  # type: ignore[assignment]

        def of(self, drawn: Tensor) -> Tensor:
            return drawn[4:]

    expected = rounded(whole, torch.bfloat16, 3)
    assert torch.equal(rounded(whole[4:], torch.bfloat16, 3, Half(None, whole[4:])), expected[4:])
    assert not torch.equal(rounded(whole[4:], torch.bfloat16, 3), expected[4:])


# --- checkpoints, signals and failures --------------------------------------------------------------------------------


@pytest.mark.parametrize("began", [1, 2])
def test_a_training_goes_on_in_another_number_of_processes(
    make_lm: Callable[..., LM], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, began: int
) -> None:
    """The last process alone is asked to stop: all stop after the same step."""
    monkeypatch.setattr(checkpoints, "EVERY", 1e9)
    path = tmp_path / "training.pt"

    def stop(step: int, values: dict[str, float | None]) -> None:
        if step == 3 and processes.rank() == began - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def killed() -> bool:
        # a look at the whole model in between changes nothing
        monitor = Monitor(1, lambda lm: {"sum": sum(float(each.sum()) for each in lm.model.parameters())}, watch=stop)
        try:
            with stopping():
                fit(make_lm, "full+npo", {"checkpoint": Checkpoint(path), "monitor": monitor})
        except Stopped:
            return True
        return False

    def resumed() -> tuple[list[Tensor], int]:
        monitor = Monitor(1, lambda lm: {})
        fitted = fit(make_lm, "full+npo", {"checkpoint": Checkpoint(path), "monitor": monitor})
        return trained(fitted), len(monitor.values)

    whole = trained(fit(make_lm, "full+npo"))
    assert all(together(tmp_path, killed, began) if began > 1 else [killed()])
    kept = torch.load(path, weights_only=True)
    assert len(kept["history"]) == 3
    assert kept["optimiser"]["state"][0]["exp_avg"].shape == whole[0].shape
    for weights, looks in [resumed()] if began > 1 else together(tmp_path, resumed):
        assert apart(weights, whole) < SAME
        assert looks == 7
    assert list(tmp_path.glob("*.part")) == []


def test_what_is_random_in_training_is_refused(make_lm: Callable[..., LM], tmp_path: Path) -> None:
    def run() -> str:
        with pytest.raises(Refused) as error:
            fit(make_lm, "lora+npo", dropout=0.05)
        return str(error.value)

    assert all("dropout=0" in message for message in together(tmp_path, run))


def test_what_the_first_does_alone(tmp_path: Path) -> None:
    def run() -> tuple[Any, ...]:
        def write() -> int:
            (tmp_path / f"{processes.rank()}").write_text("")
            return processes.count()

        def fail() -> None:
            raise GrunBenchError("no room")

        alone = processes.only_first(write)
        with pytest.raises(GrunBenchError, match="no room"):
            processes.only_first(fail)
        mine = processes.own("abcde")
        found = processes.merged({letter: processes.rank() for letter in mine})
        return alone, processes.count(), found, processes.most(processes.rank(), 3 - processes.rank())

    expected = (1, 2, {"a": 0, "b": 1, "c": 0, "d": 1, "e": 0}, [1, 3])
    assert together(tmp_path, run) == [expected, expected]
    assert (tmp_path / "0").exists() and not (tmp_path / "1").exists()
