"""Data sets that lie in folders: known by what their files hold, not by when they were written. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grun_bench.core.errors import DataError

#: what Git keeps in place of a large file that was not fetched
_POINTER = b"version https://git-lfs.github.com/spec/"


def is_pointer(path: Path) -> bool:
    """Whether a file is what Git keeps in place of one that was not fetched."""
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER


def check_fetched(beginning: bytes, path: Path) -> None:
    """Raises DataError where the beginning of a file's content is that of a git-lfs pointer."""
    if beginning.startswith(_POINTER):
        raise DataError(f"{path}: a git-lfs pointer, not the data; `git lfs pull` in its folder fetches them.")


def data_files(folder: Path, config: str | None, **options: Any) -> dict[str, list[Path]]:
    """The files of a data set's configuration by split, as `datasets` finds them with these `options`."""
    import datasets

    found: Mapping[str, Sequence[str]] = (
        datasets.load_dataset_builder(str(folder), config, **options).config.data_files or {}
    )
    return {split: [Path(file) for file in files] for split, files in found.items()}


def cached_by_content(folder: Path, config: str | None, **options: Any) -> dict[str, Any]:
    """The options under which `datasets.load_dataset` reads a folder's files as they are now.

    Left to itself the library takes a file of the same name and time of change for the one that it has read before.
    Raises DataError for a file that was not fetched.
    """
    import datasets

    digest = hashlib.sha256()
    files = sorted({file for part in data_files(folder, config, **options).values() for file in part})
    for file in [each for each in (*files, folder / "README.md") if each.is_file()]:
        with file.open("rb") as content:
            check_fetched(content.read(len(_POINTER)), file)
            content.seek(0)
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return {"cache_dir": str(Path(datasets.config.HF_DATASETS_CACHE) / f"content-{digest.hexdigest()[:24]}")}
