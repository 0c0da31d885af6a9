"""A killed training goes on from its last checkpoint and ends with the weights that it would have had."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FORGET, RETAIN, SMALL
from safetensors.torch import load_file
from torch import Tensor

from grun_bench.methods import checkpoints
from grun_bench.methods.base import FitContext, Fitted
from grun_bench.methods.checkpoints import Checkpoint, checkpoint_of
from grun_bench.methods.make import make_unlearner
from grun_bench.methods.monitor import Monitor
from grun_bench.models.lm import LM
from grun_bench.runs.config import RunConfig
from grun_bench.runs.run import run
from grun_bench.tasks.world import TOY

#: optimiser steps of a run, one an epoch
EPOCHS = 40
#: the program with a checkpoint after each step
PROGRAM = """
import sys
from grun_bench import cli
from grun_bench.methods import checkpoints
checkpoints.EVERY = checkpoints.TIMES = 0
cli.main()
"""


class Killed(Exception):
    pass


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    monkeypatch.setattr(checkpoints, "TIMES", 0)


def fit(make_lm: Callable[..., LM], name: str, checkpoint: Checkpoint | None = None, **overrides: Any) -> Fitted:
    if name.split("+")[0] in ("reft", "grun"):
        overrides.setdefault("layers", [2, 4])
    monitor = overrides.pop("monitor", None)
    chosen = {"epochs": 3, "batch_size": 2, "lr": 1e-3} | overrides
    context = FitContext(FORGET, RETAIN, make_lm, make_lm, 0, checkpoint=checkpoint, monitor=monitor)
    return make_unlearner(name, chosen, TOY).fit(context)


def trained(fitted: Fitted) -> list[Tensor]:
    return fitted.adapter.trainable_parameters() if fitted.adapter else list(fitted.lm.model.parameters())


def same(one: Fitted, other: Fitted) -> bool:
    return all(torch.equal(*pair) for pair in zip(trained(one), trained(other), strict=True))


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        *("grun+altpo", "full+pdu", "task-vector"),
        *(pytest.param(name, marks=pytest.mark.whole) for name in ("grun+idk", "reft+kl", "lora+dpo", "lora+pdu")),
        pytest.param("full+rmu", marks=pytest.mark.whole),
    ],
)
def test_it_ends_with_the_same_weights(
    make_lm: Callable[..., LM], every_step: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    options = {} if name == "task-vector" else {"accumulate": 2, "warmup": 0.2}
    whole = fit(make_lm, name, **options)
    offer, written = Checkpoint.offer, []

    def stopping(self: Checkpoint, state: Callable[[], dict[str, Any]]) -> None:
        offer(self, state)
        written.append(self.path)
        if len(written) == 3:
            raise Killed

    path = tmp_path / "training.pt"
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "offer", stopping)
        with pytest.raises(Killed):
            fit(make_lm, name, Checkpoint(path), **options)
    # what the process drew since must not matter
    torch.rand(7)
    resumed = fit(make_lm, name, Checkpoint(path), **options)
    assert len(whole.history) > 3
    assert resumed.history == whole.history
    assert same(resumed, whole)
    assert resumed.seconds > 0


def test_the_multiplier_of_pdu_is_kept(
    make_lm: Callable[..., LM], every_step: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A training whose objective forgot its state would end otherwise."""
    path = tmp_path / "training.pt"
    options = {"dual_warmup": 0.0, "retain_limit": 0.0}
    whole = fit(make_lm, "full+pdu", Checkpoint(path), **options)
    state = torch.load(path, weights_only=True)
    assert state["objective"]["raised"].item() != 0
    # the last checkpoint is of the last step: what goes on from it has nothing left to do
    assert same(fit(make_lm, "full+pdu", Checkpoint(path), **options), whole)


@pytest.mark.long
@pytest.mark.parametrize("kept", ["nothing", "text", "a tensor", "another state", "another rank", "another length"])
def test_a_checkpoint_of_something_else_is_said_and_written_anew(
    make_lm: Callable[..., LM], tmp_path: Path, capfd: pytest.CaptureFixture[str], kept: str
) -> None:
    path = tmp_path / "training.pt"
    path.write_bytes({"text": b"not a checkpoint"}.get(kept, b""))
    if kept == "a tensor":
        torch.save(torch.ones(3), path)
    elif kept == "another state":
        torch.save({"seconds": 1.0, "history": [], "parameters": []}, path)
    elif kept.startswith("another"):
        fit(make_lm, "grun+gd", Checkpoint(path), **({"rank": 2} if kept == "another rank" else {"epochs": 5}))
    whole = fit(make_lm, "grun+gd")
    capfd.readouterr()
    assert same(fit(make_lm, "grun+gd", Checkpoint(path)), whole)
    said = [line for line in capfd.readouterr().err.splitlines() if str(path) in line]
    assert len(said) == 1 and "begins anew" in said[0]
    # it is not in the way the next time
    assert same(fit(make_lm, "grun+gd", Checkpoint(path)), whole)
    assert "goes on from step" in capfd.readouterr().err


def test_a_training_that_was_over_takes_no_step_again(
    make_lm: Callable[..., LM], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """However short it was, and without what only further steps need."""
    path = tmp_path / "training.pt"
    whole = fit(make_lm, "full+npo", Checkpoint(path))
    weights = sum(each.numel() * each.element_size() for each in trained(whole))
    assert weights < path.stat().st_size < 1.5 * weights
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_: pytest.fail("trained again"))
    again = fit(make_lm, "full+npo", Checkpoint(path))
    assert same(again, whole) and again.history == whole.history


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"

    class Bad:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"seconds": 0.0, "bad": Bad()}, path)
    assert Checkpoint(path).begin(lambda state: True) is None
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"threads": 7}, "threads 7, not 1: training begins anew; to go on from it: OMP_NUM_THREADS=7."),
        ({"commit": "0123456789abcdef"}, "the code of commit 01234567, not "),
        ({"threads": 7, "commit": "0123456789abcdef"}, "to go on from it: git checkout 01234567, OMP_NUM_THREADS=7."),
        ({"gpu": "H100"}, "gpu H100, not None: training begins anew."),
        ({"decisive": "another"}, None),
    ],
)
def test_a_checkpoint_of_other_threads_or_code_is_told_of(
    make_lm: Callable[..., LM],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    changed: dict[str, Any],
    says: str | None,
) -> None:
    monkeypatch.setenv("GRUN_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(checkpoints, "_commit", lambda: "f" * 40)
    monkeypatch.setattr(checkpoints.env, "packages", dict)
    here = checkpoint_of("run-0", "cpu")
    assert here.begin(lambda state: True) is None and here.write({"history": []})
    there = here.path.with_name("run-0-01234567.pt")
    kept = torch.load(here.path, weights_only=True)
    torch.save(kept | {"made": kept["made"] | changed}, there)
    here.remove()
    # one of another request or another run is not of this name
    torch.save(kept, here.path.with_name("run-0-1-01234567.pt"))
    capfd.readouterr()
    assert checkpoint_of("run-0", "cpu").begin(lambda state: True) is None
    said = capfd.readouterr().err
    if says is None:
        assert said == ""
    else:
        assert f"{there} is of this training, but with " in said and says in said and said.count("\n") == 1


def test_where_none_can_be_written_training_goes_on(
    make_lm: Callable[..., LM], every_step: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    fitted = fit(make_lm, "grun+gd", Checkpoint(tmp_path / "file" / "training.pt"))
    assert same(fitted, fit(make_lm, "grun+gd"))
    assert "no checkpoint was written" in capfd.readouterr().err


@pytest.mark.long
def test_they_are_written_by_time(make_lm: Callable[..., LM], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write, steps = Checkpoint.write, []

    def noting(self: Checkpoint, state: dict[str, Any]) -> bool:
        steps.append(len(state["history"]))
        return write(self, state)

    monkeypatch.setattr(Checkpoint, "write", noting)
    fit(make_lm, "grun+gd", Checkpoint(tmp_path / "short.pt"))
    assert steps == [9]
    clock = iter(range(0, 10_000, 7))
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: float(next(clock)))
    fit(make_lm, "grun+gd", Checkpoint(tmp_path / "long.pt"), epochs=6)
    # 18 steps of at least 7 seconds: one a minute, and the last
    assert 1 < len(steps) - 1 < 6 and steps[-1] == 18


# --- the program ------------------------------------------------------------------------------------------------------


@pytest.mark.whole
@pytest.mark.parametrize("name", ["lora+pdu", pytest.param("grun+idk", marks=pytest.mark.slow)])
def test_a_run_killed_by_the_system(
    environment: Path, hub: Path, results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    def config(output: str) -> RunConfig:
        overrides = {"epochs": EPOCHS}
        task, saved = str(hub / "small.yaml"), tmp_path / output / "saved"
        return RunConfig(name, task, tmp_path / output, model=SMALL, overrides=overrides, save=saved)

    for output in ("whole", "killed"):
        shutil.copytree(results, tmp_path / output)
    whole = run(config("whole"))
    kept = environment / "checkpoints"
    others = set(kept.glob("*"))
    options = f"run --unlearner {name} --task {hub / 'small.yaml'} --model {SMALL} --output {tmp_path / 'killed'}"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *options.split(), "--set", f"epochs={EPOCHS}"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    while not set(kept.glob("*.pt")) - others:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    capfd.readouterr()
    resumed = run(config("killed"))
    said = capfd.readouterr().err
    assert "goes on from step" in said and f"unlearning {name}" in said
    assert resumed.cell.result.history == whole.cell.result.history
    assert resumed.cell.result.results == whole.cell.result.results
    file = "adapter_model.safetensors" if name.startswith("lora") else "adapter.safetensors"
    first, second = (load_file(tmp_path / output / "saved" / file) for output in ("whole", "killed"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert set(kept.glob("*")) <= others


# --- evaluation during training ---------------------------------------------------------------------------------------


@pytest.mark.long
def test_watching_changes_nothing_and_is_resumed(
    make_lm: Callable[..., LM], every_step: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def drawing(lm: LM) -> dict[str, float | None]:
        """A measurement that draws random numbers and runs the model."""
        assert not torch.rand(3).isnan().any()
        return {"weight": sum(float(each.sum()) for each in lm.model.parameters() if each.requires_grad)}

    plain = fit(make_lm, "lora+gd")
    monitor = Monitor(4, drawing)
    assert same(fit(make_lm, "lora+gd", monitor=monitor), plain)
    assert list(monitor.values) == [0, 4, 8, 9]
    path = tmp_path / "training.pt"

    class Stopping(Monitor):
        def look(self, lm: LM, step: int, total: int) -> None:
            super().look(lm, step, total)
            if step == 7:
                raise Killed

    with pytest.raises(Killed):
        fit(make_lm, "lora+gd", Checkpoint(path), monitor=Stopping(4, drawing))
    again = Monitor(4, drawing)
    assert same(fit(make_lm, "lora+gd", Checkpoint(path), monitor=again), plain)
    assert again.values == monitor.values
