"""What filed runs took: the costs on the pages of methods and attacks, read from the project's own results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from statistics import median

from grun_bench.core import registry
from grun_bench.results.result import Result
from grun_bench.results.store import read_result, result_files
from making.words import cell, table


@cache
def results(root: Path) -> list[Result]:
    """The project's own rows that were made here, not read from another tool's log."""
    found = map(read_result, result_files(root / "leaderboards" / "results"))
    return [result for result in found if result.imported is None and result.status == "ok"]


def place(result: Result) -> str:
    """The machine of a row, as far as it says."""
    return str(result.hardware.get("gpu") or f"{result.hardware.get('cores')} cores")


def training(root: Path, name: str) -> str:
    """A table of what training took, of the rows of an adapter, an objective or an unlearner: medians over seeds and
    settings."""
    rows = [result for result in results(root) if name in _parts(result.unlearner.name)]
    return table(
        ("row", "task", "model", "runs #", "weights trained #", "training, s #", "peak memory, GiB #", "on"),
        [
            (
                *map(cell, key[:3]),
                str(len(of_key)),
                f"{_median(each.cost.trainable_parameters for each in of_key):,.0f}",
                f"{_median(each.cost.training_seconds for each in of_key):,.1f}",
                _gib([each.cost.training_peak_bytes for each in of_key]),
                key[3],
            )
            for key, of_key in _grouped(rows)
        ],
    )


def attacking(root: Path, name: str) -> str:
    """A table of what an attack took on the rows that it was made on: medians over methods and seeds."""
    grouped: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for result in results(root):
        if name in result.attacks:
            key = (result.task, result.model, str(result.attacks[name].version), place(result))
            grouped[key].append(result.attacks[name].seconds)
    return table(
        ("task", "model", "version #", "rows attacked #", "s a row #", "on"),
        [
            (cell(task), cell(model), version, str(len(seconds)), f"{median(seconds):,.1f}", where)
            for (task, model, version, where), seconds in sorted(grouped.items())
        ],
    )


def _parts(unlearner: str) -> set[str]:
    parsed = registry.parse_unlearner(unlearner)
    return set(parsed) if isinstance(parsed, tuple) else {parsed}


def _grouped(rows: Sequence[Result]) -> list[tuple[tuple[str, ...], list[Result]]]:
    grouped: dict[tuple[str, ...], list[Result]] = defaultdict(list)
    for result in rows:
        grouped[result.unlearner.name, result.task, result.model, place(result)].append(result)
    return sorted(grouped.items())


def _median(values: Iterable[float]) -> float:
    return median(values)


def _gib(values: Sequence[int | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{median(known) / 2**30:.1f}" if known else ""
