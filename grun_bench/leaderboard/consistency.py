"""What a result says of itself that cannot be, known without its records, models and data. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from grun_bench.core import registry
from grun_bench.metrics.about import bounds_by_name, bounds_of
from grun_bench.metrics.evaluate import for_protocol
from grun_bench.results.metric_key import MetricKey
from grun_bench.results.protocol_names import own_name
from grun_bench.results.result import Result
from grun_bench.results.run_id import run_ids
from grun_bench.tasks.task import load_task
from grun_bench.tasks.world import WORLDS
from grun_bench.tasks.yaml_files import task_files

#: the parts of a task that decide its numbers and its ranking
_DECISIVE = ("version", "forget", "retain", "score", "measures", "metrics", "headline", "max_new_tokens", "prompt")


def inconsistencies(result: Result, include: tuple[Path, ...] = ()) -> Iterator[str]:
    """Another task than the one of its name, a headline or a run id of its own, and numbers out of bounds.

    What a task is that is not the harness's, nor in `include`, is left to the result.
    """
    if result.task in task_files(include) and (problem := task_problem(result, include)):
        yield problem
        return
    keys = [MetricKey.parse(key).metric for key in result.results[result.task]]
    headline = [own_name(key, result.protocol, keys) for key in result.configs.get(result.task, {}).get("headline", [])]
    if result.headline != headline:
        yield f"$.headline: {result.headline}, and that of its task is {headline}"
    metrics = for_protocol(result.configs.get(result.task, {}).get("metrics", []), result.protocol)
    known = registry.entries("metric")
    if all(metric in known for metric in metrics) and result.run_id not in run_ids(
        result, {metric: registry.get("metric", metric).version for metric in metrics}
    ):
        yield "$.run_id: not the one that its task, settings, models and data give"
    yield from _out_of_bounds(result)


def task_problem(result: Result, include: tuple[Path, ...] = ()) -> str | None:
    """Why a result is not of the task of its name as it is here; None where it is."""
    if result.own:
        return "it is of own rows, which stay with whoever has them"
    if result.task not in task_files(include):
        return f"the task {result.task} is none of the harness's; give its folder with --include-path"
    task = WORLDS[result.dataset].task(load_task(result.task, include))
    here, there = task.model_dump(mode="json"), result.configs.get(result.task, {})
    for key in _DECISIVE:
        if there.get(key) != here[key]:
            return f"$.configs.{result.task}.{key} is not that of the task here; run it again"
    return None


def _out_of_bounds(result: Result) -> Iterator[str]:
    known = bounds_by_name()

    def wrong(place: str, values: Mapping[str, float | None]) -> Iterator[str]:
        for text, value in values.items():
            key = MetricKey.parse(text) if "," in text else MetricKey(text)
            low, high = (-math.inf, math.inf) if key.is_recovery else bounds_of(key.metric, known)
            # a mean may be rounded up
            if value is not None and not low - 1e-9 <= value <= high + 1e-9:
                yield f"{place}.{text}: {value}, and it is from {low:g} to {high:g}"

    yield from wrong(f"$.results.{result.task}", result.results[result.task])
    for end in (0, 1):
        yield from wrong(f"$.intervals[{end}]", {key: pair[end] for key, pair in result.intervals.items()})
    for name, curve in result.curves.items():
        for number, point in enumerate(curve.points):
            yield from wrong(f"$.curves.{name}.points[{number}]", point.values)
