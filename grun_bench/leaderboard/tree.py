"""The tree of reviewed results: which there are, who filed each, and how far each was verified."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from grun_bench.core.environment import OWN_RESULTS
from grun_bench.core.errors import UsageError
from grun_bench.core.strict_json import read_if_there
from grun_bench.leaderboard.marks import Mark, read_marks
from grun_bench.results.filed import Filed, Tier
from grun_bench.results.store import elsewhere, read_filed, read_result, result_files, result_paths

SUBMISSIONS, FLAGS, CARD = "submissions", "flags.json", "card.json"


@dataclass(frozen=True)
class Part:
    """A part of a tree: its own results, or with a name those of a submission."""

    tree: Path
    submission: str = ""

    def paths(self) -> list[str]:
        """Its result files, relative to the tree, in order."""
        if not self.submission:
            return [path for path in result_paths(self.tree) if not path.startswith(f"{SUBMISSIONS}/")]
        inner = f"{SUBMISSIONS}/{self.submission}/results"
        return [f"{inner}/{path}" for path in result_paths(self.tree / inner)]

    def read(self, path: str, marks: Mapping[str, Mark], *, reviewed: bool = False) -> Filed:
        """A result of `paths` with its standing. Raises UsageError with the place when it is none.

        Of one that was `reviewed` only the mark asks for the hash.
        """
        filed = read_filed(self.tree, path, reviewed=reviewed, hashed=not reviewed or path in marks)
        mark = marks.get(path)
        tier: Tier = "imported" if filed.result.imported else "self-reported"
        if mark and mark.sha256 == filed.sha256 and not filed.result.imported:
            tier = mark.tier
        return Filed(filed.result, filed.root, filed.path, filed.sha256, tier, self.submission)


def parts(tree: Path) -> list[Part]:
    """The tree's own results and those of every submission, in the order of their names.

    Raises UsageError where a bundle lies in the folder of submissions itself, whose rows would be on no board: `cp -r`
    leaves it so where that folder was not there.
    """
    submissions = tree / SUBMISSIONS
    if (submissions / CARD).is_file():
        raise UsageError(f"{submissions} is a bundle: move it into a folder of its own, {submissions / 'my-method'}.")
    names = sorted(path.name for path in submissions.iterdir() if path.is_dir()) if submissions.is_dir() else []
    return [Part(tree), *(Part(tree, name) for name in names)]


def read_models(tree: Path, chosen: Collection[str] | None = None) -> Iterator[Iterator[Filed]]:
    """Every result of the tree and of its submissions but those of own rows, as reviewed as `--check` is to see to.

    By task and model, to be read one after the other: no board has results of two. Of all, or of those `chosen` among
    `models_of`. Raises UsageError at the first that is none.
    """
    marks = read_marks(tree)
    for name, places in _listed(tree, model_of).items():
        if chosen is not None and name not in chosen:
            continue
        read = (part.read(path, marks, reviewed=True) for part, path in places)
        yield (filed for filed in read if not filed.result.own)


def models_of(tree: Path) -> list[str]:
    """`<task>/<org__model>` of all results, those of own rows among them."""
    return list(_listed(tree, model_of))


def model_of(path: str) -> str:
    """`<task>/<org__model>` of a result's path."""
    return "/".join(path.split("/")[-4:-2])


def unlearners(tree: Path) -> set[str]:
    """The unlearners that `read_models` will have results of: of each no more are read than it takes to see one."""
    found = set()
    for name, places in _listed(tree, lambda path: path.split("/")[-2]).items():
        if not all(part.read(path, {}, reviewed=True).result.own for part, path in places):
            found.add(name)
    return found


def _listed(tree: Path, by: Callable[[str], str]) -> dict[str, list[tuple[Part, str]]]:
    """The paths of all results, each with its part of the tree, by something that they say."""
    found: dict[str, list[tuple[Part, str]]] = defaultdict(list)
    for part in parts(tree):
        for path in part.paths():
            found[by(path)].append((part, path))
    return found


def nothing_in(tree: Path) -> UsageError:
    """The error for a tree with nothing for a page: where there is something, or what brings it there."""
    other = "" if result_paths(tree) else elsewhere(tree, "--results")
    # rows of own files are on no page, there neither
    if other and not all(read_result(path).own for path in result_files(OWN_RESULTS)):
        return UsageError(f"no results in {tree}{other}")
    return UsageError(
        f"no results in {tree}; `grun-bench run` writes them there. Rows of own files are on no page: `grun-bench "
        "compare RUN RUN` puts them side by side."
    )


@contextmanager
def collection_paused() -> Iterator[None]:
    """Without searches for reference cycles: results have none, and thousands of them take seconds to search."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Flag(BaseModel):
    """A run that is flagged as unreliable, and why."""

    model_config = ConfigDict(extra="forbid", strict=True)

    run_id: str
    reason: str


def read_flags(tree: Path) -> dict[str, str]:
    """Runs flagged as unreliable: run id -> reason. Raises UsageError with the place when the file is another."""
    return {flag.run_id: flag.reason for flag in read_if_there(tree / FLAGS, list[Flag], [])}


def read_card(tree: Path, submission: str) -> dict[str, Any]:
    """The method card of a submission. Raises UsageError when it is none."""
    return read_if_there(tree / SUBMISSIONS / submission / CARD, dict[str, Any], {})
