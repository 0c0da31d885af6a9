"""Seeds of provenance: git, packages, hardware, and the folders of cache and mirrors."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from grun_bench.core.errors import UsageError

#: the packages whose versions can change a number
PACKAGES = (
    *("grun-bench", "torch", "transformers", "tokenizers", "peft", "datasets", "numpy", "scipy", "rouge-score"),
    "lm_eval",
)

#: where rows of own files go, beside whoever runs and not into the package's boards
OWN_RESULTS = Path("results")


def expanded(path: str | Path) -> Path:
    """With the home folder in place of `~`. Raises UsageError where the system knows of none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"{path}: this user has no home folder; set HOME or GRUN_BENCH_CACHE to a folder.") from None


def cache_folder() -> Path:
    """Where built models are kept: GRUN_BENCH_CACHE, else grun-bench in the user's cache folder."""
    if given := os.environ.get("GRUN_BENCH_CACHE"):
        return expanded(given)
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "grun-bench"


def for_children() -> dict[str, str]:
    """The environment of another Python process that is to find this package, wherever it lies."""
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def mirrors() -> list[Path]:
    """The folders of GRUN_BENCH_HUB, a `:`-separated list of mirrors laid out as <org>/<name>."""
    return [expanded(part) for part in os.environ.get("GRUN_BENCH_HUB", "").split(os.pathsep) if part]


def packages() -> dict[str, str]:
    """Versions of the packages that numbers depend on; a missing one is left out."""
    from importlib.metadata import PackageNotFoundError  # takes a moment, and only a run asks

    found = {}
    for name in PACKAGES:
        try:
            found[name] = _version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def _version(name: str) -> str:
    """That of a package as it was first asked for: another may be installed while the program runs."""
    from importlib.metadata import version

    return version(name)


def git_state() -> dict[str, Any]:
    """Commit and dirty flag of the harness's own checkout; both None when it runs from an installed wheel.

    Dirty means that what decides a number differs from the commit: the package or the tasks, not results or pages.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None}

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *args], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--", "grun_bench", "tasks")),
        }
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def hardware() -> dict[str, Any]:
    """Processor and accelerator. Imports torch."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "threads": torch.get_num_threads(),
    }


def cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Within this block torch computes with so many CPU threads; with as many as before where None. Imports torch."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def reset_peak_memory() -> None:
    """Start a new measurement of `peak_memory` where the system can (CUDA; Linux)."""
    import torch

    if torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """Bytes at the peak since `reset_peak_memory`: of all GPUs, else of the process on Linux; None elsewhere."""
    import torch

    if torch.cuda.is_available():
        return sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
