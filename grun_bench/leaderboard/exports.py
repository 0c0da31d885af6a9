"""Tables of boards for papers and for other programs: chosen by task, model and table, as Markdown, LaTeX or CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from grun_bench.core.errors import UsageError, unknown
from grun_bench.leaderboard import latex, markdown, tidy
from grun_bench.leaderboard.boards import Board
from grun_bench.leaderboard.build import build
from grun_bench.leaderboard.tables import NAMES, RANKING, Table, tables
from grun_bench.leaderboard.tree import collection_paused, models_of, nothing_in, read_flags, read_models
from grun_bench.results.store import model_folder

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
        models, flags = read_models(tree, _chosen(tree, task, model)), read_flags(tree)
        boards = [board for filed in models for board in build(filed, flags)]
        if not boards:
            raise nothing_in(tree)
        boards.sort(key=lambda board: board.order)
        found = [(board, [each for each in tables(board) if table in (ALL, each.name)]) for board in boards]
        shown = [(board, some) for board, some in found if some]
    if not shown:
        there = dict.fromkeys(each.name for board in boards for each in tables(board))
        raise UsageError(f"--table {table}: these boards have no such table; they have {', '.join(there)}.")
    return FORMATS[form](shown)


def _chosen(tree: Path, task: str | None, model: str | None) -> list[str]:
    """Of what `models_of` the tree gives, those of a task and of a model."""
    there = [name.split("/") for name in models_of(tree)]
    tasks = {each for each, _ in there}
    if tasks and task is not None and task not in tasks:
        raise unknown("--task", task, tasks, f"These have results in {tree}.")
    folders = {folder for each, folder in there if task in (None, each)}
    wanted = None if model is None else model_folder(model)
    named = {folder for folder in folders if wanted in (None, folder, folder.rpartition("__")[2])}
    if folders and not named:
        names = [folder.replace("__", "/", 1) for folder in folders]
        raise unknown("--model", model or "", names, f"These have results in {tree}.")
    return [f"{each}/{folder}" for each, folder in there if task in (None, each) and folder in named]
