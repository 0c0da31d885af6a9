"""The rendered pages: which files there are, and putting them in their folder."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from grun_bench.core.errors import UsageError
from grun_bench.core.files import write_whole
from grun_bench.leaderboard import words
from grun_bench.leaderboard.boards import Board
from grun_bench.leaderboard.build import build
from grun_bench.leaderboard.markdown import overview, page
from grun_bench.leaderboard.scatter import palette, picture
from grun_bench.leaderboard.sheet import sheet
from grun_bench.leaderboard.site import site
from grun_bench.leaderboard.tree import collection_paused, read_flags, read_tree
from grun_bench.results.filed import Filed

#: the page of all boards
SITE = "index.html"
#: the folders of real and of toy pages; nothing else should lie in them
PAGES, TOY_PAGES = "pages", "toy"
_SUFFIXES = (".md", ".csv", ".svg")


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
        return render_filed(read_tree(tree), tree, out)


def render_filed(filed: Iterator[Filed], tree: Path, out: Path) -> Rendered:
    """As `render`, from results that were read already."""
    boards = build(filed, read_flags(tree))
    if not boards:
        raise UsageError(f"no results in {tree}; `grun-bench run` writes them there.")
    colours = palette([row.adapter for board in boards for row in board.rows])
    by_page: dict[str, list[Board]] = defaultdict(list)
    for board in boards:
        folder = TOY_PAGES if board.toy else PAGES
        by_page[f"{folder}/{board.first.task}/{board.first.model.replace('/', '__')}.md"].append(board)
    pages = {"README.md": overview(by_page)}
    for path, of_page in by_page.items():
        files = {}
        for board in of_page:
            stem = f"{path.removesuffix('.md')}.{board.id}"
            files[board.id] = stem.rpartition("/")[2]
            pages[f"{stem}.csv"] = sheet(board)
            if drawn := picture(board, colours):
                pages[f"{stem}.svg"] = drawn
        pages[path] = page(of_page, files, "../" * path.count("/") + "README.md")
    results = Path(os.path.relpath(tree, out)).as_posix()
    runs = sum(board.runs for board in boards)
    return Rendered(pages, site(by_page, colours, results), runs)


def outdated(pages: dict[str, str], out: Path) -> dict[str, str]:
    """The files in `out` that are not as rendered: path -> what is wrong with it."""
    found = {}
    for path, text in pages.items():
        there = _content(out / path)
        if there is None:
            found[path] = "is missing"
        elif there != text.encode():
            found[path] = "is out of date"
    return found | {path: "has no results any more" for path in _rendered_before(out) if path not in pages}


def write(rendered: Rendered, out: Path) -> None:
    """Write what changed, the page of all boards too, and remove pages whose results are gone.

    Raises UsageError rather than overwrite a README.md or index.html of another origin, GrunBenchError when a file
    cannot be saved.
    """
    pages = rendered.pages | {SITE: rendered.site}
    changes = outdated(pages, out)
    for path in ("README.md", SITE):
        there = _content(out / path)
        if path in changes and there is not None and words.MARKER.encode() not in there:
            raise UsageError(
                f"{out / path} is not a page of `grun-bench leaderboard`: choose another folder with --out."
            )
    for path in changes:
        if path in pages:
            write_whole(out / path, pages[path])
        else:
            (out / path).unlink()
            _remove_empty((out / path).parent)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _rendered_before(out: Path) -> Iterator[str]:
    for folder in (PAGES, TOY_PAGES):
        for path in sorted((out / folder).glob("*/*")):
            if path.suffix in _SUFFIXES and path.is_file():
                yield path.relative_to(out).as_posix()


def _remove_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()
