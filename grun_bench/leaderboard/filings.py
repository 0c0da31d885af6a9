"""Filed results -> runs: what boards show of a result, and one run of its several filings."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from grun_bench.core import registry
from grun_bench.core.cache import digest
from grun_bench.leaderboard.derived import completed
from grun_bench.metrics.strengths import STRENGTHS
from grun_bench.results.filed import CONTROLS, TIERS, Filed
from grun_bench.results.metric_key import MetricKey
from grun_bench.results.result import AttackInfo, Result, key_text

#: characters of settings in the name of an attack that was made otherwise than usual
_TOLD = 40


class Column(NamedTuple):
    """A metric in one version of its definition. Two versions are two columns."""

    metric: str
    version: str


@dataclass(frozen=True, slots=True)
class Attacked:
    """An attack on one run, with what it left of the headline and of metrics that only attacks have.

    `worst` has the value of each under the worst variant, with its recovery, and `variants` under each; `reasons` say
    what is missing. `place` is the folder of the records, relative to the tree.
    """

    info: AttackInfo
    place: str
    worst: Mapping[str, float | None]
    variants: Mapping[str, Mapping[str, float | None]]
    intervals: Mapping[str, tuple[float, float]]
    reasons: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Run:
    """One run: the result that its numbers without attack are from (of the best tier), and all attacks filed on it.

    `clean` are those numbers.
    Two versions of an attack are two attacks; of several filings of one attack the worse value of each metric counts.
    `identity` is what its row is of: runs that share it differ in nothing but the seed.
    """

    result: Result
    filings: tuple[Filed, ...]
    clean: Mapping[Column, float | None]
    attacks: Mapping[str, Attacked]
    identity: tuple[str, ...]


def run_of(filed: Filed) -> Run:
    """The run of one filing, without what no page shows: hundreds are held at once, and gone through many times."""
    filed = completed(filed)
    result = filed.result
    values, versions = result.results[result.task], result.versions
    names = tuple(result.higher_is_better[result.task])
    keys = _keys(names)
    clean = {_column(name, versions.get(name, 1)): values[key] for name, key in keys if key in values}
    own = (name for name, key in keys if key not in values and not MetricKey(name).is_recovery)
    shown = (*result.headline, *own)
    told = (*shown, *map(_recovery, shown))
    attacks = {_label(name, info): _attacked(filed, name, info, shown, told) for name, info in result.attacks.items()}
    kept: dict[str, Any] = {name: {} for name in ("attacks", "configs", "data", "history", "packages")}
    kept["curves"] = {name: curve for name, curve in result.curves.items() if name == STRENGTHS}
    counts = result.n_samples[result.task]
    kept["n_samples"] = {result.task: {name: counts[name] for name in result.headline if name in counts}}
    kept["results"] = {result.task: {key_text(name): result.value(name) for name in result.headline}}
    short = replace(filed, result=result.model_copy(update=kept))
    return Run(short.result, (short,), clean, attacks, _identity(result))


@lru_cache(maxsize=2**12)  # of many results they are the same
def _keys(names: tuple[str, ...], attack: str = "", variant: str = "") -> list[tuple[str, str]]:
    """Metrics with their keys, without attack or under one."""
    return [(name, key_text(name, attack, variant)) for name in names]


@lru_cache(maxsize=2**12)
def _recovery(metric: str) -> str:
    return MetricKey(metric).recovery.metric


@lru_cache(maxsize=2**12)
def _column(metric: str, version: int | str) -> Column:
    return Column(metric, str(version))


def _label(attack: str, info: AttackInfo) -> str:
    return attack if info.version == 1 else f"{attack} v{info.version}"


def _attacked(
    filed: Filed, attack: str, info: AttackInfo, of_variants: tuple[str, ...], of_worst: tuple[str, ...]
) -> Attacked:
    result = filed.result
    values, intervals, reasons = result.results[result.task], result.intervals, result.reasons

    def under(variant: str) -> dict[str, float | None]:
        return {name: values[key] for name, key in _keys(of_variants, attack, variant) if key in values}

    worst = [(name, key) for name, key in _keys(of_worst, attack) if key in values]
    return Attacked(
        info,
        filed.place,
        {name: values[key] for name, key in worst},
        {variant: under(variant) for variant in info.variants},
        {name: intervals[key] for name, key in worst if key in intervals},
        {name: reasons[key] for name, key in worst if key in reasons},
    )


def _identity(result: Result) -> tuple[str, ...]:
    """The unlearner, its settings, how those were found, and the tool that an imported result is from."""
    tool, tuned = result.imported.tool if result.imported else "", result.unlearner.tuned
    return (result.unlearner.name, canonical(result.unlearner.settings), tool, *((tuned.label,) if tuned else ()))


#: `json.dumps` makes an encoder for every value
_encoded = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


def canonical(value: Any) -> str:
    """Equal values as equal texts."""
    return _encoded(value)


def plain(value: Any) -> str:
    """A setting as people write it."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def merged(runs: Iterable[Run]) -> list[Run]:
    """One run of all filings of it."""
    same: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        same[run.result.run_id, *run.identity].append(run)
    return [_merged(filings) if len(filings) > 1 else filings[0] for filings in same.values()]


def _merged(runs: list[Run]) -> Run:
    best_first = sorted(runs, key=lambda run: _standing(run.filings[0]))
    attacks: dict[str, list[Attacked]] = defaultdict(list)
    for run in best_first:
        for name, found in run.attacks.items():
            attacks[name].append(found)
    best = best_first[0]
    filings = tuple(filed for run in best_first for filed in run.filings)
    worst = {name: _worst(found, best.result) for name, found in attacks.items()}
    return Run(best.result, filings, best.clean, worst, best.identity)


def with_usual_attacks(runs: Iterable[Run]) -> list[Run]:
    """A table's runs, with attacks that were made otherwise than usual under names that say so: they are others.

    Usual are the settings under which the tree's own target was attacked; without, its retain model, or the first row.
    """
    ordered = list(runs)
    usual: dict[str, Mapping[str, Any]] = {}
    for run in sorted(ordered, key=_authority):
        for name, found in run.attacks.items():
            usual.setdefault(name, found.info.settings)
    return [run if _as_usual(run, usual) else _renamed(run, usual) for run in ordered]


def _authority(run: Run) -> tuple[bool, int]:
    role = registry.role_of(run.result.unlearner.name)
    return bool(run.filings[0].submission), CONTROLS.index(role) if role else len(CONTROLS)


def _as_usual(run: Run, usual: Mapping[str, Mapping[str, Any]]) -> bool:
    return all(found.info.settings == usual[name] for name, found in run.attacks.items())


def _renamed(run: Run, usual: Mapping[str, Mapping[str, Any]]) -> Run:
    def named(name: str, settings: Mapping[str, Any]) -> str:
        others = {key: value for key, value in settings.items() if usual[name].get(key, ...) != value}
        if settings == usual[name]:
            return name
        told = ", ".join(f"{key}={plain(value)}" for key, value in others.items())
        return f"{name} ({told if others and len(told) <= _TOLD else f'settings {digest(dict(settings))[:6]}'})"

    return replace(run, attacks={named(name, each.info.settings): each for name, each in run.attacks.items()})


def attack_of(label: str) -> str:
    """The attack's name in what boards call it, which may have a version or settings behind it."""
    return label.partition(" ")[0]


def made_as_usual(label: str) -> bool:
    """Whether what boards call an attack has no settings behind it."""
    return not label.endswith(")")


def _standing(filed: Filed) -> tuple[int, bool, str]:
    """Best first: by its tier, and the tree's own before what a submission says of the same run."""
    return TIERS.index(filed.tier), bool(filed.submission), filed.path


def _worst(found: Sequence[Attacked], result: Result) -> Attacked:
    first = found[0]
    worst, intervals = dict(first.worst), dict(first.intervals)
    for other in found[1:]:
        for metric, value in other.worst.items():
            worse = _worse(worst.get(metric), value, result.better(metric))
            if worse != worst.get(metric):
                worst[metric] = worse
                intervals.pop(metric, None)
    return replace(first, worst=worst, intervals=intervals)


def _worse(one: float | None, other: float | None, better: bool | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    # what has no direction of its own here is a recovery: the higher, the worse
    return min(one, other) if better else max(one, other)
