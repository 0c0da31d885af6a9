"""Results -> Markdown leaderboards. The same files always give the same bytes. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean

from grun_bench.errors import UsageError
from grun_bench.results import Result, read_result, result_files
from grun_bench.tables import dataset_label, heading, number

#: rows that every table begins with: the target as it is, and the oracle
PINNED = {"none": "target model", "retain": "retain model"}


def table_key(result: Result) -> tuple[str, ...]:
    """Rows meet in one table only when all of this is equal: data, protocol, limit and versions decide a number."""
    versions = [str(result.versions.get(name)) for name in (result.task, *result.headline)]
    return (
        result.task,
        result.dataset,
        result.model,
        result.dataset_hash,
        result.protocol,
        str(result.limit),
        ",".join([*result.headline, *versions]),
    )


def render(results: Iterable[Result]) -> str:
    """All tables as one Markdown page; toy results under a heading of their own, after the real ones."""
    parts = ["# Leaderboards\n\nRendered by `grun-bench leaderboard`. Do not edit: run it again.\n"]
    ordered = sorted(results, key=lambda result: (result.dataset == "embedded", *table_key(result)))
    for dataset, of_dataset in groupby(ordered, key=lambda result: result.dataset):
        title = (
            "Real models and data" if dataset == "published" else "Toy results: the embedded world and its `tiny` model"
        )
        parts.append(f"## {title}\n")
        for _, group in groupby(of_dataset, key=table_key):
            parts.append(_table(list(group)))
    return "\n".join(parts)


def _table(results: Sequence[Result]) -> str:
    first = results[0]
    title = f"### {first.task}, {_cell(first.model)}\n\nData: {dataset_label(first)}; protocol: {first.protocol}."
    if first.limit:
        title += f" Cut to {first.limit} rows a set: not a benchmark."
    columns = ["unlearner", "n", *(heading(first, metric) for metric in first.headline), "trainable", "seconds"]
    lines = [title, "", _row(columns), _row(["---", *["---:"] * (len(columns) - 1)])]
    rows = groupby(sorted(results, key=_order), key=lambda result: (result.unlearner.name, _settings(result)))
    return "\n".join([*lines, *(_row(_cells(list(seeds))) for _, seeds in rows), "", _footnotes(results)])


def _order(result: Result) -> tuple[object, ...]:
    name = result.unlearner.name
    return (list(PINNED).index(name) if name in PINNED else len(PINNED), name, _settings(result), result.seed or 0)


def _settings(result: Result) -> str:
    return repr(sorted(result.unlearner.settings.items()))


def _cells(seeds: Sequence[Result]) -> list[str]:
    """One row: the mean over seeds of every headline metric; a dash when any seed lacks it."""
    first, name = seeds[0], seeds[0].unlearner.name
    label = f"**{PINNED[name]}**" if name in PINNED else f"`{_cell(name)}`"
    if first.imported:
        label += f" (imported from {_cell(first.imported.tool)})"
    if any(result.status == "diverged" for result in seeds):
        label += " (diverged)"
    values = [[result.value(metric) for result in seeds] for metric in first.headline]
    shown = [number(None if None in column else mean(column)) for column in values]  # type: ignore[type-var]
    seconds = mean(result.cost.training_seconds for result in seeds)
    trained = first.cost.trainable_parameters
    return [label, str(len(seeds)), *shown, f"{trained:,}" if trained else "-", f"{seconds:.0f}" if trained else "-"]


def _footnotes(results: Sequence[Result]) -> str:
    notes = {
        f"- {_cell(result.unlearner.name)}: {heading(result, metric)}: {_cell(_reason(result, metric))}"
        for result in results
        for metric in result.headline
        if result.value(metric) is None
    }
    return "\n".join(sorted(notes)) + ("\n" if notes else "")


def _reason(result: Result, metric: str) -> str:
    return result.reasons.get(f"{metric},none", "not measured")


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    """Text from a result file, safe in a Markdown table."""
    return "".join("\\" + char if char in "\\`*_[]<>|" else " " if ord(char) < 32 else char for char in text).replace(
        "\\_", "_"
    )


def read_results(folder: Path) -> list[Result]:
    """Every result under a folder. Raises UsageError when there is none or one is broken."""
    results = [read_result(path) for path in result_files(folder)]
    if not results:
        raise UsageError(f"no results in {folder}; `grun-bench run` writes them there.")
    return results
