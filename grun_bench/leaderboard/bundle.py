"""Bundles: the folder that submits a method, read as what it is, untrusted input. No torch.

    card.json         who submits what: `Card`
    results/          <task>/<org__model>/<unlearner>/<run_id>.json, the rows and the target and retain rows that they
                      compare with; beside each the records that it names
    models/<run_id>/  the unlearned model as `run --save` writes it, safetensors only
    plugin.py         a method of its own; run by nobody who does not say so
    verified.json     what `grun-bench verify` found: `Mark` by result file

Nothing else may be in it, and nothing in it is executed by reading it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from grun_bench.core import untrusted
from grun_bench.core.strict_json import JSON_BYTES, parse_json, read_json
from grun_bench.core.untrusted import refuse
from grun_bench.leaderboard.marks import VERIFICATION, read_marks
from grun_bench.methods.saving import CARD as MODEL_CARD
from grun_bench.methods.saving import Saved
from grun_bench.results.filed import Filed
from grun_bench.results.result import Result
from grun_bench.results.store import read_filed, result_paths

CARD, RESULTS, MODELS, PLUGIN = "card.json", "results", "models", "plugin.py"

Line = Annotated[str, Field(min_length=1, max_length=2_000)]
Address = Annotated[str, Field(max_length=500, pattern=r"^https?://[^\s<>\"]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Checkpoint(_Strict):
    """An unlearned model on the Hub, for readers, where it is too large for the bundle: its id and commit."""

    repository: Annotated[str, Field(pattern=r"^[\w.-]{1,100}/[\w.-]{1,100}$")]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class Card(_Strict):
    """The method card. `tuning` declares what was tried before these settings, and on which data."""

    name: Line
    authors: Annotated[list[Line], Field(min_length=1, max_length=200)]
    paper: Address | None
    code: Address | None
    licence: Line
    tuning: Line
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True)
class Bundle:
    """A bundle that is in order as far as one can see without its records. `models`: run id -> saved model.

    A folder of reviewed results is read as one too, without card, models and plugin.
    """

    folder: Path
    card: Card | None
    results: list[Filed]
    models: dict[str, Saved]
    plugin: Path | None


def read_submitted(folder: Path, path: str) -> Filed:
    """A result that may be submitted. Refuses what is no result in its place, and one of a run with `--limit`."""
    filed = read_filed(folder, path)
    if filed.result.limit is not None:
        what = f"made with --limit {filed.result.limit}: a smoke test, not a benchmark result; run it without"
        refuse(filed.file, what)
    return filed


def read_bundle(folder: Path) -> Bundle:
    """Raises UsageError with the file and the place for the first thing in a folder that makes it no bundle."""
    if not (folder / CARD).is_file():
        paths = result_paths(folder)
        if not paths:
            refuse(folder, f"neither a bundle (no {CARD}; `grun-bench submit` makes one) nor a folder of results")
        return Bundle(folder, None, [read_submitted(folder, path) for path in paths], {}, None)
    files = untrusted.listing(folder)
    pattern = re.compile(rf"{RESULTS}(/[^/]+){{4}}\.json")
    results = [read_submitted(folder, path) for path in files if pattern.fullmatch(path)]
    if not results:
        refuse(folder, f"no result in {RESULTS}/<task>/<org__model>/<unlearner>/")
    models = _read_models(folder, files, {filed.result.run_id: filed.result for filed in results})
    known = {CARD, PLUGIN, VERIFICATION, *(filed.path for filed in results)}
    known |= {f"{filed.place}/{records.file}" for filed in results for records in filed.result.all_records()}
    for path in files:
        if path not in known and not _MODEL_FILE.fullmatch(path):
            refuse(folder / path, "has no place in a bundle, and no result names it")
    read_marks(folder)
    plugin = folder / PLUGIN if PLUGIN in files else None
    if plugin:
        untrusted.decode(untrusted.read(plugin, untrusted.TEXT_BYTES), plugin)
    return Bundle(folder, read_json(folder / CARD, Card), results, models, plugin)


# --- models -----------------------------------------------------------------------------------------------------------

#: what PEFT may be told by a stranger: the shape of LoRA matrices. Anything else must be absent, null or empty.
_LORA = {"r", "lora_alpha", "lora_dropout", "target_modules", "peft_version", "base_model_name_or_path"}
_LORA_FIXED = {
    "peft_type": "LORA",
    "bias": "none",
    "inference_mode": True,
    "init_lora_weights": True,
    "megatron_core": "megatron.core",
    "qalora_group_size": 16,
}
_MODEL_FILE = re.compile(rf"{MODELS}/([^/]+)/[^/]+")


def _read_models(folder: Path, files: list[str], results: dict[str, Result]) -> dict[str, Saved]:
    """Run id -> the saved model, for the results by run id."""
    models = {}
    for run_id in dict.fromkeys(match[1] for path in files if (match := _MODEL_FILE.fullmatch(path))):
        if run_id not in results:
            refuse(folder / MODELS / run_id, "a model of no result of this bundle")
        models[run_id] = read_model(folder / MODELS / run_id, results[run_id])
    return models


def read_model(folder: Path, result: Result) -> Saved:
    """A saved model whose every file is what it says: safetensors by content, strict JSON, plain text.

    Refuses everything else, and a model of another row than `result`.
    """
    names = sorted(path.name for path in folder.iterdir())
    for name in names:
        _check_model_file(folder / name)
    if MODEL_CARD not in names:
        refuse(folder, f"no {MODEL_CARD}: not what `grun-bench run --save` writes")
    saved: Saved = read_json(folder / MODEL_CARD, Saved)
    if saved.unlearner != result.unlearner.name or saved.run_id != result.run_id:
        refuse(folder / MODEL_CARD, f"a model of {saved.unlearner}, run {saved.run_id}, not of {result.run_id}")
    if saved.adapter is not None and saved.base != result.target:
        refuse(folder / MODEL_CARD, f"$.base: not the target model that {result.run_id} names")
    return saved


def _check_model_file(path: Path) -> None:
    if path.suffix == ".safetensors":
        untrusted.check_tensors(path)
        return
    if path.suffix not in (".json", ".txt", ".jinja"):
        refuse(path, "not a file that a saved model has (.safetensors, .json, .txt, .jinja)")
    if path.suffix == ".json":
        data = parse_json(untrusted.read(path, JSON_BYTES), path)
        if isinstance(data, dict) and "auto_map" in data:
            refuse(path, "$.auto_map: a model that brings its own code")
        if path.name == "adapter_config.json":
            _check_lora(data, path)
    else:
        untrusted.check_text(untrusted.read(path, untrusted.TEXT_BYTES), path)


def _check_lora(data: Any, path: Path) -> None:
    if not isinstance(data, dict):
        refuse(path, "$: not an object")
    for key, value in data.items():
        empty = value is None or value is False or value == [] or value == {}
        if key in _LORA or empty:
            continue
        if key not in _LORA_FIXED or value != _LORA_FIXED[key]:
            refuse(path, f"$.{key}: must be {_LORA_FIXED.get(key, 'null')!r}")
    modules = data.get("target_modules")
    if not isinstance(modules, list) or not all(isinstance(name, str) and name.isidentifier() for name in modules):
        refuse(path, "$.target_modules: must be a list of module names")
