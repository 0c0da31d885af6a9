"""What each run is to get of a cluster: a name that the cluster does not have is told before anything is begun."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import Said

from grun_bench.core.errors import UsageError
from grun_bench.matrix.executors import executor

Command = Callable[..., Said]
#: an sbatch that reads its options as the real one does, by getopt, and whose help does not name all of them either
SBATCH = """#!/bin/sh
echo "$@" >> "$0.asked"
getopt -n sbatch -o h -l help,partition:,gres:,cpus-per-task:,time:,mem-bind:,no-kill -- "$@" > /dev/null || exit 255
case "$*" in *--help*) ;; *) exit 1 ;; esac
echo "  -p, --partition=partition   partition requested
  -c, --cpus-per-task=ncpus   number of cpus required per task
  -t, --time=minutes          time limit
      --gres=list             required generic resources"
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The commands of Slurm. Returns the file that says what sbatch was asked."""
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text(SBATCH)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path / "sbatch.asked"


def test_an_option_that_sbatch_does_not_have_is_told_with_near_ones_and_nothing_is_submitted(
    slurm: Path, command: Command, tmp_path: Path
) -> None:
    axes = ["--unlearner", "npo", "--task", "tofu_forget10", "--output", tmp_path / "results"]
    for typo in ("cpus_per_taks=2", "cpus-per-taks=2"):
        said = command("sweep", *axes, "--cluster", "slurm", "--resource", "time=60", "--resource", typo)
        assert said.code == 2 and "'cpus-per-taks': did you mean cpus-per-task?" in said.err
        assert said.err.count("\n") == 1
    assert all("--help" in line for line in slurm.read_text().splitlines())


def test_options_that_sbatch_has_are_taken_though_its_help_does_not_name_them(slurm: Path) -> None:
    named = {"partition": "gpu", "gres": "gpu:1", "cpus_per_task": 2, "time": 60}
    executor("slurm", None, named, "owner")
    assert slurm.read_text().split() == ["--help"]
    executor("slurm", None, named | {"mem_bind": "local", "no_kill": True}, "owner")


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A cluster of Ray, as far as its resources go. Returns whether it was left, once it was."""
    left: list[str] = []
    found = {"CPU": 8.0, "GPU": 1.0, "memory": 1e9, "object_store_memory": 1e9, "node:10.0.0.1": 1.0, "big_disk": 2.0}
    cluster = SimpleNamespace(init=lambda **options: None, cluster_resources=lambda: found, wait=lambda *a, **b: None)
    cluster.shutdown = lambda: left.append("left")
    monkeypatch.setitem(sys.modules, "ray", cluster)  # type: ignore[arg-type]
    return left


@pytest.mark.parametrize(("typo", "meant"), [("num_gpu", "num_gpus"), ("big_disc", "big_disk"), ("GPU", "num_gpus")])
def test_a_resource_that_no_node_of_ray_has_is_told_with_near_ones(ray: list[str], typo: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"--resource '{typo}': .*{meant}"):
        executor("ray", None, {"num_cpus": 1, typo: 1}, "owner").__enter__()
    assert ray == ["left"]


def test_resources_that_ray_counts_or_has_are_taken(ray: list[str]) -> None:
    with executor("ray", None, {"num_cpus": 1, "num_gpus": 0.5, "memory": 1000, "big_disk": 1}, "owner"):
        assert ray == []
