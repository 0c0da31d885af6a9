"""Published data sets: JSON Lines files, the mirrors of GRUN_BENCH_HUB, then the Hugging Face cache and Hub. No torch.

`datasets` is imported when a data set is read.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from grun_bench.core import environment as env
from grun_bench.core.errors import DataError, unknown
from grun_bench.core.patches import no_dataset_bars
from grun_bench.tasks.dataset import Row, Source


def read(source: Source) -> tuple[list[Row], str]:
    """All rows of a source's data set (split `train`), and where they were found.

    Raises DataError with every place that was looked at, UsageError for an unknown configuration.
    """
    tried: list[str] = []
    if Path(source.data).expanduser().is_file():
        return _load_json(Path(source.data).expanduser()), source.data
    for mirror in env.mirrors():
        folder = mirror / source.data
        if folder.is_dir():
            try:
                return _load_dataset(str(folder), source), f"mirror {source.data}"
            except (OSError, RuntimeError, ValueError, TypeError, yaml.YAMLError) as error:
                raise DataError(f"{source}: {folder} cannot be read ({' '.join(str(error).split())[:200]}).") from None
        tried.append(f"{folder} (GRUN_BENCH_HUB)")
    try:
        return _load_dataset(source.data, source), f"hub {source.data}"
    except (OSError, RuntimeError, ValueError) as error:
        tried.append(f"the Hugging Face cache and Hub ({type(error).__name__}: {str(error).splitlines()[0][:120]})")
    where = "\n  ".join(tried)
    raise DataError(
        f"data set {source} was not found. Looked in:\n  {where}\n"
        "Put a copy at <folder>/" + source.data + " and set GRUN_BENCH_HUB=<folder>."
    )


def _load_json(path: Path) -> list[Row]:
    rows = []
    # as bytes: texts may hold what Unicode counts as the end of a line
    for number, line in enumerate(path.read_bytes().splitlines()):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, row {number}: not JSON ({error}).") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {number}: expected an object with the columns, found {row!r}.")
        rows.append(row)
    return rows


def _load_dataset(name: str, source: Source) -> list[Row]:
    import datasets

    try:
        with no_dataset_bars():
            return datasets.load_dataset(name, source.config, split="train").to_list()
    except datasets.exceptions.DatasetGenerationError as error:
        raise DataError(f"{source} ({name}): {error.__cause__ or error}") from None
    except ValueError as error:
        if "BuilderConfig" not in str(error):
            raise
        raise unknown(
            f"configuration of {source.data}", str(source.config), datasets.get_dataset_config_names(name)
        ) from None
