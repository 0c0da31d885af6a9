"""What `meta-eval` found, as a table. No torch."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from grun_bench.core.escaping import terminal
from grun_bench.reports.trust import Judged
from grun_bench.reports.trust_page import HEAD, cells


def print_trust(judged: Judged, title: str) -> None:
    """One line a metric, best first."""
    table = Table(title=terminal(title), title_justify="left")
    for name in HEAD:
        table.add_column(name, justify="left" if name == HEAD[0] else "right", no_wrap=True)
    for trust in judged.trusts:
        table.add_row(*map(terminal, cells(trust)))
    Console().print(table)
