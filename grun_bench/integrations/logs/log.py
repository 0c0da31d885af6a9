"""What a log of another tool is read into, and the file that it is read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grun_bench.core.errors import UsageError
from grun_bench.results.record import Records

#: the sets whose answers every log has
SETS = ("forget", "retain", "real_authors", "world_facts")
#: row number -> what a log says of the row
Rows = dict[int, Any]


@dataclass(frozen=True)
class ImportedLog:
    """A log read into records.

    `aggregates` are the log's own numbers under our keys (those it has), `metrics` the metrics that its rows allow to
    recompute them. `protocol` names how the tool prompts and scores; rows of two protocols never meet in one table.
    """

    records: Records
    tool: str
    protocol: str
    sha256: str
    aggregates: dict[str, float]
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class LogFile:
    """A parsed log file, whose errors name the file and the place in it. Every method raises UsageError."""

    path: Path
    data: Mapping[str, Any]
    sha256: str

    def error(self, place: str, what: str) -> UsageError:
        return UsageError(f"{self.path}: {place}: {what}.")

    def part(self, *keys: str) -> Any:
        """The value under a path of keys. Raises UsageError where the path ends."""
        found: Any = self.data
        for depth, key in enumerate(keys):
            if not isinstance(found, Mapping) or key not in found:
                raise self.error("/".join(keys[: depth + 1]), "missing")
            found = found[key]
        return found

    def rows(self, *keys: str) -> Rows:
        """A part that maps row numbers to values. Raises UsageError when it does not, or has no row."""
        part = self.part(*keys)
        place = "/".join(keys)
        if not isinstance(part, Mapping) or not part:
            raise self.error(place, "no rows by their number")
        if not all(key.isdecimal() for key in part):
            raise self.error(place, "a row whose key is not a number")
        return {int(key): part[key] for key in sorted(part, key=int)}

    def number(self, value: Any, place: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(place, f"'{value}' is not a number")
        return float(value)

    def text(self, value: Any, place: str) -> str:
        if not isinstance(value, str):
            raise self.error(place, f"'{value}' is not a text")
        return value

    def numbers(self, value: Any, place: str) -> list[float]:
        if not isinstance(value, list) or not value:
            raise self.error(place, "not a list of numbers")
        return [self.number(item, place) for item in value]

    def item(self, row: Any, key: str, place: str) -> Any:
        """One field of a row. Raises UsageError when the row has none of that name."""
        if not isinstance(row, Mapping) or key not in row:
            raise self.error(place, f"'{key}' is missing")
        return row[key]
