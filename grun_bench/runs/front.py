"""The way in to a run: what can be refused is refused, then torch is loaded and the run begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from grun_bench.core import registry
from grun_bench.core.errors import unknown
from grun_bench.core.patches import offline_if_unreachable
from grun_bench.core.progress import waiting
from grun_bench.methods.saving import check_new
from grun_bench.results.result import Result, check_writable
from grun_bench.runs.config import RunConfig
from grun_bench.runs.outcome import Outcome
from grun_bench.tasks.task import load_task
from grun_bench.tasks.world import PUBLISHED

#: arithmetics that a model can run in
DTYPES = ("auto", "float32", "bfloat16", "float16")


def run_config(config: RunConfig) -> Outcome:
    """Run one unlearner on one task. Raises GrunBenchError, and nothing else that is expected."""
    check(config)
    with _loaded(from_hub=bool(config.model or config.target)):
        from grun_bench.runs import run as phases

        return phases.run(config)


def attack_row(config: RunConfig, result: Result, saved: Path | None = None) -> Outcome:
    """Attack the model of a filed row: see `grun_bench.runs.run.attack_row`."""
    check(config)
    with _loaded(from_hub=result.dataset == PUBLISHED.name):
        from grun_bench.runs import run as phases

        return phases.attack_row(config, result, saved)


@contextmanager
def _loaded(from_hub: bool) -> Iterator[None]:
    """Loads what takes seconds. In this block the Hub's libraries keep to their cache where it cannot be reached."""
    with offline_if_unreachable() if from_hub else nullcontext():
        with waiting("loading torch and transformers"):
            import grun_bench.runs.run  # noqa: F401
        yield


def check(config: RunConfig) -> None:
    """Raises UsageError for what can be refused before anything is loaded: names, and folders not to write in.

    Makes the folders. An `unlearner` that is yet to come may be empty.
    """
    if config.dtype not in DTYPES:
        raise unknown("--dtype", config.dtype, DTYPES)
    task = load_task(config.task, config.include)
    with registry.including(config.include):
        if config.unlearner:
            registry.parse_unlearner(config.unlearner)
        if config.attacks:
            registry.attack_names(config.attacks, task.attacks)
    check_writable(config.output)
    if config.save:
        check_new(config.save)
