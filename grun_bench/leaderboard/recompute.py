"""The numbers of a result, computed again from its records. No torch."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grun_bench import registry
from grun_bench.errors import UsageError
from grun_bench.evaluate import Value, evaluate
from grun_bench.records import Records, load_records
from grun_bench.results import RecordsFile, Result

#: by how much a number may differ from the one computed from the records, relative and absolute
TOLERANCE = 1e-9
Said = Mapping[str, float | None]


@dataclass(frozen=True)
class Stored:
    """A result with the folder that its records lie in."""

    result: Result
    folder: Path

    def records(self, said: RecordsFile | None) -> Records | None:
        """Records that the result names. Raises UsageError when they are missing, changed or no records."""
        if said is None:
            return None
        path = self.folder / said.file
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise UsageError(f"{path}: records cannot be read ({error.strerror}).") from None
        if found != said.sha256:
            raise UsageError(f"{path}: its SHA-256 is {found}, the result says {said.sha256}.")
        records = load_records(path)
        if len(records) != said.count:
            raise UsageError(f"{path}: {len(records)} records, the result says {said.count}.")
        return records

    def attacked(self, attack: str, variant: str) -> Records | None:
        """The records of a variant of an attack; None when the result has none."""
        info = self.result.attacks.get(attack)
        return self.records(info.variants.get(variant)) if info else None

    def values(self, place: str) -> dict[str, float | None]:
        """Metric -> value under one filter: `none`, `<attack>` or `<attack>:<variant>`."""
        values, end = self.result.results[self.result.task], f",{place}"
        return {key.removesuffix(end): value for key, value in values.items() if key.endswith(end)}

    @property
    def measures(self) -> dict[str, bool]:
        """The task's lm-eval measures, and whether a higher accuracy is better."""
        task = self.result.configs.get(self.result.task, {})
        return {name: part.get("role") == "utility" for name, part in (task.get("measures") or {}).items()}


def differences(stored: Stored, others: Sequence[Stored]) -> Iterator[str]:
    """Every number of a result that the records do not give, with its place.

    `others` are results among which its target and retain model are. Where several retain models could be the
    reference, the one under which the fewest numbers differ is taken. Raises UsageError for records that are missing
    or changed.
    """
    result = stored.result
    records = stored.records(result.records)
    if records is None:
        if any(value is not None for value in result.results[result.task].values()):
            yield "records: none, but there are numbers"
        return
    own = result.unlearner.name == "retain"
    retains = [stored] if own else [one for one in others if may_be_reference(result, one.result)]
    retain, problems = _best(stored, records, retains)
    for metric, problem in problems:
        yield f"results.{metric},none: {problem}"
    targets = [one for one in others if one.result.unlearner.name == "none" and _same_models(result, one.result)]
    for name in result.attacks:
        yield from _attack(stored, name, records, retain, targets)
    yield from _curves(stored, retain)


def _best(stored: Stored, records: Records, retains: Sequence[Stored]) -> tuple[Stored | None, list[tuple[str, str]]]:
    """The retain model under which the fewest numbers differ, None among them, and those that do."""
    said = stored.values("none")
    tried = [(one, list(_compare(stored, said, records, one.records(one.result.records)))) for one in retains]
    if not tried or all(problems for _, problems in tried):
        tried.append((None, list(_compare(stored, said, records, None))))  # type: ignore[arg-type]
    return min(tried, key=lambda pair: len(pair[1]))


def _compare(stored: Stored, said: Said, records: Records, reference: Records | None) -> Iterator[tuple[str, str]]:
    """(metric, problem) for the numbers that the records do not give."""
    found = evaluate(records, reference, metrics_of(said), stored.measures, intervals=False)
    for metric, value in said.items():
        if metric not in found:
            yield metric, "no metric gives it; its plugin may be missing here"
        elif not same(value, found[metric].value):
            yield metric, f"the result says {_shown(value)}, the records give {_told(found[metric])}"


def _told(value: Value) -> str:
    return f"none ({value.reason})" if value.value is None else repr(value.value)


def _shown(value: float | None) -> str:
    return "none" if value is None else repr(value)


def same(one: float | None, other: float | None) -> bool:
    """Whether two numbers are equal within the tolerance, or both missing."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def metrics_of(keys: Iterable[str]) -> list[str]:
    """The metrics that may have given values under these keys, which are `<metric>` or `<set>_<metric>`."""
    keys = list(keys)
    return [name for name in registry.names("metric") if any(key == name or key.endswith(f"_{name}") for key in keys)]


def may_be_reference(result: Result, retain: Result) -> bool:
    """Whether a retain model's row may be the reference that a result was compared with."""
    if retain.unlearner.name != "retain" or retain.protocol != result.protocol:
        return False
    log = result.reference.get("retain_log")
    if log:
        return retain.imported is not None and retain.imported.sha256 == log
    return _same_models(result, retain)


def _same_models(result: Result, other: Result) -> bool:
    same = ("task", "model", "dataset", "dataset_hash", "protocol", "limit", "reference")
    return not other.imported and all(getattr(result, name) == getattr(other, name) for name in same)


# --- attacks and curves -----------------------------------------------------------------------------------------------


def _attack(
    stored: Stored, name: str, clean: Records, retain: Stored | None, targets: Sequence[Stored]
) -> Iterator[str]:
    """An attack's numbers: each variant's from its records, the worst and the mean from the variants'.

    The reference is the retain model under the same attack.
    """
    result = stored.result
    by_metric: dict[str, list[float]] = defaultdict(list)
    for variant in result.attacks[name].variants:
        place = f"{name}:{variant}"
        said = stored.values(place)
        for metric, value in said.items():
            by_metric[metric] += [] if value is None else [value]
        records = stored.attacked(name, variant)
        assert records is not None
        measured = {metric: value for metric, value in said.items() if not metric.startswith("recovery_")}
        reference = retain.attacked(name, variant) if retain else None
        for metric, problem in _compare(stored, measured, records, reference):
            yield f"results.{metric},{place}: {problem}"
        for metric, problem in _recoveries(stored, said, records, clean, targets):
            yield f"results.{metric},{place}: {problem}"
    directions = result.higher_is_better[result.task]
    for place in (name, f"{name}:mean"):
        for metric, value in stored.values(place).items():
            if value is None:
                continue
            several = by_metric.get(metric, [])
            rule = _mean if place != name else min if directions.get(metric) else max
            given = rule(several) if several else None
            if not same(value, given):
                yield f"results.{metric},{place}: the result says {value!r}, its variants give {_shown(given)}"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _recoveries(
    stored: Stored, said: Said, records: Records, clean: Records, targets: Sequence[Stored]
) -> Iterator[tuple[str, str]]:
    """(after - before) / (target - before) on the rows that the attack asked, where the result gives a number."""
    recovered = {key.removeprefix("recovery_"): value for key, value in said.items() if key.startswith("recovery_")}
    recovered = {metric: value for metric, value in recovered.items() if value is not None}
    if not recovered:
        return
    asked = {(row.set, row.index) for row in records}
    names = metrics_of(recovered)

    def values(side: Records) -> dict[str, Value]:
        rows = Records(row for row in side if (row.set, row.index) in asked)
        return evaluate(rows, None, names, stored.measures, intervals=False)

    before = values(clean)
    known = [values(side) for one in targets if (side := one.records(one.result.records)) is not None]
    for metric, value in recovered.items():
        given = [_recovery(said.get(metric), before[metric].value, target[metric].value) for target in known]
        if not any(same(value, one) for one in given):
            told = " or ".join(map(_shown, given)) or "none (the target model's row is not here)"
            yield f"recovery_{metric}", f"the result says {value!r}, the records give {told}"


def _recovery(after: float | None, before: float | None, target: float | None) -> float | None:
    if after is None or before is None or target is None or target == before:
        return None
    return (after - before) / (target - before)


def _curves(stored: Stored, retain: Stored | None) -> Iterator[str]:
    """A curve of an attack repeats its variants' numbers; any other's come from the points' own records."""
    result = stored.result
    for name, curve in result.curves.items():
        attack, _, kind = name.partition(":")
        for number, point in enumerate(curve.points):
            place = f"curves.{name}.points.{number}"
            if attack in result.attacks:
                variants = stored.values(f"{attack}:{kind}@{point.at}")
                problems = [
                    (metric, f"the curve says {_shown(value)}, the attack {_shown(variants.get(metric))}")
                    for metric, value in point.values.items()
                    if not same(value, variants.get(metric))
                ]
            elif (records := stored.records(point.records)) is not None:
                reference = retain.records(retain.result.records) if retain else None
                problems = list(_compare(stored, point.values, records, reference))
            else:
                problems = []
            yield from (f"{place}.{metric}: {problem}" for metric, problem in problems)
