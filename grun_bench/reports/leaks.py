"""How much of what was to be forgotten is left, without attack and under each. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from grun_bench.metrics.about import about, leads
from grun_bench.metrics.evaluate import evaluate
from grun_bench.metrics.recovery import LEAST_FORGOTTEN
from grun_bench.reports.rows import FiledRow, Row
from grun_bench.results.metric_key import MetricKey
from grun_bench.results.record import Records
from grun_bench.tasks.sets import ScoredSet, ScoredSets

#: what a model is compared with that never saw the forget set
Against = Literal["the retain model", "rows held out", "chance"]


@dataclass(frozen=True)
class Leak:
    """What a metric of forgetting finds, without attack (`attack` "") or under one, in its worst variant.

    `known` is the target model's value, None without one, under the same attack unless it is `plain`, as where that
    attack has nothing to do on a target model; `unknown` that of a model which never saw the forget set, by `against`:
    the retain model under the same attack, the same model on rows held out, or chance.
    """

    attack: str
    access: Literal["", "user", "weights"]
    variant: str
    metric: str
    value: float
    interval: tuple[float, float] | None
    known: float | None
    unknown: float
    against: Against
    plain: bool = False

    @property
    def share(self) -> float | None:
        """How much of what was to go is left, (value - unknown) / (known - unknown) in [0, 1].

        None where that is not known: without a target model, or where it hardly knows more than one that never saw the
        forget set (`LEAST_FORGOTTEN`).
        """
        if self.known is None or self.known - self.unknown < LEAST_FORGOTTEN:
            return None
        return min(1.0, max(0.0, (self.value - self.unknown) / (self.known - self.unknown)))

    @property
    def weight(self) -> tuple[float, float]:
        """What leaks are ordered by: the share that is left, then the value."""
        return (-1.0 if self.share is None else self.share, self.value)


def leaks(row: Row) -> list[Leak]:
    """What is left of the row's leading metric of forgetting: without attack first, then under each that left a number.

    An attack that has no value of it, as sampling has its own, is there by its first metric of forgetting with lower
    values better. Empty where the task's headline has no such metric, or it has no value.
    """
    result = row.result
    lead = leads(result.headline, result.higher_is_better[result.task], result.sets)[0]
    found = _leak(row, lead, "") if lead else None
    if lead is None or found is None:
        return []
    return [found, *(each for name in result.attacks for each in _under(row, lead, name))]


def _under(row: Row, lead: str, attack: str) -> Iterator[Leak]:
    result = row.result
    there = [metric for metric in result.metrics(attack) if result.value(metric, attack) is not None]
    told = about(there, result.sets)
    for metric in [lead, *there]:
        lower = result.better(metric) is False and not MetricKey(metric).is_recovery
        if metric in there and lower and told[metric].forgetting:
            found = _leak(row, metric, attack)
            if found:
                yield found
            return


def _leak(row: Row, metric: str, attack: str) -> Leak | None:
    result = row.result
    value = result.value(metric, attack)
    if value is None:
        return None
    unknown, against = _unknown(row, metric, attack)
    known = _first(row.target, metric, attack, "")
    return Leak(
        attack=attack,
        access=result.attacks[attack].access if attack else "",
        variant=row.own.worst_variant(metric, attack) if attack else "",
        metric=metric,
        value=value,
        interval=result.interval(metric, attack),
        known=known,
        unknown=unknown,
        against=against,
        plain=bool(attack) and known is not None and _first(row.target, metric, attack) is None,
    )


def _first(row: FiledRow | None, metric: str, *attacks: str) -> float | None:
    """The first value of a metric that a row has, without attack ("") or under one."""
    values = (row.result.value(metric, attack) for attack in attacks) if row else ()
    return next((value for value in values if value is not None), None)


def _unknown(row: Row, metric: str, attack: str) -> tuple[float, Against]:
    retain = _first(row.retain, metric, attack, "")
    if retain is not None:
        return retain, "the retain model"
    one = about([metric], row.result.sets)[metric].set
    records = row.own.records(attack, row.own.worst_variant(metric, attack) if attack else "")
    if one is None or records is None:
        return 0.0, "chance"
    if one.kind == "questions":
        options = [len(each.choices.logprobs) for each in records.of(one.name) if each.choices]
        return (sum(1 / count for count in options) / len(options) if options else 0.0), "chance"
    name = metric.removeprefix(f"{one.name}_")
    held_out = _on_holdout(row, name, records)
    if held_out is None or _knows_holdout(row, metric, name):
        return 0.0, "chance"
    return held_out, "rows held out"


def _knows_holdout(row: Row, metric: str, name: str) -> bool:
    """Whether the target model knows rows held out as well as those to forget: then it was trained on both, and they do
    not say what a model knows that never saw the forget set."""
    records, known = (row.target.records(), _first(row.target, metric, "")) if row.target else (None, None)
    held_out = _on_holdout(row, name, records) if records else None
    return known is not None and held_out is not None and known - held_out < LEAST_FORGOTTEN


def _on_holdout(row: Row, metric: str, records: Records) -> float | None:
    """A metric of forgetting on the holdout sets as if they were to be forgotten; None where it has no value there."""
    names = row.result.sets.of("holdout")
    if not any(records.of(name) for name in names):
        return None
    sets = ScoredSets(tuple(ScoredSet(name, "forget") for name in names))
    values = evaluate(records, None, [metric], sets, intervals=False)
    known = [each for each in values.values() if each.value is not None]
    count = sum(each.n for each in known)
    return sum(each.n * (each.value or 0.0) for each in known) / count if count else None
