"""What comes of a run. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from grun_bench.results.record import Records, load_records
from grun_bench.results.result import Result


@dataclass(frozen=True)
class Cell:
    """A filed result with its records; `reused` where it was there already."""

    result: Result
    records: Records
    path: Path
    reused: bool

    def attacked(self, attack: str, variant: str) -> Records | None:
        """The records of an attack's variant; None where there are none."""
        info = self.result.attacks.get(attack)
        saved = info.variants.get(variant) if info else None
        return load_records(self.path.with_name(saved.file)) if saved else None


@dataclass(frozen=True)
class Outcome:
    """The row of an unlearner, with those of the target and the retain model where they could be had."""

    cell: Cell
    target: Cell | None
    retain: Cell | None
