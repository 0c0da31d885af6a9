"""What becomes of many runs, while they are made and afterwards. The runs themselves load torch, and this does not."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from grun_bench.core.escaping import terminal
from grun_bench.core.progress import say
from grun_bench.matrix.cell import STATES
from grun_bench.models.names import TINY
from grun_bench.results.store import read_result
from grun_bench.results.words import heading, number
from grun_bench.terminal.listing import leaderboard_command, print_table, tell
from grun_bench.terminal.result import powers

if TYPE_CHECKING:
    from grun_bench.matrix.cell import Cell, Status
    from grun_bench.matrix.sweep import Plan

Found = Mapping["Cell", "Status"]
#: what a live table has room for
ROWS = 20
#: axes that are columns of every table, and those that are its title where all runs have the same
_ALWAYS, _ON = ("unlearner", "seed"), ("task", "model")


@contextmanager
def watching(plan: Plan) -> Iterator[Callable[[Found], None]]:
    """Yields what shows how far the runs are: a table that changes, or a line for each that is over where there is no
    terminal."""
    if not sys.stderr.isatty():
        yield _Lines(plan)
        return
    start = time.monotonic()
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:

        def show(found: Found) -> None:
            now = {cell: each for cell, each in found.items() if each.state in ("running", "failed")}
            shown = dict(sorted(now.items(), key=lambda item: STATES.index(item[1].state))[:ROWS])
            text = Text(f"{counted(found)}  ({time.monotonic() - start:.0f} s)")
            live.update(Group(text, _table(plan, shown)) if shown else text, refresh=True)

        yield show


class _Lines:
    """Says of every run what became of it, once."""

    def __init__(self, plan: Plan) -> None:
        self._said = {cell.key: "" for cell in plan.all}
        self._first = True

    def __call__(self, found: Found) -> None:
        over, new = sum(each.over for each in found.values()), {}
        for cell, each in found.items():
            if each.state != self._said[cell.key] and each.state != "waiting":
                if not (self._first and each.state == "done"):
                    new[cell] = each
                self._said[cell.key] = each.state
        for line in _lines(new):
            say(f"{over} of {len(found)} over; {line}")
        self._first = False


def _lines(found: Found) -> Iterator[str]:
    """What became of runs, a line each; those without a log of their own of which the same is said stand in one."""
    same: dict[tuple[str, str], list[Cell]] = {}
    for cell, each in found.items():
        log = _log(cell, each)
        same.setdefault((_told(each, log), log or (cell.key if not each.reason else "")), []).append(cell)
    for (told, _), (first, *others) in same.items():
        yield f"{first}{f' and {len(others)} more' if others else ''}: {told}"


def _told(status: Status, log: str) -> str:
    took = f" in {status.seconds:.0f} s" if status.seconds else ""
    reason = f": {status.reason}" if status.reason else ""
    return f"{status.state}{took}{reason}" + (f"; log: {log}" if log else "")


def _log(cell: Cell, status: Status) -> str:
    """The log of a run that is not done, if it was begun."""
    begun = status.state == "running" or (status.state != "done" and cell.log.is_file())
    return str(cell.log) if begun else ""


def counted(found: Found) -> str:
    """How many runs are in each state, as in `60 runs: 12 done, 2 running, 46 waiting`."""
    counts = Counter(each.state for each in found.values())
    return f"{len(found)} runs: " + ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])


def print_status(plan: Plan, output: Path) -> None:
    """What became of every run of a sweep by now, with the reason and the log of those that are not done."""
    found = {cell: cell.status() for cell in plan.all}
    print_table(_table(plan, found))
    tell(counted(found), *([] if output.is_dir() else [f"{output}: no such folder, so nothing was begun there."]))


def print_sweep(plan: Plan, found: Found, output: Path, problem: str) -> None:
    """One row a run that was asked for: its headline numbers, or why there are none.

    Where there is a `problem`, which says how many failed, they are not counted here.
    """
    results = {cell: read_result(output / each.result) for cell, each in found.items() if each.result}
    shown = next((results[cell] for cell in plan.cells if cell in results), None)
    headline = shown.headline if shown else []
    axes = _Axes(plan)
    table = axes.table()
    for metric in headline:
        table.add_column(heading(shown, metric) if shown else metric, justify="right")
    for cell in plan.cells:
        values = [number(results[cell].value(metric)) for metric in headline] if cell in results else []
        table.add_row(*axes.row(cell, found[cell]), *values)
    print_table(table)
    tell(*(powers(shown, headline) if shown else []))
    tell(*_lines({cell: each for cell, each in found.items() if each.reason}))
    tell(*([] if problem else [counted(found)]), *([f"next: {leaderboard_command(output)}"] if shown else []))


def _table(plan: Plan, found: Found) -> Table:
    axes = _Axes(plan)
    table = axes.table()
    table.add_column("why")
    table.add_column("log", overflow="fold")
    for cell, each in found.items():
        why = each.reason or (each.host and f"on {each.host}, process {each.pid}")
        log = _log(cell, each)
        table.add_row(*axes.row(cell, each), terminal(why), terminal(os.path.relpath(log) if log else ""))
    return table


class _Axes:
    """What tells the runs of a plan apart, as the first columns of a table."""

    def __init__(self, plan: Plan) -> None:
        settings = [_settings(cell) for cell in plan.cells if cell.config.overrides]
        self._common = set(settings[0]).intersection(*settings) if settings else set()
        axes = [self._of(cell) for cell in plan.cells]
        values = {name: {each[name] for each in axes} for name in axes[0]}
        self._columns = [name for name in values if name in _ALWAYS or len(values[name]) > 1]
        self._title = " on ".join(values[name].pop() for name in _ON if name not in self._columns)

    def table(self) -> Table:
        """A table without rows; its title says what all runs have in common."""
        table = Table(title=f"sweep of {terminal(self._title)}" if self._title else "sweep", title_justify="left")
        for name in self._columns:
            table.add_column(name, no_wrap=name in _ALWAYS)
        table.add_column("status", no_wrap=True)
        return table

    def row(self, cell: Cell, status: Status) -> list[str]:
        axes = self._of(cell)
        return [*(terminal(axes[name]) for name in self._columns), status.state]

    def _of(self, cell: Cell) -> dict[str, str]:
        config = cell.config
        return {
            "task": config.task or str(config.forget),
            "model": config.model or config.target_model or TINY,
            "unlearner": config.unlearner,
            "settings": ", ".join(each for each in _settings(cell) if each not in self._common),
            "seed": str(config.seed),
        }


def _settings(cell: Cell) -> list[str]:
    return [f"{key}={value}" for key, value in cell.config.overrides.items()]
