"""The result file: its schema, its place, and writing it whole or not at all. No torch."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from grun_bench.core.errors import GrunBenchError, UsageError, unknown
from grun_bench.results.migrations import CURRENT, migrate
from grun_bench.tasks.sets import USUAL_SETS, ScoredSets

SCHEMA_VERSION = CURRENT
#: where `run` writes and `leaderboard` reads
RESULTS = Path("leaderboards/results")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RecordsFile(_Part):
    """The records beside a result."""

    file: str
    sha256: str
    count: int


class UnlearnerInfo(_Part):
    """What was run, with every setting in force."""

    name: str
    settings: dict[str, Any]


class ImportedFrom(_Part):
    """Where an imported row comes from: the tool, and the published log with its SHA-256."""

    tool: str
    file: str
    sha256: str


class Cost(_Part):
    """What it took. Seconds of wall time; bytes of peak memory (GPU, else the process)."""

    trainable_parameters: int = 0
    parameters: int = 0
    training_seconds: float = 0.0
    scoring_seconds: float = 0.0
    training_peak_bytes: int | None = None
    scoring_peak_bytes: int | None = None
    #: what frozen first layers gave, kept over the training
    trunk_bytes: int = 0


class AttackInfo(_Part):
    """An attack on a row: how it was made, and the records that each of its variants left.

    `access` is what the attacker needs: `user` may only ask the model, `weights` owns its files.
    """

    version: int
    access: Literal["user", "weights"]
    settings: dict[str, Any]
    variants: dict[str, RecordsFile]
    seconds: float


class Point(_Part):
    """Metric values at one place of a curve, null where a number is missing, and the records that they come from."""

    at: int
    values: dict[str, float | None]
    records: RecordsFile | None = None


class Curve(_Part):
    """Metric values over training steps, relearning steps or the stages of sequential unlearning.

    `best` is the point of a training that `best_step` names; nothing is chosen by it.
    """

    unit: Literal["steps", "stages"]
    points: list[Point]
    best: int | None = None


#: the share of the target model's retain probability that the best step must have kept
KEPT = 0.9


def best_step(points: list[Point], sets: ScoredSets = USUAL_SETS) -> int | None:
    """Of the steps after 0 that keep `KEPT` of the retain probability of step 0, the one that extracts least.

    The lowest forget extraction strength, the earlier step where two are equal; None where no step keeps so much, or a
    value is missing. Of several sets with a role it is the first.
    """
    kept, extracted = f"{sets.of('retain')[0]}_probability", f"{sets.of('forget')[0]}_extraction_strength"
    start = next((point.values.get(kept) for point in points if point.at == 0), None)
    found = []
    for point in points:
        retain, forget = (point.values.get(key) for key in (kept, extracted))
        if point.at and None not in (start, retain, forget) and retain >= KEPT * start:
            found.append((forget, point.at))
    return min(found)[1] if found else None


class Result(_Part):
    """One scored row.

    `results`, `configs`, `versions`, `n-samples`, `higher_is_better`, `date` and `git_hash` are lm-eval's keys.

    A metric is keyed `<metric>,<filter>`. The filter is `none`, an attack (its worst variant: the value that forgot
    least) or `<attack>:<variant>`. `recovery_<metric>,<attack>` is (after - before) / (target - before). Every metric
    is there: a missing number is null and `reasons` says why. `intervals` are 95 % bootstrap intervals.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    status: Literal["ok", "diverged"]
    error: str | None = None
    date: str
    task: str
    model: str
    unlearner: UnlearnerInfo
    seed: int | None
    protocol: str
    limit: int | None
    imported: ImportedFrom | None = None
    dataset: Literal["embedded", "published"]
    dataset_hash: str
    data: dict[str, dict[str, Any]]
    target: dict[str, Any]
    reference: dict[str, Any]
    results: dict[str, dict[str, float | None]]
    reasons: dict[str, str]
    intervals: dict[str, tuple[float, float]]
    n_samples: dict[str, dict[str, int]] = Field(alias="n-samples")
    higher_is_better: dict[str, dict[str, bool | None]]
    versions: dict[str, int | str]
    configs: dict[str, dict[str, Any]]
    headline: list[str]
    cost: Cost
    history: dict[str, list[float]]
    attacks: dict[str, AttackInfo] = {}
    curves: dict[str, Curve] = {}
    records: RecordsFile | None
    packages: dict[str, str]
    hardware: dict[str, Any]
    git_hash: str | None
    git: dict[str, Any]

    @property
    def sets(self) -> ScoredSets:
        """The scored sets, as the result's own task says; an imported log has TOFU's, whatever its task scores."""
        return USUAL_SETS if self.imported else ScoredSets.of_config(self.configs.get(self.task, {}))

    def value(self, metric: str, attack: str = "none") -> float | None:
        """The value of a metric, without attack or under one; None when it is missing or not part of the task."""
        return self.results[self.task].get(f"{metric},{attack}")

    def worst_user_attack(self, metric: str) -> tuple[str, float] | None:
        """The attack by a mere user of the model under which a metric is worst, and its value there.

        None when no such attack has a value, or the metric has no direction.
        """
        better = self.higher_is_better[self.task].get(metric)
        users = [name for name, info in self.attacks.items() if info.access == "user"]
        found = [(name, value) for name in users if (value := self.value(metric, name)) is not None]
        if better is None or not found:
            return None
        return (min if better else max)(found, key=lambda pair: pair[1])

    def dumps(self) -> str:
        return (
            json.dumps(self.model_dump(by_alias=True, mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
            + "\n"
        )


def result_folder(output: Path, task: str, model: str, unlearner: str) -> Path:
    """<output>/<task>/<org__model>/<unlearner>."""
    return output / task / model.replace("/", "__") / unlearner


def check_writable(output: Path) -> None:
    """Raises UsageError when no file can be made in the output folder; makes the folder."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise UsageError(f"--output {output}: cannot be written ({error.strerror}). Choose another folder.") from None


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all. Raises GrunBenchError when it cannot be saved."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise GrunBenchError(f"{path} could not be saved: {error.strerror}.") from error


def save_records(path: Path, text: str) -> RecordsFile:
    """Write a records file; returns what the result says of it."""
    write_whole(path, text)
    return RecordsFile(file=path.name, sha256=hashlib.sha256(text.encode()).hexdigest(), count=text.count("\n"))


def records_intact(path: Path, result: Result) -> bool:
    """Whether the records beside a result file are those that it was made from, by their SHA-256; none are intact."""
    points = [point.records for curve in result.curves.values() for point in curve.points]
    return all(saved is None or _intact(path, saved) for saved in (result.records, *points))


def attack_intact(path: Path, info: AttackInfo) -> bool:
    """Whether the records that an attack left beside a result file are those that its values were made from."""
    return all(_intact(path, saved) for saved in info.variants.values())


def _intact(path: Path, saved: RecordsFile) -> bool:
    records = path.with_name(saved.file)
    return records.exists() and hashlib.sha256(records.read_bytes()).hexdigest() == saved.sha256


def read_result(path: Path) -> Result:
    """A result of this or an older schema. Raises UsageError with the place when the file is not a result."""
    try:
        return parse_result(path.read_bytes(), str(path))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}.") from None


def parse_result(content: bytes, place: str) -> Result:
    """The result in a file's content; `place` names the file in the UsageError that is raised when it is none."""
    try:
        return Result.model_validate(migrate(pydantic_core.from_json(content, allow_inf_nan=False)))
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"{place}: not a result ({'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']})."
        ) from None
    except ValueError as error:
        raise UsageError(f"{place}: not a result (file: {error}).") from None
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from None


def result_files(output: Path) -> Iterator[Path]:
    """All result files under a folder, in the order of their paths."""
    yield from sorted(path for path in output.glob("*/*/*/*.json") if not path.name.startswith("."))


def controls(path: Path, result: Result) -> dict[str, Result]:
    """The results of the target and the retain model that this one was made with, where they lie beside it."""
    found = {}
    for label, name in (("target", "none"), ("retain model", "retain")):
        for other in map(read_result, sorted((path.parents[1] / name).glob("*.json"))):
            same = ("dataset_hash", "protocol", "limit", "reference")
            if all(getattr(other, key) == getattr(result, key) for key in same) and other.run_id != result.run_id:
                found[label] = other
    return found


def find_result(run: str, output: Path) -> Path:
    """The result file of a path or a run id (or its unambiguous beginning). Raises UsageError when there is none."""
    if run.endswith(".json"):
        return Path(run)
    files = {path.stem: path for path in result_files(output)}
    matching = [stem for stem in files if stem.startswith(run)]
    if len(matching) == 1:
        return files[matching[0]]
    if matching:
        raise UsageError(f"run '{run}' is the beginning of {len(matching)} runs: {', '.join(matching[:5])}.")
    raise unknown("run", run, files, "`grun-bench ls runs` lists them.")
