"""Verdicts as lines of text, and rows beside each other. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from grun_bench.core.escaping import clean, terminal
from grun_bench.leaderboard.build import named_apart
from grun_bench.reports.comparison import comparable
from grun_bench.reports.rows import Row
from grun_bench.reports.verdict import Verdict, verdict
from grun_bench.reports.words import Line, lines, metric_words, spread
from grun_bench.results.result import Result
from grun_bench.results.words import heading
from grun_bench.terminal.listing import fit, plain, print_table, tell
from grun_bench.terminal.result import powers


def print_verdict(row: Row, output: Path) -> None:
    """The verdict on one row."""
    _tell_lines(lines(row, verdict(row), output))


def print_comparison(rows: Sequence[Row], output: Path) -> None:
    """The rows as one table, then a verdict on each."""
    found = [verdict(row) for row in rows]
    table = _table(rows, found)
    if fit(table, Console()):
        print_table(table)
    else:
        _print_across(table)
    tell(*dict.fromkeys(power for row in rows for power in powers(row.result, row.result.headline)))
    if not comparable(rows):
        tell("These rows differ in task, data, model, protocol or versions: their numbers do not compare.")
    else:
        from grun_bench.terminal.paired import print_paired  # tests load scipy

        print_paired([row.own for row in rows])
    for row, each in zip(rows, found, strict=True):
        tell("", f"{row.result.unlearner.name} {row.result.run_id}")
        _tell_lines(lines(row, each, output), "  ")


def _tell_lines(said: Iterable[Line], before: str = "") -> None:
    """The lines of a verdict. On a terminal long ones are broken between words, and the rest of each stands further in.

    Commands are never broken: one that has no room beside the text before it has a line of its own.
    """
    out = Console()
    for line in said:
        if not out.is_terminal or len(before) + len(str(line)) <= out.width:
            tell(f"{before}{line}")
            continue
        further = f"{before}  "
        text = Text(clean(f"{line.about} {line.text}", limit=10_000))
        for at, part in enumerate(text.wrap(out, out.width - len(further))):
            part.rstrip()
            out.print(Text(further if at else before) + part, soft_wrap=True)
        if line.command:
            out.print(further + terminal(line.command), highlight=False, soft_wrap=True)


def _print_across(table: Table) -> None:
    """The same with a line a metric, and as many rows across as a terminal has room for; ids are in lines before."""
    (_, ids), (_, names), *others = [(column.header, list(column.cells)) for column in table.columns]
    out, start = Console(), 0
    while start < len(ids):
        shown = range(start, len(ids))
        part = _across(names, others, shown)
        while len(shown) > 1 and not fit(part, out):
            shown = shown[:-1]
            part = _across(names, others, shown)
        tell(*(f"row {at + 1}: {plain(out, ids[at])}  {plain(out, names[at])}" for at in shown))
        print_table(part)
        start = shown.stop


def _across(names: Sequence[Any], others: Sequence[tuple[Any, list[Any]]], shown: Iterable[int]) -> Table:
    table = Table(title="rows compared", title_justify="left")
    table.add_column("metric")
    for at in shown:
        table.add_column(f"row {at + 1}, {names[at]}", justify="right")
    for name, cells in others:
        table.add_row(name, *(cells[at] for at in shown))
    return table


def _table(rows: Sequence[Row], found: Sequence[Verdict]) -> Table:
    results = [row.result for row in rows]
    metrics = {metric: result for result in reversed(results) for metric in reversed(result.headline)}
    table = Table(title="rows compared", title_justify="left")
    for name in ("run", "unlearner"):
        table.add_column(name, no_wrap=name == "run")
    for metric, result in reversed(metrics.items()):
        table.add_column(terminal(heading(result, metric)), justify="right")
    for name in ("worst attack", "trained, s", "scored, s"):
        table.add_column(name, justify="right")
    for result, name, each in zip(results, named_apart(results), found, strict=True):
        cells = [_number(result.value(metric), result.interval(metric)) for metric in reversed(metrics)]
        seconds = (result.cost.training_seconds, result.cost.scoring_seconds)
        cells += [_worst(each, result), *(f"{each:.0f}" for each in seconds)]
        table.add_row(*(_cell(each) for each in (result.run_id, name, *cells)))
    return table


def _cell(text: str) -> str:
    return "\n".join(map(terminal, text.split("\n")))


def _number(value: float | None, interval: tuple[float, float] | None) -> str:
    """A value, and its interval on lines of its own: tables have many columns."""
    return "\n".join(spread(value, interval).split(" "))


def _worst(found: Verdict, result: Result) -> str:
    """The attack under which a user gets most, and by what is not the leading metric, by which."""
    user, plain = found.user, found.plain
    if user is None or plain is None:
        return "-"
    if not found.users:
        return "not attacked"
    other = "" if user.metric == plain.metric else f"{metric_words(user.metric, result.protocol)}\n"
    return f"{user.attack or 'none'}\n{other}{_number(user.value, user.interval)}"
