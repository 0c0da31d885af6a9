"""Data sets by name: files, the mirrors of GRUN_BENCH_HUB, then Git, or the Hugging Face cache and Hub. No torch.

JSON is read here, from a file and from a mirror alike: as it is written, a date as its text, and never as it was at an
earlier time. `datasets` is imported for what is not a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from grun_bench.core import environment as env
from grun_bench.core.errors import DataError, first_line, unknown
from grun_bench.core.local_data import cached_by_content, data_files
from grun_bench.core.patches import no_dataset_bars
from grun_bench.tasks import repositories
from grun_bench.tasks.dataset import Row, Source
from grun_bench.tasks.json_rows import SUFFIXES, read_rows
from grun_bench.tasks.tables import is_texts, read_file, read_texts


def read(source: Source) -> tuple[list[Row], str]:
    """All rows of a source's data set, and where they were found.

    Raises DataError with every place that was looked at, UsageError for an unknown configuration.
    """
    if (there := _by_place(source)) is not None:
        return there
    tried: list[str] = []
    for mirror in env.mirrors():
        folder = mirror / source.data
        if folder.is_dir():
            try:
                return _of_folder(folder, source), f"mirror {source.data}"
            except (OSError, RuntimeError, ValueError, TypeError, yaml.YAMLError) as error:
                raise DataError(f"{source}: {folder} cannot be read ({' '.join(str(error).split())[:200]}).") from None
        tried.append(f"{folder} (GRUN_BENCH_HUB)")
    try:
        if source.repository:
            return repositories.read(Source.parse(source.repository.replace("{config}", source.config or "")))
        return _load_dataset(source.data, source), f"hub {source.data}"
    except DataError as error:
        if not source.repository:
            raise
        tried.append(f"{source.repository.replace('{config}', source.config or '')} ({error})")
    except (OSError, RuntimeError, ValueError) as error:
        tried.append(f"the Hugging Face cache and Hub ({type(error).__name__}: {first_line(error)[:120]})")
    where = "\n  ".join(tried)
    raise DataError(
        f"data set {source} was not found. Looked in:\n  {where}\n"
        "Put a copy at <folder>/" + source.data + " and set GRUN_BENCH_HUB=<folder>."
    )


def _by_place(source: Source) -> tuple[list[Row], str] | None:
    """The rows of a source that is a file, a folder of texts or a file of a repository; None where it is a name."""
    if repositories.is_repository(source):
        return repositories.read(source)
    path = env.expanded(source.data)
    if path.is_file():
        return read_file(path), source.data
    return (read_texts(path), source.data) if source.config is None and is_texts(path) else None


def _of_folder(folder: Path, source: Source) -> list[Row]:
    if not (folder / "README.md").exists():  # without a card that says what they are, configurations are files' names
        alone = [file for suffix in SUFFIXES if (file := folder / f"{source.config}{suffix}").is_file()]
        if alone:
            return read_rows(alone[:1])
        there = (file for suffix in SUFFIXES for file in folder.rglob(f"*{suffix}"))
        if source.config and (known := [str(file.relative_to(folder).with_suffix("")) for file in there]):
            raise unknown(f"configuration of {source.data}", source.config, known, f"({folder})")
    config, split = source.split
    with _configurations(str(folder), source):
        files = data_files(folder, config).get(split, [])
        if files and all(file.suffix in SUFFIXES for file in files):
            return read_rows(files)
        return _load_dataset(str(folder), source, **cached_by_content(folder, config))


def _load_dataset(name: str, source: Source, **options: Any) -> list[Row]:
    import datasets

    config, split = source.split
    try:
        with no_dataset_bars(), _configurations(name, source):
            return datasets.load_dataset(name, config, split=split, **options).to_list()
    except datasets.exceptions.DatasetGenerationError as error:
        raise DataError(f"{source} ({name}): {error.__cause__ or error}") from None


@contextmanager
def _configurations(name: str, source: Source) -> Iterator[None]:
    """Within this block an unknown configuration is told with those that there are."""
    import datasets

    try:
        yield
    except ValueError as error:
        if "BuilderConfig" not in str(error):
            raise
        known = datasets.get_dataset_config_names(name)
        raise unknown(f"configuration of {source.data}", str(source.split[0]), known) from None
