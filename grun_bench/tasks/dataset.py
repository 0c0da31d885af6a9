"""Data sets by name -> validated rows. Mirrors, then the Hugging Face cache and Hub; the embedded world for `tiny`.

No torch; `datasets` is imported when a data set is read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from grun_bench.core import environment as env
from grun_bench.core.errors import DataError, UsageError, unknown

_SOURCE = re.compile(r"(?P<data>[^:\[\]]+)(:(?P<config>[^\[\]]+))?(\[(?P<start>\d*):(?P<stop>\d*)\])?$")


@dataclass(frozen=True)
class Source:
    """A data set in a task file: `org/name:config[start:stop]` or the path of a JSON Lines file; split `train`."""

    data: str
    config: str | None = None
    start: int = 0
    stop: int | None = None

    @classmethod
    def parse(cls, text: str) -> Source:
        """Raises UsageError when the text has another shape."""
        match = _SOURCE.fullmatch(text)
        if match is None:
            raise UsageError(f"'{text}' is not a data source: write org/name:config or org/name:config[0:360].")
        start, stop = match["start"], match["stop"]
        return cls(match["data"], match["config"], int(start) if start else 0, int(stop) if stop else None)

    def __str__(self) -> str:
        name = self.data + (f":{self.config}" if self.config else "")
        return (
            name
            if not self.start and self.stop is None
            else f"{name}[{self.start}:{'' if self.stop is None else self.stop}]"
        )


@dataclass(frozen=True)
class Rows:
    """Rows of one source, with what a result must say about them; `numbers` are their places in the data set."""

    rows: list[dict[str, Any]]
    origin: str
    sha256: str
    numbers: list[int]


def load_rows(
    source: Source, columns: tuple[str, ...] | None = None, *, embedded: bool, limit: int | None = None
) -> Rows:
    """The rows of a source with the named columns checked: each there and not empty; None for those of training sets.

    Raises DataError with every place that was looked at, or with the row and column that is wrong.
    """
    if embedded:
        from grun_bench.tasks import toy_world as world

        if source.config not in world.configs():
            raise DataError(f"the embedded world has no counterpart of {source}; give a real model with --model.")
        table, origin = world.rows(source.config), f"embedded:{source.config}"
    else:
        table, origin = _read(source)
    table = table[source.start : source.stop][:limit]
    if not table:
        raise DataError(f"{source} ({origin}): no rows.")
    place = origin if origin == source.data else f"{source} ({origin})"
    for number, row in enumerate(table, source.start):
        for column in columns or training_columns(row):
            _check(row, column, f"{place}, row {number}")
    return Rows(table, origin, _sha256(table), list(range(source.start, source.start + len(table))))


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of several ranges of one data set as one."""
    rows = [row for part in parts for row in part.rows]
    return Rows(rows, parts[0].origin, _sha256(rows), [number for part in parts for number in part.numbers])


def _sha256(rows: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def training_columns(row: dict[str, Any]) -> tuple[str, ...]:
    """The columns that a training set with rows like this one must have: `text`, or question and answer."""
    return ("text",) if "text" in row else ("question", "answer")


def _check(row: dict[str, Any], column: str, place: str) -> None:
    if column not in row or row[column] is None:
        raise DataError(f"{place}: column '{column}' is missing; the columns are {', '.join(row)}.")
    values = row[column] if column == "perturbed_answer" else [row[column]]
    if not isinstance(values, list) or not values:
        raise DataError(f"{place}, column '{column}': expected a list of answers.")
    for value in values:
        if not isinstance(value, str) or not value.strip():
            raise DataError(
                f"{place}, column '{column}': expected text, found {'an empty one' if value == '' else repr(value)}."
            )


def _read(source: Source) -> tuple[list[dict[str, Any]], str]:
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


def _load_json(path: Path) -> list[dict[str, Any]]:
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


def _load_dataset(name: str, source: Source) -> list[dict[str, Any]]:
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, source.config, split="train").to_list()
    except datasets.exceptions.DatasetGenerationError as error:
        raise DataError(f"{source} ({name}): {error.__cause__ or error}") from None
    except ValueError as error:
        if "BuilderConfig" not in str(error):
            raise
        raise unknown(
            f"configuration of {source.data}", str(source.config), datasets.get_dataset_config_names(name)
        ) from None
