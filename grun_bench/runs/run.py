"""A run from top to bottom: look up what was asked for, then make, attack and file the rows that are not there yet."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from grun_bench.core import processes
from grun_bench.core.errors import Refused, UsageError
from grun_bench.core.progress import say
from grun_bench.integrations.logs.as_result import import_result
from grun_bench.methods.base import Fitted
from grun_bench.methods.cards import write_card
from grun_bench.methods.saving import is_saved, read_card
from grun_bench.models.devices import device_of
from grun_bench.models.forward import evaluating
from grun_bench.models.loading import Placement
from grun_bench.results.result import Result
from grun_bench.runs.attack_results import attack
from grun_bench.runs.augment import augmented
from grun_bench.runs.beside import target_beside
from grun_bench.runs.config import RunConfig
from grun_bench.runs.folders import remember
from grun_bench.runs.given import InMemory, Kept, in_memory
from grun_bench.runs.inputs import Inputs, Method, resolve
from grun_bench.runs.models import unnamed_models
from grun_bench.runs.outcome import Cell, Outcome
from grun_bench.runs.row import row
from grun_bench.runs.session import Session
from grun_bench.runs.strengths import at_strengths
from grun_bench.runs.track import tracked
from grun_bench.tasks.world import PUBLISHED


def run(config: RunConfig) -> Outcome:
    """Run one unlearner on one task. Raises GrunBenchError for whatever is expected to go wrong."""
    session = Session.of(config)
    with session.in_force():
        return execute(resolve(config, augmented(config, session)))


def attack_row(config: RunConfig, result: Result, saved: Path | None = None) -> Outcome:
    """Attack the model of a row that is filed, with the settings that it was made with.

    `saved` is the folder of its model, None to train it again. Raises UsageError where these settings make another row.
    """
    session = Session.of(config)
    name, tuned = result.unlearner.name, result.unlearner.tuned
    method = Method(name, Kept(saved, result, session.placement), tuned) if saved else None
    with session.in_force():
        inputs = resolve(config, session, method)
        made = inputs.run_id(inputs.method)
        if made != result.run_id:
            edited = f" What {config.writer} wrote for own rows may have been edited since." if config.augment else ""
            raise UsageError(
                f"these settings make the row {made}, not {result.run_id}: give the options that it was run with, "
                f"as --model, --target, --retain-model or --retain-log.{edited}"
            )
        outcome = execute(inputs)
        if saved:
            processes.only_first(partial(_tell_card, saved, outcome.result))
        return outcome


def evaluate(config: RunConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Outcome:
    """Score a model in memory, which `config.unlearner` names: see `grun_bench.evaluate`."""
    named = config.model or config.target_model
    placement = Placement(str(device_of(model)), str(model.dtype).removeprefix("torch."), config.trust_remote_code)
    session = Session.of(config, placement) if named else Session(PUBLISHED, placement, config.include)
    method = Method(config.unlearner, InMemory(in_memory(model, tokenizer)))
    if method.is_control or Path(method.name).name != method.name:
        raise UsageError(f"name={method.name}: it must tell the model from others, and be the name of a folder.")
    with session.in_force(), evaluating(model):
        models = None if named else unnamed_models(model, config.retain_model, placement)
        return execute(resolve(config, session, method, models))


def execute(inputs: Inputs) -> Outcome:
    """Make what is not there yet: the retain model's row, the target model's, then the method's, each with its attacks.

    Within the session of the inputs. Training that diverges is a row too.
    """
    for note in filter(None, (*inputs.session.world.notes, inputs.models.note)):
        say(note)
    if inputs.method is inputs.oracle and inputs.models.retain is None:
        raise Refused(inputs.models.no_retain)
    if processes.writes():
        remember(inputs.models.folders)
    with tracked(inputs) as (inputs, track):
        outcome = _rows(inputs)
        track(outcome.result)
    if inputs.config.save:
        processes.only_first(partial(_tell_card, inputs.config.save, outcome.result))
    return outcome


def _tell_card(folder: Path, result: Result) -> None:
    """The card of a saved model has the attacks that were made since."""
    if is_saved(folder, result.run_id):
        write_card(folder, read_card(folder), result)


def _rows(inputs: Inputs) -> Outcome:
    """The rows in their order."""
    with target_beside(inputs):
        retain, retain_model = _retain_row(inputs)
    reference = retain.records if retain else None
    target, target_model = row(inputs, inputs.target, reference) if inputs.models.target else (None, None)
    # the controls first: forget quality under attack compares with the retain model under the same attack
    if retain and inputs.log is None:
        retain = attack(inputs, retain, inputs.oracle, target, retain, retain_model)
    if target:
        target = attack(inputs, target, inputs.target, target, retain, target_model)
    if inputs.method is inputs.oracle and retain:
        cell, fitted = retain, retain_model
    elif inputs.method is inputs.target and target:
        cell, fitted = target, target_model
    else:
        cell, fitted = row(inputs, inputs.method, reference, target.records if target else None)
        if inputs.config.strengths and target:
            cell, fitted = at_strengths(inputs, cell, target, reference, fitted)
        cell = attack(inputs, cell, inputs.method, target, retain, fitted)
    kept = fitted.lm if fitted and inputs.config.keep_model else None
    return Outcome(cell, target, retain, kept, inputs.config.save)


def _retain_row(inputs: Inputs) -> tuple[Cell | None, Fitted | None]:
    """The reference of forget quality: a published log, or the retain model's row; None where there is neither."""
    log, source = inputs.log, inputs.config.retain_log
    if log is not None and source is not None:
        result = import_result(log, source, inputs.task, inputs.models.name, inputs.oracle.name, None)
        return Cell(result, log.records, source, reused=True), None
    return row(inputs, inputs.oracle, None) if inputs.models.retain else (None, None)
