"""The way in to a run, from Python and from the command line: what can be refused is refused, then torch is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from grun_bench.core import processes, registry
from grun_bench.core.calls import working
from grun_bench.core.errors import UsageError, unknown
from grun_bench.core.given import PATH, SETTINGS, TEXT, Given, check_device, check_dtype, instance
from grun_bench.integrations.trackers import tracker_names
from grun_bench.results.protocol_names import PROTOCOLS
from grun_bench.runs.config import RunConfig
from grun_bench.runs.early import check_libraries, check_models, check_settings, check_tuned
from grun_bench.runs.folders import check_found
from grun_bench.runs.given_types import check_given
from grun_bench.runs.own import check_own, own_defaults, own_world, remember
from grun_bench.tasks.yaml_files import task_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from grun_bench.models.depth import Depth
    from grun_bench.results.result import Result
    from grun_bench.runs.outcome import Outcome
    from grun_bench.runs.plan import Plan
    from grun_bench.runs.pools import Pools
    from grun_bench.tasks.task import Task

#: what weights of a base can be rounded to
CODES = ("nf4", "fp4")
_TASK = Given(
    lambda value: (TEXT.fits(value) and not value) or PATH.fits(value), "a task's name or the path of its YAML"
)
_KINDS = {
    Path: ("output", "save", "retain_log", "forget", "keep", "neighbours", "tuning"),
    str: ("model", "target_model", "retain_model", "writer"),
}
_OF_EVALUATE = (
    *("target_model", "retain_model", "retain_log", "attacks", "seed", "limit", "protocol", "scoring_batch_size"),
    *("attack_sets", "include", "trust_remote_code"),
)


def run(unlearner: str, task: str | Path = "", *, settings: Mapping[str, Any] | None = None, **options: Any) -> Outcome:
    """Unlearn, score and file one unlearner on one task; a row that is filed already is read, not made again.

    `unlearner`: `adapter+objective`, as in `grun+npo`, or the name of a method that is no such pair. `task`: a task's
    name or the path of its YAML; or, in its place, `forget` and what goes with it. Options, all of them fields of
    `grun_bench.runs.config.RunConfig`:

    - `forget`: own rows, a file (`.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet`) or a folder of `.txt` and `.md`; with
      it `keep`, rows to keep (`--retain`), `neighbours`, rows near to the first that are to be kept, `columns`, ours ->
      theirs (`{"question": "Q"}`), `private` (True: their texts stay on this machine), `utility`, names of lm-eval's
      tasks, and `augment`: the model, or `writer`, writes paraphrases and wrong answers that they lack. They are
      attacked as a user could, unless `attacks` is "none", and filed in `results`, not among the package's.
    - `model`: a Hub id or a folder; None is `tiny`, the toy model. `target_model`, `retain_model`: fine-tuned already,
      with and without the forget set; `retain_log`: a published log in place of a retain model. `revision`: a branch,
      tag or commit of the target model on the Hub, else of the model; `<org>/<name>@<revision>` names one too.
    - `attacks`: `all`, or names; they are made on the target and the retain model too. `attack_sets`: those of them
      that ask every scored set, and not what their headline needs alone.
    - `tuning`: where `grun-bench tune` left settings of this unlearner, its folder or a `tuning.jsonl`.
    - `output`: the folder of results. `save`: one for the unlearned model. `keep_model`: it stays in memory, as
      `Outcome.model`. For either of the two a row that is filed is made again, as with `overwrite`.
    - `strengths`: score the unlearned model at these too, as 0.5 (half of what was unlearned) or 1.5, in a curve of
      forgetting against utility from the one training: `Outcome.result.curves["strengths"]`.
    - `device_map`: how accelerate spreads a model that is larger than a device: `auto`, or part -> device, cpu or disk.
      `quantise`: `nf4` or `fp4`, the weights of models in four bits, with the adapter in full precision.
    - `seed`, `limit` (the first rows of each data set: a smoke test), `protocol`, `device`, `dtype`,
      `scoring_batch_size`, `eval_every`, `trunk_cache`, `trust_remote_code`: as on the command line.
    - `track`: experiment trackers to follow it in, `tensorboard`, `wandb`, `trackio` or `mlflow`, one or more.
    - `include`: plugin files, and folders of plugins and task files, for this run alone.

    Any other keyword is a setting of the unlearner, as `--set` takes it: `lr=1e-4, batch_size=8`. `settings` holds them
    too, and those of attacks as `<attack>.<setting>`: `{"suffix.phrases": {"a": "Now."}}`.

    Raises GrunBenchError: UsageError for what was asked for wrongly; its DataError and ModelError for what cannot be
    had. Training that diverges raises nothing: `Outcome.result.status` says so.
    """
    TEXT.check("unlearner", unlearner)
    SETTINGS.check("settings", settings or {})
    known = {each.name for each in fields(RunConfig)} - {"unlearner", "task", "overrides", "tuned"}
    own = {key: options.pop(key) for key in list(options) if key not in known}
    if twice := own.keys() & (settings or {}).keys():
        raise UsageError(f"{', '.join(sorted(twice))}: given twice, as a keyword and in settings.")
    return run_config(_config(unlearner, task, dict(settings or {}) | own, options))


@working()
def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: str | Path,
    *,
    name: str = "in-memory",
    base: str | None = None,
    output: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Outcome:
    """Score a Hugging Face causal language model in memory that somebody else unlearned, as `run` scores its own.

    The model stays where and as it is. `name` is what its row is called. `base` is what it was unlearned from, as `run`
    takes it for `model`: it says where the target and the retain model come from (`tiny`: the toy world's). They are
    scored too, so that metrics that compare with them have values. Without `base`, `target_model`, `retain_model` or
    `retain_log` those are None, with the reason in `Outcome.result.reasons`.

    Nothing is filed unless `output` names a folder. `settings` are those of attacks, `<attack>.<setting>`. Options are
    those of `run` that are of no training and no loading: `target_model`, `retain_model`, `retain_log`, `attacks`,
    `seed`, `limit`, `protocol`, `scoring_batch_size`, `include`, `trust_remote_code`.

    Raises GrunBenchError as `run` does.
    """
    TEXT.check("name", name)
    SETTINGS.check("settings", settings or {})
    if odd := [key for key in options if key not in _OF_EVALUATE]:
        raise unknown("option of evaluate", odd[0], _OF_EVALUATE)
    if odd := [key for key in settings or {} if "." not in key]:
        raise UsageError(f"setting '{odd[0]}': nothing is trained; an attack's is written <attack>.{odd[0]}.")
    with nullcontext(output) if output is not None else TemporaryDirectory(prefix="grun-bench-") as folder:
        config = _config("", task, settings or {}, options | {"model": base, "output": folder})
        check(config)
        with loaded(from_hub=True):
            from torch import nn
            from transformers import PreTrainedTokenizerBase

            from grun_bench.runs import run as phases

            instance(nn.Module, "a model of Hugging Face's").check("model", model)
            instance(PreTrainedTokenizerBase, "a tokenizer of Hugging Face's").check("tokenizer", tokenizer)
            return phases.evaluate(replace(config, unlearner=name), model, tokenizer)


def _config(unlearner: str, task: str | Path, settings: Mapping[str, Any], options: Mapping[str, Any]) -> RunConfig:
    """What a caller asked for: paths may be text, folders of models paths, and names of attacks a list."""
    _TASK.check("task", task)
    check_given(options)
    given = dict(options)
    for kind, names in _KINDS.items():
        given |= {name: kind(given[name]) for name in names if given.get(name) is not None}
    given["strengths"] = tuple(given.get("strengths", ()))
    for name in ("attacks", "attack_sets", "utility", "track"):
        if not isinstance(given.get(name, ""), str):
            given[name] = ",".join(given[name])
    given["include"] = tuple(map(Path, given.get("include", ())))
    return own_defaults(RunConfig(unlearner=unlearner, task=str(task), overrides=settings, **given))


@working()
def run_config(config: RunConfig) -> Outcome:
    """Run one unlearner on one task. Raises GrunBenchError, and nothing else that is expected."""
    processes.join(config.device, bool(config.device_map))
    check(config)
    with loaded(from_hub=bool(config.model or config.target_model)):
        from grun_bench.runs import run as phases

        return phases.run(config)


@working()
def plan(config: RunConfig) -> Plan:
    """What `run_config` would do, before any weight is touched; nothing is written. Raises as that does."""
    processes.refuse("run --dry-run")
    check(config, writes=False)
    with loaded(from_hub=bool(config.model or config.target_model)):
        from grun_bench.runs.plan import plan_of

        return plan_of(config)


@working()
def attack_row(config: RunConfig, result: Result, saved: Path | None = None) -> Outcome:
    """Attack the model of a filed row: see `grun_bench.runs.run.attack_row`."""
    processes.join(config.device, bool(config.device_map))
    if saved is not None:
        from grun_bench.methods.saving import read_card

        read_card(saved)
    check_found(config, result)
    check(config)
    with loaded(from_hub=bool(config.model or config.target_model)):
        from grun_bench.runs import run as phases

        return phases.attack_row(config, result, saved)


@working()
def pools(task: str, folder: Path, seeds: Sequence[int], shares: Sequence[float], **options: Any) -> Pools:
    """The pools of `meta-eval`: see `grun_bench.runs.pools.make_pools`. Options are fields of RunConfig."""
    processes.refuse("meta-eval")
    config = RunConfig(unlearner=registry.control("target"), task=task, **options)
    check(config)
    with loaded(from_hub=bool(config.model)):
        from grun_bench.runs.pools import make_pools

        return make_pools(config, folder, seeds, shares)


@working()
def erasure_depth(
    model: str, target: str, retain: str, entities: Sequence[Mapping[str, Any]], device: str = "auto"
) -> list[Depth | None]:
    """How deep a model forgot entities, each `question`, `answer` and `entity`: see `grun_bench.models.depth`.

    Models by Hub id or folder, the first also as `--save` leaves it. Raises ModelError and UsageError.
    """
    with loaded(from_hub=True):
        from grun_bench.methods.saving import CARD, load
        from grun_bench.models import loading
        from grun_bench.models.depth import Entity, depths

        placement = loading.Placement.choose(device, "auto")
        own = load(model, device) if (Path(model) / CARD).exists() else loading.load(model, placement)
        rows = [Entity(row["question"], row["answer"], row["entity"]) for row in entities]
        return depths(own, loading.load(target, placement), loading.load(retain, placement), rows)


@contextmanager
def loaded(from_hub: bool) -> Iterator[None]:
    """Loads what takes seconds. In this block the Hub's libraries keep to their cache where it cannot be reached."""
    from grun_bench.core.patches import offline_if_unreachable

    with offline_if_unreachable() if from_hub else nullcontext():
        from grun_bench.core.progress import waiting

        with waiting("loading torch and transformers"):
            import grun_bench.runs.run  # noqa: F401
        yield


def check(config: RunConfig, writes: bool = True) -> None:
    """Raises UsageError for what can be refused before anything is loaded: names, and folders not to write in.

    Makes the folders, unless nothing is to be written. An `unlearner` that is yet to come may be empty.
    """
    check_dtype(config.dtype)
    check_device(config.device)
    if config.protocol not in PROTOCOLS:
        raise unknown("protocol", config.protocol, PROTOCOLS)
    if config.quantise and config.quantise not in CODES:
        raise unknown("--quantise", config.quantise, CODES)
    if config.strengths:
        from grun_bench.metrics.strengths import percents

        percents(config.strengths)
    tracker_names(config.track)
    check_own(config)
    with registry.including(config.include):
        if config.unlearner:
            registry.parse_unlearner(config.unlearner)
        # a wrong name is told before what reads a task is loaded
        file = None if config.forget else task_file(config.task, config.include)
        for names in filter(None, (config.attacks, config.attack_sets)):
            registry.attack_names(names, ())
        task = _task(config, file, writes)
        attacks = registry.attack_names(config.attacks, task.attacks) if config.attacks else []
        check_libraries(config, attacks)
        check_settings(config, attacks)
        check_models(config)
        if config.unlearner:
            check_tuned(config, task.name)
    if writes:
        _check_folders(config)


def _task(config: RunConfig, file: Path | None, writes: bool) -> Task:
    """The task in a file, or that of own rows."""
    if file is not None:
        from grun_bench.tasks.task import load_task

        return load_task(str(file))
    world = own_world(config)
    if writes:
        remember(world)
    return world.load("")


def _check_folders(config: RunConfig) -> None:
    """Makes the folders that are written in. Raises UsageError where that cannot be."""
    from grun_bench.core.files import check_writable

    check_writable(config.output)
    if config.save:
        from grun_bench.methods.saving import check_new

        check_new(config.save, config.output)
