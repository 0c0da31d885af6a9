"""What comes of a run. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from grun_bench.core.errors import GrunBenchError, UsageError
from grun_bench.results.filed import read_records, records_problem
from grun_bench.results.record import Records
from grun_bench.results.result import Result

if TYPE_CHECKING:
    from pandas import DataFrame

    from grun_bench.models.lm import LM


@dataclass(frozen=True)
class Cell:
    """A scored model: its result, its records, the file of the result; `reused` where that was there already."""

    result: Result
    records: Records
    path: Path
    reused: bool

    @property
    def metrics(self) -> Mapping[str, float | None]:
        """Metric -> value without attack, None where there is none (`result.reasons` says why)."""
        return {metric: self.result.value(metric) for metric in self.result.metrics()}

    def attacked(self, attack: str, variant: str) -> Records | None:
        """The records of an attack's variant; None where there are none. Raises GrunBenchError for other ones."""
        info = self.result.attacks.get(attack)
        saved = info.variants.get(variant) if info else None
        if saved is None:
            return None
        if problem := records_problem(self.path, [saved]):
            raise GrunBenchError(f"{self.path}: {problem}. The same command attacks the row again.")
        return read_records(self.path, saved)


@dataclass(frozen=True)
class Outcome:
    """What came of a run: the row of the unlearner (`cell`), and those of the target and the retain model, if any.

    `kept` is the unlearned model, where it was to be kept in memory; `saved` the folder that it was saved in.
    """

    cell: Cell
    target: Cell | None
    retain: Cell | None
    kept: LM | None = None
    saved: Path | None = None

    @property
    def result(self) -> Result:
        """The result, with all its values, also under attack, and its provenance."""
        return self.cell.result

    @property
    def records(self) -> Records:
        """What the unlearned model answered, example by example, without attack."""
        return self.cell.records

    @property
    def metrics(self) -> Mapping[str, float | None]:
        """Metric -> value without attack, None where there is none (`result.reasons` says why)."""
        return self.cell.metrics

    def to_frame(self) -> DataFrame:
        """The result as a table, one line a metric and attack; `grun_bench.load_results` says what its columns are."""
        from grun_bench.results.frame import to_frame

        return to_frame(self.result)

    @property
    def path(self) -> Path | None:
        """The result file; None where nothing was filed."""
        return self.cell.path if self.cell.path.exists() else None

    @cached_property
    def model(self) -> LM:
        """The unlearned model: as it was kept in memory, else loaded from the folder that it was saved in.

        `model.model` and `model.tokenizer` are those of Hugging Face. Raises UsageError where it was neither.
        """
        if self.kept is not None:
            return self.kept
        if self.saved is None:
            raise UsageError("the model was not kept: run with keep_model=True, or save it with save=FOLDER.")
        from grun_bench.methods.saving import load

        hardware = self.result.hardware
        spread = "auto" if "device_map" in hardware else None
        return load(self.saved, "auto" if spread else hardware["device"], hardware["dtype"], device_map=spread)
