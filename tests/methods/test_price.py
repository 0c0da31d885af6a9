"""What training costs beside the model: no second copy of it, and no optimiser state for what is not trained."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
from conftest import FORGET, RETAIN
from torch import Tensor

from grun_bench.methods import checkpoints
from grun_bench.methods import loop as training
from grun_bench.methods.base import FitContext
from grun_bench.methods.checkpoints import Checkpoint
from grun_bench.methods.make import make_unlearner
from grun_bench.models.lm import LM
from grun_bench.tasks.world import TOY


def storages() -> dict[int, int]:
    """Bytes by storage of all tensors that are alive."""
    found: dict[int, int] = {}
    for each in gc.get_objects():
        if isinstance(each, Tensor):
            storage = each.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return found


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "copies"),
    [("lora+kl", 0), ("reft+kl", 0), ("grun+kl", 0), ("grun+npo", 0), ("full+kl", 1), ("full+npo", 0)],
)
def test_no_second_copy_of_the_model(
    make_lm: Callable[..., LM], monkeypatch: pytest.MonkeyPatch, name: str, copies: int
) -> None:
    """Before the first step, tensors as large as the model's weights are alive only where `full` needs the target."""
    lm = make_lm()
    shapes = [parameter.shape for parameter in lm.model.parameters()]
    weights = sum(parameter.nbytes for parameter in lm.model.parameters())
    seen: list[int] = []
    optimise = training.optimise

    def looking(*args: Any, **named: Any) -> Any:
        seen.append(sum(storages().values()))
        return optimise(*args, **named)

    gc.collect()
    before = sum(storages().values())
    monkeypatch.setattr("grun_bench.methods.trainer.optimise", looking)
    options: dict[str, Any] = {"epochs": 1, "batch_size": 5}
    if name.startswith(("reft", "grun")):
        options |= {"layers": [2, 4], "rank": 2}
    if name.startswith("grun"):
        options["gate"] = "linear"
    if name.startswith("lora"):
        options["rank"] = 1
    unlearner = make_unlearner(name, options, TOY)
    unlearner.fit(FitContext(FORGET, RETAIN, lambda: lm, lambda: lm, 0, trunk_cache=False))
    assert len(shapes) == len(list(lm.model.parameters())) or name.startswith("lora")
    more = (seen[0] - before) / weights
    assert copies <= more < copies + 0.5


@pytest.mark.parametrize("name", ["lora+npo", "reft+npo", "grun+npo", "full+npo"])
def test_optimiser_state_is_of_what_is_trained(
    make_lm: Callable[..., LM], monkeypatch: pytest.MonkeyPatch, tmp_path: Any, name: str
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    monkeypatch.setattr(checkpoints, "TIMES", 0)
    options = {"layers": [2, 4]} if name.startswith(("reft", "grun")) else {}
    unlearner = make_unlearner(name, {"epochs": 2, "batch_size": 5} | options, TOY)
    # that after the last step has no optimiser, so it is read as it is written
    written: list[dict[str, Any]] = []
    monkeypatch.setattr(Checkpoint, "write", lambda _, state: written.append(state) or True)
    fitted = unlearner.fit(FitContext(FORGET, RETAIN, make_lm, make_lm, 0, checkpoint=Checkpoint(tmp_path / "one.pt")))
    state = next(each["optimiser"] for each in written if "optimiser" in each)["state"].values()
    # two moments and a step a parameter
    moments = sum(value.numel() for each in state for key, value in each.items() if key != "step")
    assert moments == 2 * fitted.trainable > 0
    base = sum(parameter.numel() for parameter in make_lm().model.parameters())
    assert (fitted.trainable == base) == name.startswith("full")
