"""A result's numbers made again from records and compared with what the file says, number by number. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from grun_bench import registry
from grun_bench.evaluate import Value, evaluate, for_protocol
from grun_bench.metrics._common import MEASURES
from grun_bench.records import Records
from grun_bench.recovery import average, recoveries, worst
from grun_bench.results import Result

#: largest relative difference of a number that is recomputed from the same records
TOLERANCE = 1e-9
#: in place of a number that is not in the file, or that no metric here gives
ABSENT, UNKNOWN = "not in the file", "no metric here gives it"

#: metric key -> value, by the filter of its keys: `none`, an attack, or `<attack>:<variant>`
Labelled = dict[str, dict[str, Value]]


@dataclass(frozen=True)
class Number:
    """One number of a result, as stated and as found.

    `allowed` is the largest difference; None where it is not judged.
    """

    place: str
    stated: float | str | None
    found: float | str | None
    allowed: float | None

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


def recompute(
    result: Result, own: Mapping[str, Records], retain: Mapping[str, Records], target: Records | None
) -> list[Number]:
    """Every number of a result against what its records give, the relative difference at most `TOLERANCE`.

    `own` are the result's records and `retain` the retain model's, by filter: `none`, or `<attack>:<variant>`; of a
    retain row they are the same. `target` are the target model's without attack. What a metric misses is null in both.
    Raises GrunBenchError where a metric breaks its contract.
    """
    return compared(result, recomputed(result, own, retain, target))


def compared(result: Result, values: Labelled) -> list[Number]:
    """Every number of a result against values by filter."""
    return [*_values(result, values, relative), *_details(result, values), *_curves(result, values)]


def relative(key: str, stated: float, found: float) -> float:
    """What a recomputed number may differ by."""
    return TOLERANCE * max(abs(stated), abs(found))


def recomputed(
    result: Result, own: Mapping[str, Records], retain: Mapping[str, Records], target: Records | None
) -> Labelled:
    """All values that the records give, by filter."""
    measures, clean = measure_directions(result), own.get("none", Records([]))
    listed = result.configs.get(result.task, {}).get("metrics", []) if not result.imported else []
    names = for_protocol([name for name in listed if isinstance(name, str)], result.protocol)
    names = [name for name in names if name in registry.entries("metric")]
    metrics = dict.fromkeys([*names, *_metrics(_keys(result, "none"), measures)])
    labelled = {"none": evaluate(clean, retain.get("none"), list(metrics), measures)}
    for name, info in result.attacks.items():
        labels = {variant: f"{name}:{variant}" for variant in info.variants}
        keys = [key for label in (name, *labels.values()) for key in _keys(result, label)]
        metrics = dict.fromkeys(_metrics(keys, measures))
        values = {}
        for variant, label in labels.items():
            records = own[label]
            found = evaluate(records, retain.get(label), list(metrics), measures)
            values[variant] = found | recoveries(found, records, clean, target, result.protocol, measures)
            labelled[label] = values[variant]
        labelled[name] = worst(values) if values else evaluate(Records([]), None, list(metrics), measures)
        if _keys(result, f"{name}:mean") and values:
            labelled[f"{name}:mean"] = average(values)
    return labelled


def measure_directions(result: Result) -> dict[str, bool]:
    """The task's lm-eval measures -> whether a higher accuracy is better, as the result's own task says."""
    measures = result.configs.get(result.task, {}).get("measures", {})
    if not isinstance(measures, dict):
        return {}
    return {name: isinstance(each, dict) and each.get("role") == "utility" for name, each in measures.items()}


def _keys(result: Result, label: str) -> list[str]:
    """The metric keys under a filter."""
    pairs = (key.rpartition(",") for key in result.results[result.task])
    return [key for key, _, found in pairs if found == label]


def _metrics(keys: Iterable[str], measures: Mapping[str, bool]) -> list[str]:
    """The metrics that give keys: no result names those of its attacks or of an imported log."""
    wanted, found = set(keys), []
    for name in registry.names("metric"):
        options = registry.get("metric", name).options
        if "sets" in options:
            given = {f"{side}_{name}" for side in (measures if options["sets"] == MEASURES else options["sets"])}
        else:
            directions = options.get("higher_is_better")
            given = {name, *(directions if isinstance(directions, dict) else ())}
        if given & wanted:
            found.append(name)
    return found


def _values(result: Result, labelled: Labelled, allowed: Callable[[str, float, float], float | None]) -> list[Number]:
    stated = result.results[result.task]
    found = {f"{key},{label}": value.value for label, values in labelled.items() for key, value in values.items()}
    return [compare(key, stated, found, allowed) for key in dict.fromkeys([*stated, *found])]


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


def _details(result: Result, labelled: Labelled) -> list[Number]:
    """Intervals, row counts, directions and versions of metrics."""
    numbers, task = [], result.task
    for label, values in labelled.items():
        for key, value in values.items():
            stated, place = result.intervals.get(f"{key},{label}"), f"{key},{label}"
            has = value.low is not None and value.high is not None
            for end, number in enumerate((value.low, value.high) if has or stated else ()):
                given = {place: stated[end]} if stated else {}
                new = {place: number} if has else {}
                numbers.append(compare(place, given, new, relative, f"interval {('from', 'to')[end]} of "))
    first: dict[str, Value] = {}
    for values in labelled.values():
        first = values | first  # what is told once for all filters is told of the first
    for what, stated, told in (
        ("rows of ", result.n_samples.get(task, {}), {key: value.n for key, value in first.items()}),
        ("direction of ", _directions(result.higher_is_better.get(task, {})), _directions_of(first)),
        ("version of ", result.versions, {key: value.version for key, value in first.items()}),
    ):
        numbers += [compare(key, stated, told, lambda *_: 0.0, what) for key in told]
    return numbers


def _directions(directions: Mapping[str, bool | None]) -> dict[str, float]:
    """1 where higher is better, -1 where lower is, 0 where neither is."""
    return {key: 0.0 if better is None else 1.0 if better else -1.0 for key, better in directions.items()}


def _directions_of(values: Mapping[str, Value]) -> dict[str, float]:
    return _directions({key: value.higher_is_better for key, value in values.items()})


def _curves(result: Result, labelled: Labelled) -> list[Number]:
    """The points of curves that attacks left; other curves have no records to recompute from."""
    numbers = []
    for name, curve in result.curves.items():
        attack, _, kind = name.partition(":")
        if attack not in result.attacks:
            continue
        for point in curve.points:
            found = {key: value.value for key, value in labelled.get(f"{attack}:{kind}@{point.at}", {}).items()}
            what = f"curve {name} at {point.at}: "
            numbers += [compare(key, point.values, found, relative, what) for key in point.values]
    return numbers
