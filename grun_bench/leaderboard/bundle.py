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

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from grun_bench.core import untrusted
from grun_bench.core.errors import UsageError
from grun_bench.core.untrusted import refuse
from grun_bench.methods.saving import CARD as MODEL_CARD
from grun_bench.methods.saving import Saved
from grun_bench.results.migrations import migrate
from grun_bench.results.result import Result, result_files
from grun_bench.results.store import Row, records_of

CARD, RESULTS, MODELS, PLUGIN, VERIFICATION = "card.json", "results", "models", "plugin.py", "verified.json"

T = TypeVar("T")
Line = Annotated[str, Field(min_length=1, max_length=2_000)]
Address = Annotated[str, Field(max_length=500, pattern=r"^https?://[^\s<>\"]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


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


class Mark(_Strict):
    """How far a result file was verified: its hash, the tier, the day, and the harness that did it."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    tier: Literal["recomputed", "re-run"]
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    harness: Annotated[str, Field(max_length=100)]


@dataclass(frozen=True)
class Bundle:
    """A bundle that is in order as far as one can see without its records. `models`: run id -> saved model.

    A folder of reviewed results is read as one too, without card, models and plugin.
    """

    folder: Path
    card: Card | None
    rows: list[Row]
    models: dict[str, Saved]
    plugin: Path | None


def checked(kind: type[T] | Any, content: bytes, place: object, migrate: Callable[[Any], Any] = lambda data: data) -> T:
    """Strict JSON as a value of this type; refused with the place where it is another.

    `migrate` makes today's form of an older one.
    """
    data = untrusted.parse_json(content, place)
    try:
        today = migrate(data)
    except UsageError as error:
        refuse(place, str(error).rstrip("."))
    if today is not data:
        content = json.dumps(today).encode()
    try:
        return TypeAdapter(kind).validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        refuse(place, f"${where}: {first['msg'][:200]}")


def read_json(path: Path, kind: Any) -> Any:
    """A JSON file of this type, strictly."""
    return checked(kind, untrusted.read(path, untrusted.JSON_BYTES), path)


def read_row(folder: Path, path: str) -> Row:
    """A result file in its place `[results/]<task>/<org__model>/<unlearner>/<run_id>.json`, with fields that agree."""
    place = folder / path
    content = untrusted.read(place, untrusted.JSON_BYTES)
    result: Result = checked(Result, content, place, migrate)
    said = [result.task, result.model.replace("/", "__"), result.unlearner.name, f"{result.run_id}.json"]
    if path.split("/")[-4:] != said:
        refuse(place, f"its fields say that it belongs in {'/'.join(said)}")
    for name in ("results", "n_samples", "higher_is_better"):
        if set(getattr(result, name)) != {result.task}:
            refuse(place, f"$.{name.replace('_s', '-s')}: must hold the task {result.task} and nothing else")
    odd = next((key for key in result.results[result.task] if not key.rpartition(",")[0]), None)
    if odd is not None:
        refuse(place, f"$.results.{result.task}: the key '{odd}' is not <metric>,<filter>")
    for records in records_of(result):
        if not untrusted.NAME.fullmatch(records.file) or not records.file.endswith(".records.jsonl"):
            refuse(place, f"the records '{records.file}' are no file beside it")
    if result.limit is not None:
        refuse(place, f"made with --limit {result.limit}: a smoke test, not a benchmark result; run it without")
    return Row(result, folder, path, hashlib.sha256(content).hexdigest())


def read_bundle(folder: Path) -> Bundle:
    """Raises UsageError with the file and the place for the first thing in a folder that makes it no bundle."""
    if not (folder / CARD).is_file():
        paths = [path.relative_to(folder).as_posix() for path in result_files(folder)]
        if not paths:
            refuse(folder, f"neither a bundle (no {CARD}; `grun-bench submit` makes one) nor a folder of results")
        return Bundle(folder, None, [read_row(folder, path) for path in paths], {}, None)
    files = untrusted.listing(folder)
    rows = [read_row(folder, path) for path in files if re.fullmatch(rf"{RESULTS}(/[^/]+){{4}}\.json", path)]
    known = {CARD, PLUGIN, VERIFICATION, *(row.path for row in rows)}
    known |= {f"{row.path.rpartition('/')[0]}/{records.file}" for row in rows for records in records_of(row.result)}
    inside = re.compile(rf"{MODELS}/([^/]+)/[^/]+")
    saved = dict.fromkeys(match[1] for path in files if (match := inside.fullmatch(path)))
    for path in files:
        if path not in known and not inside.fullmatch(path):
            refuse(folder / path, "has no place in a bundle, and no result names it")
    if not rows:
        refuse(folder, f"no result in {RESULTS}/<task>/<org__model>/<unlearner>/")
    results = {row.result.run_id: row.result for row in rows}
    for run_id in saved:
        if run_id not in results:
            refuse(folder / MODELS / run_id, "a model of no result of this bundle")
    models = {run_id: read_model(folder / MODELS / run_id, results[run_id]) for run_id in saved}
    if VERIFICATION in files:
        read_json(folder / VERIFICATION, dict[str, Mark])
    plugin = folder / PLUGIN if PLUGIN in files else None
    if plugin:
        untrusted.decode(untrusted.read(plugin, untrusted.TEXT_BYTES), plugin)
    return Bundle(folder, read_json(folder / CARD, Card), rows, models, plugin)


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
        data = untrusted.parse_json(untrusted.read(path, untrusted.JSON_BYTES), path)
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
