"""The command that searches settings: tune."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from grun_bench.cli.options import Json
from grun_bench.cli.running import MachineOptions, TaskOptions, TrialOptions
from grun_bench.core.errors import GrunBenchError
from grun_bench.core.printing import put
from grun_bench.runs.config import MAX_SEED, TUNINGS

#: the seed of trials, which no board's rows have
SEED = 1000


@dataclass(frozen=True, kw_only=True)
class TunedOptions(TrialOptions, TaskOptions):
    """What a tuning is of: no attacks, no strengths and no retain log, which a trial does not have."""


@dataclass(frozen=True, kw_only=True)
class TuningMachineOptions(MachineOptions):
    """The same machine, and another folder."""

    output: Annotated[Path, typer.Option("--output", help="Folder of the tunings.")] = TUNINGS


def tune(
    unlearner: Annotated[str, typer.Option(help="What to tune, as in lora+npo.")],
    options: TunedOptions,
    trials: Annotated[int, typer.Option(min=1, help="How many in all; those that are there count.")] = 20,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of unlearning in all trials.")] = SEED,
    settings: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="A setting of all trials; repeat it.")
    ] = [],  # noqa: B006
    *,
    machine: TuningMachineOptions,
    as_json: Json = False,
) -> None:
    """Search a method's settings on a part of the training rows, never on what is scored; a killed call goes on."""
    from grun_bench.terminal.tuning import print_tuning
    from grun_bench.tuning.front import tune as search

    config = options.config(machine, unlearner, settings, seed=seed)
    # own rows are neither attacked nor filed elsewhere, as those of `run` are unless it is said
    config = replace(config, attacks="", output=machine.output)
    found = search(config, trials)
    if as_json:
        put(found.path.read_text(encoding="utf-8"))
    else:
        print_tuning(found, config)
    if found.chosen is None:
        raise GrunBenchError(f"of {len(found.trials)} trials none came to an end with numbers.")
