"""Where a row's gates open, filed in its result, with a picture beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from grun_bench.core.files import write_whole
from grun_bench.metrics.gate_audit import audit_of
from grun_bench.metrics.gate_picture import gate_picture
from grun_bench.results.filed import Filed
from grun_bench.results.result import Result
from grun_bench.results.store import filing, read_result
from grun_bench.runs.outcome import Cell


def audit(path: Path, result: Result) -> None:
    """Put into a result what its records say of its gates, and draw it; nothing for a model without gates."""
    result.gates = audit_of(Filed(result, path.parent, path.name, ""))
    if result.gates:
        title = f"Gates of {result.unlearner.name} on {result.task}, {result.model}"
        write_whole(path.with_suffix(".gates.svg"), gate_picture(title, result.gates))


def audited(cell: Cell) -> Cell:
    """The row with its gates under the attacks that it has by now."""
    if not any(row.gates for row in cell.records):
        return cell
    with filing(cell.path):
        result = read_result(cell.path)
        before = result.gates
        audit(cell.path, result)
        if result.gates != before:
            write_whole(cell.path, result.dumps())
    return replace(cell, result=result)
