"""The settings that a tuning chose, for a run with a seed that it did not see. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grun_bench.core.errors import UsageError
from grun_bench.results.result import TunedBy
from grun_bench.results.tuning import FILE, UNSCORED, Trial, read_trials


def tuned_settings(place: Path, unlearner: str, task: str, model: str, seed: int) -> tuple[dict[str, Any], TunedBy]:
    """The settings that were chosen for an unlearner, a task and a model, and how they were found.

    `place` is a folder of tunings, or the file of one. Raises UsageError where there is none, or the seed is the one
    that it was tuned with.
    """
    trials = _trials(place, unlearner, task, model)
    chosen = next((each for each in trials if each.chosen), None)
    if chosen is None:
        raise UsageError(f"--tuned {place}: no trial of {unlearner} came to an end: `grun-bench tune` goes on with it.")
    if not chosen.on.startswith(UNSCORED):
        raise UsageError(f"--tuned {place}: {unlearner} was tuned on the {chosen.on}, so no row is made of it.")
    if seed == chosen.seed:
        raise UsageError(
            f"--tuned {place}: {unlearner} was tuned with seed {seed}; rows have seeds that tuning did not see."
        )
    return chosen.settings, TunedBy(trials=len(trials), on=chosen.on, seed=chosen.seed)


def _trials(place: Path, unlearner: str, task: str, model: str) -> list[Trial]:
    files = sorted(place.rglob(FILE)) if place.is_dir() else [place]
    wanted, there = (unlearner, task, model), []
    for file in files:
        trials = read_trials(file)
        there.append((trials[0].unlearner, trials[0].task, trials[0].model))
        if there[-1] == wanted:
            return trials
    known = "; ".join(" ".join(each) for each in there) or "no tuning"
    raise UsageError(
        f"--tuned {place}: it has none of {' '.join(wanted)}, but {known}. `grun-bench tune --unlearner {unlearner} "
        f"--task {task}` makes one."
    )
