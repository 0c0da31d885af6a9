"""Rows and facts as plain tables, and lines of text beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from grun_bench.core.escaping import terminal


def tell(*lines: str) -> None:
    """Lines of text on stdout as they are: no markup is obeyed, nothing is coloured, long ones are not broken."""
    out = Console(soft_wrap=True)
    for line in lines:
        out.print(terminal(line), highlight=False)


def print_rows(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """One table with a title."""
    table = Table(*columns, title=terminal(title), title_justify="left")
    for row in rows:
        table.add_row(*map(terminal, row))
    Console().print(table)


def facts_table(title: str, facts: Mapping[str, Any]) -> Table:
    """Two columns: name and value, which is JSON unless it is text."""
    table = Table(title=terminal(title), title_justify="left", show_header=False)
    for name, value in facts.items():
        table.add_row(terminal(name), terminal(value if isinstance(value, str) else json.dumps(value)))
    return table
