"""Default, tuned and oracle settings of several methods on the toy world, and how far they lie apart.

Each method is tuned twice by the same rule and the same search: on validation rows, as `grun-bench tune` does, and on
the rows that are scored, which no method may be on a board (the oracle). Then rows are made with seeds that no trial
had, with the defaults and with what each of the two chose, and a table is printed, in Markdown: what the rule reads on
the scored rows (utility, the harmonic mean of probability and ROUGE-L recall of the retain rows; extraction strength of
the forget rows under prefill), and model utility. A killed call goes on.

    python benchmarks/tuning.py [--task tofu_forget05] [--trials 12] [--seeds 0,1] [--out tunings] [UNLEARNER ...]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from grun_bench.results.result import Result
from grun_bench.results.tuning import RULE
from grun_bench.runs.config import RunConfig
from grun_bench.runs.front import run_config
from grun_bench.tasks.task import Task
from grun_bench.tasks.world import World
from grun_bench.tuning.rule import utility_of
from grun_bench.tuning.split import Problem, task_of
from grun_bench.tuning.tune import ATTACK, tune

METHODS = ("full+npo", "full+simnpo", "lora+npo", "reft+npo", "grun+npo", "grun-held+npo")
SEED = 1000


def oracle(task: Task, world: World, limit: int | None) -> Problem:
    """The problem of a task itself: the whole forget set, judged on the rows that are scored."""

    def plain(rows: list[dict]) -> list[dict]:
        return [{"question": row["question"], "answer": row["answer"]} for row in rows]

    tables = {
        "train-forget": [row for each in task.whole_forget for row in plain(world.rows(each, None, limit).rows)],
        "train-retain": [row for each in task.sources["retain"] for row in plain(world.rows(each, None, limit).rows)],
    }
    tables["learnt"] = [*tables["train-forget"], *tables["train-retain"]]
    tables |= {name: plain(world.rows(task.scored[name], None, limit).rows) for name in ("forget", "retain")}
    return Problem(task_of(task, "oracle", tables), tables, f"test of {task.name}")


def numbers(result: Result) -> tuple[float, float, float]:
    """Utility as the rule has it, model utility, and extraction strength under prefill."""
    kept = utility_of(result.value(f"retain_{name}") for name in ("probability", "rougeL_recall"))
    values = (kept, result.value("model_utility"), result.value("forget_extraction_strength", ATTACK))
    return tuple(float("nan") if value is None else value for value in values)  # type: ignore[return-value]


def cells(results: list[Result]) -> str:
    """Means over seeds."""
    utility, whole, strength = (fmean(column) for column in zip(*map(numbers, results), strict=True))
    return f"{strength:.2f} | {utility:.3f} | {whole:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("unlearners", nargs="*", default=METHODS, metavar="UNLEARNER")
    parser.add_argument("--task", default="tofu_forget05")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--out", type=Path, default=Path("tunings"))
    given = parser.parse_args()
    print(f"{given.task} of the toy world, {given.trials} trials a method. {RULE}\n", flush=True)
    print("| unlearner | settings | prefill ↓ | utility ↑ | model utility ↑ | trials kept, ended early | which |")
    print("| --- | --- | ---: | ---: | ---: | ---: | --- |", flush=True)
    pins: dict[str, Result] = {}
    for name in given.unlearners:
        config = RunConfig(unlearner=name, task=given.task, seed=SEED)
        found = {
            "tuned": tune(replace(config, output=given.out / "tuning"), given.trials),
            "oracle": tune(replace(config, output=given.out / "oracle"), given.trials, oracle),
        }
        rows: dict[str, list[Result]] = {"default": [], "tuned": [], "oracle": []}
        for seed in map(int, given.seeds.split(",")):
            plain = replace(config, seed=seed, attacks=ATTACK, output=given.out / "results")
            best = found["oracle"].chosen
            made = {
                "default": plain,
                "tuned": replace(plain, tuning=given.out / "tuning"),
                "oracle": replace(plain, overrides=best.settings if best else {}, output=given.out / "oracle-rows"),
            }
            for kind, each in made.items():
                outcome = run_config(each)
                rows[kind].append(outcome.result)
                pins |= {pin: cell.result for pin in ("target", "retain") if (cell := getattr(outcome, pin))}
        for kind, results in rows.items():
            beside = "| |"
            if kind in found:
                trials, best = found[kind].trials, found[kind].chosen
                admitted, early = sum(each.admitted for each in trials), sum(each.state == "pruned" for each in trials)
                which = ", ".join(f"{key}={value}" for key, value in best.settings.items()) if best else "none"
                beside = f"{admitted}, {early} | trial {best.trial if best else '-'}: {which} |"
            print(f"| `{name}` | {kind} | {cells(results)} | {beside}", flush=True)
    for pin, result in pins.items():
        print(f"| {pin} model | | {cells([result])} | | |")


if __name__ == "__main__":
    main()
