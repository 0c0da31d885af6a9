"""Results changed as one would who knows the harness: records, hashes, numbers and run ids go together again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grun_bench.core import registry
from grun_bench.leaderboard.recompute import recomputed
from grun_bench.metrics.evaluate import for_protocol, result_fields
from grun_bench.metrics.gate_audit import audit_of
from grun_bench.results.filed import Filed, save_records
from grun_bench.results.record import Record, Records, load_records
from grun_bench.results.result import Result, parse_result
from grun_bench.results.run_id import run_ids
from grun_bench.results.store import read_result

Data = dict[str, Any]


def edit(path: Path, change: Callable[[Data], Any]) -> None:
    """Change the plain data of a result file, and nothing else."""
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def refile(path: Path, change: Callable[[Data], Any] = lambda data: None) -> Path:
    """The same with the run id that the result then has, in the place that it then has; its records come along."""
    data = json.loads(path.read_text())
    change(data)
    result = parse_result(json.dumps(data).encode(), path)
    metrics = for_protocol(result.configs[result.task]["metrics"], result.protocol)
    data["run_id"] = next(run_ids(result, {name: registry.get("metric", name).version for name in metrics}))
    place = path.parents[1] / result.unlearner.name / f"{data['run_id']}.json"
    place.parent.mkdir(exist_ok=True)
    for records in result.all_records():
        path.with_name(records.file).rename(place.with_name(records.file))
    path.unlink()
    place.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    return place


def records_of(path: Path) -> Records:
    """The records of a result without attack."""
    result = read_result(path)
    assert result.records
    return load_records(path.with_name(result.records.file))


def replace_records(path: Path, change: Callable[[Record], Record], retain: Path | None = None) -> None:
    """Other records, with their hash, and with `retain` (perhaps itself) every number that then follows from them."""
    changed = Records([change(record) for record in records_of(path)])
    result = read_result(path)
    result.records = save_records(path, changed)
    path.write_text(result.dumps())
    if retain:
        restate(path, retain)


def restate(path: Path, retain: Path) -> None:
    """The numbers that a result's records give, without attack."""
    result, records = read_result(path), records_of(path)
    values = recomputed(result, {"none": records}, {"none": records_of(retain)}, None)["none"]
    fields = result_fields(result.task, result.configs[result.task]["version"], values)
    result.gates = {}
    result.gates = audit_of(Filed(result, path.parent, path.name, ""))
    said = json.loads(result.dumps()) | fields
    path.write_text(Result.model_validate(said).dumps())
