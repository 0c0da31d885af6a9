"""Task YAML -> Task. A task says which data to forget, which to keep, how to score and what to show. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from grun_bench.core.errors import UsageError, unknown, wrong
from grun_bench.core.escaping import clean
from grun_bench.tasks.dataset import Column, Source
from grun_bench.tasks.roles import ROLES, Role
from grun_bench.tasks.sets import PAIR, USUAL, ScoredSets
from grun_bench.tasks.yaml_files import read_yaml, task_file

#: what a set may be called: its name begins the keys of its metrics
_NAME = re.compile(r"(?!recovery_)\w[\w.-]*")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _asking(prompt: str) -> str:
    if prompt.count("{question}") != 1:
        raise ValueError("a prompt has {question} in it, once")
    return prompt


#: the text before an answer, with {question} in it
Prompt = Annotated[str, AfterValidator(_asking)]


#: what weights are trained with, the usual one first (see `methods/optimisers.py`)
Optimiser = Literal["adamw", "adamw8bit", "paged", "paged8bit"]


class FineTuning(_Strict):
    """How a target or retain model is made from `--model`."""

    lr: float = Field(gt=0, allow_inf_nan=False)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    warmup: float = Field(default=0.0, ge=0, le=1)
    optimiser: Optimiser = "adamw"

    @model_serializer(mode="wrap")
    def _said(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the usual optimiser: models and rows that were made before there were others keep their keys."""
        said: dict[str, Any] = fields(self)
        return {key: value for key, value in said.items() if (key, value) != ("optimiser", "adamw")}


class KnownModels(_Strict):
    """A published target model with its retain model, by Hub id; `base` is what both were fine-tuned from."""

    base: str
    target: str
    retain: str


class Measure(_Strict):
    """A task of lm-eval as a measure: `role` says what its questions are to unlearning.

    `task` is lm-eval's name, where it is not the measure's own; `num_fewshot` None is the task's default.
    """

    role: Literal["forget", "retain", "utility", "neighbour"]
    task: str | None = None
    num_fewshot: int | None = Field(default=None, ge=0)

    def lm_eval(self, name: str) -> str:
        """lm-eval's name of the task, for a measure of this name."""
        return self.task or name


class _Sourced(_Strict):
    """Rows of a source: `where` maps columns of the data to patterns, as of file names, that their values match."""

    source: str
    where: dict[str, str] = {}

    @model_serializer(mode="wrap")
    def _without_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what came after the first results were filed and is not said: they stay those of their task."""
        kept = {"source", "role", "columns"}
        default = {name: field.default for name, field in type(self).model_fields.items() if name not in kept}
        return {
            name: value for name, value in dump(self).items() if name in kept or getattr(self, name) != default[name]
        }


class TrainingData(_Sourced):
    """A training set: its source, and our columns -> the data's own names. `question` and `answer`, or `text`."""

    columns: dict[Column | Literal["text"], str] = {}


class ScoredData(_Sourced):
    """A scored set of any name: its source, its role, and our columns -> the data's own names.

    `question` and `answer` are needed, or `text`, which is asked to be gone on with; with `whole` it is scored from its
    second token to its last instead, for membership inference. Where the rows lack another column that is not mapped,
    metrics that read it are null with the reason.

    How its questions are put, where it differs from the model's own way: `prompt` is the text before the answer with
    `{question}` in it, `fewshot` has rows that stand before every question with their answers. `max_new_tokens` is the
    most that is generated (0: nothing is), where it is not the task's; what is generated is cut where the first of
    `until` begins. `metrics` are those of the task's that are taken of this set; empty: all that its role is asked for.
    """

    role: Role
    columns: dict[Column | Literal["text"], str] = {}
    whole: bool = False
    prompt: Prompt | None = None
    fewshot: str | TrainingData | None = None
    max_new_tokens: int | None = Field(default=None, ge=0)
    until: list[str] = []
    metrics: list[str] = []


#: what a file of the user's own is to unlearning, by the option that names it
OwnRole = Literal["forget", "retain", "neighbours"]


class Made(_Strict):
    """Paraphrases and wrong answers that a model wrote for rows of the user's own.

    `by` is its name and `writer` its origin, `requests` and `sha256` are hashes of what it was asked and of what is
    taken of it; `edited` says whether somebody changed that. `counts` are the rows that have something made, by column,
    `left_out` those that have not, by the reason.
    """

    by: str
    writer: dict[str, Any] = {}
    requests: str = ""
    edited: bool = False
    sha256: str
    counts: dict[str, int] = {}
    left_out: dict[str, dict[str, int]] = {}


class OwnFile(_Strict):
    """A file, or a folder of texts, of the user's own: its name, the SHA-256 of its content, and the columns named.

    `made` is what a model wrote for its rows, where it was asked to.
    """

    file: str
    sha256: str
    columns: dict[str, str] = {}
    made: Made | None = None


#: requests: ranges of the one source of the forget set, or for each of its sources the scored set of that request
Stages = list[tuple[int, int]] | list[str]
#: attack -> name of a wording -> scored set -> its source, whose rows stand for the set's, one by one
Reworded = dict[str, dict[str, dict[str, str | TrainingData]]]


class Tuning(_Strict):
    """How training rows are parted for `tune`: `entity` says which rows are of one author, person or thing.

    So many rows one after another, or those with one value in a column; None: each row by itself. `sibling` are the
    sources of what is forgotten in place of a part of a forget set too small to be parted: as many rows about other
    entities, which are not scored.
    """

    entity: Annotated[int, Field(ge=1)] | str | None = None
    sibling: list[str | TrainingData] = []


class Embedded(_Strict):
    """What differs when the task runs in the embedded world."""

    forget: list[str] = []
    retain: list[str] = []
    score: dict[str, str | ScoredData] = {}
    measures: dict[str, Measure] = {}
    metrics: list[str] = []
    headline: list[str] = []
    prompt: Prompt | None = None
    stages: Stages = []
    reworded: Reworded = {}
    entities: dict[str, str | TrainingData] = {}
    tuning: Tuning | None = Field(default=None, exclude=True)


class Task(_Strict):
    """One task file. Sources are `org/name:config[start:stop]`; see `grun_bench.tasks.dataset.Source`.

    Training sets have columns `question` and `answer`, or `text`. `score` names the sets that are scored: by source,
    role and columns, or, for the names in `grun_bench.tasks.sets.USUAL`, by the source alone. `measures` are tasks of
    lm-eval by the name that their metrics get. Without `finetune` the model is the target model as it is; with it
    target and retain model are made on the training sets, or on what `learnt` says of each. `access`: data set -> what
    to do when it cannot be had; `repositories`: data set -> the file of a Git repository that stands for it where no
    mirror has it, with `{config}` in its path. `prompt`, the text before an answer with `{question}` in it, is how
    questions are put in training and scoring in place of the model's chat template. `attacks`: what `--attacks all`
    means, every attack where there are none. `family` names the recipes that `--recipe` takes. `rows` says
    of scored sets how many rows were published, which logs of other tools are held against.

    `reworded` has other wordings of scored rows for attacks, as questions in another language: by attack, by the name
    of the wording (`fr`) and by set the source. Its rows are the set's in the same order, with a `question` each, and
    perhaps answers. `entities` has for a scored forget set the source of what its answers must say: rows with
    `question`, `answer` and `entity`, a part of the answer, in any order and not of every row; the attack `depth` asks
    for them.

    `stages` makes the forget set requests that come one after another. Of a forget set of one source they are ranges,
    [start, stop) of its rows and of the rows of the scored forget set; they share no row and leave none out. Of one of
    several sources, a request each, they are the names of the scored forget sets, one for each source in their order.
    With `growing` they do not come one after another: each forget set has the rows of one request more than the last,
    and is unlearned from the target model itself.

    With `private` texts stay on the machine that made the row, and results have their hashes in their place.
    """

    name: str
    version: int
    description: str
    forget: list[str | TrainingData]
    retain: list[str | TrainingData]
    score: dict[str, str | ScoredData] = {}
    measures: dict[str, Measure] = {}
    metrics: list[str]
    headline: list[str]
    stages: Stages = []
    growing: bool = False
    finetune: FineTuning | None = None
    learnt: dict[Literal["target", "retain"], list[str | TrainingData]] = {}
    access: dict[str, str] = {}
    repositories: dict[str, str] = {}
    prompt: Prompt | None = None
    max_new_tokens: int = Field(default=200, ge=1)
    models: list[KnownModels] = []
    attacks: list[str] = []
    reworded: Reworded = {}
    entities: dict[str, str | TrainingData] = {}
    embedded: Embedded = Embedded()
    #: the user's own files by what they are to unlearning, where the task was made of such
    own: dict[OwnRole, OwnFile] = {}
    #: texts of the rows stay on the machine of the run: results have their hashes
    private: bool = False
    #: in no result: role -> what brings a set of it, where the task knows
    absent: dict[Role, str] = Field(default={}, exclude=True)
    #: in no result: what it decides is in the settings
    family: str | None = Field(default=None, exclude=True)
    #: in no result, which has the rows that there were: scored set -> the rows that it was published with
    rows: dict[str, Annotated[int, Field(ge=1)]] = Field(default={}, exclude=True)
    #: in no result: what tuning decides is in the settings
    tuning: Tuning = Field(default=Tuning(), exclude=True)

    @cached_property
    def sources(self) -> dict[str, list[Source]]:
        """Training set name -> sources; with stages the forget set's are one a request."""
        forget = self.whole_forget
        return {"forget": self.requests(forget[0]) if self.ranges else forget, "retain": self._sources(self.retain)}

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The stages that are ranges of rows; none where each is a source of its own."""
        return [each for each in self.stages if not isinstance(each, str)]

    @cached_property
    def whole_forget(self) -> list[Source]:
        """The sources of the forget set, whether it is asked for at once or in stages."""
        return self._sources(self.forget)

    def requests(self, source: Source) -> list[Source]:
        """The ranges of a forget set that the stages are."""
        first = source.start
        return [replace(source, start=first + start, stop=first + stop) for start, stop in self.ranges]

    @cached_property
    def scored(self) -> dict[str, Source]:
        """Scored set name -> source."""
        return dict(zip(self.score, self._sources(self.score.values()), strict=True))

    @cached_property
    def learning(self) -> dict[str, list[Source]]:
        """Model -> sources of what it is made on, for those of which the task says it."""
        return {model: self._sources(given) for model, given in self.learnt.items()}

    @cached_property
    def sibling(self) -> list[Source]:
        """The sources of what tuning forgets in place of a part of the forget set."""
        return self._sources(self.tuning.sibling)

    @cached_property
    def shots(self) -> dict[str, Source]:
        """Scored set name -> source of what stands before its questions, for those that have such."""
        shown = {
            name: each.fewshot for name, each in self.score.items() if isinstance(each, ScoredData) and each.fewshot
        }
        return dict(zip(shown, self._sources(shown.values()), strict=True))

    def _sources(self, given: Iterable[str | TrainingData | ScoredData]) -> list[Source]:
        parsed = [
            Source.parse(each)
            if isinstance(each, str)
            else Source.parse(each.source, {str(ours): theirs for ours, theirs in each.columns.items()}, each.where)
            for each in given
        ]
        return [replace(source, repository=self.repositories.get(source.data)) for source in parsed]

    def wordings(self, attack: str) -> dict[str, dict[str, Source]]:
        """The wordings for an attack by name: scored set -> source."""
        return {
            name: dict(zip(sets, self._sources(sets.values()), strict=True))
            for name, sets in self.reworded.get(attack, {}).items()
        }

    @cached_property
    def spans(self) -> dict[str, Source]:
        """Scored set name -> source of its entities, for those that have such."""
        return dict(zip(self.entities, self._sources(self.entities.values()), strict=True))

    @cached_property
    def sets(self) -> ScoredSets:
        """The scored sets and the measures, by what they are to unlearning."""
        return replace(ScoredSets.of_config(self.model_dump(include={"score", "measures"})), absent=self.absent)

    def needed(self, name: str) -> tuple[str, ...]:
        """The columns that every row of a scored set must have."""
        return USUAL[name][1] if isinstance(self.score[name], str) else PAIR

    def in_toy_world(self) -> Task:
        """The task with what `embedded` sets in force."""
        changed = {key: value for key in Embedded.model_fields if (value := getattr(self.embedded, key))}
        # its models know the whole world, or all but a forget set
        plain = self.model_dump(exclude={"embedded", "learnt"})
        beside = {"family": self.family, "absent": self.absent, "tuning": self.tuning}
        return Task(**(plain | beside | changed))

    def check(self) -> None:
        """Raises UsageError for sources, scored sets or stages that are none."""
        _ = self.sources, self.scored, self.shots, self.learning, self.spans, self.sibling
        if not self.score and not self.measures:
            raise UsageError(
                "nothing is scored: name sets of questions with answers, or of texts, under score:, as in "
                "score: {leavers: {source: rows.jsonl, role: forget}}, or tasks of lm-eval under measures:."
            )
        self._check_beside()
        for name in (*self.score, *self.measures):
            if not _NAME.fullmatch(name) or (name in self.score and name in self.measures):
                raise UsageError(f"'{name}' cannot name a set: letters, digits, '_', '-' and '.', and no other's name.")
        for name, given in self.score.items():
            if not isinstance(given, str):
                self._check_metrics(name, given)
            elif name not in USUAL:
                raise UsageError(
                    f"score.{name}: without a role only {', '.join(USUAL)} are known; give it one of "
                    f"{', '.join(ROLES)}, as in {name}: {{source: {given}, role: forget}}."
                )
        self._check_stages()

    def _check_beside(self) -> None:
        """Raises UsageError where something is said of the rows of a set that is not scored."""
        named = {"entities": {*self.entities}, "rows": {*self.rows}}
        for attack in self.reworded:
            named |= {f"reworded.{attack}.{name}": {*sets} for name, sets in self.wordings(attack).items()}
        for place, sets in named.items():
            if odd := sets - self.score.keys():
                raise unknown(f"set in {place}", min(odd), self.score)

    def _check_metrics(self, name: str, given: ScoredData) -> None:
        """Raises UsageError for a metric of a set that the task does not take."""
        for metric in given.metrics:
            if metric not in self.metrics:
                raise unknown(f"metric in score.{name}", metric, self.metrics, "They are those under `metrics`.")

    def _check_stages(self) -> None:
        """Raises UsageError for stages that are no partition of what is to be forgotten."""
        forget = self.sets.of("forget")
        if self.growing and not self.stages:
            raise UsageError("growing: it needs stages, the parts that the forget set grows by.")
        if self.stages and not self.ranges:
            self._check_sources(forget)
        elif self.stages and (len(self.forget) != 1 or len(forget) != 1):
            raise UsageError(
                "stages: ranges need a forget set of one source, and one scored forget set with the same rows; of "
                "several sources name the scored forget set of each."
            )
        ordered = sorted(self.ranges)
        ends = [0, *(stop for _, stop in ordered)]
        if any(start != end or stop <= start for (start, stop), end in zip(ordered, ends, strict=False)):
            shown = ", ".join(f"[{start}, {stop}]" for start, stop in self.ranges)
            raise UsageError(
                f"stages: {shown} must be ranges of rows that begin at 0, overlap nowhere and leave no gap."
            )

    def _check_sources(self, forget: Sequence[str]) -> None:
        """Raises UsageError where stages that are names are not those of a scored forget set for each source."""
        named = [str(each) for each in self.stages]
        for name in named:
            if name not in forget:
                raise unknown("scored forget set in stages", name, forget)
        if len(named) != len(self.forget) or len({*named}) != len(named):
            raise UsageError(
                f"stages: {', '.join(named)} must be a scored forget set for each of the {len(self.forget)} sources of "
                "the forget set, none of them twice."
            )


def load_task(name: str, include: Sequence[Path] = ()) -> Task:
    """Read a task by name, or by the path of its YAML file.

    Raises UsageError for an unknown name, YAML that does not parse, or an unknown or missing key, with the file.
    """
    path = task_file(name, include)
    settings = read_yaml(path)
    known = set(Task.model_fields) - {"name"}  # its file's
    for key in settings:
        if key not in known:
            raise unknown(f"key in {path}", clean(str(key), 100), known)
    try:
        task = Task(name=path.stem, **settings)
        for each in (task, task.in_toy_world()):
            each.check()
        return task
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {wrong(item)}" for item in error.errors())
        raise UsageError(f"{path}: {clean(problems)}") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
