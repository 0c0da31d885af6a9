"""The target and the retain model of a run, as its world has them: how they are loaded and what decides them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from grun_bench.core.cache import digest
from grun_bench.core.environment import cores, expanded
from grun_bench.core.errors import UsageError
from grun_bench.methods import tiny
from grun_bench.methods.made_models import FineTuned, load_tiny, tiny_is_made
from grun_bench.methods.saving import check_no_adapter
from grun_bench.models.lm import LM
from grun_bench.models.loading import Placement, load
from grun_bench.models.names import TINY, folder_of, hub_id
from grun_bench.models.places import content_of, folder_name, locate, pinned
from grun_bench.runs.config import RunConfig, label_of
from grun_bench.runs.data import Data
from grun_bench.runs.session import Session
from grun_bench.tasks.own import Own
from grun_bench.tasks.task import Task
from grun_bench.tasks.world import PUBLISHED, TOY


@dataclass(frozen=True)
class Made:
    """A model that is made here on first use: whether it is there, and in how many steps; None where that is not said
    before."""

    there: Callable[[], bool]
    steps: int | None = None


@dataclass(frozen=True)
class Models:
    """`name` is what rows call the model. `identity` is what decides the weights, as results have it.

    `target` or `retain` is None where there is no such model; `no_retain` then says why and what to do. `note` is what
    the user must know of these models.
    """

    name: str
    target: Callable[[], LM] | None
    retain: Callable[[], LM] | None
    identity: Mapping[str, Any]
    no_retain: str = ""
    note: str = ""
    #: one more model that knows the forget set or never saw it: from another seed, trained for a share of the epochs;
    #: None where models are published and not made here
    member: Callable[[bool, int, float], LM] | None = None
    #: whether target and retain model are made here, and neither is in the cache
    to_make: Callable[[], bool] = lambda: False
    #: what is made here, by role
    made: Mapping[str, Made] = field(default_factory=dict)
    #: the folder or the name of a model of the same shape and tokenizer; None for the toy model
    source: str | None = None
    #: where those lie that are folders by their paths, by content
    folders: Mapping[str, Path] = field(default_factory=dict)
    #: the device on which the one can be made while the other is; None where that would save no time
    beside: str | None = None


def choose_models(config: RunConfig, session: Session, task: Task, data: Data) -> Models:
    """The models that a run asks for; none is loaded. Raises ModelError or UsageError where it asks for none."""
    return _BY_WORLD[session.world.name](config, session, task, data)


def _toy(config: RunConfig, session: Session, task: Task, data: Data) -> Models:
    """The embedded model with and without the task's forget set."""
    if config.retain_model:
        raise UsageError(f"--retain-model {config.retain_model}: {TINY} has its own; add --model or --target.")
    if config.revision:
        raise UsageError(f"--revision {config.revision}: {TINY} has none; add --model or --target.")
    forget = task.sources["forget"][0].config
    # multiple-choice questions ask for the lore; authors alone make the model that the TOFU tasks have
    lore = bool(task.measures)
    target, retain = (partial(load_tiny, left_out, session.placement, lore) for left_out in (None, forget))

    def member(knows: bool, seed: int, share: float) -> LM:
        left_out, epochs = None if knows else forget, max(1, round(share * tiny.EPOCHS))
        return load_tiny(left_out, session.placement, lore, seed, epochs)

    note = f"{TINY}: a toy model in the embedded world ({task.name}); its rows never mix with real ones."
    return Models(
        TINY,
        target,
        retain,
        {TINY: digest(tiny.settings(lore))},
        note=note,
        member=member,
        to_make=lambda: not (tiny_is_made(None, lore) or tiny_is_made(forget, lore)),
        made={
            "target model": Made(lambda: tiny_is_made(None, lore)),
            "retain model": Made(lambda: tiny_is_made(forget, lore)),
        },
        # each is made by one thread
        beside="cpu" if cores() > 1 else None,
    )


def _published(config: RunConfig, session: Session, task: Task, data: Data) -> Models:
    """Models by name: a pair that the task knows, those that were given, or the base fine-tuned as the task says."""
    name, target, retain = _named(config, task)
    label = label_of(config)
    unknown = f"no retain model is known for {target or name}: give one with --retain-model."
    reason = session.world.no_retain or unknown
    if target in (None, name):
        name = pinned(name)
        target, first = target and name, content_of(locate(name))
    else:  # it is not loaded, so the Hub need not have it
        target, first = pinned(str(target)), content_of(folder) if (folder := folder_of(name)) else name
    retain = retain and pinned(retain)
    others = [content_of(locate(part)) for part in (target, retain) if part]
    identity: dict[str, Any] = {"names": [first, *others]}
    given = (name, *(part for part in (target, retain) if part))
    paths = {word: expanded(part) for part, word in zip(given, identity["names"], strict=True)}
    folders = {word: path for word, path in paths.items() if path.is_dir()}
    load_retain = partial(load, retain, session.placement) if retain else None
    if target is None and task.finetune is not None:
        tune = partial(
            FineTuned,
            name,
            recipe=task.finetune,
            seed=config.seed,
            placement=session.placement,
            protocol=config.protocol,
            private=task.private,
            template=task.prompt,
        )
        make_target = tune(role="target model", pairs=data.made_on("target"))
        make_retain = tune(role="retain model", pairs=data.made_on("retain"))
        return Models(
            label,
            make_target,
            load_retain or make_retain,
            identity | {"finetune": task.finetune.model_dump(), "seed": config.seed},
            member=partial(_finetuned_member, make_target, make_retain),
            to_make=lambda: not (load_retain or make_target.is_made() or make_retain.is_made()),
            made={
                each.role: Made(each.is_made, math.ceil(len(each.pairs) / each.recipe.batch_size) * each.recipe.epochs)
                for each in (make_target, *(() if load_retain else (make_retain,)))
            },
            source=name,
            folders=folders,
            # on one device, or on a processor's cores, each has as much to do as there is
            beside=None if session.placement.device_map else _other_gpu(session.placement.device),
        )
    load_target = partial(load, target or name, session.placement)
    return Models(label, load_target, load_retain, identity, reason, source=target or name, folders=folders)


def _finetuned_member(target: FineTuned, retain: FineTuned, knows: bool, seed: int, share: float) -> LM:
    recipe = target.recipe
    shorter = recipe.model_copy(update={"epochs": max(1, round(share * recipe.epochs))})
    return replace(target if knows else retain, recipe=shorter, seed=seed)()


def _other_gpu(device: str) -> str | None:
    """A GPU beside the one that a run has; None where there is none."""
    count = torch.cuda.device_count() if device.startswith("cuda") else 0
    return f"cuda:{((torch.device(device).index or 0) + 1) % count}" if count > 1 else None


def _named(config: RunConfig, task: Task) -> tuple[str, str | None, str | None]:
    """The model that was asked for and, where they are known, the target model that is run and its retain model.

    Raises ModelError for a saved adapter; UsageError where a revision is asked for of a model that is not run, or of
    what has none.
    """
    for given in (config.model, config.target_model, config.retain_model):
        if given and (folder := folder_of(given)):
            check_no_adapter(folder)
    config = _at_revision(config)
    name = config.model or str(config.target_model)
    plain = name if folder_of(name) else hub_id(name, f"; the embedded model is '{TINY}'")[0]
    known = next((pair for pair in task.models if plain in (pair.base, pair.target)), None)
    target = config.target_model or (known.target if known else None)
    if target not in (None, plain, name) and plain != name:
        raise UsageError(f"model {name}: {target} is run in its place; choose that one's commit with --target.")
    return name, name if target == plain else target, config.retain_model or (known.retain if known else None)


def _at_revision(config: RunConfig) -> RunConfig:
    """With the revision, if any, as part of the name of the model that it is of."""
    if config.revision is None:
        return config
    name = config.target_model or str(config.model)
    if folder_of(name):
        raise UsageError(f"--revision {config.revision}: {name} is a folder, and only models of the Hub have commits.")
    chosen = f"{hub_id(name)[0]}@{config.revision}"
    return replace(config, target_model=chosen) if config.target_model else replace(config, model=chosen)


def unnamed_models(model: PreTrainedModel, retain: str | None, placement: Placement) -> Models:
    """The references of a model in memory of which nobody says what it was unlearned from: a retain model, if given."""
    label = model.config.name_or_path or type(model).__name__
    label = folder_name(Path(label)) if Path(label).is_dir() else label
    reason = "nobody said what this model was unlearned from: give base or retain_model."
    retain = retain and pinned(retain)
    load_retain = partial(load, retain, placement) if retain else None
    return Models(label, None, load_retain, {"names": [content_of(locate(retain))] if retain else []}, reason)


_BY_WORLD: dict[str, Callable[[RunConfig, Session, Task, Data], Models]] = {
    TOY.name: _toy,
    PUBLISHED.name: _published,
    Own.name: _published,
}
