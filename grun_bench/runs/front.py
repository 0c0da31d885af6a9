"""The way in to a run: what can be refused is refused, then torch is loaded and the run begins."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from grun_bench.core import registry
from grun_bench.core.errors import unknown
from grun_bench.core.patches import offline_if_unreachable
from grun_bench.core.progress import waiting
from grun_bench.runs.config import RunConfig

if TYPE_CHECKING:
    from grun_bench.runs.run import Outcome

#: arithmetics that a model can run in
DTYPES = ("auto", "float32", "bfloat16", "float16")


def run_config(config: RunConfig) -> Outcome:
    """Run one unlearner on one task. Raises GrunBenchError, and nothing else that is expected."""
    published = config.model or config.target
    with registry.including(config.include), offline_if_unreachable() if published else nullcontext():
        check(config)
        with waiting("loading torch and transformers"):
            from grun_bench.runs.run import run
        return run(config)


def check(config: RunConfig) -> None:
    """Raises UsageError for what can be refused before anything is loaded: names, and folders not to write in.

    Makes the folders. An `unlearner` that is yet to come may be empty.
    """
    if config.unlearner:
        registry.parse_unlearner(config.unlearner)
    if config.dtype not in DTYPES:
        raise unknown("--dtype", config.dtype, DTYPES)
    # only now: on the way to `--help` none of this is needed
    from grun_bench.results.result import check_writable
    from grun_bench.tasks.task import load_task

    task = load_task(config.task, config.include)
    if config.attacks:
        registry.attack_names(config.attacks, task.attacks)
    check_writable(config.output)
    if config.save:
        from grun_bench.methods.saving import check_new

        check_new(config.save)
