"""The benchmarks run to the end, and what they check holds. Minutes where `tiny` has to be built first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

pytestmark = pytest.mark.slow


def run(script: str, *options: str, codes: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / script, *options],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(BENCHMARKS.parent)},
    )
    assert done.returncode in codes, done.stdout + done.stderr
    return done.stdout


def test_speed_on_tiny() -> None:
    """Both ways give the same numbers, and the engine runs fewer tokens."""
    assert "generations that differ 0 of 32" in run("eval_speed.py", "--rows", "8")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is measured on Linux")
def test_memory_of_scoring() -> None:
    assert "ratio" in run("eval_memory.py")


def test_cost_of_attacks_on_tiny() -> None:
    """Asking what the headline needs gives the numbers that asking everything gives, of fewer rows."""
    printed = run("attack_cost.py", "--unlearner", "none", "--attacks", "prefill,int8")
    last = [cell.strip() for cell in printed.splitlines()[-1].split("|")]
    assert last[1] == "all" and int(last[2].replace(",", "")) > int(last[3].replace(",", ""))


def test_other_benchmarks_with_a_small_model(tmp_path: Path) -> None:
    """On `tiny` they are toy tasks; a second call reads what the first filed."""
    options = ("--model", "tiny", "--dtype", "float32", "--tasks", "tofu_ja,tofu_lite_holdout", "--out", str(tmp_path))
    first, second = (run("small_model.py", *options).splitlines()[2:4] for _ in range(2))
    for line, again in zip(first, second, strict=True):
        assert line.split("|")[:7] == again.split("|")[:7] and again.split("|")[7].strip() == "-"


def test_rendering_many_results() -> None:
    """How long it took, which the exit code 1 is about, depends on the machine."""
    assert "400 runs shown" in run("leaderboard_speed.py", "--results", "400", codes=(0, 1))


def test_starting_up() -> None:
    assert "an unknown attack" in run("startup.py", "--rounds", "1", codes=(0, 1))


def test_speed_of_a_sweep(environment: Path, hub: Path, tmp_path: Path) -> None:
    """The rows of two processes are those of one; a second call makes nothing again."""
    options = ("--task", str(hub / "small.yaml"), "--cells", "3", "--folder", str(tmp_path / "sweeps"))
    more = ("--model", SMALL, "--set", "epochs=1")
    first, second = (run("sweep_speed.py", *options, *more) for _ in range(2))
    assert "5 rows, equal" in first and second == first


def test_kills() -> None:
    assert "10 kills" in run("kills.py", "--kills", "10")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is measured on Linux")
def test_training_speed_on_tiny() -> None:
    """All ways of `grun+npo` begin with the same loss."""
    pytest.importorskip("pyreft", reason="the extra `pyreft` is not installed")
    assert "checkpointing" in run("train_speed.py", "--steps", "3", "--batch-size", "4")
