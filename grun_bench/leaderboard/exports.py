"""Tables of boards for papers and for other programs: chosen by task, model and table, as Markdown, LaTeX or CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from grun_bench.core.errors import UsageError, unknown
from grun_bench.leaderboard import latex, markdown, tidy
from grun_bench.leaderboard.boards import Board
from grun_bench.leaderboard.build import build
from grun_bench.leaderboard.tables import NAMES, RANKING, Table, tables
from grun_bench.leaderboard.tree import collection_paused, nothing_in, read_flags, read_tree
from grun_bench.results.filed import Filed

ALL = "all"
Chosen = Sequence[tuple[Board, Sequence[Table]]]


def _markdown(chosen: Chosen) -> str:
    return "\n".join(markdown.export(board, shown) for board, shown in chosen)


#: format -> what makes it
FORMATS: dict[str, Callable[[Chosen], str]] = {
    "markdown": _markdown,
    "latex": latex.document,
    "csv": tidy.tidy,
}


def export(tree: Path, form: str, task: str | None = None, model: str | None = None, table: str = RANKING) -> str:
    """The tables of a tree's boards in a format: of all boards, or those of a task, of a model.

    A model goes by its last part too. Raises UsageError with the near names for any that is not there.
    """
    if form not in FORMATS:
        raise unknown("--format", form, FORMATS)
    if table != ALL and table not in NAMES:
        raise unknown("--table", table, (*NAMES, ALL))
    with collection_paused():
        boards = build(_chosen(list(read_tree(tree)), tree, task, model), read_flags(tree))
        found = [(board, [each for each in tables(board) if table in (ALL, each.name)]) for board in boards]
        shown = [(board, some) for board, some in found if some]
    if not shown:
        there = dict.fromkeys(each.name for board in boards for each in tables(board))
        raise UsageError(f"--table {table}: these boards have no such table; they have {', '.join(there)}.")
    return FORMATS[form](shown)


def _chosen(filed: Sequence[Filed], tree: Path, task: str | None, model: str | None) -> list[Filed]:
    if not filed:
        raise nothing_in(tree)
    tasks = {each.result.task for each in filed}
    if task is not None and task not in tasks:
        raise unknown("--task", task, tasks, f"These have results in {tree}.")
    of_task = [each for each in filed if task in (None, each.result.task)]
    models = {each.result.model for each in of_task}
    named = {name for name in models if model in (None, name, name.rpartition("/")[2])}
    if not named:
        raise unknown("--model", model or "", models, f"These have results in {tree}.")
    return [each for each in of_task if each.result.model in named]
