"""Records -> metric values. No torch.

Every value carries its n, a bootstrap interval where it is a mean over rows, its direction and its version; a value
that cannot be had is null with the reason, never left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from grun_bench.core import registry
from grun_bench.core.errors import GrunBenchError, MissingReference
from grun_bench.core.plugins import Better, MetricPlugin
from grun_bench.metrics._common import NEEDS_RETAIN
from grun_bench.metrics.fluency import EVERYWHERE
from grun_bench.metrics.interval import interval
from grun_bench.metrics.scored import ScoredRecords, SetRecords
from grun_bench.results.metric_key import MetricKey
from grun_bench.results.protocol_names import clean_name, own_name
from grun_bench.results.record import Record, Records
from grun_bench.tasks.roles import KNOWING_IS_GOOD, ROLES, Role, known_roles
from grun_bench.tasks.sets import ScoredSets

#: what a metric function returns under one key
Result = float | np.ndarray | MissingReference


@dataclass(frozen=True)
class Value:
    """One metric value: a number or the reason why there is none, and what is needed to read it.

    `n` are the rows that it is made from; where there is a number, `reason` says which rows had to be left out, if any.
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
    records: Records, reference: Records | None, names: Sequence[str], sets: ScoredSets, *, intervals: bool = True
) -> dict[str, Value]:
    """The values of the named metrics on one model's records, by key.

    A metric with `roles` is reported as `<set>_<name>`, any other as `<name>`; a metric that returns several values,
    under their keys. `reference` holds the retain model's records, or None. `sets` says what the sets of the records
    are to unlearning. Without `intervals`, which take most of the time, only the values are computed.

    Raises UsageError for an unknown metric, GrunBenchError for one that breaks its contract.
    """
    values: dict[str, Value] = {}
    for name in dict.fromkeys(names):
        # a set that names its metrics has those of every result beside them
        plugin, taking = (
            registry.get("metric", name),
            sets if name in EVERYWHERE else sets.taking(name, clean_name(name)),
        )
        model = ScoredRecords(records, taking)
        retain = None if reference is None else ScoredRecords(reference, taking)
        found = (
            _of_each(plugin, model, intervals) if plugin.roles is not None else _over(plugin, model, retain, intervals)
        )
        for key, value in found:
            if key in values:
                raise GrunBenchError(f"metric '{name}' returns '{key}', which another metric returns too.")
            values[key] = value
    return values


def keys_of(plugin: MetricPlugin, sets: ScoredSets) -> list[str]:
    """The keys that a metric is sure to give on these sets; one that returns several may give more."""
    if plugin.roles is not None:
        return [f"{name}_{plugin.name}" for name in _sets_of(plugin, sets) or plugin.roles]
    directions = plugin.higher_is_better
    return list(directions) if isinstance(directions, Mapping) else [plugin.name]


def _sets_of(plugin: MetricPlugin, sets: ScoredSets) -> dict[str, Role]:
    """The sets that a metric with `roles` is applied to, with their role."""
    return {name: role for role in _roles(plugin) for name in sets.of(role, kind=plugin.kind)}


def _roles(plugin: MetricPlugin) -> tuple[Role, ...]:
    """The roles that a metric asks for. Raises GrunBenchError for one that is none."""
    names = plugin.over if plugin.roles is None else plugin.roles
    if odd := sorted(set(names) - set(ROLES)):
        raise GrunBenchError(f"metric '{plugin.name}' names the role {', '.join(odd)}; roles are {', '.join(ROLES)}.")
    return known_roles(names)


def giving(keys: Iterable[str], sets: ScoredSets) -> list[str]:
    """The known metrics that give any of these keys on these sets. Metrics are imported."""
    wanted, known = set(keys), registry.names("metric")
    return [name for name in known if wanted.intersection(keys_of(registry.get("metric", name), sets))]


class OfSet(NamedTuple):
    """What a metric returned of one set, under one key; `note` says which of the set's rows were left out of `rows`."""

    key: str
    rows: SetRecords
    result: Result
    note: str | None


def results_of_each(plugin: MetricPlugin, records: Records, sets: ScoredSets) -> Iterator[OfSet]:
    """What a metric with `roles` gives of each set with one of them; of the roles themselves where no set has any."""
    there = _sets_of(plugin, sets)
    for name, role in (there or {role: role for role in _roles(plugin)}).items():
        kept, note = _measured(plugin, records.of(name) if there else (), sets)
        rows = SetRecords(name, role, kept)
        try:
            if not rows:
                raise MissingReference(_no_rows([name]) if there else _no_set([role], sets))
            results = _by_key(plugin, plugin.target(rows))
        except MissingReference as error:
            results = {plugin.name: error}
        for key, result in results.items():
            _check_length(plugin, key, result, rows)
            yield OfSet(f"{name}_{key}", rows, result, note)


def _of_each(plugin: MetricPlugin, model: ScoredRecords, intervals: bool) -> Iterator[tuple[str, Value]]:
    """A metric's values on each set with one of its roles."""
    for key, rows, result, note in results_of_each(plugin, model.records, model.sets):
        own = key.removeprefix(f"{rows.name}_")
        yield key, _value(plugin, own, result, rows, rows.role, intervals, note)


def _over(
    plugin: MetricPlugin, model: ScoredRecords, retain: ScoredRecords | None, intervals: bool
) -> Iterator[tuple[str, Value]]:
    """A metric's values on all records."""
    rows, note = _measured(plugin, _rows(plugin, model), model.sets)
    if plugin.leaves_out:
        model = replace(model, records=Records(rows))
        retain = retain and replace(retain, records=Records(_measured(plugin, _rows(plugin, retain), retain.sets)[0]))
    try:
        _need(plugin, model, retain)
        results = _by_key(plugin, plugin.target(model, retain))
    except MissingReference as error:
        results = dict.fromkeys(keys_of(plugin, model.sets), error)
    for key, result in results.items():
        _check_length(plugin, key, result, rows)
        yield key, _value(plugin, key, result, rows, None, intervals, note)


def _rows(plugin: MetricPlugin, model: ScoredRecords) -> list[Record]:
    """The records that a metric over all of them declares."""
    return [row for role in _roles(plugin) for row in model.of(role)] if plugin.over else list(model)


def _measured(plugin: MetricPlugin, rows: Sequence[Record], sets: ScoredSets) -> tuple[Sequence[Record], str | None]:
    """The rows that a metric is given, all where it leaves all of them out; and what is said of the others, if any."""
    if plugin.leaves_out is None:
        return rows, None
    whys = [plugin.leaves_out(row, role) if (role := sets.role(row.set)) else None for row in rows]
    left = [(row, why) for row, why in zip(rows, whys, strict=True) if why is not None]
    if not left or len(left) == len(rows):
        return rows, None
    first, why = left[0]
    note = f"{len(left)} of {len(rows)} rows left out, first row {first.index} of '{first.set}': {why}."
    return [row for row, why in zip(rows, whys, strict=True) if why is None], note


def _need(plugin: MetricPlugin, model: ScoredRecords, retain: ScoredRecords | None) -> None:
    """Raises MissingReference where a metric over all records lacks what it declares."""
    roles = _roles(plugin)
    if without := [role for role in roles if not model.sets.of(role)]:
        raise MissingReference(_no_set(without, model.sets))
    if empty := [rows.name for role in roles for rows in model.each(role) if not rows]:
        raise MissingReference(_no_rows(empty))
    if plugin.reference and retain is None:
        raise MissingReference(NEEDS_RETAIN)


def _no_set(roles: Sequence[Role], sets: ScoredSets) -> str:
    brings = "; ".join(sets.absent[role] for role in roles if role in sets.absent)
    return f"no set with the role {' or '.join(repr(role) for role in roles)} is scored{brings and f': {brings}'}."


def _no_rows(names: Sequence[str]) -> str:
    return f"no rows of the set {' or '.join(repr(name) for name in names)}."


def _by_key(plugin: MetricPlugin, returned: Result | dict[str, Result]) -> dict[str, Result]:
    return returned if isinstance(returned, dict) else {plugin.name: returned}


def _check_length(plugin: MetricPlugin, key: str, result: Result, rows: Sequence[Record]) -> None:
    """Raises GrunBenchError for an array of another length than the rows."""
    if not isinstance(result, MissingReference) and np.ndim(result) and len(np.asarray(result)) != len(rows):
        found = len(np.asarray(result))
        raise GrunBenchError(f"metric '{plugin.name}' returned {found} values of '{key}' for {len(rows)} rows.")


def _direction(plugin: MetricPlugin, key: str, role: Role | None) -> bool | None:
    """Whether a higher value is better, on a set with this role."""
    told = plugin.higher_is_better
    better: Better = told.get(key) if isinstance(told, Mapping) else told
    if not isinstance(better, str):
        return better
    good = KNOWING_IS_GOOD[role] if role else None
    return good if good is None or better == "kept" else not good


def _value(
    plugin: MetricPlugin,
    key: str,
    result: Result,
    rows: Sequence[Record],
    role: Role | None,
    intervals: bool,
    note: str | None,
) -> Value:
    value = Value(
        None,
        n=len(rows),
        higher_is_better=_direction(plugin, key, role),
        version=plugin.version,
    )
    if isinstance(result, MissingReference):
        return replace(value, reason=str(result) if note is None else f"{result} {note}")
    array = np.asarray(result, dtype=float)
    if not np.isfinite(array).all():
        return replace(value, reason=_not_finite(array, rows))
    value = replace(value, reason=note)
    if not array.ndim:
        return replace(value, value=float(array))
    low, high = interval(array) if intervals else (None, None)
    return replace(value, value=float(array.mean()), low=low, high=high)


def _not_finite(array: np.ndarray, rows: Sequence[Record]) -> str:
    if not array.ndim:
        return f"the result is not finite ({float(array)})."
    bad = np.flatnonzero(~np.isfinite(array))
    return f"not finite in {len(bad)} of {len(array)} rows, first in row {rows[bad[0]].index} of '{rows[bad[0]].set}'."


def for_protocol(names: Sequence[str], protocol: str) -> list[str]:
    """The metrics as a protocol defines them, where it has definitions of its own (`results.protocol_names`)."""
    known = registry.entries("metric")
    return [own_name(name, protocol, known) for name in names]


def headline_keys(headline: Sequence[str], values: Mapping[str, Value], protocol: str) -> list[str]:
    """The keys of a task's headline under a protocol, as `for_protocol` does for metrics."""
    return [own_name(key, protocol, values) for key in headline]


def result_fields(
    task: str, version: int, values: Mapping[str, Value], attack: str = "", variant: str = ""
) -> dict[str, Any]:
    """The parts of a result file that say what was measured, from metric values: without attack, or under one."""
    keyed = {str(MetricKey(key, attack, variant)): value for key, value in values.items()}
    return {
        "results": {task: {key: value.value for key, value in keyed.items()}},
        "reasons": {key: value.reason for key, value in keyed.items() if value.reason is not None},
        "intervals": {
            key: (value.low, value.high)
            for key, value in keyed.items()
            if value.low is not None and value.high is not None
        },
        "n-samples": {task: {key: value.n for key, value in values.items()}},
        "higher_is_better": {task: {key: value.higher_is_better for key, value in values.items()}},
        "versions": {task: version} | {key: value.version for key, value in values.items()},
    }
