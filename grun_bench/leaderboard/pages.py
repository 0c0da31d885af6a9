"""The rendered pages: which files there are, and putting them in their folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from grun_bench.core import untrusted
from grun_bench.core.errors import UsageError
from grun_bench.core.files import write_whole
from grun_bench.core.strict_json import read_json
from grun_bench.leaderboard import gates, words
from grun_bench.leaderboard.boards import Board, Order, adapter_of
from grun_bench.leaderboard.build import build
from grun_bench.leaderboard.markdown import Line, line, overview, page
from grun_bench.leaderboard.opened import Opened
from grun_bench.leaderboard.scatter import palette, picture
from grun_bench.leaderboard.sheet import sheet
from grun_bench.leaderboard.site import Shown, shown, site
from grun_bench.leaderboard.tree import collection_paused, nothing_in, read_flags, read_models, unlearners
from grun_bench.results.filed import Filed
from grun_bench.results.store import model_folder

#: the page of all boards
SITE = "index.html"
#: the folders of real and of toy pages; nothing else should lie in them
PAGES, TOY_PAGES = "pages", "toy"
_SUFFIXES = (".md", ".csv", ".svg")
#: SHA-256 of each page by its path: what was written, and so may be removed
MANIFEST = "pages.json"
#: bytes of a page
_BYTES = 2**30
#: what is wrong with a file
_LINK, _GONE = "is a link or lies behind one; remove it", "has no results any more"
_FOREIGN = "is no page of these results; remove it"


@dataclass(frozen=True)
class Rendered:
    """The text of each page by its path relative to their folder, and how many runs they show.

    `site` has all of them in one HTML file, which is large and changes with every row: it is made where it is read.
    """

    pages: dict[str, str]
    site: str
    runs: int


def render(tree: Path, out: Path) -> Rendered:
    """All pages of a tree of results, with links from `out` to the result files.

    Raises UsageError when there is no result, or one is broken.
    """
    with collection_paused():
        return render_filed(read_models(tree), unlearners(tree), tree, out)


def render_filed(
    models: Iterable[Iterable[Filed]], names: Iterable[str], tree: Path, out: Path, with_site: bool = True
) -> Rendered:
    """As `render`, from the results of each task and model and the names of all unlearners among them.

    Of results and boards no more are held than those of one task and model. `with_site` with the page of all boards.
    """
    flags, colours = read_flags(tree), palette(map(adapter_of, names))
    opened = Opened(Path(os.path.relpath(tree, out)).as_posix()) if with_site else None
    drawn = [page for filed in models for page in _pages(build(filed, flags), colours, opened)]
    if not drawn:
        raise nothing_in(tree)
    drawn.sort(key=lambda each: each.order)
    pages = {"README.md": overview(line for each in drawn for line in each.lines)}
    for each in drawn:
        pages |= each.files
    pages[MANIFEST] = json.dumps({path: _sha256(text.encode()) for path, text in pages.items()}, indent=1) + "\n"
    whole = site([board for each in drawn for board in each.shown]) if with_site else ""
    return Rendered(pages, whole, sum(each.runs for each in drawn))


@dataclass(frozen=True)
class _Page:
    """What is kept of the boards of a page, all of it text: its `files`, and what the pages of all boards have of them.

    `order` is that of its first board.
    """

    order: Order
    files: dict[str, str]
    lines: Sequence[Line]
    shown: Sequence[Shown]
    runs: int


def _pages(boards: Sequence[Board], colours: dict[str, int], opened: Opened | None) -> list[_Page]:
    """The pages of boards in order; without `opened` nothing is kept for the page of all boards."""
    by_page: dict[str, list[Board]] = defaultdict(list)
    for board in boards:
        folder = TOY_PAGES if board.toy else PAGES
        by_page[f"{folder}/{board.first.task}/{model_folder(board.first.model)}.md"].append(board)
    return [
        _Page(
            order=of_page[0].order,
            files=_files(path, of_page, colours),
            lines=[line(path, board) for board in of_page],
            shown=[shown(board, colours, opened) for board in of_page] if opened else [],
            runs=sum(board.runs for board in of_page),
        )
        for path, of_page in by_page.items()
    ]


def _files(path: str, boards: Sequence[Board], colours: dict[str, int]) -> dict[str, str]:
    """The page with this path, and the sheets and pictures of its boards beside it."""
    files, names = {}, {}
    for board in boards:
        stem = f"{path.removesuffix('.md')}.{board.id}"
        names[board.id] = stem.rpartition("/")[2]
        files[f"{stem}.csv"] = sheet(board)
        if drawn := picture(board, colours):
            files[f"{stem}.svg"] = drawn
        for row, found in gates.audits(board):
            files[gates.file(stem, row)] = gates.picture(row, found)
    return files | {path: page(boards, names, "../" * path.count("/") + "README.md")}


def outdated(pages: dict[str, str], out: Path) -> dict[str, str]:
    """The files in `out` that are not as rendered: path -> what is wrong with it."""
    found = {}
    for path, text in pages.items():
        there = _content(out / path)
        if _linked(out, path):
            found[path] = _LINK
        elif there is None:
            found[path] = "is missing"
        elif there != text.encode():
            found[path] = "is out of date"
    return found | dict(_left_over(pages, out))


def write(rendered: Rendered, out: Path) -> None:
    """Write what changed, the page of all boards too, and remove pages whose results are gone.

    Removed is what the manifest of an earlier call names and nobody changed; no link is followed below `out`. Raises
    UsageError rather than overwrite a page of another origin, GrunBenchError when a file cannot be saved.
    """
    pages = {SITE: rendered.site} | rendered.pages
    changes = outdated(pages, out)
    for path in pages.keys() & changes.keys():
        if changes[path] == _LINK:
            raise UsageError(f"{out / path} {_LINK}.")
        there = _content(out / path)
        if path.endswith((".md", ".html")) and there is not None and words.MARKER.encode() not in there:
            raise UsageError(
                f"{out / path} is not a page of `grun-bench leaderboard`: choose another folder with --out."
            )
    for path in changes:
        if path in pages:
            write_whole(out / path, pages[path])
        elif changes[path] == _GONE:
            (out / path).unlink()
            _remove_empty((out / path).parent)


def _content(path: Path) -> bytes | None:
    """What a plain file holds; None for anything else."""
    try:
        return untrusted.read(path, _BYTES)
    except UsageError:
        return None


def _linked(out: Path, path: str) -> bool:
    """Whether a link is on the way to a page, or in its place."""
    place = Path(path)
    return any((out / each).is_symlink() for each in (place, *place.parents[:-1]))


def _left_over(pages: dict[str, str], out: Path) -> Iterator[tuple[str, str]]:
    """The files in the folders of pages that are none of these: path -> what is wrong with it."""
    try:
        written = read_json(out / MANIFEST, dict[str, str])
    except UsageError:  # none, or two that git could not merge
        written = {}
    for folder in (PAGES, TOY_PAGES):
        for file in sorted((out / folder).glob("*/*")):
            path = file.relative_to(out).as_posix()
            if file.suffix in _SUFFIXES and path not in pages:
                content = None if _linked(out, path) else _content(file)
                yield path, _GONE if content is not None and written.get(path) == _sha256(content) else _FOREIGN


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _remove_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()
