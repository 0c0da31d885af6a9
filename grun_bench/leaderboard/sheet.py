"""A board -> CSV: every number with its interval, one line a row."""

from __future__ import annotations

import csv
import io
import json

from grun_bench.core.escaping import cell as text
from grun_bench.leaderboard.boards import Board, Row
from grun_bench.leaderboard.cells import NOTHING


def sheet(board: Board) -> str:
    """Columns of the row, then value, low and high of each metric, without attack and under each attack."""
    attacked = {
        f"{metric},{name}": (name, metric)
        for name in board.attacks
        for metric in dict.fromkeys(metric for row in board.rows for metric in row.attacks.get(name, {}))
    }
    columns = {f"{one.metric}{'' if one.version == '1' else f' (v{one.version})'}": one for one in board.columns}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = [*_facts(board, board.rows[0])]
    for key in ("worst case", *columns, *attacked):
        head += [text(key), text(f"{key} low"), text(f"{key} high")]
    writer.writerow(head)
    for row in board.rows:
        cells = [row.worst, *(row.cells[column] for column in columns.values())]
        cells += [row.attacks.get(name, {}).get(metric, NOTHING) for name, metric in attacked.values()]
        numbers = [number for cell in cells for number in (cell.value, cell.low, cell.high)]
        writer.writerow([*_facts(board, row).values(), *numbers])  # floats by their repr, None as nothing
    return out.getvalue()


def _facts(board: Board, row: Row) -> dict[str, str | int]:
    first = board.first
    seeds = [run.result.seed for run in row.runs if run.result.seed is not None]
    return {
        "task": text(first.task),
        "model": text(first.model),
        "data": text(f"{first.dataset} {first.dataset_hash[:8]}"),
        "protocol": text(first.protocol),
        "limit": first.limit or "",
        "rank": row.rank or "",
        "pareto": int(row.pareto),
        "not forgotten": int(row.not_forgotten),
        "unlearner": text(row.name),
        "settings": text(json.dumps(row.settings, sort_keys=True)),
        **({"tuned": text(row.tuned)} if board.tuned else {}),
        "runs": len(row.runs),
        "seeds": " ".join(map(str, seeds)),
        "source": row.tier,
        "marks": text("; ".join([*row.marks, *row.flags])),
        "worst attack": text(row.worst_attack),
        "trainable": _cost(row, "trainable_parameters"),
        "train seconds": _cost(row, "training_seconds"),
        "train peak bytes": _cost(row, "training_peak_bytes"),
    }


def _cost(row: Row, name: str) -> str:
    value = row.cost(name)
    return "" if value is None else f"{value:.6g}" if value % 1 else str(int(value))
