"""Rows and facts as plain tables, and lines of text beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table

from grun_bench.core.escaping import terminal
from grun_bench.runs.config import in_folder


def tell(*lines: str) -> None:
    """Lines of text on stdout as they are: no markup is obeyed, nothing is coloured, long ones are not broken."""
    out = Console(soft_wrap=True)
    for line in lines:
        out.print(terminal(line), highlight=False)


def leaderboard_command(results: Path) -> str:
    """The command that renders a folder of results; those of another folder do not replace the project's pages."""
    elsewhere = in_folder("--results", results)
    return f"grun-bench leaderboard{elsewhere}" + (" --out pages" if elsewhere else "")


def print_rows(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """One table with a title, printed as `print_table` has it."""
    table = Table(title=terminal(title), title_justify="left")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*map(terminal, row))
    print_table(table)


def print_table(table: Table) -> None:
    """A table as wide as the terminal, in which no number, id or word is broken.

    Where that cannot be, each of its rows stands by itself: its first cell, and below that the others with their
    headings.
    """
    out = Console()
    if fit(table, out):
        out.print(table)
        return
    headings = [plain(out, column.header) for column in table.columns]
    tell(*([plain(out, table.title)] if table.title else []))
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        first, *others = (plain(out, cell) for cell in cells)
        if not table.show_header:
            tell(f"{first}: {' '.join(others)}")
            continue
        tell(*([first] if first else []))
        said = (f"{heading}: {cell}" for heading, cell in zip(headings[1:], others, strict=True) if cell)
        tell(*_filled(list(said), out.width))
    tell(*([plain(out, table.caption)] if table.caption else []))
    tell(*(["With COLUMNS=200 before the command this is a table."] if table.show_header else []))


def fit(table: Table, out: Console) -> bool:
    """Make columns so narrow that the table fits, but no narrower than their longest word; False where it cannot."""
    spans = [_span(out, column) for column in table.columns]
    widths = [span.maximum for span in spans]
    # borders, and a space on both sides of each cell
    room = out.width - 3 * len(spans) - 1
    if sum(widths) <= room:
        return True
    if sum(span.minimum for span in spans) > room:
        return False
    while sum(widths) > room:
        widest = max((at for at, span in enumerate(spans) if widths[at] > span.minimum), key=lambda at: widths[at])
        widths[widest] -= 1
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width
    return True


def _span(out: Console, column: Column) -> Measurement:
    """The longest word and the longest line of a column."""
    cells = [_measured(out, cell) for cell in (column.header, *column.cells)]
    least, most = max(cell.minimum for cell in cells), max(cell.maximum for cell in cells)
    return Measurement(most if column.no_wrap else least, most)


def _measured(out: Console, cell: RenderableType) -> Measurement:
    return Measurement.get(out, out.options.update(max_width=10_000), cell)


def plain(out: Console, cell: RenderableType) -> str:
    """The text of a cell in one line."""
    return " ".join((out.render_str(cell).plain if isinstance(cell, str) else str(cell)).split())


def _filled(parts: Sequence[str], width: int) -> list[str]:
    """Lines of whole parts, as many as fit in one."""
    lines: list[str] = []
    for part in parts:
        longer = f"{lines[-1]}   {part}" if lines else ""
        if lines and len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(f"- {part}")
    return lines


def facts_table(title: str, facts: Mapping[str, Any]) -> Table:
    """Two columns: name and value, which is JSON unless it is text."""
    table = Table(title=terminal(title), title_justify="left", show_header=False)
    for name, value in facts.items():
        table.add_row(terminal(name), terminal(value if isinstance(value, str) else json.dumps(value)))
    return table
