"""Files of the repository on the site: where each stands, and links between them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

#: texts of the repository -> their pages
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "RECIPES.md": "recipes.md",
    "tasks/README.md": "tasks.md",
    "leaderboards/SUBMITTING.md": "submitting.md",
    "leaderboards/README.md": "boards/index.md",
}
#: sources of the repository -> the pages that are made from what they say of themselves
MADE = {
    "grun_bench/methods": "methods/index.md",
    "grun_bench/metrics": "all-metrics.md",
    "grun_bench/results/result.py": "result-file.md",
}
#: [text](place#anchor), of pictures too; not of code
_LINK = re.compile(r"\[([^\]\n]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_FENCES = re.compile(r"^(```.*?^```[^\n]*$)", flags=re.MULTILINE | re.DOTALL)


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """The text with what is in no fenced block changed."""
    return "".join(part if part.startswith("```") else change(part) for part in _FENCES.split(text))


def boards(root: Path) -> dict[str, str]:
    """The boards' pages -> their places on the site, in the order in which the overview names them."""
    overview = (root / "leaderboards" / "README.md").read_text(encoding="utf-8")
    paths = sorted((root / "leaderboards").glob("*/*/*.md"))
    paths.sort(key=lambda path: overview.find(path.relative_to(root / "leaderboards").as_posix()))
    found = [path.relative_to(root).as_posix() for path in paths]
    return {path: path.replace("leaderboards/", "boards/", 1) for path in found}


def copied(root: Path) -> dict[str, str]:
    """The files beside the boards' pages, tables and pictures, and the pictures that pages show -> their places."""
    folders = {(root / path).parent for path in boards(root)}
    found = [file.relative_to(root).as_posix() for folder in sorted(folders) for file in sorted(folder.iterdir())]
    return {path: path.replace("leaderboards/", "boards/", 1) for path in found if not path.endswith(".md")}


def moved(text: str, source: str, place: str, root: Path) -> str:
    """The text of `source`, a file of the repository, with links as its page at `place` must have them.

    A link to a file that the site does not have is left as its text.
    """
    places = PAGES | MADE | boards(root) | copied(root)

    def link(found: re.Match[str]) -> str:
        words, target, anchor = found[1], found[2], found[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path.startswith("docs/"):
            there = path.removeprefix("docs/")
        elif path in places:
            there = places[path]
        else:
            return words
        return f"[{words}]({posixpath.relpath(there, posixpath.dirname(place) or '.')}{anchor})"

    return outside_code(text, lambda part: _LINK.sub(link, part))
