"""A search over settings that several processes share, and that goes on where they were killed: Optuna's.

Its journal lies in the folder of the tuning. Which settings a trial has depends on the seed, on its number and on the
trials before it, so a search that was killed and goes on is the same as one that was not.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from grun_bench.core.errors import UsageError
from grun_bench.core.files import locked
from grun_bench.core.ranges import Choice, Range, Searched

#: trials before the sampler learns from them, and before others are ended in the middle
FIRST = 5
#: significant digits of a setting that is tried
DIGITS = 3


@dataclass
class Asked:
    """A trial to be made: its number and settings; `lock` is held until it is told."""

    number: int
    settings: dict[str, Any]
    own: Any
    lock: FileLock

    def prune(self, value: float, step: int) -> bool:
        """Tells what is seen in the middle of it, and whether it is worse than most were by then."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one that was killed has told it already
            self.own.report(value, step)
        return bool(self.own.should_prune())


class Study:
    """The search for one unlearner. `searched` are ranges in numbers of their settings, `defaults` the first trial."""

    def __init__(self, folder: Path, searched: Searched, defaults: Mapping[str, Any], seed: int, trials: int) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.searched, self.seed, self.trials = folder, searched, seed, trials
        self.defaults, self._optuna = dict(defaults), optuna
        with self._alone():
            storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
            pruner = optuna.pruners.MedianPruner(n_startup_trials=FIRST)
            self._study = optuna.create_study(
                storage=storage, study_name="tuning", pruner=pruner, load_if_exists=True, sampler=self._sampler(0)
            )

    def _alone(self) -> Any:
        return locked(self.folder / ".lock", "another process asks for a trial; waiting for it.")

    def next(self) -> Asked | None:
        """A trial that another process left when it was killed, else a new one; None where none is to be made."""
        with self._alone():
            there = self._study.get_trials(deepcopy=False)
            for each in there:
                if not each.state.is_finished() and (lock := self._lock(each.number)):
                    self._study.sampler = self._sampler(each.number)
                    return self._asked(self._optuna.Trial(self._study, each._trial_id), lock)
            number = len(there)
            if number >= self.trials:
                return None
            lock = self._lock(number)
            if lock is None:
                raise UsageError(f"{self.folder}: the lock of trial {number} is held by another program.")
            self._study.sampler = self._sampler(number)
            return self._asked(self._study.ask(), lock)

    def _lock(self, number: int) -> FileLock | None:
        lock = FileLock(self.folder / f".trial-{number}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

    def _sampler(self, number: int) -> Any:
        samplers = self._optuna.samplers
        own = samplers.TPESampler(seed=self.seed * 1000 + number, n_startup_trials=FIRST)
        if number:
            return own
        first = {name: self._place(name, self.defaults[name]) for name in self.searched}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a part of Optuna that may change says so
            return samplers.PartialFixedSampler(first, own)

    def _place(self, name: str, value: Any) -> Any:
        """A setting as the search has it."""
        each = self.searched[name]
        return each.values.index(value) if isinstance(each, Choice) else value

    def _asked(self, trial: Any, lock: FileLock) -> Asked:
        found = {name: self._suggested(trial, name, each) for name, each in self.searched.items()}
        # the defaults themselves, to the last digit
        first = {name: self.defaults[name] for name in self.searched}
        return Asked(trial.number, found if trial.number else first, trial, lock)

    def _suggested(self, trial: Any, name: str, each: Range | Choice) -> Any:
        """The value of a setting in a trial; that of one which was killed stays."""
        if isinstance(each, Choice):
            return each.values[trial.suggest_categorical(name, range(len(each.values)))]
        if isinstance(self.defaults[name], int):
            return trial.suggest_int(name, int(each.low), int(each.high), log=each.log)
        return float(f"{trial.suggest_float(name, each.low, each.high, log=each.log):.{DIGITS}g}")

    def tell(self, asked: Asked, value: float | None, said: Mapping[str, Any]) -> None:
        """What came of a trial: its value, None where it was ended in the middle, and all that is kept of it."""
        states = self._optuna.trial.TrialState
        with self._alone():
            asked.own.set_user_attr("said", dict(said))
            self._study.tell(asked.number, value, states.PRUNED if value is None else states.COMPLETE)
        asked.lock.release()

    def told(self) -> list[dict[str, Any]]:
        """What is kept of all trials that came to an end, by number."""
        trials = self._study.get_trials(deepcopy=False)
        return [each.user_attrs["said"] for each in trials if each.state.is_finished() and "said" in each.user_attrs]
