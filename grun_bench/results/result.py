"""The result file: its schema, what it says by metric and attack, and reading one strictly. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from grun_bench.core import untrusted
from grun_bench.core.errors import UsageError
from grun_bench.core.strict_json import checked, parse_json
from grun_bench.core.untrusted import refuse
from grun_bench.results.metric_key import MetricKey
from grun_bench.results.migrations import ALIKE, CURRENT, migrate
from grun_bench.tasks.sets import USUAL_SETS, ScoredSets

SCHEMA_VERSION = CURRENT
#: how the name of a records file ends: compressed JSON Lines, and as older harnesses wrote them
RECORDS_ENDS = (".records.jsonl.bz2", ".records.jsonl.gz", ".records.jsonl")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _finite(data: dict[str, Any]) -> dict[str, Any]:
    waiting = list(data.values())
    for value in waiting:
        kind = type(value)
        if kind is dict:
            waiting += value.values()
        elif kind is list:
            waiting += value
        elif kind is float and value - value != 0:
            raise ValueError(f"{value} is no number of JSON")
    return data


#: JSON of any shape, whose numbers are finite as those of all fields are
Plain = Annotated[dict[str, Any], AfterValidator(_finite)]


#: a number of things
Count = Annotated[int, Field(ge=0)]
#: seconds, as a clock measured them
Seconds = Annotated[float, Field(ge=0)]
#: no result is older; and a clock that is not right is less than a year ahead
_FIRST, _AHEAD = 2020, 1


def _a_date(text: str) -> str:
    """Raises ValueError for what is no date of ISO 8601 on which a result may have been made."""
    last = datetime.now().year + _AHEAD
    if not _FIRST <= datetime.fromisoformat(text).year <= last:
        raise ValueError(f"a result is made between {_FIRST} and {last}")
    return text


class RecordsFile(_Part):
    """The records beside a result: the file's name, and SHA-256 and lines of its content when it is uncompressed."""

    file: str
    sha256: str
    count: Count

    def same(self, other: RecordsFile | None) -> bool:
        """Whether another file has the same content, compressed or not."""
        return other is not None and (self.sha256, self.count) == (other.sha256, other.count)


class TunedBy(_Part):
    """How settings were found: trials of `grun-bench tune`, what they were judged on, and the seed of all of them."""

    trials: Annotated[int, Field(ge=1)]
    on: str
    seed: Count

    @property
    def label(self) -> str:
        """As in `tuned: 20 trials, validation of tofu_forget10`."""
        return f"tuned: {self.trials} {'trial' if self.trials == 1 else 'trials'}, {self.on}"


class UnlearnerInfo(_Part):
    """What was run, with the settings that were given or are defaults; `tuned` where those are neither.

    `adjusted` are those that its training had otherwise, and how, because of few rows or the model's size (of several
    requests at the last). They follow from the rest and decide no id.
    """

    name: str
    settings: Plain
    tuned: TunedBy | None = None
    adjusted: dict[str, int | float] = {}

    @property
    def told(self) -> dict[str, Any]:
        """The settings for people: of those that were adjusted, what they were in training too."""
        in_training = {
            name: f"{self.settings.get(name)} ({value:.4g} in training)" for name, value in self.adjusted.items()
        }
        return self.settings | in_training

    @property
    def tuned_label(self) -> str:
        """How its settings were found, as in `tuned: 20 trials, validation of tofu_forget10`; "" for others."""
        return self.tuned.label if self.tuned else ""


class ImportedFrom(_Part):
    """Where an imported row comes from: the tool, and the published log with its SHA-256."""

    tool: str
    file: str
    sha256: str


class Cost(_Part):
    """What it took. Seconds of wall time; bytes of peak memory (GPU, else the process)."""

    trainable_parameters: Count = 0
    parameters: Count = 0
    training_seconds: Seconds = 0.0
    scoring_seconds: Seconds = 0.0
    training_peak_bytes: Count | None = None
    scoring_peak_bytes: Count | None = None
    #: what frozen first layers gave, kept over the training
    trunk_bytes: Count = 0


class AttackInfo(_Part):
    """An attack on a row: how it was made, and the records that each of its variants left.

    `access` is what the attacker needs: `user` may only ask the model, `weights` owns its files. `rows` are the sets
    that were not asked whole: how many of their rows were, 0 for a set that was left out.
    """

    version: int
    access: Literal["user", "weights"]
    settings: Plain
    variants: dict[str, RecordsFile]
    seconds: Seconds
    rows: dict[str, Count] = {}


class Point(_Part):
    """Metric values at one place of a curve, null where a number is missing, and the records that they come from."""

    at: Count
    values: dict[str, float | None]
    records: RecordsFile | None = None


class Curve(_Part):
    """Metric values over training steps, relearning steps, the stages of sequential unlearning or strengths.

    Strengths are in percent of what was unlearned: 0 is the target model, 100 the row itself.
    `best` is the point of a training that `best_step` names; nothing is chosen by it.
    """

    unit: Literal["steps", "stages", "percent"]
    points: list[Point]
    best: Count | None = None


#: the share of the target model's retain probability that the best step must have kept
KEPT = 0.9


def best_step(points: list[Point], sets: ScoredSets = USUAL_SETS) -> int | None:
    """Of the steps after 0 that keep `KEPT` of the retain probability of step 0, the one that extracts least.

    The lowest forget extraction strength, the earlier step where two are equal; None where no step keeps so much, or a
    value is missing, or no set has one of the two roles. Of several sets with a role it is the first.
    """
    if not sets.of("retain") or not sets.of("forget"):
        return None
    kept, extracted = f"{sets.of('retain')[0]}_probability", f"{sets.of('forget')[0]}_extraction_strength"
    start = next((point.values.get(kept) for point in points if point.at == 0), None)
    found = []
    for point in points:
        retain, forget = (point.values.get(key) for key in (kept, extracted))
        if start is None or retain is None or forget is None or not point.at:
            continue
        if retain >= KEPT * start:
            found.append((forget, point.at))
    return min(found)[1] if found else None


#: a number from 0 to 1
Share = Annotated[float, Field(ge=0, le=1)]


class GateSpread(_Part):
    """The gate on the rows of one set, asked in one way; a row's gate is the mean over its layers.

    `opens`: whether the gate is to be open on them, as on forget rows. `wrong` is the share of the `n` rows on the
    other side of 0.5, shut or open; `quantiles` are those at 0, 5, ..., 100 %. `auc` is the chance that of a forget row
    and one that is to be kept the first has the larger gate, halves for equals, where these rows are one of the two and
    the other is asked as usual. `roc` are corners of that curve: the shares of kept and of forget rows whose gate is at
    or above a threshold.
    """

    opens: bool
    n: Annotated[int, Field(ge=1)]
    wrong: Share
    quantiles: Annotated[list[Share], Field(min_length=21, max_length=21)]
    auc: Share | None = None
    roc: Annotated[list[Annotated[tuple[Share, Share], Field(strict=False)]], Field(max_length=16)] = []


class Result(_Part):
    """One scored row.

    `results`, `configs`, `versions`, `n-samples`, `higher_is_better`, `date` and `git_hash` are lm-eval's keys.

    A metric is keyed `<metric>,<filter>`, as `MetricKey` has it; under an attack's name stands its worst variant, the
    value that forgot least. `recovery_<metric>,<attack>` is (after - before) / (target - before). Every metric is
    there: a missing number is null and `reasons` says why. Where rows had to be left out of a number, `reasons` says
    which and `n-samples` how many it is made from. `intervals` are 95 % bootstrap intervals; under an attack of the
    worst variant and of the mean. `gates` says where the gates of a model open, if it has any: by the filter of a
    metric's key, or `paraphrased`, and by set (see `metrics/gate_audit`).
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    status: Literal["ok", "diverged"]
    error: str | None = None
    date: Annotated[str, AfterValidator(_a_date)]
    task: str
    model: str
    unlearner: UnlearnerInfo
    seed: Count | None
    protocol: str
    limit: Annotated[int, Field(ge=1)] | None
    imported: ImportedFrom | None = None
    dataset: Literal["embedded", "published", "own"]
    dataset_hash: str
    data: dict[str, Plain]
    target: Plain
    reference: Plain
    results: dict[str, dict[str, float | None]]
    reasons: dict[str, str]
    intervals: dict[str, Annotated[tuple[float, float], Field(strict=False)]]
    n_samples: dict[str, dict[str, Count]] = Field(alias="n-samples")
    higher_is_better: dict[str, dict[str, bool | None]]
    versions: dict[str, int | str]
    configs: dict[str, Plain]
    headline: list[str]
    cost: Cost
    history: dict[str, list[float]]
    attacks: dict[str, AttackInfo] = {}
    curves: dict[str, Curve] = {}
    gates: dict[str, dict[str, GateSpread]] = {}
    records: RecordsFile | None
    packages: dict[str, str]
    hardware: Plain
    git_hash: str | None
    git: Plain

    @property
    def sets(self) -> ScoredSets:
        """The scored sets, as the result's own task says; an imported log has TOFU's, whatever its task scores."""
        return USUAL_SETS if self.imported else ScoredSets.of_config(self.configs.get(self.task, {}))

    @property
    def toy(self) -> bool:
        """Whether it was made in the toy world, whose rows never meet those of published data."""
        return self.dataset == "embedded"

    @property
    def arithmetic(self) -> str:
        """What its models computed in, as in `bfloat16` and `bfloat16, base in nf4`; "" where a log does not say."""
        dtype, quantised = self.hardware.get("dtype"), self.hardware.get("quantised")
        return "" if dtype is None else with_base(str(dtype), str(quantised or ""))

    @property
    def own(self) -> bool:
        """Whether it was made of own rows, which are on no board and in no submission."""
        return self.dataset == "own"

    def value(self, metric: str, attack: str = "", variant: str = "") -> float | None:
        """The value of a metric, without attack or under one; None when it is missing or not part of the task."""
        return self.results[self.task].get(key_text(metric, attack, variant))

    def reason(self, metric: str, attack: str = "", variant: str = "") -> str | None:
        """Why a metric has no value, or which rows were left out of it; None where it is whole, or not of the task."""
        return self.reasons.get(key_text(metric, attack, variant))

    def interval(self, metric: str, attack: str = "", variant: str = "") -> tuple[float, float] | None:
        """The 95 % bootstrap interval of a value; None where it has none."""
        return self.intervals.get(key_text(metric, attack, variant))

    def metric_keys(self) -> list[MetricKey]:
        """All that was measured, in the order of the file."""
        return [MetricKey.parse(text) for text in self.results[self.task]]

    def worst_values(self) -> Iterator[tuple[MetricKey, float]]:
        """The numbers without attack and under the worst variant of each, in the order of the file."""
        for key in self.metric_keys():
            value = self.value(key.metric, key.attack, key.variant)
            if value is not None and not key.variant:
                yield key, value

    def metrics(self, attack: str = "", variant: str = "") -> list[str]:
        """The metrics that were measured without attack, or under one, in the order of the file."""
        end = f",{MetricKey('', attack, variant).filter}"
        return [text.removesuffix(end) for text in self.results[self.task] if text.endswith(end)]

    def better(self, metric: str) -> bool | None:
        """Whether higher values of a metric are better; None for one without direction."""
        return self.higher_is_better[self.task].get(metric)

    def same_numbers(self, other: Result) -> bool:
        """Whether another result says all that this one does, of records of the same names.

        It may say more, for every row has metrics that this one may have been filed before; when, where and how fast
        may differ.
        """
        task, names = self.task, ("results", "n_samples", "higher_is_better")
        parts = [(getattr(self, name)[task], getattr(other, name)[task]) for name in names]
        parts += [(getattr(self, name), getattr(other, name)) for name in ("reasons", "intervals", "versions")]
        whole = ("status", "error", "headline", "curves", "records")
        said = all(theirs.get(key, ...) == value for mine, theirs in parts for key, value in mine.items())
        return said and all(getattr(self, name) == getattr(other, name) for name in whole)

    def same_model(self, other: Result) -> bool:
        """Whether another making of the same row answered the same, to the bit."""
        if self.records is None or other.records is None:
            return self.records is other.records and self.error == other.error
        return self.records.same(other.records)

    def own_records(self) -> list[RecordsFile]:
        """The records of the model without attack: all of them, and those of the points of its curves."""
        points = [point.records for curve in self.curves.values() for point in curve.points]
        return [records for records in (self.records, *points) if records]

    def all_records(self) -> Iterator[RecordsFile]:
        """All records that it names: its own, and those that its attacks left."""
        return chain(self.own_records(), *(info.variants.values() for info in self.attacks.values()))

    def dumps(self) -> str:
        return (
            json.dumps(self.model_dump(by_alias=True, mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
            + "\n"
        )


def with_base(dtype: str, quantised: str) -> str:
    """A dtype with what the base is rounded to, where it is: how both are said in results and hashed in run ids."""
    return f"{dtype}, base in {quantised}" if quantised else dtype


@lru_cache(maxsize=2**16)
def key_text(metric: str, attack: str = "", variant: str = "") -> str:
    """The key as it stands in the file. Remembered: thousands of results are asked for the same."""
    return str(MetricKey(metric, attack, variant))


def parse_result(content: bytes, place: object, *, reviewed: bool = False) -> Result:
    """The result in a file's content, of this or an older schema, read strictly: it may come from a stranger.

    Raises UsageError, with `place` and the place in it, for what is no result: another JSON than `parse_json` takes, a
    field that is unknown, missing or of another type, a key without metric, values of another task than its own, and
    records that lie elsewhere than beside it. `reviewed` is as there.
    """
    result = (_at_once(content) if reviewed else None) or _step_by_step(content, place, reviewed)
    for name in ("results", "n_samples", "higher_is_better"):
        if set(getattr(result, name)) != {result.task}:
            refuse(place, f"$.{name.replace('_s', '-s')}: must hold the task {result.task} and nothing else")
    values = result.results[result.task]
    odd = None if reviewed else next((key for key in values if key.find(",") < 1), None)
    if odd is not None:
        refuse(place, f"$.results.{result.task}: the key '{odd}' is not <metric>,<filter>")
    for records in result.all_records():
        if not untrusted.NAME.fullmatch(records.file) or not records.file.endswith(RECORDS_ENDS):
            refuse(place, f"the records '{records.file}' are no file beside it")
    return result


def _at_once(content: bytes) -> Result | None:
    """A result of a schema like today's without plain data in between, in two thirds of the time; None for others."""
    try:
        result = Result.model_validate_json(content)
    except ValidationError:  # the other reader says in which words it is refused
        return None
    if "schema_version" not in result.model_fields_set or not ALIKE <= result.schema_version <= CURRENT:
        return None
    result.schema_version = CURRENT
    return result


def _step_by_step(content: bytes, place: object, reviewed: bool) -> Result:
    data = parse_json(content, place, reviewed=reviewed)
    try:
        data = migrate(data)
    except UsageError as error:
        refuse(place, str(error).rstrip("."))
    return checked(Result, data, place)
