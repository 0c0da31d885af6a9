"""What a run would do: settings, rows, steps, tokens, what is trained, memory and time; no weight is touched."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from grun_bench.attacks.base import make_attacks
from grun_bench.attacks.needed import Needed
from grun_bench.core import environment as env
from grun_bench.core.errors import GrunBenchError
from grun_bench.methods.baselines import TaskVector
from grun_bench.methods.made_models import tiny_without_weights
from grun_bench.methods.make import make_unlearner
from grun_bench.methods.recipes import MEANT, RECIPE
from grun_bench.methods.shapes import Planned, planned
from grun_bench.methods.trainer import Pair
from grun_bench.metrics.strengths import percents
from grun_bench.models.lm import LM
from grun_bench.models.loading import without_weights
from grun_bench.models.memory import Memory, Shape, Weights, training_memory
from grun_bench.models.protocols import prompts_under
from grun_bench.results.result import Result
from grun_bench.results.store import model_folder, read_result, result_files
from grun_bench.runs.attack_results import has
from grun_bench.runs.config import RunConfig
from grun_bench.runs.filing import place_of
from grun_bench.runs.inputs import Inputs, Method, resolve
from grun_bench.runs.session import Session
from grun_bench.tasks.attack_data import lacks
from grun_bench.tasks.world import TOY


@dataclass(frozen=True)
class PlannedRow:
    """A row of the run: what it is of, its id, whether it is filed, and the attacks that it does not have yet."""

    unlearner: str
    run_id: str
    filed: bool
    attacks: Sequence[str]


@dataclass(frozen=True)
class PlannedSetting:
    """A setting in force; `default` is what it is where none is given, `by` the option that made it another one."""

    name: str
    value: Any
    default: Any
    by: str


@dataclass(frozen=True)
class PlannedTraining:
    """`estimated` says that the tokens of answers that are yet to be written are at most these."""

    requests: int
    steps: int
    tokens: int
    answer_tokens: int
    estimated: bool
    parameters: int


@dataclass(frozen=True)
class Estimate:
    """A number with where it comes from, or why there is none."""

    value: float | None
    reason: str


@dataclass(frozen=True)
class Plan:
    """`sets`: rows by set, training sets as `train:<name>`. `models`: what is made first, by role: steps, or None where
    that is not said before, and whether it is there. `attacked`: rows that a variant of an attack asks. `memory`: bytes
    at the peak of training, by what they are for; `seconds` by part of the run, of the method's row alone."""

    task: str
    model: str
    unlearner: str
    seed: int
    device: str
    dtype: str
    quantise: str
    settings: list[PlannedSetting]
    sets: dict[str, int]
    rows: list[PlannedRow]
    models: dict[str, dict[str, Any]]
    scored_rows: int
    attacked: dict[str, int]
    training: PlannedTraining | None
    memory: Memory | None
    seconds: dict[str, Estimate] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def plan_of(config: RunConfig) -> Plan:
    """The plan of a run. Raises GrunBenchError as the run would, as far as no weight is needed for that."""
    session = Session.of(config)
    with session.in_force():
        return _plan(resolve(config, session))


def _plan(inputs: Inputs) -> Plan:
    placement, data = inputs.session.placement, inputs.data
    training, memory, notes = _training(inputs)
    earlier = list(_earlier(inputs))
    asked = {each.name: _asked(inputs, each) for each in inputs.attacks}
    examples = len(data.examples())
    seconds = {"training": _of_training(inputs, training, earlier), "scoring": _of_scoring(examples, earlier)}
    if others := len(percents(inputs.config.strengths)):
        seconds["scoring at other strengths"] = _of_scoring(others * examples, earlier)
    seconds |= {f"attack {name}": _of_attack(name, earlier) for name in asked}
    if inputs.task.measures:
        notes.append("rows of lm-eval's tasks are counted when they are read, and are not among these.")
    keys = inputs.task.model_dump()
    if nothing := [name for name in asked if lacks(keys, name)]:
        notes.append(f"{', '.join(nothing)}: nothing to ask here, the task has no data for it.")
        asked |= dict.fromkeys(nothing, 0)
    if inputs.config.augment:
        notes.append("what --augment has a model write is not made for a plan.")
    return Plan(
        task=inputs.task.name,
        model=inputs.models.name,
        unlearner=inputs.method.name,
        seed=inputs.config.seed,
        device=placement.where,
        dtype=placement.dtype,
        quantise=placement.quantise,
        settings=[*_settings(inputs), *_attack_settings(inputs)],
        sets={name: part["rows"] for name, part in data.provenance().items()},
        rows=[_row(inputs, method) for method in _methods(inputs)],
        models={role: {"there": made.there(), "steps": made.steps} for role, made in inputs.models.made.items()},
        scored_rows=examples,
        attacked=asked,
        training=training,
        memory=memory,
        seconds=seconds,
        notes=notes,
    )


def _settings(inputs: Inputs) -> Iterator[PlannedSetting]:
    """Every setting of the method, in the order of their names."""
    config, method, session = inputs.config, inputs.method, inputs.session
    dtype, family = session.placement.dtype, inputs.task.family
    usual = make_unlearner(method.name, {}, session.world, dtype, family).every_setting
    given = {name: "--recipe" if name == RECIPE else "--set" for name in config.overrides}
    recipe = f"--recipe {config.overrides[RECIPE]}" if RECIPE in config.overrides else ""
    for name, value in sorted(method.unlearner.every_setting.items()):
        default = usual.get(name)
        # what is neither given nor tuned is another one for what else was given
        others = [f"--set {each}" for each in sorted(MEANT.get(name, set()) & config.overrides.keys())]
        other = next(iter(others), recipe or "--set retain")
        by = given.get(name) or ("--tuned" if config.tuning and value != default else "")
        yield PlannedSetting(name, value, default, by or ("" if value == default else other))


def _attack_settings(inputs: Inputs) -> Iterator[PlannedSetting]:
    """Every setting of the attacks, as `--set` names them."""
    usual = make_attacks([each.name for each in inputs.attacks], {}, inputs.session.world)
    for attack, default in zip(inputs.attacks, usual, strict=True):
        for name, value in attack.settings.items():
            key = f"{attack.name}.{name}"
            yield PlannedSetting(key, value, default.settings[name], "--set" if key in inputs.config.overrides else "")


def _methods(inputs: Inputs) -> list[Method]:
    """In the order of the run, each once."""
    found = [inputs.oracle] if inputs.models.retain else []
    found += [inputs.target] if inputs.models.target else []
    return [*found, *([] if any(each is inputs.method for each in found) else [inputs.method])]


def _row(inputs: Inputs, method: Method) -> PlannedRow:
    path = place_of(inputs, method)
    result = read_result(path) if path.exists() else None
    left = [each.name for each in inputs.attacks if result is None or not has(result, path, each)]
    again = method is inputs.method and (inputs.config.overwrite or inputs.config.keep_model)
    return PlannedRow(method.name, path.stem, result is not None and not again, left)


def _asked(inputs: Inputs, attack: Any) -> int:
    """How many rows each variant of an attack asks, those of the task's measures not counted."""
    needed = Needed.of(attack, inputs.task.sets, inputs.task.headline)
    counts = Counter(row.set for row in inputs.data.examples() if row.question or needed.texts)
    return sum(min(count, needed.rows.get(name, count)) for name, count in counts.items())


def _shapes(inputs: Inputs) -> LM:
    """The model of the run without its weights."""
    if inputs.session.world is TOY:
        lm = tiny_without_weights(bool(inputs.task.measures))
    else:
        lm = without_weights(str(inputs.models.source), inputs.session.placement)
    lm.prompts = prompts_under(inputs.config.protocol, lm, inputs.task.prompt)
    return lm


def _training(inputs: Inputs) -> tuple[PlannedTraining | None, Memory | None, list[str]]:
    """What is trained and what memory that takes; with notes on what cannot be said."""
    unlearner = inputs.method.unlearner
    if isinstance(unlearner, TaskVector):
        return _of_task_vector(inputs, unlearner), None, ["the memory of task-vector is not estimated."]
    if not isinstance(unlearner, Pair):
        why = f"{inputs.method.name} trains nothing" if _trains_nothing(inputs) else "no plan of its training is known"
        return None, None, [f"{why}: no steps, no memory of training."]
    return *_of_pair(inputs, unlearner), []


def _trains_nothing(inputs: Inputs) -> bool:
    return inputs.method.is_control or inputs.method.unlearner.beside is not None


def _of_task_vector(inputs: Inputs, unlearner: TaskVector) -> PlannedTraining:
    lm, requests = _shapes(inputs), inputs.data.requests(unlearner)
    batches = sum(-(-len(rows) // unlearner.batch_size) for rows in requests) * unlearner.epochs
    encoded = [each for rows in requests for each in lm.encoded(rows)]
    tokens = unlearner.epochs * sum(map(len, encoded))
    answers = unlearner.epochs * sum(len(each.answer) for each in encoded)
    return PlannedTraining(len(requests), batches, tokens, answers, False, lm.model.num_parameters())


def _of_pair(inputs: Inputs, pair: Pair) -> tuple[PlannedTraining, Memory | None]:
    data, config, placement = inputs.data, inputs.config, inputs.session.placement
    requests, retain = data.requests(pair), data.pairs("retain")
    stages = 1 if data.growing else len(requests)
    parts: list[Planned] = []
    counts: list[int] = []
    for rows in requests:
        lm = _shapes(inputs)
        parameters, found = planned(pair, lm, rows, retain, config.seed, config.trunk_cache, stages)
        counts.append(sum(each.numel() for each in parameters))
        parts.append(found)
    adds = stages > 1 and not pair.changes_model and _adds(pair)
    training = PlannedTraining(
        requests=len(requests),
        steps=sum(each.steps for each in parts),
        tokens=sum(each.tokens for each in parts),
        answer_tokens=sum(each.answer_tokens for each in parts),
        estimated=any(each.estimated for each in parts),
        parameters=sum(counts) if adds else counts[-1],
    )
    kind = "cuda" if placement.device.startswith("cuda") else "cpu"
    try:
        shape = Shape.of(lm.model.config)
    except KeyError:
        return training, None
    weights, rounded = Weights.of(_shapes(inputs).model), bool(placement.quantise)
    sizes = [training_memory(shape, weights, each.training, placement.dtype, rounded, kind) for each in parts]
    return training, max(sizes, key=lambda each: each.total)


def _adds(pair: Pair) -> bool:
    """Whether each request of a sequence trains parameters of its own."""
    from grun_bench.methods.adapters.grun import Grun

    return isinstance(pair.new_adapter(), Grun)


# ---- time, from rows that this machine made before


def _earlier(inputs: Inputs) -> Iterator[Result]:
    """Results of this model that were made on this machine in this way."""
    here = env.hardware() | {"device": inputs.session.placement.device, "dtype": inputs.session.placement.dtype}
    folder = model_folder(inputs.models.name)
    for path in result_files(inputs.config.output):
        if path.parts[-3] != folder:
            continue
        try:
            result = read_result(path)
        except GrunBenchError:
            continue
        if result.model == inputs.models.name and here.items() <= result.hardware.items() and not result.imported:
            yield result


def _estimate(what: str, values: Sequence[float], scale: float = 1.0) -> Estimate:
    if not values:
        return Estimate(None, f"no row there {what} on this machine")
    of = f"the median of {len(values)} rows" if len(values) > 1 else "one row"
    return Estimate(round(scale * statistics.median(values), 1), f"from {of} there")


def _of_training(inputs: Inputs, training: PlannedTraining | None, earlier: Sequence[Result]) -> Estimate:
    if training is None:
        return Estimate(None, "nothing is trained, or not in a known way")
    settings = inputs.method.unlearner.settings
    same = [
        row.cost.training_seconds / steps
        for row in earlier
        if (row.task, row.unlearner.name) == (inputs.task.name, inputs.method.name)
        and row.unlearner.settings.get("batch_size") == settings.get("batch_size")
        and (steps := max(map(len, row.history.values()), default=0))
    ]
    return _estimate("trained this unlearner on this task", same, training.steps)


def _of_scoring(examples: int, earlier: Sequence[Result]) -> Estimate:
    rates = []
    for row in earlier:
        scored = sum(part["rows"] for name, part in row.data.items() if ":" not in name and "rows" in part)
        if scored and not row.curves:
            rates.append(row.cost.scoring_seconds / scored)
    return _estimate("scored this model", rates, examples)


def _of_attack(name: str, earlier: Sequence[Result]) -> Estimate:
    return _estimate(f"was attacked with {name}", [row.attacks[name].seconds for row in earlier if name in row.attacks])
