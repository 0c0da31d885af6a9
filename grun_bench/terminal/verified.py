"""Bundles, and what verification found of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from grun_bench.core.escaping import terminal
from grun_bench.leaderboard.compare import TOLERANCE
from grun_bench.leaderboard.marks import VERIFICATION
from grun_bench.leaderboard.verify import Verified
from grun_bench.results.metric_key import MetricKey
from grun_bench.results.result import Result
from grun_bench.results.words import number
from grun_bench.terminal.listing import print_rows, print_table, tell

#: rows of a table of differences
_SHOWN = 30


def print_bundle(folder: Path, results: Sequence[Result], models: Sequence[str], warnings: Sequence[str]) -> None:
    """What a bundle holds, what its reviewers will ask about, and the next command."""
    rows = [
        (
            *(result.task, result.model, result.unlearner.name, result.run_id),
            "yes" if result.run_id in models else "",
            ", ".join(result.attacks),
        )
        for result in results
    ]
    print_rows(f"bundle {folder}", ("task", "model", "unlearner", "run", "saved model", "attacks"), rows)
    tell(*(f"note: {warning}" for warning in warnings), f"next: grun-bench verify {folder}")


def print_verified(folder: Path, found: Sequence[Verified], rerun: bool, marks: Path) -> None:
    """One line a row, the differences, and where `marks` were written."""
    print_table(_verdicts(folder, found))
    for each in found:
        tell(*(f"{each.filed.path}: {problem}" for problem in each.problems))
        if rerun or each.wrong:
            print_table(_differences(each, rerun))
    how = "the tolerances in the table" if rerun else f"a relative {TOLERANCE:g}"
    if all(each.ok for each in found):
        tell(f"verified within {how}; written to {marks / VERIFICATION}")
    else:
        tell(f"not verified: the allowed difference is {how}.")


def _verdicts(folder: Path, found: Sequence[Verified]) -> Table:
    table = Table(title=terminal(f"verified: {folder}"), title_justify="left")
    for column in ("unlearner", "run", "numbers", "differ", "largest difference", "verdict"):
        right = column in ("numbers", "differ", "largest difference")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for each in found:
        largest = max((one.difference or 0.0 for one in each.numbers), default=0.0)
        names = (each.filed.result.unlearner.name, each.filed.result.run_id)
        counts = (str(len(each.numbers)), str(len(each.wrong)), f"{largest:.2g}")
        table.add_row(*map(terminal, names), *counts, each.tier if each.ok else "failed")
    return table


def _differences(found: Verified, rerun: bool) -> Table:
    """Number by number: what is wrong first, then the headline."""
    headline = {f"results.{MetricKey(metric)}" for metric in found.filed.result.headline}
    right = [each for each in found.numbers if each.ok and each.place in headline] if rerun else []
    table = Table(title=terminal(found.filed.result.run_id), title_justify="left")
    for column in ("number", "stated", "found", "difference", "allowed"):
        table.add_column(column, justify="left" if column == "number" else "right", overflow="fold")
    for each in [*found.wrong[:_SHOWN], *right]:
        gap = "" if each.difference is None else f"{each.difference:.2g}"
        allowed = "not judged" if each.allowed is None else f"{each.allowed:.2g}"
        table.add_row(terminal(each.place), _told(each.stated), _told(each.found), gap, allowed)
    if len(found.wrong) > _SHOWN:
        table.caption = f"and {len(found.wrong) - _SHOWN} more"
    return table


def _told(value: float | str | None) -> str:
    return terminal(value) if isinstance(value, str) else number(value, 6)
