"""Results as a table of pandas: one line a run, metric and attack. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from grun_bench.core.errors import UsageError
from grun_bench.core.given import PATH
from grun_bench.results.metric_key import MetricKey
from grun_bench.results.result import Result, key_text
from grun_bench.results.store import read_result, result_files
from grun_bench.tasks.sets import ScoredSet

#: column -> its type in the table
COLUMNS = {
    "run_id": "str",
    "task": "str",
    "model": "str",
    "unlearner": "str",
    "settings": "object",
    "tuned": "str",
    "seed": "Int64",
    "protocol": "str",
    "limit": "Int64",
    "dataset": "str",
    "dataset_hash": "str",
    "status": "str",
    "metric": "str",
    "set": "str",
    "attack": "str",
    "variant": "str",
    "access": "str",
    "value": "float64",
    "low": "float64",
    "high": "float64",
    "n": "Int64",
    "higher_is_better": "boolean",
    "version": "str",
    "reason": "str",
}


def load_results(folder: str | Path) -> pd.DataFrame:
    """All results of a folder, as `run` files them, in one table; bundles inside of it are folders of their own.

    A line is one value of one run, its columns `COLUMNS`:

    - `run_id`, `task`, `model`, `unlearner`, `settings` (a dict), `tuned` (how those were found, as in `tuned: 20
      trials, validation of tofu_forget10`; "" for others), `seed`, `protocol`, `limit` (rows a set; none is a benchmark
      result with one), `dataset` (`published` or `embedded`), `dataset_hash`, `status` (`ok` or `diverged`): the run.
      Only values of equal task, protocol, limit and data compare, and a mean is over rows of one unlearner with equal
      settings and `tuned`.
    - `metric`, and the scored `set` whose name it begins with ("" for metrics over several): what was measured, in
      which `version` of its definition, whether `higher_is_better` (missing where neither is), over `n` rows.
    - `attack` ("" without) and its `variant` ("" for the worst of all, `mean` for their mean), and the `access` that
      the attacker needs (`user` or `weights`): where it was measured.
    - `value`, and `low` and `high` of its 95 % bootstrap interval; NaN where there is none, and `reason` says why.

    Raises UsageError when there is no such folder, or a file in it is no result.
    """
    PATH.check("folder", folder)
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder of results.")
    return table_of(map(read_result, result_files(folder)))


def to_frame(result: Result) -> pd.DataFrame:
    """One result as a table, as `load_results` has it."""
    return table_of([result])


def table_of(results: Iterable[Result]) -> pd.DataFrame:
    """Results as a table, as `load_results` has it."""
    lines = (line for result in results for line in _lines(result))
    return pd.DataFrame.from_records(list(lines), columns=list(COLUMNS)).astype(COLUMNS)


def _lines(result: Result) -> Iterator[tuple[Any, ...]]:
    unlearner = result.unlearner
    made = (result.run_id, result.task, result.model, unlearner.name, unlearner.settings, unlearner.tuned_label)
    under = (result.seed, result.protocol, result.limit, result.dataset, result.dataset_hash, result.status)
    sets, rows, values = result.sets, result.n_samples[result.task], result.results[result.task]
    for key in result.metric_keys():
        text, of_set = key_text(*key), sets.beginning(key.recovered.metric)
        low, high = result.intervals.get(text, (None, None))
        yield (
            *made,
            *under,
            key.metric,
            of_set.name if of_set else "",
            key.attack,
            key.variant,
            result.attacks[key.attack].access if key.attack in result.attacks else "",
            values[text],
            low,
            high,
            _asked(result, key, of_set, rows.get(key.metric)),
            result.better(key.metric),
            str(result.versions.get(key.metric, 1)),
            result.reasons.get(text, ""),
        )


def _asked(result: Result, key: MetricKey, of_set: ScoredSet | None, rows: int | None) -> int | None:
    """The rows behind a value: fewer where an attack did not ask the set whole, not known where it is over several."""
    partial = result.attacks[key.attack].rows if key.attack in result.attacks else {}
    if not partial or (of_set and of_set.name not in partial):
        return rows
    return partial[of_set.name] if of_set else None
