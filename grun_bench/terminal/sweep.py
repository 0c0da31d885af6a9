"""What came of many runs. The runs themselves load torch, and this does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from grun_bench.core.escaping import terminal
from grun_bench.results.words import heading, number
from grun_bench.terminal.listing import leaderboard_command, tell

if TYPE_CHECKING:
    from grun_bench.matrix.sweep import Swept


def print_sweep(task: str, done: Sequence[Swept], output: Path) -> None:
    """One row a run: its headline numbers, or why there are none."""
    shown = next((each.result for each in done if each.result), None)
    headline = shown.headline if shown else []
    table = Table(title=f"sweep of {terminal(task)}", title_justify="left")
    for column in ("unlearner", "seed", "status"):
        table.add_column(column, no_wrap=True)
    for metric in headline:
        table.add_column(heading(shown, metric) if shown else metric, justify="right")
    for each in done:
        seed = "" if each.result and each.result.seed is None else str(each.seed)
        status = each.result.status if each.result else "refused" if each.refused else "failed"
        values = [number(each.result.value(metric)) for metric in headline] if each.result else []
        table.add_row(terminal(each.unlearner), seed, status, *values)
    Console().print(table)
    problems = (f"{each.unlearner}: {each.problem}" for each in done if each.problem)
    tell(*problems, f"next: {leaderboard_command(output)}")
