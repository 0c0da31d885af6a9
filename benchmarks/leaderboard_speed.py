#!/usr/bin/env python3
"""Time the rendering of many results: Markdown, CSV, SVG and the HTML page.

    python benchmarks/leaderboard_speed.py [--results 10000] [--keep FOLDER]

The results are generated: random numbers in files of the size and shape of real ones (TOFU's metrics with intervals,
four attacks of several variants, a history of losses), over tasks, models, unlearners, settings and seeds. Rendering is
timed in a process of its own on one core, from the files to the written pages; peak memory is that process's high mark.
The reference is what Python's `json.loads` takes for the same files in a process of its own, as processors differ. The
exit code is 1 when it takes longer than 5 s of CPU, more than 250 MB of memory, or the HTML page more than 2 MB.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from grun_bench.results.result import Result
from grun_bench.results.store import result_folder

SECONDS, BYTES, PAGE_BYTES = 5.0, 250 * 10**6, 2 * 10**6
SETS = ("forget", "retain", "real_authors", "world_facts")
TASKS = [f"tofu_forget{share:02}" for share in (1, 5, 10)] + ["tofu_lite", "tofu_long"]
MODELS = [f"org-{number % 4}/model-{number}-instruct" for number in range(20)]
UNLEARNERS = [f"{a}+{o}" for a in ("full", "lora", "reft", "grun") for o in ("ga", "gd", "npo", "idk", "rmu")]
#: per-set metric -> whether it should be high on the forget set
PER_SET = {
    "probability": False,
    "rouge1_recall": False,
    "rougeL_recall": False,
    "truth_ratio": True,
    "extraction_strength": False,
    "exact_memorisation": False,
    "paraphrased_probability": False,
    "gibberish": False,
}
HEADLINE = [
    "forget_quality",
    "model_utility",
    "forget_extraction_strength",
    "forget_probability",
    "retain_rougeL_recall",
]
ATTACKS = {
    "paraphrase": ("user", ["question"]),
    "prefix": ("user", ["role", "ignore", "please", "think"]),
    "fewshot": ("user", ["forget", "retain"]),
    "relearn": ("weights", ["forget@0", "forget@16", "retain@0", "retain@16", "other@0", "other@16"]),
}


def directions() -> dict[str, bool | None]:
    """Metric -> whether higher is better."""
    found: dict[str, bool | None] = {"forget_quality": True, "forget_quality_D": False, "model_utility": True}
    return found | {
        f"{name}_{metric}": (high if name == "forget" else not high)
        for name in SETS
        for metric, high in PER_SET.items()
    }


def values(chance: random.Random, forgetting: float, utility: float) -> dict[str, float]:
    """Metric -> value, for a model that forgot and kept so much (0 to 1)."""
    found = {}
    for metric, better in directions().items():
        level = 1 - forgetting if metric.startswith("forget") and not better else utility if better else 1 - utility
        found[metric] = min(1.0, max(0.0, level + chance.gauss(0, 0.02)))
    return found


def generate(task: str, model: str, unlearner: str, lr: float, seed: int | None) -> Result:
    """One result; the same arguments give the same."""
    chance = random.Random(f"{task} {model} {unlearner} {lr} {seed}")
    level = random.Random(f"{task} {unlearner} {lr}")
    forgetting, utility = level.uniform(0.2, 1), level.uniform(0.3, 0.8)
    if unlearner in ("none", "retain"):
        forgetting, utility = (0.05 if unlearner == "none" else 0.92), 0.75
    found = values(chance, forgetting, utility)
    keyed: dict[str, float | None] = {f"{metric},none": value for metric, value in found.items()}
    identity = hashlib.sha256(f"{task} {model} {unlearner} {lr}".encode()).hexdigest()
    run_id = identity[:12] + (f"-seed{seed}" if seed is not None else "")
    attacks = {}
    for name, (access, variants) in ATTACKS.items():
        weaker = [values(chance, forgetting * level.uniform(0.4, 1), utility) for _ in variants]
        for metric, better in directions().items():
            several = [one[metric] for one in weaker]
            keyed[f"{metric},{name}"] = min(several) if better else max(several)
            keyed |= {f"{metric},{name}:{variant}": value for variant, value in zip(variants, several, strict=True)}
        records = {
            variant: {"file": f"{run_id}.{name}.{variant}.records.jsonl.bz2", "sha256": "0" * 64, "count": 200}
            for variant in variants
        }
        attacks[name] = {"version": 1, "access": access, "settings": {}, "variants": records, "seconds": 9.0}
    if chance.random() < 0.5:  # half of the results were not attacked
        keyed, attacks = {key: value for key, value in keyed.items() if key.endswith(",none")}, {}
    settings = {"lr": lr, "epochs": 10, "batch_size": 16, "beta": 0.1, "retain_weight": 1.0, "text_length": 512}
    dataset = hashlib.sha256(task.encode()).hexdigest()
    data: dict[str, Any] = {
        "run_id": run_id,
        "status": "ok",
        "date": "2026-01-01T00:00:00+00:00",
        "task": task,
        "model": model,
        "unlearner": {"name": unlearner, "settings": settings if seed is not None else {}},
        "seed": seed,
        "protocol": "grun-bench",
        "limit": None,
        "dataset": "published",
        "dataset_hash": dataset,
        "data": {name: {"sources": [f"org/data:{task}_{name}"], "rows": 400, "sha256": [dataset]} for name in SETS},
        "target": {"name": model},
        "reference": {"names": [model], "retain_log": None},
        "results": {task: keyed},
        "reasons": {},
        "intervals": {f"{metric},none": (value - 0.02, value + 0.02) for metric, value in found.items()},
        "n-samples": {task: dict.fromkeys(found, 400)},
        "higher_is_better": {task: directions()},
        "versions": {task: 1} | dict.fromkeys(found, 1),
        "configs": {task: {"name": task, "version": 1, "metrics": list(PER_SET), "headline": HEADLINE}},
        "headline": HEADLINE,
        "cost": {"trainable_parameters": 10**6, "parameters": 10**9, "training_seconds": 60.0 + chance.random()},
        "history": {"forget": [chance.random() for _ in range(60)], "retain": [chance.random() for _ in range(60)]},
        "attacks": attacks,
        "records": {"file": f"{run_id}.records.jsonl.bz2", "sha256": "0" * 64, "count": 1600},
        "packages": {"torch": "2.13.0", "transformers": "4.45.1"},
        "hardware": {"device": "cuda", "dtype": "bfloat16", "gpu": "generated"},
        "git_hash": None,
        "git": {"commit": None, "dirty": None},
    }
    return Result.model_validate(data)


def fill(tree: Path, count: int) -> int:
    """Write `count` results into a tree; returns their bytes."""
    cells = itertools.product(TASKS, MODELS, (1e-5, 1e-4), ["none", "retain", *UNLEARNERS], range(5))
    size = 0
    kept = (cell for cell in cells if cell[3] not in ("none", "retain") or (cell[2], cell[4]) == (1e-5, 0))
    for task, model, lr, unlearner, seed in itertools.islice(kept, count):
        result = generate(task, model, unlearner, lr, None if unlearner in ("none", "retain") else seed)
        path = result_folder(tree, task, model, unlearner) / f"{result.run_id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        size += path.write_text(result.dumps())
    return size


_RENDER = """
import json, resource, sys, time
from pathlib import Path
started = time.perf_counter()
from grun_bench.leaderboard.pages import render, write
tree, out = Path(sys.argv[1]), Path(sys.argv[2])
rendered = render(tree, out)
write(rendered, out)
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "runs": rendered.runs,
    "pages": len(rendered.pages),
    "html": len(rendered.site.encode()),
    "seconds": time.perf_counter() - started,
    "cpu": used.ru_utime + used.ru_stime,
    "peak": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    "torch": "torch" in sys.modules,
}))
"""


_REFERENCE = """
import json, sys, time
from pathlib import Path
started = time.process_time()
for path in Path(sys.argv[1]).rglob("*.json"):
    json.loads(path.read_bytes())
print(time.process_time() - started)
"""


def _run(code: str, *arguments: Path) -> str:
    """What a process prints that runs this code on one core. Raises RuntimeError with what it said before it failed."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=int, default=10_000, help="how many (default: 10000)")
    parser.add_argument("--keep", type=Path, help="make the results and pages in this folder and leave them there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = options.keep or Path(temporary)
        size = fill(out / "results", options.results)
        found = json.loads(_run(_RENDER, out / "results", out))
        reference = float(_run(_REFERENCE, out / "results"))
    table = Table("", "", title="rendering", title_justify="left", show_header=False)
    table.add_row("results", f"{options.results:,} files, {size / 2**20:.0f} MiB, {found['runs']:,} runs shown")
    table.add_row(
        "pages",
        f"{found['pages']:,} files, the HTML page {found['html'] / 10**6:.2f} MB (at most {PAGE_BYTES / 10**6:.0f})",
    )
    table.add_row("wall", f"{found['seconds']:.2f} s")
    table.add_row("CPU", f"{found['cpu']:.2f} s (at most {SECONDS:.0f})")
    table.add_row("reference", f"json.loads of the files {reference:.2f} s: {found['cpu'] / reference:.2f} times that")
    table.add_row("peak memory", f"{found['peak'] / 10**6:.0f} MB (at most {BYTES / 10**6:.0f})")
    Console().print(table)
    too_much = found["cpu"] > SECONDS or found["peak"] > BYTES or found["html"] > PAGE_BYTES
    return int(too_much or found["torch"] or found["runs"] != options.results)


if __name__ == "__main__":
    sys.exit(main())
