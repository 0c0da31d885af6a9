"""A row's numbers: means over its runs with an interval, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from grun_bench.leaderboard.filings import Attacked, Column, Run, made_as_usual
from grun_bench.results.result import AttackInfo, Result
from grun_bench.tasks.sets import ScoredSets


class Cell(NamedTuple):
    """The mean over a row's runs with a 95 % interval: a t interval `over` the seeds, or one run's own bootstrap
    interval over the `examples`; "" where there is none. A missing number has a `reason`, and so has one that not every
    row is in: which were left out."""

    value: float | None
    n: int = 0
    low: float | None = None
    high: float | None = None
    over: str = ""
    reason: str = ""


NOTHING = Cell(None)


@dataclass(frozen=True)
class Numbers:
    """A row's cells without attack, by attack and metric, and in the worst case of a metric of forgetting.

    `worst_attack` is the attack that the worst case is under, "" without attack. `reach` are the ends of its interval
    as the ranking takes it: of several runs no further apart than those of the runs' own intervals together, so that
    no row of more seeds is worse off than the worst of them alone; its value, twice, where it has none. `attacked`:
    under how many attacks that count, made as usual, there is a number of that metric. `partial` says of which of them
    some runs alone have one: it counts as it is, for without it the worst case would be better.
    """

    cells: Mapping[Column, Cell]
    attacks: Mapping[str, Mapping[str, Cell]]
    worst: Cell
    worst_attack: str
    reach: tuple[float, float] | None
    attacked: int
    partial: tuple[str, ...]


def numbers_of(
    runs: Sequence[Run],
    columns: Iterable[Column],
    attacks: Iterable[str],
    user: Sequence[str],
    lead: Column | None,
    sets: ScoredSets,
) -> Numbers:
    """The numbers of a row's runs; `lead` is the metric of forgetting, and `user` are the attacks that count in it."""
    noted = [run.result for run in runs if run.result.reasons]
    cells = {column: _clean_cell(runs, noted, column) for column in columns}
    under: dict[str, dict[str, Cell]] = {}
    for name in attacks:
        attacked = [run.attacks[name] for run in runs if name in run.attacks]
        if attacked:
            metrics = dict.fromkeys(metric for one in attacked for metric in one.worst)
            under[name] = {metric: _attack_cell(attacked, metric) for metric in metrics}
    worst, worst_attack = cells[lead] if lead else NOTHING, ""
    for name in user:
        cell = under.get(name, {}).get(lead.metric, NOTHING) if lead else NOTHING
        if cell.value is not None and worst.value is not None and cell.value > worst.value:
            worst, worst_attack = cell, name
    reach = _reach(worst, _own_ends(runs, lead, worst_attack, sets)) if lead else None
    counted = [name for name in with_number(under, lead) if name in user]
    having = {name: under[name][lead.metric].n for name in counted} if lead else {}
    usual = sum(map(made_as_usual, counted))
    return Numbers(cells, under, worst, worst_attack, reach, usual, _partial(having, len(runs)))


def _partial(having: Mapping[str, int], runs: int) -> tuple[str, ...]:
    """What is said of attacks by how many of so many runs have a number under each."""
    fewer: dict[int, list[str]] = {}
    for name, n in having.items():
        if n < runs:
            fewer.setdefault(n, []).append(name)
    return tuple(
        f"{names[0] if len(names) == 1 else f'{len(names)} attacks'} in {n} of {runs} runs"
        for n, names in fewer.items()
    )


def _own_ends(runs: Sequence[Run], lead: Column, attack: str, sets: ScoredSets) -> list[tuple[float, float]]:
    """The ends of each run's own interval of a metric, its value with them."""
    found = []
    for run in runs:
        if attack:
            value = run.attacks[attack].worst.get(lead.metric) if attack in run.attacks else None
            interval = run.attacks[attack].intervals.get(lead.metric) if attack in run.attacks else None
        else:
            value, interval = run.clean.get(lead), run.result.interval(lead.metric)
        if value is not None:
            info = run.attacks[attack].info if attack else None
            found.append(_ends(value, interval, _examples(run.result, lead.metric, info, sets)))
    return found


def _examples(result: Result, metric: str, info: AttackInfo | None, sets: ScoredSets) -> int:
    """How many examples a metric is over; an attack may have asked a part of its set."""
    whole, scored = result.n_samples[result.task].get(metric, 0), sets.beginning(metric)
    return info.rows.get(scored.name, whole) if info and scored else whole


def worst_ends(result: Result, metric: str) -> tuple[float, float] | None:
    """The ends of one result's interval of a metric of forgetting in the worst case, as boards take it."""
    users = ["", *(name for name, info in result.attacks.items() if info.access == "user")]
    found = [(value, name) for name in users if (value := result.value(metric, name)) is not None]
    if not found or result.value(metric) is None:
        return None
    value, attack = max(found, key=lambda each: each[0])
    return _ends(
        value, result.interval(metric, attack), _examples(result, metric, result.attacks.get(attack), result.sets)
    )


def _ends(value: float, interval: tuple[float, float] | None, count: int) -> tuple[float, float]:
    """The interval, the value in any case in it.

    Where all of `count` examples have the same value a bootstrap sees no spread. Of shares, all 1 or all 0, less than
    3 / count may be otherwise (the rule of three, at 95 %; Hanley and Lippman-Hand 1983, JAMA 249, p. 1743).
    """
    if interval is None:
        return value, value
    low, high = min(interval[0], value), max(interval[1], value)
    if low == high and value in (0.0, 1.0) and count:
        unseen = min(1.0, 3 / count)
        return (1 - unseen, value) if value else (value, unseen)
    return low, high


def _reach(worst: Cell, own: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    if worst.value is None or not own:
        return None
    low, high = min(own)[0], max(each[1] for each in own)
    if worst.low is None or worst.high is None or worst.over != "seeds":
        return low, high
    return max(low, worst.low), min(high, worst.high)


def with_number(attacks: Mapping[str, Mapping[str, Cell]], lead: Column | None = None) -> list[str]:
    """The attacks on a row that left a number, or one of this metric."""

    def left(cells: Mapping[str, Cell]) -> bool:
        shown: Iterable[str] = [lead.metric] if lead else cells
        return any(cells.get(metric, NOTHING).value is not None for metric in shown)

    return [name for name, cells in attacks.items() if left(cells)]


def _clean_cell(runs: Sequence[Run], noted: Sequence[Result], column: Column) -> Cell:
    values = [run.clean.get(column) for run in runs]
    reason = ""
    if None in values:
        result = runs[values.index(None)].result
        missing = f"training diverged: {result.error}" if result.status == "diverged" else result.reason(column.metric)
        reason = missing or "not measured"
    else:
        reason = next(filter(None, [result.reason(column.metric) for result in noted]), "")
    return average(values, runs[0].result.interval(column.metric) if len(runs) == 1 else None, reason)


def _attack_cell(attacked: Sequence[Attacked], metric: str) -> Cell:
    """Over the runs that have a number: one that lacks it takes nothing from what the others leak."""
    known = [one for one in attacked if one.worst.get(metric) is not None]
    if not known:
        return Cell(None, len(attacked), reason=attacked[0].reasons.get(metric, "not measured"))
    reason = next((one.reasons[metric] for one in known if metric in one.reasons), "")
    return average([one.worst.get(metric) for one in known], known[0].intervals.get(metric), reason)


def average(values: Sequence[float | None], interval: tuple[float, float] | None, reason: str = "") -> Cell:
    """The mean over runs with its 95 % t interval; one run's own bootstrap interval where there is no other run.

    None where a run has no value. `reason` says why, or what was left out of the numbers.
    """
    n, known = len(values), [value for value in values if value is not None]
    if len(known) < n or not n:
        return Cell(None, n, reason=reason)
    if n == 1:
        low, high = interval or (None, None)
        return Cell(known[0], 1, low, high, "examples" if interval else "", reason)
    if min(known) == max(known):  # a mean of equal numbers may be another one in its last digit
        return Cell(known[0], n, known[0], known[0], "seeds", reason)
    mean = math.fsum(known) / n
    deviation = math.sqrt(math.fsum([(value - mean) ** 2 for value in known]) / (n - 1))
    half = _t_quantile(n - 1) * deviation / math.sqrt(n)
    return Cell(mean, n, mean - half, mean + half, "seeds", reason)


@cache
def _t_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t, to seven decimals; scipy takes longer to load than a page to render.

    With whole degrees of freedom the share within -t and t is a sum of as many terms as there are pairs of them, in the
    angle whose tangent is t / sqrt(degrees) (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4): it is bisected.
    """
    odd, low, high = degrees % 2, 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        term = total = (math.cos(angle) if degrees > 1 else 0.0) if odd else 1.0
        for place in range(2 + odd, degrees - 1, 2):
            term *= math.cos(angle) ** 2 * (place - 1) / place
            total += term
        share = math.sin(angle) * total
        if odd:
            share = 2 / math.pi * (angle + share)
        low, high = (angle, high) if share < 0.95 else (low, angle)
    return round(math.sqrt(degrees) * math.tan(high), 7)
