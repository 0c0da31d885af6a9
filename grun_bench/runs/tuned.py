"""The settings that a tuning chose, for a run with a seed that it did not see. No torch."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from grun_bench.core.errors import UsageError
from grun_bench.results.result import TunedBy
from grun_bench.results.tuning import FILE, UNSCORED, Trial, read_trials
from grun_bench.runs.config import TUNINGS

#: up to so many tunings are named where none is the one that was meant
_FEW = 4


def tuned_settings(
    place: Path, unlearner: str, task: str, model: str, seed: int, options: str = ""
) -> tuple[dict[str, Any], TunedBy]:
    """The settings that were chosen for an unlearner, a task and a model, and how they were found.

    `place` is a folder of tunings, or the file of one, `options` what `tune` takes to make one. Raises UsageError where
    there is none, or the seed is the one that it was tuned with.
    """
    trials = _trials(place, (unlearner, task, model), options or f"--task {task}")
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


def _trials(place: Path, wanted: tuple[str, str, str], options: str) -> list[Trial]:
    files = sorted(place.rglob(FILE)) if place.is_dir() else [place]
    there = []
    for file in files:
        trials = read_trials(file)
        there.append((trials[0].unlearner, trials[0].task, trials[0].model))
        if there[-1] == wanted:
            return trials
    more = f" and {len(there) - _FEW} more" if len(there) > _FEW else ""
    found = f"none of {_said(wanted)}, but tunings of {'; '.join(map(_said, there[:_FEW]))}{more}"
    beside = files and place.is_dir() and files[0].parents[3:4] != (place,)
    output = "" if beside or place.suffix or place == TUNINGS else f" --output {shlex.quote(str(place))}"
    raise UsageError(
        f"--tuned {place}: there is {found if there else 'no tuning in it'}. `grun-bench tune --unlearner {wanted[0]} "
        f"{options}{output}` makes one."
    )


def _said(tuning: tuple[str, str, str]) -> str:
    unlearner, task, model = tuning
    return f"{unlearner} on {task} with {model}"
