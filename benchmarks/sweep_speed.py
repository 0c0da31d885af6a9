#!/usr/bin/env python3
"""Runs of `tiny` in several processes against one: seconds of both, their ratio, and whether the results are equal.

    python benchmarks/sweep_speed.py [--cells 60] [--jobs 2] [--folder DIR]

The sweep is `lora+npo`, `grun+npo` and `reft+npo` on `tofu_forget10` with as many seeds as make up the cells. The toy
models are built before the clock starts. Fails where a number differs. With the seconds stands what the processes had
of the processors: on a machine that others use, the ratio of wall times says nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from grun_bench.results.store import result_paths

UNLEARNERS = ("lora+npo", "grun+npo", "reft+npo")


def sweep(output: Path, cells: int, jobs: int) -> tuple[float, float]:
    """Seconds of the clock, and of all processors together."""
    seeds = ",".join(map(str, range(-(-cells // len(UNLEARNERS)))))
    chosen = [part for name in UNLEARNERS for part in ("--unlearner", name)]
    command = [sys.executable, "-m", "grun_bench", "sweep", "--task", "tofu_forget10", "--output", str(output)]
    before, start = _used(), time.monotonic()
    subprocess.run(
        [*command, *chosen, "--seeds", seeds, "--jobs", str(jobs)],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    return time.monotonic() - start, _used() - before


def _used() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def numbers(output: Path) -> dict[str, Any]:
    """By place, what results say of their records and values."""
    read = {path: json.loads((output / path).read_text()) for path in result_paths(output)}
    return {path: (each["results"], each["records"]["sha256"]) for path, each in read.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        sweep(folder / "before", 1, 1)
        one, used = sweep(folder / "1", options.cells, 1)
        many, used_by_many = sweep(folder / "many", options.cells, options.jobs)
        if numbers(folder / "1") != numbers(folder / "many"):
            sys.exit("the results differ")
        print(f"{len(numbers(folder / '1'))} rows, equal")
    print(f"1 process: {one:.0f} s, {used:.0f} s of processors, {used / one:.2f} of them at a time")
    print(f"{options.jobs} processes: {many:.0f} s, {used_by_many:.0f} s, {used_by_many / many:.2f}")
    print(f"ratio {one / many:.2f}")


if __name__ == "__main__":
    main()
