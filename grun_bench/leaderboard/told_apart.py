"""Which rows of a board are told apart from the first: paired tests of what they are ranked by. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from grun_bench.core.errors import GrunBenchError, MissingReference
from grun_bench.core.limits import at_most
from grun_bench.leaderboard.allowed import allowed_seconds
from grun_bench.leaderboard.boards import Row
from grun_bench.leaderboard.filings import Column, Run
from grun_bench.leaderboard.kept_numbers import kept_numbers
from grun_bench.metrics.power import LEVEL
from grun_bench.results.filed import records_problem
from grun_bench.results.record import load_records
from grun_bench.results.result import RecordsFile
from grun_bench.tasks.sets import ScoredSets

if TYPE_CHECKING:
    from grun_bench.metrics.row_values import RowValues

#: the beginning of the mark of a row that may be as good or bad as the first
NOT_TOLD = "not told from rank 1"


def told_apart(rows: Sequence[Row], lead: Column | None, sets: ScoredSets) -> list[Row]:
    """The rows, with a mark on those whose forgetting no paired test tells from that of the first in the ranking.

    Compared is, example by example, what ranks them: the lead metric in each row's own worst case, the mean over its
    runs. p is adjusted over all ranked rows of the board that were tested; those without records, as most toy rows are,
    were not. Rows that are not ranked stay as they are.
    """
    ranked = sorted((row for row in rows if row.rank), key=lambda row: row.rank or 0)
    if lead is None or len(ranked) < 2 or any(row.runs[0].result.toy for row in ranked):
        return list(rows)
    recorded = [all(is_there(run, lead.metric, row.worst_attack) for run in row.runs) for row in ranked]
    if not recorded[0] or not any(recorded[1:]):
        return list(rows)
    from grun_bench.metrics.evaluate import giving  # these load scipy
    from grun_bench.metrics.paired import adjusted, compare

    names = giving([lead.metric], sets)
    values = [_values(row, lead.metric, names, sets) for row in ranked]
    tests = adjusted([compare(lead.metric, each, values[0]) for each in values[1:]])
    marks = {
        row.id: f"{NOT_TOLD}, q {test.q:.2f}"
        for row, test in zip(ranked[1:], tests, strict=True)
        if test.q is not None and test.q >= LEVEL
    }
    return [replace(row, marks=[*row.marks, marks[row.id]]) if row.id in marks else row for row in rows]


def _values(row: Row, metric: str, names: Sequence[str], sets: ScoredSets) -> RowValues:
    """The metric of each example in the row's worst case, the mean over its runs."""
    of_runs: list[Mapping[tuple[str, int], float]] = []
    for run in row.runs:
        try:
            with at_most(allowed_seconds(run.result)):  # records are a stranger's
                values = _of_run(run, metric, row.worst_attack, names, sets)
        except GrunBenchError as error:  # `--check` says what is wrong with them
            values = MissingReference(str(error))
        if isinstance(values, MissingReference):
            return values
        of_runs.append(values)
    return {place: float(np.mean([each[place] for each in of_runs])) for place in of_runs[0] if _in_all(place, of_runs)}


def _in_all(place: tuple[str, int], of_runs: Sequence[Mapping[tuple[str, int], float]]) -> bool:
    return all(place in each for each in of_runs)


def _of_run(run: Run, metric: str, attack: str, names: Sequence[str], sets: ScoredSets) -> RowValues:
    """The metric of each example that a run's records give, without attack or under the worst of one."""
    absent = MissingReference("its records are not there.")
    if (there := records_behind(run, metric, attack)) is None:
        return absent
    named, file = there

    def lines() -> list[tuple[str, int, float]] | str:
        from grun_bench.metrics.row_values import row_values

        values = row_values(load_records(file), names, sets).get(metric, absent)
        return str(values) if isinstance(values, MissingReference) else [(*row, value) for row, value in values.items()]

    kept = kept_numbers(f"rows of {metric}", named, names, sets, lines)
    return MissingReference(kept) if isinstance(kept, str) else {(name, index): value for name, index, value in kept}


def is_there(run: Run, metric: str, attack: str) -> bool:
    """Whether a run has such records, be they what they may: most trees have none of toy rows."""
    named, place = _named(run, metric, attack)
    if named is None:
        return False
    return os.path.isfile(f"{run.filings[0].root}/{place}/{named.file}")  # noqa: PTH113  (half of the time)


def records_behind(run: Run, metric: str, attack: str) -> tuple[RecordsFile, Path] | None:
    """The same with their file, where they are those that the result names; None where they are not."""
    named, place = _named(run, metric, attack)
    filed = run.filings[0]
    if named is None or records_problem(filed.root / place / filed.file.name, [named]):
        return None
    return named, filed.root / place / named.file


def _named(run: Run, metric: str, attack: str) -> tuple[RecordsFile | None, str]:
    """The records of a run without attack, or under the variant of an attack that is its worst, and the folder that
    they lie in, relative to the tree; None where the result names none."""
    if not attack:
        return run.result.records, run.filings[0].place
    if (made := run.attacks.get(attack)) is None:
        return None, ""
    worst = made.worst.get(metric)
    variant = next((name for name, values in made.variants.items() if values.get(metric) == worst), None)
    return made.info.variants.get(variant) if variant is not None else None, made.place
