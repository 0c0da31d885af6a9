"""What boards show of gates: of each gated row the audit that one of its runs was filed with."""

from __future__ import annotations

from collections.abc import Iterator

from grun_bench.leaderboard.boards import Board, Row
from grun_bench.leaderboard.filings import Column
from grun_bench.metrics.gate_picture import gate_picture
from grun_bench.results.metric_key import CLEAN
from grun_bench.results.result import Result

#: why a gated row has no audit, and what brings one
MISSING = (
    "filed without an audit of its gates: grun-bench attack RUN --attacks template,paraphrase files one, and other "
    "attacks of a user what their questions say"
)
#: what the numbers of a board are, after the words of a whole table
LEAST = "Of several sets and ways of asking the worst is shown, and of AUCs the least."


def columns(board: Board) -> list[Column]:
    """The means of the gates over the rows of a set, which gated rows have without an audit too."""
    return [column for column in board.columns if column.metric.endswith("_gate")]


def is_gated(board: Board, row: Row) -> bool:
    """Whether a row is of a model with gates."""
    return any(row.cells[column].value is not None for column in columns(board))


def audited(row: Row) -> Result | None:
    """The first of a row's results that was filed with an audit; its `gates` are it."""
    results = (filed.result for run in row.runs for filed in run.filings)
    return next((result for result in results if CLEAN in result.gates), None)


def audits(board: Board) -> Iterator[tuple[Row, Result]]:
    """The rows that have an audit, each with the result that it is of."""
    for row in board.rows:
        if found := audited(row):
            yield row, found


def seed(result: Result) -> str:
    return "" if result.seed is None else f", seed {result.seed}"


def file(stem: str, row: Row) -> str:
    """The name of the picture of a row's audit, by that of its board's files."""
    return f"{stem}.gates-{row.id}.svg"


def picture(row: Row, result: Result) -> str:
    """The picture of a row's audit."""
    return gate_picture(f"Gates of {row.named}{seed(result)} on {result.task}, {result.model}", result.gates)
