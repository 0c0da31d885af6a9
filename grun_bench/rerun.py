"""Rows made again: scored from the saved model, or trained with the same settings and seed. Loads torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grun_bench.core import registry
from grun_bench.core.errors import GrunBenchError, ModelError, UsageError
from grun_bench.core.given import DTYPES
from grun_bench.leaderboard.compare import Number, compare
from grun_bench.leaderboard.likeness import ALIKE, distance
from grun_bench.metrics.about import bounds_by_name, bounds_of
from grun_bench.metrics.recovery import remove_attack
from grun_bench.results.filed import Filed
from grun_bench.results.metric_key import MetricKey
from grun_bench.results.result import Result
from grun_bench.runs.config import RunConfig, config_of, named_models, was_folder
from grun_bench.runs.folders import FOLDER, folders_of, lost, mirror
from grun_bench.runs.front import CODES
from grun_bench.runs.given import Kept
from grun_bench.runs.inputs import Inputs, Method, resolve
from grun_bench.runs.outcome import Outcome
from grun_bench.runs.run import execute
from grun_bench.runs.session import Session

#: what a mean over n rows may differ by, as a share of its metric's range: so much, and one row more
RESCORED, RETRAINED = 0.02, 0.05
#: the attack that asks in other words, which every method that is made again is put to
REWORDED = "paraphrase"
#: what a KS distance D may differ by, and a recovery (a quotient of differences)
DISTANCE, RECOVERY = 0.1, 0.1


@dataclass(frozen=True)
class Rerunner:
    """Makes rows again in a folder of its own, where their target and retain rows are made once."""

    output: Path
    device: str
    include: tuple[Path, ...]

    def __call__(self, filed: Filed, model: Path | None) -> list[Number]:
        """The result's numbers as stated and as found. Raises UsageError or GrunBenchError where it cannot be made."""
        result = filed.result
        trained = model is None and result.cost.trainable_parameters
        return differences(result, self.again(result, model), RETRAINED if trained else RESCORED)

    def again(self, result: Result, model: Path | None) -> Result:
        """The row made again: `model` is the folder of its saved model, None to train it."""
        try:
            config = self._config(result, model)
            session = Session.of(config)
            method = Method(result.unlearner.name, Kept(model, result, session.placement)) if model else None
            with session.in_force():
                inputs = resolve(config, session, method)
                _check(inputs, result)
                outcome = execute(inputs)
        except GrunBenchError:
            raise
        except Exception as error:  # settings are a stranger's, and a plugin's code is too
            raise GrunBenchError(f"cannot be made again ({type(error).__name__}: {error})") from error
        _check_reworded(outcome)
        made = outcome.result
        for attack in made.attacks.keys() - result.attacks.keys():
            remove_attack(made, attack)
        return made

    def _config(self, result: Result, model: Path | None) -> RunConfig:
        attacks = result.attacks
        settings = {f"{attack}.{key}": value for attack in attacks for key, value in attacks[attack].settings.items()}
        if result.reference.get("retain_log"):
            raise UsageError(f"{result.run_id} was compared with a published retain log: it can only be recomputed.")
        named = dict(zip(("target_model", "retain_model"), named_models(result)[1:], strict=True))
        models = {key: None if was_folder(name) else name for key, name in named.items()} | folders_of(result)
        if FOLDER in models.values():
            raise ModelError(f"{lost(result)} To make it again {mirror(result)}")
        dtype, code = result.hardware.get("dtype"), result.hardware.get("quantised")
        return config_of(
            result,
            overrides=({} if model else result.unlearner.settings) | settings,
            **models,
            output=self.output,
            device=self.device,
            dtype=dtype if dtype in DTYPES else "auto",
            quantise=code if code in CODES else "",
            attacks=",".join(dict.fromkeys((*attacks, REWORDED))),
            attack_sets=",".join(name for name, info in attacks.items() if not info.rows),
            include=self.include,
        )


def _check_reworded(outcome: Outcome) -> None:
    """Raises GrunBenchError where a method answers questions in other words as the retain model does."""
    if registry.role_of(outcome.result.unlearner.name) or not outcome.target or not outcome.retain:
        return
    for variant in outcome.result.attacks[REWORDED].variants:
        cells = (outcome.cell, outcome.target, outcome.retain)
        own, target, retain = (cell.attacked(REWORDED, variant) for cell in cells)
        apart, whole = distance(own, retain), distance(target, retain)
        if apart <= ALIKE * whole < math.inf:
            raise GrunBenchError(
                f"asked in other words it answers as the retain model does: {apart:.2g} nats a token from it where the "
                f"target model is {whole:.2g}."
            )


def _check(inputs: Inputs, result: Result) -> None:
    """Raises GrunBenchError where the data or the models are not those of the row."""
    found = inputs.data.sha256
    if found != result.dataset_hash:
        raise GrunBenchError(f"the data here ({found[:12]}) are not those of the row ({result.dataset_hash[:12]}).")
    models = dict(inputs.models.identity) | {"retain_log": None}
    if not _same(models, result.reference):
        raise GrunBenchError(f"the models here ({models}) are not those of the row ({result.reference}).")


def _same(found: dict[str, Any], stated: dict[str, Any]) -> bool:
    """Whether the models are those that were stated; older rows say neither the Hub's commit nor what lies beside."""
    names, known = found.get("names", []), stated.get("names", [])
    same = [one in (name, re.split("[@+]", name)[0]) for name, one in zip(names, known, strict=False)]
    return len(names) == len(known) and all(same) and found | {"names": 0} == stated | {"names": 0}


def differences(stated: Result, found: Result, share: float) -> list[Number]:
    """The numbers of a row and of the same row made again, with what each may differ by.

    A mean over n rows: `share` + 1/n of its metric's range, for one row may fall to either side; a metric without a
    bound: `share` of the larger value. A KS distance: `DISTANCE` and at least that; recovery: `RECOVERY`. The p-value
    of a KS test follows from D and n and spans many decades, so it is stated and not judged.
    """
    task = stated.task
    one, other, rows = stated.results[task], found.results[task], stated.n_samples[task]
    bounds = bounds_by_name()

    def allowed(key: str, value: float, new: float) -> float | None:
        named = MetricKey.parse(key)
        metric = named.metric
        if f"{metric}_D" in rows:
            return None
        if metric.endswith("_D"):
            return max(DISTANCE, share)
        if named.is_recovery:
            return RECOVERY
        low, high = bounds_of(metric, bounds)
        if high - low == math.inf:
            return share * max(abs(value), abs(new))
        return (share + 1 / max(rows.get(metric, 1), 1)) * (high - low)

    numbers = {key: compare(key, one, other, allowed, "results.") for key in dict.fromkeys([*one, *other])}
    # whether there is enough to recover hangs on a threshold
    return [
        replace(each, allowed=None)
        if MetricKey.parse(key).is_recovery and (each.stated is None or each.found is None)
        else each
        for key, each in numbers.items()
    ]
