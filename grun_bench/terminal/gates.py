"""Where the gates of a gated model open, as tables."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from grun_bench.core.escaping import terminal
from grun_bench.metrics.gate_audit import Audit, audit_of, gated
from grun_bench.metrics.gate_words import HEADINGS, LEGEND, head, lines, named, not_asked, numbers_of
from grun_bench.results.filed import Filed
from grun_bench.results.result import Result
from grun_bench.runs.next_command import on_row
from grun_bench.terminal.listing import print_table, tell


def print_gates(result: Result, path: Path) -> None:
    """Where the gates of a gated model open: as filed, or of an older result from its records, where they are there."""
    if not gated(result):
        return
    gates = result.gates or audit_of(Filed(result, path.parent, path.name, ""))
    if gates:
        for opens in HEADINGS:
            print_table(gate_table(gates, opens))
        tell(LEGEND)
    if missing := not_asked(result.attacks, gates, result.run_id):
        tell(f"{missing}{on_row(result, path.resolve().parents[3])}")


def gate_table(gates: Audit, opens: bool) -> Table:
    """The rows whose gates are to be open, or shut: how they spread, and how often they are on the wrong side."""
    table = Table(title=f"gates {HEADINGS[opens]}", title_justify="left")
    for place, name in enumerate(head(opens)):
        table.add_column(name, justify="right" if place else "left")
    for label, name, spread in lines(gates, opens):
        table.add_row(terminal(named(label, name)), *numbers_of(spread))
    return table
