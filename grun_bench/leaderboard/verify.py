"""Bundles verified: every number made again from the records, or from the model itself. No torch, but for --rerun."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grun_bench
from grun_bench.core.errors import GrunBenchError, UsageError
from grun_bench.core.escaping import clean
from grun_bench.core.progress import bar, say
from grun_bench.leaderboard.bundle import MODELS, VERIFICATION, Bundle, read_bundle, read_row
from grun_bench.leaderboard.recompute import Number, recompute_row
from grun_bench.results.result import Result, result_files, write_whole
from grun_bench.results.store import Row
from grun_bench.tasks.task import load_task
from grun_bench.tasks.world import WORLDS
from grun_bench.tasks.yaml_files import task_files

#: the parts of a task that decide its numbers
_DECISIVE = ("version", "forget", "retain", "score", "measures", "metrics", "max_new_tokens")


@dataclass
class Verified:
    """What verification found of a row: problems that need no number, and the numbers."""

    row: Row
    tier: str
    problems: list[str] = field(default_factory=list)
    numbers: list[Number] = field(default_factory=list)

    @property
    def wrong(self) -> list[Number]:
        return [each for each in self.numbers if not each.ok]

    @property
    def ok(self) -> bool:
        return not self.problems and not self.wrong


#: makes a row again: the row, the folder of its saved model or None -> its numbers
Rerun = Callable[[Row, Path | None], list[Number]]


def verify(folder: Path, tree: Path, include: tuple[Path, ...] = (), rerun: Rerun | None = None) -> list[Verified]:
    """Verify every row of a bundle, or of a folder of results; write what passed into it when all of it did.

    `tree` is the folder of results where retain and target rows are looked for that the bundle lacks; `include` has
    tasks that are not the harness's. Raises UsageError when the folder is neither.
    """
    bundle = read_bundle(folder)
    among = list(bundle.rows)
    if folder.resolve() != tree.resolve():
        among += _tree_rows(tree, bundle.rows)
    found = []
    if rerun is None:
        with bar("recomputing", len(bundle.rows)) as advance:
            for row in bundle.rows:
                found.append(_verify(bundle, row, among, include, None))
                advance()
    else:  # training and scoring have bars of their own
        for place, row in enumerate(bundle.rows, 1):
            say(clean(f"row {place} of {len(bundle.rows)}: {row.result.unlearner.name} {row.result.run_id}"))
            found.append(_verify(bundle, row, among, include, rerun))
    if all(each.ok for each in found):
        _write(bundle, found)
    else:
        (folder / VERIFICATION).unlink(missing_ok=True)
    return found


def _tree_rows(tree: Path, rows: Sequence[Row]) -> Iterable[Row]:
    """The target and retain rows of the same tasks in the reviewed results."""
    tasks = {row.result.task for row in rows}
    for path in result_files(tree):
        inner = path.relative_to(tree)
        if inner.parts[0] in tasks and inner.parts[2] in ("none", "retain"):
            yield read_row(tree, inner.as_posix())


def _verify(bundle: Bundle, row: Row, among: Sequence[Row], include: tuple[Path, ...], rerun: Rerun | None) -> Verified:
    found = Verified(row, "recomputed")
    problem = row.problem() or task_problem(row.result, include)
    if problem:
        found.problems.append(problem)
        return found
    try:
        found.numbers = recompute_row(row, among)
        if rerun is not None and not found.wrong:
            model = bundle.folder / MODELS / row.result.run_id if row.result.run_id in bundle.models else None
            if row.result.imported:
                found.problems.append("imported from another tool's log: it cannot be run again")
            else:
                found.numbers, found.tier = rerun(row, model), "re-run"
    except UsageError:
        raise
    except GrunBenchError as error:
        found.problems.append(str(error))
    return found


def task_problem(result: Result, include: tuple[Path, ...] = ()) -> str | None:
    """Why a result is not of the task of its name as it is here; None where it is."""
    if result.task not in task_files(include):
        return f"the task {result.task} is none of the harness's; give its folder with --include-path"
    task = WORLDS[result.dataset].task(load_task(result.task, include))
    here, there = task.model_dump(mode="json"), result.configs.get(result.task, {})
    for key in _DECISIVE:
        if there.get(key) != here[key]:
            return f"$.configs.{result.task}.{key} is not that of the task here; run it again"
    return None


def _write(bundle: Bundle, found: Sequence[Verified]) -> None:
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    marks = {
        each.row.path: {"sha256": each.row.sha256, "tier": each.tier, "date": day, "harness": grun_bench.__version__}
        for each in found
    }
    write_whole(bundle.folder / VERIFICATION, json.dumps(marks, indent=1, sort_keys=True) + "\n")
