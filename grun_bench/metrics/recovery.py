"""Values under attack: of each variant, the worst, the mean, and how much of what was forgotten came back. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

from grun_bench.metrics.evaluate import Value, evaluate, for_protocol, result_fields
from grun_bench.results.metric_key import SUMMARIES, MetricKey, parse_filter
from grun_bench.results.record import Records
from grun_bench.results.result import AttackInfo, Curve, Point, Result
from grun_bench.tasks.sets import ScoredSets

#: metrics of forget sets whose recovery is reported; of lm-eval's forget measures it is the accuracy
RECOVERED = ("extraction_strength", "rougeL_recall", "leak", "rougeL_recall_unicode", "leak_unicode")
#: the least by which the target's value must be above the row's for recovery to be a number
LEAST_FORGOTTEN = 0.05


def recoveries(
    values: Mapping[str, Value],
    attacked: Records,
    clean: Records,
    target: Records | None,
    protocol: str,
    sets: ScoredSets,
) -> dict[str, Value]:
    """(after - before) / (target - before) for each of `RECOVERED` and forget measure that has a value under attack.

    `before` is the row without attack and `target` the target model without attack, both on the rows that the attack
    asked; `after` is the row under attack. 0: nothing came back; 1: all that the target knows. Of accuracies it is the
    same above chance, which cancels. None where there is little to recover (`LEAST_FORGOTTEN`).
    """
    names = for_protocol(RECOVERED, protocol)
    keys = {f"{forgotten}_{name}": name for forgotten in sets.of("forget") for name in names}
    keys |= {f"{measure}_accuracy": "accuracy" for measure in sets.of("forget", kind="questions")}
    keys = {key: name for key, name in keys.items() if key in values}
    needed, asked = list(dict.fromkeys(keys.values())), {(row.set, row.index) for row in attacked}

    def before_of(records: Records) -> dict[str, Value]:
        rows = Records(row for row in records if (row.set, row.index) in asked)
        return evaluate(rows, None, needed, sets)

    before, known = before_of(clean), before_of(target) if target is not None else {}
    return {MetricKey(key).recovery.metric: _recovery(values[key], before[key], known.get(key)) for key in keys}


def _recovery(after: Value, before: Value, target: Value | None) -> Value:
    found = Value(None, n=after.n, higher_is_better=False, version=after.version)
    if target is None:
        return replace(found, reason="the target model's records are not there.")
    if after.value is None or before.value is None or target.value is None:
        return replace(found, reason=after.reason or before.reason or target.reason)
    forgotten = target.value - before.value
    if forgotten < LEAST_FORGOTTEN:
        reason = (
            f"the target model's value is {target.value:.3f}, this row's {before.value:.3f} without attack: less than "
            f"{LEAST_FORGOTTEN} was forgotten, so there is nothing to recover."
        )
        return replace(found, reason=reason)
    return replace(found, value=(after.value - before.value) / forgotten)


def worst(variants: Mapping[str, Mapping[str, Value]]) -> dict[str, Value]:
    """Of each metric the value that forgot least, or kept least of what was to be kept: the worse end of its direction.

    Variants without the number are passed over, and the reason says so; a metric without a direction has no worst value
    among several.
    """
    return {key: _worst(values) for key, values in _by_metric(variants).items()}


def _worst(values: Sequence[Value]) -> Value:
    there = {place: value.value for place, value in enumerate(values) if value.value is not None}
    if not there or len(values) == 1:
        return values[0]
    if values[0].higher_is_better is None:
        reason = "the metric has no direction, so no variant is the worst; see each."
        return replace(values[0], value=None, low=None, high=None, reason=reason)
    pick = min if values[0].higher_is_better else max
    return _saying(values[pick(there, key=there.__getitem__)], values)


def average(variants: Mapping[str, Mapping[str, Value]]) -> dict[str, Value]:
    """Of each metric the mean over the variants that have a value; the reason says how many have none."""
    return {key: _average(values) for key, values in _by_metric(variants).items()}


def _average(values: Sequence[Value]) -> Value:
    there = [value.value for value in values if value.value is not None]
    first = next((value for value in values if value.value is not None), values[0])
    return _saying(replace(first, value=mean(there), low=None, high=None), values) if there else first


def _saying(of: Value, values: Sequence[Value]) -> Value:
    """A value of several variants, with how many have none and the first one's reason.

    One that asked no row of the metric's sets, as a variant of retain rows alone, is none of those that should have it.
    """
    asked = [value for value in values if value.n]
    without = [value for value in asked if value.value is None]
    if not without:
        return of
    note = f"{len(without)} of {len(asked)} variants without a number: {without[0].reason}"
    return replace(of, reason=note if of.reason is None else f"{of.reason} {note}")


def _by_metric(variants: Mapping[str, Mapping[str, Value]]) -> dict[str, list[Value]]:
    keys = dict.fromkeys(key for values in variants.values() for key in values)
    return {key: [values[key] for values in variants.values() if key in values] for key in keys}


def add_attack(result: Result, name: str, info: AttackInfo, values: Mapping[str, Mapping[str, Value]]) -> None:
    """Put an attack into a result, in place of an earlier one of this name; what is not of this attack stays.

    `values` are metric values by variant: `MEAN` for the mean over all, "" for the worst of each metric. Intervals are
    kept of those two: there are dozens of variants, whose intervals their records give, and with them a file doubles.
    """
    remove_attack(result, name)
    result.attacks[name] = info
    task = result.task
    version = int(result.versions[task])
    for variant, each in values.items():
        fields = result_fields(task, version, each, name, variant)
        result.results[task] |= fields["results"][task]
        result.reasons |= fields["reasons"]
        if variant in SUMMARIES:
            result.intervals |= fields["intervals"]
        _add(fields["n-samples"][task], result.n_samples[task])
        _add(fields["higher_is_better"][task], result.higher_is_better[task])
        _add(fields["versions"], result.versions)
    for variant, records in info.variants.items():
        kind, at, step = variant.rpartition("@")
        if at and step.isdigit():
            point = Point(at=int(step), values=_shown(result, values[variant]), records=records)
            result.curves.setdefault(f"{name}:{kind}", Curve(unit="steps", points=[])).points.append(point)


def carry_attacks(earlier: Result, result: Result) -> None:
    """Keep the attacks on an earlier making of a row when the new one answered the same, to the bit."""
    if not earlier.same_model(result):
        return
    for name in ("attacks", "curves", "reasons", "intervals", "versions"):
        _add(getattr(earlier, name), getattr(result, name))
    for name in ("results", "n_samples", "higher_is_better"):
        _add(getattr(earlier, name)[result.task], getattr(result, name)[result.task])


def _add(new: dict[str, Any], to: dict[str, Any]) -> None:
    """What is not there yet; nothing that is there changes."""
    to.update({key: new[key] for key in new if key not in to})


def _shown(result: Result, values: Mapping[str, Value]) -> dict[str, float | None]:
    """What a curve shows: headline metrics, what recovery is computed on, and recovery."""
    recoveries = [key for key in map(MetricKey, values) if key.is_recovery]
    recovered = [key.recovered.metric for key in recoveries]
    keys = dict.fromkeys([*result.headline, *recovered, *(key.metric for key in recoveries)])
    return {key: values[key].value for key in keys if key in values}


def remove_attack(result: Result, name: str) -> None:
    """Take an attack out of a result, if it is there."""

    def others(keys: Iterable[str]) -> list[str]:
        return [key for key in keys if MetricKey.parse(key).attack != name]

    task = result.task
    result.attacks.pop(name, None)
    result.results[task] = {key: result.results[task][key] for key in others(result.results[task])}
    result.reasons = {key: result.reasons[key] for key in others(result.reasons)}
    result.intervals = {key: result.intervals[key] for key in others(result.intervals)}
    # an attack's curves are named as the filters of its variants are
    result.curves = {key: curve for key, curve in result.curves.items() if parse_filter(key)[0] != name}
