"""Target and retain model made at once: the same weights as one after the other, and nothing left of who is stopped."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import SMALL

from grun_bench.methods import made_models
from grun_bench.runs import beside
from grun_bench.runs.config import RunConfig
from grun_bench.runs.inputs import Inputs, resolve
from grun_bench.runs.run import execute, run
from grun_bench.runs.session import Session

pytestmark = pytest.mark.whole


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What this process fine-tunes."""
    found: list[str] = []
    finetune = made_models.finetune

    def noted(*arguments: object) -> None:
        found.append(str(arguments[4]))
        finetune(*arguments)

    monkeypatch.setattr(made_models, "finetune", noted)
    return found


@pytest.fixture
def fresh(environment: Path, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], RunConfig]:
    """A run on an empty cache and an empty folder of results of this name."""

    def made(name: str) -> RunConfig:
        monkeypatch.setenv("GRUN_BENCH_CACHE", str(tmp_path / name / "cache"))
        return RunConfig("none", str(hub / "small.yaml"), tmp_path / name / "results", model=SMALL)

    return made


def at_once(config: RunConfig, device: str = "cpu") -> Inputs:
    """The inputs of a run whose target model may be made on this device while the retain model is made."""
    inputs = resolve(config, Session.of(config))
    return replace(inputs, models=replace(inputs.models, beside=device))


def weights(config: RunConfig) -> dict[str, bytes]:
    cache = config.output.parent / "cache" / "models"
    return {path.parent.name: path.read_bytes() for path in cache.glob("*/model.safetensors")}


def test_the_same_weights_as_one_after_the_other(
    fresh: Callable[[str], RunConfig], trained: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    serial = fresh("serial")
    run(serial)
    assert len(trained) == 2
    config = fresh("beside")
    outcome = execute(at_once(config))
    assert trained[2:] == ["fine-tuning the retain model"]  # the other was made elsewhere
    assert "fine-tuning the target model: 3/3" in capfd.readouterr().err
    assert weights(config) == weights(serial) and len(weights(config)) == 2
    assert outcome.target is not None and not outcome.target.reused
    # made already: nobody is asked for it
    again = at_once(config)
    assert not beside._pays(again)


def test_whoever_cannot_make_it_is_no_loss(fresh: Callable[[str], RunConfig], trained: list[str]) -> None:
    execute(at_once(fresh("elsewhere"), device="cuda:99"))
    assert [each.removeprefix("fine-tuning the ") for each in trained] == ["retain model", "target model"]


def test_nothing_runs_on_when_we_are_stopped(
    fresh: Callable[[str], RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    processes: list[subprocess.Popen[bytes]] = []
    start = beside._started

    def noted(config: RunConfig) -> subprocess.Popen[bytes]:
        processes.append(start(config))
        return processes[-1]

    monkeypatch.setattr(beside, "_started", noted)
    with pytest.raises(KeyboardInterrupt), beside.target_beside(at_once(fresh("stopped"))):
        raise KeyboardInterrupt
    assert [each.poll() is None for each in processes] == [False]
