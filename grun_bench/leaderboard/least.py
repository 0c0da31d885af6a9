"""The least difference that a board's numbers can show: what is said beside them. No torch."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from grun_bench.leaderboard.filings import Column
from grun_bench.metrics.power import ks_words, least_words

if TYPE_CHECKING:
    from grun_bench.leaderboard.boards import Board

#: the heading of the line
LEAST = "least difference seen"


def least_differences(board: Board) -> dict[Column, str]:
    """For each column of the headline the least difference between two rows that would be seen, with n, in words.

    "" where that is not known, as of a number that is no mean over rows.
    """
    return {column: _least(board, column) for column in board.headline}


def _least(board: Board, column: Column) -> str:
    metric, task = column.metric, board.first.task
    results = [run.result for row in board.rows for run in row.runs]
    counts = [count for result in results if (count := result.n_samples[task].get(metric))]
    if not counts:
        return ""
    count = min(counts)
    intervals = [interval for result in results if (interval := result.interval(metric))]
    usual = (0.0, median(map(_width, intervals))) if intervals else None
    words = least_words(metric, count, usual)
    return f"{words}, n {count}" if words else ""


def _width(interval: tuple[float, float]) -> float:
    return interval[1] - interval[0]


def least_rule(board: Board) -> str | None:
    """What the line means, with what the test of forget quality sees on this board; None where the line is empty."""
    if not any(board.least.values()):
        return None
    text = (
        f"The {LEAST} is the one between two rows that a test at 5 % would find 4 times of 5, from the deviation of "
        "the examples of a usual row (the median): a smaller one is no evidence, nor is its absence. On the same "
        "examples paired tests see more."
    )
    task = board.first.task
    counts = board.first.n_samples[task]
    powers = (ks_words(column.metric, counts.get(column.metric, 0)) for column in board.headline)
    return " ".join([text, *[power for power in powers if power][:1]])
