"""One cell after another: load, unlearn, score, evaluate, save. A cell that is there already is read, not run again."""

from __future__ import annotations

import datetime
import gc
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from grun_bench.attacks.base import Answers, Attack, Attacked, make_attacks
from grun_bench.attacks.subject import Subject
from grun_bench.core import environment as env
from grun_bench.core import registry
from grun_bench.core.cache import digest
from grun_bench.core.errors import DataError, Diverged, GrunBenchError, UsageError, unknown
from grun_bench.core.progress import say
from grun_bench.integrations.imported import import_result, read_reference
from grun_bench.integrations.logs import check_reference
from grun_bench.methods import tiny
from grun_bench.methods.checkpoints import Checkpoint
from grun_bench.methods.finetune import load_finetuned, load_tiny
from grun_bench.methods.monitor import METRICS, ROWS, Monitor
from grun_bench.methods.saving import check_new, load_fitted, read_card, save
from grun_bench.methods.trainer import FitContext, Fitted, Unlearner, make_unlearner
from grun_bench.metrics.evaluate import Value, evaluate, for_protocol, headline_keys, result_fields
from grun_bench.metrics.recovery import add_attack, average, carry_attacks, recoveries, worst
from grun_bench.metrics.stages import STAGES, stage_chart, stage_point
from grun_bench.models.lm import LM
from grun_bench.models.loading import TINY, Placement, folder_name, load, locate, weights_sha256
from grun_bench.models.sampling import sampled_records
from grun_bench.models.scoring import PROTOCOLS, Example, ScoringSettings, score
from grun_bench.results.record import SETS, Continuation, Record, Records, load_records
from grun_bench.results.result import (
    AttackInfo,
    Cost,
    Curve,
    Point,
    RecordsFile,
    Result,
    UnlearnerInfo,
    attack_intact,
    best_step,
    check_writable,
    read_result,
    records_intact,
    result_folder,
    save_records,
    write_whole,
)
from grun_bench.runs.config import RunConfig
from grun_bench.tasks.dataset import Rows, Source, joined
from grun_bench.tasks.task import Task, load_task
from grun_bench.tasks.world import PUBLISHED, TOY, World

if TYPE_CHECKING:
    from grun_bench.integrations.lm_eval import Measured

#: columns that a scored set must have
_COLUMNS = {
    "forget": ("question", "answer", "paraphrased_answer", "perturbed_answer", "paraphrased_question"),
    "retain": ("question", "answer", "paraphrased_answer", "perturbed_answer", "paraphrased_question"),
    "real_authors": ("question", "answer", "perturbed_answer"),
    "world_facts": ("question", "answer", "perturbed_answer"),
}


#: the two models that every run compares with
CONTROLS = ("none", "retain")
#: how many examples a model that is made again must answer as its row says, and how closely, in nats
CHECKED, SAME_LOSS = 8, 0.02


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
    """A result with its records; and its model, where it was made just now and attacks are to follow."""

    result: Result
    records: Records
    path: Path
    reused: bool
    fitted: Fitted | None = None

    def attacked(self, attack: str, variant: str) -> Records | None:
        """The records of an attack's variant; None where there are none."""
        info = self.result.attacks.get(attack)
        saved = info.variants.get(variant) if info else None
        return load_records(self.path.with_name(saved.file)) if saved else None


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
        self.world = world_of(config)
        self.task: Task = self.world.task(task)
        of_attacks = {key: value for key, value in config.overrides.items() if "." in key}
        own = {key: value for key, value in config.overrides.items() if "." not in key}
        self.unlearner = make_unlearner(config.unlearner, own, self.world)
        parsed = registry.parse_unlearner(config.unlearner)
        # a bare objective is the same row as the pair that it stands for
        self.name = parsed if isinstance(parsed, str) else "+".join(parsed)
        if self.world is TOY and config.retain:
            raise UsageError(f"--retain {config.retain}: {TINY} has its own; add --model or --target.")
        if config.protocol not in PROTOCOLS:
            raise unknown("protocol", config.protocol, PROTOCOLS)
        if config.eval_every and self.task.stages:
            raise UsageError(f"--eval-every: {self.task.name} is scored after each of its requests as it is.")
        self.metrics = for_protocol(self.task.metrics, config.protocol)
        names = registry.attack_names(config.attacks, self.task.attacks) if config.attacks else []
        self.attacks = make_attacks(names, of_attacks, self.world)
        self.log = read_reference(config.retain_log, config.protocol) if config.retain_log else None
        check_writable(config.output)
        if config.save:
            check_new(config.save)
        if self.world is TOY:
            torch.set_num_threads(tiny.THREADS)
        self.placement = Placement.choose(config.device, config.dtype, config.trust_remote_code)
        self.training = {name: self._rows(parts) for name, parts in self.task.sources.items()}
        self.scored = {name: self._rows([source], _COLUMNS[name])[0] for name, source in self.task.scored.items()}
        if config.eval_every and not {"forget", "retain"} <= set(self.scored):
            raise UsageError(f"--eval-every: the task {self.task.name} scores no answers of a forget and a retain set.")
        if self.task.stages:  # a limit cuts every request's rows
            requests = self.task.requests(self.task.scored["forget"])
            self.scored["forget"] = joined(self._rows(requests, _COLUMNS["forget"]))
            self._check_stages()
        if self.task.measures:
            harness().check(self.task.measures, self.world)
        self.models = self._models()
        if self.log is not None:
            asked = Records(
                Record(row.set, row.index, row.question, Continuation(row.answer)) for row in self._examples()
            )
            check_reference(asked, self.log.records, f"--retain-log {config.retain_log}")
            self.models = replace(self.models, retain=None, no_retain="the retain log has no such rows.")

    def _rows(self, sources: Sequence[Source], columns: tuple[str, ...] | None = None) -> list[Rows]:
        try:
            return [self.world.rows(source, columns, self.config.limit) for source in sources]
        except DataError as error:
            access = [self.task.access[source.data] for source in sources if source.data in self.task.access]
            raise DataError("\n".join([str(error), *access])) from None

    def _check_stages(self) -> None:
        """Raises UsageError when a forget set has rows that are in no stage."""
        if self.config.limit is not None:
            return
        trained, scored = Source.parse(self.task.forget[0]), self.task.scored["forget"]
        for source, parts in ((trained, self.training["forget"]), (scored, [self.scored["forget"]])):
            count, covered = len(self._rows([source])[0].rows), sum(len(part.rows) for part in parts)
            if count != covered:
                raise UsageError(f"{self.task.name}: the stages hold {covered} of the {count} rows of {source}.")

    def _pairs(self, name: str) -> list[tuple[str, str]]:
        """The rows of a training set: (question, answer), or ("", text)."""
        return [pair for part in self.training[name] for pair in _pairs(part)]

    def _requests(self, unlearner: Unlearner) -> list[list[tuple[str, str]]]:
        """The forget rows as they are asked for: all at once, or one stage of the task after another."""
        in_stages = self.task.stages and unlearner.sequential
        return [_pairs(part) for part in self.training["forget"]] if in_stages else [self._pairs("forget")]

    def _models(self) -> Models:
        config, place = self.config, self.placement
        if self.world is TOY:
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
        if self.world is TOY:
            say(f"tiny: a toy model in the embedded world ({self.task.name}); its rows never mix with real ones.")
        made = self._run_id(self.name, self.unlearner)
        if self.config.run_id not in (None, made):
            raise UsageError(
                f"these settings make the row {made}, not {self.config.run_id}: give the options that it was run with, "
                "as --model, --target, --retain or --retain-log."
            )
        as_it_is, oracle = make_unlearner("none", {}, TOY), make_unlearner("retain", {}, TOY)
        retain = self._retain_cell(oracle)
        if self.name == "retain" and self.models.retain is None:
            raise UsageError(self.models.no_retain)
        reference = retain.records if retain else None
        target = self._cell("none", as_it_is, reference)
        # the controls first: forget quality under attack compares with the retain model under the same attack
        if retain and self.models.retain:
            self._attack(retain, oracle, target, retain)
        self._attack(target, as_it_is, target, retain)
        if self.name == "retain":
            return Outcome(retain, target, retain)  # type: ignore[arg-type]
        if self.name == "none":
            return Outcome(target, target, retain)
        cell = self._cell(self.name, self.unlearner, reference, target.records)
        self._attack(cell, self.unlearner, target, retain)
        return Outcome(cell, target, retain)

    def _retain_cell(self, oracle: Unlearner) -> Cell | None:
        """The reference of forget quality: the retain model's row, or a published log, or None."""
        if self.log is not None and self.config.retain_log is not None:
            result = import_result(self.log, self.config.retain_log, self.task, self.models.name, "retain", None)
            return Cell(result, self.log.records, self.config.retain_log, reused=True)
        return self._cell("retain", oracle, None) if self.models.retain else None

    def _run_id(self, name: str, unlearner: Unlearner) -> str:
        fingerprint = digest(
            {
                # without defaults: a key that task files get later leaves the rows that are there as they are
                "task": self.task.model_dump(
                    exclude={"description", "headline", "models", "attacks"}, exclude_defaults=True
                ),
                "unlearner": name,
                "settings": unlearner.settings,
                "models": self.models.identity,
                "data": self.dataset_hash,
                "limit": self.config.limit,
                "dtype": self.placement.dtype,
                "metrics": {metric: registry.get("metric", metric).version for metric in self.metrics},
                "protocol": self.config.protocol,
                "retain_log": self.log.sha256 if self.log else None,
            }
        )
        return fingerprint[:12] + (f"-seed{self.config.seed}" if unlearner.seeded else "")

    def _cell(self, name: str, unlearner: Unlearner, reference: Records | None, before: Records | None = None) -> Cell:
        """The row of an unlearner; `before` are the target model's records, where curves begin."""
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
        return self._compute(name, unlearner, reference, before, run_id, path)

    def _compute(
        self,
        name: str,
        unlearner: Unlearner,
        reference: Records | None,
        before: Records | None,
        run_id: str,
        path: Path,
    ) -> Cell:
        earlier: list[tuple[Cost, Records]] = []
        every = self.config.eval_every if name == self.name else None
        monitor = Monitor(every, self._sample) if every else None
        fitted, origins, error = self._fit(unlearner, earlier, run_id, monitor)
        if fitted is None:
            cost, records, asked = Cost(parameters=0), Records([]), None
        else:
            if self.config.save and name == self.name:
                save(fitted, name, self.config.save, run_id)
            cost, records, asked = self._score(fitted)
            cost = _total([*(each for each, _ in earlier), cost])
        no_reference = self.models.no_retain if reference is None and name != "retain" else ""
        values = self._values(
            Answers(records, asked.missing if asked else {}),
            records if name == "retain" else reference,
            self.metrics,
            f"training diverged: {error}" if error else no_reference,
        )
        history = fitted.history if fitted else []
        if not self.attacks or name != self.name or name in CONTROLS:
            fitted = None
        gc.collect()
        saved = save_records(path.with_suffix(".records.jsonl"), records.dumps()) if len(records) else None
        result = self._result(name, unlearner, run_id, values, cost, saved, origins, error, history, asked)
        if path.exists() and not self.config.overwrite:
            carry_attacks(read_result(path), result)
        if self.task.stages and unlearner.sequential and before is not None:
            scored = [before, *(each for _, each in earlier)]
            last = (records, saved) if saved else None
            result.curves[STAGES] = self._stages(path, scored, reference, last, result.headline)
            write_whole(path.with_suffix(".stages.svg"), stage_chart(result))
        if monitor is not None:
            points = [Point(at=step, values=found) for step, found in sorted(monitor.values.items())]
            result.curves["training"] = Curve(unit="steps", points=points, best=best_step(points))
        write_whole(path, result.dumps())
        for stage in range(len(self._requests(unlearner))):
            self._checkpoint(run_id, stage).remove()
        return Cell(result, records, path, reused=False, fitted=fitted)

    def _values(
        self, answers: Answers, reference: Records | None, metrics: Sequence[str], reason: str
    ) -> dict[str, Value]:
        """Metric values of answers; those that are missing with `reason`, if any, in front."""
        values = evaluate(answers.records, reference, metrics, self.task.measure_directions)
        for measure, why in answers.missing.items():
            for key in {f"{measure}_{metric}" for metric in metrics} & set(values):
                values[key] = _explain(values[key], why)
        return {key: _explain(value, reason) for key, value in values.items()} if reason else values

    def _stages(
        self,
        path: Path,
        scored: Sequence[Records],
        reference: Records | None,
        last: tuple[Records, RecordsFile] | None,
        headline: Sequence[str],
    ) -> Curve:
        """The curve over requests: before the first, after each and after the last, whose records are the row's own."""
        files = [
            save_records(path.with_suffix(f".stage{at}.records.jsonl"), records.dumps())
            for at, records in enumerate(scored)
        ]
        points = [*zip(scored, files, strict=True), *([last] if last else [])]
        options = (reference, self.task.stages, self.metrics, headline)
        return Curve(
            unit="stages",
            points=[stage_point(at, records, *options, file) for at, (records, file) in enumerate(points)],
        )

    def _checkpoint(self, run_id: str, stage: int) -> Checkpoint:
        """Where a training goes on from; what decides its row and the bits of its weights tells it apart."""
        plugins = [path for root in self.config.include for path in ([root] if root.is_file() else root.rglob("*.py"))]
        bits = {
            "packages": env.packages(),
            "commit": env.git_state()["commit"],
            "plugins": sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in plugins),
            "hardware": env.hardware() | {"device": self.placement.device},
            "trunk_cache": self.config.trunk_cache,
            "eval_every": self.config.eval_every,
        }
        return Checkpoint(env.cache_folder() / "checkpoints" / f"{run_id}-{digest(bits)[:8]}-{stage}.pt")

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
        records, asked = self._ask(self._subject(fitted))
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

    def _subject(self, fitted: Fitted) -> Subject:
        return Subject(
            fitted.lm,
            self._examples(),
            self._pairs("forget"),
            self._pairs("retain"),
            self.config.seed,
            fitted.adapter,
            tuple(self.task.measures),
        )

    def _ask(self, subject: Subject) -> tuple[Records, Measured | None]:
        """The records of a subject's answers, and how lm-eval's measures were run."""
        config = self.config
        settings = ScoringSettings(self.task.max_new_tokens, config.batch_size, config.protocol)
        if subject.samples:
            return sampled_records(subject.lm, subject.examples, subject.samples, subject.seed, settings), None
        records, asked = score(subject.lm, subject.examples, settings), None
        if subject.measures:
            asked = harness().run(
                subject.lm,
                {name: self.task.measures[name] for name in subject.measures},
                self.world,
                batch_size=config.batch_size,
                limit=config.limit,
                form=subject.form,
            )
            records = Records([*records, *asked.records])
        return records, asked

    # ---- attacks

    def _attack(self, cell: Cell, unlearner: Unlearner, target: Cell, retain: Cell | None) -> None:
        """Make the attacks that the row does not have yet, and write them into its result one by one."""
        wanted = [attack for attack in self.attacks if not _has(cell, attack)]
        if not wanted:
            return
        name, model = cell.result.unlearner.name, None
        if cell.result.status == "ok":
            # controls are the same for every seed
            seed = self.config.seed if unlearner.seeded else 0
            model = replace(self._subject(cell.fitted or self._again(cell, unlearner)), seed=seed)
        for number, attack in enumerate(wanted, 1):
            say(f"attack {number} of {len(wanted)} on {name}: {attack.name}")
            attacked = attack.run(model, self._answers) if model else Attacked({}, cell.result.error, 0.0)
            self._keep(cell, attack, attacked, target, retain)
        cell.fitted = model = None
        gc.collect()

    def _answers(self, subject: Subject) -> Answers:
        records, asked = self._ask(subject)
        return Answers(records, asked.missing if asked else {})

    def _keep(self, cell: Cell, attack: Attack, attacked: Attacked, target: Cell, retain: Cell | None) -> None:
        """An attack's values and records, into the row's result and beside it."""
        measures, is_retain = self.task.measure_directions, retain is not None and cell.path == retain.path
        metrics = for_protocol(attack.metrics, self.config.protocol) if attack.metrics else self.metrics
        stem, values, saved = cell.path.with_suffix(""), {}, {}
        for variant, answers in attacked.variants.items():
            # there are dozens of variants
            records = answers.records.summarised()
            reference = records if is_retain else retain.attacked(attack.name, variant) if retain else None
            reason = "there is no retain model under the same attack." if reference is None else ""
            values[variant] = self._values(replace(answers, records=records), reference, metrics, reason)
            before = (cell.records, target.records, self.config.protocol, measures)
            values[variant] |= recoveries(values[variant], records, *before)
            place = stem.with_name(f"{stem.name}.{attack.name}.{variant}.records.jsonl")
            saved[variant] = save_records(place, records.dumps())
        labelled = {f"{attack.name}:{variant}": each for variant, each in values.items()}
        if not values:
            reason = attacked.reason or "the attack has no variants."
            keys = evaluate(Records([]), None, metrics, measures)
            labelled[attack.name] = {key: replace(value, reason=reason) for key, value in keys.items()}
        else:
            labelled[attack.name] = worst(values)
            if attack.plugin.mean:
                labelled[f"{attack.name}:mean"] = average(values)
        info = AttackInfo(**attack.identity, variants=saved, seconds=round(attacked.seconds, 3))
        before = cell.result.attacks.get(attack.name)
        add_attack(cell.result, attack.name, info, labelled)
        write_whole(cell.path, cell.result.dumps())
        for left in set(before.variants if before else ()) - set(saved):
            cell.path.with_name(before.variants[left].file).unlink(missing_ok=True)  # type: ignore[union-attr]

    def _again(self, cell: Cell, unlearner: Unlearner) -> Fitted:
        """The model of a row that was made earlier: loaded where it can be, else trained again with the same seed.

        Raises UsageError when it does not answer as the row says.
        """
        name, result = cell.result.unlearner.name, cell.result
        if self.config.saved and name == self.name:
            card = read_card(self.config.saved)
            if card.unlearner != name:
                raise UsageError(f"--saved {self.config.saved} is a model of {card.unlearner}, the row is of {name}.")
            fitted = load_fitted(self.config.saved, self.placement)
        else:
            if result.cost.trainable_parameters:
                seconds = result.cost.training_seconds
                say(f"{result.run_id}: its model was not kept, so it is trained again ({seconds:.0f} s the last time).")
            fitted, _, error = self._fit(unlearner)
            if fitted is None:
                raise GrunBenchError(f"{result.run_id} diverged when it was trained again: {error}")
        self._check_same(cell, self._subject(fitted))
        return fitted

    def _check_same(self, cell: Cell, subject: Subject) -> None:
        """Raises GrunBenchError when a model does not answer a few of the row's questions as the row says."""
        size = self.config.batch_size
        settings = ScoringSettings(1, size, self.config.protocol, generate=False)
        rows = list(score(subject.lm, subject.examples[:CHECKED], settings))
        for name, measure in list(self.task.measures.items())[:1]:
            asked = harness().run(subject.lm, {name: measure}, self.world, batch_size=size, limit=CHECKED)
            rows += asked.records
        known = {(row.set, row.question, row.answer.text): _losses(row) for row in cell.records}
        pairs = [(_losses(row), known.get((row.set, row.question, row.answer.text), [])) for row in rows]
        differ = [abs(new - old) for each in pairs for new, old in zip(*each, strict=False)]
        if differ and max(differ) > SAME_LOSS:
            raise GrunBenchError(
                f"the model is not the one that {cell.result.run_id} was made from: log-likelihoods of its answers "
                f"differ by up to {max(differ):.3g} nats. `run` with --overwrite and --attacks makes the row again and "
                "attacks it; --save keeps its model."
            )

    def _refuse_retain(self) -> LM:
        raise UsageError(self.models.no_retain)

    def _fit(
        self,
        unlearner: Unlearner,
        earlier: list[tuple[Cost, Records]] | None = None,
        run_id: str | None = None,
        monitor: Monitor | None = None,
    ) -> tuple[Fitted | None, dict[str, Any], str | None]:
        """The unlearned model, where it comes from, and why there is none.

        Of requests in sequence it is the model after the last; what is scored after the others goes into `earlier`.
        With `run_id` a killed training goes on from where it was.
        """
        origins: dict[str, Any] = {}

        def noting(load_model: Callable[[], LM]) -> Callable[[], LM]:
            def noted() -> LM:
                lm = load_model()
                origins.update(lm.origin)
                env.reset_peak_memory()
                return lm

            return noted

        context = FitContext(
            forget=self._pairs("forget"),
            retain=self._pairs("retain"),
            load_target=noting(self.models.target),
            load_retain_model=noting(self.models.retain or self._refuse_retain),
            seed=self.config.seed,
            trunk_cache=self.config.trunk_cache,
            monitor=monitor,
        )
        requests, seconds, history = self._requests(unlearner), 0.0, []
        context = replace(context, stages=len(requests))
        try:
            for stage, rows in enumerate(requests):
                checkpoint = self._checkpoint(run_id, stage) if run_id else None
                fitted = unlearner.fit(replace(context, forget=rows, stage=stage, checkpoint=checkpoint))
                seconds, history = seconds + fitted.seconds, history + fitted.history
                context = replace(context, previous=fitted, load_target=partial(_model_of, fitted))
                if earlier is not None and stage + 1 < len(requests):
                    earlier.append(self._score(fitted)[:2])
                    env.reset_peak_memory()
        except Diverged as error:
            return None, origins, str(error)
        fitted.seconds, fitted.history = seconds, history
        return fitted, origins, None

    def _examples(self) -> list[Example]:
        return [
            Example(
                set=name,
                index=number,
                question=row["question"],
                answer=row["answer"],
                paraphrased_answer=row.get("paraphrased_answer"),
                perturbed_answers=tuple(row["perturbed_answer"]),
                paraphrased_question=row.get("paraphrased_question"),
            )
            for name in SETS
            if name in self.scored
            for number, row in zip(self.scored[name].numbers, self.scored[name].rows, strict=True)
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
            dataset=self.world.name,
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


def world_of(config: RunConfig) -> World:
    """The world that a run is in, by its model."""
    return TOY if (config.model or TINY) == TINY and config.target is None else PUBLISHED


def _pairs(part: Rows) -> list[tuple[str, str]]:
    """Rows of a training set: (question, answer), or ("", text)."""
    return [("", row["text"]) if "text" in row else (row["question"], row["answer"]) for row in part.rows]


def _model_of(fitted: Fitted) -> LM:
    return fitted.lm


def _total(costs: Sequence[Cost]) -> Cost:
    """The costs of all requests: what was trained and how long is in the last, scoring adds up, memory is the most."""

    def most(name: str) -> int | None:
        return max((value for cost in costs if (value := getattr(cost, name)) is not None), default=None)

    peaks = {name: most(name) for name in ("training_peak_bytes", "scoring_peak_bytes")}
    return costs[-1].model_copy(update={"scoring_seconds": round(sum(c.scoring_seconds for c in costs), 3), **peaks})


def _losses(row: Record) -> list[float]:
    if row.choices is not None:
        return row.choices.logprobs
    return [] if row.answer.loss is None else [row.answer.loss]


def _has(cell: Cell, attack: Attack) -> bool:
    """Whether a row has this attack, by version and settings, with the records that it left."""
    info = cell.result.attacks.get(attack.name)
    if info is None or not attack_intact(cell.path, info):
        return False
    return all(getattr(info, key) == value for key, value in attack.identity.items())


def harness() -> Any:
    """The lm-eval bridge, imported when a task has measures of lm-eval: it takes seconds."""
    from grun_bench.integrations import lm_eval as harness

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
