"""Records -> metric values. No torch.

Every value carries its n, a bootstrap interval where it is a mean over rows, its direction and its version; a value
that cannot be had is null with the reason, never left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from grun_bench.core import registry
from grun_bench.core.errors import GrunBenchError, MissingReference
from grun_bench.metrics._common import MEASURES, NEEDS_RETAIN
from grun_bench.results.record import Record, Records

CONFIDENCE, RESAMPLES, SEED = 0.95, 2000, 0

#: what a metric function returns under one key
Result = float | np.ndarray | MissingReference


@dataclass(frozen=True)
class Value:
    """One metric value: a number or the reason why there is none, and what is needed to read it.

    `low` and `high` bound the 95 % bootstrap interval of a mean over `n` rows; None for numbers that are no such mean.
    """

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    higher_is_better: bool | None = None
    version: int = 1


def evaluate(
    records: Records,
    reference: Records | None,
    names: Sequence[str],
    measures: Mapping[str, bool] | None = None,
    *,
    intervals: bool = True,
) -> dict[str, Value]:
    """The values of the named metrics on one model's records.

    A metric over sets is reported as `<set>_<name>`, any other as `<name>`; a metric that returns several values, under
    their keys. `reference` holds the retain model's records, or None. `measures`, the task's lm-eval measures with
    their directions, are the sets of the metrics over `MEASURES`. Without `intervals`, which take most of the time,
    only the values are computed.

    Raises UsageError for an unknown metric, GrunBenchError for one that breaks its contract.
    """
    values: dict[str, Value] = {}
    for name in dict.fromkeys(names):
        plugin = registry.get("metric", name)
        if plugin.sets is not None:
            found = _sets(plugin, records, measures or {}, intervals)
        else:
            found = _whole(plugin, records, reference, intervals)
        for key, value in found:
            if key in values:
                raise GrunBenchError(f"metric '{name}' returns '{key}', which another metric returns too.")
            values[key] = value
    return values


def _sets(
    plugin: registry.MetricPlugin, records: Records, measures: Mapping[str, bool], intervals: bool
) -> Iterator[tuple[str, Value]]:
    over_measures = plugin.sets == MEASURES
    for name in measures if over_measures else plugin.sets or ():
        rows = records.of(name)
        for key, result in _call(plugin, {name: rows}, rows).items():
            direction = measures[name] if over_measures else _direction(plugin, name)
            yield f"{name}_{key}", _value(plugin, key, result, rows, direction, intervals)


def _whole(
    plugin: registry.MetricPlugin, records: Records, reference: Records | None, intervals: bool
) -> Iterator[tuple[str, Value]]:
    sides = {name: records.of(name) for name in plugin.over}
    rows = [row for side in sides.values() for row in side] if sides else list(records)
    for key, result in _call(plugin, sides, records, reference).items():
        yield key, _value(plugin, key, result, rows, _direction(plugin, key), intervals)


def _call(plugin: registry.MetricPlugin, sides: Mapping[str, Sequence[Record]], *arguments: Any) -> dict[str, Result]:
    """What the metric returns, by key; under every key that it declares the reason, where its input is missing."""
    try:
        empty = [name for name, rows in sides.items() if not rows]
        if empty:
            raise MissingReference(f"no rows of the set {' or '.join(repr(name) for name in empty)}.")
        if plugin.reference and arguments[-1] is None:
            raise MissingReference(NEEDS_RETAIN)
        result = plugin.target(*arguments)
        return result if isinstance(result, dict) else {plugin.name: result}
    except MissingReference as error:
        directions = plugin.higher_is_better
        several = plugin.sets is None and isinstance(directions, Mapping)
        return dict.fromkeys(directions if several else [plugin.name], error)


def _direction(plugin: registry.MetricPlugin, key: str) -> bool | None:
    direction = plugin.higher_is_better
    return direction.get(key) if isinstance(direction, Mapping) else direction


def _value(
    plugin: registry.MetricPlugin,
    key: str,
    result: Result,
    rows: Sequence[Record],
    direction: bool | None,
    intervals: bool,
) -> Value:
    told = {"n": len(rows), "higher_is_better": direction, "version": plugin.version}
    if isinstance(result, MissingReference):
        return Value(None, reason=str(result), **told)
    array = np.asarray(result, dtype=float)
    if array.ndim and len(array) != len(rows):
        raise GrunBenchError(f"metric '{plugin.name}' returned {len(array)} values of '{key}' for {len(rows)} rows.")
    if not np.isfinite(array).all():
        return Value(None, reason=_not_finite(array, rows), **told)
    if not array.ndim:
        return Value(float(array), **told)
    low, high = interval(array) if intervals else (None, None)
    return Value(float(array.mean()), low=low, high=high, **told)


def _not_finite(array: np.ndarray, rows: Sequence[Record]) -> str:
    if not array.ndim:
        return f"the result is not finite ({float(array)})."
    bad = np.flatnonzero(~np.isfinite(array))
    return f"not finite in {len(bad)} of {len(array)} rows, first in row {rows[bad[0]].index} of '{rows[bad[0]].set}'."


def interval(values: np.ndarray) -> tuple[float | None, float | None]:
    """95 % bootstrap interval of the mean (BCa, seeded); the value itself when all are equal, None for a single row."""
    if len(values) < 2:
        return None, None
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    for method in ("BCa", "percentile"):  # BCa has no answer when resampling hardly ever moves the mean
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = bootstrap(
                (values,),
                np.mean,
                n_resamples=RESAMPLES,
                batch=256,
                confidence_level=CONFIDENCE,
                method=method,
                vectorized=True,
                random_state=np.random.default_rng(SEED),
            ).confidence_interval
        if np.isfinite(found.low) and np.isfinite(found.high):
            return float(found.low), float(found.high)
    return None, None


def for_protocol(names: Sequence[str], protocol: str) -> list[str]:
    """The metrics as a protocol defines them: `<name>_<protocol>` where there is such a metric, else the clean one.

    Comparison with another tool's published tables needs that tool's definitions along with its way of scoring.
    """
    known, suffix = registry.entries("metric"), f"_{protocol.replace('-', '_')}"
    return [name + suffix if name + suffix in known else name for name in names]


def headline_keys(headline: Sequence[str], values: Mapping[str, Value], protocol: str) -> list[str]:
    """The keys of a task's headline under a protocol, as `for_protocol` does for metrics."""
    suffix = f"_{protocol.replace('-', '_')}"
    return [key + suffix if key + suffix in values else key for key in headline]


def result_fields(task: str, version: int, values: Mapping[str, Value], label: str = "none") -> dict[str, Any]:
    """The parts of a result file that say what was measured, from metric values; `label` is their keys' filter."""
    return {
        "results": {task: {f"{key},{label}": value.value for key, value in values.items()}},
        "reasons": {f"{key},{label}": value.reason for key, value in values.items() if value.reason is not None},
        "intervals": {
            f"{key},{label}": (value.low, value.high)
            for key, value in values.items()
            if value.low is not None and value.high is not None
        },
        "n-samples": {task: {key: value.n for key, value in values.items()}},
        "higher_is_better": {task: {key: value.higher_is_better for key, value in values.items()}},
        "versions": {task: version} | {key: value.version for key, value in values.items()},
    }
