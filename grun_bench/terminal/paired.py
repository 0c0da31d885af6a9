"""Paired tests of filed rows against the first of them, as a table. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from grun_bench.core.escaping import terminal
from grun_bench.metrics.paired import Paired
from grun_bench.reports.comparison import compare_with
from grun_bench.reports.rows import FiledRow
from grun_bench.results.words import heading, number
from grun_bench.terminal.listing import print_table, tell


def print_paired(rows: Sequence[FiledRow]) -> None:
    """Each row against the first on what the headline has of every example, without attack; says which cannot be."""
    first = rows[0]
    for other in rows[1:]:
        tests = compare_with(first, other)
        if isinstance(tests, str):
            tell(f"{other.result.run_id}: {tests}")
        else:
            print_table(_table(first, other, [test for test in tests if test.p is not None]))


def _table(first: FiledRow, other: FiledRow, tests: Sequence[Paired]) -> Table:
    table = Table(title=terminal(f"{_name(other)} against {_name(first)}, on the same rows"), title_justify="left")
    table.add_column("metric")
    for name in ("n", "difference", "p", "q", "least seen", "test"):
        table.add_column(name, justify="right")
    for test in tests:
        numbers = map(number, (test.difference, test.p, test.q, test.least))
        table.add_row(terminal(heading(first.result, test.metric)), str(test.n), *numbers, test.test)
    table.caption = "q: p adjusted for all of the table; least seen: the difference found 4 times of 5 at 5 %"
    table.caption_justify = "left"
    return table


def _name(row: FiledRow) -> str:
    return f"{row.result.unlearner.name} {row.result.run_id}"
