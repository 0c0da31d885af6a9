"""Folders that are built once and kept: by a key of everything that decides them, whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from grun_bench.core.environment import cache_folder
from grun_bench.core.errors import GrunBenchError, UsageError
from grun_bench.core.files import locked, part_of, remove
from grun_bench.core.progress import say

KEY_FILE = "key.json"
#: what the key file calls the hash of the files beside it
CONTENT = "content_sha256"


def digest(value: Any) -> str:
    """SHA-256 of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _content(folder: Path) -> str:
    """SHA-256 over the names and contents of a folder's files, without its key."""
    total = hashlib.sha256()
    for path in sorted(each for each in folder.rglob("*") if each.is_file() and each != folder / KEY_FILE):
        with path.open("rb") as file:
            total.update(path.relative_to(folder).as_posix().encode() + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _whole(folder: Path, key: Mapping[str, Any]) -> bool:
    """Whether a folder was built to the end, and holds what it did then.

    What older versions wrote is the key alone: nothing else passes for it.
    """
    try:
        said = json.loads((folder / KEY_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(said, dict):
        return False
    if CONTENT in said:
        return bool(said[CONTENT] == _content(folder))
    return said == json.loads(json.dumps(key, default=str))


def is_cached(kind: str, key: Mapping[str, Any]) -> bool:
    """Whether a whole folder with this key is there."""
    return _whole(_place(kind, key), key)


def _place(kind: str, key: Mapping[str, Any]) -> Path:
    return cache_folder() / kind / digest(key)[:20]


def cached_folder(kind: str, key: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
    """The folder that `build(folder)` fills, built unless a whole one with this key is there.

    Safe against two processes (a file lock; the second waits and uses the first's), against being killed in the middle
    (built beside its place and renamed when whole; what a killed build left is removed by the next) and against files
    that are no longer what was built (they are built again; folders of older versions do not say what that was).
    Raises UsageError when the cache cannot be written.
    """
    target = _place(kind, key)
    parent = target.parent
    if _whole(target, key):
        return target
    with ExitStack() as stack:
        try:
            busy = f"another process is building {target}; waiting for it."
            stack.enter_context(locked(Path(f"{target}.lock"), busy))
        except OSError as error:
            raise UsageError(
                f"the cache {parent} cannot be written ({error.strerror}); set GRUN_BENCH_CACHE to a folder that can."
            ) from None
        if _whole(target, key):
            return target
        if (target / KEY_FILE).exists():
            say(f"{target}: its files are not those that were built; building it again.")
        for left in parent.glob(f".{target.name}.*.part"):
            remove(left)  # nobody else builds it
        try:
            with part_of(target) as building:
                building.mkdir()
                build(building)
                said = {CONTENT: _content(building), **key}
                (building / KEY_FILE).write_text(json.dumps(said, indent=1, sort_keys=True, default=str) + "\n")
                remove(target)
                building.replace(target)
        except (OSError, SafetensorError) as error:
            raise GrunBenchError(f"could not keep a built folder in {parent}: {error}.") from error
    return target
