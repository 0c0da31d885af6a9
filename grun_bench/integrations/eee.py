"""Results as records of Every Eval Ever, schema 0.3.0 (evaleval/every_eval_ever on GitHub). No torch.

One file a result, `data/grun-bench/<org>/<model>/<uuid>.json`, as their datastore lays them out. An unlearned model is
no model that anybody could download by the name of its base, so its name is `<org>/<model>-<unlearner>-<run id>`; what
it was made from is in the details. Values without a number and metrics without a direction have no place in the format.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grun_bench
from grun_bench.core import registry
from grun_bench.core.files import write_whole
from grun_bench.metrics.about import Bounds, bounds_by_name, bounds_of
from grun_bench.results.metric_key import MetricKey
from grun_bench.results.result import Result, key_text
from grun_bench.results.sharing import data_sets

SCHEMA = "0.3.0"
#: the folder of their datastore that the records are in
COLLECTION = "grun-bench"


def write_records(results: Sequence[Result], out: Path, organisation: str = "unknown") -> list[Path]:
    """A file for each result that is no toy and did not diverge; `organisation` is whose results they are.

    Returns the files. Raises GrunBenchError where one cannot be written.
    """
    bounds, paths, now = bounds_by_name(), [], time.time()
    for result in results:
        if result.toy or result.status != "ok":
            continue
        found = record(result, organisation, now, bounds)
        developer, _, model = found["model_info"]["id"].partition("/")
        digest = hashlib.sha256(f"{result.task} {result.run_id}".encode()).digest()
        name = uuid.UUID(bytes=digest[:16], version=4)
        paths.append(out / "data" / COLLECTION / developer / model / f"{name}.json")
        write_whole(paths[-1], json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return paths


def record(result: Result, organisation: str, now: float, bounds: Mapping[str, Bounds]) -> dict[str, Any]:
    """The record of a result, made at the time `now` (seconds of the Unix epoch)."""
    model = _model(result)
    imported = {"imported_from": result.imported.tool} if result.imported else {}
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{COLLECTION}/{result.task}/{model['id']}/{now:.0f}",
        "evaluation_timestamp": result.date,
        "retrieved_timestamp": f"{now:.0f}",
        "source_metadata": {
            "source_name": "grun-bench",
            "source_type": "evaluation_run",
            "source_organization_name": organisation,
            "evaluator_relationship": "third_party" if result.imported or _is_control(result) else "first_party",
        },
        "eval_library": {
            "name": "grun-bench",
            "version": result.packages.get("grun-bench", grun_bench.__version__),
            "additional_details": _texts({"protocol": result.protocol, "git_hash": result.git_hash}) | imported,
        },
        "model_info": model,
        "evaluation_results": list(_values(result, bounds)),
    }


def _is_control(result: Result) -> bool:
    return registry.role_of(result.unlearner.name) is not None


def _model(result: Result) -> dict[str, Any]:
    organisation, _, name = result.model.rpartition("/")
    part = re.sub(r"[^\w.+-]", "_", f"{name}-{result.unlearner.name}-{result.run_id}")
    base = {key: result.target.get(key) for key in ("name", "revision", "sha256")}
    told = {
        **{f"base_{key}": value for key, value in base.items()},
        **{"unlearner": result.unlearner.name, "settings": result.unlearner.settings, "seed": result.seed},
        **{"device": result.hardware.get("device"), "dtype": result.hardware.get("dtype")},
        **{"deployment_type": "self_deployed", "model_availability": "unknown"},
    }
    return {
        "name": f"{result.unlearner.name} on {result.model}",
        "id": f"{re.sub(r'[^a-zA-Z0-9_.+-]', '_', organisation) or COLLECTION}/{part}",
        "additional_details": _texts(told),
    }


def _texts(details: Mapping[str, Any]) -> dict[str, str]:
    """As the schema has details: all values are texts."""
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in details.items() if v is not None}


def _values(result: Result, bounds: Mapping[str, Bounds]) -> Iterator[dict[str, Any]]:
    sources = data_sets(result)
    for key in result.metric_keys():
        value, better = result.value(key.metric, key.attack, key.variant), result.better(key.metric)
        if value is None or better is None:
            continue
        found = _value(result, key, value, bounds_of(key.recovered.metric, bounds))
        source = {"dataset_name": result.task, "additional_details": _texts(_data(result))}
        of_hub = {"source_type": "hf_dataset", "hf_repo": sources[0]} if sources else {"source_type": "other"}
        yield found | {"source_data": source | of_hub}


def _data(result: Result) -> dict[str, Any]:
    return {"sha256": result.dataset_hash, "dataset": result.dataset, "limit": result.limit}


def _value(result: Result, key: MetricKey, value: float, bounds: Bounds) -> dict[str, Any]:
    low, high = (-math.inf, math.inf) if key.is_recovery else bounds
    where = f", under {key.attack}{f':{key.variant}' if key.variant else ''}" if key.attack else ""
    score: dict[str, Any] = {"score": value}
    details = {"attack": key.attack or None, "variant": key.variant or ("worst" if key.attack else None)}
    if key.attack in result.attacks:
        details["access"] = result.attacks[key.attack].access
    score["details"] = _texts(details)
    if interval := result.interval(key.metric, key.attack, key.variant):
        bootstrap = {"lower": interval[0], "upper": interval[1], "confidence_level": 0.95, "method": "bootstrap"}
        score["uncertainty"] = {"confidence_interval": bootstrap}
    rows = result.n_samples[result.task].get(key.metric)
    if rows and not key.attack:
        score.setdefault("uncertainty", {})["num_samples"] = rows
    return {
        "evaluation_result_id": f"{result.run_id}/{key_text(key.metric, key.attack, key.variant)}",
        "evaluation_name": f"{result.task}{where}",
        "metric_config": {
            "metric_id": key.metric,
            "metric_name": key.metric,
            "lower_is_better": not result.better(key.metric),
            "score_type": "continuous",
            "min_score": "-Infinity" if low == -math.inf else low,
            "max_score": "Infinity" if high == math.inf else high,
            "additional_details": {"version": str(result.versions.get(key.metric, 1))},
        },
        "score_details": score,
    }
