"""What a metric is given: the records of one set, or all of a model's by the role of their sets. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from grun_bench.results.record import Record, Records
from grun_bench.tasks.roles import Role
from grun_bench.tasks.sets import ScoredSets


class SetRecords(list[Record]):
    """The records of one scored set, in row order, with its `name` and its `role`."""

    def __init__(self, name: str, role: Role, records: Iterable[Record]) -> None:
        super().__init__(records)
        self.name, self.role = name, role


@dataclass(frozen=True)
class ScoredRecords:
    """The records of one model on one task, by what their sets are to unlearning."""

    records: Records
    sets: ScoredSets

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def taking(self, metric: str) -> ScoredRecords:
        """The same of the sets alone of which another metric is taken."""
        return ScoredRecords(self.records, self.sets.taking(metric))

    def of(self, role: Role) -> list[Record]:
        """The records of the scored sets with this role, set by set, in row order."""
        return [record for rows in self.each(role) for record in rows]

    def each(self, role: Role) -> list[SetRecords]:
        """The same, a list a set."""
        return [SetRecords(name, role, self.records.of(name)) for name in self.sets.of(role)]
