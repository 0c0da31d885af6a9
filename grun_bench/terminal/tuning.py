"""What came of a tuning. No torch."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from grun_bench.results.tuning import RULE, Trial
from grun_bench.results.words import number
from grun_bench.runs.config import TUNINGS, RunConfig
from grun_bench.runs.next_command import asked
from grun_bench.terminal.listing import print_rows, tell

if TYPE_CHECKING:
    from grun_bench.tuning.tune import Tuning


def print_tuning(found: Tuning, config: RunConfig) -> None:
    """All trials, the rule, which trial it chose, and the command that makes a row of it."""
    trials = found.trials
    first = trials[0]
    kept = "KL to target ↓" if first.divergence is not None else "utility ↑"
    columns = ("trial", "", "settings", kept, "extraction strength ↓", "train s")
    rows = [_line(each) for each in trials]
    print_rows(f"{first.unlearner} on {first.model}, {len(trials)} trials, {first.on}", columns, rows)
    whole = next((each.whole for each in trials if each.whole is not None), None)
    tell(f"Rule: {RULE}")
    if whole is not None:
        tell(f"The target model's utility on these rows: {number(whole)}.")
    tell(*(f"{name} is searched from {each}." for name, each in found.searched.items()))
    chosen = found.chosen
    if chosen is None:
        return
    default = " (the defaults)" if chosen.trial == 0 else ""
    tell(f"Chosen: trial {chosen.trial}{default}." + ("" if chosen.admitted else " No trial keeps enough utility."))
    elsewhere = "" if config.output == TUNINGS else f" --output {shlex.quote(str(config.output))}"
    tuned = f"--tuned {shlex.quote(str(found.path))} --seed 0{elsewhere}"
    tell(f"next: grun-bench run --unlearner {first.unlearner} {asked(config)} {tuned}")


def _line(trial: Trial) -> list[str]:
    mark = "chosen" if trial.chosen else trial.state if trial.state != "ok" else "" if trial.admitted else "too little"
    kept = trial.divergence if trial.divergence is not None else trial.utility
    seconds = "-" if trial.seconds is None else f"{trial.seconds:.1f}"
    settings = " ".join(f"{name}={value}" for name, value in trial.settings.items())
    return [str(trial.trial), mark, settings, number(kept), number(trial.extraction_strength), seconds]
