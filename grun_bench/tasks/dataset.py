"""What a task file names as data, and the rows that it stands for, checked. No torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grun_bench.core.errors import DataError, UsageError

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


def checked(
    table: list[dict[str, Any]], origin: str, source: Source, columns: tuple[str, ...] | None, limit: int | None
) -> Rows:
    """The rows of a source out of its data set's table, with the named columns checked; None for a training set's.

    Raises DataError with the row and column that is wrong, or where there are no rows.
    """
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
