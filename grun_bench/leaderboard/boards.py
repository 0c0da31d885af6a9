"""What a board is: one table of results that may be compared, and its rows over seeds."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from grun_bench.core import registry
from grun_bench.core.plugins import Control
from grun_bench.leaderboard.cells import Cell, with_number
from grun_bench.leaderboard.filings import Column, Run, canonical
from grun_bench.leaderboard.least import least_differences
from grun_bench.leaderboard.ranking import Ends
from grun_bench.leaderboard.themes import by_theme
from grun_bench.metrics.strengths import STRENGTHS, Place, line
from grun_bench.results.filed import TIERS, Tier
from grun_bench.results.metric_key import MetricKey
from grun_bench.results.result import Result
from grun_bench.tasks.sets import ScoredSets

#: rows that every table begins with: the target as it is, and the oracle
PINNED: dict[Control, str] = {"target": "target model", "retain model": "retain model"}
#: all that the results of one table share
Key = tuple[str, ...]
#: what boards are put in order by
Order = tuple[bool, bool, bool, Key]


def adapter_of(name: str) -> str:
    """The adapter of an unlearner; one that is no pair has none."""
    adapter, plus, _ = name.partition("+")
    return adapter if plus else "reference" if registry.role_of(name) else "other"


@dataclass(frozen=True)
class Row:
    """One unlearner with one choice of settings, over its runs (seeds)."""

    name: str
    role: Control | None
    settings: Mapping[str, Any]
    runs: Sequence[Run]
    #: the settings in which the table's rows of this unlearner differ
    shown: str
    flags: Sequence[str]
    cells: Mapping[Column, Cell]
    #: attack -> metric -> mean over the runs that were attacked
    attacks: Mapping[str, Mapping[str, Cell]]
    #: the forget metric in the worst case, and the attack that it is under ("" without attack)
    worst: Cell
    worst_attack: str
    rank: int | None
    pareto: bool
    #: whether it lost too much utility to be ranked by its forgetting
    below: bool
    #: whether it has no rank because its worst case is not below the target's as far as can be seen
    not_forgotten: bool
    #: what a reader must know of the row beside its numbers
    marks: Sequence[str]

    @property
    def pinned(self) -> bool:
        return self.role is not None

    @property
    def placed(self) -> bool:
        """Whether it has a place in the picture: what is ranked, what it is compared with, and what forgot nothing."""
        return self.pinned or self.rank is not None or self.not_forgotten

    @property
    def label(self) -> str:
        return PINNED[self.role] if self.role else self.name

    @property
    def named(self) -> str:
        """Its label with the settings that tell it from the table's other rows of this name."""
        return f"{self.label} ({self.shown})" if self.shown else self.label

    @property
    def tuned(self) -> str:
        """How its settings were found, as in `tuned: 20 trials, validation of tofu_forget10`; "" for others."""
        return self.runs[0].result.unlearner.tuned_label

    @property
    def adapter(self) -> str:
        return adapter_of(self.name)

    @property
    def tier(self) -> Tier:
        """The lowest tier of its runs."""
        return max((run.filings[0].tier for run in self.runs), key=TIERS.index)

    @cached_property
    def id(self) -> str:
        return _short_hash([self.name, self.settings, self.runs[0].result.run_id])

    @property
    def attacked_by(self) -> list[str]:
        """The attacks that left a number."""
        return with_number(self.attacks)

    def strengths(self, lead: str, utility: str) -> list[Place]:
        """Means over the runs of forgetting and utility at other strengths; none where a run lacks a strength."""
        curves = [run.result.curves.get(STRENGTHS) for run in self.runs]
        lines = [line(curve, lead, utility) if curve else [] for curve in curves]
        if len({tuple(at for at, _, _ in each) for each in lines}) != 1:
            return []
        return [
            (places[0][0], *(math.fsum(numbers) / len(places) for numbers in list(zip(*places, strict=True))[1:]))
            for places in zip(*lines, strict=True)
        ]

    def cost(self, name: str) -> float | None:
        """The mean of a cost over the runs; None where nothing was trained or it is not known."""
        costs = [getattr(run.result.cost, name) for run in self.runs]
        known = [cost for cost in costs if cost]
        return math.fsum(known) / len(known) if known else None


@dataclass(frozen=True)
class Board:
    """One table: results that may be compared, best row first."""

    key: Key
    first: Result
    rows: Sequence[Row]
    columns: Sequence[Column]
    #: attack -> what the attacker needs, in the order of their names
    access: Mapping[str, str]
    #: metric -> whether a higher value is better; None for a metric without direction
    directions: Mapping[str, bool | None]
    lead: Column | None
    utility: Column | None
    #: the utility below which a row has lost too much, and the retain model's worst case
    floor: float | None
    beyond: float | None
    #: the interval of the target's worst case, that a row's must lie below to be ranked
    known: Ends | None
    #: the scored sets of its task
    sets: ScoredSets
    #: whether its rows are submissions whose target and retain rows are not the tree's
    apart: bool

    @cached_property
    def id(self) -> str:
        return _short_hash(self.key)

    @property
    def order(self) -> Order:
        """Where it stands: real ones and those with methods first."""
        return (self.toy, not self.methods, bool(self.first.limit), self.key)

    @property
    def toy(self) -> bool:
        return self.first.toy

    @property
    def attacks(self) -> list[str]:
        return list(self.access)

    @cached_property
    def least(self) -> dict[Column, str]:
        """For each column of the headline, the least difference between two rows that would be seen."""
        return least_differences(self)

    @cached_property
    def headline(self) -> list[Column]:
        """The ranking's two metrics, then the rest of the task's headline."""
        ranking = [column for column in (self.lead, self.utility) if column]
        named = [column for metric in self.first.headline for column in self.columns if column.metric == metric]
        return list(dict.fromkeys([*ranking, *named]))

    @cached_property
    def others(self) -> list[Column]:
        return [column for column in self.columns if column not in self.headline]

    @cached_property
    def themes(self) -> dict[str, list[Column]]:
        """The other metrics by what they are about."""
        return by_theme(self.others, self.sets)

    @property
    def attacked(self) -> bool:
        """Whether an attack is some row's worst case: without, the worst case is the lead metric itself."""
        return any(row.worst_attack for row in self.rows)

    @cached_property
    def tuned(self) -> bool:
        """Whether it has rows of tuned settings."""
        return any(row.tuned for row in self.rows)

    @property
    def runs(self) -> int:
        return sum(len(row.runs) for row in self.rows)

    @property
    def best(self) -> Row | None:
        """The first in the ranking; None where none forgot anything and kept its utility."""
        return next((row for row in self.rows if row.rank == 1 and not row.below), None)

    @property
    def methods(self) -> bool:
        """Whether it has rows beside those of the target and the retain model."""
        return any(not row.pinned for row in self.rows)

    @cached_property
    def under(self) -> dict[str, list[str]]:
        """Attack -> the metrics that show it: the ranking's, or the attack's own where it has no such number."""
        found = {}
        for name in self.access:
            metrics = list(dict.fromkeys(metric for row in self.rows for metric in row.attacks.get(name, {})))
            if self.lead and self.lead.metric in metrics:
                metrics = [self.lead.metric]
            found[name] = [metric for metric in metrics if not MetricKey(metric).is_recovery]
        return found


def _short_hash(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:8]
