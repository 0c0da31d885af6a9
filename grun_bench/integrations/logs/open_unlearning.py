"""OpenUnlearning's TOFU_EVAL.json (locuslab/open-unlearning @ d3d7cf9) -> records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grun_bench.integrations.logs.log import ImportedLog, LogFile, Rows
from grun_bench.results.record import Continuation, Generation, Record, Records

_SHORT = {"forget": "forget", "retain": "retain", "ra": "real_authors", "wf": "world_facts"}
_TRUTH_RATIO = {name: f"{name}_Truth_Ratio" for name in _SHORT} | {"forget": "forget_truth_ratio"}
_MIA = ("loss", "zlib", "min_k", "min_k_plus_plus", "reference", "gradnorm")
#: our name of a per-row score -> theirs, for what their rows do not let us recompute
_SCORES = {
    "extraction_strength_open_unlearning": "extraction_strength",
    "exact_memorisation": "exact_memorization",
}


def read_open_unlearning(log: LogFile) -> ImportedLog:
    """The log as records. Raises UsageError, naming the place, where a part is missing or is not as it should be."""
    records = [record for short, name in _SHORT.items() for record in _qa_records(log, short, name)]
    forget = {record.index: record for record in records if record.set == "forget"}
    for ours, theirs in _SCORES.items():
        if theirs in log.data:
            _store(log, ours, (theirs, "value_by_index"), forget)
    records += _membership(log, forget)
    keys = _keys(log)
    aggregates = {}
    for ours, theirs in keys.items():
        value = log.part(theirs, "agg_value")
        if value is not None:
            aggregates[ours] = log.number(value, f"{theirs}/agg_value")
    metrics = tuple(dict.fromkeys(_metric_of(key) for key in keys))
    return ImportedLog(Records(records), "OpenUnlearning", "open-unlearning", log.sha256, aggregates, metrics)


def _qa_records(log: LogFile, short: str, name: str) -> list[Record]:
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


def _optional(log: LogFile, part: str) -> Rows | None:
    return log.rows(part, "value_by_index") if part in log.data else None


def _continuation(log: LogFile, row: Any, place: str, text: str = "") -> Continuation:
    loss, probability = (log.number(log.item(row, key, place), place) for key in ("avg_loss", "prob"))
    return Continuation(text, loss=loss, probability=probability)


def _continuations(log: LogFile, row: Any, place: str) -> list[Continuation]:
    losses, probabilities = (log.numbers(log.item(row, key, place), place) for key in ("avg_loss", "prob"))
    if len(losses) != len(probabilities):
        raise log.error(place, f"{len(losses)} losses but {len(probabilities)} probabilities")
    return [Continuation("", loss=loss, probability=prob) for loss, prob in zip(losses, probabilities, strict=True)]


def _store(log: LogFile, ours: str, part: tuple[str, ...], records: Mapping[int, Record]) -> None:
    """Put the scores of a part into the records of the same rows. Where theirs is null there was no token to score."""
    rows = log.rows(*part)
    place = "/".join(part)
    if rows.keys() != records.keys():
        raise log.error(place, "its rows are not those of the answers")
    for index, row in rows.items():
        score = log.item(row, "score", f"{place} row {index}")
        if score is None:
            records[index].answer.tokens = 0
        else:
            records[index].scores[ours] = log.number(score, f"{place} row {index}")


def _membership(log: LogFile, forget: Mapping[int, Record]) -> list[Record]:
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


def _keys(log: LogFile) -> dict[str, str]:
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
