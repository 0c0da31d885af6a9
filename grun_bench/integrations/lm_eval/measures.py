"""Tasks of lm-eval (0.4.13) as the measures of a task file, run on our models by lm-eval's own evaluator."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from lm_eval.api.task import ConfigurableTask
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from grun_bench.core.cache import digest
from grun_bench.core.errors import first_line, unknown
from grun_bench.core.patches import mirrored_datasets, offline_if_unreachable, quiet_lm_eval
from grun_bench.integrations.lm_eval.forms import put, unfit
from grun_bench.integrations.lm_eval.model import HarnessLM
from grun_bench.models.finite import check_finite
from grun_bench.models.lm import LM
from grun_bench.models.question_form import OWN_FORM, QuestionForm
from grun_bench.results.record import Choices, Continuation, Record
from grun_bench.tasks.task import Measure
from grun_bench.tasks.world import World


@dataclass
class Measured:
    """What lm-eval gave on one model: our records, and what a result says of how they came about.

    `configs`: `lm_eval:<measure>` -> lm-eval's settings (a task may have a measure's name); `versions`: the same -> its
    version of the task; `data`: measure -> the questions' source, number and SHA-256; `missing`: measure -> why there
    are no questions.
    """

    records: list[Record] = field(default_factory=list)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def keep(self, name: str, found: dict[str, Any], batch_size: int | str) -> None:
        """Add what lm-eval's evaluator gave on one measure."""
        rows = [(task, sample) for task, samples in found["samples"].items() for sample in samples]
        records: dict[tuple[str, int], Record] = {}
        for task, sample in rows:
            key = task, sample["doc_id"]
            if key not in records:
                records[key] = _record(name, len(records), task, sample, found["configs"][task]["output_type"])
            suffix = "" if sample["filter"] == "none" else f",{sample['filter']}"
            values = {metric: sample[metric] for metric in sample["metrics"]}
            records[key].scores |= {
                f"{metric}{suffix}": float(value) for metric, value in values.items() if isinstance(value, int | float)
            }
        self.records += records.values()
        first = next(iter(found["configs"].values()))
        kept = ("doc_to_", "output_", "target_del")
        template = {key: str(first[key]) for key in sorted(first) if key.startswith(kept)}
        tasks = {
            task: {
                "version": found["versions"].get(task),
                "n-shot": found["n-shot"].get(task),
                "dataset": [config.get("dataset_path"), config.get("dataset_name")],
            }
            for task, config in found["configs"].items()
        }
        self.configs[f"lm_eval:{name}"] = {
            "tasks": tasks,
            "first_task": template,
            "batch_size": batch_size,
            "random_seed": DEFAULT_RANDOM_SEED,
            "other_seeds": DEFAULT_OTHER_SEED,
        }
        self.versions[f"lm_eval:{name}"] = ", ".join(sorted({str(version) for version in found["versions"].values()}))
        hashes = [sample["doc_hash"] for _, sample in rows]
        self.data[name] = {"sources": sorted(found["configs"]), "rows": len(records), "sha256": [digest(hashes)]}


@cache
def _manager(known: bool) -> TaskManager:
    """lm-eval's tasks, those that it has `known`: reading its thousands of YAML files takes seconds."""
    return TaskManager(include_defaults=known)


def check(measures: Mapping[str, Measure], world: World) -> None:
    """Raises UsageError for a task that lm-eval, or a world with questions of its own, does not have."""
    own = world.question_tasks
    known = list(own) if own is not None else _manager(True).all_tasks
    where = "of lm-eval" if own is None else f"that the {world.name} world has a counterpart of"
    for name, measure in measures.items():
        if measure.lm_eval(name) not in known:
            raise unknown(f"task {where},", measure.lm_eval(name), known)


def run(
    lm: LM,
    measures: Mapping[str, Measure],
    world: World,
    *,
    batch_size: int | None = None,
    limit: int | None = None,
    limits: Mapping[str, int] = {},
    form: QuestionForm = OWN_FORM,
) -> Measured:
    """Run lm-eval's tasks on a model, their questions put in another form where `form` says so.

    The first `limit` questions of each task are asked, or of a measure in `limits` so many, where that is less.

    A task whose questions cannot be had, or not in this form, is `missing`, with the reason. Raises Diverged for a
    model whose log-likelihoods are not finite.
    """
    measured = Measured()
    with offline_if_unreachable(), mirrored_datasets(), quiet_lm_eval():
        model = HarnessLM(lm=lm, batch_size=batch_size)
        for name, measure in measures.items():
            try:
                tasks = _load_tasks(name, measure, world)
            except (OSError, RuntimeError, ValueError) as error:
                reason = first_line(error)[:200]
                measured.missing[name] = f"the questions of {measure.lm_eval(name)} could not be had: {reason}"
                continue
            _set_up(tasks.values(), measure)
            if why := next((why for task in tasks.values() if (why := unfit(task, form))), ""):
                measured.missing[name] = f"{measure.lm_eval(name)}: {why}"
                continue
            for task in tasks.values():
                put(task, form)
            most = min(filter(None, (limit, limits.get(name))), default=None)
            found = evaluate(lm=model, task_dict={"tasks": tasks, "groups": {}}, limit=most, bootstrap_iters=0)
            measured.keep(name, found, model.batch_size)
    check_finite(measured.records, lm.model.dtype)
    return measured


def _load_tasks(name: str, measure: Measure, world: World) -> dict[str, ConfigurableTask]:
    """lm-eval's task objects by name, a group's leaves one by one, with their data loaded."""
    task = measure.lm_eval(name)
    questions = world.questions(task)
    if questions is None:
        return _manager(True).load([task])["tasks"]
    return _manager(False).load([_task_over(questions, f"{world.name}_{name}")])["tasks"]


def _set_up(tasks: Iterable[ConfigurableTask], measure: Measure) -> None:
    """Shots and seeds as `lm_eval.simple_evaluate` sets them, which also spends ten seconds on describing the machine.

    A task that fixes its shots to 0 keeps them.
    """
    random.seed(DEFAULT_RANDOM_SEED)
    np.random.seed(DEFAULT_OTHER_SEED)
    torch.manual_seed(DEFAULT_OTHER_SEED)
    for task in tasks:
        own = task.get_config("num_fewshot")
        if own != 0 and (measure.num_fewshot is not None or own is None):
            task.set_config(key="num_fewshot", value=measure.num_fewshot or 0)
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)


def _task_over(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """An lm-eval task over a world's own questions.

    The options themselves are the continuations, as in lm-eval's `mmlu_continuation`: a model of a million parameters
    does not learn what the letters A to D stand for.
    """
    import datasets

    def questions(**_: Any) -> dict[str, Any]:
        return {"test": datasets.Dataset.from_list(rows)}

    return {
        "task": name,
        "custom_dataset": questions,
        "output_type": "multiple_choice",
        "test_split": "test",
        "fewshot_split": "test",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }


def _record(name: str, index: int, task: str, sample: dict[str, Any], kind: str) -> Record:
    """One question, without its text: the questions of WMDP are not to be spread, and a hash tells them apart."""
    record = Record(name, index, f"{task} {sample['doc_id']} {sample['doc_hash'][:16]}", Continuation(""))
    if kind == "multiple_choice" and isinstance(sample["target"], int):
        answers = sample["filtered_resps"]
        record.choices = Choices([value for value, _ in answers], [greedy for _, greedy in answers], sample["target"])
    return record
