"""What CI runs: every result keeps its schema, every number comes from the records, and every page is up to date.

Toy results may come without records, which the project makes again in minutes; then there are no numbers to compare.
Bootstrap intervals are left to `grun-bench verify`: they take nearly all of the time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grun_bench.core.errors import GrunBenchError
from grun_bench.core.limits import at_most
from grun_bench.core.progress import bar
from grun_bench.leaderboard.allowed import allowed_seconds
from grun_bench.leaderboard.compare import UNKNOWN, Number
from grun_bench.leaderboard.consistency import inconsistencies
from grun_bench.leaderboard.likeness import unlike
from grun_bench.leaderboard.marks import VERIFICATION, Mark, read_marks
from grun_bench.leaderboard.pages import outdated, render_filed
from grun_bench.leaderboard.recompute import recompute
from grun_bench.leaderboard.tree import SUBMISSIONS, Part, model_of, parts, read_flags
from grun_bench.results.filed import Filed, records_problem


@dataclass(frozen=True)
class Checked:
    """What is wrong, one line each that begins with the file and the place in it, and how many results were looked at.

    `recomputed` were compared with their records; of `without_records`, toy results, schema and pages were checked.
    """

    problems: tuple[str, ...]
    recomputed: int
    without_records: int


def check(tree: Path, out: Path) -> Checked:
    """Check a tree of results and the pages in `out`; nothing is written."""
    read = list(_read(tree))
    filed, problems = (
        [each for each in read if isinstance(each, Filed)],
        [each for each in read if isinstance(each, str)],
    )
    bare = [each for each in filed if each.left_out()]
    wrong = [*problems, *_wrong(filed)]
    if not problems:
        wrong += _old(filed, tree, out)
    return Checked(tuple(wrong), len(filed) - len(bare), len(bare))


def _read(tree: Path) -> Iterator[Filed | str]:
    """Every result, or what is wrong with it."""
    marks: dict[str, Mark] = {}
    try:
        read_flags(tree)
        marks = read_marks(tree)
    except GrunBenchError as error:
        yield str(error)
    for part in parts(tree):
        yield from _not_signed_off(part, marks)
        for path in part.paths():
            try:
                filed = part.read(path, marks)
            except GrunBenchError as error:
                yield str(error)
                continue
            if not filed.result.own:
                yield filed


def _not_signed_off(part: Part, marks: Mapping[str, Mark]) -> Iterator[str]:
    """What a submission says of its own verification, where the tree's reviewers did not say it."""
    if not part.submission:
        return
    base = part.tree / SUBMISSIONS / part.submission
    try:
        brought = {f"{SUBMISSIONS}/{part.submission}/{path}": mark for path, mark in read_marks(base).items()}
    except GrunBenchError as error:
        yield str(error)
        return
    if any(marks.get(path) != mark for path, mark in brought.items()):
        yield (
            f"{base / VERIFICATION}: not signed off by {part.tree / VERIFICATION}. A submission brings none; reviewers "
            f"run grun-bench verify {base}."
        )


def _wrong(filed: Sequence[Filed]) -> Iterator[str]:
    by_task: dict[tuple[str, str], list[Filed]] = defaultdict(list)
    for each in filed:
        # imported retain logs may be of another model's name
        by_task[each.result.task, each.result.dataset].append(each)
    with bar("numbers from records", len(filed)) as advance:
        for each in filed:
            for what in inconsistencies(each.result):
                yield f"{each.file}: {what}."
            for what in _wrong_numbers(each, by_task[each.result.task, each.result.dataset]):
                yield f"{each.file}: {what}"
            advance()


def _wrong_numbers(filed: Filed, among: Sequence[Filed]) -> Iterator[str]:
    there = [records for records in filed.result.all_records() if filed.beside(records).exists()]
    try:
        with at_most(allowed_seconds(filed.result)):
            problem = records_problem(filed.file, there) if filed.left_out() else filed.problem()
            if problem:
                yield f"{problem}."
            elif not filed.left_out():
                yield from (f"{what}." for what in unlike(filed, among))
                yield from (_told(each) for each in recompute(filed, among, intervals=False) if not each.ok)
    except GrunBenchError as error:
        yield str(error)


def _told(number: Number) -> str:
    stated, found = (
        "none" if value is None else value if isinstance(value, str) else repr(value)
        for value in (number.stated, number.found)
    )
    if number.found == UNKNOWN:
        return f"{number.place}: the result says {stated}, {found}; its plugin may be missing here"
    reason = f" ({number.reason})" if number.reason else ""
    return f"{number.place}: the result says {stated}, the records give {found}{reason}"


def _old(filed: Sequence[Filed], tree: Path, out: Path) -> Iterator[str]:
    by_model: dict[str, list[Filed]] = defaultdict(list)
    for each in filed:
        by_model[model_of(each.path)].append(each)
    names = {each.result.unlearner.name for each in filed}
    try:
        pages = render_filed(by_model.values(), names, tree, out, with_site=False).pages
    except GrunBenchError as error:
        yield str(error)
    else:
        for path, what in outdated(pages, out).items():
            yield f"{out / path}: {what}; run grun-bench leaderboard."
