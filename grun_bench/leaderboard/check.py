"""What CI runs: every result keeps its schema, every number comes from the records, and every page is up to date."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from grun_bench.errors import GrunBenchError
from grun_bench.leaderboard.files import outdated, render_filed
from grun_bench.leaderboard.recompute import Stored, differences
from grun_bench.leaderboard.tree import Filed, folders, read_file, read_flags, read_verified, result_paths
from grun_bench.progress import bar


def problems(tree: Path, out: Path) -> Iterator[str]:
    """One line for each thing that is wrong, beginning with the file and the place in it."""
    filed, broken = [], False
    for found in _read(tree):
        if isinstance(found, Filed):
            filed.append(found)
        else:
            broken = True
            yield found
    by_task: dict[tuple[str, str], list[Stored]] = defaultdict(list)
    stored = [Stored(one.result, (tree / one.path).parent) for one in filed]
    for one in stored:
        # imported retain logs may be of another model's name
        by_task[one.result.task, one.result.dataset].append(one)
    with bar("numbers from records", len(filed)) as advance:
        for one, of_file in zip(stored, filed, strict=True):
            yield from _differences(one, by_task[one.result.task, one.result.dataset], tree / of_file.path)
            advance()
    if not broken:
        try:
            pages = render_filed(iter(filed), tree, out).pages
            yield from (
                f"{out / path}: {what}; run grun-bench leaderboard." for path, what in outdated(pages, out).items()
            )
        except GrunBenchError as error:
            yield str(error)


def _differences(stored: Stored, others: list[Stored], path: Path) -> Iterator[str]:
    try:
        yield from (f"{path}: {problem}" for problem in differences(stored, others))
    except GrunBenchError as error:
        yield f"{path}: {error}"


def _read(tree: Path) -> Iterator[Filed | str]:
    """Every result, or what is wrong with it."""
    try:
        read_flags(tree)
    except GrunBenchError as error:
        yield str(error)
    for folder in folders(tree):
        try:
            verified = read_verified(folder)
        except GrunBenchError as error:
            yield str(error)
            verified = {}
        for path in result_paths(folder):
            try:
                yield read_file(folder, path, verified)
            except GrunBenchError as error:
                yield str(error)
