"""What the cache holds, by kind, and how it is cleared. No torch."""

from __future__ import annotations

import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from grun_bench.core.environment import cache_folder
from grun_bench.core.files import remove

#: kinds of what is kept, each a folder of the cache, and what they are
KINDS = {
    "checkpoints": "trainings that stopped before they were over, or whose row has attacks to come",
    "models": "the embedded model, and target and retain models fine-tuned here",
    "numbers": "what pages have from records that no result states",
    "own": "where own files lie, by the hash of what they hold",
    "texts": "texts of private rows, in whose results are hashes",
    "trunk": "what frozen layers gave, of runs that were killed",
}
#: kinds that are not made again by whoever needs them: they are cleared by their own names alone
LASTING = ("texts",)
DAY = 86400.0


@dataclass(frozen=True)
class Kept:
    """A file or a folder of the cache: its bytes, and when it or the newest thing in it was written."""

    path: Path
    size: int
    written: float

    @property
    def days(self) -> float:
        """Since it was written."""
        return (time.time() - self.written) / DAY


def kept(kind: str) -> list[Kept]:
    """What the cache has of a kind, oldest first; locks, which are empty and may be held, are left out."""
    folder = cache_folder() / kind
    paths = [path for path in folder.iterdir() if path.suffix != ".lock"] if folder.is_dir() else []
    return sorted(map(_measured, paths), key=lambda each: each.written)


def _measured(path: Path) -> Kept:
    size, written = 0, 0.0
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    for file in (path, *inside):
        with suppress(OSError):  # it may go while it is looked at
            status = file.lstat()
            written = max(written, status.st_mtime)
            size += 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return Kept(path, size, written)


def clear(kind: str, older_than: float) -> tuple[list[Kept], list[Kept]]:
    """Remove what the cache has of a kind and was written more than so many days ago.

    Returns what is gone, and what should be and cannot be removed.
    """
    old = [each for each in kept(kind) if each.days > older_than]
    for each in old:
        remove(each.path)
    gone = [each for each in old if not (each.path.exists() or each.path.is_symlink())]
    return gone, [each for each in old if each not in gone]
