"""A result's numbers made again from records and compared with what the file says, number by number. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from grun_bench.core import registry
from grun_bench.core.errors import GrunBenchError
from grun_bench.metrics.evaluate import Value, evaluate, for_protocol, keys_of
from grun_bench.metrics.recovery import average, recoveries, worst
from grun_bench.metrics.stages import STAGES, Stages
from grun_bench.results.record import Records
from grun_bench.results.result import Point, Result
from grun_bench.results.store import CLEAN, Row, controls
from grun_bench.tasks.sets import ScoredSets

#: largest relative difference of a number that is recomputed from the same records
TOLERANCE = 1e-9
#: in place of a number that is not in the file, or that no metric here gives
ABSENT, UNKNOWN = "not in the file", "no metric here gives it"

#: metric key -> value, by the filter of its keys: `none`, an attack, or `<attack>:<variant>`
Labelled = dict[str, dict[str, Value]]


@dataclass(frozen=True)
class Number:
    """One number of a result, as stated and as found; `place` is its place in the file.

    `allowed` is the largest difference; None where it is not judged. `reason` says why none was found.
    """

    place: str
    stated: float | str | None
    found: float | str | None
    allowed: float | None
    reason: str | None = None

    @property
    def difference(self) -> float | None:
        """|stated - found|; None unless both are numbers."""
        if isinstance(self.stated, str | None) or isinstance(self.found, str | None):
            return None
        return abs(self.stated - self.found)

    @property
    def ok(self) -> bool:
        if self.allowed is None:
            return True
        if self.difference is None:
            return self.stated is None and self.found is None
        return self.difference <= self.allowed


def recompute_row(row: Row, among: Iterable[Row], *, intervals: bool = True) -> list[Number]:
    """Every number of a row against what its records give, the relative difference at most `TOLERANCE`.

    Its target and retain rows are looked for among the rows. Where several may be the ones, those under which the
    fewest numbers differ are taken. Without `intervals`, which take most of the time, the bootstrap intervals are not
    compared. Raises UsageError for records that are none, GrunBenchError for records that the metrics cannot take.
    """
    own, among, name = row.records(), list(among), row.result.unlearner.name
    retains: Iterable[Mapping[str, Records]] = [own]
    if name != "retain":
        retains = _or_none(other.records(own) for other in controls(row.result, "retain", among))
    best: list[Number] | None = None
    for retain in retains:
        targets: Iterable[Mapping[str, Records]] = [own if name == "none" else {}]
        if name != "none" and row.result.attacks:
            targets = _or_none(other.records([CLEAN]) for other in controls(row.result, "none", among))
        for target in targets:
            found = _recompute(row.result, own, retain, target.get(CLEAN), intervals)
            if all(number.ok for number in found):
                return found
            if best is None or _wrong(found) < _wrong(best):
                best = found
    assert best is not None
    return best


def _or_none(found: Iterable[Mapping[str, Records]]) -> Iterator[Mapping[str, Records]]:
    """All of them; nothing at all where there is none."""
    there = False
    for each in found:
        there = True
        yield each
    if not there:
        yield {}


def _wrong(numbers: Iterable[Number]) -> int:
    return sum(not number.ok for number in numbers)


def _recompute(
    result: Result, own: Mapping[str, Records], retain: Mapping[str, Records], target: Records | None, intervals: bool
) -> list[Number]:
    try:
        return compared(
            result, recomputed(result, own, retain, target, intervals), stage_points(result, own, retain), intervals
        )
    except GrunBenchError:
        raise
    except Exception as error:  # records are a stranger's, and so may be what no metric was written for
        raise GrunBenchError(f"the metrics cannot take its records ({type(error).__name__}: {error})") from error


def compared(result: Result, values: Labelled, stages: Mapping[int, Point], intervals: bool = True) -> list[Number]:
    """Every number of a result against values by filter and the points of its curve over stages."""
    return [*_values(result, values), *_details(result, values, intervals), *_curves(result, values, stages)]


def relative(key: str, stated: float, found: float) -> float:
    """What a recomputed number may differ by."""
    return TOLERANCE * max(abs(stated), abs(found))


def recomputed(
    result: Result,
    own: Mapping[str, Records],
    retain: Mapping[str, Records],
    target: Records | None,
    intervals: bool = True,
) -> Labelled:
    """All values that the records give, by filter.

    `own` are the result's records and `retain` the retain model's, as `Row.records` gives them; of a retain row they
    are the same. `target` are the target model's without attack. What a metric misses is null.
    """
    sets, clean = result.sets, own.get(CLEAN, Records([]))
    metrics = dict.fromkeys([*_listed(result), *_metrics(_keys(result, CLEAN), sets)])
    labelled = {CLEAN: evaluate(clean, retain.get(CLEAN), list(metrics), sets, intervals=intervals)}
    for name, info in result.attacks.items():
        labels = {variant: f"{name}:{variant}" for variant in info.variants}
        keys = [key for label in (name, *labels.values()) for key in _keys(result, label)]
        metrics = dict.fromkeys(_metrics(keys, sets))
        values = {}
        for variant, label in labels.items():
            records = own[label]
            found = evaluate(records, retain.get(label), list(metrics), sets, intervals=intervals)
            values[variant] = found | recoveries(found, records, clean, target, result.protocol, sets)
            labelled[label] = values[variant]
        labelled[name] = worst(values) if values else evaluate(Records([]), None, list(metrics), sets)
        if _keys(result, f"{name}:mean") and values:
            labelled[f"{name}:mean"] = average(values)
    return labelled


def stage_points(result: Result, own: Mapping[str, Records], retain: Mapping[str, Records]) -> dict[int, Point]:
    """The points of the curve over the stages of sequential unlearning that have records, by place, from these."""
    curve, stages = result.curves.get(STAGES), result.configs.get(result.task, {}).get("stages", [])
    measured = Stages(stages, _listed(result), result.headline, result.sets, retain.get(CLEAN))
    return {
        place: measured.point(point.at, own[label], point.records)
        for place, point in enumerate(curve.points if curve else ())
        if (label := f"{STAGES}@{point.at}") in own
    }


def _listed(result: Result) -> list[str]:
    """The metrics that the result's task names, under its protocol; an imported log has others."""
    listed = result.configs.get(result.task, {}).get("metrics", []) if not result.imported else []
    names = for_protocol([name for name in listed if isinstance(name, str)], result.protocol)
    return [name for name in names if name in registry.entries("metric")]


def _keys(result: Result, label: str) -> list[str]:
    """The metric keys under a filter."""
    pairs = (key.rpartition(",") for key in result.results[result.task])
    return [key for key, _, found in pairs if found == label]


def _metrics(keys: Iterable[str], sets: ScoredSets) -> list[str]:
    """The metrics that give keys: no result names those of its attacks or of an imported log."""
    wanted, known = set(keys), registry.names("metric")
    return [name for name in known if wanted.intersection(keys_of(registry.get("metric", name), sets))]


def _values(result: Result, labelled: Labelled) -> list[Number]:
    stated = result.results[result.task]
    found = {f"{key},{label}": value for label, values in labelled.items() for key, value in values.items()}
    numbers = {key: value.value for key, value in found.items()}
    compared = {key: compare(key, stated, numbers, relative, "results.") for key in dict.fromkeys([*stated, *numbers])}
    return [replace(each, reason=found[key].reason if key in found else None) for key, each in compared.items()]


def compare(
    key: str,
    stated: Mapping[str, Any],
    found: Mapping[str, Any],
    allowed: Callable[[str, float, float], float | None],
    what: str = "",
) -> Number:
    """One number of two mappings."""
    one, other = stated.get(key, ABSENT), found.get(key, UNKNOWN)
    both = not isinstance(one, str | None) and not isinstance(other, str | None)
    return Number(f"{what}{key}", one, other, allowed(key, one, other) if both else 0.0)


def _details(result: Result, labelled: Labelled, intervals: bool) -> list[Number]:
    """Intervals, row counts, directions and versions of metrics."""
    numbers, task = [], result.task
    for label, values in labelled.items():
        for key, value in values.items() if intervals else ():
            stated, place = result.intervals.get(f"{key},{label}"), f"{key},{label}"
            has = value.low is not None and value.high is not None
            for end, number in enumerate((value.low, value.high) if has or stated else ()):
                given = {place: stated[end]} if stated else {}
                new = {place: number} if has else {}
                numbers.append(compare(place, given, new, relative, f"intervals[{end}]."))
    first: dict[str, Value] = {}
    for values in labelled.values():
        first = values | first  # what is told once for all filters is told of the first
    for what, stated, told in (
        ("n-samples.", result.n_samples.get(task, {}), {key: value.n for key, value in first.items()}),
        ("higher_is_better.", _directions(result.higher_is_better.get(task, {})), _directions_of(first)),
        ("versions.", result.versions, {key: value.version for key, value in first.items()}),
    ):
        numbers += [compare(key, stated, told, lambda *_: 0.0, what) for key in told]
    return numbers


def _directions(directions: Mapping[str, bool | None]) -> dict[str, float]:
    """1 where higher is better, -1 where lower is, 0 where neither is."""
    return {key: 0.0 if better is None else 1.0 if better else -1.0 for key, better in directions.items()}


def _directions_of(values: Mapping[str, Value]) -> dict[str, float]:
    return _directions({key: value.higher_is_better for key, value in values.items()})


def _curves(result: Result, labelled: Labelled, stages: Mapping[int, Point]) -> list[Number]:
    """The points that attacks left and those over stages; a sample measured during training left no records."""
    numbers = []
    for name, curve in result.curves.items():
        attack, _, kind = name.partition(":")
        for place, point in enumerate(curve.points):
            if attack in result.attacks:
                values = labelled.get(f"{attack}:{kind}@{point.at}", {})
                found = {key: value.value for key, value in values.items()}
                keys = list(point.values)
            elif name == STAGES and place in stages:
                found = stages[place].values
                keys = list(dict.fromkeys([*point.values, *found]))
            else:
                continue
            numbers += [compare(key, point.values, found, relative, f"curves.{name}.points.{place}.") for key in keys]
    return numbers
