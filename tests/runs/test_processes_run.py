"""A run of two processes files what one process does, and fails as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from together import started, together

from grun_bench import cli
from grun_bench.core import processes
from grun_bench.core.errors import GrunBenchError
from grun_bench.methods import trainer
from grun_bench.models.lm import LM
from grun_bench.models.scoring import ScoringSettings, score
from grun_bench.plugin_checks.small_model import two_sets

pytestmark = pytest.mark.whole

#: what of a result says when and where it was made
TIMES = ("date", "cost", "hardware", "git", "git_hash", "seconds")


@pytest.mark.parametrize("size", [2, None])
def test_two_processes_have_the_records_of_one(make_lm: Callable[..., LM], tmp_path: Path, size: int | None) -> None:
    settings = ScoringSettings(8, size, gradients_of=frozenset({"forget"}))

    def run() -> str:
        return score(make_lm(), two_sets(), settings).dumps()

    alone, (first, second) = run(), together(tmp_path, run)
    assert first == second
    if size:  # the same batches, so the same bits
        assert first == alone
    else:
        assert numbers(first) == pytest.approx(numbers(alone), rel=1e-5)


def numbers(text: str) -> list[float]:
    return [value for line in text.splitlines() for value in json.loads(line)["answer"]["logprobs"]]


# --- the program ------------------------------------------------------------------------------------------------------


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if key not in TIMES}
    return value


def told(folder: Path, *arguments: object) -> Callable[[], None]:
    """The program, with what it says in files by the process's number."""

    def run() -> None:
        for stream in (1, 2):
            file = os.open(folder / f"{processes.rank()}-{stream}", os.O_CREAT | os.O_WRONLY)
            os.dup2(file, stream)
        sys.argv = ["grun-bench", *map(str, arguments)]
        sys.stdout, sys.stderr = (open(stream, "w", closefd=False) for stream in (1, 2))  # noqa: SIM115
        try:
            cli.main()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

    return run


def test_a_run_of_two_processes(
    environment: Path, hub: Path, command: Callable[..., Any], small_run: list[str], tmp_path: Path
) -> None:
    """Target and retain model are the same bits, so are their rows; what was trained is, to what float32 leaves."""
    track = ["--track", "tensorboard"] if find_spec("tensorboard") else []
    options = [*small_run, "--unlearner", "full+npo", "--batch-size", "2", "--attacks", "prefill", "--set", "lr=1e-4"]
    one, two = tmp_path / "one", tmp_path / "two"
    alone = command(*options, "--output", one)
    assert alone.code == 0, alone.err
    assert started(told(tmp_path, *options, *track, "--output", two, "--save", tmp_path / "saved")) == [0, 0]
    check_same(one, two)
    said = [(tmp_path / f"{rank}-{stream}").read_text() for rank in (0, 1) for stream in (1, 2)]
    assert said[0].splitlines()[0] == alone.out.splitlines()[0]
    assert "unlearning full+npo" in said[1] and said[2] == said[3] == ""
    assert (tmp_path / "saved" / "model.safetensors").exists()
    if track:  # the first alone
        (tracked,) = (two / ".track" / "tensorboard").iterdir()
        assert tracked.name.startswith("full+npo-")


def flat(value: Any, path: str = "") -> dict[str, float | None]:
    """All numbers of a result, by where they stand."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: number for name, each in items for key, number in flat(each, f"{path}/{name}").items()}
    return {path: value} if isinstance(value, float) else {}


def check_same(one: Path, two: Path) -> None:
    files = [sorted(path.relative_to(folder) for path in folder.glob("*/*/*/*.json")) for folder in (one, two)]
    assert files[0] == files[1] and len(files[0]) == 3
    for file in files[0]:
        first, second = (json.loads((folder / file).read_text()) for folder in (one, two))
        assert second["hardware"]["processes"] == 2 and "processes" not in first["hardware"]
        if "full+npo" in str(file):
            assert flat(second["history"]) == pytest.approx(flat(first["history"]), rel=1e-4)
            assert flat(second["results"]) == pytest.approx(flat(first["results"]), rel=1e-3, abs=1e-6)
        else:
            assert json.dumps(without_times(first)) == json.dumps(without_times(second))
            assert "prefill" in first["attacks"]


@pytest.mark.parametrize("which", ["both", "second"])
def test_who_fails_says_so_once(
    environment: Path, hub: Path, small_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    def fail(*_: Any) -> None:
        if which == "both" or processes.rank() == 1:
            raise GrunBenchError("no memory")

    monkeypatch.setattr(trainer, "check_chance", fail)
    codes = started(told(tmp_path, *small_run, "--unlearner", "full+npo", "--output", tmp_path / "out"))
    assert codes == [1, 1]
    first, second = ((tmp_path / f"{rank}-2").read_text() for rank in (0, 1))
    assert "Traceback" not in first + second
    if which == "both":
        assert "error: no memory" in first and second == ""
    else:
        assert "error: process 2 of 2: no memory" in second
        assert "error: process 2 of 2 failed, as it says; this one ends with it." in first


def test_what_is_no_run_is_refused(command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": 2, "RANK": 0, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    said = command("sweep", "--unlearner", "npo", "--task", "tofu_forget10")
    assert said.code == 2 and "sweep in 2 processes" in said.err
    said = command("run", "--unlearner", "npo", "--task", "tofu_forget10", "--device-map", "auto")
    assert said.code == 2 and "--device-map in 2 processes" in said.err


TORCHRUN = "torch.distributed.run --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint localhost:0"
#: what it does not need to be told it would say that it was not
ACCELERATE = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0"


@pytest.mark.parametrize(
    "launcher",
    [pytest.param(TORCHRUN, id="torchrun"), pytest.param(ACCELERATE, marks=pytest.mark.slow, id="accelerate")],
)
def test_launchers(environment: Path, results: Path, small_run: list[str], tmp_path: Path, launcher: str) -> None:
    """As a user starts it; the row is that of one process."""
    options = [*small_run[:-2], "--unlearner", "none", "--output", str(tmp_path), "--device", "cpu", "--json"]
    options += ["--batch-size", "2"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher.split(), "-m", "grun_bench", *options],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["hardware"]["processes"] == 2
    (alone,) = (json.loads(path.read_text()) for path in results.rglob("none/*.json"))
    assert made["run_id"] == alone["run_id"]
    assert flat(made["results"]) == pytest.approx(flat(alone["results"]), rel=1e-5)


def test_one_process_in_the_place_of_many_is_refused(
    command: Callable[..., Any], small_run: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As accelerate leaves its environment with --cpu --num_processes 2."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    said = command(*small_run, "--unlearner", "none", "--output", tmp_path)
    assert said.code == 2 and "accelerate launch --cpu starts one process" in said.err
