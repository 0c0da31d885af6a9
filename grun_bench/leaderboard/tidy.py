"""Boards -> tidy CSV: one number a line, with all that says which it is."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from grun_bench.core.escaping import cell as text
from grun_bench.leaderboard.boards import Board, Row
from grun_bench.leaderboard.cells import Cell
from grun_bench.leaderboard.tables import ATTACKS, COST, RANKING, THEMED, Table

#: the costs of a row, in the units of result files
COSTS = ("trainable_parameters", "training_seconds", "training_peak_bytes", "scoring_seconds")
#: `case`: the number without attack (`clean`), under one (`attack`), in the worst case of a user's (`worst`), or a
#: `cost`. `over`: what `low` and `high` are an interval over. `n` is the number of runs.
COLUMNS = (
    "board", "task", "model", "data", "data_hash", "protocol", "limit", "unlearner", "settings", "tuned", "role",
    "rank", "pareto", "below_floor", "not_forgotten", "marks", "source", "seeds", "case", "attack", "access", "metric",
    "version", "higher_is_better", "value", "low", "high", "over", "n", "reason",
)  # fmt: skip


def tidy(boards: Sequence[tuple[Board, Sequence[Table]]]) -> str:
    """The numbers of these tables; the CSV's texts are safe to open in a spreadsheet."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for board, tables in boards:
        facts = {row.id: _facts(board, row) for row in board.rows}
        for table in tables:
            for row, said in _numbers(board, table):
                writer.writerow(facts[row.id] | {name: _plain(value) for name, value in said.items()})
    return out.getvalue()


def _plain(value: Any) -> str | int:
    """A number so that it is read back as it was, a text so that no spreadsheet runs it, "" for nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return int(value)
    return repr(value) if isinstance(value, float) else value if isinstance(value, int) else text(value)


def _facts(board: Board, row: Row) -> dict[str, str | int]:
    first = board.first
    seeds = (run.result.seed for run in row.runs)
    told = {
        "board": board.id,
        **{"task": first.task, "model": first.model, "data": first.dataset, "data_hash": first.dataset_hash},
        **{"protocol": first.protocol, "limit": first.limit, "unlearner": row.name},
        "settings": json.dumps(row.settings, sort_keys=True),
        **{"tuned": row.tuned, "role": row.role or "method", "rank": row.rank, "pareto": row.pareto},
        **{"below_floor": row.below, "not_forgotten": row.not_forgotten},
        "marks": "; ".join([*row.marks, *row.flags]),
        "source": row.tier,
        "seeds": " ".join(str(seed) for seed in seeds if seed is not None),
    }
    return {name: _plain(value) for name, value in told.items()}


def _numbers(board: Board, table: Table) -> Iterator[tuple[Row, dict[str, Any]]]:
    """The numbers of a table, row by row; of one whose numbers are no metric's, under the table's name and heading."""
    for row, entries in table.lines:
        if table.name in (RANKING, COST, *ATTACKS.values(), *THEMED):
            yield from ((row, said) for said in _of_row(board, table.name, row))
            continue
        for name, entry in zip(table.head, entries, strict=True):
            if entry.value is not None or entry.reason:
                metric = f"{table.name}: {name}"
                yield row, {"case": "clean", "metric": metric, "value": entry.value, "reason": entry.reason}


def _of_row(board: Board, table: str, row: Row) -> Iterable[dict[str, Any]]:
    if table == COST:
        return ({"case": "cost", "metric": name, "value": row.cost(name), "n": len(row.runs)} for name in COSTS)
    if table in ATTACKS.values():
        return _attacked(board, row, next(access for access, name in ATTACKS.items() if name == table))
    columns = board.headline if table == RANKING else board.themes[THEMED[table]]
    found = [_said(board, "clean", column.metric, row.cells[column], column.version) for column in columns]
    if table == RANKING and board.lead:
        worst = _said(board, "worst", board.lead.metric, row.worst, board.lead.version)
        access = board.access.get(row.worst_attack, "")
        found.insert(0, worst | {"attack": row.worst_attack, "access": access})
    return found


def _attacked(board: Board, row: Row, access: str) -> Iterator[dict[str, Any]]:
    for name in board.attacks:
        if board.access[name] == access:
            for metric, cell in row.attacks.get(name, {}).items():
                yield _said(board, "attack", metric, cell) | {"attack": name, "access": access}


def _said(board: Board, case: str, metric: str, cell: Cell, version: str = "") -> dict[str, Any]:
    return {
        **{"case": case, "metric": metric, "version": version, "higher_is_better": board.directions.get(metric)},
        **{"value": cell.value, "low": cell.low, "high": cell.high, "over": cell.over, "n": cell.n},
        "reason": cell.reason,
    }
