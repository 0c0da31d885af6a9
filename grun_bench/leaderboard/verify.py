"""Bundles verified: every number made again from the records, or from the model itself. No torch, but for --rerun."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import grun_bench
from grun_bench.core.errors import GrunBenchError, UsageError
from grun_bench.core.limits import at_most
from grun_bench.core.progress import bar, say
from grun_bench.leaderboard.allowed import allowed_seconds
from grun_bench.leaderboard.bundle import MODELS, Bundle, read_bundle
from grun_bench.leaderboard.compare import Number
from grun_bench.leaderboard.consistency import inconsistencies, task_problem
from grun_bench.leaderboard.likeness import unlike
from grun_bench.leaderboard.marks import VERIFICATION, Mark, read_marks, write_marks
from grun_bench.leaderboard.recompute import recompute
from grun_bench.leaderboard.tree import SUBMISSIONS
from grun_bench.results.filed import Filed
from grun_bench.results.store import control_paths, read_filed

#: in the place of a tier: a toy result of reviewed ones, whose records were left out
NO_RECORDS: Literal["no records"] = "no records"


@dataclass
class Verified:
    """What verification found of a result: problems that need no number, and the numbers."""

    filed: Filed
    tier: Literal["recomputed", "re-run", "no records"] = "recomputed"
    problems: list[str] = field(default_factory=list)
    numbers: list[Number] = field(default_factory=list)

    @property
    def wrong(self) -> list[Number]:
        return [each for each in self.numbers if not each.ok]

    @property
    def ok(self) -> bool:
        return not self.problems and not self.wrong


#: makes a result again: the result, the folder of its saved model or None -> its numbers
Rerun = Callable[[Filed, Path | None], list[Number]]


def verify(folder: Path, tree: Path, include: tuple[Path, ...] = (), rerun: Rerun | None = None) -> list[Verified]:
    """Verify every result of a bundle, or of a folder of results; write what passed into it when all of it did.

    `tree` is the folder of results where retain and target rows are looked for that the bundle lacks; what passed of a
    submission in this tree is written into the tree's own file, which signs it off. `include` has
    tasks that are not the harness's. Toy results of a folder need no records: they keep the mark that they have. Raises
    UsageError when the folder is neither.
    """
    bundle = read_bundle(folder)
    among = list(bundle.results)
    if folder.resolve() != tree.resolve():
        tasks = {filed.result.task for filed in bundle.results}
        among += [read_filed(tree, path) for path in control_paths(tree) if path.split("/")[0] in tasks]
    found = []
    if rerun is None:
        with bar("recomputing", len(bundle.results)) as advance:
            for filed in bundle.results:
                found.append(_verify(bundle, filed, among, include, None))
                advance()
    else:  # training and scoring have bars of their own
        for place, filed in enumerate(bundle.results, 1):
            name, run_id = filed.result.unlearner.name, filed.result.run_id
            say(f"row {place} of {len(bundle.results)}: {name} {run_id}")
            found.append(_verify(bundle, filed, among, include, rerun))
    _write(folder, tree, found if all(each.ok for each in found) else [])
    return found


def _verify(
    bundle: Bundle, filed: Filed, among: Sequence[Filed], include: tuple[Path, ...], rerun: Rerun | None
) -> Verified:
    found, result = Verified(filed), filed.result
    try:
        with at_most(allowed_seconds(result)):
            _recompute(found, among, include, bare=bundle.card is None and filed.left_out())
        if rerun is not None and found.ok:
            model = bundle.folder / MODELS / result.run_id if result.run_id in bundle.models else None
            if result.imported:
                found.problems.append("imported from another tool's log: it cannot be run again")
            else:
                found.numbers, found.tier = rerun(filed, model), "re-run"
    except UsageError:
        raise
    except GrunBenchError as error:
        found.problems.append(str(error))
    return found


def _recompute(found: Verified, among: Sequence[Filed], include: tuple[Path, ...], bare: bool) -> None:
    """Fill in what needs no model; `bare` results have no records."""
    filed, result = found.filed, found.filed.result
    problem = (None if bare else filed.problem()) or task_problem(result, include)
    found.problems += [problem] if problem else inconsistencies(result, include)
    if bare:
        found.tier = NO_RECORDS
    elif not found.problems:
        found.problems += unlike(filed, among)
        found.numbers = recompute(filed, among)


def _write(folder: Path, tree: Path, found: Iterable[Verified]) -> None:
    """Replace the marks of a folder by what was found of it; those of other parts of a tree stay."""
    home, prefix = marks_of(folder, tree)
    day, harness = datetime.datetime.now(datetime.UTC).date().isoformat(), grun_bench.__version__
    earlier = read_marks(home)
    marks = {path: mark for path, mark in earlier.items() if _part(path) != prefix}
    for each in found:
        path, sha256 = prefix + each.filed.path, each.filed.sha256
        if each.tier != NO_RECORDS:
            marks[path] = Mark(sha256=sha256, tier=each.tier, date=day, harness=harness)
        elif path in earlier and earlier[path].sha256 == sha256:
            marks[path] = earlier[path]
    if marks:
        write_marks(home, marks)
    else:
        (home / VERIFICATION).unlink(missing_ok=True)


def marks_of(folder: Path, tree: Path) -> tuple[Path, str]:
    """The folder that has the marks of a bundle or a folder of results, and what its paths begin with there: those of a
    submission are the tree's."""
    if folder.resolve().parent == (tree / SUBMISSIONS).resolve():
        return tree, f"{SUBMISSIONS}/{folder.resolve().name}/"
    return folder, ""


def _part(path: str) -> str:
    """The part of a tree that a result lies in, as its path begins: a submission's, or "" for the tree's own."""
    return "/".join([*path.split("/")[:2], ""]) if path.startswith(f"{SUBMISSIONS}/") else ""
