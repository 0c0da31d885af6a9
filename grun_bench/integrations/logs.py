"""Published evaluation logs of other tools -> records. No torch.

An imported log is read into the same records as our own scoring leaves, so every aggregate is recomputed from its rows.
Where a log gives only a score per row and not what it was computed from, the score goes into `Record.scores` under the
metric's name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from grun_bench.core.errors import UsageError, unknown
from grun_bench.results.record import Continuation, Generation, Record, Records

Rows = dict[int, Any]


@dataclass(frozen=True)
class ImportedLog:
    """A log read into records.

    `aggregates` are the log's own numbers under our keys (those it has), `metrics` the metrics that its rows allow to
    recompute them. `protocol` names how the tool prompts and scores; rows of two protocols never meet in one table.
    """

    records: Records
    tool: str
    protocol: str
    sha256: str
    aggregates: dict[str, float]
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class _Log:
    """The parsed file, with the place for error messages."""

    path: Path
    data: Mapping[str, Any]

    def error(self, place: str, what: str) -> UsageError:
        return UsageError(f"{self.path}: {place}: {what}.")

    def part(self, *keys: str) -> Any:
        """The value under a path of keys. Raises UsageError where the path ends."""
        found: Any = self.data
        for depth, key in enumerate(keys):
            if not isinstance(found, Mapping) or key not in found:
                raise self.error("/".join(keys[: depth + 1]), "missing")
            found = found[key]
        return found

    def rows(self, *keys: str) -> Rows:
        """A part that maps row numbers to values. Raises UsageError when it does not, or has no row."""
        part = self.part(*keys)
        place = "/".join(keys)
        if not isinstance(part, Mapping) or not part:
            raise self.error(place, "no rows by their number")
        if not all(key.isdecimal() for key in part):
            raise self.error(place, "a row whose key is not a number")
        return {int(key): part[key] for key in sorted(part, key=int)}

    def number(self, value: Any, place: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(place, f"'{value}' is not a number")
        return float(value)

    def text(self, value: Any, place: str) -> str:
        if not isinstance(value, str):
            raise self.error(place, f"'{value}' is not a text")
        return value

    def numbers(self, value: Any, place: str) -> list[float]:
        if not isinstance(value, list) or not value:
            raise self.error(place, "not a list of numbers")
        return [self.number(item, place) for item in value]

    def item(self, row: Any, key: str, place: str) -> Any:
        """One field of a row. Raises UsageError when the row has none of that name."""
        if not isinstance(row, Mapping) or key not in row:
            raise self.error(place, f"'{key}' is missing")
        return row[key]


def read_log(path: Path, format: str) -> ImportedLog:
    """Read a published log; `format` is `open-unlearning` (TOFU_EVAL.json) or `tofu` (eval_log_aggregated.json).

    Raises UsageError, naming the file and the place, for a file that cannot be read, is not JSON, is of another format
    or lacks a part.
    """
    if format not in FORMATS:
        raise unknown("log format", format, FORMATS)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error}).") from None
    try:
        data = json.loads(content)
    except ValueError as error:
        raise UsageError(f"{path}: not JSON ({error}).") from None
    if not isinstance(data, dict):
        raise UsageError(
            f"{path}: not a log of the format '{format}': it holds a {type(data).__name__}, not an object."
        )
    fits = [name for name, (mark, _) in FORMATS.items() if mark in data]
    if format not in fits:
        hint = f"; it looks like --format {fits[0]}" if fits else ""
        raise UsageError(f"{path}: not a log of the format '{format}': no '{FORMATS[format][0]}'{hint}.")
    read = FORMATS[format][1]
    return read(_Log(path, data), hashlib.sha256(content).hexdigest())


def check_reference(records: Records, reference: Records, source: str) -> None:
    """Refuse a retain log whose forget rows are not those of `records`, for one of another split compares nothing.

    Rows of the same number must have the same answer (letters and digits compared, since tools decode differently);
    either side may have more rows than the other. Raises UsageError with the first pair that differs.
    """
    known = {row.index: row.answer.text for row in reference.of("forget")}
    for row in records.of("forget"):
        ours, theirs = row.answer.text, known.get(row.index)
        if ours and theirs and _letters(ours) != _letters(theirs):
            raise UsageError(
                f"{source}: its forget rows are not this task's: row {row.index} answers '{_short(theirs)}' there and "
                f"'{_short(ours)}' here. Give the log of this task's retain model."
            )


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _short(text: str, limit: int = 50) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


# --- OpenUnlearning -------------------------------------------------------------------------------------------------

_SHORT = {"forget": "forget", "retain": "retain", "ra": "real_authors", "wf": "world_facts"}
_TRUTH_RATIO = {name: f"{name}_Truth_Ratio" for name in _SHORT} | {"forget": "forget_truth_ratio"}
#: the sets whose answers every log has
SETS = tuple(_SHORT.values())
_MIA = ("loss", "zlib", "min_k", "min_k_plus_plus", "reference", "gradnorm")
#: our name of a per-row score -> theirs, for what their rows do not let us recompute
_SCORES = {
    "extraction_strength_open_unlearning": "extraction_strength",
    "exact_memorisation": "exact_memorization",
}


def _open_unlearning(log: _Log, sha256: str) -> ImportedLog:
    records = [record for short, name in _SHORT.items() for record in _qa_records(log, short, name)]
    forget = {record.index: record for record in records if record.set == "forget"}
    for ours, theirs in _SCORES.items():
        if theirs in log.data:
            _store(log, ours, (theirs, "value_by_index"), forget)
    records += _membership(log, forget)
    keys = _open_unlearning_keys(log)
    aggregates = {}
    for ours, theirs in keys.items():
        value = log.part(theirs, "agg_value")
        if value is not None:
            aggregates[ours] = log.number(value, f"{theirs}/agg_value")
    metrics = tuple(dict.fromkeys(_metric_of(key) for key in keys))
    return ImportedLog(Records(records), "OpenUnlearning", "open-unlearning", sha256, aggregates, metrics)


def _qa_records(log: _Log, short: str, name: str) -> list[Record]:
    """The records of one question set; its answers, and what of generation, paraphrase and perturbation is there."""
    answers = log.rows(f"{short}_Q_A_Prob", "value_by_index")
    written = _optional(log, f"{short}_Q_A_ROUGE")
    paraphrased = _optional(log, f"{short}_Q_A_PARA_Prob")
    perturbed = _optional(log, f"{short}_Q_A_PERT_Prob")
    for part, rows in (
        (f"{short}_Q_A_ROUGE", written),
        (f"{short}_Q_A_PARA_Prob", paraphrased),
        (f"{short}_Q_A_PERT_Prob", perturbed),
    ):
        if rows is not None and rows.keys() != answers.keys():
            raise log.error(part, f"its rows are not those of {short}_Q_A_Prob")
    records = []
    for index, row in answers.items():
        record = Record(name, index, "", _continuation(log, row, f"{short}_Q_A_Prob row {index}"))
        if written is not None:
            place, text = f"{short}_Q_A_ROUGE row {index}", written[index]
            record.question = log.text(text.get("input", "") if isinstance(text, Mapping) else "", place)
            record.answer.text = log.text(log.item(text, "ground_truth", place), place)
            record.generation = Generation(log.text(log.item(text, "generation", place), place))
        if paraphrased is not None:
            record.paraphrased = _continuation(log, paraphrased[index], f"{short}_Q_A_PARA_Prob row {index}")
        if perturbed is not None:
            record.perturbed = _continuations(log, perturbed[index], f"{short}_Q_A_PERT_Prob row {index}")
        records.append(record)
    return records


def _optional(log: _Log, part: str) -> Rows | None:
    return log.rows(part, "value_by_index") if part in log.data else None


def _continuation(log: _Log, row: Any, place: str, text: str = "") -> Continuation:
    loss, probability = (log.number(log.item(row, key, place), place) for key in ("avg_loss", "prob"))
    return Continuation(text, loss=loss, probability=probability)


def _continuations(log: _Log, row: Any, place: str) -> list[Continuation]:
    losses, probabilities = (log.numbers(log.item(row, key, place), place) for key in ("avg_loss", "prob"))
    if len(losses) != len(probabilities):
        raise log.error(place, f"{len(losses)} losses but {len(probabilities)} probabilities")
    return [Continuation("", loss=loss, probability=prob) for loss, prob in zip(losses, probabilities, strict=True)]


def _store(log: _Log, ours: str, part: tuple[str, ...], records: Mapping[int, Record]) -> None:
    """Put the scores of a part into the records of the same rows. Their null (no token to score) stays away."""
    rows = log.rows(*part)
    place = "/".join(part)
    if rows.keys() != records.keys():
        raise log.error(place, "its rows are not those of the answers")
    for index, row in rows.items():
        score = log.item(row, "score", f"{place} row {index}")
        if score is not None:
            records[index].scores[ours] = log.number(score, f"{place} row {index}")


def _membership(log: _Log, forget: Mapping[int, Record]) -> list[Record]:
    """Store the attacks' scores in the forget records; the records of the holdout set, which only the attacks know."""
    holdout: dict[int, Record] = {}
    for attack in (f"mia_{name}" for name in _MIA if f"mia_{name}" in log.data):
        rows = log.rows(attack, "holdout", "value_by_index")
        holdout = holdout or {index: Record("holdout", index, "", Continuation("")) for index in rows}
        _store(log, attack, (attack, "forget", "value_by_index"), forget)
        _store(log, attack, (attack, "holdout", "value_by_index"), holdout)
    for record in holdout.values():
        record.answer.loss = record.scores.get("mia_loss")
    return list(holdout.values())


def _open_unlearning_keys(log: _Log) -> dict[str, str]:
    """Our key -> the log's metric, for every aggregate of the log that can be recomputed from its rows."""
    keys = {}
    for short, name in _SHORT.items():
        keys[f"{name}_probability"] = f"{short}_Q_A_Prob"
        keys[f"{name}_paraphrased_probability"] = f"{short}_Q_A_PARA_Prob"
        keys[f"{name}_perturbed_probability"] = f"{short}_Q_A_PERT_Prob"
        keys[f"{name}_normalised_probability_open_unlearning"] = f"{short}_Q_A_Prob_normalised"
        keys[f"{name}_rougeL_recall"] = f"{short}_Q_A_ROUGE"
        keys[f"{name}_truth_ratio_open_unlearning"] = _TRUTH_RATIO[short]
    keys |= {f"forget_{ours}": theirs for ours, theirs in _SCORES.items()}
    keys |= {f"mia_{name}": f"mia_{name}" for name in _MIA}
    keys["model_utility_open_unlearning"] = "model_utility"
    keys["forget_quality_open_unlearning"] = "forget_quality"
    # without a retain log the tool leaves forget quality null and takes one half for the retain model's AUC
    alone = "forget_quality" not in log.data or log.part("forget_quality", "agg_value") is None
    keys["privleak_half" if alone else "privleak"] = "privleak"
    return {ours: theirs for ours, theirs in keys.items() if theirs in log.data}


def _metric_of(key: str) -> str:
    """The metric behind a key: the key without its set."""
    return next((key.removeprefix(f"{name}_") for name in _SHORT.values() if _per_set(key, name)), key)


def _per_set(key: str, name: str) -> bool:
    return key.startswith(f"{name}_") and not key.startswith("forget_quality")


# --- locuslab/tofu --------------------------------------------------------------------------------------------------

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
_TOFU_METRICS = (
    "probability",
    "normalised_probability",
    "rouge1_recall",
    "rougeL_recall",
    "truth_ratio",
    "model_utility",
    "forget_quality",
)


def _tofu(log: _Log, sha256: str) -> ImportedLog:
    records, aggregates = [], {}
    for file, name in _FILES.items():
        records += _tofu_records(log, file, name)
        for ours, (column, value) in _COLUMNS.items():
            if column in log.part(file):
                rows = log.rows(file, column).items()
                values = [value(log.number(item, f"{file}/{column} row {index}")) for index, item in rows]
                aggregates[f"{name}_{ours}"] = float(np.mean(values))
    return ImportedLog(Records(records), "locuslab/tofu", "tofu", sha256, aggregates, _TOFU_METRICS)


@dataclass
class _Columns:
    """The columns of one file of the log, all over the same rows."""

    log: _Log
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


def _tofu_records(log: _Log, file: str, name: str) -> list[Record]:
    columns = _Columns(log, file)
    records = []
    for index, texts in log.rows(file, "generated_text").items():
        place = f"{file}/generated_text row {index}"
        if not isinstance(texts, list) or len(texts) != 3:
            raise log.error(place, "not a list of question, generated text and answer")
        question, written, answer = (log.text(text, place) for text in texts)
        record = Record(name, index, question, _tofu_answer(columns, "gt", "avg_gt_loss", index, answer))
        record.generation = Generation(written)
        record.paraphrased = _tofu_answer(columns, "paraphrased", "avg_paraphrased_loss", index, "")
        losses = columns.numbers("average_perturb_loss", index)
        record.perturbed = [Continuation("", loss=loss) for loss in losses]
        records.append(record)
    return records


def _tofu_answer(columns: _Columns, kind: str, column: str, index: int, text: str) -> Continuation:
    tokens = int(columns.number(f"num_token_{kind}", index))
    return Continuation(text, loss=columns.number(column, index), tokens=tokens)


#: format -> (a part by which a log of it is known, its reader)
FORMATS: dict[str, tuple[str, Callable[[_Log, str], ImportedLog]]] = {
    "open-unlearning": ("forget_Q_A_Prob", _open_unlearning),
    "tofu": ("eval_log.json", _tofu),
}
