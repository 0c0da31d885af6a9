"""The tree of result files: which there are, who filed each, and how far each was verified."""

from __future__ import annotations

import gc
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grun_bench.core.errors import UsageError
from grun_bench.results.result import Result, parse_result
from grun_bench.results.store import records_of

#: how far a row can be trusted, best first
TIERS = ("re-run", "recomputed", "imported", "self-reported")
#: tiers that `grun-bench verify` gives
VERIFIED = TIERS[:2]
SUBMISSIONS, FLAGS, VERIFICATION, CARD = "submissions", "flags.json", "verified.json", "card.json"


@dataclass(frozen=True)
class Folder:
    """A folder of results `<task>/<org__model>/<unlearner>/<run_id>.json`: the tree's own, or those of a submission.

    `base` holds the verification file, whose paths are relative to it. `name` is the submission's, "" for the tree.
    """

    base: Path
    results: Path
    name: str = ""


@dataclass(slots=True)
class Filed:
    """A result with its place and standing. `path` is relative to the tree, with `/`."""

    result: Result
    path: str
    tier: str
    folder: Folder

    @property
    def place(self) -> str:
        """The folder that the result and its records lie in, relative to the tree."""
        return self.path.rpartition("/")[0]


def folders(tree: Path) -> list[Folder]:
    """The tree's own results and those of every submission, in the order of their names."""
    submissions = tree / SUBMISSIONS
    names = sorted(path.name for path in submissions.iterdir() if path.is_dir()) if submissions.is_dir() else []
    return [Folder(tree, tree), *(Folder(submissions / name, submissions / name / "results", name) for name in names)]


def result_paths(folder: Folder) -> Iterator[str]:
    """The result files of a folder, relative to its results, in order."""
    if folder.results.is_dir():
        found = _below(str(folder.results), "", 4)
        yield from sorted(path for path in found if folder.name or not path.startswith(f"{SUBMISSIONS}/"))


def _below(top: str, inner: str, depth: int) -> Iterator[str]:
    """The JSON files exactly `depth` levels below; hidden ones are files in the making."""
    with os.scandir(top) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if depth > 1 and entry.is_dir():
                yield from _below(entry.path, f"{inner}{name}/", depth - 1)
            elif depth == 1 and name.endswith(".json"):
                yield inner + name


def read_file(folder: Folder, path: str, verified: dict[str, Any]) -> Filed:
    """A result, checked to lie where its own fields say. Raises UsageError with the place."""
    file = f"{folder.results}/{path}"
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}.") from None
    result = parse_result(content, file)
    said = (result.task, result.model.replace("/", "__"), result.unlearner.name, f"{result.run_id}.json")
    if tuple(path.split("/")) != said:
        raise UsageError(f"{file}: its fields belong in {'/'.join(said)}.")
    if result.task not in result.results or result.task not in result.higher_is_better:
        raise UsageError(f"{file}: results.{result.task}: missing.")
    outside = [records.file for records in records_of(result) if not is_name(records.file)]
    if outside:
        raise UsageError(f"{file}: {outside[0]}: records lie beside their result.")
    mark = verified.get(f"results/{path}" if folder.name else path)
    tier = "imported" if result.imported else "self-reported"
    if not result.imported and mark and mark["sha256"] == hashlib.sha256(content).hexdigest():
        tier = mark["tier"]
    return Filed(result, f"{SUBMISSIONS}/{folder.name}/results/{path}" if folder.name else path, tier, folder)


def is_name(text: str) -> bool:
    """Whether a text names a file in a folder and nothing outside of it."""
    return bool(text.strip(".")) and "/" not in text and "\\" not in text and "\0" not in text


def read_tree(tree: Path) -> Iterator[Filed]:
    """Every result of the tree and of its submissions. Raises UsageError at the first that is none."""
    for folder in folders(tree):
        verified = read_verified(folder)
        for path in result_paths(folder):
            yield read_file(folder, path, verified)


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


def _read_json(path: Path, empty: Any) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return empty
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}.") from None


def read_verified(folder: Folder) -> dict[str, dict[str, str]]:
    """What `grun-bench verify` found: relative path of a result -> its hash, the tier, the date and the harness."""
    path = folder.base / VERIFICATION
    found = _read_json(path, {})
    if not isinstance(found, dict):
        raise UsageError(f"{path}: not a mapping of result files to what was verified.")
    for name, mark in found.items():
        if not isinstance(mark, dict) or not isinstance(mark.get("sha256"), str) or mark.get("tier") not in VERIFIED:
            raise UsageError(f"{path}: {name}: needs `sha256` and a `tier` of {' or '.join(VERIFIED)}.")
    return found


def read_flags(tree: Path) -> dict[str, str]:
    """Runs flagged as unreliable: run id -> reason."""
    path = tree / FLAGS
    found = _read_json(path, [])
    if not isinstance(found, list):
        raise UsageError(f"{path}: not a list of flags.")
    for number, flag in enumerate(found):
        if not isinstance(flag, dict) or not all(isinstance(flag.get(key), str) for key in ("run_id", "reason")):
            raise UsageError(f"{path}: [{number}]: needs `run_id` and `reason`.")
    return {flag["run_id"]: flag["reason"] for flag in found}


def read_card(folder: Folder) -> dict[str, Any]:
    """The method card of a submission; {} for the tree's own results, which have none."""
    path = folder.base / CARD
    card = _read_json(path, {}) if folder.name else {}
    if not isinstance(card, dict):
        raise UsageError(f"{path}: not a method card.")
    return card
