#!/usr/bin/env python3
"""Runs of `tiny` in several processes against one: seconds of both, their ratio, and whether the results are equal.

    python benchmarks/sweep_speed.py [--cells 60] [--jobs 2] [--folder DIR] [options of grun-bench sweep]

The sweep is `lora+npo`, `grun+npo` and `reft+npo` on `tofu_forget10`, or another --task, with as many seeds as make up
the cells. The toy models are built before the clock starts. Fails where a number differs. With the seconds stands what
the processes had of the processors: on a machine that others use, the ratio of wall times says nothing. Stopped by
Ctrl-C or SIGTERM, the same command with the same --folder goes on, and adds its seconds to those before; `--set
epochs=1 --limit 4` tries it.
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
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grun_bench.core.signals import Stopped, stopping
from grun_bench.results.store import result_paths

UNLEARNERS = ("lora+npo", "grun+npo", "reft+npo")


@dataclass
class Spent:
    """Seconds of the clock and of all processors together on a sweep, and whether it is over."""

    seconds: float = 0.0
    used: float = 0.0
    over: bool = False

    def __str__(self) -> str:
        at_a_time = self.used / self.seconds
        return f"{self.seconds:.0f} s, {self.used:.0f} s of processors, {at_a_time:.2f} of them at a time"


def sweep(output: Path, unlearners: Sequence[str], cells: int, jobs: int, more: Sequence[str]) -> Spent:
    """What a sweep took, over all calls that were at it; one that is over is not made again."""
    kept = output.with_suffix(".json")
    spent = Spent(**json.loads(kept.read_text())) if kept.exists() else Spent()
    if spent.over:
        return spent
    seeds = ",".join(map(str, range(-(-cells // len(unlearners)))))
    chosen = [part for name in unlearners for part in ("--unlearner", name)]
    command = [sys.executable, "-m", "grun_bench", "sweep", "--output", str(output)]
    before, start = _used(), time.monotonic()
    try:
        spent.over = _ended([*command, *chosen, "--seeds", seeds, "--jobs", str(jobs), *more]) == 0
    finally:
        spent.seconds += time.monotonic() - start
        spent.used += _used() - before
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(asdict(spent)))
    if not spent.over:
        sys.exit(f"the sweep into {output} failed")
    return spent


def _ended(command: Sequence[str]) -> int:
    """The exit code of a sweep, which stops with us and keeps checkpoints."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment, start_new_session=True) as process:
        try:
            return process.wait()
        except (KeyboardInterrupt, Stopped):
            process.terminate()
            process.wait()
            raise


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
    parser.add_argument("--task", default="tofu_forget10")
    options, more = parser.parse_known_args()
    more = ["--task", options.task, *more]
    with tempfile.TemporaryDirectory() as temporary, stopping():
        folder = options.folder or Path(temporary)
        sweep(folder / "before", ["none"], 1, 1, more)
        one = sweep(folder / "1", UNLEARNERS, options.cells, 1, more)
        many = sweep(folder / "many", UNLEARNERS, options.cells, options.jobs, more)
        if numbers(folder / "1") != numbers(folder / "many"):
            sys.exit("the results differ")
        print(f"{len(numbers(folder / '1'))} rows, equal")
    print(f"1 process: {one}")
    print(f"{options.jobs} processes: {many}")
    print(f"ratio {one.seconds / many.seconds:.2f}")


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, Stopped):
        sys.exit("stopped; the same command with the same --folder goes on.")
