"""A filed result: a result file in its folder, the records beside it, and what it was compared with. No torch."""

from __future__ import annotations

import bz2
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from grun_bench.core import registry, untrusted
from grun_bench.core.files import remove, write_whole
from grun_bench.core.plugins import Control
from grun_bench.results.contradictions import contradictions
from grun_bench.results.metric_key import CLEAN, MetricKey
from grun_bench.results.private import keep, with_texts
from grun_bench.results.record import RECORDS_BYTES, Records, load_records
from grun_bench.results.result import RECORDS_ENDS, RecordsFile, Result

#: how far a result can be trusted, best first; `verify` gives the first two
Tier = Literal["re-run", "recomputed", "imported", "self-reported"]
TIERS: tuple[Tier, ...] = ("re-run", "recomputed", "imported", "self-reported")
#: the two models that every run is compared with, by the role of their unlearner
CONTROLS: tuple[Control, ...] = ("target", "retain model")


#: bytes and values of all records of one result; a value takes up to 32 bytes of memory, however short it is written
ALL_BYTES, ALL_VALUES = 2**30, 50_000_000


@dataclass(frozen=True, slots=True)
class Filed:
    """A result file. `path` is relative to the folder `root` that it was read from, with `/`.

    `sha256` is that of the content as it was read, for the mark of its verification. `submission` is the bundle that
    brought it into a tree, "" for the tree's own.
    """

    result: Result
    root: Path
    path: str
    sha256: str
    tier: Tier = "self-reported"
    submission: str = ""

    @property
    def file(self) -> Path:
        return self.root / self.path

    @property
    def place(self) -> str:
        """The folder that the result and its records lie in, relative to the root."""
        return self.path.rpartition("/")[0]

    def beside(self, records: RecordsFile) -> Path:
        return self.file.with_name(records.file)

    def has(self, records: RecordsFile) -> bool:
        """Whether there is anything under their name."""
        return os.path.exists(f"{self.root}/{self.place}/{records.file}")  # noqa: PTH110  (a quarter of the time)

    def left_out(self) -> bool:
        """Whether records are not there and need not be: a toy result's, which is made again in minutes."""
        return self.result.toy and not all(map(self.has, self.result.all_records()))

    def problem(self) -> str | None:
        """Why the records beside the result are not those that it names; None where they are."""
        return records_problem(self.file, self.result.all_records())

    def named(self) -> dict[str, RecordsFile]:
        """The records that it names, by filter: `none`, `<attack>:<variant>`, or `<curve>@<point>` where a point of a
        curve has records of its own."""
        result = self.result
        files = {CLEAN: result.records} if result.records else {}
        for attack, info in result.attacks.items():
            files |= {MetricKey("", attack, variant).filter: records for variant, records in info.variants.items()}
        for name, curve in result.curves.items():
            if name.partition(":")[0] not in result.attacks:  # an attack's points are its variants
                files |= {f"{name}@{point.at}": point.records for point in curve.points if point.records}
        return files

    def records(self, filters: Collection[str] | None = None) -> dict[str, Records]:
        """Its records by filter, all or those asked for, as far as it has them.

        Raises UsageError for records that are none, or that no model can leave.
        """
        files = self.named()
        wanted = files if filters is None else filters
        return {
            key: with_texts(_possible(self.beside(records)), records.sha256)
            for key, records in files.items()
            if key in wanted
        }


# --- records beside a result ------------------------------------------------------------------------------------------


def save_records(path: Path, records: Records, *parts: str, private: bool = False) -> RecordsFile:
    """Write records beside the result file `path`; returns what the result says of them.

    `parts` tell apart what one result has several of: a stage, or an attack and its variant. The same records give the
    same bytes. Texts of `private` ones stay on this machine. Raises GrunBenchError when they cannot be saved.
    """
    content = (keep(records) if private else records).dumps().encode()
    packed, *older = (path.with_name(".".join([path.stem, *parts]) + end) for end in RECORDS_ENDS)
    write_whole(packed, bz2.compress(content))  # a fifth smaller than gzip, and as xz, which takes six times as long
    for written in older:
        written.unlink(missing_ok=True)
    return RecordsFile(file=packed.name, sha256=hashlib.sha256(content).hexdigest(), count=content.count(b"\n"))


@contextmanager
def no_orphans(path: Path) -> Iterator[None]:
    """Where this block fails, which writes records and then the new result that names them, none stay without it.

    What was there before stays, and all where there was a result. Nobody else may write beside it in the block.
    """
    before = None if path.exists() else set(_beside(path))
    try:
        yield
    except BaseException:
        if before is not None and not path.exists():
            for each in set(_beside(path)) - before:
                remove(each)
        raise


def _beside(path: Path) -> Iterator[Path]:
    """The files that begin with the name of a result file."""
    if path.parent.is_dir():
        yield from (each for each in path.parent.iterdir() if each.name.startswith(f"{path.stem}."))


def records_problem(path: Path, named: Iterable[RecordsFile]) -> str | None:
    """Why the records beside the result file `path` are not those that are named; None where all are.

    Raises UsageError for what is no plain file, or too large, alone or together: whoever reads them holds all at once.
    """
    size, values = 0, 0
    for records in named:
        file = path.with_name(records.file)
        if not file.is_file():
            return f"{records.file} is missing"
        found, lines = hashlib.sha256(), 0
        for piece in untrusted.pieces(file, RECORDS_BYTES):
            found.update(piece)
            lines += piece.count(b"\n")
            size, values = size + len(piece), values + piece.count(b",")
            if size > ALL_BYTES or values > ALL_VALUES:
                untrusted.refuse(path, f"its records are more than {ALL_BYTES:,} bytes or {ALL_VALUES:,} values")
        if found.hexdigest() != records.sha256:
            return f"{records.file} was changed: its SHA-256 is {found.hexdigest()}, the result says {records.sha256}"
        if lines != records.count:
            return f"{records.file} has {lines} lines, and the result says {records.count}"
    return None


def read_records(path: Path, named: RecordsFile) -> Records:
    """The records that the result file `path` names; with their texts, where those are private and on this machine."""
    return with_texts(load_records(path.with_name(named.file)), named.sha256)


def _possible(path: Path) -> Records:
    """The records of a file, of which none contradicts itself."""
    records = load_records(path)
    for line, record in enumerate(records, 1):
        for what in contradictions(record):
            untrusted.refuse(f"{path}, line {line}", f"row {record.index} of '{record.set}': {what}")
    return records


# --- target and retain rows -------------------------------------------------------------------------------------------


def controls(result: Result, role: Control, among: Iterable[Filed]) -> Iterator[Filed]:
    """The results of the target or the retain model that `result` may have been made with."""
    return (other for other in among if made_with(result, other.result, role))


def made_with(result: Result, other: Result, role: Control) -> bool:
    """Whether `other` may be what the target or the retain model gave in the run that made `result`."""
    if other.unlearner.name != registry.control(role) or other.run_id == result.run_id:
        return False
    log = result.reference.get("retain_log")
    if role == "retain model" and log is not None:
        same = ["task", "protocol"]
        return other.imported is not None and other.imported.sha256 == log and _agree(result, other, same)
    same = ["task", "protocol", "model", "dataset", "dataset_hash", "limit", "reference"]
    return bool(other.imported) == bool(result.imported) and _agree(result, other, same)


def _agree(one: Result, other: Result, fields: Iterable[str]) -> bool:
    return all(getattr(one, field) == getattr(other, field) for field in fields)
