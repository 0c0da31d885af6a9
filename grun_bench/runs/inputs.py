"""What a run works with: everything that was asked for, looked up and checked, before any weight is touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from grun_bench.attacks.base import Attack, make_attacks
from grun_bench.core import registry
from grun_bench.core.errors import UsageError
from grun_bench.core.plugins import Control
from grun_bench.integrations.logs.log import ImportedLog
from grun_bench.integrations.logs.reading import check_reference, read_reference
from grun_bench.methods.base import Unlearner
from grun_bench.methods.make import make_unlearner
from grun_bench.methods.optimisers import check_optimiser
from grun_bench.methods.saving import check_same_row
from grun_bench.methods.trained_weights import training_dtype
from grun_bench.methods.trainer import Pair
from grun_bench.metrics.evaluate import for_protocol
from grun_bench.models import protocols
from grun_bench.models.devices import UNCHANGEABLE
from grun_bench.results.record import Continuation, Record, Records
from grun_bench.results.result import TunedBy
from grun_bench.results.run_id import run_id
from grun_bench.runs.config import RunConfig, label_of
from grun_bench.runs.data import Data, read_data
from grun_bench.runs.models import Models, choose_models
from grun_bench.runs.next_command import asked
from grun_bench.runs.session import Session
from grun_bench.runs.tuned import tuned_settings
from grun_bench.tasks.task import Task

if TYPE_CHECKING:
    from grun_bench.runs.track import Track


@dataclass(frozen=True)
class Method:
    """An unlearner under the name that its rows have; `tuned` says how its settings were found, if they were."""

    name: str
    unlearner: Unlearner
    tuned: TunedBy | None = None

    @property
    def is_control(self) -> bool:
        """Whether it is a model that every run is compared with."""
        return registry.role_of(self.name) is not None


@dataclass(frozen=True)
class Inputs:
    """All that decides the rows of a run, and how to come by it.

    `method` is the unlearner that was asked for. `target` and `oracle`, which give the target and the retain model as
    they are, are what it is compared with; it may be one of them. `log` is a published retain log in place of a retain
    model. `watch` sees what is measured during a training, as `Monitor` has it; `track` too, and each of its steps.
    """

    config: RunConfig
    session: Session
    task: Task
    data: Data
    models: Models
    method: Method
    target: Method
    oracle: Method
    attacks: Sequence[Attack]
    metrics: Sequence[str]
    log: ImportedLog | None
    watch: Callable[[int, dict[str, float | None]], None] | None = None
    track: Track | None = None

    def run_id(self, method: Method) -> str:
        """A name for the row of a method with these inputs: the same whenever all that decides its numbers is."""
        return run_id(
            self.task,
            method.name,
            method.unlearner.settings,
            self.models.identity,
            self.data.sha256,
            self.config.limit,
            training_dtype(self.session.placement.dtype, self.session.placement.quantise),
            {metric: registry.get("metric", metric).version for metric in self.metrics},
            protocols.identity(self.config.protocol),
            self.log.sha256 if self.log else None,
            self.config.seed if method.unlearner.seeded else None,
            method.tuned,
        )


def resolve(config: RunConfig, session: Session, method: Method | None = None, models: Models | None = None) -> Inputs:
    """Look up and check what was asked for. Reads data; loads no model, makes no folder, changes nothing.

    `method` and `models` are what is to be run, and compared with, in place of what the configuration names. Within
    `session.in_force()`. Raises UsageError, DataError or ModelError for whatever cannot be had.
    """
    task = session.world.load(config.task, config.include)
    method = method or _method(config, session, task)
    _check_options(config, task, method)
    _check_optimisers(task, method, session)
    names = registry.attack_names(config.attacks, task.attacks) if config.attacks else []
    of_attacks = {key: value for key, value in config.overrides.items() if "." in key}
    everything = registry.attack_names(config.attack_sets, names) if config.attack_sets else []
    attacks = make_attacks(names, of_attacks, session.world, everything)
    log = read_reference(config.retain_log, config.protocol) if config.retain_log else None
    data = read_data(task, session.world, config.limit)
    if task.measures:
        from grun_bench.integrations.lm_eval import measures  # takes seconds

        measures.check(task.measures, session.world)
    models = models or choose_models(config, session, task, data)
    if log is not None:
        check_reference(_asked(data), log.records, f"--retain-log {config.retain_log}")
        models = replace(models, retain=None, no_retain="the retain log has no such rows.")
    inputs = Inputs(
        config=config,
        session=session,
        task=task,
        data=data,
        models=models,
        method=method,
        target=_control("target", method, session),
        oracle=_control("retain model", method, session),
        attacks=attacks,
        metrics=for_protocol(task.metrics, config.protocol),
        log=log,
    )
    if config.save:
        check_same_row(config.save, inputs.run_id(method))
    return inputs


def _method(config: RunConfig, session: Session, task: Task) -> Method:
    """The unlearner of a name; a bare objective is the same row as the pair that it stands for."""
    parsed = registry.parse_unlearner(config.unlearner)
    name = parsed if isinstance(parsed, str) else "+".join(parsed)
    own = {key: value for key, value in config.overrides.items() if "." not in key}
    tuned = config.tuned
    if config.tuning is not None and registry.role_of(name) is None:
        found, tuned = tuned_settings(config.tuning, name, task.name, label_of(config), config.seed, asked(config))
        own = found | own
    unlearner = make_unlearner(name, own, session.world, session.placement.dtype, task.family)
    return Method(name, unlearner, tuned)


def _control(role: Control, method: Method, session: Session) -> Method:
    """The unlearner with this role, which may be the one that was asked for."""
    name = registry.control(role)
    return method if method.name == name else Method(name, make_unlearner(name, {}, session.world))


def _check_options(config: RunConfig, task: Task, method: Method) -> None:
    """Raises UsageError for options that do not go with each other, with the task or with the method."""
    protocols.protocol_of(config.protocol)
    for option in ("quantise", "device_map"):
        if method.unlearner.changes_model and getattr(config, option):
            raise UsageError(f"{method.name} changes the model's own weights, but {UNCHANGEABLE[option]}.")
    if config.save and not method.unlearner.savable:
        raise UsageError(f"--save: the adapter of {method.name} has no save(); it cannot be kept apart from its model.")
    if config.strengths:
        _check_strengths(task, method)
    if config.eval_every and task.stages:
        raise UsageError(f"--eval-every: {task.name} is scored after each of its requests as it is.")
    if config.eval_every and not (task.sets.of("forget") and task.sets.of("retain")):
        raise UsageError(f"--eval-every: the task {task.name} scores no answers of a forget and a retain set.")


def _check_optimisers(task: Task, method: Method, session: Session) -> None:
    """Raises Refused for an optimiser that there is not here, before any weight is touched."""
    device = session.placement.device
    if isinstance(pair := method.unlearner, Pair):
        check_optimiser(pair.recipe.optimiser, device, pair.recipe.trained_as, pair.divides)
    if task.finetune is not None:
        check_optimiser(task.finetune.optimiser, device)


def _check_strengths(task: Task, method: Method) -> None:
    """Raises UsageError where what a method makes cannot be had weaker or stronger."""
    if method.is_control:
        raise UsageError(f"--strengths: nothing was unlearned in {method.name}, which others are compared with.")
    if task.stages:
        raise UsageError(
            f"--strengths: {task.name} is unlearned request after request, whose curve is over the requests."
        )
    if not method.unlearner.has_strength:
        raise UsageError(
            f"--strengths: what {method.name} puts beside the model has no strength (has_strength of its class; see "
            "grun_bench/methods/adapters/base.py)."
        )


def _asked(data: Data) -> Records:
    """The questions and answers of the scored sets, to be compared with those of a log."""
    return Records(Record(row.set, row.index, row.question, Continuation(row.answer)) for row in data.examples())
