"""Tune a method: trials on rows that are not scored, each a run of its own, and the rule that chooses one.

A trial is a row of the problem's task (see `split`), filed with its records like any other, so that whoever doubts its
numbers can recompute them, and one that was killed goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grun_bench.core import registry
from grun_bench.core.errors import GrunBenchError, Refused, UsageError
from grun_bench.core.files import locked
from grun_bench.core.progress import say
from grun_bench.core.ranges import Searched
from grun_bench.methods.trainer import Pair
from grun_bench.results.result import Result
from grun_bench.results.store import result_folder
from grun_bench.results.tuning import FILE, Trial, write_trials
from grun_bench.runs.config import RunConfig, label_of
from grun_bench.runs.data import read_data
from grun_bench.runs.fit import checkpoints_of
from grun_bench.runs.inputs import Inputs, resolve
from grun_bench.runs.models import Models, choose_models
from grun_bench.runs.outcome import Outcome
from grun_bench.runs.run import execute
from grun_bench.runs.session import Session
from grun_bench.tuning.rule import chosen, loss, shortfall, utility_of
from grun_bench.tuning.split import Problem, validation
from grun_bench.tuning.study import Asked, Study
from grun_bench.tuning.world import Trials

#: the attack that a user makes with the least trouble: the first words of the answer are given
ATTACK = "prefill"
#: how often a trial is looked at in the middle
LOOKS = 3
#: the value of a trial that diverged: above all others
DIVERGED = 3.0
#: the folder of the trials' rows, in that of all tunings
ROWS = "rows"


class Pruned(GrunBenchError):
    """A trial is worse in the middle of its training than most others were."""


@dataclass(frozen=True)
class Tuning:
    """All trials so far, the ranges that they are from, and the file that keeps them."""

    trials: list[Trial]
    searched: Searched
    path: Path

    @property
    def chosen(self) -> Trial | None:
        """The trial that the rule chooses; None where none came to an end."""
        return next((each for each in self.trials if each.chosen), None)


@dataclass(frozen=True)
class _Work:
    """What all trials of a tuning share."""

    config: RunConfig
    session: Session
    problem: Problem
    models: Models
    #: of the unlearner, the task and the model, as rows have them
    name: str
    task: str
    model: str

    def inputs(self, settings: Mapping[str, Any]) -> Inputs:
        """The run that a trial with these settings is."""
        config = replace(self.config, overrides={**self.config.overrides, **settings})
        found = resolve(config, self.session, None, self.models)
        every = _every(found) if isinstance(found.method.unlearner, Pair) else None
        return replace(found, config=replace(config, eval_every=every))


def tune(config: RunConfig, trials: int, parted: Callable[..., Problem] = validation) -> Tuning:
    """Make the trials that are not there yet, and choose; several processes may do so at once.

    `config.output` is the folder of tunings, `config.seed` that of unlearning in all trials, `config.overrides` what
    all of them have beside. `parted` makes the problem of a task in a world. Raises Refused for a method without
    anything to tune and for a task that cannot be parted, UsageError for settings that are given and searched.
    """
    session = Session.of(config)
    with session.in_force():
        work = _work(config, session, parted)
        searched, defaults = _searched(work)
        say(f"searched: {'; '.join(f'{name}, {each}' for name, each in searched.items())}")
        for note in _unsearched(work.name, searched):
            say(note)
        folder = result_folder(config.output, work.task, work.model, work.name)
        study = Study(folder, searched, defaults, config.seed, trials)
        while (asked := study.next()) is not None:
            default = " (the defaults)" if asked.number == 0 else ""
            say(f"trial {asked.number}{default}, of 0 to {trials - 1}: {_words(asked.settings)}")
            value, trial = _tried(work, asked)
            study.tell(asked, value, trial.model_dump())
            _kept(study, folder)
        return Tuning(_kept(study, folder), searched, folder / FILE)


def _work(config: RunConfig, session: Session, parted: Callable[..., Problem]) -> _Work:
    parsed = registry.parse_unlearner(config.unlearner)
    name = parsed if isinstance(parsed, str) else "+".join(parsed)
    task = session.world.load(config.task, config.include)
    problem = parted(task, session.world, config.limit)
    within = replace(session, world=Trials(session.world, problem))
    data = read_data(problem.task, within.world, None)
    found = choose_models(config, within, problem.task, data)
    models = replace(found, retain=None, no_retain="settings are tuned without a retain model.", note="")
    own = replace(config, output=config.output / ROWS, attacks=ATTACK, limit=None, tuning=None)
    return _Work(own, within, problem, models, name, task.name, label_of(config))


def _searched(work: _Work) -> tuple[Searched, dict[str, Any]]:
    """The ranges of a method's free settings, in numbers, and the settings in force beside them."""
    parsed = registry.parse_unlearner(work.name)
    if isinstance(parsed, tuple):
        declared = {**registry.get("adapter", parsed[0]).searched, **registry.get("objective", parsed[1]).searched}
    else:
        declared = dict(registry.get("unlearner", parsed).searched)
    if not declared:
        raise Refused(f"{work.name} declares no settings to be searched: there is nothing to tune.")
    if given := sorted(declared.keys() & work.config.overrides.keys()):
        raise UsageError(f"--set {given[0]}: it is one of the settings that are searched ({', '.join(declared)}).")
    defaults = work.inputs({}).method.unlearner.settings
    return {name: each.around(defaults[name]) for name, each in declared.items()}, defaults


def _unsearched(name: str, searched: Searched) -> Iterator[str]:
    """That of a plugin of one's own no setting is searched, as its decorator does not say which."""
    parts = name.split("+")
    kinds: tuple[registry.Kind, ...] = ("adapter", "objective") if len(parts) == 2 else ("unlearner",)
    for kind, part in zip(kinds, parts, strict=True):
        entry = registry.entries(kind)[part]
        own = entry.settings or ()
        if own and not entry.builtin and not searched.keys() & set(own):
            these = f"{', '.join(own)} {'is' if len(own) == 1 else 'are'}"
            how = f'searched={{"{own[0]}": times(0.1, 10)}}'
            yield f"{part}: its {these} not searched; its decorator says what is, as {how} (grun_bench/core/ranges.py)."


def _every(inputs: Inputs) -> int:
    """How many optimiser steps there are between two looks in the middle of a training."""
    recipe = inputs.method.unlearner.recipe  # type: ignore[attr-defined]
    rows = len(inputs.data.pairs("forget"))
    batches = recipe.steps * recipe.accumulate or recipe.epochs * math.ceil(rows / recipe.batch_size)
    return max(1, math.ceil(batches / recipe.accumulate / LOOKS))


def _tried(work: _Work, asked: Asked) -> tuple[float | None, Trial]:
    """The value of a trial for the search, None where it was ended in the middle, and what is kept of it."""
    inputs = work.inputs(asked.settings)
    said = Trial(
        trial=asked.number,
        state="ok",
        unlearner=work.name,
        task=work.task,
        model=work.model,
        on=work.problem.on,
        seed=work.config.seed,
        settings={**work.config.overrides, **asked.settings},
    )
    try:
        outcome = execute(replace(inputs, watch=_Watch(asked, inputs.config.eval_every or 1)))
    except Pruned:
        for checkpoint in checkpoints_of(inputs, inputs.method, inputs.run_id(inputs.method)):
            checkpoint.remove()
        return None, said.model_copy(update={"state": "pruned"})
    if outcome.result.status != "ok":
        return DIVERGED, said.model_copy(update={"state": "diverged", "run_id": outcome.result.run_id})
    found = said.model_copy(update=_measured(outcome, work.problem))
    return loss(found.extraction_strength, shortfall(found.utility, found.whole, found.divergence)), found


@dataclass
class _Watch:
    """Ends a trial that is worse in the middle than most were; utility is compared with the target's, seen first."""

    asked: Asked
    every: int
    whole: float | None = None

    def __call__(self, step: int, values: Mapping[str, float | None]) -> None:
        utility = utility_of(values.get(f"retain_{name}") for name in ("probability", "rougeL_recall"))
        if step == 0:
            self.whole = utility
        elif step // self.every < LOOKS and self.whole:
            value = loss(values.get("forget_extraction_strength"), shortfall(utility, self.whole, None))
            if self.asked.prune(value, step // self.every):
                raise Pruned(f"trial {self.asked.number} is ended in the middle: worse than most were by then.")


def _measured(outcome: Outcome, problem: Problem) -> dict[str, Any]:
    """What the rule reads of a trial's row and of its target's."""
    result, target = outcome.result, outcome.target.result if outcome.target else outcome.result
    extraction, *kept = result.headline
    under = result.value(extraction, ATTACK)
    found: dict[str, Any] = {
        "extraction_strength": result.value(extraction) if under is None else under,
        "attack": "" if under is None else ATTACK,
        "seconds": result.cost.training_seconds,
        "run_id": result.run_id,
    }
    if problem.keeps_rows:
        return found | {"utility": _utility(result, kept), "whole": _utility(target, kept)}
    return found | {"divergence": result.value(kept[0])}


def _utility(result: Result, keys: list[str]) -> float | None:
    return utility_of(result.value(key) for key in keys)


def _kept(study: Study, folder: Path) -> list[Trial]:
    """All trials, written to the file of the tuning."""
    with locked(folder / ".lines", "another process writes down its trial; waiting for it."):
        trials = chosen([Trial(**each) for each in study.told()])
        if trials:
            write_trials(folder / FILE, trials)
    return trials


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())
