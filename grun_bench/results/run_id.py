"""Run ids: the same whenever all that decides a row's numbers is, made again from what a result says. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from pydantic import ValidationError

from grun_bench.core.cache import digest
from grun_bench.results.result import Result, TunedBy, with_base
from grun_bench.tasks.task import Task

#: what run ids have called a dtype or a protocol that was changed, oldest first; any other by its own name
NAMES: dict[str, tuple[str, ...]] = {
    "open-unlearning": ("open-unlearning", "open-unlearning 2"),
    "bfloat16": ("bfloat16", "bfloat16, trained in float32"),
    "float16": ("float16", "float16, trained in float32"),
}
#: the keys of a task that decide no number without attack
_INDECISIVE: Any = {
    # what rows there are decides, and not where they are kept
    **dict.fromkeys(
        ("description", "headline", "models", "attacks", "reworded", "entities", "own", "private", "repositories"), True
    ),
    "embedded": {"reworded", "entities"},
}


def run_id(
    task: Task,
    unlearner: str,
    settings: Mapping[str, Any],
    models: Mapping[str, Any],
    data: str,
    limit: int | None,
    dtype: str,
    metrics: Mapping[str, int],
    protocol: str,
    retain_log: str | None,
    seed: int | None,
    tuned: TunedBy | None = None,
) -> str:
    """The name of a row. `data` and `retain_log` are SHA-256, `metrics` names with their versions."""
    fingerprint = digest(
        {
            # without defaults: a key that task files get later leaves the rows that are there as they are
            "task": task.model_dump(exclude=_INDECISIVE, exclude_defaults=True),
            "unlearner": unlearner,
            "settings": settings,
            "models": models,
            "data": data,
            "limit": limit,
            "dtype": dtype,
            "metrics": metrics,
            "protocol": protocol,
            "retain_log": retain_log,
        }
        # rows of default settings are what they were before there was tuning
        | ({"tuned": tuned.label} if tuned else {})
    )
    return fingerprint[:12] + ("" if seed is None else f"-seed{seed}")


def run_ids(result: Result, metrics: Mapping[str, int]) -> Iterator[str]:
    """The run ids that a result may have by what it says: of this harness, and of those before it."""
    if result.imported:
        yield f"imported-{result.imported.sha256[:12]}"
        return
    try:
        task = Task.model_validate(result.configs.get(result.task))
    except ValidationError:
        return
    said, protocol = str(result.hardware.get("dtype")), result.protocol
    models = {key: value for key, value in result.reference.items() if key != "retain_log"}
    log = result.reference.get("retain_log")
    quantised = str(result.hardware.get("quantised") or "")
    for dtype, named in product(NAMES.get(said, (said,)), NAMES.get(protocol, (protocol,))):
        yield run_id(
            task,
            result.unlearner.name,
            result.unlearner.settings,
            models,
            result.dataset_hash,
            result.limit,
            with_base(dtype, quantised),
            metrics,
            named,
            log,
            result.seed,
            result.unlearner.tuned,
        )
