"""What `meta-eval` found, as a table. No torch."""

from __future__ import annotations

from rich.table import Table

from grun_bench.core.escaping import terminal
from grun_bench.reports.trust import Judged
from grun_bench.reports.trust_page import words
from grun_bench.results.words import number
from grun_bench.terminal.listing import print_table, tell

#: the columns; the page has the pools' means too
HEAD = ("metric", "faithful", "relearn", "4 bits", "robust", "overall", "rows")


def print_trust(judged: Judged, title: str) -> None:
    """One line a metric, best first, and why others have none."""
    table = Table(title=terminal(title), title_justify="left")
    for name in HEAD:
        table.add_column(name, justify="left" if name == HEAD[0] else "right", no_wrap=name != HEAD[0])
    for trust in judged.trusts:
        robust = trust.one_sided
        values = (trust.faithfulness, robust.relearning, robust.quantisation, robust.both, trust.overall)
        table.add_row(terminal(words(trust)), *map(number, values), str(robust.models))
    print_table(table)
    tell(*(f"{key.replace('_', ' ')}: {why}" for key, why in judged.missing.items()))
