#!/usr/bin/env python3
"""The tasks of other benchmarks on a few of their real rows with a small model: headline numbers, and what they take.

    python benchmarks/small_model.py [--model HuggingFaceTB/SmolLM2-135M-Instruct] [--unlearner grun-held+npo]
        [--tasks tofu_ja,lume,...] [--limit 4] [--set epochs=10] [--new-tokens 48] [--out small]

Prints a Markdown table: for each task the metric of forgetting and the one of utility that lead its headline (of LUME
the first that a few rows have), of the target model, the retain model and the method, and the minutes of this process,
by the clock and of its own CPU time. Rows that are filed in `--out` already are read, and then take none; a killed run
goes on from there.

Everything is cut down openly: `--limit` rows a set, which every result says; and the task files written to `--out`,
each the packaged one with target and retain model made in few, large steps, short answers, one subject of MMLU in
place of all 57, and rows of `full` in place of TOFU's holdout10, which the Hub alone has. Mirrors are those of
GRUN_BENCH_HUB.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import yaml

import grun_bench
from grun_bench.cli.options import parsed
from grun_bench.core.progress import say
from grun_bench.metrics.about import leads
from grun_bench.results.result import Result
from grun_bench.results.words import number
from grun_bench.runs.outcome import Outcome
from grun_bench.tasks.task import load_task

TASKS = (
    "muse_news_lite",
    "lume",
    "kbench_pii",
    "tofu_ja",
    "tofu_ar",
    "tofu_fr",
    "tofu_lite_holdout",
    "tofu_forget10_holdout",
)
#: for models of about 100 million parameters and a few rows
FINETUNE = {"lr": 5.0e-4, "epochs": 5, "batch_size": 8, "weight_decay": 0.01, "warmup": 0.1}


def written(name: str, new_tokens: int, folder: Path) -> Path:
    """The task file of a packaged task, cut down."""
    task = load_task(name)
    changed: dict[str, Any] = {"include": f"{name}.yaml", "max_new_tokens": min(new_tokens, task.max_new_tokens)}
    if task.finetune:
        changed["finetune"] = FINETUNE
    if task.measures:
        changed["measures"] = {"mmlu": {"role": "utility", "task": "mmlu_anatomy", "num_fewshot": 0}}
    if "holdout10" in str(task.score.get("holdout")):
        changed["score"] = {**task.score, "holdout": "locuslab/TOFU:full[3000:3040]"}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_small.yaml"
    path.write_text(yaml.safe_dump(changed, sort_keys=False))
    return path


def line(name: str, outcome: Outcome, wall: float, cpu: float) -> str:
    """A row of the table."""
    own = outcome.result
    models: list[Result | None] = [each.result if each else None for each in (outcome.target, outcome.retain)]
    cells = [f"`{name}`", str(own.limit)]
    forgetting, utility = leads(own.headline, own.higher_is_better[own.task], own.sets)
    # where less of nothing is better, as in LUME, what its headline begins with
    forgetting = forgetting or next((metric for metric in own.headline if own.value(metric) is not None), None)
    for metric in (forgetting, utility):
        values = [each.value(metric) if each and metric else None for each in (*models, own)]
        cells += [f"`{metric}`" if metric else "-", " / ".join(number(value) for value in values)]
    times = ["-", "-"] if outcome.cell.reused else [f"{wall / 60:.1f}", f"{cpu / 60:.1f}"]
    return f"| {' | '.join([*cells, *times])} |"


def main() -> None:
    """Run the tasks one after another and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--unlearner", default="grun-held+npo")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--set", action="append", dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--out", type=Path, default=Path("small"))
    given = parser.parse_args()
    settings = given.settings or ["epochs=10"]
    print("| task | rows a set | forgetting | target / retain / method | utility | the same | minutes | CPU minutes |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    hardware: dict[str, Any] = {}
    for name in given.tasks.split(","):
        say(f"{name}:")
        path, wall, cpu = written(name, given.new_tokens, given.out), time.perf_counter(), time.process_time()
        options = {"model": given.model, "limit": given.limit, "dtype": given.dtype, "output": given.out / "results"}
        outcome = grun_bench.run(given.unlearner, path, settings=parsed(settings), **options)
        print(line(name, outcome, time.perf_counter() - wall, time.process_time() - cpu), flush=True)
        hardware = outcome.result.hardware
    import torch  # loaded by now

    machine = ", ".join(f"{key} {value}" for key, value in hardware.items() if value)
    threads = torch.get_num_threads()
    print(f"\n{given.unlearner} ({', '.join(settings)}) on {given.model}: {machine}, {threads} used.")


if __name__ == "__main__":
    main()
