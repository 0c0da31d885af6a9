"""Runs in one process do not influence each other, and looking up what a run works with leaves no trace."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import torch
from conftest import SMALL

from grun_bench.core import registry
from grun_bench.core.errors import UsageError
from grun_bench.runs.config import RunConfig
from grun_bench.runs.inputs import Inputs, resolve
from grun_bench.runs.run import run
from grun_bench.runs.session import Session

SCALED = """
from grun_bench.core.registry import unlearner
from grun_bench.methods.base import Fitted, Unlearner


@unlearner("scaled")
class Scaled(Unlearner):
    "The vocabulary head times {factor}."

    seeded = False

    @property
    def settings(self):
        return {{"factor": {factor}}}

    def fit(self, context):
        lm = context.load_target()
        lm.model.get_output_embeddings().weight.data.mul_({factor})
        return Fitted(lm)
"""


def small(hub: Path, output: Path, unlearner: str = "none", **changes: object) -> RunConfig:
    return RunConfig(unlearner, str(hub / "small.yaml"), output, model=SMALL, **changes)


def resolved(config: RunConfig) -> Inputs:
    session = Session.of(config)
    with session.in_force():
        return resolve(config, session)


@pytest.fixture
def plugins(tmp_path: Path) -> dict[float, Path]:
    """Two files with a plugin of one name, by the factor that it multiplies with."""
    files = {factor: tmp_path / f"times_{number}.py" for number, factor in enumerate((0.5, 2.0))}
    for factor, path in files.items():
        path.write_text(SCALED.format(factor=factor))
    return files


@pytest.mark.whole
def test_each_run_has_the_plugins_that_it_includes(
    environment: Path, hub: Path, results: Path, tmp_path: Path, plugins: dict[float, Path]
) -> None:
    configs = {factor: small(hub, tmp_path / "r", "scaled", include=(path,)) for factor, path in plugins.items()}
    cells = {factor: run(config).cell for factor, config in configs.items()}
    assert {factor: cell.result.unlearner.settings for factor, cell in cells.items()} == {
        factor: {"factor": factor} for factor in plugins
    }
    one, other = cells.values()
    assert one.result.results != other.result.results
    # the first one again, after the second: it is what it was
    again = run(replace(configs[0.5], overwrite=True)).cell
    assert again.result.results == one.result.results and list(again.records) == list(one.records)
    # and a run that includes nothing finds nothing
    with pytest.raises(UsageError, match="unlearner 'scaled'"):
        run(small(hub, tmp_path / "r", "scaled"))


@pytest.mark.long
def test_sessions_within_each_other_are_each_their_own(
    environment: Path, hub: Path, tmp_path: Path, plugins: dict[float, Path]
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        toy = Session.of(RunConfig("none", "tofu_forget10", tmp_path))
        published = Session.of(small(hub, tmp_path, include=(plugins[0.5],)))
        assert toy.world is not published.world
        with published.in_force():
            assert torch.get_num_threads() == 3 and "scaled" in registry.names("unlearner")
            with toy.in_force():
                assert torch.get_num_threads() == toy.threads == 1
            assert torch.get_num_threads() == 3
            with pytest.raises(ZeroDivisionError), toy.in_force():
                _ = 1 / 0
        assert torch.get_num_threads() == 3 and "scaled" not in registry.names("unlearner")
    finally:
        torch.set_num_threads(threads)


@pytest.mark.long
def test_resolving_leaves_no_trace(
    environment: Path, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No model is built or loaded, no folder made, and no thread, plugin or random number is another than before."""
    monkeypatch.setenv("GRUN_BENCH_CACHE", str(tmp_path / "cache"))
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    for config in (
        small(hub, tmp_path / "r", "grun+npo", save=tmp_path / "model", overrides={"epochs": 1}),
        RunConfig("lora+npo", "tofu_sequential", tmp_path / "r", save=tmp_path / "model", attacks="suffix"),
    ):
        inputs = resolved(config)
        assert inputs.method.name == config.unlearner and inputs.run_id(inputs.method)
        with pytest.raises(FrozenInstanceError):
            inputs.config = config  # type: ignore[misc]
    assert not list(tmp_path.iterdir())
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads


@pytest.mark.long
def test_worlds_in_one_process_are_apart(environment: Path, hub: Path, tmp_path: Path) -> None:
    """What is resolved of a run does not depend on those before it."""
    toy, published = RunConfig("grun+npo", "tofu_forget10", tmp_path), small(hub, tmp_path, "grun+npo")
    first = [resolved(config) for config in (toy, published)]
    second = [resolved(config) for config in (published, toy)][::-1]
    for one, other in zip(first, second, strict=True):
        assert one.run_id(one.method) == other.run_id(other.method)
        assert one.method.unlearner.settings == other.method.unlearner.settings
        assert one.session.world is other.session.world
    assert first[0].method.unlearner.settings != first[1].method.unlearner.settings
    assert [inputs.session.world.name for inputs in first] == ["embedded", "published"]
