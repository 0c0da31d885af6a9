"""The folder of results: `<task>/<org__model>/<unlearner>/<run_id>.json`, records beside each. No torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from grun_bench.core import registry, untrusted
from grun_bench.core.environment import OWN_RESULTS
from grun_bench.core.errors import GrunBenchError, UsageError, unknown
from grun_bench.core.files import locked
from grun_bench.core.plugins import Control
from grun_bench.core.strict_json import JSON_BYTES
from grun_bench.results.filed import CONTROLS, Filed, made_with
from grun_bench.results.result import Result, parse_result

#: levels of the folder, the file included
_DEPTH = 4
#: held by who changes a result of the folder
LOCK = ".lock"


def result_folder(root: Path, task: str, model: str, unlearner: str) -> Path:
    """<root>/<task>/<org__model>/<unlearner>."""
    return root / task / model_folder(model) / unlearner


def model_folder(model: str) -> str:
    """`<org__model>`, the folder of a model's results below that of a task."""
    return model.replace("/", "__")


def result_paths(root: Path) -> list[str]:
    """The result files of a folder, relative to it, with `/`, in order; none where there is no such folder."""
    return sorted(_below(str(root), "", _DEPTH)) if root.is_dir() else []


def result_files(root: Path) -> list[Path]:
    """The same as paths that can be opened."""
    return [root / path for path in result_paths(root)]


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


def control_paths(root: Path) -> list[str]:
    """Of `result_paths` those of target and retain models."""
    roles: dict[str, str | None] = {}
    found = []
    for path in result_paths(root):
        name = path.split("/")[2]
        if name not in roles:
            roles[name] = registry.role_of(name)
        if roles[name]:
            found.append(path)
    return found


def read_result(path: Path) -> Result:
    """The result in a file, wherever it lies. Raises UsageError with the place when it is none."""
    return parse_result(untrusted.read(path, JSON_BYTES), path)


def read_filed(root: Path, path: str, *, reviewed: bool = False, hashed: bool = True) -> Filed:
    """A result file in its place below a folder, as `parse_result` reads it; with its SHA-256 where it is `hashed`.

    Raises UsageError when its fields say that it belongs elsewhere.
    """
    file = root / path
    content = untrusted.read(file, JSON_BYTES)
    result = parse_result(content, file, reviewed=reviewed)
    said = [result.task, model_folder(result.model), result.unlearner.name, f"{result.run_id}.json"]
    if path.split("/")[-_DEPTH:] != said:
        untrusted.refuse(file, f"its fields say that it belongs in {'/'.join(said)}")
    return Filed(result, root, path, hashlib.sha256(content).hexdigest() if hashed else "")


def controls_beside(path: Path, result: Result) -> dict[Control, Result]:
    """What the target and the retain model gave in the run that made a result, by role, as far as it lies beside it."""
    folder = path.resolve().parent.parent
    found: dict[Control, Result] = {}
    for role in CONTROLS:
        for other in map(read_result, sorted((folder / registry.control(role)).glob("*.json"))):
            if made_with(result, other, role):
                found[role] = other
    return found


@contextmanager
def filing(path: Path) -> Iterator[None]:
    """Until the block's end no other process files anything in the same folder of results.

    Whoever changes a result reads it again in the block: another process may have added to it. Raises GrunBenchError
    where there can be no lock.
    """
    root = path.parents[_DEPTH - 1]
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(root / LOCK, f"another process is filing a row in {root}; waiting for it."))
        except OSError as error:
            raise GrunBenchError(f"{path} could not be saved: {root / LOCK}: {error.strerror}.") from error
        yield


def elsewhere(root: Path, option: str = "--output", run: str = "") -> str:
    """Where results are that a folder lacks, or one whose id begins so, with the option to name that place, for the end
    of a sentence; "" for nowhere."""
    if root.resolve() == OWN_RESULTS.resolve():
        return ""
    there = any(path.rpartition("/")[2].startswith(run) for path in result_paths(OWN_RESULTS))
    return f", but {'one ' if run else ''}in {OWN_RESULTS}: {option} {OWN_RESULTS}." if there else ""


def find_result(run: str, root: Path) -> Path:
    """The result file of a path or a run id (or its unambiguous beginning). Raises UsageError when there is none."""
    if run.endswith(".json"):
        return Path(run)
    files = {path.rpartition("/")[2].removesuffix(".json"): root / path for path in result_paths(root)}
    matching = [stem for stem in files if stem.startswith(run)]
    if len(matching) == 1:
        return files[matching[0]]
    if matching:
        raise UsageError(f"run '{run}' is the beginning of {len(matching)} runs: {', '.join(matching[:5])}.")
    if there := elsewhere(root, run=run):
        raise UsageError(f"no run '{run}' in {root}{there}")
    if of_unlearner := [stem for stem, path in files.items() if path.parent.name in (run, f"full+{run}")]:
        count = len(of_unlearner)
        which = f"its row is {of_unlearner[0]}" if count == 1 else f"it has {count} rows: {', '.join(of_unlearner[:5])}"
        raise UsageError(f"'{run}' is an unlearner, and a run is asked for: {which}{', ...' if count > 5 else ''}.")
    raise unknown("run", run, files, f"`grun-bench ls runs --output {root}` lists them.", listed=False)
