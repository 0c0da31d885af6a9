"""A filed row with the target's and the retain model's, and the records that they left. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from grun_bench.core.plugins import Control
from grun_bench.results.filed import read_records, records_problem
from grun_bench.results.record import Records
from grun_bench.results.result import Result
from grun_bench.results.store import controls_beside, read_result


@dataclass(frozen=True)
class FiledRow:
    """A result and its file. Records are read from beside it when they are asked for."""

    result: Result
    path: Path
    _read: dict[tuple[str, str], Records | None] = field(default_factory=dict, repr=False, compare=False)

    def records(self, attack: str = "", variant: str = "") -> Records | None:
        """What the model answered, without attack or under a variant of one; None where it left no records, or they
        are not those that the result names. Raises UsageError for records that are none."""
        key = (attack, variant)
        if key not in self._read:
            info = self.result.attacks.get(attack)
            named = self.result.records if not attack else info.variants.get(variant) if info else None
            there = named is not None and records_problem(self.path, [named]) is None
            self._read[key] = read_records(self.path, named) if named and there else None
        return self._read[key]

    def worst_variant(self, metric: str, attack: str) -> str:
        """The variant of an attack that its worst value of a metric is of; "" where none has it."""
        value, info = self.result.value(metric, attack), self.result.attacks.get(attack)
        variants = info.variants if info else ()
        return next((each for each in variants if self.result.value(metric, attack, each) == value), "")


@dataclass(frozen=True)
class Row:
    """The row that is judged (`own`), and by role those of the models it is compared with, as far as they are there."""

    own: FiledRow
    controls: Mapping[Control, FiledRow]

    @property
    def result(self) -> Result:
        return self.own.result

    @property
    def target(self) -> FiledRow | None:
        return self.controls.get("target")

    @property
    def retain(self) -> FiledRow | None:
        return self.controls.get("retain model")


def read_row(path: Path) -> Row:
    """The row of a result file with the controls that lie beside it. Raises UsageError where a file is no result."""
    result, folder = read_result(path), path.resolve().parent.parent
    beside = controls_beside(path, result)
    return Row(
        FiledRow(result, path),
        {role: FiledRow(each, folder / each.unlearner.name / f"{each.run_id}.json") for role, each in beside.items()},
    )
