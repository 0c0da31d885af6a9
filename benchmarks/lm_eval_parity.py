"""Ours against lm-eval's own command on the same local data: WMDP cyber (first 200) and whole subjects of MMLU.

    GRUN_BENCH_HUB=/data/hub python benchmarks/lm_eval_parity.py HuggingFaceTB/SmolLM2-135M-Instruct

lm-eval runs its `hf` model in a process of its own, on tasks that differ from its packaged ones in `dataset_path`
alone. Both in fp32 with the same batch size: every log-likelihood of every option must be the same number.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import lm_eval.tasks

from grun_bench.core import environment as env
from grun_bench.integrations.lm_eval import measures as harness
from grun_bench.models.loading import Placement, load
from grun_bench.models.places import Commit, locate
from grun_bench.tasks.task import Measure
from grun_bench.tasks.world import PUBLISHED

#: lm-eval task, data set, lm-eval's file, shots, questions (subjects of MMLU whole but for the last)
TASKS = (
    ("mmlu_abstract_algebra", "cais/mmlu", "mmlu/default/mmlu_abstract_algebra.yaml", 0, None),
    ("mmlu_global_facts", "cais/mmlu", "mmlu/default/mmlu_global_facts.yaml", 0, None),
    ("mmlu_us_foreign_policy", "cais/mmlu", "mmlu/default/mmlu_us_foreign_policy.yaml", 0, None),
    ("mmlu_abstract_algebra", "cais/mmlu", "mmlu/default/mmlu_abstract_algebra.yaml", 5, 20),
    ("wmdp_cyber", "cais/wmdp", "wmdp/wmdp_cyber.yaml", 0, 200),
)


def theirs(
    model: Path | Commit, name: str, data: str, source: str, shots: int, limit: int | None, batch_size: int
) -> dict[int, list[float]]:
    """Question -> log-likelihood of each option, from lm-eval's command."""
    folder = next(mirror / data for mirror in env.mirrors() if (mirror / data).is_dir())
    with tempfile.TemporaryDirectory() as work:
        task = Path(work) / "tasks" / f"{name}.yaml"
        task.parent.mkdir()
        task.write_text(f"include: {Path(lm_eval.tasks.__file__).parent / source}\ndataset_path: {folder}\n")
        command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf"]
        where = f"{model.repository},revision={model.sha}" if isinstance(model, Commit) else model
        command += ["--model_args", f"pretrained={where},dtype=float32", "--device", "cpu"]
        command += ["--tasks", name, "--include_path", str(task.parent), "--num_fewshot", str(shots)]
        command += ["--batch_size", str(batch_size), "--log_samples", "--output_path", work]
        command += ["--limit", str(limit)] if limit else []
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # as bytes: questions may hold what Unicode counts as the end of a line
        lines = next(Path(work).rglob(f"samples_{name}_*.jsonl")).read_bytes().splitlines()
    samples = [json.loads(line) for line in lines]
    return {row["doc_id"]: [float(value) for value, _ in row["filtered_resps"]] for row in samples}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--batch-size", type=int, default=4)
    options = parser.parse_args()
    lm = load(options.model, Placement.choose("cpu", "float32"))
    print("| task | shots | questions | accuracy | option log-likelihoods | equal | largest difference |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for name, data, source, shots, limit in TASKS:
        measure = {name: Measure(role="utility", num_fewshot=shots)}
        ours = harness.run(lm, measure, PUBLISHED, batch_size=options.batch_size, limit=limit).records
        other = theirs(locate(options.model), name, data, source, shots, limit, options.batch_size)
        pairs = [
            (mine, other[record.index][place])
            for record in ours
            for place, mine in enumerate(record.choices.logprobs)  # type: ignore[union-attr]
        ]
        assert len(ours) == len(other)
        right = sum(record.scores["acc"] for record in ours) / len(ours)
        equal = sum(mine == its for mine, its in pairs)
        widest = max(abs(mine - its) for mine, its in pairs)
        print(f"| {name} | {shots} | {len(ours)} | {right:.4f} | {len(pairs)} | {equal} | {widest:.1e} |", flush=True)


if __name__ == "__main__":
    main()
