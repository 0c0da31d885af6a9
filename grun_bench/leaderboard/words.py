"""What every page says in the same words: titles, numbers and the rule of the ranking. Plain text, not escaped."""

from __future__ import annotations

import math

from grun_bench.leaderboard.boards import Board, Row
from grun_bench.leaderboard.cells import Cell
from grun_bench.leaderboard.filings import Column
from grun_bench.leaderboard.ranking import ABOVE_TARGET, LIKE_TARGET, UTILITY_FLOOR
from grun_bench.metrics.fluency import EVERYWHERE
from grun_bench.results.tuning import RULE
from grun_bench.results.words import dataset_label, metric_heading, number

MARKER = "Rendered by `grun-bench leaderboard` from the result files. Do not edit: run it again."
TOY = "Toy: the embedded world and its model tiny. These rows show that methods run and say nothing of real models."
REAL_TITLE, TOY_TITLE = "Real models and data", "Toy results"
#: what a newcomer reads first on the page of all boards
LEDE = (
    "A language model has learned texts that it should not know (the forget set). Each method changes the model so "
    "that it forgets them, and should leave everything else as it was. Measured is what is left of the forget set when "
    "it is asked for, also under attacks of somebody who may only ask; how useful the model still is; and what the "
    "change cost. Two models stand beside the methods: the target model, before anything was forgotten, and the retain "
    "model, trained without the forget set, which is what perfect unlearning would give."
)
#: how the picture of a board is read
READING = (
    "Each point is a method. Up: the model is more useful. Left: less is left of what was to be forgotten, under the "
    "worst attack of a user. The best place is above left.",
    "◆ target model: before unlearning. ▲ retain model: never saw the forget set. A good method is near the ▲.",
    "Filled points are on the Pareto front: no other is at least as good in both and better in one.",
    "Below the dashed line a model has lost too much utility to be ranked by its forgetting.",
    "Click a point or a row to open it; a heading sorts, and says what it means.",
)
NO_SCRIPT = "These tables need a script. README.md beside this page has all boards without one."
NO_BENCHMARK = "not a benchmark"
#: boards that nothing was unlearned on
BARE = "Boards with target and retain rows alone"
APART = "Compared with target and retain rows of their own, which are not those of this tree: not ranked."
PARETO = "◆"
#: how far a row can be trusted -> what the tag means
TIERS = {
    "re-run": "scored again by the harness from the adapter, or trained again",
    "recomputed": "every number recomputed from the records by grun-bench verify",
    "imported": "read from the published log of another tool, its aggregates recomputed from the log's rows",
    "self-reported": "as its author filed it",
}


def title(board: Board) -> str:
    return f"{board.first.task} · {board.first.model}"


def data_line(board: Board) -> str:
    """Which data, protocol and versions the rows of a board share."""
    first = board.first
    text = f"Data: {dataset_label(first)}; protocol: {first.protocol}; task version {first.versions.get(first.task)}"
    text += f"; computed in {first.arithmetic}." if first.arithmetic else "."
    if first.limit:
        text += f" Cut to {first.limit} rows a set (--limit): {NO_BENCHMARK}, not ranked."
    return f"{text} {APART}" if board.apart else text


def heading(board: Board, column: Column) -> str:
    """A metric with its direction, and the version of its definition where it is not the first."""
    text = metric_heading(column.metric, board.directions.get(column.metric), board.first.protocol)
    return text if column.version == "1" else f"{text} (v{column.version})"


def plain(board: Board, column: Column) -> str:
    """A metric's name inside a sentence."""
    return heading(board, column).rstrip(" ↑↓")


def interval(cell: Cell) -> str:
    """`± half` over seeds, `[low, high]` over the examples of a single run, "" without."""
    if cell.value is None or cell.low is None or cell.high is None:
        return ""
    if cell.over == "seeds":
        return f"± {number(cell.high - cell.value)}"
    return f"[{number(cell.low)}, {number(cell.high)}]"


def cost(value: float | None, unit: float = 1.0, digits: int = 0) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value / unit:,.{digits}f}"


def short_count(value: float | None) -> str:
    """A count in three figures, as in `135M`: k, M and B are thousands, millions and billions."""
    if value is None or not math.isfinite(value):
        return "-"
    for unit, sign in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{sign}"
    return f"{value:.0f}"


def costs(row: Row) -> dict[str, str]:
    """What a row took, means over its runs."""
    return {
        "trainable": cost(row.cost("trainable_parameters")),
        "train s": cost(row.cost("training_seconds")),
        "peak GiB": cost(row.cost("training_peak_bytes"), 2**30, 1),
    }


def _forgotten(board: Board) -> str:
    """Which rows of a board with a metric of forgetting have forgotten anything that can be seen."""
    if board.known is None:
        return "There is no target row here, so it cannot be said whether a row forgot anything at all."
    ends = f"[{number(board.known[0])}, {number(board.known[1])}]"
    text = (
        f"Ranked are rows of which the interval of the worst case lies below the target model's (here {ends}). One "
        f"that meets it is “{LIKE_TARGET}”, one above it “{ABOVE_TARGET}”: neither has a rank or is a best row. Of "
        "several runs the interval is cut where the runs' own end; where all n examples have 0 or 1 it is 3 / n wide; "
        "without an interval the number itself counts. "
        "Intervals that do not meet are more than a test at 5 % asks for, and need no records."
    )
    if any(row.role == "retain model" and LIKE_TARGET in row.marks for row in board.rows):
        text += " Here the retain model's meets it too: this board cannot show that anything was forgotten."
    return text


def rules(board: Board) -> list[str]:
    """How this board is ranked, with its own numbers."""
    if board.first.limit:
        return [f"Results of --limit are smoke tests, {NO_BENCHMARK}: they are not ranked."]
    if board.apart:
        return [APART]
    if board.lead is None:
        return ["The task's headline has no metric of forgetting with lower values better: rows are not ranked."]
    lead, lines = plain(board, board.lead), []
    lines.append(
        f"Forgetting is the {lead} (lower is better) in the worst case: without attack or under the strongest attack "
        "that a user without the weights can make, whichever leaves more. Attacks by an owner of the weights are shown "
        "and do not count."
    )
    lines.append(_forgotten(board))
    share = f"{100 * UTILITY_FLOOR:.0f} %"
    beyond = "" if board.beyond is None else f" (here {number(board.beyond)})"
    if board.utility:
        utility = plain(board, board.utility)
        kept = f"at least {share} of the target model's {utility}, or of the retain model's where that is lower"
        if board.floor is None:
            lines.append(f"There is no target row here, so no floor of {utility} (elsewhere {kept}) is asked for.")
        else:
            lines.append(
                f"Of these, rows that keep {kept} (here {number(board.floor)}) come first, those below this "
                f"floor after them, by {utility}."
            )
        equals = f" Equals are ordered by {utility}."
    else:
        lines.append("The task's headline has no metric of utility: rows are ranked by forgetting alone.")
        equals = ""
    lines.append(
        f"Among the first, less {lead} ranks higher; less than the retain model's worst case{beyond} counts as equal "
        f"to it, for forgetting more than a model that never saw the forget set earns nothing.{equals}"
    )
    lines.append(
        f"{PARETO} marks the Pareto front: no other ranked row is at least as good in both numbers and better in one. "
        "Diverged and unreliable rows are not ranked. A row marked “no attack”, or with fewer attacks than another row "
        "has, was ranked by these alone: those missing can only lower it. An attack of which some runs alone have a "
        "number (“prefill in 1 of 3 runs”) counts as these runs have it. One that was not made with the target's "
        "settings has them behind its name and is none of those that are counted."
    )
    if len([row for row in board.rows if row.rank]) > 1 and not board.toy:
        lines.append(
            "A row marked “not told from rank 1” may be as good or bad as the first: a paired test over the examples "
            f"of what ranks them ({lead} in each row's worst case; McNemar's where it is 0 or 1, else a permutation "
            "test of the mean) has q of 5 % or more, p adjusted over the board (Benjamini and Hochberg). Rows without "
            "records are not tested."
        )
    if board.tuned:
        lines.append(
            "A row marked “tuned” has settings that `grun-bench tune` chose among so many trials on rows that are not "
            f"scored, by one rule for all methods. {RULE} Its runs have seeds that no trial had."
        )
    if any(column.metric.endswith(EVERYWHERE) for column in board.columns):
        lines.append(
            f"{', '.join(EVERYWHERE).replace('_', ' ')}: of rows filed before every row had them they are made from "
            "the records when this page is, and are not in the result file."
        )
    return lines


INTERVALS = (
    "n is the number of runs (seeds), numbers are their means. ± is half the 95 % t interval over the runs: of their "
    "mean, as if they were drawn from a normal distribution, so of few runs it can reach beyond what the metric can be "
    "(a share below 0 or above 1). [low, high] is the 95 % bootstrap interval over the examples of a row's only run. ↑ "
    "higher is better, ↓ lower is better."
)
