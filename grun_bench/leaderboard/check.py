"""What CI runs: every result keeps its schema, every number comes from the records, and every page is up to date.

Bootstrap intervals are left to `grun-bench verify`: they take nearly all of the time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from grun_bench.core.errors import GrunBenchError
from grun_bench.core.progress import bar
from grun_bench.leaderboard.compare import UNKNOWN, Number
from grun_bench.leaderboard.marks import read_marks
from grun_bench.leaderboard.pages import outdated, render_filed
from grun_bench.leaderboard.recompute import recompute
from grun_bench.leaderboard.tree import parts, read_flags
from grun_bench.results.filed import Filed


def problems(tree: Path, out: Path) -> Iterator[str]:
    """One line for each thing that is wrong, beginning with the file and the place in it."""
    filed, broken = [], False
    for found in _read(tree):
        if isinstance(found, Filed):
            filed.append(found)
        else:
            broken = True
            yield found
    by_task: dict[tuple[str, str], list[Filed]] = defaultdict(list)
    for row in filed:
        # imported retain logs may be of another model's name
        by_task[row.result.task, row.result.dataset].append(row)
    with bar("numbers from records", len(filed)) as advance:
        for row in filed:
            yield from (f"{row.file}: {what}" for what in _wrong(row, by_task[row.result.task, row.result.dataset]))
            advance()
    if not broken:
        try:
            pages = render_filed(iter(filed), tree, out).pages
            yield from (
                f"{out / path}: {what}; run grun-bench leaderboard." for path, what in outdated(pages, out).items()
            )
        except GrunBenchError as error:
            yield str(error)


def _wrong(row: Filed, among: list[Filed]) -> Iterator[str]:
    try:
        problem = row.problem()
        if problem:
            yield f"{problem}."
        else:
            yield from (_told(each) for each in recompute(row, among, intervals=False) if not each.ok)
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


def _read(tree: Path) -> Iterator[Filed | str]:
    """Every result, or what is wrong with it."""
    try:
        read_flags(tree)
    except GrunBenchError as error:
        yield str(error)
    for part in parts(tree):
        try:
            marks = read_marks(part.base)
        except GrunBenchError as error:
            yield str(error)
            marks = {}
        for path in part.paths():
            try:
                yield part.read(path, marks)
            except GrunBenchError as error:
                yield str(error)
