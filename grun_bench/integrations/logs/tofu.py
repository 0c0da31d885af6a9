"""TOFU's own eval_log_aggregated.json (locuslab/tofu @ bdc209e) -> records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from grun_bench.integrations.logs.log import ImportedLog, LogFile, Rows
from grun_bench.results.record import Continuation, Generation, Record, Records

_FILES = {
    "eval_log_forget.json": "forget",
    "eval_log.json": "retain",
    "eval_real_author_wo_options.json": "real_authors",
    "eval_real_world_wo_options.json": "world_facts",
}
#: our key's end -> (the column of their rows, the value of one entry), for what the log gives per row
_COLUMNS: dict[str, tuple[str, Callable[[float], float]]] = {
    "rouge1_recall": ("rouge1_recall", float),
    "rougeL_recall": ("rougeL_recall", float),
    "probability": ("avg_gt_loss", lambda loss: float(np.exp(-loss))),
    "normalised_probability": ("normalized_gt_loss", lambda loss: float(np.exp(-loss))),
}
_METRICS = (
    "probability",
    "normalised_probability",
    "rouge1_recall",
    "rougeL_recall",
    "truth_ratio",
    "model_utility",
    "forget_quality",
)


def read_tofu(log: LogFile) -> ImportedLog:
    """The log as records. Raises UsageError, naming the place, where a part is missing or is not as it should be."""
    records, aggregates = [], {}
    for file, name in _FILES.items():
        records += _records(log, file, name)
        for ours, (column, value) in _COLUMNS.items():
            if column in log.part(file):
                rows = log.rows(file, column).items()
                values = [value(log.number(item, f"{file}/{column} row {index}")) for index, item in rows]
                aggregates[f"{name}_{ours}"] = float(np.mean(values))
    return ImportedLog(Records(records), "locuslab/tofu", "tofu", log.sha256, aggregates, _METRICS)


@dataclass
class _Columns:
    """The columns of one file of the log, all over the same rows."""

    log: LogFile
    file: str
    parts: dict[str, Rows] = field(default_factory=dict)

    def get(self, name: str, index: int) -> Any:
        if name not in self.parts:
            self.parts[name] = self.log.rows(self.file, name)
        if index not in self.parts[name]:
            raise self.log.error(f"{self.file}/{name}", f"row {index} is missing")
        return self.parts[name][index]

    def number(self, name: str, index: int) -> float:
        return self.log.number(self.get(name, index), f"{self.file}/{name} row {index}")

    def numbers(self, name: str, index: int) -> list[float]:
        return self.log.numbers(self.get(name, index), f"{self.file}/{name} row {index}")


def _records(log: LogFile, file: str, name: str) -> list[Record]:
    columns = _Columns(log, file)
    records = []
    for index, texts in log.rows(file, "generated_text").items():
        place = f"{file}/generated_text row {index}"
        if not isinstance(texts, list) or len(texts) != 3:
            raise log.error(place, "not a list of question, generated text and answer")
        question, written, answer = (log.text(text, place) for text in texts)
        record = Record(name, index, question, _answer(columns, "gt", "avg_gt_loss", index, answer))
        record.generation = Generation(written)
        record.paraphrased = _answer(columns, "paraphrased", "avg_paraphrased_loss", index, "")
        losses = columns.numbers("average_perturb_loss", index)
        record.perturbed = [Continuation("", loss=loss) for loss in losses]
        records.append(record)
    return records


def _answer(columns: _Columns, kind: str, column: str, index: int, text: str) -> Continuation:
    tokens = int(columns.number(f"num_token_{kind}", index))
    return Continuation(text, loss=columns.number(column, index), tokens=tokens)
