"""Result files with the records beside them, and the target and retain rows that they compare with. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from grun_bench.core import untrusted
from grun_bench.results.record import Records, load_records
from grun_bench.results.result import RecordsFile, Result

#: the filter of values without attack
CLEAN = "none"


@dataclass(frozen=True)
class Row:
    """A result file; `path` is relative to the folder that it was read from.

    `sha256` is that of the content as it was read, for the mark of its verification.
    """

    result: Result
    folder: Path
    path: str
    sha256: str | None = None

    @property
    def file(self) -> Path:
        return self.folder / self.path

    def beside(self, records: RecordsFile) -> Path:
        return self.file.with_name(records.file)

    def problem(self) -> str | None:
        """Why the records beside the result are not those that it names; None where they are."""
        for records in records_of(self.result):
            path = self.beside(records)
            if not path.is_file():
                return f"{records.file} is missing"
            content = untrusted.read(path, untrusted.RECORDS_BYTES)
            found = hashlib.sha256(content).hexdigest()
            if found != records.sha256:
                return f"{records.file} was changed: its SHA-256 is {found}, the result says {records.sha256}"
            lines = content.count(b"\n")
            if lines != records.count:
                return f"{records.file} has {lines} lines, and the result says {records.count}"
        return None

    def records(self, filters: Collection[str] | None = None) -> dict[str, Records]:
        """The row's records by filter, all or those asked for, as far as it has them.

        A filter is `none`, `<attack>:<variant>`, or `<curve>@<point>` where a point of a curve has records of its own.
        Raises UsageError for records that are none.
        """
        files = {CLEAN: self.result.records} if self.result.records else {}
        for attack, info in self.result.attacks.items():
            files |= {f"{attack}:{variant}": records for variant, records in info.variants.items()}
        for name, curve in self.result.curves.items():
            if name.partition(":")[0] not in self.result.attacks:  # an attack's points are its variants
                files |= {f"{name}@{point.at}": point.records for point in curve.points if point.records}
        wanted = files if filters is None else filters
        return {key: load_records(self.beside(records)) for key, records in files.items() if key in wanted}


def records_of(result: Result) -> Iterator[RecordsFile]:
    """All records that a result names: its own, and those of its attacks and curves."""
    if result.records:
        yield result.records
    for info in result.attacks.values():
        yield from info.variants.values()
    for curve in result.curves.values():
        yield from (point.records for point in curve.points if point.records)


def reads_control(row: Result, other: Result, name: str) -> bool:
    """Whether `other` is the target (`none`) or retain row that `row` was made with, or its imported retain log."""
    if other.unlearner.name != name or other.task != row.task or other.protocol != row.protocol:
        return False
    log = row.reference.get("retain_log")
    if name == "retain" and log is not None:
        return other.imported is not None and other.imported.sha256 == log
    same = ("model", "dataset", "dataset_hash", "limit", "reference")
    return not other.imported and all(getattr(other, key) == getattr(row, key) for key in same)


def controls(row: Result, name: str, among: Iterable[Row]) -> Iterator[Row]:
    """The target (`none`) or retain rows that `row` may have been made with and whose records are in order.

    Rows with the same records are one: a submission brings its own copy of rows that are there already.
    """
    seen = []
    for other in among:
        if reads_control(row, other.result, name):
            files = (other.result.records, other.result.attacks)
            if files not in seen and not other.problem():
                seen.append(files)
                yield other


def control(row: Result, name: str, among: Iterable[Row]) -> Row | None:
    """The first of `controls`."""
    return next(controls(row, name, among), None)
