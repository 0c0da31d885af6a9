"""Processes, Slurm and Ray themselves: each leaves the result files that plain runs in one process leave."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import one_node
import pytest
from conftest import SMALL

from grun_bench.matrix.cell import FOLDER, Status
from grun_bench.results.store import result_paths
from grun_bench.runs.config import RunConfig
from grun_bench.runs.run import run

pytestmark = pytest.mark.whole

#: gradient ascent that takes its time as long as a file is there, for a test to kill it
PLUGIN = """
import time
from pathlib import Path
from grun_bench.core.registry import objective

SLOWLY = Path(__file__).with_name("slowly")

@objective("slow", retain="ce")
def slow(batch):
    \"\"\"Gradient ascent, slowly.\"\"\"
    if SLOWLY.exists():
        time.sleep(0.5)
    return -batch.forget.cross_entropy
"""
EPOCHS = 100
#: what a log says where training begins or goes on
TRAINING = re.compile(rf"unlearning .*: {EPOCHS} steps")
#: seconds that anything here may take on a busy machine
LONG = 600


@pytest.fixture(scope="module")
def sweep(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Two methods, the second of 100 slow steps; with their control three runs. The output folder is to be added."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "slow.py").write_text(PLUGIN)
    task = str(hub / "small.yaml")
    keys = {"unlearners": ["ga", "slow"], "tasks": [task], "models": [SMALL], "set": {"epochs": EPOCHS}}
    (folder / "sweep.yaml").write_text(json.dumps(keys))  # which is YAML too
    return [folder / "sweep.yaml", "--include-path", folder / "slow.py", "--output"]


@pytest.fixture(scope="module")
def plain(hub: Path, sweep: list[Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of plain runs, one after another in this process."""
    output = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRUN_BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setenv("GRUN_BENCH_HUB", str(hub))
        for unlearner in ("ga", "slow"):
            more = {"model": SMALL, "include": (sweep[2],), "overrides": {"epochs": EPOCHS}}
            run(RunConfig(unlearner, str(hub / "small.yaml"), output, **more))
    return results(output)


def results(output: Path) -> dict[str, Any]:
    """By place, what result files say but for times and where they were made; records are there by their hashes."""
    return {path: timeless(json.loads((output / path).read_text())) for path in result_paths(output)}


def timeless(value: Any) -> Any:
    left_out = ("date", "hardware", "git", "git_hash")
    if isinstance(value, dict):
        return {
            key: timeless(each)
            for key, each in value.items()
            if key not in left_out and not key.endswith(("_seconds", "_peak_bytes"))
        }
    return value


@pytest.fixture
def slowly(sweep: list[Any], plain: dict[str, Any]) -> Path:
    """The file that makes a method slow; a test removes it once it has killed what it wanted to."""
    file: Path = sweep[2].with_name("slowly")
    file.touch()
    return file


@contextmanager
def sweeping(*arguments: object, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """`grun-bench sweep` in a process of its own, ended with the block."""
    command = [sys.executable, "-m", "grun_bench", "sweep", *map(str, arguments)]
    env = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    said, _ = process.communicate(timeout=LONG)
    assert process.returncode == code, said
    return said


def running(output: Path, name: str, process: subprocess.Popen[str], after: int = 0) -> Status:
    """Once a run of this name is being trained, which it was so many times before."""
    end = time.monotonic() + LONG
    while time.monotonic() < end and process.poll() is None:
        for log in (output / FOLDER).glob(f"{name}-*.log"):
            if len(TRAINING.findall(log.read_text())) > after:
                return Status.model_validate_json(log.with_suffix(".json").read_text())
        time.sleep(0.1)
    raise AssertionError(f"{name} did not begin: {process.communicate()[0] if process.poll() is not None else ''}")


def test_two_processes(
    environment: Path, sweep: list[object], plain: dict[str, Any], slowly: Path, tmp_path: Path
) -> None:
    """A killed one is a run that failed and stops no other; SIGTERM stops all, and the same command goes on."""
    with sweeping(*sweep, tmp_path, "--jobs", "2") as process:
        os.kill(running(tmp_path, "slow", process).pid, signal.SIGKILL)
        said = ended(process, code=1)
    assert "SIGKILL" in said and "of 2 runs 1 failed" in said
    with sweeping(*sweep, tmp_path, "--status") as process:
        assert "3 runs: 2 done, 1 failed" in ended(process)

    with sweeping(*sweep, tmp_path, "--jobs", "2") as process:
        status = running(tmp_path, "slow", process, after=1)
        process.terminate()
        assert "the same command goes on" in ended(process, code=128 + signal.SIGTERM)
    with pytest.raises(ProcessLookupError):
        os.kill(status.pid, 0)
    with sweeping(*sweep, tmp_path, "--status") as process:
        said = ended(process)
    assert "3 runs: 2 done, 1 waiting" in said and "stopped by SIGTERM" in said

    slowly.unlink()
    with sweeping(*sweep, tmp_path) as process:
        assert "3 runs: 3 done" in ended(process)
    assert "goes on from step" in log_of(tmp_path, "slow")
    assert results(tmp_path) == plain


@pytest.mark.skipif(bool(one_node.missing()), reason=one_node.missing())
def test_slurm(environment: Path, sweep: list[object], plain: dict[str, Any], slowly: Path, tmp_path: Path) -> None:
    """Arrays on a node of Slurm; runs are preempted, then reach their limit of time: queued again, they go on."""
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    with one_node.one_node(tmp_path / "slurm") as env:
        slurm = {name: env[name] for name in ("SLURM_CONF", "PATH")}

        def ask(*command: str) -> str:
            return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout

        def preempt() -> None:
            ask("srun", "-p", "urgent", "-n2", "true")

        def limit() -> None:
            """What Slurm does some time before it is reached, to the second job of the array."""
            queued = ask("squeue", "--noheader", "--array", "--format=%i").split()
            ask("scancel", "--signal=USR2", *(job for job in queued if job.endswith("_1")))

        with sweeping(*sweep, tmp_path / "out", "--cluster", "slurm", "--resource", "time=10", **slurm) as process:
            for times, stop in enumerate((preempt, limit)):
                running(tmp_path / "out", "slow", process, after=times)
                time.sleep(1)  # a step, from which it goes on
                stop()
            running(tmp_path / "out", "slow", process, after=2)
            slowly.unlink()
            assert "3 runs: 3 done" in ended(process)
    log = log_of(tmp_path / "out", "slow")
    # on a busy machine the limit itself is reached too
    assert log.count("---") - 1 == log.count("SIGTERM after step") == log.count("goes on from step") >= 2
    assert results(tmp_path / "out") == plain


def test_ray(environment: Path, sweep: list[object], plain: dict[str, Any], slowly: Path, tmp_path: Path) -> None:
    """Three nodes of Ray, of which the one that trains is killed: the run is made on another."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        nodes = {cluster.add_node(num_cpus=1) for _ in range(2)}
        with sweeping(*sweep, tmp_path, "--cluster", "ray", RAY_ADDRESS=cluster.address) as process:
            pid = running(tmp_path, "slow", process).pid
            (node,) = (each for each in nodes if raylet(each) == parent(pid))
            cluster.remove_node(node, allow_graceful=False)
            while Path(f"/proc/{pid}").exists():
                time.sleep(0.1)
            slowly.unlink()
            assert "3 runs: 3 done" in ended(process)
    finally:
        cluster.shutdown()
    assert log_of(tmp_path, "slow").count("---") == 2
    assert results(tmp_path) == plain


def log_of(output: Path, name: str) -> str:
    (log,) = (output / FOLDER).glob(f"{name}-*.log")
    return log.read_text()


def raylet(node: Any) -> int:
    """The process of a node that its tasks' processes belong to."""
    return int(node.all_processes["raylet"][0].process.pid)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
