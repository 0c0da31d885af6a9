"""The target and the retain model of a run, as its world has them: how they are loaded and what decides them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from grun_bench.core.cache import digest
from grun_bench.core.errors import UsageError
from grun_bench.methods import tiny
from grun_bench.methods.made_models import load_finetuned, load_tiny
from grun_bench.models.lm import LM
from grun_bench.models.loading import Placement, folder_name, load, locate, weights_sha256
from grun_bench.runs.config import RunConfig
from grun_bench.runs.data import Data
from grun_bench.runs.session import Session
from grun_bench.tasks.task import Task
from grun_bench.tasks.world import PUBLISHED, TINY, TOY, World


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


def choose_models(config: RunConfig, session: Session, task: Task, data: Data) -> Models:
    """The models that a run asks for; none is loaded. Raises ModelError or UsageError where it asks for none."""
    return _BY_WORLD[session.world](config, session, task, data)


def _toy(config: RunConfig, session: Session, task: Task, data: Data) -> Models:
    """The embedded model with and without the task's forget set."""
    if config.retain_model:
        raise UsageError(f"--retain {config.retain_model}: {TINY} has its own; add --model or --target.")
    forget = task.sources["forget"][0].config
    # multiple-choice questions ask for the lore; authors alone make the model that the TOFU tasks have
    lore = bool(task.measures)
    target, retain = (partial(load_tiny, left_out, session.placement, lore) for left_out in (None, forget))
    note = f"{TINY}: a toy model in the embedded world ({task.name}); its rows never mix with real ones."
    return Models(TINY, target, retain, {TINY: digest(tiny.settings(lore))}, note=note)


def _published(config: RunConfig, session: Session, task: Task, data: Data) -> Models:
    """Models by name: a pair that the task knows, those that were given, or the base fine-tuned as the task says."""
    name = config.model or str(config.target_model)
    known = next((pair for pair in task.models if name in (pair.base, pair.target)), None)
    target = config.target_model or (known.target if known else None)
    retain = config.retain_model or (known.retain if known else None)
    folder = locate(name, f"; the embedded model is '{TINY}'")
    label = folder_name(folder) if isinstance(folder, Path) and Path(name).is_dir() else name
    identity: dict[str, Any] = {"names": [_identity(part) for part in (name, target, retain) if part]}
    load_retain = partial(load, retain, session.placement) if retain else None
    if target is None and task.finetune is not None:
        tune = partial(
            load_finetuned,
            name,
            recipe=task.finetune,
            seed=config.seed,
            placement=session.placement,
            protocol=config.protocol,
        )
        kept = data.pairs("retain")
        return Models(
            label,
            partial(tune, role="target model", pairs=data.pairs("forget") + kept),
            load_retain or partial(tune, role="retain model", pairs=kept),
            identity | {"finetune": task.finetune.model_dump(), "seed": config.seed},
        )
    target = target or name
    reason = f"no retain model is known for {target}: give one with --retain."
    return Models(label, partial(load, target, session.placement), load_retain, identity, reason)


def unnamed_models(model: PreTrainedModel, retain: str | None, placement: Placement) -> Models:
    """The references of a model in memory of which nobody says what it was unlearned from: a retain model, if given."""
    label = model.config.name_or_path or type(model).__name__
    label = folder_name(Path(label)) if Path(label).is_dir() else label
    reason = "nobody said what this model was unlearned from: give base or retain_model."
    load_retain = partial(load, retain, placement) if retain else None
    return Models(label, None, load_retain, {"names": [_identity(retain)] if retain else []}, reason)


_BY_WORLD: dict[World, Callable[[RunConfig, Session, Task, Data], Models]] = {TOY: _toy, PUBLISHED: _published}


def _identity(name: str) -> str:
    place = locate(name)
    return weights_sha256(place) if isinstance(place, Path) else name
