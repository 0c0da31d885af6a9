"""A result's numbers made again from records, its own and those of its target and retain rows. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from grun_bench.core import registry
from grun_bench.core.errors import GrunBenchError
from grun_bench.core.plugins import Control
from grun_bench.leaderboard.compare import Number, compare, compared
from grun_bench.metrics.evaluate import Value, evaluate, for_protocol, giving
from grun_bench.metrics.gate_audit import auditable, gate_audit
from grun_bench.metrics.recovery import average, recoveries, worst
from grun_bench.metrics.stages import STAGES, Stages, requests_of
from grun_bench.metrics.strengths import STRENGTHS, Strengths
from grun_bench.results.filed import Filed, controls
from grun_bench.results.metric_key import CLEAN, MEAN, MetricKey
from grun_bench.results.record import Records
from grun_bench.results.result import Point, Result

#: what a number may differ by that is filed with six decimals
AS_ROUNDED = 2e-6
#: records by filter, as `Filed.records` gives them
ByFilter = Mapping[str, Records]


def recompute(filed: Filed, among: Iterable[Filed], *, intervals: bool = True) -> list[Number]:
    """Every number of a result against what its records give.

    Its target and retain rows are looked for among the others. Where several may be the ones, those under which the
    fewest numbers differ are taken. Without `intervals`, which take most of the time, the bootstrap intervals are not
    compared. Raises UsageError for records that are none, GrunBenchError for records that the metrics cannot take.
    """
    own, among = filed.records(), list(among)
    compared = _compared_with(filed.result, own, among)
    attempts = (_recompute(filed.result, own, retain, target, intervals) for retain, target in compared)
    best = next(attempts)
    while _wrong(best) and (found := next(attempts, None)) is not None:
        best = min(best, found, key=_wrong)
    return best


def _wrong(numbers: Iterable[Number]) -> int:
    return sum(not number.ok for number in numbers)


def _compared_with(result: Result, own: ByFilter, among: list[Filed]) -> Iterator[tuple[ByFilter, Records | None]]:
    """The retain model's records and the target's without attack: each pair that the result may have been made with."""
    role = registry.role_of(result.unlearner.name)
    retains = [own] if role == "retain model" else _candidates(result, "retain model", among, own)
    for retain in retains:
        if role == "target":
            yield retain, own.get(CLEAN)
        elif not result.attacks:  # only recovery asks what the target knows
            yield retain, None
        else:
            for target in _candidates(result, "target", among, [CLEAN]):
                yield retain, target.get(CLEAN)


def _candidates(result: Result, role: Control, among: list[Filed], filters: Iterable[str]) -> Iterator[ByFilter]:
    """The records of the target or retain rows that the result may have been made with; nothing where there is none.

    Rows with the same records are one: a submission brings its own copy of rows that are there already.
    """
    seen = []
    for other in controls(result, role, among):
        files = (other.result.records, other.result.attacks)
        if files not in seen and not other.problem():
            seen.append(files)
            yield other.records(list(filters))
    if not seen:
        yield {}


def _recompute(
    result: Result, own: ByFilter, retain: ByFilter, target: Records | None, intervals: bool
) -> list[Number]:
    try:
        values = recomputed(result, own, retain, target, intervals)
        return [*compared(result, values, curve_points(result, own, retain), intervals), *_gates(result, own)]
    except GrunBenchError:
        raise
    except Exception as error:  # records are a stranger's, and so may be what no metric was written for
        raise GrunBenchError(f"the metrics cannot take its records ({type(error).__name__}: {error})") from error


def recomputed(
    result: Result, own: ByFilter, retain: ByFilter, target: Records | None, intervals: bool = True
) -> dict[str, dict[str, Value]]:
    """All values that the records give, by filter and metric.

    `own` are the result's records and `retain` the retain model's; of a retain row they are the same. `target` are the
    target model's without attack. What a metric misses is null.
    """
    sets, clean = result.sets, own.get(CLEAN, Records([]))
    metrics = dict.fromkeys([*_listed(result), *giving(result.metrics(), sets)])
    labelled = {CLEAN: evaluate(clean, retain.get(CLEAN), list(metrics), sets, intervals=intervals)}
    stated = _by_filter(result)
    for name, info in result.attacks.items():
        labels = [MetricKey("", name, variant).filter for variant in info.variants]
        keys = [key for label in (name, *labels) for key in stated.get(label, ())]
        metrics = dict.fromkeys(giving(keys, sets))
        values = {}
        for label in labels:
            found = evaluate(own[label], retain.get(label), list(metrics), sets, intervals=intervals)
            values[label] = found | recoveries(found, own[label], clean, target, result.protocol, sets)
        labelled |= values
        labelled[name] = worst(values) if values else evaluate(Records([]), None, list(metrics), sets)
        mean = MetricKey("", name, MEAN).filter
        if mean in stated and values:
            labelled[mean] = average(values)
    return labelled


def _gates(result: Result, own: ByFilter) -> Iterator[Number]:
    """All that the records say of gates, against what is filed; nothing of a result that is older than the audit."""
    if not result.gates:
        return
    asked = {label: own[label] for label in auditable(result) if label in own}
    found = gate_audit(own.get(CLEAN, Records([])), asked, result.sets)
    stated, numbers = dict(_flat("", result.gates)), dict(_flat("", found))
    for key in dict.fromkeys([*stated, *numbers]):
        yield compare(key, stated, numbers, lambda *_: AS_ROUNDED, "gates")


def _flat(place: str, value: Any) -> Iterator[tuple[str, float | None]]:
    """Every number in plain data and models of it, by its place."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, dict | list | tuple):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(f"{place}.{key}", each)
    else:
        yield place, value


def _by_filter(result: Result) -> dict[str, list[str]]:
    """The metrics that a result has values of, by filter."""
    found: dict[str, list[str]] = {}
    for key in result.metric_keys():
        found.setdefault(key.filter, []).append(key.metric)
    return found


def curve_points(result: Result, own: ByFilter, retain: ByFilter) -> dict[tuple[str, int], Point]:
    """The points over the stages of sequential unlearning, or over strengths, that have records, from these."""
    measured: dict[str, Stages | Strengths] = {
        STAGES: Stages(requests_of(result), _listed(result), result.headline, result.sets, retain.get(CLEAN)),
        STRENGTHS: Strengths(_listed(result), result.headline, result.sets, retain.get(CLEAN)),
    }
    return {
        (name, place): measured[name].point(point.at, own[label], point.records)
        for name, curve in result.curves.items()
        if name in measured
        for place, point in enumerate(curve.points)
        if (label := f"{name}@{point.at}") in own
    }


def _listed(result: Result) -> list[str]:
    """The metrics that the result's task names, under its protocol; an imported log has others."""
    listed = result.configs.get(result.task, {}).get("metrics", []) if not result.imported else []
    names = for_protocol([name for name in listed if isinstance(name, str)], result.protocol)
    return [name for name in names if name in registry.entries("metric")]
