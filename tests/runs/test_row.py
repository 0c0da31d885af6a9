"""What a run keeps when it is killed or a step of it fails, and that no training is made twice that was over."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import SMALL, Command
from forking import ended, forked

from grun_bench import cli
from grun_bench.core.errors import GrunBenchError, UsageError
from grun_bench.core.files import write_whole
from grun_bench.methods import checkpoints
from grun_bench.methods.checkpoints import Checkpoint
from grun_bench.methods.saving import read_card
from grun_bench.results.result import Result
from grun_bench.results.store import read_result
from grun_bench.runs.config import RunConfig
from grun_bench.runs.run import run

pytestmark = pytest.mark.whole

#: an attack that kills the process that makes it on a model with an adapter, as long as a file is there
DEADLY = """
import os, signal
from pathlib import Path
from grun_bench.core.registry import attack

@attack("deadly", access="user", version=1)
def deadly(subject):
    \"\"\"Kills.\"\"\"
    fuse = Path({fuse!r})
    if subject.adapter is not None and fuse.exists():
        fuse.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    yield "a", subject
"""


def child(work: Callable[[], object]) -> int:
    """What became of work in a process of its own: its exit code, or minus the signal that it died of."""
    return ended(forked(work))


@pytest.fixture(autouse=True)
def no_checkpoints(environment: Path) -> None:
    """Those that other tests of this process left, whose runs were stopped."""
    shutil.rmtree(environment / "checkpoints", ignore_errors=True)


@pytest.fixture
def small(environment: Path, hub: Path, results: Path, tmp_path: Path) -> Callable[..., RunConfig]:
    """Runs in a folder that has the controls already."""
    for name in ("whole", "killed"):
        shutil.copytree(results, tmp_path / name)

    def config(output: str, **changes: object) -> RunConfig:
        task, overrides = str(hub / "small.yaml"), {"epochs": 3}
        return RunConfig("lora+npo", task, tmp_path / output, model=SMALL, overrides=overrides, **changes)

    return config


@pytest.fixture
def deadly(tmp_path: Path) -> Path:
    """The plugin file of an attack that kills once."""
    (tmp_path / "fuse").write_text("")
    (tmp_path / "plugin.py").write_text(DEADLY.format(fuse=str(tmp_path / "fuse")))
    return tmp_path / "plugin.py"


@contextmanager
def no_training() -> Iterator[None]:
    """Within this block a step of training is a failure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", lambda *_: pytest.fail("trained again"))
        yield


def said(result: Result) -> dict[str, object]:
    """All that a result says but when it was made and how long that took."""
    attacks = {name: info.model_dump(exclude={"seconds"}) for name, info in result.attacks.items()}
    return result.model_dump(exclude={"date", "cost", "attacks"}) | {"attacks": attacks}


@pytest.mark.parametrize("saved", [False, True])
def test_a_kill_during_attacks_repeats_no_training(
    small: Callable[..., RunConfig],
    deadly: Path,
    environment: Path,
    tmp_path: Path,
    saved: bool,
) -> None:
    """What was trained is kept until the last attack is filed; a saved model is as good."""

    def config(output: str) -> RunConfig:
        save = tmp_path / f"model of {output}" if saved else None
        return small(output, attacks="strip,deadly", include=(deadly,), save=save)

    assert child(lambda: run(config("killed"))) == -signal.SIGKILL
    kept = list((environment / "checkpoints").glob("*.pt"))
    assert len(kept) == 1
    if saved:
        kept[0].unlink()
    before = next((tmp_path / "killed").glob("*/*/lora+npo/*.json")).stat().st_mtime_ns
    with no_training():
        again = run(config("killed"))
    assert again.cell.reused and set(again.result.attacks) == {"strip", "deadly"}
    assert again.cell.path.stat().st_mtime_ns > before
    assert said(again.result) == said(run(config("whole")).result)
    assert not list((environment / "checkpoints").glob("*"))


@pytest.mark.parametrize("there", [False, True])
def test_a_result_that_cannot_be_written_leaves_no_records_of_its_own(
    small: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """As where a file may have a few kilobytes; what another wrote stays."""
    path = run(small("killed")).cell.path
    folder, name = path.parent, read_result(path).records.file  # type: ignore[union-attr]
    for each in folder.iterdir() if not there else ():
        each.unlink()
    (folder / f"{path.stem}.mine").write_text("of another")
    before = {each.name for each in folder.iterdir()}

    def full(place: Path, content: str) -> None:
        if place == path:
            assert (folder / name).exists()
            raise GrunBenchError("full")
        write_whole(place, content)

    monkeypatch.setattr("grun_bench.runs.row.write_whole", full)
    monkeypatch.setattr(Result, "same_numbers", lambda *_: False)
    with pytest.raises(GrunBenchError, match="full"):
        run(small("killed", overwrite=there))
    assert {each.name for each in folder.iterdir()} == before


def test_a_save_that_fails_loses_neither_the_row_nor_the_training(
    small: Callable[..., RunConfig], environment: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GrunBenchError, match=r"The row is filed: (.*)\. .*does not train again") as failed:
        run(small("killed", save=tmp_path / "file" / "model"))
    (path,) = (tmp_path / "killed").glob("*/*/lora+npo/*.json")
    assert str(path) in str(failed.value) and read_result(path).status == "ok"
    with no_training():
        run(small("killed", save=tmp_path / "model"))
    assert read_card(tmp_path / "model").run_id == path.stem
    assert not list((environment / "checkpoints").glob("*"))
    # the model is there: the same command has nothing to do
    assert run(small("killed", save=tmp_path / "model")).cell.reused


def test_a_model_that_cannot_be_saved_is_told_before_it_is_trained(
    small: Callable[..., RunConfig], tmp_path: Path
) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "from grun_bench.core.registry import adapter\nfrom grun_bench.methods.adapters.lora import Lora\n"
        "from grun_bench.methods.adapters.base import Adapter\n"
        "@adapter('kept')\nclass Kept(Lora):\n    '''LoRA that cannot be saved.'''\n    save = Adapter.save\n"
    )
    config = small("killed", save=tmp_path / "model", include=(plugin,))
    with no_training(), pytest.raises(UsageError, match="has no save"):
        run(RunConfig(**vars(config) | {"unlearner": "kept+npo"}))


def test_a_cache_that_cannot_be_written_costs_nothing_but_what_it_would_keep(
    small: Callable[..., RunConfig], environment: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As one that others share and only its owner writes."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "models").symlink_to(environment / "models")
    for name in ("checkpoints", "locks"):
        (cache / name).write_text("no folder")
    monkeypatch.setenv("GRUN_BENCH_CACHE", str(cache))
    found = run(small("killed", attacks="strip"))
    assert found.result.status == "ok" and set(found.result.attacks) == {"strip"}


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_a_signal_writes_a_checkpoint_and_says_so(
    small: Callable[..., RunConfig],
    command: Command,
    environment: Path,
    hub: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
    code: int,
) -> None:
    """The weights of the step that was under way when it came, not those of a minute before."""
    options = f"--unlearner lora+npo --task {hub / 'small.yaml'} --model {SMALL} --output {tmp_path / 'killed'}"
    arguments = ["grun-bench", "run", *options.split(), "--set", "epochs=3"]

    def stopped() -> None:
        for each, handler in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
            signal.signal(each, handler)
        step, steps = torch.optim.AdamW.step, []

        def counted(*given: object, **options: object) -> None:
            steps.append(step(*given, **options))
            if len(steps) == 2:
                os.kill(os.getpid(), number)

        torch.optim.AdamW.step = counted
        sys.argv = arguments
        cli.main()

    capfd.readouterr()
    assert child(stopped) == code
    told = capfd.readouterr().err
    (kept,) = (environment / "checkpoints").glob("*.pt")
    assert f"{number.name} after step 2 of 3, which {kept} keeps" in told
    assert "Traceback" not in told and told.rstrip().endswith("the same command goes on with what is done.")
    again = command(*arguments[1:])
    assert again.code == 0 and "goes on from step 2 of 3" in again.err
    (path,) = (tmp_path / "killed").glob("*/*/lora+npo/*.json")
    assert read_result(path).history == run(small("whole")).result.history


# --- target and retain models -----------------------------------------------------------------------------------------


def test_a_killed_fine_tuning_goes_on(
    environment: Path, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With weights as if it had not been killed, and with nothing left beside them."""
    config = RunConfig("none", str(hub / "small.yaml"), tmp_path / "results", model=SMALL)
    cache = tmp_path / "cache"
    monkeypatch.setenv("GRUN_BENCH_CACHE", str(cache))

    def killed() -> None:
        checkpoints.EVERY = checkpoints.TIMES = 0
        write, written = Checkpoint.write, []

        def counted(self: Checkpoint, state: dict[str, object]) -> bool:
            written.append(write(self, state))
            if len(written) == 4:  # after the second step of the second model
                os.kill(os.getpid(), signal.SIGKILL)
            return written[-1]

        Checkpoint.write = counted
        run(config)

    assert child(killed) == -signal.SIGKILL
    assert len(list((cache / "models").glob(".*.part"))) == 1
    capfd.readouterr()
    found = run(config)
    assert "fine-tuning the target model: goes on from step 2 of 3" in capfd.readouterr().err
    assert not list((cache / "checkpoints").iterdir()) and not list((cache / "models").glob(".*.part"))
    monkeypatch.setenv("GRUN_BENCH_CACHE", str(environment))
    whole = run(RunConfig(**vars(config) | {"output": tmp_path / "whole"}))
    assert found.result.target["sha256"] == whole.result.target["sha256"]
    assert found.result.records == whole.result.records
