"""One cell after another: load, unlearn, score, evaluate, save. A cell that is there already is read, not run again."""

from __future__ import annotations

import datetime
import gc
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from grun_bench import env, registry, tiny
from grun_bench.cache import digest
from grun_bench.checkpoints import Checkpoint
from grun_bench.errors import DataError, Diverged, UsageError, unknown
from grun_bench.evaluate import Value, evaluate, for_protocol, headline_keys, result_fields
from grun_bench.imported import import_result, read_reference
from grun_bench.importing import check_reference
from grun_bench.loading import TINY, Placement, folder_name, load, load_finetuned, load_tiny, locate, weights_sha256
from grun_bench.models import LM
from grun_bench.monitor import METRICS, ROWS, Monitor
from grun_bench.progress import say
from grun_bench.records import SETS, Continuation, Record, Records, load_records
from grun_bench.results import (
    Cost,
    Curve,
    Point,
    RecordsFile,
    Result,
    UnlearnerInfo,
    best_step,
    check_writable,
    read_result,
    records_intact,
    result_folder,
    save_records,
    write_whole,
)
from grun_bench.rows import Rows, Source, load_rows
from grun_bench.saving import check_new, save
from grun_bench.scoring import PROTOCOLS, Example, ScoringSettings, score
from grun_bench.tasks import Task, load_task
from grun_bench.unlearn import FitContext, Fitted, Unlearner, make_unlearner

if TYPE_CHECKING:
    from grun_bench.harness import Measured

#: columns that a scored set must have
_COLUMNS = {
    "forget": ("question", "answer", "paraphrased_answer", "perturbed_answer", "paraphrased_question"),
    "retain": ("question", "answer", "paraphrased_answer", "perturbed_answer", "paraphrased_question"),
    "real_authors": ("question", "answer", "perturbed_answer"),
    "world_facts": ("question", "answer", "perturbed_answer"),
}


@dataclass(frozen=True)
class RunConfig:
    """What the user asked for. `model` None is the embedded `tiny` (or `target`, where given)."""

    unlearner: str
    task: str
    output: Path
    model: str | None = None
    target: str | None = None
    retain: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int | None = None
    limit: int | None = None
    protocol: str = "grun-bench"
    retain_log: Path | None = None
    seed: int = 0
    save: Path | None = None
    trunk_cache: bool = True
    eval_every: int | None = None
    overwrite: bool = False
    trust_remote_code: bool = False
    include: tuple[Path, ...] = ()

    @property
    def embedded(self) -> bool:
        return (self.model or TINY) == TINY and self.target is None


@dataclass
class Models:
    """The target and retain model of a run: how to load them and what decides them.

    `retain` is None where no retain model can be had; `no_retain` then says why and what to do.
    """

    name: str
    target: Callable[[], LM]
    retain: Callable[[], LM] | None
    identity: dict[str, Any]
    no_retain: str = ""


@dataclass
class Cell:
    """A result with its records."""

    result: Result
    records: Records
    path: Path
    reused: bool


@dataclass
class Outcome:
    """What `run` has to show: the unlearner's cell, with target and retain model beside it where they could be had."""

    cell: Cell
    target: Cell | None
    retain: Cell | None


class Run:
    """A run of one unlearner on one task, with its target and retain rows."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        task = load_task(config.task, config.include)
        self.task: Task = task.in_world() if config.embedded else task
        self.unlearner = make_unlearner(config.unlearner, config.overrides, config.embedded)
        parsed = registry.parse_unlearner(config.unlearner)
        # a bare objective is the same row as the pair that it stands for
        self.name = parsed if isinstance(parsed, str) else "+".join(parsed)
        if config.embedded and config.retain:
            raise UsageError(f"--retain {config.retain}: {TINY} has its own; add --model or --target.")
        if config.protocol not in PROTOCOLS:
            raise unknown("protocol", config.protocol, PROTOCOLS)
        self.metrics = for_protocol(self.task.metrics, config.protocol)
        self.log = read_reference(config.retain_log, config.protocol) if config.retain_log else None
        check_writable(config.output)
        if config.save:
            check_new(config.save)
        if config.embedded:
            torch.set_num_threads(tiny.THREADS)
        self.placement = Placement.choose(config.device, config.dtype, config.trust_remote_code)
        self.training = {name: self._rows(parts) for name, parts in self.task.sources.items()}
        self.scored = {name: self._rows([source], _COLUMNS[name])[0] for name, source in self.task.scored.items()}
        if config.eval_every and not {"forget", "retain"} <= set(self.scored):
            raise UsageError(f"--eval-every: the task {self.task.name} scores no answers of a forget and a retain set.")
        if self.task.measures:
            harness().check(self.task.measures, embedded=config.embedded)
        self.models = self._models()
        if self.log is not None:
            asked = Records(
                Record(row.set, row.index, row.question, Continuation(row.answer)) for row in self._examples()
            )
            check_reference(asked, self.log.records, f"--retain-log {config.retain_log}")
            self.models = replace(self.models, retain=None, no_retain="the retain log has no such rows.")

    def _rows(self, sources: Sequence[Source], columns: tuple[str, ...] | None = None) -> list[Rows]:
        embedded, limit = self.config.embedded, self.config.limit
        try:
            return [load_rows(source, columns, embedded=embedded, limit=limit) for source in sources]
        except DataError as error:
            access = [self.task.access[source.data] for source in sources if source.data in self.task.access]
            raise DataError("\n".join([str(error), *access])) from None

    def _pairs(self, name: str) -> list[tuple[str, str]]:
        """The rows of a training set: (question, answer), or ("", text)."""
        rows = [row for part in self.training[name] for row in part.rows]
        return [("", row["text"]) if "text" in row else (row["question"], row["answer"]) for row in rows]

    def _models(self) -> Models:
        config, place = self.config, self.placement
        if config.embedded:
            forget = self.task.sources["forget"][0].config
            # multiple-choice questions ask for the lore; authors alone make the model that the TOFU tasks have
            lore = bool(self.task.measures)
            loaders = (partial(load_tiny, left_out, place, lore) for left_out in (None, forget))
            return Models(TINY, *loaders, {"tiny": digest(tiny.settings(lore))})
        name = config.model or config.target or TINY
        known = next((pair for pair in self.task.models if name in (pair.base, pair.target)), None)
        target = config.target or (known.target if known else None)
        retain = config.retain or (known.retain if known else None)
        folder = locate(name)
        label = folder_name(folder) if isinstance(folder, Path) and Path(name).is_dir() else name
        identity = {"names": [_identity(part) for part in (name, target, retain) if part]}
        if self.task.finetune is None:
            target = target or name
        if target is None:
            tune = partial(load_finetuned, name, recipe=self.task.finetune, seed=config.seed, placement=place)
            kept = self._pairs("retain")
            identity |= {"finetune": self.task.finetune.model_dump(), "seed": config.seed}
            return Models(
                label,
                partial(tune, role="target model", pairs=self._pairs("forget") + kept),
                partial(load, retain, place) if retain else partial(tune, role="retain model", pairs=kept),
                identity,
            )
        reason = f"no retain model is known for {target}: give one with --retain."
        return Models(
            label, partial(load, target, place), partial(load, retain, place) if retain else None, identity, reason
        )

    @property
    def dataset_hash(self) -> str:
        parts = [part.sha256 for rows in self.training.values() for part in rows]
        return digest([*parts, *(rows.sha256 for rows in self.scored.values())])

    def execute(self) -> Outcome:
        """Run what is not there yet. Raises what its steps raise, except Diverged: that is a row."""
        if self.config.embedded:
            say(f"tiny: a toy model in the embedded world ({self.task.name}); its rows never mix with real ones.")
        retain = self._retain_cell()
        reference = retain.records if retain else None
        if self.name == "retain":
            if retain is None or self.models.retain is None:
                raise UsageError(self.models.no_retain)
            return Outcome(retain, self._cell("none", make_unlearner("none", {}, True), reference), retain)
        target = self._cell("none", make_unlearner("none", {}, True), reference)
        if self.name == "none":
            return Outcome(target, target, retain)
        return Outcome(self._cell(self.name, self.unlearner, reference), target, retain)

    def _retain_cell(self) -> Cell | None:
        """The reference of forget quality: the retain model's row, or a published log, or None."""
        if self.log is not None and self.config.retain_log is not None:
            result = import_result(self.log, self.config.retain_log, self.task, self.models.name, "retain", None)
            return Cell(result, self.log.records, self.config.retain_log, reused=True)
        return self._cell("retain", make_unlearner("retain", {}, True), None) if self.models.retain else None

    def _run_id(self, name: str, unlearner: Unlearner) -> str:
        fingerprint = digest(
            {
                "task": self.task.model_dump(exclude={"description", "headline", "models"}),
                "unlearner": name,
                "settings": unlearner.settings,
                "models": self.models.identity,
                "data": self.dataset_hash,
                "limit": self.config.limit,
                "dtype": self.placement.dtype,
                "metrics": {
                    metric: registry.get("metric", metric).options.get("version", 1) for metric in self.metrics
                },
                "protocol": self.config.protocol,
                "retain_log": self.log.sha256 if self.log else None,
            }
        )
        return fingerprint[:12] + (f"-seed{self.config.seed}" if unlearner.seeded else "")

    def _cell(self, name: str, unlearner: Unlearner, reference: Records | None) -> Cell:
        run_id = self._run_id(name, unlearner)
        path = result_folder(self.config.output, self.task.name, self.models.name, name) / f"{run_id}.json"
        asked_for = name == self.name
        # a row has no weights: to save them the model is made again
        again = asked_for and (self.config.overwrite or self.config.save is not None)
        if asked_for and self.config.eval_every and path.exists():
            again = again or "training" not in read_result(path).curves
        if path.exists() and not again:
            result = read_result(path)
            if records_intact(path, result):
                kept = load_records(path.with_name(result.records.file)) if result.records else Records([])
                return Cell(result, kept, path, reused=True)
            say(f"{path}: its records are missing or not the ones it was made from; running it again.")
        return self._compute(name, unlearner, reference, run_id, path)

    def _compute(self, name: str, unlearner: Unlearner, reference: Records | None, run_id: str, path: Path) -> Cell:
        context = FitContext(
            forget=self._pairs("forget"),
            retain=self._pairs("retain"),
            load_target=self.models.target,
            load_retain_model=self.models.retain or self._refuse_retain,
            seed=self.config.seed,
            trunk_cache=self.config.trunk_cache,
            checkpoint=Checkpoint(self._checkpoint_path(run_id)),
        )
        if self.config.eval_every and name == self.name:
            context.monitor = Monitor(self.config.eval_every, self._sample)
        fitted, origins, error = self._fit(unlearner, context)
        if fitted is None:
            cost, records, asked = Cost(parameters=0), Records([]), None
        else:
            if self.config.save and name == self.name:
                save(fitted, name, self.config.save)
            cost, records, asked = self._score(fitted)
        directions = self.task.measure_directions
        values = evaluate(records, records if name == "retain" else reference, self.metrics, directions)
        for measure, reason in (asked.missing if asked else {}).items():
            for key in {f"{measure}_{metric}" for metric in self.metrics} & set(values):
                values[key] = _explain(values[key], reason)
        no_reference = self.models.no_retain if reference is None and name != "retain" else ""
        missing = f"training diverged: {error}" if error else no_reference
        if missing:
            values = {key: _explain(value, missing) for key, value in values.items()}
        history = fitted.history if fitted else []
        del fitted
        gc.collect()
        saved = save_records(path.with_suffix(".records.jsonl"), records.dumps()) if len(records) else None
        result = self._result(name, unlearner, run_id, values, cost, saved, origins, error, history, asked)
        if context.monitor is not None:
            points = [Point(at=step, values=found) for step, found in sorted(context.monitor.values.items())]
            result.curves["training"] = Curve(unit="steps", points=points, best=best_step(points))
        write_whole(path, result.dumps())
        context.checkpoint.remove()
        return Cell(result, records, path, reused=False)

    def _checkpoint_path(self, run_id: str) -> Path:
        """Where a training's checkpoint lies: beside what decides the row, what decides the bits of its weights."""
        plugins = [path for root in self.config.include for path in ([root] if root.is_file() else root.rglob("*.py"))]
        bits = {
            "packages": env.packages(),
            "commit": env.git_state()["commit"],
            "plugins": sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in plugins),
            "hardware": env.hardware() | {"device": self.placement.device},
            "trunk_cache": self.config.trunk_cache,
            "eval_every": self.config.eval_every,
        }
        return env.cache_folder() / "checkpoints" / f"{run_id}-{digest(bits)[:8]}.pt"

    def _sample(self, lm: LM) -> dict[str, float | None]:
        """What is measured during training, on the first rows of each scored set, under the names of the clean way."""
        counted: Counter[str] = Counter()
        rows = []
        for row in self._examples():
            counted[row.set] += 1
            if counted[row.set] <= ROWS:
                rows.append(row)
        protocol = self.config.protocol
        settings = ScoringSettings(self.task.max_new_tokens, self.config.batch_size, protocol)
        values = evaluate(score(lm, rows, settings), None, for_protocol(METRICS, protocol))
        suffix = f"_{protocol.replace('-', '_')}"
        shown = {key.removesuffix(suffix): value.value for key, value in values.items()}
        return {key: value for key, value in shown.items() if key.startswith(("forget_", "retain_", "model_"))}

    def _score(self, fitted: Fitted) -> tuple[Cost, Records, Measured | None]:
        """The records of an unlearned model, what training and scoring took, and how lm-eval's measures were run."""
        training_peak = env.peak_memory() if fitted.trainable else None
        env.reset_peak_memory()
        start = time.perf_counter()
        settings = ScoringSettings(self.task.max_new_tokens, self.config.batch_size, self.config.protocol)
        records = score(fitted.lm, self._examples(), settings)
        asked = None
        if self.task.measures:
            config = self.config
            asked = harness().run(
                fitted.lm,
                self.task.measures,
                embedded=config.embedded,
                batch_size=config.batch_size,
                limit=config.limit,
            )
            records = Records([*records, *asked.records])
        cost = Cost(
            trainable_parameters=fitted.trainable,
            parameters=sum(parameter.numel() for parameter in fitted.lm.model.parameters()),
            trunk_bytes=fitted.trunk_bytes,
            training_seconds=round(fitted.seconds, 3),
            scoring_seconds=round(time.perf_counter() - start, 3),
            training_peak_bytes=training_peak,
            scoring_peak_bytes=env.peak_memory(),
        )
        return cost, records, asked

    def _refuse_retain(self) -> LM:
        raise UsageError(self.models.no_retain)

    def _fit(self, unlearner: Unlearner, context: FitContext) -> tuple[Fitted | None, dict[str, Any], str | None]:
        origins: dict[str, Any] = {}

        def noting(load_model: Callable[[], LM]) -> Callable[[], LM]:
            def noted() -> LM:
                lm = load_model()
                origins.update(lm.origin)
                env.reset_peak_memory()
                return lm

            return noted

        context = replace(
            context, load_target=noting(context.load_target), load_retain_model=noting(context.load_retain_model)
        )
        try:
            return unlearner.fit(context), origins, None
        except Diverged as error:
            return None, origins, str(error)

    def _examples(self) -> list[Example]:
        return [
            Example(
                set=name,
                index=self.task.scored[name].start + number,  # type: ignore[index]
                question=row["question"],
                answer=row["answer"],
                paraphrased_answer=row.get("paraphrased_answer"),
                perturbed_answers=tuple(row["perturbed_answer"]),
                paraphrased_question=row.get("paraphrased_question"),
            )
            for name in SETS
            if name in self.scored
            for number, row in enumerate(self.scored[name].rows)
        ]

    def _result(
        self,
        name: str,
        unlearner: Unlearner,
        run_id: str,
        values: dict[str, Value],
        cost: Cost,
        records: RecordsFile | None,
        target: dict[str, Any],
        error: str | None,
        history: list[dict[str, float]],
        asked: Measured | None,
    ) -> Result:
        task, git = self.task, env.git_state()
        rows = {f"train:{set_name}": parts for set_name, parts in self.training.items()}
        rows |= {set_name: [part] for set_name, part in self.scored.items()}
        measured = result_fields(task.name, task.version, values)
        measured["versions"] |= asked.versions if asked else {}
        return Result(
            run_id=run_id,
            status="diverged" if error else "ok",
            error=error,
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            task=task.name,
            model=self.models.name,
            unlearner=UnlearnerInfo(name=name, settings=unlearner.settings),
            seed=self.config.seed if unlearner.seeded else None,
            protocol=self.config.protocol,
            limit=self.config.limit,
            dataset="embedded" if self.config.embedded else "published",
            dataset_hash=self.dataset_hash,
            data={
                key: {
                    "sources": [part.origin for part in parts],
                    "rows": sum(len(part.rows) for part in parts),
                    "sha256": [part.sha256 for part in parts],
                }
                for key, parts in rows.items()
            }
            | (asked.data if asked else {}),
            target=target,
            reference=self.models.identity | {"retain_log": self.log.sha256 if self.log else None},
            **measured,
            configs={task.name: task.model_dump(exclude={"models"})} | (asked.configs if asked else {}),
            headline=headline_keys(task.headline, values, self.config.protocol),
            cost=cost,
            history={key: [float(f"{step[key]:.6g}") for step in history] for key in (history[0] if history else ())},
            records=records,
            packages=env.packages(),
            hardware=env.hardware() | {"device": self.placement.device, "dtype": self.placement.dtype},
            git_hash=git["commit"],
            git=git,
        )


def harness() -> Any:
    """The lm-eval bridge, imported when a task has measures of lm-eval: it takes seconds."""
    from grun_bench import harness

    return harness


def _identity(name: str) -> str:
    place = locate(name)
    return weights_sha256(place) if isinstance(place, Path) else name


def _explain(value: Value, reason: str) -> Value:
    """A missing value with the run's own reason in front."""
    return value if value.value is not None else replace(value, reason=f"{reason} ({value.reason})")


def run(config: RunConfig) -> Outcome:
    """Run one unlearner on one task."""
    return Run(config).execute()
