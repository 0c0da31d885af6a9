"""What a metric key is about: the sets behind its number, and what they are to unlearning. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from grun_bench.core import registry
from grun_bench.core.plugin_search import Entry
from grun_bench.results.metric_key import MetricKey
from grun_bench.tasks.roles import ROLES, Role, known_roles
from grun_bench.tasks.sets import ScoredSet, ScoredSets


@dataclass(frozen=True)
class About:
    """The roles of the sets behind a metric's number; the one set where it is a mean over its rows."""

    roles: tuple[Role, ...] = ()
    set: ScoredSet | None = None

    @property
    def forgetting(self) -> bool:
        """Whether the number says what was forgotten, alone or beside what was kept."""
        return "forget" in self.roles


def about(keys: Iterable[str], sets: ScoredSets) -> dict[str, About]:
    """Metric key -> what it is about, as metrics declare it.

    A metric over all records is about the roles in its `over`, and so is what it returns under a longer name. Any other
    key begins with its set, or with the role of a set that the task lacks; a key of no metric is about nothing. A
    recovery is about what its metric is about. Nothing is imported, but for metrics that are not the package's and do
    not write their `over` out.
    """
    known = registry.entries("metric")
    known_sets = ScoredSets((*sets.sets, *(ScoredSet(role, role) for role in ROLES)))
    return {key: _about(MetricKey(key).recovered.metric, known, known_sets) for key in keys}


def leads(
    headline: Iterable[str], directions: Mapping[str, bool | None], sets: ScoredSets
) -> tuple[str | None, str | None]:
    """The metrics of a headline that a row is judged by, of forgetting and of utility; None where it has none.

    The first of which less is better, and the first of which more is better and that is no matter of forgetting.
    """
    told = about(headline, sets)
    low = (metric for metric in told if directions.get(metric) is False)
    high = (metric for metric, each in told.items() if directions.get(metric) and not each.forgetting)
    return next(low, None), next(high, None)


def defined_by(key: str, known: Mapping[str, Entry]) -> Entry | None:
    """The metric that gives a key its number: of those whose names are part of it the longest; None for none."""
    names = [name for name in known if f"_{name}_" in f"_{key}_"]
    return known[max(names, key=len)] if names else None


#: the least and the greatest value of a metric
Bounds = tuple[float, float]


def bounds_by_name() -> dict[str, Bounds]:
    """What every metric declares, longest names first. Metrics are imported."""
    return {name: registry.get("metric", name).bounds for name in sorted(registry.names("metric"), key=len)[::-1]}


def bounds_of(key: str, known: Mapping[str, Bounds]) -> Bounds:
    """The bounds of the metric whose name is part of a key, the longest; none for a key of no metric."""
    return next((bounds for name, bounds in known.items() if f"_{name}_" in f"_{key}_"), (-math.inf, math.inf))


def _about(metric: str, known: Mapping[str, Entry], sets: ScoredSets) -> About:
    beginnings = [name for name in known if f"{metric}_".startswith(f"{name}_")]
    for name in sorted(beginnings, key=len, reverse=True):
        if roles := _over(known[name], exactly=name == metric):
            return About(roles)
    found = sets.beginning(metric)
    return About((found.role,), found) if found else About()


def _over(entry: Entry, exactly: bool) -> tuple[Role, ...]:
    """The roles that a metric over all records declares."""
    told = entry.declared.get("over", ())
    if not told and exactly and not entry.builtin:
        told = registry.get("metric", entry.name).over
    return known_roles(told)
