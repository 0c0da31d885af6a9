"""The rule of the ranking, on two numbers of each row; `words.rules` says it in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grun_bench.core.plugins import Control

#: the share of utility that a row must keep to be ranked by its forgetting: of the target's or the retain model's, the
#: lower, for nobody must keep more than the model that never saw the forget set
UTILITY_FLOOR = 0.9
#: the marks of rows that have no rank because they forgot nothing that can be seen
LIKE_TARGET, ABOVE_TARGET = "not distinguishable from the target", "leaks more than the target"
#: the ends of an interval
Ends = tuple[float, float]


def unseen(reach: Ends | None, known: Ends | None) -> str:
    """The mark of a row that forgot nothing that can be seen, by the intervals of its and of the target's worst case.

    "" of any other, and where one is not known.
    """
    if reach is None or known is None or reach[1] < known[0]:
        return ""
    return ABOVE_TARGET if reach[0] > known[1] else LIKE_TARGET


@dataclass(frozen=True)
class Entrant:
    """What decides a row's rank: forgetting in the worst case (lower is better) and utility (higher is better).

    `reach` are the ends of the worst case's interval, None without a worst case. `excluded` says why it has no rank in
    any case; under how many of a user's attacks there is a number says `attacked`.
    """

    name: str
    shown: str
    role: Control | None
    worst: float | None
    reach: Ends | None
    utility: float | None
    excluded: tuple[str, ...]
    attacked: int


@dataclass(frozen=True)
class Standing:
    """A row's place, and what a reader must know of it beside its numbers."""

    rank: int | None = None
    pareto: bool = False
    #: whether it lost too much utility to be ranked by its forgetting
    below: bool = False
    #: whether it would be ranked had it forgotten anything that can be seen
    not_forgotten: bool = False
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ranking:
    """Rows against the target and the retain model.

    A row has a rank only where the interval of its worst case lies below the target's, `known`. Intervals of 95 % that
    do not meet are stronger evidence than a test at 5 % (of two means with equal errors, independent: p < 0.006), they
    are in every result file, so all rows are judged by one rule whether their records are there or not, and a reader
    can check it on the page. Paired tests, which need records and see smaller differences, answer another question:
    whether a ranked row is told from the first (`told_apart`).

    `floor` is the utility below which a row has lost too much and `beyond` the retain model's worst case. All three are
    None without such a row: then nothing is asked for. `by_utility` is False where the task has no metric of utility.
    `attacks` is the largest number of a user's attacks that any row has a number of: the worst case of a row with fewer
    is of less, and its mark says so.
    """

    floor: float | None
    beyond: float | None
    known: Ends | None
    by_utility: bool
    attacks: int = 0

    @classmethod
    def against(cls, entrants: Sequence[Entrant], by_utility: bool) -> Ranking:
        """The ranking in which these take part."""
        pins = {entrant.role: entrant for entrant in entrants if entrant.role}
        utilities = [pin.utility for pin in pins.values() if pin.utility is not None]
        whole = pins["target"].utility if by_utility and "target" in pins else None
        floor = None if whole is None else UTILITY_FLOOR * min(utilities)
        beyond = pins["retain model"].worst if "retain model" in pins else None
        known = pins["target"].reach if "target" in pins else None
        return cls(floor, beyond, known, by_utility, max((entrant.attacked for entrant in entrants), default=0))

    def standings(self, entrants: Sequence[Entrant]) -> list[Standing]:
        """The standing of each; target and retain model have no rank, but the retain model says where it would be."""
        lost = [self._unseen(entrant) for entrant in entrants]
        compared = [place for place, entrant in enumerate(entrants) if self._compared(entrant)]
        ranked = [place for place in compared if not lost[place]]
        points = {place: self._point(entrants[place]) for place in ranked}
        order = sorted(ranked, key=lambda place: self._merit(entrants[place]))
        ranks = {place: rank for rank, place in enumerate(order, 1)}
        found = []
        for place, entrant in enumerate(entrants):
            below = self.floor is not None and self._point(entrant)[1] < self.floor
            marks = [*entrant.excluded, *filter(None, [lost[place]])]
            if place in compared:
                marks += ["below the floor"] * below + self._fewer(entrant)
            elif entrant.role == "retain model" and compared and not lost[place] and self._known(entrant):
                ahead = sum(self._merit(entrants[other])[:3] < self._merit(entrant)[:3] for other in ranked)
                marks.append(f"would rank {ahead + 1}")
            pareto = place in ranks and not any(_beats(other, points[place]) for other in points.values())
            found.append(
                Standing(ranks.get(place), pareto, below, place in compared and bool(lost[place]), tuple(marks))
            )
        return found

    def _unseen(self, entrant: Entrant) -> str:
        return "" if entrant.role == "target" else unseen(entrant.reach, self.known)

    def _fewer(self, entrant: Entrant) -> list[str]:
        if not entrant.attacked:
            return ["no attack"]
        return [f"{entrant.attacked} of {self.attacks} attacks"] * (entrant.attacked < self.attacks)

    def _compared(self, entrant: Entrant) -> bool:
        return entrant.role is None and not entrant.excluded and self._known(entrant)

    def _known(self, entrant: Entrant) -> bool:
        return entrant.worst is not None and (entrant.utility is not None or not self.by_utility)

    def _point(self, entrant: Entrant) -> tuple[float, float]:
        return entrant.worst or 0.0, (entrant.utility or 0.0) if self.by_utility else 0.0

    def _merit(self, entrant: Entrant) -> tuple[int, float, float, str, str]:
        forget, utility = self._point(entrant)
        if self.floor is not None and utility < self.floor:
            return (1, -utility, forget, entrant.name, entrant.shown)
        equal = forget if self.beyond is None else max(forget, self.beyond)
        return (0, equal, -utility, entrant.name, entrant.shown)


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether a point is at least as good in both numbers and better in one."""
    return one != other and one[0] <= other[0] and one[1] >= other[1]
